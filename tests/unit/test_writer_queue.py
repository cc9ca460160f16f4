"""`WriterQueue`: turns in order, on several event loops; turns that are cancelled or lost."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref

import pytest

from agent_stores import writer_queue
from agent_stores.inline import run_inline
from agent_stores.writer_queue import WriterQueue

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _long_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn that is not given on is waited for so long that a busy machine is no reason for it."""
    monkeypatch.setattr(writer_queue, "_LONGEST_WAIT", 60.0)


async def turns(count: int) -> None:
    """Let other tasks run."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_first_come_first_served() -> None:
    queue, order = WriterQueue(), list[int]()

    async def write(number: int) -> None:
        async with queue.turn("key"):
            await turns(number % 3)
            order.append(number)

    await asyncio.gather(*map(write, range(20)))
    assert order == list(range(20))
    assert queue._lines == {}


async def test_keys_do_not_wait_for_each_other() -> None:
    queue = WriterQueue()
    async with queue.turn("one"):
        await asyncio.wait_for(_take(queue, "two"), 5)
    assert queue._lines == {}


async def test_an_error_passes_the_turn_on() -> None:
    queue = WriterQueue()

    async def write(number: int) -> int:
        async with queue.turn("key"):
            await turns(2)
            if number % 2:
                raise ValueError(number)
            return number

    outcomes = await asyncio.gather(*map(write, range(4)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [int, ValueError, int, ValueError]
    assert queue._lines == {}


@pytest.mark.parametrize("steps", range(8))
async def test_cancellation_while_waiting(steps: int) -> None:
    """A writer that is cancelled, also in the moment in which it is given its turn, blocks no other."""
    queue, order = WriterQueue(), list[str]()

    async def write(name: str, work: int) -> None:
        async with queue.turn("key"):
            await turns(work)
            order.append(name)

    first = asyncio.ensure_future(write("first", 3))
    cancelled = asyncio.ensure_future(write("cancelled", 10))
    last = asyncio.ensure_future(write("last", 0))
    await turns(steps)
    cancelled.cancel()
    start = time.monotonic()
    await asyncio.gather(first, last)
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert order == ["first", "last"]
    assert time.monotonic() - start < 25
    assert queue._lines == {}


def test_loops_in_threads_take_turns() -> None:
    queue = WriterQueue()
    inside, highest, done = 0, 0, 0

    async def write() -> None:
        nonlocal inside, highest, done
        for _ in range(20):
            async with queue.turn("key"):
                inside += 1
                highest = max(highest, inside)
                await asyncio.sleep(0.0005)
                inside -= 1
                done += 1

    async def several() -> None:
        await asyncio.gather(write(), write())

    threads = [threading.Thread(target=asyncio.run, args=(several(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (highest, done) == (1, 160)
    assert queue._lines == {}


async def test_a_closed_loop_is_passed_over() -> None:
    """A writer that waited on a loop that is closed now does not get a turn."""
    queue = WriterQueue()
    loop = asyncio.new_event_loop()

    def wait_and_close() -> None:
        task = loop.create_task(queue.turn("key").__aenter__())
        loop.run_until_complete(asyncio.sleep(0.01))
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        loop.close()

    async with queue.turn("key"):
        await asyncio.to_thread(wait_and_close)
        last = asyncio.ensure_future(_take(queue))
        await turns(3)
    start = time.monotonic()
    await last
    assert time.monotonic() - start < 25
    assert queue._lines == {}


async def test_a_turn_on_a_loop_that_no_longer_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who wait go on after a while, and those who come later do not wait at all."""
    monkeypatch.setattr(writer_queue, "_LONGEST_WAIT", 0.3)
    queue = WriterQueue()
    loop = asyncio.new_event_loop()
    holder = queue.turn("key")
    await asyncio.to_thread(loop.run_until_complete, holder.__aenter__())
    start = time.monotonic()
    await asyncio.gather(_take(queue), _take(queue))
    assert 0.2 < time.monotonic() - start < 25
    monkeypatch.setattr(writer_queue, "_LONGEST_WAIT", 60)
    start = time.monotonic()
    await asyncio.gather(_take(queue), _take(queue))
    assert time.monotonic() - start < 25
    async with queue.turn("key"):  # the late one does not take the turn of another
        late = asyncio.ensure_future(_take(queue))
        await asyncio.to_thread(loop.run_until_complete, holder.__aexit__(None, None, None))
        await turns(5)
        assert not late.done()
    await late
    assert queue._lines == {}
    await asyncio.to_thread(loop.close)


def test_synchronous_calls_do_not_wait() -> None:
    queue = WriterQueue()

    async def nested() -> bool:
        async with queue.turn("key"), queue.turn("key"):
            return True

    assert run_inline(nested())


async def test_a_forked_process_forgets_turns() -> None:
    queue = WriterQueue()
    async with queue.turn("key"):
        writer_queue._reset_all()  # what a child does after a fork
        await _take(queue)


def test_a_queue_is_not_kept() -> None:
    """Each log has a queue, and an application may make a log for each request."""
    queue = weakref.ref(WriterQueue())
    gc.collect()
    assert queue() is None


async def _take(queue: WriterQueue, key: str = "key") -> None:
    async with queue.turn(key):
        await asyncio.sleep(0)
