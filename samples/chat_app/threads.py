"""A user's conversations: every one is a thread of the user's tenant, and nothing here names another tenant.

So whatever id a URL holds, what is read, written or deleted is this user's or nothing.
"""

from __future__ import annotations

import io
import re
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import NamedTuple

from about import About, read_about
from agent_stores import (
    ChatMessage,
    ChatMessageStore,
    ConflictError,
    MessageLog,
    NotFoundError,
    SearchResult,
    StoredMessage,
    StoreRejectedError,
    ThreadStats,
    Window,
)
from agent_stores.cli.exit_codes import InputFileError
from agent_stores.cli.jsonl import Header, export_thread, import_threads, read_export
from agent_stores.tokens import estimate_tokens

_LONGEST_ID = 200
_SCANNED_THREADS = 200


class Mark(NamedTuple):
    """What changes with a conversation: its last position, how much it holds, and its settings."""

    position: int
    messages: int
    size: int
    about: About


@dataclass(frozen=True)
class Conversation:
    """A conversation as it stands in a list.

    Attributes:
        thread_id: its id.
        about: its title and settings.
        messages: how many messages it has.
        tokens: their tokens together, as estimated when they were written.
        last_at: when the last one was written.
        expires_at: when it will be gone, unless a message is added; None for never.
        mark: changes with the conversation; equal marks mean that there is nothing new.
        revision: how often its metadata was changed.
    """

    thread_id: str
    about: About
    messages: int
    tokens: int
    last_at: datetime | None
    expires_at: datetime | None
    mark: Mark
    revision: int


@dataclass(frozen=True)
class Hits:
    """What a search found.

    Attributes:
        found: the messages, best or newest first, each with its conversation's title.
        is_scan: whether the store has no search, so that messages were read one by one.
        is_complete: whether everything was looked at.
    """

    found: Sequence[tuple[str, SearchResult]]
    is_scan: bool = False
    is_complete: bool = True


class Threads:
    """The conversations of one user.

    Args:
        log: where all conversations are.
        tenant: whose these are.
    """

    def __init__(self, log: MessageLog, tenant: str) -> None:
        self._log = log
        self.tenant = tenant

    def store(self, thread_id: str, about: About | None = None) -> ChatMessageStore:
        """The store of a conversation; its view is as long as the settings say."""
        window = Window() if about is None else Window(last=about.history)
        return ChatMessageStore(self._log, thread_id=thread_id, tenant=self.tenant, window=window)

    async def listed(
        self, *, limit: int = 20, cursor: str | None = None
    ) -> tuple[list[Conversation], str | None]:
        """A page of conversations, the most recently written first, and where the next page begins.

        A page is one call: the title and the settings come with the list.
        """
        page = await self.store("any").list_threads(limit=limit, cursor=cursor, order="recent")
        return [_conversation(stats) for stats in page.threads], page.cursor

    async def open(self, thread_id: str) -> Conversation | None:
        """A conversation; None when this user has none of that id."""
        if not thread_id or len(thread_id) > _LONGEST_ID:
            return None
        stats = await self.store(thread_id).stats()
        return None if stats.updated_at is None else _conversation(stats)

    async def mark(self, thread_id: str) -> tuple[Mark, datetime | None]:
        """What changes with a conversation, and when it will be gone: one small call, for polling."""
        stats = await self.store(thread_id).stats()
        return _mark(stats), stats.expires_at

    async def create(self, about: About) -> str:
        """Begin a conversation; returns its id."""
        thread_id = f"chat_{uuid.uuid4().hex}"
        await self._write(thread_id, about)
        return thread_id

    async def save(self, thread_id: str, about: About, *, before: About | None = None) -> About:
        """Keep a conversation's title and settings, and set its time-to-live.

        Args:
            thread_id: the conversation.
            about: what is kept.
            before: what `about` was made from: then only what differs from it is changed, and what another
                window changed meanwhile stays.

        Raises:
            NotFoundError: when it is gone; it is not made again.
        """
        while True:
            known = await self.open(thread_id)
            if known is None:
                raise NotFoundError(f"there is no conversation {thread_id!r}")
            merged = about
            if before is not None:
                old, new = asdict(before), asdict(about)
                merged = replace(known.about, **{name: new[name] for name in new if new[name] != old[name]})
            try:
                await self._write(
                    thread_id, merged, set_ttl=merged.ttl != known.about.ttl, expected_revision=known.revision
                )
            except ConflictError:  # another window was faster, or the conversation is gone
                continue
            return merged

    async def read(
        self, thread_id: str, *, newest: int = 60, end: int | None = None
    ) -> tuple[Sequence[StoredMessage[ChatMessage]], bool]:
        """The newest messages as they are stored, up to the position `end`; and whether there are older."""
        store = self.store(thread_id)
        if end is None:
            end = (await store.stats()).last_position
        start = max(0, end - newest)
        shown = store.iter_messages(after=start, before=end + 1)
        found = [stored async for stored in shown]
        older = False
        if start:
            async for _ in store.iter_messages(before=start + 1, page_size=1):
                older = True
                break
        return found, older

    async def sent(self, conversation: Conversation) -> tuple[int, int]:
        """How many messages of the conversation the next call of the model holds, and how many tokens."""
        about = conversation.about
        shown = await self.store(conversation.thread_id, about).list_messages()
        system = [ChatMessage("system", about.instructions)] if about.instructions else []
        return len(shown), sum(map(estimate_tokens, [*system, *shown]))

    async def delete(self, thread_id: str) -> None:
        """Delete a conversation."""
        await self.store(thread_id).delete_thread()

    async def copy(self, conversation: Conversation) -> str:
        """Copy a conversation; returns the id of the copy."""
        return await self._fork(conversation, f"{conversation.about.shown_title} (copy)", at=None)

    async def branch(self, conversation: Conversation, message_id: str) -> str:
        """Copy what stands before a message, so that another can be put in its place; returns the new id.

        Raises:
            NotFoundError: when the message is gone.
        """
        position = None
        async for stored in self.store(conversation.thread_id).iter_messages():
            if stored.message.message_id == message_id:
                position = stored.position
                break
        if position is None:
            raise NotFoundError(f"there is no message {message_id!r}")
        title = conversation.about.shown_title
        return await self._fork(conversation, f"{title.removesuffix(' (branch)')} (branch)", at=position - 1)

    async def export(self, thread_id: str) -> bytes:
        """A conversation as JSON Lines, in the format of ``agent-stores export``."""
        return b"".join([line async for line in export_thread(self.store(thread_id))])

    async def import_file(self, content: bytes) -> list[str]:
        """Import conversations from a file; whatever tenant it names, they become this user's.

        Returns:
            Their ids. What is here already is not added twice.

        Raises:
            InputFileError: when the file is malformed; it is checked as a whole before anything is written.
        """
        ids = [
            line.item.thread_id for line in read_export(io.BytesIO(content)) if isinstance(line.item, Header)
        ]
        if any(len(thread_id) > _LONGEST_ID for thread_id in ids):
            raise InputFileError(f"it holds an id of more than {_LONGEST_ID} characters")
        await import_threads(self._log, io.BytesIO(content), tenant=self.tenant)
        for thread_id in ids:
            conversation = await self.open(thread_id)
            if conversation is not None and not conversation.about.title:
                await self._write(thread_id, replace(conversation.about, title="Imported conversation"))
            elif conversation is not None:
                await self.store(thread_id).set_ttl(conversation.about.ttl)  # which no file holds
        return ids

    async def search(self, query: str, *, limit: int = 20) -> Hits:
        """Messages of this user that have words of a query."""
        try:
            found = await self.store("any").search(query, limit=limit, all_threads=True)
        except StoreRejectedError:
            return await self._scan(query, limit)
        titles = {hit.thread_id: "" for hit in found}
        for thread_id in titles:
            titles[thread_id] = read_about(await self.store(thread_id).metadata()).shown_title
        return Hits([(titles[hit.thread_id], hit) for hit in found])

    async def _scan(self, query: str, limit: int) -> Hits:
        """Read messages one by one, for stores without a search: the most recent conversations first."""
        words = [word for word in re.findall(r"\w+", query.lower()) if word]
        conversations, cursor = await self.listed(limit=_SCANNED_THREADS)
        found: list[tuple[str, SearchResult]] = []
        for conversation in conversations:
            async for stored in self.store(conversation.thread_id).iter_messages():
                message = stored.message
                if message.role not in ("user", "assistant") or not words:
                    continue
                if set(words) & set(re.findall(r"\w+", message.text.lower())):
                    hit = SearchResult(conversation.thread_id, stored.position, message, 0.0)
                    found.append((conversation.about.shown_title, hit))
                    if len(found) == limit:
                        return Hits(found, is_scan=True, is_complete=False)
        return Hits(found, is_scan=True, is_complete=cursor is None)

    async def _fork(self, conversation: Conversation, title: str, *, at: int | None) -> str:
        branch = await self.store(conversation.thread_id).fork(f"chat_{uuid.uuid4().hex}", at=at)
        await self._write(branch.thread_id, replace(conversation.about, title=title))
        return branch.thread_id

    async def _write(
        self, thread_id: str, about: About, *, set_ttl: bool = True, expected_revision: int | None = None
    ) -> None:
        store = self.store(thread_id)
        await store.update_metadata(about.to_metadata(), expected_revision=expected_revision)
        if set_ttl:
            await store.set_ttl(about.ttl)


def _conversation(stats: ThreadStats) -> Conversation:
    return Conversation(
        thread_id=stats.thread_id,
        about=read_about(stats.metadata),
        messages=stats.messages,
        tokens=stats.tokens,
        last_at=stats.last_at,
        expires_at=stats.expires_at,
        mark=_mark(stats),
        revision=stats.revision,
    )


def _mark(stats: ThreadStats) -> Mark:
    return Mark(stats.last_position, stats.messages, stats.bytes, read_about(stats.metadata))
