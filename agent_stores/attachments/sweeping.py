"""Removing data that no message refers to: in bounded steps after a grace period, or in an erasure."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import Any

from agent_stores._attached import ADDRESS
from agent_stores.attachments.files import Copy, Files, Reference, digest
from agent_stores.backend import Backend, RowRange, ThreadKey

_PAGE = 256  # rows read at once
_ANY = "*"  # stands for all attachments, where a message cannot be read

RunAll = Callable[[Sequence[Callable[[], Any]]], Awaitable[list[Any]]]


class Sweeper:
    """Looks for data that no message refers to.

    Args:
        backend: where the messages are; it decrypts them.
        files: the data.
        run_all: makes calls that block.
    """

    def __init__(self, backend: Backend, files: Files, run_all: RunAll) -> None:
        self._backend = backend
        self._files = files
        self._run_all = run_all
        self._after: str | None = None  # the folder that was looked at last

    async def sweep(self, *, limit: int) -> int:
        """Look at the data of at most `limit` digests, after those of the last call; returns how many went.

        Data is removed when it is older than the grace period, no thread began to refer to it within that
        period, and none of those that ever did has a message that refers to it.

        Raises:
            StoreError: when a thread cannot be read, as without its key; its data stays.
        """
        folders = await self._do(partial(self._files.folders, all_tenants=True))
        if not folders:
            return 0
        if self._after is None:  # so that short processes look at different ones
            self._after = random.choice(folders)  # noqa: S311
        later = [folder for folder in folders if folder > self._after]
        chosen = [*later, *(folder for folder in folders if folder <= self._after)][:limit]
        mentioned: dict[ThreadKey, set[str]] = {}
        removed = 0
        for folder in chosen:
            for copy in await self._do(partial(self._files.copies, folder)):
                removed += await self._remove_unused(folder, copy, mentioned)
            self._after = folder
        return removed

    async def erase(self, keys: Collection[ThreadKey], *, dry_run: bool = False) -> int:
        """Remove, or only count, data of threads that no other thread refers to; returns how many files."""
        erased = {digest(key) for key in keys}
        mentioned: dict[ThreadKey, set[str]] = {}
        count = 0
        for tenant in {key.tenant for key in keys}:
            for folder in await self._do(partial(self._files.folders, tenant)):
                for copy in await self._do(partial(self._files.copies, folder)):
                    own = [each.file for each in copy.references if each.thread in erased]
                    if not own:
                        continue
                    if dry_run:
                        count += copy.exists and not await self._is_used(folder, copy, erased, mentioned)
                    elif await self._remove_unused(folder, copy, mentioned, erased):
                        count += copy.exists
                    else:
                        await self._do(partial(self._files.remove, folder, own))
        return count

    async def _remove_unused(
        self,
        folder: str,
        copy: Copy,
        mentioned: dict[ThreadKey, set[str]],
        erased: Collection[str] = (),
    ) -> bool:
        """Remove data unless it is used; see `agent_stores.attachments.files` for why this is safe."""
        oldest = time.time() - self._files.grace
        if not erased and copy.made > oldest:
            return False
        if await self._is_used(folder, copy, erased, mentioned):
            if stale := _stale(copy, oldest):
                await self._do(partial(self._files.remove, folder, stale))
            return False
        mark, after = await self._do(partial(self._files.doom, folder, copy))
        known = {each.file for each in copy.references}
        new = [each for each in after.references if each.file not in known and each.thread not in erased]
        if new:
            await self._do(partial(self._files.remove, folder, [mark]))
            return False
        references = [each.file for each in after.references]
        stale = [name for name in after.deleting if name == mark or _deleting_since(name) < oldest]
        await self._do(partial(self._files.remove, folder, [copy.stamp, *references, *stale]))
        return True

    async def _is_used(
        self, folder: str, copy: Copy, erased: Collection[str], mentioned: dict[ThreadKey, set[str]]
    ) -> bool:
        others = [each for each in copy.references if each.thread not in erased]
        recent = self._files.writing if erased else self._files.grace
        if any(each.since > time.time() - recent for each in others):
            return True
        sha256 = folder.rpartition("/")[2]
        by_thread: dict[str, Reference] = {each.thread: each for each in others}
        for reference in by_thread.values():
            key = await self._do(partial(self._files.thread_of, folder, reference))
            if key is None:
                continue
            if key not in mentioned:
                mentioned[key] = await self._mentioned(key)
            if not mentioned[key].isdisjoint((f"{sha256}/{copy.stamp}", _ANY)):
                return True
            stamps = {name.partition("/")[2] for name in mentioned[key] if name.startswith(sha256)}
            if copy.exists and stamps and not stamps <= await self._existing(folder):
                return True  # it replaced the file that the message names
        return False

    async def _existing(self, folder: str) -> set[str]:
        return {each.stamp for each in await self._do(partial(self._files.copies, folder)) if each.exists}

    async def _mentioned(self, key: ThreadKey) -> set[str]:
        """The names of all attachments in the messages of a thread, unfinished writes included."""
        limits = self._backend.limits
        staged = limits.commit_rows is not None or limits.commit_bytes is not None
        names: set[str] = set()
        after = 0
        while True:
            found = await self._backend.rows(key, RowRange(after=after, limit=_PAGE, staged=staged))
            rows = [] if found is None else found.rows
            for row in rows:
                if not row.body.startswith(b"{"):
                    names.add(_ANY)
                names.update(match["name"] for match in ADDRESS.finditer(row.body.decode(errors="replace")))
            if len(rows) < _PAGE:
                return names
            after = rows[-1].position

    async def _do(self, call: Callable[[], Any]) -> Any:
        return (await self._run_all([call]))[0]


def _stale(copy: Copy, oldest: float) -> list[str]:
    """Files of sweeps that were stopped, and of references that were renewed."""
    newest = {each.thread: each.since for each in sorted(copy.references, key=lambda each: each.since)}
    renewed = [each for each in copy.references if each.since < min(oldest, newest[each.thread])]
    return [
        *(name for name in copy.deleting if _deleting_since(name) < oldest),
        *(each.file for each in renewed),
    ]


def _deleting_since(name: str) -> int:
    seconds = name.partition("!")[2].partition("-")[0]
    return int(seconds) if seconds.isdecimal() else 0
