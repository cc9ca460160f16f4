"""`agent-stores demo`: a conversation that goes on in another process, and what trimming leaves of it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from agent_stores.cli import render
from agent_stores.cli.exit_codes import ExitCode
from agent_stores.database import DatabaseChatMessageStore
from agent_stores.errors import ArgumentError
from agent_stores.messages import ChatMessage
from agent_stores.store import StoredMessage
from agent_stores.testing.local_model import local_model


def run(url: str | None, *, keep: bool) -> int:
    """Run the demonstration.

    Args:
        url: where the conversation is kept; an SQLite file in a new folder by default.
        keep: whether the conversation is left there.

    Returns:
        The exit status: 0 when the restored conversation knew the name and trimming was right.
    """
    out = render.console()
    with ExitStack() as cleanup:
        if keep:
            folder = Path(tempfile.mkdtemp(prefix="agent-stores-"))
        else:
            temporary = tempfile.TemporaryDirectory(prefix="agent-stores-", ignore_cleanup_errors=True)
            folder = Path(cleanup.enter_context(temporary))
        store_url = url or str(folder / "demo.db")
        location = _check(store_url)
        _model(out, cleanup.enter_context(local_model()))

        state_file = folder / "thread.json"
        _head(out, f"1. A process begins a conversation, stored in {location}.")
        if status := _step("talk", state_file, store_url):
            return status
        thread_id = str(json.loads(state_file.read_text(encoding="utf-8"))["store"]["thread_id"])
        try:
            _head(out, "2. Another process restores the thread from that state, and asks:")
            if status := _step("restore", state_file, store_url):
                out.print("   The answer lacks the name: the conversation was not restored.")
                return status
            return asyncio.run(_show_thread(out, store_url, thread_id))
        finally:
            if keep:
                where = "URL" if url else store_url
                out.print(f"\nKept. To see it: agent-stores show {thread_id} --store {where}", soft_wrap=True)
            else:
                asyncio.run(_delete(store_url, thread_id))


def _check(url: str) -> str:
    """Reject a URL where no other process finds the conversation; returns its location."""
    from agent_stores.backends.sql.config import parse_config

    config = None if url.rstrip("/") == "memory:" else parse_config(url)
    if config is None or config.is_memory:
        raise ArgumentError(
            "the store must be a database, got one in memory, where no other process finds it"
        )
    return config.location


def _model(out: Console, local_url: str | None) -> None:
    if local_url is None:
        out.print(f"The model is {os.environ.get('OPENAI_MODEL') or 'the default one'}, as OPENAI_* say.")
    else:
        out.print(
            "No OPENAI_API_KEY is set, so a local test model answers, by fixed rules. It\n"
            "remembers nothing: what it knows is in the messages that it is sent."
        )


def _head(out: Console, text: str) -> None:
    out.print(Text(f"\n{text}", style="bold"))
    out.file.flush()  # before another process writes to the same output


def _step(name: str, state_file: Path, url: str) -> int:
    command = [sys.executable, "-m", "agent_stores.cli.demo_step", name, str(state_file)]
    return subprocess.run(command, env={**os.environ, "AGENT_STORES_URL": url}, check=False).returncode  # noqa: S603


async def _show_thread(out: Console, url: str, thread_id: str) -> int:
    """Show the thread as this third process reads it, and trim copies of it."""
    async with DatabaseChatMessageStore(url, thread_id=thread_id) as store:
        messages = [stored async for stored in store.iter_messages()]
        _head(out, f"3. The thread, as a third process ({os.getpid()}) reads it:")
        await render.print_messages(out, store.iter_messages(), last_position=messages[-1].position)
        _head(out, "4. Trimming does not separate a tool call from its result.")
        return await _trim(out, store, url, messages)


async def _trim(
    out: Console, store: DatabaseChatMessageStore, url: str, messages: list[StoredMessage[ChatMessage]]
) -> int:
    """Add a message to copies of the thread with limits whose cut falls before and within a tool group."""
    call = next((index for index, stored in enumerate(messages) if stored.message.tool_calls), None)
    if call is None:
        out.print("   The model called no tool this time, so there is nothing to show.")
        return ExitCode.OK
    group = [messages[call].position, messages[call + 1].position]
    out.print(f"   One message more, in copies of the thread (call #{group[0]}, result #{group[1]}):")
    right = True
    whole = len(messages) + 1 - call  # with the new message: from the call on
    for limit in (whole, whole - 1):
        async with await store.fork() as copy:
            copy_id = copy.thread_id
        async with DatabaseChatMessageStore(url, thread_id=copy_id, max_messages=limit) as trimmed:
            await trimmed.add_messages([ChatMessage("user", "Thank you!")])
            kept = [stored.position async for stored in trimmed.iter_messages()]
            await trimmed.delete_thread()
        inside = [position in kept for position in group]
        right = right and len(kept) <= limit and inside[0] == inside[1]
        outcome = {
            (True, True): "call and result both stay",
            (False, False): f"#{group[1]} alone would lack its call, so both go",
        }.get((inside[0], inside[1]), "the group was split!")
        text = f"max_messages={limit} keeps {len(kept)}, #{kept[0]} to #{kept[-1]}: {outcome}."
        out.print(Padding(text, (0, 0, 0, 3)))
    return ExitCode.OK if right else ExitCode.FAILED


async def _delete(url: str, thread_id: str) -> None:
    async with DatabaseChatMessageStore(url, thread_id=thread_id) as store:
        await store.delete_thread()
