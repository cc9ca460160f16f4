"""`migrate` copies the threads of a source into a log. It can be interrupted and repeated at any time.

Message ids are derived from the source (see `MessageIds`), so messages that the target already holds are
recognized. Each thread continues after the newest source message that the target holds: a killed run resumes,
a repeated run adds nothing, and new source messages are appended, even if the target has trimmed or deleted
earlier ones.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from agent_stores._checks import check_limit
from agent_stores._json import json_value
from agent_stores.errors import ArgumentError, ArgumentTypeError, ConflictError, StoreError
from agent_stores.importers.ids import MessageIds
from agent_stores.importers.report import MigrationReport
from agent_stores.importers.source import End, Source, SourceError, SourceMessage, SourceThread
from agent_stores.importers.thread_id_map import ThreadIdMap
from agent_stores.log import MessageLog, ThreadKey, ThreadStats
from agent_stores.message_format import encode_message
from agent_stores.messages import ChatMessage
from agent_stores.plugins.json_diff import digest
from agent_stores.store import ChatMessageStore
from agent_stores.store_options import identifier

_MARK = "agent_stores.migrated"
"""The key of the digest by which metadata that was taken over, and not changed since, is known."""


class Progress(Protocol):
    """Receives progress of a migration."""

    def begin(self, threads: int | None) -> None:
        """The migration starts; `threads` is the total, or None when unknown."""
        ...

    def advance(self, *, threads: int = 0, messages: int = 0) -> None:
        """`threads` and `messages` more have been processed."""
        ...


@dataclass(frozen=True, kw_only=True)
class MigrationOptions:
    """Options of a migration.

    Attributes:
        tenant: the tenant of the migrated threads; the source's own by default.
        id_map: maps the source's thread ids to the target's.
        only: thread ids of the source to migrate; all by default.
        limit: maximum number of threads.
        merge: also append to target threads that hold only other messages.
        keep_expiry: whether the target thread expires at the same time as the source's.
        dry_run: read and compare, but write nothing.
    """

    tenant: str | None = None
    id_map: ThreadIdMap = field(default_factory=ThreadIdMap)
    only: Collection[str] | None = None
    limit: int | None = None
    merge: bool = False
    keep_expiry: bool = True
    dry_run: bool = False


async def migrate(
    source: Source,
    log: MessageLog,
    options: MigrationOptions | None = None,
    *,
    report: MigrationReport | None = None,
    progress: Progress | None = None,
) -> MigrationReport:
    """Migrate the threads of a source into a log.

    A problem with one thread or message is reported and skipped: it cannot be read, it is too large, or the
    target thread holds other messages. A problem that affects all of them is raised. Threads migrated so far
    stay; a second run continues.

    Args:
        source: the threads to read; never written to.
        log: the target.
        options: filters and target ids.
        report: updated in place, so that it is current when the migration fails.
        progress: receives progress.

    Raises:
        StoreError: when the source or the target cannot be reached or rejects a request.
        MissingDependencyError: when reading the messages needs a package that is not installed.
        ArgumentError: for an invalid option.
    """
    options = options or MigrationOptions()
    limit = check_limit("limit", options.limit)
    if options.tenant is not None:
        identifier("tenant", options.tenant)
    report = report or MigrationReport(f"{source.name}+{source.location}", log.location)
    report.dry_run = options.dry_run
    taken: dict[ThreadKey, str] = {}
    if progress is not None:
        total = await source.count() if options.only is None else len(options.only)
        progress.begin(total if limit is None or total is None else min(limit, total))
    missing = set(options.only or ())
    try:
        async for thread in source.threads():
            if limit is not None and report.threads >= limit:
                break
            if options.only is not None and thread.thread_id not in options.only:
                continue
            missing.discard(thread.thread_id)
            name = options.id_map(thread.thread_id)
            if name is None:
                continue
            key = ThreadKey(thread.tenant if options.tenant is None else options.tenant, name)
            await _Thread(source, log, thread, key, options, report, progress).run(taken)
            if progress is not None:
                progress.advance(threads=1)
    finally:
        report.unrecognized = source.unrecognized
    for name in sorted(missing) if limit is None or report.threads < limit else ():
        report.threads_skipped += 1
        report.problem(name, "the source has no such thread")
    report.complete = True
    return report


class _Thread:
    """The migration of one thread."""

    def __init__(
        self,
        source: Source,
        log: MessageLog,
        thread: SourceThread,
        key: ThreadKey,
        options: MigrationOptions,
        report: MigrationReport,
        progress: Progress | None,
    ) -> None:
        self._source = source
        self._log = log
        self._thread = thread
        self._key = key
        self._options = options
        self._report = report
        self._progress = progress
        self._at = 0
        self._is_skipped = False

    async def run(self, taken: dict[ThreadKey, str]) -> None:
        """Migrate the thread and update the report.

        Args:
            taken: the target threads written by this migration, with their source locations.
        """
        self._report.threads += 1
        if self._thread.note is not None and not self._options.id_map.is_renamed(self._thread.thread_id):
            self._problem(self._thread.note)
        origin = taken.setdefault(self._key, self._thread.location)
        if origin != self._thread.location:
            self._skip_thread(f"the target's thread {self._key.thread_id!r} has been taken from {origin!r}")
            return
        try:
            stats = await self._log.stats(self._key)
            done = 0
            if stats is not None and stats.last_position:
                done = await self._done(stats)
                if done == 0 and not self._options.merge:
                    await self._skip_existing(stats)
                    return
            await self._write(done, is_new=stats is None)
            await self._keep_metadata()
        except SourceError as error:
            self._skip_thread(str(error))
        except StoreError as error:
            if type(error) is not StoreError:  # the server is not there, or refuses whatever it is asked
                raise
            self._skip_thread(str(error))
        except (ArgumentError, ArgumentTypeError) as error:  # a name that the target does not accept
            self._skip_thread(str(error))

    async def _done(self, stats: ThreadStats) -> int:
        """How many stored messages of the source the target has got: all up to the newest that it holds."""
        ids = MessageIds(self._source.name, self._thread.location)
        is_whole = stats.messages == stats.last_position  # nothing was ever taken out of it
        done = at = 0
        async for page in self._source.pages(self._thread):
            names = [ids.next(stored) for stored in page]
            readable = [index for index, stored in enumerate(page) if stored.message is not None]
            found = await self._newest([names[index] for index in readable], is_whole=is_whole)
            if found:
                done = at + readable[found - 1] + 1
            elif readable and is_whole:
                break  # what it holds, it holds from the beginning on
            at += len(page)
        return done

    async def _newest(self, names: Sequence[str], *, is_whole: bool) -> int:
        """How many of the ids go up to the newest one that the target holds; 0 when it holds none."""
        if not names or await self._holds(names[-1]):
            return len(names)
        if not is_whole:
            for index in range(len(names) - 1, 0, -1):
                if await self._holds(names[index - 1]):
                    return index
            return 0
        low, high = 0, len(names) - 1
        while low < high:
            middle = (low + high) // 2
            if await self._holds(names[middle]):
                low = middle + 1
            else:
                high = middle
        return low

    async def _holds(self, message_id: str) -> bool:
        return await self._log.get(self._key, message_id) is not None

    async def _write(self, done: int, *, is_new: bool) -> None:
        """Add the messages after the first *n* stored ones."""
        ids = MessageIds(self._source.name, self._thread.location)
        expires = self._thread.expires_in if is_new and self._options.keep_expiry else None
        store = ChatMessageStore(
            self._log,
            thread_id=self._key.thread_id,
            tenant=self._key.tenant,
            ttl=expires,
            ttl_refresh="never",
        )
        async for page in self._source.pages(self._thread):
            new: list[ChatMessage] = []
            for stored in page:
                message = self._named(stored, ids.next(stored))
                self._at += 1
                self._report.bytes += len(stored.raw)
                if message is None:
                    continue
                self._report.messages += 1
                if self._at <= done:
                    self._report.present += 1
                elif self._fits(message, stored):
                    new.append(message)
            if new and not self._options.dry_run:
                await store.add_messages(new)
            self._report.added += len(new)
            if self._progress is not None:
                self._progress.advance(messages=len(page))

    def _named(self, stored: SourceMessage, name: str) -> ChatMessage | None:
        """A stored message under its id; None for one that cannot be read."""
        if stored.message is None:
            self._report.skipped += 1
            self._problem(stored.problem or "it cannot be read", stored.location)
            return None
        return (
            stored.message if stored.message.message_id == name else stored.message.replace(message_id=name)
        )

    def _fits(self, message: ChatMessage, stored: SourceMessage) -> bool:
        limit = self._log.max_message_bytes
        if limit is None or len(stored.raw) * 8 < limit:
            return True
        size = len(encode_message(message))
        if size <= limit:
            return True
        self._report.messages -= 1
        self._report.skipped += 1
        self._problem(f"it is {size} bytes long, and the target holds up to {limit}", stored.location)
        return False

    async def _skip_existing(self, stats: ThreadStats) -> None:
        """The thread exists, and shows nothing of the source: it is another one, or was cleared since."""
        async for page in self._source.pages(self._thread):
            if any(stored.message is not None for stored in page):
                holds = f"{stats.messages} other messages" if stats.messages else "no messages any more"
                self._skip_thread(
                    f"the target's thread {self._key.thread_id!r} exists and holds {holds}; "
                    "--merge adds to it"
                )
                return
        await self._write(0, is_new=False)
        await self._keep_metadata()

    async def _keep_metadata(self) -> None:
        """Set the source's metadata, unless the target's has been changed since the last time."""
        if self._thread.metadata is None or self._options.dry_run:
            return
        stats = await self._log.stats(self._key)
        newest = await self._log.read(self._key, limit=1, newest=True) if stats is not None else []
        last = max(newest, key=lambda row: row.position, default=None)
        end = End(stats.last_position if stats else 0, last.message_id if last else None)
        wanted = json_value(dict(self._thread.metadata(end)), "the metadata")
        present = dict(stats.metadata) if stats else {}
        mark = present.pop(_MARK, None)
        if {name: present.get(name) for name in wanted} == wanted:
            return
        if mark != digest(present) and (mark is not None or not present.keys().isdisjoint(wanted)):
            self._problem("the metadata of the target's thread has been changed there, and stays")
            return
        changes = {**wanted, _MARK: digest({**present, **wanted})}
        try:
            revision = stats.revision if stats else 0
            await self._log.update_metadata(self._key, changes, expected_revision=revision)
        except (ConflictError, ArgumentError) as error:
            self._skip_thread(f"its metadata is not taken over: {error}")

    def _skip_thread(self, reason: str) -> None:
        self._report.threads_skipped += 1
        self._problem(reason)

    def _problem(self, reason: str, location: str | None = None) -> None:
        self._report.problem(self._thread.thread_id, reason, location)
