"""`AgentStoresChatKitStore`: a store of ChatKit over any of ours."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, cast

from chatkit.store import NotFoundError, Store
from chatkit.types import Attachment, Page, ThreadItem, ThreadMetadata
from pydantic import TypeAdapter
from typing_extensions import TypeVar, Unpack

from agent_stores import errors
from agent_stores.backend import ThreadKey
from agent_stores.contents import OpaqueContent
from agent_stores.errors import ArgumentError
from agent_stores.listing import ThreadStats
from agent_stores.log import MessageLog
from agent_stores.message_rows import decode_rows
from agent_stores.messages import ChatMessage
from agent_stores.plugins.chatkit.codec import FRAMEWORK, ThreadItemCodec
from agent_stores.plugins.closing import AsyncClosing
from agent_stores.plugins.json_codec import Data
from agent_stores.plugins.store_resolver import PluginOptions, StoreLike, StoreResolver
from agent_stores.store import ChatMessageStore

TContext = TypeVar("TContext", default=Any)

_ATTACHMENT: TypeAdapter[Any] = TypeAdapter(Attachment)
_ATTACHMENTS = "#/chatkit/attachments"  # the thread of a tenant's attachments
_REMEMBERED = 1024  # tenants
_PAGE = 500


class AgentStoresChatKitStore(AsyncClosing, Store[TContext]):
    """The store of a ``ChatKitServer``: threads, items and the metadata of attachments.

    A thread is the thread with its id, each item a row of it, and ChatKit's metadata of the thread is in the
    thread's metadata.

    Args:
        store: where threads are kept: a URL as `open_log` takes it, a `MessageLog`, or a function that makes
            the store of a thread id.
        tenant_of: returns the tenant of a request's context, such as the user's id. Requests see the threads,
            items and attachments of their tenant only. Without it all requests see all that is of `tenant`.
        options: those of the store, for a URL or a log: ``tenant``, ``max_messages``, ``ttl``,
            ``ttl_refresh``, ``on_corrupt`` and ``count_tokens``.

    Raises:
        ArgumentError, ArgumentTypeError: for wrong values. Nothing connects before the first operation.
    """

    def __init__(
        self,
        store: StoreLike,
        *,
        tenant_of: Callable[[TContext], str] | None = None,
        **options: Unpack[PluginOptions],
    ) -> None:
        self._codec = ThreadItemCodec()
        self._tenant_of = tenant_of
        self._options = options
        self._opened = self._open(store, options)
        if tenant_of is not None and (
            "tenant" in options or not isinstance(store, (str, os.PathLike, MessageLog))
        ):
            raise ArgumentError(
                "tenant_of must not be given together with tenant, or with a function that makes stores"
            )
        self._by_tenant: OrderedDict[str, StoreResolver[Any]] = OrderedDict()

    # -- threads ------------------------------------------------------------------------------------------

    async def load_thread(self, thread_id: str, context: TContext) -> ThreadMetadata:
        """A thread's metadata; also of a thread that another framework began.

        Raises:
            NotFoundError: ChatKit's, when there is no such thread.
        """
        stats = await self._store(thread_id, context).stats()
        if stats.updated_at is None:
            raise NotFoundError(f"Thread {thread_id} not found")
        return _metadata(stats) or ThreadMetadata(id=thread_id, created_at=stats.first_at or stats.updated_at)

    async def save_thread(self, thread: ThreadMetadata, context: TContext) -> None:
        """Set a thread's metadata, at most 64 KiB; creates the thread."""
        data = thread.model_dump(mode="json", exclude={"items"})
        await self._store(thread.id, context).update_metadata({FRAMEWORK: data})

    async def load_threads(
        self, limit: int, after: str | None, order: str, context: TContext
    ) -> Page[ThreadMetadata]:
        """A page of the threads that were saved, by time of creation; reads no items.

        Raises:
            NotFoundError: ChatKit's, when there is no thread `after`.
        """
        threads = await self._saved_threads(context)
        # A time without a time zone is a local time.
        threads.sort(key=lambda one: (one.created_at.astimezone(), one.id), reverse=order != "asc")
        start = 0
        if after:
            ids = [thread.id for thread in threads]
            if after not in ids:
                raise NotFoundError(f"Thread {after} not found")
            start = ids.index(after) + 1
        page = threads[start : start + limit]
        has_more = len(threads) > start + limit
        return Page(data=page, has_more=has_more, after=page[-1].id if has_more and page else None)

    async def delete_thread(self, thread_id: str, context: TContext) -> None:
        """Delete a thread with its items."""
        await self._store(thread_id, context).delete_thread()

    # -- items --------------------------------------------------------------------------------------------

    async def load_thread_items(
        self, thread_id: str, after: str | None, limit: int, order: str, context: TContext
    ) -> Page[ThreadItem]:
        """A page of a thread's items, in the order in which they were added.

        Raises:
            NotFoundError: ChatKit's, when there is no item `after`.
        """
        store = self._store(thread_id, context)
        key = ThreadKey(store.tenant, thread_id)
        edge: int | None = None
        if after:
            found = await store.log.backend.find(key, [after])
            if after not in found:
                raise NotFoundError(f"Item {after} not found")
            edge = found[after].position
        items: list[ThreadItem] = []
        newest = order != "asc"
        while len(items) <= limit:
            wanted = limit + 1 - len(items)
            if newest:
                rows = await store.log.read(key, before=edge, limit=wanted, newest=True)
                rows = rows[max(0, len(rows) - wanted) :][::-1]  # pinned rows may come in addition
            else:
                rows = await store.log.read(key, after=edge or 0, limit=wanted)
            on_corrupt = self._options.get("on_corrupt", "raise")
            for _, message in decode_rows(rows, thread_id=thread_id, on_corrupt=on_corrupt):
                if (item := self._codec.item_of(message, thread_id)) is not None:
                    items.append(item)
            if len(rows) < wanted:
                break
            edge = rows[-1].position
        page, has_more = items[:limit], len(items) > limit
        return Page(data=page, has_more=has_more, after=page[-1].id if has_more and page else None)

    async def add_thread_item(self, thread_id: str, item: ThreadItem, context: TContext) -> None:
        """Add an item at the end of a thread; adding the same item again changes nothing.

        Raises:
            ConflictError: when the thread has another item with that id.
        """
        store = self._store(thread_id, context)
        message = self._codec.encode(item, thread_id)
        present = await store.get(item.id)
        if present is None:
            await store.add_messages([message])
        elif self._codec.item_of(present, thread_id) != item:
            raise errors.ConflictError(
                f"thread {thread_id!r} has another item with the id {item.id!r}; nothing was written"
            )

    async def save_item(self, thread_id: str, item: ThreadItem, context: TContext) -> None:
        """Replace the item with that id; it is added when there is none."""
        await _upsert(self._store(thread_id, context), self._codec.encode(item, thread_id))

    async def load_item(self, thread_id: str, item_id: str, context: TContext) -> ThreadItem:
        """The item with an id.

        Raises:
            NotFoundError: ChatKit's, when there is none.
        """
        message = await self._store(thread_id, context).get(item_id)
        item = None if message is None else self._codec.item_of(message, thread_id)
        if item is None:
            raise NotFoundError(f"Item {item_id} not found in thread {thread_id}")
        return item

    async def delete_thread_item(self, thread_id: str, item_id: str, context: TContext) -> None:
        """Delete an item."""
        await self._store(thread_id, context).delete(item_id)

    # -- attachments --------------------------------------------------------------------------------------

    async def save_attachment(self, attachment: Attachment, context: TContext) -> None:
        """Set the metadata of an attachment."""
        data = attachment.model_dump(mode="json")
        part = OpaqueContent({"type": f"{FRAMEWORK}.attachment", "attachment": data})
        message = ChatMessage("user", contents=[part], message_id=attachment.id)
        await _upsert(self._attachments(context), message)

    async def load_attachment(self, attachment_id: str, context: TContext) -> Attachment:
        """The metadata of an attachment.

        Raises:
            NotFoundError: ChatKit's, when there is none.
        """
        message = await self._attachments(context).get(attachment_id)
        if message is None:
            raise NotFoundError(f"Attachment {attachment_id} not found")
        part = cast("OpaqueContent", message.contents[0])
        return cast("Attachment", _ATTACHMENT.validate_python(part.data["attachment"]))

    async def delete_attachment(self, attachment_id: str, context: TContext) -> None:
        """Delete the metadata of an attachment."""
        await self._attachments(context).delete(attachment_id)

    # -- closing ------------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """Close what was opened here; what was given stays open."""
        for opened in self._by_tenant.values():
            await opened.aclose()
        self._by_tenant.clear()
        await self._opened.aclose()

    def _open(self, store: StoreLike, options: PluginOptions) -> StoreResolver[Any]:
        return StoreResolver(
            store, codec=self._codec, options=options, dangling_calls="keep", accepts=("tenant_of",)
        )

    def _store(self, thread_id: str, context: TContext) -> ChatMessageStore[ChatMessage]:
        """The store of our messages on a thread of the context's tenant."""
        if self._tenant_of is None:
            return self._opened.neutral(thread_id)
        log = self._opened.store(thread_id).log
        tenant = self._tenant_of(context)
        if tenant not in self._by_tenant:
            self._by_tenant[tenant] = self._open(log, {**self._options, "tenant": tenant})
            if len(self._by_tenant) > _REMEMBERED:
                self._by_tenant.popitem(last=False)  # it borrows its log, so there is nothing to close
        self._by_tenant.move_to_end(tenant)
        return self._by_tenant[tenant].neutral(thread_id)

    def _attachments(self, context: TContext) -> ChatMessageStore[ChatMessage]:
        """The store of a tenant's attachments, which no limit of messages trims."""
        store = self._store(_ATTACHMENTS, context)
        ttl, refresh = self._options.get("ttl"), self._options.get("ttl_refresh", "write")
        return ChatMessageStore(
            store.log, thread_id=_ATTACHMENTS, tenant=store.tenant, ttl=ttl, ttl_refresh=refresh
        )

    async def _saved_threads(self, context: TContext) -> list[ThreadMetadata]:
        store = self._store("threads", context)
        found: list[ThreadMetadata] = []
        cursor: str | None = None
        while True:
            page = await store.list_threads(limit=_PAGE, cursor=cursor)
            found += [thread for stats in page.threads if (thread := _metadata(stats)) is not None]
            cursor = page.cursor
            if cursor is None:
                return found


async def _upsert(store: ChatMessageStore[ChatMessage], message: ChatMessage) -> None:
    try:
        await store.replace(message.message_id or "", message)
    except errors.NotFoundError:
        await store.add_messages([message])


def _metadata(stats: ThreadStats) -> ThreadMetadata | None:
    data: Data | None = stats.metadata.get(FRAMEWORK)
    return None if data is None else ThreadMetadata.model_validate({**data, "id": stats.thread_id})
