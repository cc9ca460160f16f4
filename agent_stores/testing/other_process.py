"""The other processes of the conformance suite. They start quickly, as this module does not import pytest."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

from agent_stores.errors import StoreUnavailableError
from agent_stores.log import MessageLog
from agent_stores.messages import ChatMessage
from agent_stores.store import ChatMessageStore


def add_turns(open_log: Callable[[], MessageLog], thread_id: str, writer: int, turns: int) -> None:
    """Add turns of two messages to a thread: ``{writer}.{turn}.a`` and ``{writer}.{turn}.b``."""

    async def add() -> None:
        log = open_log()
        store: ChatMessageStore = ChatMessageStore(log, thread_id=thread_id)
        for turn in range(turns):
            messages = [ChatMessage("user", f"{writer}.{turn}.{half}") for half in "ab"]
            while True:  # on a slow server other writers may be faster for long; the error asks to repeat
                try:
                    await store.add_messages(messages)
                    break
                except StoreUnavailableError:
                    await asyncio.sleep(0.1)
        await log.aclose()

    asyncio.run(add())


def go_on(open_log: Callable[[], MessageLog], state: str) -> None:
    """Restore a store from a state, as JSON, read ``before`` in its thread, and add ``after``."""

    async def restore() -> None:
        log = open_log()
        store: ChatMessageStore = ChatMessageStore(log)
        await store.update_from_state(json.loads(state))
        texts = [message.text for message in await store.list_messages()]
        assert texts == ["before"], texts
        await store.add_messages([ChatMessage("user", "after")])
        await log.aclose()

    asyncio.run(restore())
