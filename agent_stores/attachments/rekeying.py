"""Encrypting the files of attachments with the current key: those of other keys, and those in the clear.

A file is never written over. Its data is stored again under another stamp, messages get the address of that,
and then the file goes; `agent_stores.attachments.files` says why no reader or writer loses data meanwhile. So
a run that is stopped at any moment has lost nothing, and the next one goes on.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from msgspec.structs import replace

from agent_stores._attached import ADDRESS, PREFIX, KeptFile
from agent_stores._encrypted import key_check
from agent_stores.attachments.bodies import addresses_in, with_addresses
from agent_stores.attachments.files import Copy, Files, Reference, check_of
from agent_stores.attachments.sweeping import RunAll
from agent_stores.backend import Row, ThreadKey
from agent_stores.errors import EncryptionKeyError

_MOST_HELD = 10_000  # addresses

Load = Callable[[str | None, str], Awaitable[bytes | None]]
Encrypt = Callable[[ThreadKey, str, bytes], Awaitable[bytes]]


class FileRekeying:
    """A run over the files of a tenant.

    Args:
        tenant: whose files.
        files: the files.
        load: the data of an address of a tenant; None when it is missing or was changed.
        encrypt: encrypts data for a thread, by its SHA-256.
        run_all: makes calls that block.

    Attributes:
        stored: files that were written, encrypted with the current key.
    """

    def __init__(
        self, tenant: str | None, files: Files, *, load: Load, encrypt: Encrypt, run_all: RunAll
    ) -> None:
        self.stored = 0
        self._tenant = tenant
        self._files = files
        self._load = load
        self._encrypt = encrypt
        self._run_all = run_all
        self._held: dict[tuple[ThreadKey, str], tuple[str, float]] = {}

    async def renew(self, key: ThreadKey, rows: Sequence[Row]) -> list[Row]:
        """Rows of a thread, with the addresses of files that the current key encrypts.

        Such files are stored where there is none. An address whose data cannot be read stays.

        Raises:
            AttachmentError: when the file system fails.
        """
        renewed = list(rows)
        for n, row in enumerate(rows):
            if not row.body.startswith(PREFIX):
                continue
            found: dict[str, str] = {}
            for address in dict.fromkeys(addresses_in(row.body)):
                new = await self._renewed(key, address)
                if new != address:
                    found[address] = new
            if found:
                change = partial(with_addresses, row.body, lambda _: None, partial(_get, found))
                body = await self._do(change)
                renewed[n] = replace(row, body=body, bytes=len(body))
        return renewed

    async def replace_all(self) -> AsyncIterator[KeptFile | None]:
        """Replace the files that remain, of another key or of none; yields for each why it stays, if it does.

        What still has the address of such a file, as a message that could not be encrypted, finds the one
        that replaced it.

        Raises:
            AttachmentError: when the file system fails.
        """
        check = await self._check()
        for folder in await self._do(partial(self._files.folders, self._tenant)):
            for copy in await self._do(partial(self._files.copies, folder)):
                if copy.exists and copy.check != check:
                    yield await self._replace(folder, copy, check)

    # -- one file -----------------------------------------------------------------------------------------

    async def _renewed(self, key: ThreadKey, address: str) -> str:
        new, held_until = self._held.get((key, address), ("", 0.0))
        if time.monotonic() < held_until:
            return new
        match = ADDRESS.fullmatch(address)
        assert match is not None  # noqa: S101 - `addresses_in` found it
        sha256, stamp = match["name"].split("/")
        check = await self._check()
        if check_of(stamp) == check:
            return address
        try:
            stored = await self._store(key, sha256, stamp, check)
        except EncryptionKeyError:  # `replace_all` tells of it
            return address
        if stored is None:
            return address
        new = f"attachment:{sha256}/{stored}?bytes={match['size']}"
        if len(self._held) >= _MOST_HELD:
            self._held.clear()
        self._held[key, address] = new, time.monotonic() + self._files.writing / 2
        return new

    async def _store(self, key: ThreadKey, sha256: str, stamp: str, check: str) -> str | None:
        """The stamp of data that the current key encrypts, held for a thread; None when it cannot be read."""
        held: str | None = await self._do(partial(self._files.hold_stored, key, sha256, check))
        if held is not None:
            return held
        data = await self._load(self._tenant, f"attachment:{sha256}/{stamp}?bytes=0")
        if data is None:
            return None
        file = await self._encrypt(key, sha256, data)
        put: str = await self._do(partial(self._files.put, key, sha256, file, key_check(file)))
        self.stored += 1
        return put

    async def _replace(self, folder: str, copy: Copy, check: str) -> KeptFile | None:
        moved = await self._move(folder, copy, copy.references, check)
        if not moved or isinstance(moved, KeptFile):
            return moved or None  # data that no thread refers to is for the sweeper
        # From now on, who wants to refer to the file takes another one; see `files`.
        mark, after = await self._do(partial(self._files.doom, folder, copy))
        known = {each.file for each in copy.references}
        new = [each for each in after.references if each.file not in known]
        moved = await self._move(folder, copy, new, check)
        if isinstance(moved, KeptFile):
            await self._do(partial(self._files.remove, folder, [mark]))
            return moved
        references = [each.file for each in after.references]
        await self._do(partial(self._files.remove, folder, [copy.stamp, *references, *after.deleting]))
        return None

    async def _move(
        self, folder: str, copy: Copy, references: Sequence[Reference], check: str
    ) -> int | KeptFile:
        """Let the threads of references refer to the file that replaces another one.

        Returns how many threads they are, or why they cannot.
        """
        sha256, count = folder.rpartition("/")[2], 0
        by_thread = {each.thread: each for each in references}
        for reference in by_thread.values():
            key: ThreadKey | None = await self._do(partial(self._files.thread_of, folder, reference))
            if key is None:
                continue
            try:
                stored = await self._store(key, sha256, copy.stamp, check)
            except EncryptionKeyError as error:
                return KeptFile(key.thread_id, f"the attachment {sha256[:16]}: {error}", False)
            if stored is None:
                return KeptFile(key.thread_id, f"the attachment {sha256[:16]} was changed", True)
            count += 1
        return count

    async def _check(self) -> str:
        """The check of the current key."""
        return key_check(await self._encrypt(ThreadKey(self._tenant, ""), "", b""))

    async def _do(self, call: Callable[[], Any]) -> Any:
        return (await self._run_all([call]))[0]


def _get(found: dict[str, str], address: str) -> str:
    return found.get(address, address)
