"""Messages come back in the order in which they were acknowledged, with concurrent writers."""

from __future__ import annotations

import asyncio
import multiprocessing
import time

import pytest

from agent_stores.attempts import time_limit
from agent_stores.errors import ArgumentError
from agent_stores.testing.conformance.target import MakeStore, Target, stored, user
from agent_stores.testing.other_process import add_turns

PROCESSES = 8
TURNS = 100  # of each process, of two messages


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

    async def test_a_watcher_sees_each_message_once_and_in_order(self, make_store: MakeStore) -> None:
        reader = make_store()
        await reader.add_messages([user("before")])
        writers = [make_store(thread_id=reader.thread_id) for _ in range(3)]
        seen: list[tuple[int, str]] = []
        looked = asyncio.Event()

        async def follow() -> None:
            async for item in reader.watch(after=1, longest_pause=0.1):
                looked.set()
                seen.append((item.position, item.message.text))
                if item.message.text == "end":
                    return

        async def write(number: int) -> None:
            for count in range(10):
                await writers[number].add_messages([user(f"{number}.{count}a"), user(f"{number}.{count}b")])

        following = asyncio.create_task(follow())
        await asyncio.gather(*(write(number) for number in range(3)))
        async with time_limit(time.monotonic() + 60):
            await looked.wait()  # else it cannot tell that the thread was deleted
        await writers[0].delete_thread()
        await writers[0].add_messages([user("again"), user("end")])
        async with time_limit(time.monotonic() + 60):
            await following
        texts = [text for _, text in seen]
        assert texts[-2:] == ["again", "end"]
        assert len(set(texts)) == len(texts)
        for number in range(3):  # the deletion may have come before the last of them were read
            own = [text for text in texts if text.startswith(f"{number}.")]
            assert own == [f"{number}.{count}{part}" for count in range(10) for part in "ab"][: len(own)]
        positions = [position for position, _ in seen[:-2]]
        assert positions == list(range(2, 2 + len(positions)))

    async def test_a_watcher_begins_now(self, make_store: MakeStore) -> None:
        store = make_store()
        await store.add_messages([user("before")])
        messages = store.watch(longest_pause=0.05)
        coming = asyncio.ensure_future(anext(aiter(messages)))
        await asyncio.sleep(0.2)
        assert not coming.done()
        await store.add_messages([user("now")])
        async with time_limit(time.monotonic() + 30):
            assert (await coming).message.text == "now"
        for wrong in (0, -1, float("nan")):
            with pytest.raises(ArgumentError, match="longest_pause"):
                store.watch(longest_pause=wrong)

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
        count, turns = (3, 20) if target.shortened else (PROCESSES, TURNS)
        context = multiprocessing.get_context("spawn")
        processes = [
            context.Process(target=add_turns, args=(target.open_in_process, store.thread_id, number, turns))
            for number in range(count)
        ]
        for process in processes:
            await asyncio.to_thread(process.start)
        for process in processes:
            await asyncio.to_thread(process.join, 120)
        assert [process.exitcode for process in processes] == [0] * count
        check_turns(await stored(store), writers=count, turns=turns)
        assert await store.count() == 2 * count * turns


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
