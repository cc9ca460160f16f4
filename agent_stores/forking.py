"""Forks: copying a thread, or its beginning, to a new one."""

from __future__ import annotations

from msgspec.structs import replace

from agent_stores._encrypted import PREFIX, check_plain
from agent_stores.backend import Backend, Change, Row, RowRange, Thread, ThreadKey, VersionConflict
from agent_stores.committer import Base, Committer, Planned, new_request_id
from agent_stores.errors import NotFoundError, StoreUnavailableError, ThreadExistsError
from agent_stores.lineage import fork_metadata
from agent_stores.sealing import check_metadata, seal_rows
from agent_stores.thread_updates import touch, with_rows

_ATTEMPTS = 20  # of copying a thread that other clients write to


async def fork_thread(
    backend: Backend, committer: Committer, key: ThreadKey, new_key: ThreadKey, at: int | None
) -> int:
    """See `MessageLog.fork`."""
    for _ in range(_ATTEMPTS):
        source = await committer.load(key)
        if not source.exists:
            raise NotFoundError(f"thread {key.thread_id!r} does not exist")
        check_metadata(key, source.thread)
        target = await committer.load(new_key)
        if target.exists:
            raise _exists(new_key)
        last = source.thread.last_position if at is None else min(at, source.thread.last_position)
        thread = replace(
            touch(source.thread, committer.now_us()),
            last_position=last,
            staged_position=0,
            staged_clear=False,
            messages=0,
            pinned=0,
            bytes=0,
            tokens=0,
            recent_request_ids=(new_request_id(),),
            metadata=fork_metadata(source.thread.metadata, key),
        )
        try:
            pages = committer.pages(key, source.version, RowRange(before=last + 1))
            rows = [row async for page in pages for row in page]
        except VersionConflict:
            continue
        for row in rows:
            if row.body.startswith(PREFIX):  # a ciphertext opens in no other thread
                check_plain(row.body)
        rows = list(await seal_rows(backend, new_key, rows))
        return await committer.update(new_key, _Copy(new_key, thread, rows))
    raise StoreUnavailableError(
        f"{backend.location}: thread {key.thread_id!r} changed too often to be copied; nothing was written"
    )


class _Copy:
    """Plans the new thread."""

    def __init__(self, key: ThreadKey, thread: Thread, rows: list[Row]) -> None:
        self._key = key
        self._rows = rows
        self._thread = with_rows(thread, rows)
        if rows:
            self._thread = replace(self._thread, last_us=rows[-1].created_us)

    async def __call__(self, base: Base, now_us: int) -> Planned[int]:
        if base.exists:
            raise _exists(self._key)
        return len(self._rows), Change(self._thread, base.version, self._rows)


def _exists(key: ThreadKey) -> ThreadExistsError:
    return ThreadExistsError(f"thread {key.thread_id!r} exists")
