"""Reads the keys of other libraries on a Redis server; never runs a command that writes."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from agent_stores.backends.redis.config import close_client, config_from_url, make_client
from agent_stores.backends.redis.errors import FAILURES, explain
from agent_stores.errors import StoreClosedError
from agent_stores.importers.page_size import PageSize
from agent_stores.importers.source import SourceError

from redis.asyncio.retry import Retry  # isort: skip - after what says which extra is missing
from redis.backoff import ExponentialBackoff  # isort: skip

_TIMEOUT = 30.0  # seconds
_SCANNED = 1000  # keys that a server looks at for one reply
_WILD = re.compile(r"([*?\[\]\\^])")


class RedisReader:
    """Reads one server, one behind sentinels, or a Cluster.

    Args:
        url: as `RedisChatMessageStore` takes it.

    Raises:
        ArgumentError: when it is malformed; never repeats it.
    """

    def __init__(self, url: str) -> None:
        self._config = config_from_url(url)
        self._client: Any = None
        self._closed = False

    @property
    def location(self) -> str:
        """The server, without secrets."""
        return self._config.location

    async def keys(self, prefix: str, kind: str, *, suffix: str = "") -> AsyncGenerator[str, None]:
        """The keys of a kind with a beginning and an end, each once; remembers them.

        Args:
            prefix: their beginning, as it is.
            kind: the type, as the server names it: ``list``, or ``ReJSON-RL`` for JSON.
            suffix: their end, as it is.

        Raises:
            StoreError: when the server does not answer or rejects.
        """
        pattern = f"{_plain(prefix)}*{_plain(suffix)}".encode(errors="surrogateescape")
        client = self._open_client()
        seen: set[bytes] = set()
        try:
            async for key in client.scan_iter(match=pattern, count=_SCANNED, _type=kind):
                if key not in seen:  # a server may give a key twice
                    seen.add(key)
                    yield key.decode(errors="surrogateescape")
        except FAILURES as error:
            raise self._error(error) from error

    async def command(self, *parts: Any) -> Any:
        """The reply to a command that reads.

        Raises:
            StoreError: when the server does not answer or rejects.
            SourceError: when the key holds something of another type.
        """
        return (await self.commands([parts]))[0]

    async def commands(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """The replies to several commands, in one round trip; raises as `command` does."""
        client = self._open_client()
        try:
            if len(commands) == 1:
                return [await client.execute_command(*_encoded(commands[0]))]
            pipeline = client.pipeline(transaction=False)
            for parts in commands:
                pipeline.execute_command(*_encoded(parts))
            return list(await pipeline.execute())
        except FAILURES as error:
            raise self._error(error) from error

    async def list_pages(
        self, key: str, *, newest_first: bool = False
    ) -> AsyncGenerator[tuple[int, list[bytes]], None]:
        """The elements of a list in pages, oldest first, each with the number of its first element.

        Raises:
            SourceError: when elements were taken off the list's old end meanwhile.
            StoreError: when the server does not answer or rejects.
        """
        size, at = PageSize(), 0
        last: bytes | None = None
        while True:
            # Each page begins with the last element of the page before, to see that the list still begins
            # where it did. New elements do not matter: numbers count from the old end.
            start, count = max(0, at - 1), size.next + (at > 0)
            if newest_first:
                found = await self.command("LRANGE", key, -start - count, -start - 1)
                found.reverse()
            else:
                found = await self.command("LRANGE", key, start, start + count - 1)
            if at:
                if not found or found[0] != last:
                    raise SourceError(
                        "the list was shortened while it was read; run the migration again to go on"
                    )
                found = found[1:]
            if not found:
                return
            last = found[-1]
            yield at, found
            at += len(found)
            size.saw(len(found), sum(map(len, found)))

    async def expires_in(self, keys: Sequence[str]) -> list[float | None]:
        """For each key the seconds that it has left; None for ever, and for a key that is gone."""
        left = await self.commands([("PTTL", key) for key in keys])
        return [milliseconds / 1000 if milliseconds > 0 else None for milliseconds in left]

    async def aclose(self) -> None:
        """Close the connections."""
        self._closed = True
        client, self._client = self._client, None
        if client is not None:
            await close_client(client)

    def _open_client(self) -> Any:
        if self._closed:
            raise StoreClosedError("this source is closed")
        if self._client is None:
            self._client = make_client(
                self._config,
                timeout=_TIMEOUT,
                decode_responses=False,
                socket_timeout=_TIMEOUT,
                retry=Retry(ExponentialBackoff(cap=1, base=0.05), 3),
            )
        return self._client

    def _error(self, error: Exception) -> Exception:
        if "WRONGTYPE" in str(error):
            return SourceError("its key holds something of another type now")
        return explain(error, self._config).error


def is_text(key: str) -> bool:
    """Whether a key, as `RedisReader` gives it, is text."""
    return not any("\udc80" <= character <= "\udcff" for character in key)


def _plain(text: str) -> str:
    """A pattern that matches a text as it is."""
    return _WILD.sub(r"\\\1", text)


def _encoded(parts: Sequence[Any]) -> list[Any]:
    """A command, whose name stays text, with its arguments as bytes."""
    command, *arguments = parts
    return [
        command,
        *(
            argument.encode(errors="surrogateescape") if isinstance(argument, str) else argument
            for argument in arguments
        ),
    ]
