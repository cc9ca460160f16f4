"""Running commands on a server: time-outs, attempts, and the clients of event loops and of blocking calls."""

from __future__ import annotations

import asyncio
import random
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from redis.exceptions import AskError, ConnectionError, NoScriptError, ReadOnlyError

from agent_stores.backends.redis.config import Config
from agent_stores.backends.redis.connection import AsyncClient, BlockingClient, Client, Command, make_client
from agent_stores.backends.redis.errors import (
    CONNECTION_ERRORS,
    FAILURES,
    code_of,
    is_connecting,
    is_rejected,
    is_retryable,
    may_have_applied,
    translate_error,
)
from agent_stores.backends.redis.keys import Keys
from agent_stores.backends.redis.scripts import Script
from agent_stores.connection_registry import LoopClients
from agent_stores.errors import NotReplicatedError, OutcomeUnknownError, StoreUnavailableError
from agent_stores.event_loops import may_block

if sys.version_info >= (3, 11):
    from asyncio import timeout as time_limit
else:
    from async_timeout import timeout as time_limit  # pyright: ignore[reportMissingImports]

_FIRST_PAUSE = 0.02  # seconds before the second attempt, at most; doubles, with jitter
_LONGEST_PAUSE = 0.5
_RETRIES = 3  # on a single server; on others, a failover takes seconds, and is waited for
_PLAIN_THREADS = 10_000  # remembered


class RedisServer:
    """A server and the connections to it; shared by all logs of a process that name it alike.

    Args:
        config: the server.
        timeout: seconds that an operation may take, attempts and pauses included.
        retries: the number of attempts after the first; None for the default.
        max_connections: the largest number of connections, on each event loop and for blocking calls.

    Attributes:
        users: how many logs share it.
        plain: the lists of threads that a read may get by one LRANGE (docs/redis.md).
    """

    def __init__(self, config: Config, *, timeout: float, retries: int | None, max_connections: int) -> None:
        self.config = config
        self.users = 0
        self.plain: dict[bytes, None] = {}
        self._timeout = timeout
        self._retries = _RETRIES if retries is None and config.kind == "single" else retries
        self._limit = max_connections
        self._is_owner = config.client is None or config.is_blocking
        self._loops: LoopClients[AsyncClient] = LoopClients(
            self._make_async, are_ours=self._is_owner, timeout=timeout
        )
        self._blocking: BlockingClient | None = None
        self._lock = threading.Lock()
        self._parents: list[Any] = []

    async def run(
        self, script: Script, keys: Keys, arguments: Sequence[Any], *, wait: tuple[int, int] | None = None
    ) -> tuple[Any, bool]:
        """Run a script, again when the connection was lost: every script may run twice.

        Args:
            script: the script.
            keys: the thread's keys.
            arguments: the script's arguments.
            wait: how many replicas must have the write, and for how many milliseconds to wait for them.

        Returns:
            The reply, and whether an earlier attempt may have been carried out.

        Raises:
            StoreUnavailableError, StoreRejectedError, StoreError: nothing was written.
            OutcomeUnknownError: it may or may not be stored.
            NotReplicatedError: it is stored, but too few replicas have it.
        """
        tail: Command = (script.keys, *keys[: script.keys], *arguments)
        command: Command = ("EVALSHA", script.sha, *tail)

        async def attempt(client: Client) -> Any:
            nonlocal command
            commands = [command] if wait is None else [command, ("WAIT", *wait)]
            try:
                if wait is None:
                    return await client.execute(command)
                replies = await client.on_one_connection(keys.meta, commands)
                if isinstance(replies[0], Exception):
                    raise replies[0]
                if isinstance(replies[1], Exception):  # the primary was demoted
                    raise ConnectionError(str(replies[1])) from replies[1]
            except NoScriptError:
                command = ("EVAL", script.source, *tail)
                return await attempt(client)
            if int(replies[1]) < wait[0]:
                raise NotReplicatedError(
                    f"{replies[1]} of {wait[0]} replicas of {self.config.place} had the write after "
                    f"{wait[1]} ms: it is stored, but a failover may lose it"
                )
            return replies[0]

        return await self._finish(attempt, writes=script.writes, is_confirmed=wait is not None)

    async def execute(self, *command: Any) -> Any:
        """Run a command that reads."""
        return (await self._finish(lambda client: client.execute(command)))[0]

    async def pipeline(self, commands: Sequence[Command]) -> list[Any]:
        """Run commands that read, in as few round trips as there are servers."""

        async def attempt(client: Client) -> list[Any]:
            replies = await client.pipeline(commands)
            for reply in replies:
                if isinstance(reply, Exception):
                    raise reply
            return replies

        found: list[Any] = (await self._finish(attempt))[0] if commands else []
        return found

    def note_plain(self, key: bytes, *, plain: bool) -> None:
        """Remember whether the next read of a thread may be one LRANGE."""
        if not plain:
            self.plain.pop(key, None)
        elif key not in self.plain:
            if len(self.plain) >= _PLAIN_THREADS:
                self.plain.clear()
            self.plain[key] = None

    async def aclose(self) -> None:
        """Close the connections; without an event loop, those of loops are closed when their loops run."""
        self._close_blocking()
        if may_block():
            self._loops.close_unused()
        else:
            await self._loops.aclose()

    def close_unused(self) -> None:
        """Close the connections when no log uses them any more."""
        self._close_blocking()
        self._loops.close_unused()

    def close_at_exit(self) -> None:
        """Close the connections at the end of the process."""
        self._close_blocking()
        self._loops.close_at_exit()

    def reset_after_fork(self) -> None:
        """After a fork: the connections, and the loops that they are on, belong to the parent."""
        self._lock = threading.Lock()
        self._parents.append(self._blocking)
        self._blocking = None
        self._loops.reset_after_fork()

    # -- attempts -------------------------------------------------------------------------------------

    async def _finish(
        self,
        attempt: Callable[[Client], Awaitable[Any]],
        *,
        writes: bool = False,
        is_confirmed: bool = False,
    ) -> tuple[Any, bool]:
        state = _State(writes)
        try:
            if may_block():
                return await self._attempts(attempt, state)
            async with time_limit(self._timeout):
                return await self._attempts(attempt, state)
        except asyncio.TimeoutError as error:
            if state.is_running and not is_connecting(error):
                state.is_unknown = writes
            raise self._timed_out(state) from error
        except OutcomeUnknownError as error:
            if is_confirmed and not isinstance(error, NotReplicatedError):
                raise NotReplicatedError(str(error)) from error
            raise

    async def _attempts(
        self, attempt: Callable[[Client], Awaitable[Any]], state: _State
    ) -> tuple[Any, bool]:
        failures = 0
        deadline = time.monotonic() + self._timeout
        while True:
            client = self._client()
            state.is_running = True
            try:
                return await attempt(client), state.is_unknown
            except FAILURES as error:
                state.is_running = False
                state.is_unknown |= state.writes and may_have_applied(error)
                failures += 1
                # A demoted primary rejects writes; behind sentinels and in a Cluster, another one takes its place.
                is_demoted = code_of(error) == "READONLY" and self.config.kind != "single"
                if not is_demoted and (is_rejected(error) or not is_retryable(error)):
                    raise self._error(error, state) from error
                if self._retries is not None and failures > self._retries:
                    raise self._error(error, state) from error
                if may_block() and time.monotonic() > deadline:
                    raise self._timed_out(state) from error
                if is_demoted or isinstance(error, (AskError, ReadOnlyError)):
                    try:
                        await client.refresh()
                    except FAILURES as problem:
                        state.last = problem
            await _pause(failures)

    def _client(self) -> Client:
        if not may_block():
            return self._loops.get()
        with self._lock:
            if self._blocking is None:
                own = self.config.client
                client = own or make_client(self.config, timeout=self._timeout, blocking=True)
                self._blocking = BlockingClient(client, self._limit, is_owned=own is None)
            return self._blocking

    def _make_async(self) -> AsyncClient:
        own = None if self.config.is_blocking else self.config.client
        client = own or make_client(self.config, timeout=self._timeout)
        return AsyncClient(client, self._limit, is_owned=own is None)

    def _close_blocking(self) -> None:
        with self._lock:
            client, self._blocking = self._blocking, None
        if client is not None and self.config.client is None:
            client.close()

    def _error(self, error: BaseException, state: _State) -> Exception:
        config = self.config
        return translate_error(
            error, place=config.place, secrets=config.secrets, is_unknown=state.is_unknown
        )

    def _timed_out(self, state: _State) -> Exception:
        text = f"{self.config.place} did not answer within {self._timeout:g} seconds"
        if state.is_unknown:
            return OutcomeUnknownError(f"{text}: a write may or may not be stored")
        return StoreUnavailableError(f"{text}; nothing was written")


class _State:
    """What is known of an operation that is being attempted.

    Attributes:
        writes: whether it writes.
        is_running: whether an attempt is under way.
        is_unknown: whether an attempt may have been carried out of which no reply came.
    """

    __slots__ = ("is_running", "is_unknown", "last", "writes")

    def __init__(self, writes: bool) -> None:
        self.writes = writes
        self.is_running = False
        self.is_unknown = False
        self.last: BaseException | None = None


async def _pause(failures: int) -> None:
    longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(failures - 1, 10))
    pause = longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
    if may_block():
        time.sleep(pause)  # noqa: ASYNC251 - there is no loop to block
    else:
        await asyncio.sleep(pause)
