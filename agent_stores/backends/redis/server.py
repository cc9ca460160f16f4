"""Running commands on a server: time-outs, attempts, and the clients of event loops and of blocking calls."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import cached_property
from typing import Any

from redis.exceptions import AskError, ConnectionError, NoScriptError

from agent_stores.backends.redis import errors
from agent_stores.backends.redis.config import Config
from agent_stores.backends.redis.connection import Client, Command, make_client
from agent_stores.backends.redis.layout import Keys
from agent_stores.backends.redis.scripts import Script
from agent_stores.connection_pool import LoopClients
from agent_stores.errors import NotReplicatedError, OutcomeUnknownError, StoreUnavailableError
from agent_stores.inline import may_block, run_inline, sleep

if sys.version_info >= (3, 11):
    from asyncio import timeout as time_limit
else:
    from async_timeout import timeout as time_limit  # pyright: ignore[reportMissingImports]

_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.5  # seconds before another attempt; they double, with jitter


class RedisServer(LoopClients[Client]):
    """A server and the connections to it; shared by all logs of a process that name it alike.

    Args:
        config: the server.
        timeout: seconds that an operation may take, attempts and pauses included.
        retries: the number of attempts after the first; by default 3 on a single server, and elsewhere as
            many as the time allows, since a failover takes seconds.
        max_connections: the largest number of connections on each event loop.

    Attributes:
        plain: the lists of threads that a read may get by one LRANGE (docs/redis.md).
    """

    def __init__(self, config: Config, *, timeout: float, retries: int | None, max_connections: int) -> None:
        self.config, self.timeout = config, timeout
        self.plain: set[bytes] = set()
        default = 3 if config.kind == "single" else math.inf
        self._retries = default if retries is None else retries
        self._limit = max_connections
        are_ours = config.client is None or config.is_blocking
        super().__init__(self._make_client, are_ours=are_ours, timeout=timeout)

    async def run(
        self, script: Script, keys: Keys, arguments: Sequence[Any], *, wait: tuple[int, int] | None = None
    ) -> Any:
        """Run a script, and again when the connection was lost, if it may run twice.

        Args:
            script: the script.
            keys: the thread's keys and its id, which is the first argument.
            arguments: the script's other arguments.
            wait: how many replicas must have the write, and for how many milliseconds to wait for them.

        Raises:
            StoreUnavailableError, StoreRejectedError, StoreError: nothing was written.
            OutcomeUnknownError: it may or may not be stored.
            NotReplicatedError: not enough replicas are known to have it.
        """
        tail = (script.keys, *keys[: script.keys], keys.thread_id, *arguments)

        async def attempt(client: Client) -> Any:
            try:
                return await once(client, ("EVALSHA", script.sha, *tail))
            except NoScriptError:
                return await once(client, ("EVAL", script.source, *tail))

        async def once(client: Client, command: Command) -> Any:
            if wait is None:
                return await client.execute(command)
            reply, confirmed = await client.pipeline([command, ("WAIT", *wait)], keys.meta)
            if isinstance(reply, Exception):
                raise reply
            if isinstance(confirmed, Exception):  # the primary was demoted
                raise ConnectionError(str(confirmed)) from confirmed
            if int(confirmed) < wait[0]:
                raise NotReplicatedError(
                    f"{confirmed} of {wait[0]} replicas of {self.config.location} had the write after "
                    f"{wait[1]} ms: it is stored, but a failover may lose it"
                )
            return reply

        try:
            return await self.call(attempt, writes=script.writes, repeats=script.repeats)
        except OutcomeUnknownError as error:
            if wait is None or isinstance(error, NotReplicatedError):
                raise
            raise NotReplicatedError(str(error)) from error

    async def call(
        self, attempt: Callable[[Client], Awaitable[Any]], *, writes: bool = False, repeats: bool = True
    ) -> Any:
        """Do what `attempt` does with a client; again when it failed, and may succeed. Raises as `run`."""
        config, failures, deadline = self.config, 0, time.monotonic() + self.timeout
        is_running = is_unknown = False  # an attempt; whether one may have been carried out without a reply
        limit: Any = contextlib.nullcontext() if may_block() else time_limit(self.timeout)
        try:
            async with limit:
                while True:
                    client = self.get()
                    async with client.slots:
                        is_running = True
                        try:
                            return await attempt(client)
                        except errors.FAILURES as error:
                            is_running = False
                            is_unknown |= writes and errors.may_have_applied(error)
                            failures += 1
                            if may_block() and time.monotonic() > deadline:
                                raise asyncio.TimeoutError from error
                            # A demoted primary rejects writes until the client finds the new one.
                            is_moved = config.kind != "single" and errors.is_demoted(error)
                            is_over = failures > self._retries or (is_unknown and not repeats)
                            if is_over or not (is_moved or errors.is_retryable(error)):
                                raise errors.translate_error(error, config, is_unknown=is_unknown) from error
                            if is_moved or isinstance(error, AskError):
                                with contextlib.suppress(*errors.FAILURES):  # the next attempt tells
                                    await client.refresh()
                    pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(failures - 1, 10))
                    await sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
        except asyncio.TimeoutError as error:
            is_unknown |= writes and is_running and not errors.is_connecting(error)
            text = f"{config.location} did not answer within {self.timeout:g} seconds"
            if is_unknown:
                raise OutcomeUnknownError(f"{text}: a write may or may not be stored") from error
            raise StoreUnavailableError(f"{text}; nothing was written") from error

    def reset_after_fork(self) -> None:
        """See `SharedConnection.reset_after_fork`."""
        _of_the_parent.append(self.__dict__.pop("_blocking", None))
        super().reset_after_fork()

    def get(self) -> Client:
        """The client of the running loop, or the one for blocking calls."""
        return self._blocking if may_block() else super().get()

    @cached_property
    def _blocking(self) -> Client:
        return self._make_client()

    def _take_all(self) -> dict[asyncio.AbstractEventLoop, Client]:
        client = self.__dict__.pop("_blocking", None)
        if client is not None and self.config.client is None:
            with contextlib.suppress(Exception):
                run_inline(client.aclose())
        return super()._take_all()

    def _make_client(self) -> Client:
        """A client for the running loop, or for blocking calls."""
        config, blocking = self.config, may_block()
        lent = config.client if config.is_blocking == blocking else None
        client = lent or make_client(config, timeout=self.timeout, blocking=blocking)
        return Client(client, self._limit, is_owned=lent is None)


_of_the_parent: list[Any] = []
