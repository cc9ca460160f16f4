"""One step of `agent-stores demo`, as a process of its own.

``python -m agent_stores.cli.demo_step talk STATE`` begins a conversation and writes the thread's state to the
file STATE; ``restore STATE`` goes on with that conversation. ``AGENT_STORES_URL`` says where it is stored.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from agent_stores.agent import ChatAgent, OpenAIChatClient
from agent_stores.cli import render
from agent_stores.cli.exit_codes import ExitCode, exit_code
from agent_stores.database import DatabaseChatMessageStore
from agent_stores.errors import AgentStoresError
from agent_stores.store import ChatMessageStore
from agent_stores.threads import AgentThread

NAME = "Alice"


def get_time() -> str:
    """The time now, in UTC."""
    return f"{datetime.now(timezone.utc):%H:%M:%S} UTC"


def make_agent(url: str) -> ChatAgent:
    """The agent of both steps; its threads are stored at a URL."""

    def create_store() -> DatabaseChatMessageStore:
        return DatabaseChatMessageStore(url)

    return ChatAgent(
        chat_client=OpenAIChatClient(),
        instructions="You are a helpful assistant. Answer in one short sentence.",
        tools=[get_time],
        chat_message_store_factory=create_store,
    )


async def talk(agent: ChatAgent, out: Console) -> dict[str, Any]:
    """Begin a conversation; returns the thread's state."""
    thread = agent.get_new_thread()
    await _ask(agent, thread, f"Hello, my name is {NAME}", out)
    await _ask(agent, thread, "What time is it? Use your tool.", out)
    state = await thread.serialize()
    await _close(thread)
    return state


async def restore(agent: ChatAgent, state: dict[str, Any], out: Console) -> bool:
    """Go on with the conversation of a state; returns whether the model knew the name from it."""
    thread = await agent.deserialize_thread(state)
    answer = await _ask(agent, thread, "What's my name?", out)
    await _close(thread)
    return NAME in answer


async def _ask(agent: ChatAgent, thread: AgentThread, question: str, out: Console) -> str:
    lines = Table.grid(padding=(0, 2))
    lines.add_column(width=9, justify="right")
    lines.add_column(overflow="fold")
    lines.add_row("you", render.clean(question))
    response = await agent.run(question, thread=thread)
    for message in response.messages:
        if message.contents:
            lines.add_row(
                Text("tool" if message.role == "tool" else "agent", style="bold"), render.describe(message)
            )
    out.print(lines)
    return response.text


async def _close(thread: AgentThread) -> None:
    if isinstance(thread.message_store, ChatMessageStore):
        await thread.message_store.aclose()


def main(arguments: Sequence[str]) -> int:
    """Run one step; returns the exit status."""
    step, state_file = arguments[0], Path(arguments[1])
    out = render.console()
    try:
        agent = make_agent(os.environ["AGENT_STORES_URL"])
        if step == "restore":
            state = json.loads(state_file.read_text(encoding="utf-8"))
            if not asyncio.run(restore(agent, state, out)):
                return ExitCode.FAILED
            out.print(f"   Process {os.getpid()} had that from the state and the store alone.")
            return ExitCode.OK
        text = json.dumps(asyncio.run(talk(agent, out)))
        state_file.write_text(text, encoding="utf-8")
        out.print(f"   Process {os.getpid()} wrote the thread's state, {len(text)} bytes of JSON, and ends.")
        return ExitCode.OK
    except AgentStoresError as error:
        print(f"agent-stores: {render.clean(' '.join(str(error).split()))}", file=sys.stderr)
        return exit_code(error)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
