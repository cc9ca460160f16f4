"""`Attempts`: when there is another one, and what is raised when there is none."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from agent_stores.attempts import Attempts, FailedAttempt, time_limit
from agent_stores.errors import OutcomeUnknownError, StoreRejectedError, StoreUnavailableError
from agent_stores.inline import run_inline

pytestmark = pytest.mark.anyio


class Busy(Exception):
    """It had no effect."""


class Lost(Exception):
    """It may have had one."""


class Server:
    """Answers with errors, and then with their number."""

    def __init__(self, *failures: Exception, limit: float = 10, timeout: float = 60.0) -> None:
        self.failures, self.number = failures, 0
        self.wait = 0.0
        self._attempts = Attempts("the server", timeout=timeout, limit=limit, first_pause=0.001)

    async def attempt(self, deadline: float) -> int:
        """Raise the next error."""
        self.number += 1
        if self.number <= len(self.failures):
            raise self.failures[self.number - 1]
        return self.number - 1

    def explain(self, error: Exception) -> FailedAttempt | None:
        """What they mean."""
        if isinstance(error, ZeroDivisionError):
            return None
        made = StoreRejectedError("rejected") if isinstance(error, ValueError) else StoreUnavailableError()
        return FailedAttempt(
            made,
            f"detail: {error}",
            error,
            may_retry=not isinstance(error, ValueError),
            may_have_applied=isinstance(error, (Lost, asyncio.TimeoutError)),
            wait=self.wait,
        )

    async def run(self, attempt: Any = None, *, write: bool = True, repeatable: bool = True) -> int:
        """Ask it."""
        attempt = attempt or self.attempt
        made: int = await self._attempts.run(attempt, self.explain, write=write, repeatable=repeatable)
        return made


async def test_until_one_succeeds() -> None:
    assert await Server().run() == 0
    assert await Server(Busy(), Lost(), Busy()).run() == 3


async def test_no_more_than_the_limit() -> None:
    server, last = Server(Busy(), Busy(), limit=2), Busy()
    server.failures = (Busy(), last, Busy())
    with pytest.raises(StoreUnavailableError) as caught:
        await server.run()
    assert (server.number, caught.value.__cause__) == (2, last)


async def test_what_may_not_be_repeated() -> None:
    server = Server(Busy(), Lost("cut"), Busy())
    with pytest.raises(
        OutcomeUnknownError, match=r"the server .*\(detail: cut\): it may or may not be stored"
    ):
        await server.run(repeatable=False)
    assert server.number == 2
    assert await Server(Lost(), Lost()).run(write=False, repeatable=False) == 2


@pytest.mark.parametrize("last", [ValueError, Busy, Lost])
async def test_a_lost_reply_is_not_forgotten(last: type[Exception]) -> None:
    """Whatever a later attempt says, the first one may have been carried out."""
    with pytest.raises(OutcomeUnknownError):
        await Server(Lost(), last(), limit=2).run()


async def test_final_errors() -> None:
    for failure, kind in ((ValueError(), StoreRejectedError), (ZeroDivisionError(), ZeroDivisionError)):
        server = Server(failure)
        with pytest.raises(kind):
            await server.run()
        assert server.number == 1


async def test_the_time_is_up() -> None:
    async def hang(deadline: float) -> None:
        async with time_limit(deadline):
            await asyncio.Event().wait()

    text = r"the server did not answer within 0\.05 seconds"
    with pytest.raises(StoreUnavailableError, match=f"{text}$"):
        await Server(timeout=0.05).run(hang, write=False)
    with pytest.raises(OutcomeUnknownError, match=r"\(did not answer within 0\.05 seconds\)"):
        await Server(timeout=0.05).run(hang)


async def test_no_pause_beyond_the_deadline() -> None:
    server, start = Server(Busy(), Busy(), timeout=30), time.monotonic()
    server.wait = 31
    with pytest.raises(StoreUnavailableError):
        await server.run()
    assert (server.number, time.monotonic() - start < 25) == (1, True)


@pytest.mark.parametrize("when", ["attempt", "pause"])
async def test_cancelling(when: str) -> None:
    begun = asyncio.Event()

    async def hang(deadline: float) -> None:
        begun.set()
        if when == "pause":
            raise Busy
        async with time_limit(deadline):
            await asyncio.Event().wait()

    server = Server()
    server.wait = 30
    task = asyncio.create_task(server.run(hang))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_without_an_event_loop() -> None:
    async def attempt(deadline: float) -> int:
        async with time_limit(deadline):
            return await server.attempt(deadline)

    server = Server(Busy(), Lost())
    assert run_inline(server.run(attempt)) == 2


async def test_pauses_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def note(seconds: float) -> None:
        pauses.append(seconds)

    highest: Callable[[float, float], float] = lambda low, high: high  # noqa: E731
    monkeypatch.setattr("agent_stores.attempts.sleep", note)
    monkeypatch.setattr("random.uniform", highest)
    assert await Server(*[Busy()] * 12, limit=20).run() == 12
    assert pauses == [min(0.5, 0.001 * 2**n) for n in range(12)]
