"""Running commands on a server: time-outs, attempts, and the clients of event loops and of blocking calls."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from redis.exceptions import ConnectionError, NoScriptError

from agent_stores.attempts import Attempts, FailedAttempt, time_limit
from agent_stores.backends.redis import errors
from agent_stores.backends.redis.config import Config
from agent_stores.backends.redis.connection import Client, Command, make_client
from agent_stores.backends.redis.layout import Keys
from agent_stores.backends.redis.scripts import Script
from agent_stores.connection_pool import LoopClients
from agent_stores.errors import NotReplicatedError, OutcomeUnknownError
from agent_stores.inline import may_block


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
        self.config, self.timeout, self._limit = config, timeout, max_connections
        self.plain: set[bytes] = set()
        default = 3 if config.kind == "single" else math.inf
        most = 1 + (default if retries is None else retries)
        self.attempts = Attempts(config.location, timeout=timeout, limit=most, first_pause=0.02)
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
        is_moved = False  # the client is to find the new primary, or the slot's new server

        async def attempt_once(deadline: float) -> Any:
            client = self.get()
            async with time_limit(deadline), client.slots:
                if is_moved:
                    with contextlib.suppress(*errors.FAILURES):  # the attempt tells
                        await client.refresh()
                return await attempt(client)

        def explain(error: Exception) -> FailedAttempt | None:
            nonlocal is_moved
            if not isinstance(error, errors.FAILURES):
                return None
            is_moved = errors.is_moved(error, self.config)
            return errors.explain(error, self.config)

        return await self.attempts.run(attempt_once, explain, write=writes, repeatable=repeats)

    def _make_client(self) -> Client:
        """A client for the running loop, or for blocking calls."""
        lent = self.config.client if self.config.is_blocking == may_block() else None
        client = lent or make_client(self.config, timeout=self.attempts.timeout, blocking=may_block())
        return Client(client, self._limit, is_owned=lent is None)
