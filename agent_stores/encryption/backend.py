"""A backend that encrypts bodies and values of metadata, and stores them in another one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from agent_stores import _json
from agent_stores._encrypted import MARKER, PREFIX, UNREADABLE, is_marked
from agent_stores.backend import (
    Backend,
    Change,
    Limits,
    ListedThread,
    Row,
    RowRange,
    Snapshot,
    Thread,
    ThreadKey,
    ThreadQuery,
    Version,
)
from agent_stores.capabilities import (
    Appender,
    ChangeNotifier,
    LatestReader,
    Subscription,
    Sweeper,
    TenantLister,
)
from agent_stores.encryption.ciphers import Ciphers, Keys
from agent_stores.encryption.ciphertext import decode_ciphertext, encode_name, place_of, to_ciphertext
from agent_stores.errors import ArgumentError, EncryptionKeyError, MessageTooLargeError
from agent_stores.wrapped_backend import WrappedBackend

_OVERHEAD = 1024  # bytes of a ciphertext without its data
_METADATA_BYTES = 262_144  # of encrypted metadata; every server stores that much in a thread
_MOST_CHECKED = 10_000  # threads
_decoder = msgspec.json.Decoder(Any)

DAMAGED = b"damaged: the message is encrypted, and was changed or moved"
"""The body of a row that cannot be decrypted although the key is right; it is not a message."""


class EncryptedBackend(WrappedBackend):
    """Encrypts what it stores in another backend; message ids, positions, sizes and times stay readable.

    The log encrypts rows by `seal` before an operation, so that sizes count the encrypted bodies.

    Args:
        inner: the database.
        keys: the keys.
    """

    search_refusal = "cannot search: the messages are encrypted"

    # Capabilities, set by `encrypted` where the database has them; see `agent_stores.capabilities`.
    append: Callable[..., Awaitable[int | None]]
    latest: Callable[..., Awaitable[list[Row]]]
    tenants: Callable[..., Awaitable[list[str | None]]]
    sweep: Callable[..., Awaitable[int]]
    subscribe: Callable[..., Awaitable[Subscription | None]]

    def __init__(self, inner: Backend, keys: Keys) -> None:
        super().__init__(inner)
        self.keys = keys
        self._checked: dict[ThreadKey, None] = {}  # threads whose keys these are, oldest first

    @property
    def limits(self) -> Limits:
        """See `Backend.limits`; the largest body is that of a message before its encryption."""
        limits = self.inner.limits
        if limits.body_bytes is None:
            return limits
        return replace(limits, body_bytes=max(0, (limits.body_bytes - _OVERHEAD) * 3 // 4))

    @property
    def supports_inline(self) -> bool:
        """See `Backend`; keys that a service unwraps may have to be waited for."""
        return self.keys.supports_inline and super().supports_inline

    @property
    def loop_independent(self) -> bool:
        """See `Backend`."""
        return self.keys.loop_independent and super().loop_independent

    # -- rows ---------------------------------------------------------------------------------------------

    async def seal(self, key: ThreadKey, rows: Sequence[Row]) -> list[Row]:
        """Encrypt the bodies of rows that are about to be written to a thread.

        Raises:
            MessageTooLargeError: when an encrypted body is larger than the server can store.
            EncryptionKeyError: as `check_thread` does.
        """
        await self.check_thread(key)
        ciphers = self.keys.cached(key) or await self.keys.for_writing(key)
        sealed = encrypt_rows(ciphers, key, rows)
        limit = self.inner.limits.body_bytes
        if limit is not None:
            for row in sealed:
                if row.bytes > limit:
                    what = f"message {row.message_id!r}"
                    raise MessageTooLargeError.of(what, row.bytes, limit, form="when it is encrypted")
        return sealed

    async def check_thread(self, key: ThreadKey) -> None:
        """Check, before a thread is written, that the newest message is encrypted with one of the keys.

        A thread that was read or written before is not read again: that costs a round trip.

        Raises:
            EncryptionKeyError: when it is not: with a wrong key nothing is added, overwritten or trimmed.
        """
        if key in self._checked:
            return
        found = await self.inner.rows(key, RowRange(limit=1, newest=True))
        for row in found.rows if found else ():
            if row.body.startswith(PREFIX) and (ciphertext := decode_ciphertext(row.body)):
                (await self.keys.for_reading(key, {ciphertext.key})).check(ciphertext)
        self._note_checked(key)

    def _note_checked(self, key: ThreadKey) -> None:
        if len(self._checked) >= _MOST_CHECKED:
            for oldest in list(self._checked)[: _MOST_CHECKED // 2]:
                self._checked.pop(oldest, None)
        self._checked[key] = None

    async def open(self, key: ThreadKey, rows: Sequence[Row]) -> list[Row]:
        """Decrypt the bodies of rows; one that was damaged or moved gets the body `DAMAGED`.

        Raises:
            EncryptionKeyError: when a key is missing or wrong, or a body is not encrypted and must be.
        """
        ciphers = self.keys.cached(key)
        opened = None if ciphers is None else ciphers.decrypt_rows(place_of("message", key), rows)
        if opened is None:
            opened = await self._open_each(key, rows)
        if opened and key not in self._checked:
            self._note_checked(key)
        return opened

    async def _open_each(self, key: ThreadKey, rows: Sequence[Row]) -> list[Row]:
        place = place_of("message", key)
        found = {row.position: decode_ciphertext(row.body) for row in rows if row.body.startswith(PREFIX)}
        ciphers: Ciphers | None = None
        if key_ids := {each.key for each in found.values() if each}:
            ciphers = await self.keys.for_reading(key, key_ids)
        opened = []
        for row in rows:
            ciphertext = found.get(row.position)
            if row.position in found:
                body = None
                if ciphertext and ciphers:
                    body = ciphers.decrypt(ciphertext, place + encode_name(row.message_id))
                opened.append(replace(row, body=DAMAGED if body is None else body))
                continue
            if row.body and not self.keys.allow_plaintext:
                raise EncryptionKeyError(
                    f"the message at position {row.position} of thread {key.thread_id!r} is not "
                    "encrypted, and allow_plaintext is False"
                )
            opened.append(row)
        return opened

    # -- metadata -----------------------------------------------------------------------------------------

    async def seal_metadata(self, key: ThreadKey, thread: Thread) -> Thread:
        """Encrypt the values of a thread's metadata; those that could not be decrypted stay as they are.

        Raises:
            ArgumentError: when there are too many of them.
            EncryptionKeyError: when the thread's key was destroyed.
        """
        if not thread.metadata:
            return thread
        ciphers: Ciphers | None = None
        sealed: dict[str, Any] = {}
        for name, value in thread.metadata.items():
            if is_marked(value):
                sealed[name] = value["stored"] if value[MARKER] == UNREADABLE else value
                continue
            ciphers = ciphers or self.keys.cached(key) or await self.keys.for_writing(key)
            (document,) = ciphers.encrypt_all(place_of("metadata", key), [(name, _json.encode(value))])
            sealed[name] = _decoder.decode(document)
        size = len(_json.encode(sealed))
        if size > _METADATA_BYTES:
            raise ArgumentError(f"metadata must be at most {_METADATA_BYTES} bytes encrypted, got {size}")
        return replace(thread, metadata=sealed)

    async def open_metadata(self, key: ThreadKey, thread: Thread) -> Thread:
        """Decrypt the values of a thread's metadata.

        A value whose key is missing stays encrypted, and one that no key makes readable is marked
        (`UNREADABLE`), so that the thread can still be found and deleted. `MessageLog.stats` raises for both.
        """
        if not thread.metadata:
            return thread
        values = {n: await self._open_value(key, n, value) for n, value in thread.metadata.items()}
        return replace(thread, metadata=values)

    async def _open_value(self, key: ThreadKey, name: str, value: Any) -> Any:
        if not is_marked(value):
            return value if self.keys.allow_plaintext else _unreadable(value, "not encrypted")
        ciphertext = to_ciphertext(value)
        if ciphertext is None:
            return _unreadable(value, "damaged")
        try:
            ciphers = await self.keys.for_reading(key, {ciphertext.key})
            plain = ciphers.decrypt(ciphertext, place_of("metadata", key) + encode_name(name))
        except EncryptionKeyError:
            return value
        return _unreadable(value, "damaged") if plain is None else _json.decode(plain, _decoder, Any)

    # -- the contract -------------------------------------------------------------------------------------

    async def load(self, key: ThreadKey) -> Snapshot | None:
        """See `Backend.load`."""
        found = await self.inner.load(key)
        return found and found._replace(thread=await self.open_metadata(key, found.thread))

    async def rows(self, key: ThreadKey, wanted: RowRange) -> Snapshot | None:
        """See `Backend.rows`."""
        found = await self.inner.rows(key, wanted)
        if found is None:
            return None
        rows = await self.open(key, found.rows) if wanted.bodies else found.rows
        return Snapshot(await self.open_metadata(key, found.thread), found.version, rows)

    async def commit(self, key: ThreadKey, change: Change) -> Version | None:
        """See `Backend.commit`; the rows to put were encrypted by `seal`."""
        if change.thread is not None:
            change = replace(change, thread=await self.seal_metadata(key, change.thread))
        return await self.inner.commit(key, change)

    async def threads(self, query: ThreadQuery) -> list[ListedThread]:
        """See `Backend.threads`."""
        listed = await self.inner.threads(query)
        if query.expired_before is not None:  # to be purged, not shown
            return listed
        return [item._replace(thread=await self.open_metadata(item.key, item.thread)) for item in listed]


def encrypt_rows(ciphers: Ciphers, key: ThreadKey, rows: Sequence[Row]) -> list[Row]:
    """Rows with encrypted bodies, and the sizes of those."""
    named = [(row.message_id, row.body) for row in rows]
    bodies = ciphers.encrypt_all(place_of("message", key), named)
    return [replace(row, body=body, bytes=len(body)) for row, body in zip(rows, bodies, strict=True)]


def _unreadable(value: Any, why: str) -> dict[str, Any]:
    return {MARKER: UNREADABLE, "stored": value, "why": why}


def encrypted(inner: Backend, keys: Keys) -> EncryptedBackend:
    """An encrypting backend with those capabilities of `inner` that encryption leaves possible.

    Without search, and without copies on the server: a ciphertext does not open in another thread.
    """
    backend = EncryptedBackend(inner, keys)
    # Rows come encrypted from `seal`, so these need no work here.
    if isinstance(inner, Appender):
        backend.append = inner.append
    if isinstance(inner, TenantLister):
        backend.tenants = inner.tenants
    if isinstance(inner, Sweeper):
        backend.sweep = inner.sweep
    if isinstance(inner, ChangeNotifier):
        backend.subscribe = inner.subscribe
    if isinstance(inner, LatestReader):
        reader = inner

        async def latest(key: ThreadKey, limit: int | None, *, now_us: int) -> list[Row]:
            return await backend.open(key, await reader.latest(key, limit, now_us=now_us, ids=True))

        backend.latest = latest
    return backend
