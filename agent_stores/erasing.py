"""`erase`: removes threads, the forks made from them and what else knows of them, and gives a receipt."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Protocol, runtime_checkable

from msgspec.structs import replace

from agent_stores import _checks as check
from agent_stores._attached import PREFIX as ATTACHED
from agent_stores.backend import ListedThread, RowRange, ThreadKey
from agent_stores.capabilities import Scrubber, Sweeper
from agent_stores.errors import (
    ArgumentError,
    ArgumentTypeError,
    AttachmentError,
    EncryptionKeyError,
    StoreError,
)
from agent_stores.lineage import ancestors, thread_digest
from agent_stores.listing import iter_threads
from agent_stores.log import MessageLog
from agent_stores.sealing import check_metadata
from agent_stores.states import StateKey, sign_state
from agent_stores.store_options import identifier, sequence

RECEIPT_TYPE = "agent_stores.erasure"
"""The ``type`` of a receipt."""

_PAGE = 500  # threads listed, and rows swept, at once
_BODIES = 100  # rows read at once
_ROUNDS = 5  # of looking again for forks that were being made meanwhile


@runtime_checkable
class Erasable(Protocol):
    """What keeps data of conversations elsewhere, such as a context provider, and can erase it."""

    async def erase(self, thread_ids: Sequence[str], *, dry_run: bool = False) -> int:
        """Erase what is kept of the user, or of these threads; safe to repeat.

        Args:
            thread_ids: the threads that are erased.
            dry_run: only count.

        Returns:
            How many memories there were.
        """
        ...


async def erase(
    log: MessageLog,
    *,
    tenant: str | None = None,
    thread_ids: Sequence[str] | None = None,
    metadata: Mapping[str, Any] | None = None,
    all_threads: bool = False,
    providers: Sequence[Erasable] = (),
    scrub: bool = True,
    dry_run: bool = False,
    key: StateKey | None = None,
) -> dict[str, Any]:
    """Erase threads of a tenant, the forks made from them, and what providers remember; returns a receipt.

    Threads are named, or chosen by their metadata, or all of the tenant's. Expired ones are among them. Forks
    are found whatever became of the threads between; those made by versions before this function are not.
    Providers and attachments come first, then forks, and last the threads themselves: an erasure that was
    stopped at any moment is ended by the same call. Applications should not write to the threads meanwhile.

    The receipt is JSON-ready and names no thread: it has digests of their ids, counts of what was found,
    removed and found again by a last look (``remaining``), the times, ``complete``, and a ``digest``, the
    SHA-256 of its other fields as `agent_stores.states.sign_state` writes them. `verify_state` verifies a
    signed one. ``scrubbed`` is whether traces in the server's files were removed, too: SQLite's file is
    rewritten; null is for servers where a deletion leaves nothing that can be read through them.

    Args:
        log: where the threads are.
        tenant: whose threads; None for those without a tenant.
        thread_ids: which ones, whether they exist or not.
        metadata: instead, those whose metadata has all these values.
        all_threads: instead, all of the tenant's.
        providers: what else to erase, such as a `Mem0Provider` of the user.
        scrub: whether to remove traces in the server's files; on SQLite that takes the time of a copy.
        dry_run: only look: nothing is removed.
        key: signs the receipt, as it does states.

    Raises:
        ArgumentError, ArgumentTypeError: for a choice that is not exactly one of the three.
        AttachmentError: when a thread has attachments and the log has none, before anything of the threads is
            removed; when their file system fails.
        EncryptionKeyError: when metadata must be compared that cannot be decrypted.
        StoreError: when the server, or a provider, fails; call it again.
    """
    erasure = _Erasure(log, tenant, _Choice.of(tenant, thread_ids, metadata, all_threads), providers)
    started = _now()
    if dry_run:
        await erasure.look()
    else:
        await erasure.remove()
        erasure.scrubbed = await erasure.scrub() if scrub else False
        await erasure.verify()
    receipt = {
        "type": RECEIPT_TYPE,
        "version": 1,
        "location": log.location,
        "tenant": tenant,
        "dry_run": dry_run,
        "started_at": started,
        "finished_at": _now(),
        **erasure.report(),
    }
    text = json.dumps(receipt, sort_keys=True, separators=(",", ":"))
    receipt["digest"] = hashlib.sha256(text.encode()).hexdigest()
    return receipt if key is None else sign_state(receipt, key)


@dataclass(frozen=True)
class _Choice:
    """Which threads: those of these ids, or whose metadata has these values; an empty mapping is for all."""

    thread_ids: frozenset[str] | None
    metadata: Mapping[str, Any]

    @classmethod
    def of(cls, tenant: Any, thread_ids: Any, metadata: Any, all_threads: bool) -> _Choice:
        if tenant is not None:
            identifier("tenant", tenant)
        given = [thread_ids is not None, metadata is not None, bool(all_threads)]
        if sum(given) != 1:
            raise ArgumentError("exactly one of thread_ids, metadata and all_threads must be given")
        if thread_ids is not None:
            ids = sequence("thread_ids", thread_ids)
            return cls(frozenset(identifier("thread_ids", each) for each in ids), {})
        if metadata is None:
            return cls(None, {})
        values = check.json_object(metadata, "metadata")
        if not values:
            raise ArgumentError("metadata must not be empty; all_threads=True is for all threads")
        return cls(None, values)

    def has(self, item: ListedThread) -> bool:
        if self.thread_ids is not None:
            return item.key.thread_id in self.thread_ids
        held = item.thread.metadata
        found = {name: held[name] for name in self.metadata if name in held}
        check_metadata(item.key, replace(item.thread, metadata=found))
        return found == self.metadata


@dataclass
class _Counts:
    """Threads, those of them that are forks of others that are erased, and what is in them."""

    threads: int = 0
    forks: int = 0
    messages: int = 0
    bytes: int = 0

    def add(self, item: ListedThread, *, is_fork: bool) -> None:
        self.threads += 1
        self.forks += is_fork
        self.messages += item.thread.messages
        self.bytes += item.thread.bytes


@dataclass
class _Erasure:
    """One erasure: what it looks for, and what it found."""

    log: MessageLog
    tenant: str | None
    choice: _Choice
    providers: Sequence[Erasable]
    scrubbed: bool | None = None
    seen: dict[ThreadKey, tuple[ListedThread, bool]] = field(default_factory=dict)
    removed: _Counts = field(default_factory=_Counts)
    remaining: _Counts = field(default_factory=_Counts)
    attachments: dict[str, int] = field(default_factory=lambda: {"found": 0, "removed": 0, "remaining": 0})
    memories: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not isinstance(self.log, MessageLog):
            raise ArgumentTypeError(f"log must be a MessageLog, got {type(self.log).__name__}")
        for provider in self.providers:
            if not isinstance(provider, Erasable):
                raise ArgumentTypeError(
                    f"providers must have a method erase(), got {type(provider).__name__}"
                )
        self._backend = self.log.backend
        self._digests = {thread_digest(key) for key in self._named()}

    async def look(self) -> None:
        """Count what there is."""
        found = await self._find()
        await self._check_attachments(found)
        for item, is_fork in found:
            self.remaining.add(item, is_fork=is_fork)
        self.attachments["found"] = self.attachments["remaining"] = await self._attachments(dry_run=True)
        for provider in self.providers:
            count = await provider.erase(self._thread_ids(), dry_run=True)
            self.memories.append(_memories(provider, count, 0, count))

    async def remove(self) -> None:
        """Remove it, until no fork comes to light."""
        found = await self._find()
        await self._check_attachments(found)
        for provider in self.providers:
            count = await provider.erase(self._thread_ids())
            self.memories.append(_memories(provider, count, count, 0))
        for _ in range(_ROUNDS):
            # Before the threads, by which an erasure that is stopped finds them again.
            self.attachments["removed"] += await self._attachments()
            for item, is_fork in found:
                await self.log.delete_thread(item.key)
                self.removed.add(item, is_fork=is_fork)
            found = await self._find()
            if not found:
                break
        self.attachments["found"] = self.attachments["removed"]

    async def scrub(self) -> bool | None:
        """Remove what deletions leave for later; whether nothing is left, None where nothing can be."""
        server = self._backend
        if isinstance(server, Sweeper):
            while await server.sweep(limit=_PAGE):
                pass
        while (inner := getattr(server, "inner", None)) is not None:  # an encrypted backend's database
            server = inner
        if not isinstance(server, Scrubber):
            return None
        try:
            return await server.scrub(list(dict.fromkeys([*self.seen, *self._named()])))
        except StoreError:  # the data is erased; another client keeps the file from being rewritten
            return False

    async def verify(self) -> None:
        """Look again, for the receipt."""
        for item, is_fork in await self._find():
            self.remaining.add(item, is_fork=is_fork)
        self.attachments["remaining"] = await self._attachments(dry_run=True)
        for provider, memories in zip(self.providers, self.memories, strict=True):
            memories["remaining"] = await provider.erase(self._thread_ids(), dry_run=True)

    async def _check_attachments(self, found: Sequence[tuple[ListedThread, bool]]) -> None:
        """Check that no thread has attachments that the log does not know of, as far as it can be read."""
        if hasattr(self._backend, "erase_attachments"):
            return
        for item, _ in found:
            after: int | None = 0
            while after is not None:
                try:
                    snapshot = await self._backend.rows(item.key, RowRange(after=after, limit=_BODIES))
                except EncryptionKeyError:
                    break
                rows = [] if snapshot is None else snapshot.rows
                if any(row.body.startswith(ATTACHED) for row in rows):
                    name = f"thread {item.key.thread_id!r}"
                    raise AttachmentError(f"{name} has attachments: give the log attachments= to erase them")
                after = rows[-1].position if len(rows) == _BODIES else None

    async def _attachments(self, *, dry_run: bool = False) -> int:
        erase_attachments: Any = getattr(self._backend, "erase_attachments", None)
        if erase_attachments is None:
            return 0
        count: int = await erase_attachments({*self.seen, *self._named()}, dry_run=dry_run)
        return count

    def report(self) -> dict[str, Any]:
        """The receipt's fields that say what was done."""
        found = _Counts()
        for item, is_fork in self.seen.values():
            found.add(item, is_fork=is_fork)
        left = self.remaining.threads or any(each["remaining"] for each in (self.attachments, *self.memories))
        return {
            "found": vars(found),
            "removed": vars(self.removed),
            "remaining": vars(self.remaining),
            "attachments": self.attachments,
            "providers": self.memories,
            "threads": [
                {
                    "digest": thread_digest(key),
                    "fork": is_fork,
                    "messages": item.thread.messages,
                    "bytes": item.thread.bytes,
                }
                for key, (item, is_fork) in self.seen.items()
            ],
            "scrubbed": self.scrubbed,
            "complete": not left,
        }

    async def _find(self) -> list[tuple[ListedThread, bool]]:
        """The threads to erase that exist, and whether they are forks; in the order of their removal.

        Forks come first, those of forks before them, and chosen threads last, by which the others are found.
        """
        chosen, others = list[ListedThread](), list[tuple[ListedThread, tuple[str, ...]]]()
        async for item in iter_threads(self._backend, self.tenant, page_size=_PAGE):
            if self.choice.has(item):
                chosen.append(item)
                self._digests.add(thread_digest(item.key))
            elif names := ancestors(item.thread.metadata):
                others.append((item, names))
        listed = {item.key for item in chosen}
        for key in self._named():
            if key not in listed and (snapshot := await self._backend.load(key)) is not None:
                chosen.append(ListedThread(key, snapshot.thread, snapshot.version))
        forks: list[tuple[ListedThread, tuple[str, ...]]] = []
        grew = True
        while grew:
            new = [each for each in others if not self._digests.isdisjoint(each[1])]
            others = [each for each in others if self._digests.isdisjoint(each[1])]
            self._digests.update(thread_digest(item.key) for item, _ in new)
            forks += new
            grew = bool(new)
        forks.sort(key=lambda each: -len(each[1]))
        found = [*((item, True) for item, _ in forks), *((item, False) for item in chosen)]
        for item, is_fork in found:
            self.seen.setdefault(item.key, (item, is_fork))
        return found

    def _named(self) -> list[ThreadKey]:
        return [ThreadKey(self.tenant, name) for name in sorted(self.choice.thread_ids or ())]

    def _thread_ids(self) -> list[str]:
        """The ids of the threads that are erased, those of earlier attempts included where they are named."""
        return list(dict.fromkeys(key.thread_id for key in (*self._named(), *self.seen)))


def _memories(provider: Erasable, found: int, removed: int, remaining: int) -> dict[str, Any]:
    name = type(provider).__name__
    return {"name": name, "found": found, "removed": removed, "remaining": remaining}


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
