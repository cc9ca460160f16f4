"""Taking conversations over as users do, and looking at what came of it."""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from agent_stores import ChatMessage, ChatMessageStore, open_log
from agent_stores.cli import main
from agent_stores.log import ThreadStats
from agent_stores.retention import DanglingCalls


class Done(NamedTuple):
    """How a migration ended: the exit status, and the report."""

    status: int
    report: dict[str, Any]


def run_migration(source: str, target: str, *arguments: str) -> Done:
    """Run `agent-stores migrate`."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "report.json")
        status = main(["migrate", "--from", source, "--to", target, "--report", str(file), *arguments])
        return Done(status, json.loads(file.read_text()) if file.exists() else {})


def read(
    target: str, thread: str, *, tenant: str | None = None, dangling_calls: DanglingCalls = "raise"
) -> list[ChatMessage]:
    """The messages of a thread, as they are stored; all calls have to have their results, unless said."""

    async def work() -> list[ChatMessage]:
        log = open_log(target)
        store: ChatMessageStore[ChatMessage] = ChatMessageStore(
            log, thread_id=thread, tenant=tenant, dangling_calls=dangling_calls
        )
        await store.list_messages()
        found = [stored.message async for stored in store.iter_messages()]
        await log.aclose()
        return found

    return asyncio.run(work())


def add(target: str, thread: str, *messages: ChatMessage, tenant: str | None = None) -> None:
    """Go on with a thread."""

    async def work() -> None:
        log = open_log(target)
        await ChatMessageStore(log, thread_id=thread, tenant=tenant).add_messages(messages)
        await log.aclose()

    asyncio.run(work())


def threads(target: str, *, tenant: str | None = None) -> dict[str, ThreadStats]:
    """The threads, by their ids."""

    async def work() -> dict[str, ThreadStats]:
        log = open_log(target)
        page = await log.list_threads(tenant, limit=500)
        await log.aclose()
        assert page.cursor is None
        return {thread.thread_id: thread for thread in page.threads}

    return asyncio.run(work())
