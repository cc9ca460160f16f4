"""Sessions of Strands in files: those of `FileSessionManager`."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from agent_stores.errors import ArgumentError, NotFoundError
from agent_stores.importers.page_size import PageSize
from agent_stores.importers.parsers.decoding import read_json
from agent_stores.importers.parsers.strands import session_message, thread_of
from agent_stores.importers.source import End, SourceError, SourceMessage, SourceThread


class _Agent(NamedTuple):
    session: Path
    agent_id: str


class StrandsFiles:
    """Reads a folder of `FileSessionManager`.

    An agent's messages are the thread that `AgentStoresSessionManager` has for it. The state of agents, and
    that of graphs and swarms, comes along.

    Args:
        url: the folder's path, or its URL: ``file:///path``.

    Raises:
        ArgumentError: when the URL names another host.
    """

    name = "strands"

    def __init__(self, url: str | os.PathLike[str]) -> None:
        self._folder = _path(url)
        self._unrecognized = 0

    @property
    def location(self) -> str:
        """See `Source.location`."""
        return str(self._folder)

    @property
    def unrecognized(self) -> int:
        """See `Source.unrecognized`."""
        return self._unrecognized

    async def count(self) -> int | None:
        """See `Source.count`."""
        return len(await asyncio.to_thread(self._agents))

    async def threads(self) -> AsyncGenerator[SourceThread, None]:
        """See `Source.threads`.

        Raises:
            NotFoundError: when there is no such folder.
        """
        for agent in await asyncio.to_thread(self._agents):
            name = thread_of(agent.session.name.removeprefix("session_"), agent.agent_id)
            kept = await asyncio.to_thread(_metadata, agent)

            def metadata(end: End, kept: Mapping[str, Any] = kept) -> Mapping[str, Any]:
                return kept

            yield SourceThread(thread_id=name, location=name, metadata=metadata, handle=agent)

    async def pages(self, thread: SourceThread) -> AsyncGenerator[Sequence[SourceMessage], None]:
        """See `Source.pages`."""
        folder = _agent_folder(thread.handle) / "messages"
        numbers = await asyncio.to_thread(_numbers, folder)
        size, at = PageSize(), 0
        while at < len(numbers):
            page = numbers[at : at + size.next]
            found = await asyncio.to_thread(_read_all, folder, page)
            yield found
            at += len(page)
            size.saw(len(found), sum(len(one.raw) for one in found))

    async def aclose(self) -> None:
        """See `Source.aclose`; no file stays open."""

    def _agents(self) -> list[_Agent]:
        """The agents of all sessions; of a session without one, the default agent."""
        if not self._folder.is_dir():
            raise NotFoundError(f"there is no folder {str(self._folder)!r}")
        found: list[_Agent] = []
        self._unrecognized = 0
        for session in sorted(self._folder.iterdir()):
            if not (session.name.startswith("session_") and session.is_dir()):
                self._unrecognized += 1
                continue
            names = [path.name.removeprefix("agent_") for path in _folders(session / "agents", "agent_")]
            found += [_Agent(session, name) for name in sorted({"default", *names})]
        return found


def _path(url: str | os.PathLike[str]) -> Path:
    if not isinstance(url, str) or not url.startswith("file:"):
        return Path(url)
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise ArgumentError("a file URL must name no other host: file:///path")
    return Path(unquote(parts.path))


def _folders(folder: Path, prefix: str) -> Iterator[Path]:
    if folder.is_dir():
        yield from (path for path in folder.iterdir() if path.name.startswith(prefix) and path.is_dir())


def _agent_folder(agent: _Agent) -> Path:
    return agent.session / "agents" / f"agent_{agent.agent_id}"


def _numbers(folder: Path) -> list[int]:
    """The numbers of the messages, in order."""
    if not folder.is_dir():
        return []
    names = (path.name for path in folder.glob("message_*.json"))
    numbers = (name.removeprefix("message_").removesuffix(".json") for name in names)
    return sorted(int(number) for number in numbers if number.isdecimal())


def _read_all(folder: Path, numbers: Sequence[int]) -> list[SourceMessage]:
    return [_read(folder, number) for number in numbers]


def _read(folder: Path, number: int) -> SourceMessage:
    path = folder / f"message_{number}.json"
    if path.is_symlink():  # as Strands does
        return SourceMessage(path.name, b"", None, "it is a symbolic link", str(number))
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}") from None
    return read_json(raw, session_message, location=path.name, stable_id=str(number))


def _metadata(agent: _Agent) -> dict[str, Any]:
    """The states that belong to an agent's thread; those of the session are in its default agent's."""
    files = {"strands.agent": _agent_folder(agent) / "agent.json"}
    if agent.agent_id == "default":
        files["strands.session"] = agent.session / "session.json"
        for folder in _folders(agent.session / "multi_agents", "multi_agent_"):
            name = folder.name.removeprefix("multi_agent_")
            files[f"strands.multi_agent.{name}"] = folder / "multi_agent.json"
    found: dict[str, Any] = {}
    for name, path in files.items():
        try:
            value = None if path.is_symlink() else json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError):
            value = None
        if isinstance(value, dict):
            found[name] = value
    return found
