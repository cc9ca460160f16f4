"""A backend that stores large data of messages elsewhere, and the rest in another backend.

It is a backend around another one, as encryption is, and not a part of the store or of a codec: every way of
writing a message ends in `seal`, and every way of reading one in `rows`, `latest` or `search`. So it serves
every database, store and plug-in alike, and around an encrypted backend it sees messages in the clear.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from msgspec.structs import replace

from agent_stores._attached import ADDRESS, PREFIX
from agent_stores._encrypted import key_check
from agent_stores.attachments.bodies import addresses_in, may_have_data, with_addresses, with_data
from agent_stores.attachments.bodies import without_prefix as lazily
from agent_stores.attachments.files import Files, check_of
from agent_stores.attachments.rekeying import FileRekeying
from agent_stores.attachments.settings import Attachments
from agent_stores.attachments.sweeping import Sweeper
from agent_stores.backend import Backend, Limits, Row, RowRange, Snapshot, ThreadKey
from agent_stores.capabilities import LatestReader, SearchableBackend, SearchHit, SearchQuery
from agent_stores.errors import AttachmentError, MessageTooLargeError
from agent_stores.inline import may_block
from agent_stores.wrapped_backend import WrappedBackend

T = TypeVar("T")

DAMAGED = b"damaged: an attachment of the message is missing, or was changed"
"""The body of a row whose attachments cannot be read; it is not a message."""


async def run_all(calls: Sequence[Callable[[], T]]) -> list[T]:
    """Make calls that block, on threads unless this one may block; the first error is raised at the end."""
    if may_block():
        return [call() for call in calls]
    done = await asyncio.gather(*map(asyncio.to_thread, calls), return_exceptions=True)
    for each in done:
        if isinstance(each, BaseException):
            raise each
    return [each for each in done if not isinstance(each, BaseException)]


class _Unlimited:
    """What an encrypting backend needs of a database to encrypt attachments, which no database stores."""

    location = ""
    limits = Limits()

    async def rows(self, key: ThreadKey, wanted: RowRange) -> None:
        """No rows, with whose keys others would be compared."""
        return


class AttachedBackend(WrappedBackend):
    """Stores data parts above a size as attachments.

    Args:
        inner: the database, or the encrypted one.
        settings: where and from which size on.
        encrypt: makes an encrypting backend of a database; None stores data in the clear.

    Attributes:
        reads: how many attachments were read.
    """

    def __init__(
        self, inner: Backend, settings: Attachments, encrypt: Callable[[Any], Any] | None = None
    ) -> None:
        super().__init__(inner)
        self.reads = 0
        self._settings = settings
        self._cipher = None if encrypt is None else encrypt(_Unlimited())
        self._files = Files(settings.filesystem, settings.path, settings.grace)
        sweeper = Sweeper(inner, self._files, run_all)
        self.erase_attachments = sweeper.erase
        self.sweep_attachments = sweeper.sweep
        # Rows come from `seal`, so the other capabilities need no work here.
        for name in dir(inner):
            if not name.startswith("_") and not hasattr(self, name) and name not in ("latest", "search"):
                setattr(self, name, getattr(inner, name))
        if isinstance(inner, LatestReader):
            self.latest = partial(self._latest, inner)
        if isinstance(inner, SearchableBackend):
            self.search = partial(self._search, inner)

    @property
    def limits(self) -> Limits:
        """See `Backend.limits`; how large a message may be is known when its data is elsewhere: `seal`."""
        return replace(self.inner.limits, body_bytes=None)

    # -- data -------------------------------------------------------------------------------------------

    async def seal(self, key: ThreadKey, rows: Sequence[Row]) -> list[Row]:
        """Store the data of rows that are about to be written to a thread; their bodies then refer to it.

        Raises:
            AttachmentError: when data cannot be stored, or an attachment in a message does not exist.
            MessageTooLargeError: when what remains of a message is larger than the server can store.
        """
        over = self._settings.over
        found = {n: row.body for n, row in enumerate(rows) if may_have_data(row.body, over)}
        if found:
            data: dict[str, bytes] = {}
            held: set[str] = set()

            def note(value: bytes) -> str | None:
                if len(value) > over:
                    data[_sha256(value)] = value
                return None

            def note_held(address: str) -> str:
                held.add(address)
                return address

            await run_all([partial(with_addresses, body, note, note_held) for body in found.values()])
            puts = [
                partial(self._put, key, sha256, value, await self._encrypt(key, sha256, value))
                for sha256, value in data.items()
            ]
            check = key_check(await self._encrypt(key, "", b"")) if held else ""
            stored = dict(await run_all([*puts, *(partial(self._hold, key, each, check) for each in held)]))
            bodies = await run_all(
                [
                    partial(with_addresses, body, lambda v: stored.get(_sha256(v)), lambda a: stored[a])
                    for body in found.values()
                ]
            )
            changed = dict(zip(found, bodies, strict=True))
            rows = [
                replace(row, body=changed[n], bytes=len(changed[n])) if n in changed else row
                for n, row in enumerate(rows)
            ]
        self._check_sizes(rows)
        seal = getattr(self.inner, "seal", None)
        return list(rows) if seal is None else list(await seal(key, rows))

    async def open(self, key: ThreadKey, rows: Sequence[Row]) -> list[Row]:
        """The rows with the data of their attachments, or with addresses where reads are lazy.

        Raises:
            AttachmentError: when the file system fails; a row whose data is missing gets the body `DAMAGED`.
        """
        found = {n: row.body for n, row in enumerate(rows) if row.body.startswith(PREFIX)}
        if not found:
            return list(rows)
        bodies: Sequence[bytes]
        if self._settings.lazy:
            bodies = [lazily(body) for body in found.values()]
        else:
            addresses = {address for body in found.values() for address in addresses_in(body)}
            data = {address: await self._load(key.tenant, address) for address in sorted(addresses)}
            bodies = await run_all([partial(_filled, body, data) for body in found.values()])
        changed = dict(zip(found, bodies, strict=True))
        return [replace(row, body=changed[n]) if n in changed else row for n, row in enumerate(rows)]

    async def read_attachment(self, tenant: str | None, address: str) -> bytes:
        """The data of an attachment of a tenant.

        Raises:
            AttachmentError: when it does not exist, was changed, or the file system fails.
        """
        data = await self._load(tenant, address)
        if data is None:
            raise AttachmentError(f"{address[:200]!r} does not exist, or was changed")
        return data

    async def _load(self, tenant: str | None, address: str) -> bytes | None:
        """The data of an address; None when it is missing or was changed."""
        match = ADDRESS.fullmatch(address)
        if match is None:
            return None
        sha256 = match["name"].partition("/")[0]
        self.reads += 1
        [file] = await run_all([partial(self._files.read, tenant, match["name"])])
        if file is not None and self._cipher is not None:
            [opened] = await self._cipher.open(_cipher_key(tenant), [Row(sha256, file)])
            file = opened.body
        if file is None or (await run_all([partial(_sha256, file)])) != [sha256]:
            return None
        return file

    async def _encrypt(self, key: ThreadKey, sha256: str, data: bytes) -> bytes:
        if self._cipher is None:
            return data
        [sealed] = await self._cipher.seal(_cipher_key(key.tenant), [Row(sha256, data)])
        body: bytes = sealed.body
        return body

    def _put(self, key: ThreadKey, sha256: str, data: bytes, file: bytes) -> tuple[str, str]:
        stamp = self._files.put(key, sha256, file, key_check(file))
        return sha256, f"attachment:{sha256}/{stamp}?bytes={len(data)}"

    def _hold(self, key: ThreadKey, address: str, check: str) -> tuple[str, str]:
        """Keep an attachment that a message refers to already, as that of a fork, or copy it.

        One of another key is kept, too, unless the data is stored with the current key; see `rekeying`.
        """
        match = ADDRESS.fullmatch(address)
        assert match is not None  # noqa: S101 - `with_addresses` found it
        sha256, stamp = match["name"].split("/")
        held = None if check_of(stamp) == check else self._files.hold_stored(key, sha256, check)
        if held is None and self._files.hold_stamp(key, sha256, stamp):
            return address, address
        if held is None:
            file = self._files.read(key.tenant, match["name"])
            if file is None:
                raise AttachmentError(f"the attachment {address!r} does not exist; nothing was written")
            held = self._files.put(key, sha256, file, key_check(file))
        return address, f"attachment:{sha256}/{held}?bytes={match['size']}"

    def rekeying(self, tenant: str | None) -> FileRekeying:
        """A run that encrypts a tenant's files with the current key; for `agent_stores.encryption.rekey`."""
        return FileRekeying(tenant, self._files, load=self._load, encrypt=self._encrypt, run_all=run_all)

    def _check_sizes(self, rows: Sequence[Row]) -> None:
        limit = self.inner.limits.body_bytes
        for row in rows:
            if limit is not None and len(row.body) > limit:
                raise MessageTooLargeError.of(f"message {row.message_id!r}", len(row.body), limit)

    # -- the contract -----------------------------------------------------------------------------------

    async def rows(self, key: ThreadKey, wanted: RowRange) -> Snapshot | None:
        """See `Backend.rows`."""
        found = await self.inner.rows(key, wanted)
        return found and found._replace(rows=await self.open(key, found.rows))

    async def stored_rows(self, key: ThreadKey, wanted: RowRange) -> Snapshot | None:
        """`rows` without the data of attachments, for copies of threads."""
        return await self.inner.rows(key, wanted)

    async def _latest(
        self, reader: LatestReader, key: ThreadKey, limit: int | None, *, now_us: int
    ) -> list[Row]:
        return await self.open(key, await reader.latest(key, limit, now_us=now_us))

    async def _search(self, backend: SearchableBackend, query: SearchQuery) -> list[SearchHit]:
        hits = await backend.search(query)
        opened = await self.open(ThreadKey(query.tenant, ""), [hit.row for hit in hits])
        return [hit._replace(row=row) for hit, row in zip(hits, opened, strict=True)]


def _cipher_key(tenant: str | None) -> ThreadKey:
    """What attachments are encrypted for: the tenant, whose threads share them."""
    return ThreadKey(tenant, "$attachments")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _filled(body: bytes, data: Mapping[str, bytes | None]) -> bytes:
    found = {address: value for address, value in data.items() if value is not None}
    try:
        return with_data(body, found.__getitem__)
    except KeyError:
        return DAMAGED
