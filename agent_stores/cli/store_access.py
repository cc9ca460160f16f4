"""Reading a store for the commands: opening it, all pages of its threads, the newest messages of one."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from agent_stores.backend import ThreadOrder
from agent_stores.cli.keys import given_keys
from agent_stores.errors import ArgumentError, NotFoundError
from agent_stores.log import MessageLog, ThreadKey, ThreadStats
from agent_stores.messages import ChatMessage
from agent_stores.store import ChatMessageStore, StoredMessage
from agent_stores.store_options import OnCorrupt
from agent_stores.urls import is_azure_url, open_log

_PAGE = 500  # threads in one page of a list


@contextlib.asynccontextmanager
async def opened(url: str, *, create: bool = False) -> AsyncIterator[MessageLog]:
    """The log of a URL.

    Args:
        url: as `open_log` takes it.
        create: whether an SQLite file is made where there is none. Otherwise a mistyped name would read as an
            empty store.

    Raises:
        NotFoundError: when there is no such SQLite file.
        ArgumentError: when it is a folder, or the keys that the environment gives are malformed.
    """
    async with given_keys() as keys:
        log = open_log(url, encryption=keys, **attachments_from_environment())
        try:
            await asyncio.to_thread(_check_file, url, create)
            yield log
        finally:
            await log.aclose()


def attachments_from_environment() -> dict[str, Any]:
    """The option ``attachments`` of a log, where AGENT_STORES_ATTACHMENTS has their URL."""
    location = os.environ.get("AGENT_STORES_ATTACHMENTS")
    if not location:
        return {}
    from agent_stores.attachments import Attachments

    return {"attachments": Attachments(location)}


def _check_file(url: str, create: bool) -> None:
    if url.rstrip("/") == "memory:" or is_azure_url(url) or ("://" in url and not url.startswith("sqlite")):
        return
    from agent_stores.backends.sql.config import parse_config

    config = parse_config(url)
    name = config.url.database
    if config.is_memory or not name or name.startswith("file:"):
        return
    if Path(name).is_dir():
        raise ArgumentError(f"the store must be an SQLite file, got the folder {name!r}")
    if not create and not Path(name).exists():
        raise NotFoundError(f"there is no SQLite file {name!r}")


def thread_store(
    log: MessageLog, tenant: str | None, thread_id: str | None = None, *, skip_corrupt: bool = False
) -> ChatMessageStore[ChatMessage]:
    """A store on a thread; without a thread's id for what concerns none."""
    on_corrupt: OnCorrupt = "skip" if skip_corrupt else "raise"
    return ChatMessageStore(log, thread_id=thread_id, tenant=tenant, on_corrupt=on_corrupt)


async def all_threads(
    log: MessageLog,
    tenant: str | None,
    *,
    prefix: str = "",
    limit: int | None = None,
    order: ThreadOrder = "id",
) -> AsyncIterator[ThreadStats]:
    """All threads of a tenant, or the first `limit`, in pages."""
    if limit is not None and limit < 0:
        raise ArgumentError(f"--limit must be a non-negative int, got {limit}")
    store = thread_store(log, tenant)
    cursor: str | None = None
    while limit is None or limit > 0:
        wanted = _PAGE if limit is None else min(limit, _PAGE)
        page = await store.list_threads(prefix=prefix, limit=wanted, cursor=cursor, order=order)
        for thread in page.threads:
            yield thread
        cursor = page.cursor
        limit = None if limit is None else limit - len(page.threads)
        if cursor is None:
            return


async def all_tenants(log: MessageLog) -> AsyncIterator[str | None]:
    """All tenants that have threads, in pages; None stands for threads without one."""
    after: str | None = None
    while True:
        page = await log.list_tenants(after=after, limit=_PAGE)
        for tenant in page:
            yield tenant
        if len(page) < _PAGE:
            return
        after = page[-1]


async def require_threads(log: MessageLog, tenant: str | None, thread_ids: Sequence[str]) -> None:
    """Check that all of these threads exist.

    Raises:
        NotFoundError: naming those that do not.
    """
    missing = []
    for thread_id in thread_ids:
        store = thread_store(log, tenant, thread_id)
        if await log.stats(ThreadKey(store.tenant, store.thread_id)) is None:
            missing.append(thread_id)
    if missing:
        raise NotFoundError(no_such(missing))


def no_such(thread_ids: Sequence[str]) -> str:
    """Says that threads do not exist."""
    word = "thread" if len(thread_ids) == 1 else "threads"
    return f"there is no {word} {', '.join(map(repr, thread_ids))}"


async def latest(
    store: ChatMessageStore[ChatMessage], last: int | None
) -> AsyncIterator[StoredMessage[ChatMessage]]:
    """The messages of a thread as they are stored, or the newest `last`, oldest first."""
    if last is None:
        async for stored in store.iter_messages():
            yield stored
        return
    if last < 0:
        raise ArgumentError(f"--last must be a non-negative int, got {last}")
    for stored in await store.latest(last):
        yield stored
