"""`RedisListSource`: threads that are Redis lists with a JSON document for each message."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Sequence

from agent_stores.importers.parsers.decoding import Parser, read_json
from agent_stores.importers.redis_reader import RedisReader, is_text
from agent_stores.importers.source import SourceMessage, SourceThread

_SNIFFED = 5  # elements that are looked at to tell whose a list is
_TOGETHER = 100  # lists that are asked about at once


class RedisListSource:
    """Threads in lists; what differs between layouts are the keys, the order and the form of a message.

    Args:
        name: the layout's name.
        url: the server, as `RedisChatMessageStore` takes it.
        parse: reads a message.
        patterns: beginnings and ends of the keys.
        thread: the thread of a key, or None where it is none of the layout's.
        newest_first: whether a new message is put at the beginning of its list.
        sniff: tells from an element whether a list is of the layout, where keys do not tell.
    """

    def __init__(
        self,
        name: str,
        url: str,
        *,
        parse: Parser,
        patterns: Iterable[tuple[str, str]],
        thread: Callable[[str], SourceThread | None],
        newest_first: bool = False,
        sniff: Callable[[bytes], bool] | None = None,
    ) -> None:
        self.name = name
        self.unrecognized = 0
        self._reader = RedisReader(url)
        self._parse = parse
        self._patterns = list(patterns)
        self._thread = thread
        self._newest_first = newest_first
        self._sniff = sniff

    @property
    def location(self) -> str:
        """See `Source.location`."""
        return self._reader.location

    async def count(self) -> int | None:
        """None: a server does not know how many of its keys are lists of this layout."""
        return None

    async def threads(self) -> AsyncGenerator[SourceThread, None]:
        """See `Source.threads`."""
        for prefix, suffix in self._patterns:
            waiting: list[str] = []
            async for key in self._reader.keys(prefix, "list", suffix=suffix):
                waiting.append(key)
                if len(waiting) == _TOGETHER:
                    for thread in await self._described(waiting):
                        yield thread
                    waiting = []
            for thread in await self._described(waiting):
                yield thread

    async def pages(self, thread: SourceThread) -> AsyncGenerator[Sequence[SourceMessage], None]:
        """See `Source.pages`."""
        async for start, found in self._reader.list_pages(thread.handle, newest_first=self._newest_first):
            yield [
                read_json(raw, self._parse, location=f"item {start + offset}")
                for offset, raw in enumerate(found)
            ]

    async def aclose(self) -> None:
        """See `Source.aclose`."""
        await self._reader.aclose()

    async def _described(self, keys: Sequence[str]) -> list[SourceThread]:
        """The threads of keys, with their lengths; a list that is gone meanwhile is none."""
        found = [(key, thread) for key in keys if (thread := self._of(key)) is not None]
        if not found:
            return []
        names = [key for key, _ in found]
        lengths = await self._reader.commands([("LLEN", key) for key in names])
        expiries = await self._reader.expires_in(names)
        threads = []
        for (key, thread), length, expires_in in zip(found, lengths, expiries, strict=True):
            if self._sniff is not None and not await self._is_ours(key, self._sniff):
                self.unrecognized += 1
            elif length:
                threads.append(
                    SourceThread(
                        thread_id=thread.thread_id,
                        location=thread.location,
                        tenant=thread.tenant,
                        messages=length,
                        expires_in=expires_in,
                        note=thread.note,
                        handle=key,
                    )
                )
        return threads

    def _of(self, key: str) -> SourceThread | None:
        thread = self._thread(key) if is_text(key) else None
        if thread is None or not thread.thread_id:
            self.unrecognized += 1
            return None
        return thread

    async def _is_ours(self, key: str, sniff: Callable[[bytes], bool]) -> bool:
        first = await self._reader.command("LRANGE", key, 0, _SNIFFED - 1)
        return any(map(sniff, first))


def after_prefix(prefix: str, suffix: str = "") -> Callable[[str], SourceThread | None]:
    """For keys that are a prefix, the thread's id, and a suffix."""

    def thread(key: str) -> SourceThread | None:
        end = len(key) - len(suffix)
        if len(prefix) >= end:
            return None
        return SourceThread(thread_id=key[len(prefix) : end], location=key)

    return thread
