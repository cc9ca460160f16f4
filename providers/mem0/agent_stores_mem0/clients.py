"""The two clients of mem0 behind one interface, and the making of the platform's.

The platform's takes all ids in ``filters``; the open-source one takes those of a user, an agent and a run as
arguments to store under and as filters to search by, and knows no application: its id is metadata there,
written and searched under the same name.
"""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import logging
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol
from weakref import WeakKeyDictionary

from agent_stores import ArgumentError, ArgumentTypeError, MissingDependencyError
from agent_stores_mem0.scopes import Entities, Scope
from agent_stores_mem0.telemetry import turn_telemetry_off

logger = logging.getLogger("agent_stores.mem0")

_BUSY = (408, 425, 429)  # statuses that pass, as those from 500 up

_PAGE = 100  # memories that the platform lists at once

_LOCAL_OWNERS = frozenset({"user_id", "agent_id", "run_id"})


class Memory(NamedTuple):
    """A memory as mem0 returns it.

    Attributes:
        key: what tells it from others: its id, or its text where it has none.
        text: what is remembered.
        score: how well it fits the query; higher is better.
    """

    key: str
    text: str
    score: float


def best_first(memories: Iterable[Memory]) -> list[Memory]:
    """Each memory once, with its highest score, the best first."""
    best: dict[str, Memory] = {}
    for memory in memories:
        known = best.get(memory.key)
        if known is None or memory.score > known.score:
            best[memory.key] = memory
    return sorted(best.values(), key=lambda memory: -memory.score)


class Api(Protocol):
    """What the provider does with a client."""

    def check(self, entities: Entities, purpose: str) -> None:
        """Reject ids that this client cannot store under or search by.

        Raises:
            ArgumentError: when mem0 would reject them.
        """
        ...

    async def add(self, messages: Sequence[Mapping[str, str]], entities: Entities) -> None:
        """Let mem0 learn from messages."""
        ...

    async def search(
        self, query: str, entities: Entities, *, limit: int, threshold: float | None
    ) -> list[Memory]:
        """The memories of one partition that fit a query."""
        ...

    async def ids(self, entities: Entities, *, limit: int) -> list[str]:
        """The ids of at most `limit` memories of one partition."""
        ...

    async def delete(self, memory_id: str) -> None:
        """Delete a memory."""
        ...


class PlatformApi:
    """Over `mem0.AsyncMemoryClient`."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def check(self, entities: Entities, purpose: str) -> None:
        """Accept all ids: the platform checks them itself."""

    async def add(self, messages: Sequence[Mapping[str, str]], entities: Entities) -> None:
        """See `Api.add`."""
        await self._client.add([dict(message) for message in messages], filters=dict(entities))

    async def search(
        self, query: str, entities: Entities, *, limit: int, threshold: float | None
    ) -> list[Memory]:
        """See `Api.search`."""
        options: dict[str, Any] = {} if threshold is None else {"threshold": threshold}
        answer = await self._client.search(query, filters=dict(entities), top_k=limit, **options)
        return read_memories(answer, entities, threshold)

    async def ids(self, entities: Entities, *, limit: int) -> list[str]:
        """See `Api.ids`."""
        found: list[str] = []
        while len(found) < limit:
            page = len(found) // _PAGE + 1
            answer = await self._client.get_all(filters=dict(entities), page=page, page_size=_PAGE)
            ids = read_ids(answer, entities)
            found += ids
            if len(ids) < _PAGE:
                break
        return found[:limit]

    async def delete(self, memory_id: str) -> None:
        """See `Api.delete`."""
        await self._client.delete(memory_id)


class LocalApi:
    """Over `mem0.AsyncMemory`."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def check(self, entities: Entities, purpose: str) -> None:
        """See `Api.check`."""
        if not _LOCAL_OWNERS & set(entities):
            raise ArgumentError(
                f"{purpose} with mem0's AsyncMemory must be by a user, an agent or a thread, "
                "got the application only"
            )
        for name, value in entities.items():
            if name in _LOCAL_OWNERS and any(c.isspace() for c in value):
                raise ArgumentError(f"{name} must not contain white space with AsyncMemory, got {value!r}")

    async def add(self, messages: Sequence[Mapping[str, str]], entities: Entities) -> None:
        """See `Api.add`."""
        owners = {name: value for name, value in entities.items() if name in _LOCAL_OWNERS}
        metadata = {name: value for name, value in entities.items() if name not in _LOCAL_OWNERS}
        await self._client.add([dict(message) for message in messages], **owners, metadata=metadata or None)

    async def search(
        self, query: str, entities: Entities, *, limit: int, threshold: float | None
    ) -> list[Memory]:
        """See `Api.search`."""
        options: dict[str, Any] = {} if threshold is None else {"threshold": threshold}
        answer = await self._client.search(query, filters=dict(entities), top_k=limit, **options)
        return read_memories(answer, entities, threshold)

    async def ids(self, entities: Entities, *, limit: int) -> list[str]:
        """See `Api.ids`."""
        return read_ids(await self._client.get_all(filters=dict(entities), top_k=limit), entities)

    async def delete(self, memory_id: str) -> None:
        """See `Api.delete`."""
        await self._client.delete(memory_id)


def api_of(client: Any) -> Api:
    """The interface over a client of the caller's, detected by the arguments of its methods.

    Raises:
        ArgumentTypeError: when it is neither of mem0's asynchronous clients, nor like one.
    """
    methods = [getattr(client, name, None) for name in ("add", "search")]
    if not all(map(inspect.iscoroutinefunction, methods)):
        raise ArgumentTypeError(
            "mem0_client must be mem0's AsyncMemoryClient or AsyncMemory, or have their methods, "
            f"got {type(client).__name__}"
        )
    named = inspect.signature(client.add).parameters
    return LocalApi(client) if "user_id" in named else PlatformApi(client)


def read_memories(answer: Any, entities: Entities, threshold: float | None) -> list[Memory]:
    """The memories in mem0's answer; those that name another owner than was asked for are left out."""
    results = answer.get("results") if isinstance(answer, Mapping) else answer
    found = []
    for item in results if isinstance(results, Sequence) and not isinstance(results, (str, bytes)) else ():
        text = item.get("memory") if isinstance(item, Mapping) else None
        if not isinstance(text, str) or not text.strip():
            continue
        if any(isinstance(item.get(name), str) and item[name] != value for name, value in entities.items()):
            logger.warning("mem0 returned a memory of another scope than was searched; it is left out")
            continue
        score = item.get("score")
        score = float(score) if isinstance(score, (int, float)) else 0.0
        if threshold is not None and item.get("score") is not None and score < threshold:
            continue
        found.append(Memory(str(item.get("id") or text), text, score))
    return found


def read_ids(answer: Any, entities: Entities) -> list[str]:
    """The ids of the memories in mem0's answer.

    Raises:
        ValueError: when a memory has no id, or is not of the scope that was asked for: it is not deleted.
    """
    results = answer.get("results") if isinstance(answer, Mapping) else answer
    ids = []
    for item in results or ():
        if any(isinstance(item.get(name), str) and item[name] != value for name, value in entities.items()):
            raise ValueError("mem0 listed a memory of another scope than was asked for")
        if not item.get("id"):
            raise ValueError("mem0 listed a memory without an id")
        ids.append(str(item["id"]))
    return ids


class Connection:
    """The client: the caller's, or one of ours for each event loop, made at its first use.

    Args:
        client: the caller's, never closed here.
        api_key: the platform's key; the environment's ``MEM0_API_KEY`` without one, read at the first use.
        host: the platform's address; mem0's own by default.

    Raises:
        ArgumentError: when the host is not an address, or holds a password.
        ArgumentTypeError: when the client is not one.
        MissingDependencyError: when there is none, and mem0 is not installed.
    """

    def __init__(self, client: Any, api_key: str | None, host: str | None) -> None:
        turn_telemetry_off()
        self._borrowed = None if client is None else api_of(client)
        if client is None and importlib.util.find_spec("mem0") is None:
            raise MissingDependencyError.of("mem0ai", extra="mem0", purpose="Mem0Provider")
        self._api_key = api_key
        self._host = _address(host)
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Future[Any]] = WeakKeyDictionary()

    def check(self, storing: Scope, searching: Scope | None, *, is_per_thread: bool) -> None:
        """Reject scopes that the caller's client cannot keep apart.

        Raises:
            ArgumentError: names the id and what the client needs.
        """
        if self._borrowed is None:
            return
        thread = {"run_id": "thread"} if is_per_thread else {}
        if any(storing):
            self._borrowed.check({**storing.entities(), **thread}, "storing")
        for partition in searching.partitions() if searching else ():
            self._borrowed.check({**partition, **thread}, "searching")

    def key(self) -> str | None:
        """The platform's key; None with a client of the caller's.

        Raises:
            ArgumentError: when there is none.
        """
        if self._borrowed is not None:
            return None
        key = self._api_key or os.environ.get("MEM0_API_KEY")
        if not key:
            raise ArgumentError("one of api_key, mem0_client and MEM0_API_KEY must be given, got none")
        return key

    async def get(self) -> Api:
        """The interface over the client.

        mem0's constructor asks the platform whether the key is valid, and blocks meanwhile: that is done on a
        thread, which a caller that is cancelled does not wait for, and once for all that wait.

        Raises:
            ArgumentError: when there is no key.
            Exception: what mem0 raises when the key is rejected, or the platform cannot be reached.
        """
        if self._borrowed is not None:
            return self._borrowed
        key = self.key()
        loop = asyncio.get_running_loop()
        making = self._clients.get(loop)
        if making is None or (making.done() and (making.cancelled() or making.exception())):
            making = self._clients[loop] = _on_a_thread(lambda: _make_client(key, self._host))
        return PlatformApi(await asyncio.shield(making))

    async def aclose(self) -> None:
        """Close our own client of this event loop; the next use makes another."""
        making = self._clients.pop(asyncio.get_running_loop(), None)
        if making is not None and making.done() and not making.cancelled() and not making.exception():
            await making.result().__aexit__(None, None, None)

    def redact(self, text: str) -> str:
        """A text without our secrets."""
        for secret in {self._api_key, os.environ.get("MEM0_API_KEY")}:
            if secret:
                text = text.replace(secret, "***")
        return text


def _address(host: str | None) -> str | None:
    """The platform's address; the credentials go in a header, and errors and logs show addresses."""
    if host is None:
        return None
    scheme, found, rest = host.partition("://")
    authority = rest.partition("/")[0]
    if scheme not in ("http", "https") or not found or not authority or "@" in authority or "?" in host:
        raise ArgumentError(
            "host must be an address such as 'https://mem0.example.com', without a password or a query"
        )
    return host.rstrip("/")


def _make_client(api_key: str | None, host: str | None) -> Any:
    turn_telemetry_off()
    from mem0 import AsyncMemoryClient

    try:
        return AsyncMemoryClient(api_key=api_key, host=host)
    except ValueError as error:  # mem0's error for any status that is not a success
        status = getattr(getattr(error.__context__, "response", None), "status_code", 0)
        if status >= 500 or status in _BUSY:
            raise ConnectionError(f"the platform answered with the status {status}") from error
        raise


def _on_a_thread(work: Any) -> asyncio.Future[Any]:
    """Run something that may hang on a daemon thread, which does not delay the end of the process."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()
    future.add_done_callback(lambda done: done.cancelled() or done.exception())

    def settle(value: Any, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)

    def run() -> None:
        value, failed = None, None
        try:
            value = work()
        except Exception as error:
            failed = error
        try:
            loop.call_soon_threadsafe(settle, value, failed)
        except RuntimeError:  # the loop is closed: no caller waits any more
            return

    threading.Thread(target=run, name="agent-stores-mem0", daemon=True).start()
    return future
