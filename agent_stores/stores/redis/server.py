"""Running scripts on a server: time-outs, retries, and one client for each event loop that uses it."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Sequence
from typing import Any

from redis.exceptions import NoScriptError, ReadOnlyError, RedisError

from agent_stores.connection_registry import LoopClients
from agent_stores.errors import OutcomeUnknownError, StoreUnavailableError
from agent_stores.stores.redis.address import Address
from agent_stores.stores.redis.connection import Attempt, Client, Command, make_client
from agent_stores.stores.redis.failures import (
    CONNECTION_ERRORS,
    code_of,
    is_redirect,
    is_refused,
    is_transient,
    store_error,
)
from agent_stores.stores.redis.scripts import Script

if sys.version_info >= (3, 11):
    from asyncio import timeout as time_limit
else:
    from async_timeout import timeout as time_limit  # pyright: ignore[reportMissingImports]

_FIRST_PAUSE = 0.02  # seconds before the second attempt, at most; doubles, with jitter
_LONGEST_PAUSE = 0.5
FAILURES: tuple[type[Exception], ...] = (RedisError, *CONNECTION_ERRORS)
_PLAIN_THREADS = 10_000  # are remembered
_RETRIES = 3  # on a single server; a failover takes seconds, and is waited for


class RedisServer:
    """A server and our connections to it; shared by all the stores of a process that name it alike.

    Args:
        address: the server.
        timeout: seconds that an operation may take, attempts and pauses included.
        retries: how many attempts after the first; None for the default of `RedisMessageLog`.
        max_connections: how many connections at most, on each event loop.

    Attributes:
        users: how many logs share it.
        plain: the lists of threads that are known to be plain (docs/redis.md).
    """

    def __init__(
        self, address: Address, *, timeout: float, retries: int | None, max_connections: int
    ) -> None:
        self.address = address
        self.users = 0
        self._timeout = timeout
        self._retries = retries
        self.plain: dict[bytes, None] = {}
        self._clients: LoopClients[Client] = LoopClients(
            lambda: make_client(address, timeout=timeout, limit=max_connections),
            are_ours=address.client is None,
            timeout=timeout,
        )

    async def run(
        self,
        script: Script,
        keys: Sequence[bytes],
        arguments: Sequence[bytes | str | int],
        *,
        again: bool = True,
    ) -> Any:
        """Run a script; returns its reply.

        Args:
            script: the script.
            keys: its keys, all of one slot.
            arguments: its arguments.
            again: whether it may run a second time after it may have been carried out.

        Raises:
            StoreUnavailableError, StoreRejectedError, StoreError: nothing was written.
            OutcomeUnknownError: it may or may not be stored.
        """
        return await self._finish(_Call(script, keys, arguments), again=again)

    async def ask(self, key: bytes, command: Command) -> Any:
        """Run a single reading command on a key; returns its reply, and raises as `run` does."""
        return await self._finish(_Call(None, (key,), (), command), again=True)

    def note_plain(self, key: bytes, *, plain: bool) -> None:
        """Remember whether a thread's list tells all that a read of its end shows; `plain` has those."""
        if not plain:
            self.plain.pop(key, None)
        elif key not in self.plain:
            if len(self.plain) >= _PLAIN_THREADS:
                self.plain.clear()
            self.plain[key] = None

    async def _finish(self, call: _Call, *, again: bool) -> Any:
        try:
            async with time_limit(self._timeout):
                return await self._attempts(call, again=again)
        except asyncio.TimeoutError as error:
            text = f"{self.address.place} did not answer within {self._timeout:g} seconds"
            if call.is_unknown:
                raise OutcomeUnknownError(f"{text}: a write may or may not be stored") from error
            raise StoreUnavailableError(f"{text}; nothing was written") from error

    async def run_each(self, script: Script | None, calls: Sequence[tuple[bytes, Command]]) -> list[Any]:
        """Run a reading command for each of several keys, in as few round trips as there are servers.

        Args:
            script: the one that the commands run, which is put on the servers where it is missing.
            calls: keys, and what to run.
        """
        if not calls:
            return []
        try:
            async with time_limit(self._timeout):
                return await self._run_each(script, calls)
        except asyncio.TimeoutError as error:
            raise StoreUnavailableError(
                f"{self.address.place} did not answer within {self._timeout:g} seconds"
            ) from error

    async def aclose(self) -> None:
        """Close the connections of all loops."""
        await self._clients.aclose()

    def close_unused(self) -> None:
        """Close the connections when no log uses them any more."""
        self._clients.close_unused()

    def close_at_exit(self) -> None:
        """Close the connections at the end of the process."""
        self._clients.close_at_exit()

    def reset_after_fork(self) -> None:
        """After a fork: the connections, and the loop that they are on, belong to the parent."""
        self._clients.reset_after_fork()

    # -- attempts -------------------------------------------------------------------------------------

    async def _attempts(self, call: _Call, *, again: bool) -> Any:
        failures, pauses = 0, 0
        attempt = call.attempt
        while True:
            client = self._clients.get()
            attempt.sent = False
            try:
                reply = (await client.run(call.keys[0], [call.command], attempt))[0]
            except FAILURES as error:
                # A demoted primary refuses to write; redis-py reports that as a lost connection.
                done = attempt.sent and not isinstance(error.__context__, ReadOnlyError)
                call.was_lost = call.was_lost or done
                attempt.sent = False
                failures += 1
                stop = (call.is_unknown and not again) or self._is_enough(failures)
                if stop or (is_refused(error) and not isinstance(error.__context__, ReadOnlyError)):
                    raise self._error(error, call) from error
                is_ready = await client.recover(attempt, error)
            else:
                if not isinstance(reply, Exception):
                    return reply
                attempt.sent = False
                if isinstance(reply, NoScriptError) and call.script is not None:
                    call.send_source()
                    continue
                moved = self.address.kind != "single" and code_of(reply) == "READONLY"
                if not (is_redirect(reply) or is_transient(reply) or moved):
                    raise self._error(reply, call) from reply
                if not is_redirect(reply) or pauses > 16:
                    failures += 1
                    if self._is_enough(failures) and self.address.kind == "single":
                        raise self._error(reply, call) from reply
                is_ready = await client.recover(attempt, reply) and pauses < 16
            pauses += 1
            if not is_ready:
                longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(pauses - 1, 10))
                await asyncio.sleep(longest * random.uniform(0.5, 1.0))  # noqa: S311

    async def _run_each(self, script: Script | None, calls: Sequence[tuple[bytes, Command]]) -> list[Any]:
        failures = 0
        keys, commands = [key for key, _ in calls], [command for _, command in calls]
        while True:
            client = self._clients.get()
            try:
                replies = await client.run_on_each(keys, commands)
                error = next((reply for reply in replies if isinstance(reply, Exception)), None)
                if error is None:
                    return replies
                if isinstance(error, NoScriptError) and script is not None:
                    # One by one, with its source, and then it is known everywhere.
                    missing = [n for n, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
                    for n in missing[:1]:
                        await self._attempts(_Call.of(script, keys[n], commands[n]), again=True)
                    for n in missing[1:]:
                        await client.run_on_each([keys[n]], [(b"SCRIPT", b"LOAD", script.source)])
                    continue
                if not (is_redirect(error) or is_transient(error)):
                    raise self._error(error, None) from error
                problem: BaseException = error
            except FAILURES as error:
                problem = error
                if is_refused(error):
                    raise self._error(error, None) from error
            failures += 1
            if self._is_enough(failures):
                raise self._error(problem, None) from problem
            await client.recover(Attempt(), problem)
            await asyncio.sleep(min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**failures) * random.uniform(0.5, 1.0))  # noqa: S311

    def _is_enough(self, failures: int) -> bool:
        if self._retries is not None:
            return failures > self._retries
        return self.address.kind == "single" and failures > _RETRIES

    def _error(self, error: BaseException, call: _Call | None) -> Exception:
        return store_error(
            error,
            place=self.address.place,
            secrets=self.address.secrets,
            may_be_written=call is not None and call.is_unknown,
        )


class _Call:
    """A script, or a reading command of its own, that is being run.

    Attributes:
        was_lost: whether a connection was lost after the server may have been asked.
    """

    __slots__ = ("arguments", "attempt", "command", "keys", "script", "was_lost")

    def __init__(
        self,
        script: Script | None,
        keys: Sequence[bytes],
        arguments: Sequence[bytes | str | int],
        command: Command = (),
    ) -> None:
        self.script, self.keys, self.arguments = script, keys, arguments
        self.command = command if script is None else (b"EVALSHA", script.sha, len(keys), *keys, *arguments)
        self.attempt = Attempt()
        self.was_lost = False

    @classmethod
    def of(cls, script: Script, key: bytes, command: Command) -> _Call:
        """The call that a command makes."""
        count = int(command[2])
        return cls(script, command[3 : 3 + count] or (key,), command[3 + count :])

    @property
    def is_unknown(self) -> bool:
        """Whether something may have been written of which nothing is known."""
        return self.script is not None and self.script.writes and (self.was_lost or self.attempt.sent)

    def send_source(self) -> None:
        """Bring the script along: the server does not know it, as after a restart."""
        assert self.script is not None  # noqa: S101
        self.command = (b"EVAL", self.script.source, len(self.keys), *self.keys, *self.arguments)
