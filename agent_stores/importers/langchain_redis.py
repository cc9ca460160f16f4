"""Histories of the package ``langchain-redis``: a JSON document for each message, found without its index."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from agent_stores.importers.page_size import PageSize
from agent_stores.importers.parsers.decoding import read_data
from agent_stores.importers.parsers.langchain import langchain_message
from agent_stores.importers.redis_reader import RedisReader, is_text
from agent_stores.importers.source import SourceMessage, SourceThread

_TYPE = "ReJSON-RL"
_ULID = re.compile(r"[0-9A-HJKMNP-TV-Z]{26}")
_TOGETHER = 500  # documents that are asked about at once


class LangChainRedisDocuments:
    """Reads the documents of ``langchain_redis.RedisChatMessageHistory``, in the order of their times.

    Keys are ``prefix``, the session's id, a colon and the message's id. To read them session by session, the
    messages' ids are remembered while the keys are listed: some 100 bytes for each message.

    Args:
        url: the server, as `RedisChatMessageStore` takes it; it needs RedisJSON, but no search.
        key_prefix: what the keys begin with.
    """

    name = "langchain-redis"

    def __init__(self, url: str, *, key_prefix: str = "chat:") -> None:
        self.unrecognized = 0
        self._reader = RedisReader(url)
        self._prefix = key_prefix

    @property
    def location(self) -> str:
        """See `Source.location`."""
        return self._reader.location

    async def count(self) -> int | None:
        """None: the server does not know."""
        return None

    async def threads(self) -> AsyncGenerator[SourceThread, None]:
        """See `Source.threads`."""
        sessions: dict[str, list[str]] = {}
        async for key in self._reader.keys(self._prefix, _TYPE):
            session, colon, name = key[len(self._prefix) :].rpartition(":")
            if colon and session and _ULID.fullmatch(name) and is_text(key):
                sessions.setdefault(session, []).append(name)
            else:
                self.unrecognized += 1
        while sessions:
            session, names = sessions.popitem()
            newest = [self._key(session, max(names))]
            (expires_in,) = await self._reader.expires_in(newest)
            yield SourceThread(
                thread_id=session,
                location=f"{self._prefix}{session}",
                messages=len(names),
                expires_in=expires_in,
                handle=(session, names),
            )

    async def pages(self, thread: SourceThread) -> AsyncGenerator[Sequence[SourceMessage], None]:
        """See `Source.pages`."""
        session, names = thread.handle
        ordered = await self._ordered(session, names)
        size, at = PageSize(), 0
        while at < len(ordered):
            wanted = ordered[at : at + size.next]
            at += len(wanted)
            replies = await self._reader.commands(
                [("JSON.GET", self._key(session, name), "$") for name in wanted]
            )
            found = [
                _read(raw, name) for name, raw in zip(wanted, replies, strict=True) if raw is not None
            ]  # one that has expired meanwhile is gone for the package too
            size.saw(len(found), sum(len(one.raw) for one in found))
            if found:
                yield found

    async def aclose(self) -> None:
        """See `Source.aclose`."""
        await self._reader.aclose()

    async def _ordered(self, session: str, names: Sequence[str]) -> list[str]:
        """The ids of messages by their times, as the package orders them; then by id."""
        times: list[tuple[float, str]] = []
        for start in range(0, len(names), _TOGETHER):
            some = names[start : start + _TOGETHER]
            replies = await self._reader.commands(
                [("JSON.GET", self._key(session, name), "$.timestamp") for name in some]
            )
            times += [
                (_number(reply), name) for reply, name in zip(replies, some, strict=True) if reply is not None
            ]
        return [name for _, name in sorted(times)]

    def _key(self, session: str, name: str) -> str:
        return f"{self._prefix}{session}:{name}"


def _number(reply: bytes) -> float:
    found = json.loads(reply)
    value = found[0] if isinstance(found, list) and found else found
    return float(value) if isinstance(value, (int, float)) else 0.0


def _read(raw: bytes, name: str) -> SourceMessage:
    found: Any = json.loads(raw)  # what is at the path: one document
    data = found[0] if isinstance(found, list) and len(found) == 1 else found
    return read_data(data, raw, langchain_message, location=f"message {name}", stable_id=name)
