"""A store in memory, as the examples of ChatKit are; and a server on a store."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import datetime, timezone
from typing import Any, NamedTuple, TypeVar

from chatkit.server import ChatKitServer, StreamingResult
from chatkit.store import NotFoundError, Store
from chatkit.types import (
    AssistantMessageContent,
    AssistantMessageItem,
    Attachment,
    ClientToolCallItem,
    Page,
    ThreadItem,
    ThreadItemDoneEvent,
    ThreadMetadata,
    ThreadStreamEvent,
    UserMessageItem,
    UserMessageTextContent,
)

T = TypeVar("T")


class User(NamedTuple):
    """The context of a request."""

    name: str


class ReferenceStore(Store[User]):
    """Threads, items and attachments in dicts, by user."""

    def __init__(self) -> None:
        self.threads: dict[tuple[str, str], ThreadMetadata] = {}
        self.items: dict[tuple[str, str], dict[str, ThreadItem]] = {}
        self.attachments: dict[tuple[str, str], Attachment] = {}

    async def load_thread(self, thread_id: str, context: User) -> ThreadMetadata:
        return _found(self.threads, (context.name, thread_id)).model_copy(deep=True)

    async def save_thread(self, thread: ThreadMetadata, context: User) -> None:
        self.threads[context.name, thread.id] = thread.model_copy(deep=True)

    async def load_threads(
        self, limit: int, after: str | None, order: str, context: User
    ) -> Page[ThreadMetadata]:
        mine = [thread for (name, _), thread in self.threads.items() if name == context.name]
        mine.sort(key=lambda thread: thread.created_at, reverse=order == "desc")
        return _page(mine, limit, after)

    async def delete_thread(self, thread_id: str, context: User) -> None:
        self.threads.pop((context.name, thread_id), None)
        self.items.pop((context.name, thread_id), None)

    async def load_thread_items(
        self, thread_id: str, after: str | None, limit: int, order: str, context: User
    ) -> Page[ThreadItem]:
        items = list(self.items.get((context.name, thread_id), {}).values())
        return _page(items[::-1] if order == "desc" else items, limit, after)

    async def add_thread_item(self, thread_id: str, item: ThreadItem, context: User) -> None:
        self.items.setdefault((context.name, thread_id), {})[item.id] = item.model_copy(deep=True)

    async def save_item(self, thread_id: str, item: ThreadItem, context: User) -> None:
        await self.add_thread_item(thread_id, item, context)

    async def load_item(self, thread_id: str, item_id: str, context: User) -> ThreadItem:
        return _found(self.items.get((context.name, thread_id), {}), item_id)

    async def delete_thread_item(self, thread_id: str, item_id: str, context: User) -> None:
        self.items.get((context.name, thread_id), {}).pop(item_id, None)

    async def save_attachment(self, attachment: Attachment, context: User) -> None:
        self.attachments[context.name, attachment.id] = attachment

    async def load_attachment(self, attachment_id: str, context: User) -> Attachment:
        return _found(self.attachments, (context.name, attachment_id))

    async def delete_attachment(self, attachment_id: str, context: User) -> None:
        self.attachments.pop((context.name, attachment_id), None)


def _found(values: dict[Any, T], key: Any) -> T:
    if key not in values:
        raise NotFoundError(f"{key} not found")
    return values[key]


def _page(values: list[Any], limit: int, after: str | None) -> Page[Any]:
    ids = [value.id for value in values]
    if after is not None and after not in ids:
        raise NotFoundError(f"{after} not found")
    start = ids.index(after) + 1 if after is not None else 0
    more = len(values) > start + limit
    data = values[start : start + limit]
    return Page(data=data, has_more=more, after=data[-1].id if more else None)


class EchoServer(ChatKitServer[User]):
    """Repeats what was said, and asks the client for its position."""

    async def respond(
        self, thread: ThreadMetadata, input_user_message: UserMessageItem | None, context: User
    ) -> AsyncIterator[ThreadStreamEvent]:
        history = (await self.store.load_thread_items(thread.id, None, 50, "asc", context)).data
        last = history[-1]
        base: dict[str, Any] = {
            "id": self.store.generate_item_id("message", thread, context),
            "thread_id": thread.id,
            "created_at": datetime.now(timezone.utc),
        }
        if isinstance(last, UserMessageItem) and "where" in _text(last):
            call = ClientToolCallItem(
                **base, call_id=f"call_{len(history)}", name="position", arguments={"exact": True}
            )
            yield ThreadItemDoneEvent(item=call)
            return
        said = str(last.output) if isinstance(last, ClientToolCallItem) else f"{len(history)}: {_text(last)}"
        answer = AssistantMessageItem(**base, content=[AssistantMessageContent(text=said)])
        yield ThreadItemDoneEvent(item=answer)

    async def request(self, kind: str, user: User, **params: Any) -> list[Any]:
        """The JSON of what a request gives."""
        result = await self.process(json.dumps({"type": kind, "params": params}), user)
        if isinstance(result, StreamingResult):
            return [json.loads(chunk.removeprefix(b"data: ")) async for chunk in result]
        return [json.loads(result.json)]


def _text(item: Any) -> str:
    return "".join(part.text for part in item.content if isinstance(part, UserMessageTextContent))
