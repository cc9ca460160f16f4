"""A backend of your own: conversations in a folder that any number of processes share, without a server.

`FolderBackend` implements the six methods of `agent_stores.backend.Backend`, and nothing else. `MessageLog`
and `ChatMessageStore` do the rest. It passes the whole conformance suite (see docs/backends.md).

Each thread has a folder. A *state* file holds its metadata and its rows, whose bodies are files of their own.
Files never change. The thread's version is the name of an empty folder, ``head/<number>.<state>``: a commit
writes its files and then renames that folder, which succeeds for one writer only. So a process may end at any
moment: what it had not committed is never read. (A power failure is another matter: that takes `os.fsync`.)

Use it as ``ChatMessageStore(MessageLog(FolderBackend("conversations")), thread_id="alice")``.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec
from msgspec.structs import replace

from agent_stores.backend import (
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
    VersionConflict,
)
from agent_stores.errors import StoreUnavailableError

T = TypeVar("T")


class State(NamedTuple):
    """The current head of a thread and what its state file holds: without a thread when there is none."""

    head: str
    key: ThreadKey = ThreadKey(None, "")
    thread: Thread | None = None
    rows: list[tuple[Row, str]] = []  # noqa: RUF012 - never changed; each with the file of its body


class FolderBackend:
    """Threads in a folder; the methods are those of `Backend`."""

    limits = Limits()

    def __init__(self, folder: str) -> None:
        self.location = f"folder:{folder}"
        self._root = Path(folder)

    async def load(self, key: ThreadKey) -> Snapshot | None:
        return await self.rows(key, RowRange(limit=0))

    async def rows(self, key: ThreadKey, wanted: RowRange) -> Snapshot | None:
        def read() -> Snapshot | None:
            folder = self._folder(key)
            while thread := (state := read_state(folder)).thread:
                end = thread.last_position + 1 if wanted.before is None else wanted.before
                found = [(row, body) for row, body in state.rows if wanted.after < row.position < end]
                if wanted.newest and wanted.limit is not None:
                    unpinned = [row.position for row, _ in found if not row.pinned]
                    dropped = set(unpinned[: max(0, len(unpinned) - wanted.limit)])
                    found = [(row, body) for row, body in found if row.position not in dropped]
                elif not wanted.newest:
                    found = found[: wanted.limit]
                rows = [row for row, _ in found]
                with contextlib.suppress(FileNotFoundError):  # the next commit has removed a body
                    if wanted.bodies:
                        rows = [replace(row, body=(folder / body).read_bytes()) for row, body in found]
                    return Snapshot(thread, state.head, rows)
            return None

        return await self._run(read)

    async def find(self, key: ThreadKey, message_ids: Sequence[str]) -> dict[str, Row]:
        wanted = set(message_ids)
        rows = (await self._run(lambda: read_state(self._folder(key)))).rows
        return {row.message_id: row for row, _ in rows if row.message_id in wanted}

    async def commit(self, key: ThreadKey, change: Change) -> Version | None:
        def write() -> str | None:
            folder = self._folder(key)
            state = read_state(folder)
            if change.expected != (state.head if state.thread else None):
                raise VersionConflict
            gone = {row.position for row in (*change.put, *change.delete)}
            kept = [(row, body) for row, body in state.rows if row.position not in gone]
            rows = [] if change.clear or change.thread is None else kept
            name = uuid.uuid4().hex if change.thread else "none"
            head = state.head or self._create(folder)
            new_head = f"{int(head.partition('.')[0]) + 1}.{name}"
            new_files = {f"{name}.{row.position}": row.body for row in change.put}
            rows += zip((replace(row, body=b"") for row in change.put), new_files, strict=True)
            rows.sort(key=lambda item: item[0].position)
            if change.thread:
                document = msgspec.to_builtins([key, change.thread, rows])
                new_files[f"{name}.state"] = json.dumps(document).encode()
            for file, content in new_files.items():
                (folder / file).write_bytes(content)
            unused = {f"{head.partition('.')[2]}.state", *(body for _, body in state.rows)}
            unused.difference_update(body for _, body in rows)
            try:
                os.rename(folder / "head" / head, folder / "head" / new_head)
            except FileNotFoundError:  # another client was faster
                unused = set(new_files)
                raise VersionConflict from None
            finally:
                with contextlib.suppress(OSError):
                    for file in unused:
                        (folder / file).unlink(missing_ok=True)
            return new_head if change.thread else None

        return await self._run(write)

    async def threads(self, query: ThreadQuery) -> list[ListedThread]:
        after, expired_before = query.after, query.expired_before
        pattern = f"{digest(query.tenant)}/*" if expired_before is None else "*/*"
        states = await self._run(lambda: [read_state(folder) for folder in self._root.glob(pattern)])
        found = [ListedThread(key, thread, head) for head, key, thread, _ in states if thread]
        if expired_before is not None:
            return [item for item in found if item.thread.is_expired(expired_before)][: query.limit]
        sign = -1 if query.order == "recent" else 0
        places = {(sign * item.thread.updated_us, item.key.thread_id): item for item in found}
        start = after and (sign * after.updated_us, after.thread_id)
        chosen = (at for at in places if at[1].startswith(query.prefix) and (start is None or at > start))
        return [places[at] for at in sorted(chosen)[: query.limit]]

    async def aclose(self) -> None:
        """Nothing stays open."""

    async def _run(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(work)
        except OSError as error:
            raise StoreUnavailableError(f"{self.location}: {error.strerror}") from error

    def _folder(self, key: ThreadKey) -> Path:
        return self._root / digest(key.tenant) / digest(key.thread_id)

    def _create(self, folder: Path) -> str:
        """Create a thread's folder, with a head, in one step; returns the head."""
        new = self._root / f"new-{uuid.uuid4().hex}"
        (new / "head" / "0.none").mkdir(parents=True)
        folder.parent.mkdir(exist_ok=True)
        try:
            os.rename(new, folder)
        except OSError:  # another client was faster
            shutil.rmtree(new)
        return "0.none"


def read_state(folder: Path) -> State:
    """The current state of a thread, read again when a commit replaces it meanwhile."""
    while True:
        try:
            head = max(os.listdir(folder / "head"), key=lambda name: int(name.partition(".")[0]), default="")
        except FileNotFoundError:
            return State("")
        if head.endswith(".none"):
            return State(head)
        with contextlib.suppress(FileNotFoundError):
            document = (folder / f"{head.partition('.')[2]}.state").read_bytes()
            return msgspec.convert([head, *json.loads(document)], State)


def digest(name: str | None) -> str:
    """The name of a folder: JSON tells None from every text, and keeps unpaired surrogates."""
    return hashlib.sha256(json.dumps(name).encode()).hexdigest()
