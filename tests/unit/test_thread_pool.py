"""The threads that run what would block an event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from agent_stores.errors import StoreClosedError
from agent_stores.thread_pool import ThreadPool

pytestmark = pytest.mark.anyio


def names(workers: ThreadPool) -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread in workers._threads]


async def test_results_and_errors() -> None:
    workers = ThreadPool(2, "work")
    assert await workers.run(time.monotonic() + 5, lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        await workers.run(time.monotonic() + 5, lambda: 1 // 0)
    assert names(workers) == ["work-1"]  # no more than are needed
    await asyncio.to_thread(workers.close, 60)
    assert names(workers) == []


async def test_as_many_at_once_as_there_are_threads() -> None:
    workers = ThreadPool(3, "work")
    together = threading.Barrier(3)
    met = await asyncio.gather(
        *(workers.run(time.monotonic() + 5, lambda: together.wait(5)) for _ in range(3))
    )
    assert sorted(met) == [0, 1, 2]
    await asyncio.gather(*(workers.run(time.monotonic() + 5, lambda: time.sleep(0.001)) for _ in range(30)))
    assert len(names(workers)) == 3
    await asyncio.to_thread(workers.close, 60)


async def test_one_thread_keeps_the_order() -> None:
    workers = ThreadPool(1, "work")
    seen: list[int] = []
    await asyncio.gather(*(workers.run(time.monotonic() + 5, lambda n=n: seen.append(n)) for n in range(50)))
    assert seen == list(range(50))
    await asyncio.to_thread(workers.close, 60)


async def test_what_was_given_up_before_it_began_never_runs() -> None:
    workers = ThreadPool(1, "work")
    go = threading.Event()
    seen: list[str] = []

    def run() -> None:
        go.wait(60)
        seen.append("running")

    running = asyncio.ensure_future(workers.run(time.monotonic() + 5, run))
    waiting = asyncio.ensure_future(workers.run(time.monotonic() + 5, lambda: seen.append("waiting")))
    await asyncio.sleep(0)
    with pytest.raises(asyncio.TimeoutError):
        await workers.run(time.monotonic() + 0.01, lambda: seen.append("late"))
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    go.set()
    await running
    await workers.run(time.monotonic() + 5, lambda: seen.append("after"))
    assert seen == ["running", "after"]
    await asyncio.to_thread(workers.close, 60)


async def test_what_has_begun_goes_on() -> None:
    workers = ThreadPool(1, "work")
    begun, go = threading.Event(), threading.Event()
    seen: list[str] = []

    def run() -> None:
        begun.set()
        go.wait(60)
        seen.append("done")

    await workers.run(time.monotonic() + 60, lambda: None)  # starts the thread
    with pytest.raises(asyncio.TimeoutError):
        await workers.run(time.monotonic() + 1, run)
    assert begun.is_set()
    go.set()
    await asyncio.to_thread(workers.close, 60)  # which waits for it
    assert seen == ["done"]
    with pytest.raises(StoreClosedError):
        await workers.run(time.monotonic() + 5, lambda: None)


def test_several_loops() -> None:
    workers = ThreadPool(2, "work")

    async def count() -> list[int]:
        return [await workers.run(time.monotonic() + 5, lambda n=n: n) for n in range(200)]

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: asyncio.run(count()), range(8)))
    assert results == [list(range(200))] * 8
    workers.close(5)


def test_a_loop_that_is_closed_meanwhile() -> None:
    workers = ThreadPool(1, "work")
    go, done = threading.Event(), threading.Event()

    def run() -> None:
        go.wait(5)
        done.set()

    async def leave() -> None:
        task = asyncio.ensure_future(workers.run(time.monotonic() + 5, run))
        await asyncio.sleep(0.05)
        task.cancel()

    asyncio.run(leave())
    go.set()
    assert done.wait(5)

    async def again() -> Any:
        return await workers.run(time.monotonic() + 5, lambda: 1)

    assert asyncio.run(again()) == 1  # the thread is alive
    workers.close(5)
