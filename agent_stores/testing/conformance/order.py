"""Messages come back in the order in which they were acknowledged, whoever writes at once."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Callable

import pytest

from agent_stores.log import MessageLog
from agent_stores.messages import ChatMessage
from agent_stores.store import ChatMessageStore
from agent_stores.testing.conformance.target import MakeStore, Target, stored, user

PROCESSES = 8
MESSAGES = 200  # of each process, in calls of two


@pytest.mark.anyio
class TestOrder:
    async def test_messages_come_back_as_they_were_added(self, make_store: MakeStore) -> None:
        store = make_store()
        await store.add_messages([user("1"), user("2")])
        await store.add_messages([user("3")])
        await store.add_messages([])
        assert [message.text for message in await store.list_messages()] == ["1", "2", "3"]
        assert [item.position async for item in store.iter_messages()] == [1, 2, 3]

    async def test_another_client_sees_what_was_added(self, make_store: MakeStore) -> None:
        one = make_store()
        two = make_store(thread_id=one.thread_id)
        await one.add_messages([user("from one")])
        await two.add_messages([user("from two")])
        assert await stored(one) == await stored(two) == ["from one", "from two"]

    async def test_tasks_that_write_at_once(self, make_store: MakeStore) -> None:
        first = make_store()
        stores = [first, *(make_store(thread_id=first.thread_id) for _ in range(3))]

        async def write(task: int) -> None:
            for turn in range(6):
                pair = [user(f"{task}.{turn}.{half}") for half in "ab"]
                await stores[task % 4].add_messages(pair)

        await asyncio.gather(*(write(task) for task in range(12)))
        check_turns(await stored(first), writers=12, turns=6)

    async def test_processes_that_write_at_once(self, make_store: MakeStore, target: Target) -> None:
        if target.open_in_process is None:
            return  # its data cannot be reached from another process
        store = make_store()
        context = multiprocessing.get_context("spawn")
        processes = [
            context.Process(target=_write, args=(target.open_in_process, store.thread_id, number))
            for number in range(PROCESSES)
        ]
        for process in processes:
            await asyncio.to_thread(process.start)
        for process in processes:
            await asyncio.to_thread(process.join, 120)
        assert [process.exitcode for process in processes] == [0] * PROCESSES
        check_turns(await stored(store), writers=PROCESSES, turns=MESSAGES // 2)
        assert await store.count() == PROCESSES * MESSAGES


def check_turns(texts: list[str], *, writers: int, turns: int) -> None:
    """Each writer's turns are there once, in order, and the two messages of a turn side by side."""
    pairs = list(zip(texts[::2], texts[1::2], strict=True))
    for first, second in pairs:
        assert first[:-1] == second[:-1], "a turn was torn apart"
        assert (first[-1], second[-1]) == ("a", "b")
    for writer in range(writers):
        own = [first for first, _ in pairs if first.startswith(f"{writer}.")]
        assert own == [f"{writer}.{turn}.a" for turn in range(turns)]
    assert len(pairs) == writers * turns


def _write(open_log: Callable[[], MessageLog], thread_id: str, number: int) -> None:
    async def write() -> None:
        log = open_log()
        store: ChatMessageStore = ChatMessageStore(log, thread_id=thread_id)
        for turn in range(MESSAGES // 2):
            await store.add_messages([ChatMessage("user", f"{number}.{turn}.{half}") for half in "ab"])
        await log.aclose()

    asyncio.run(write())
