"""A backend that encrypts bodies and values of metadata, and stores them in another one."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from agent_stores import _json
from agent_stores._encrypted import PREFIX
from agent_stores.backend import (
    Backend,
    Limits,
    ListCursor,
    ListedThread,
    Row,
    Snapshot,
    Thread,
    ThreadKey,
    ThreadOrder,
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
from agent_stores.encryption.envelope import decode_envelope, envelope_of
from agent_stores.encryption.key_ring import KeyRing
from agent_stores.errors import ArgumentError, EncryptionKeyError, MessageTooLargeError

_OVERHEAD = 1024  # bytes of an envelope without its data, with a long message id
_METADATA_BYTES = 262_144  # of encrypted metadata; every server stores that much in a thread
_decoder = msgspec.json.Decoder(Any)

DAMAGED = b"damaged: the message is encrypted, and was changed or moved"
"""The body of a row that cannot be decrypted although the key is right; it is not a message."""


def _place(kind: str, key: ThreadKey, name: str) -> bytes:
    return json.dumps([kind, *key]).encode() + name.encode(errors="surrogatepass")


class EncryptedBackend:
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

    def __init__(self, inner: Backend, keys: KeyRing) -> None:
        self.inner = inner
        self.keys = keys

    @property
    def location(self) -> str:
        """See `Backend.location`."""
        return self.inner.location

    @property
    def limits(self) -> Limits:
        """See `Backend.limits`; the largest body is that of a message before its encryption."""
        limits = self.inner.limits
        if limits.body_bytes is None:
            return limits
        return replace(limits, body_bytes=max(0, (limits.body_bytes - _OVERHEAD) * 3 // 4))

    @property
    def supports_inline(self) -> bool:
        """See `Backend`."""
        return getattr(self.inner, "supports_inline", False)

    @property
    def loop_independent(self) -> bool:
        """See `Backend`."""
        return getattr(self.inner, "loop_independent", False)

    async def seal(self, key: ThreadKey, rows: Sequence[Row]) -> list[Row]:
        """Encrypt the bodies of rows that are about to be written to a thread.

        Raises:
            MessageTooLargeError: when an encrypted body is larger than the server can store.
        """
        limit = self.inner.limits.body_bytes
        sealed = []
        for row in rows:
            place = _place("message", key, row.message_id)
            body = _json.encode(self.keys.encrypt(row.body, place, row.message_id))
            if limit is not None and len(body) > limit:
                raise MessageTooLargeError(
                    f"message {row.message_id!r} must be at most {limit} bytes when it is encrypted, "
                    f"got {len(body)}; nothing was written",
                    size=len(body),
                    limit=limit,
                )
            sealed.append(replace(row, body=body, bytes=len(body)))
        return sealed

    async def open(self, key: ThreadKey, rows: Sequence[Row]) -> list[Row]:
        """Decrypt the bodies of rows; one that was damaged or moved gets the body `DAMAGED`.

        Raises:
            EncryptionKeyError: when a key is missing or wrong, or a body is not encrypted and must be.
        """
        opened: list[Row] = []
        seen: set[str] = set()
        place = _place("message", key, "")
        for row in rows:
            if not row.body.startswith(PREFIX):
                if row.body and not self.keys.allow_plaintext:
                    raise EncryptionKeyError(
                        f"the message at position {row.position} of thread {key.thread_id!r} is not "
                        "encrypted, and allow_plaintext is False"
                    )
                opened.append(row)
                continue
            envelope = decode_envelope(row.body)
            body: bytes | None = None
            message_id = "" if envelope is None else envelope.id.decode(errors="surrogatepass")
            if envelope is not None and message_id not in seen and row.message_id in ("", message_id):
                body = self.keys.decrypt(envelope, place + envelope.id)
                if body is not None:
                    seen.add(message_id)
            opened.append(replace(row, body=DAMAGED if body is None else body))
        return opened

    def seal_metadata(self, key: ThreadKey, thread: Thread) -> Thread:
        """Encrypt the values of a thread's metadata; those that could not be decrypted stay as they are.

        Raises:
            ArgumentError: when there are too many of them.
        """
        if not thread.metadata:
            return thread
        sealed = {
            name: value if envelope_of(value) else self._seal_value(key, name, value)
            for name, value in thread.metadata.items()
        }
        size = len(_json.encode(sealed))
        if size > _METADATA_BYTES:
            raise ArgumentError(f"metadata must be at most {_METADATA_BYTES} bytes encrypted, got {size}")
        return replace(thread, metadata=sealed)

    def open_metadata(self, key: ThreadKey, thread: Thread, *, strict: bool = False) -> Thread:
        """Decrypt the values of a thread's metadata; one that cannot be decrypted stays encrypted.

        So the thread can still be deleted. `MessageLog.stats` raises for such a value, as `strict` does.
        """
        if not thread.metadata:
            return thread
        values = {n: self._open_value(key, n, value, strict) for n, value in thread.metadata.items()}
        return replace(thread, metadata=values)

    def _seal_value(self, key: ThreadKey, name: str, value: Any) -> Any:
        envelope = self.keys.encrypt(_json.encode(value), _place("metadata", key, name))
        return msgspec.to_builtins(envelope)

    def _open_value(self, key: ThreadKey, name: str, value: Any, strict: bool) -> Any:
        envelope = envelope_of(value)
        if envelope is None:
            return value
        try:
            plain = self.keys.decrypt(envelope, _place("metadata", key, name))
        except EncryptionKeyError:
            if strict:
                raise
            return value
        return value if plain is None else _json.decode(plain, _decoder, Any)

    async def load(self, key: ThreadKey) -> Snapshot | None:
        """See `Backend.load`."""
        found = await self.inner.load(key)
        return found and found._replace(thread=self.open_metadata(key, found.thread))

    async def rows(
        self,
        key: ThreadKey,
        *,
        after: int = 0,
        before: int | None = None,
        limit: int | None = None,
        newest: bool = False,
        bodies: bool = True,
        staged: bool = False,
    ) -> Snapshot | None:
        """See `Backend.rows`."""
        found = await self.inner.rows(
            key, after=after, before=before, limit=limit, newest=newest, bodies=bodies, staged=staged
        )
        if found is None:
            return None
        rows = await self.open(key, found.rows) if bodies else found.rows
        return Snapshot(self.open_metadata(key, found.thread), found.version, rows)

    async def find(self, key: ThreadKey, message_ids: Sequence[str]) -> dict[str, Row]:
        """See `Backend.find`."""
        return await self.inner.find(key, message_ids)

    async def commit(
        self,
        key: ThreadKey,
        thread: Thread | None,
        *,
        expected: Version | None,
        put: Sequence[Row] = (),
        delete: Sequence[Row] = (),
        clear: bool = False,
    ) -> Version | None:
        """See `Backend.commit`; the rows to put were encrypted by `seal`."""
        sealed = thread and self.seal_metadata(key, thread)
        return await self.inner.commit(key, sealed, expected=expected, put=put, delete=delete, clear=clear)

    async def threads(
        self,
        tenant: str | None,
        *,
        prefix: str = "",
        after: ListCursor | None = None,
        limit: int = 100,
        order: ThreadOrder = "id",
        expired_before: int | None = None,
    ) -> list[ListedThread]:
        """See `Backend.threads`."""
        listed = await self.inner.threads(
            tenant, prefix=prefix, after=after, limit=limit, order=order, expired_before=expired_before
        )
        return [item._replace(thread=self.open_metadata(item.key, item.thread)) for item in listed]

    async def aclose(self) -> None:
        """See `Backend.aclose`."""
        await self.inner.aclose()


def encrypted(inner: Backend, keys: KeyRing) -> EncryptedBackend:
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
            return await backend.open(key, await reader.latest(key, limit, now_us=now_us))

        backend.latest = latest
    return backend
