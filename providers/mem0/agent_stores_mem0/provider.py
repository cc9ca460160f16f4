"""`Mem0Provider`: what mem0 remembers, shown to the model; what is said, given to mem0."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from types import TracebackType
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from typing_extensions import Self

from agent_stores import (
    ArgumentError,
    ArgumentTypeError,
    ChatMessage,
    Context,
    ContextProvider,
    ContextProviderError,
)
from agent_stores.context import delimited_message, fit_budget
from agent_stores_mem0.arguments import (
    DEFAULT_CONTEXT_PROMPT,
    OnError,
    check_count,
    check_flag,
    check_optional_count,
    check_positive_seconds,
    check_threshold,
)
from agent_stores_mem0.background import (
    BackgroundWriter,
    UnwrittenTurn,
    Write,
    said_in,
    suppress_shutdown_warnings,
    with_timeout,
)
from agent_stores_mem0.breaker import CircuitBreaker, CircuitOpenError, reason_of
from agent_stores_mem0.clients import Connection, Memory, best_first
from agent_stores_mem0.erasing import ErasesMemories
from agent_stores_mem0.scopes import Entities, Scope, check_id

T = TypeVar("T")

logger = logging.getLogger("agent_stores.mem0")


class Mem0Provider(ErasesMemories, ContextProvider):
    """Long-term memory by mem0: its platform, or its open-source package in this process.

    Before a run, the provider searches mem0 with the user's new messages, and shows the model the results
    in a ``user`` message, between ``<memories>`` and ``</memories>``. After a run that succeeded, the new
    messages of the user and the assistant are given to mem0, which keeps what it finds worth remembering.

    | argument | stored under mem0's | searched by default |
    |---|---|---|
    | `user_id` | ``user_id`` | yes |
    | `thread_id` | ``run_id`` | yes |
    | `application_id` | ``app_id`` | only together with a user or a thread, which it narrows |
    | `agent_id` | ``agent_id`` | no: other users' memories of the agent would be read back |
    | `search_user_id` | | this user's memories |
    | `search_agent_id` | | what all users told this agent |
    | `search_application_id` | | narrows these two; alone, what all users told this application |

    Any ``search_`` argument replaces the default search. A user's and an agent's memories are two partitions,
    searched at once.

    Enter it with ``async with``, or let an agent do so. One provider can serve many agents and event loops.

    Args:
        api_key: the platform's key; the environment's ``MEM0_API_KEY`` without one.
        mem0_client: mem0's ``AsyncMemoryClient`` or ``AsyncMemory`` instead; it stays the caller's, and is
            never closed here.
        host: the platform's address, for one that is not mem0's own.
        user_id: whose memories they are.
        agent_id: the agent that learns them.
        application_id: the application that they belong to. With ``AsyncMemory``, which has no applications,
            it is stored and searched as the metadata ``app_id``, and needs one of the other ids.
        thread_id: the conversation that they belong to, as mem0's ``run_id``.
        scope_to_per_operation_thread_id: take the conversation's id from the thread of each run instead: it
            narrows what is stored and what is retrieved. The provider is bound to its first thread, and
            rejects every other with a `ContextProviderError`.
        search_user_id: retrieve this user's memories.
        search_agent_id: retrieve what all users told this agent.
        search_application_id: retrieve within this application.
        context_prompt: the text before the memories.
        limit: the largest number of memories shown.
        max_tokens: the largest number of tokens of all of them, as estimated offline; None for no limit.
        threshold: the lowest score, from 0 to 1, of a memory that is shown; mem0's own by default.
        timeout: seconds that a run waits at most for its searches, and then for storing its turn.
        on_error: ``"log"`` lets the run go on when mem0 fails; ``"raise"`` fails it with a
            `ContextProviderError`.
        background_writes: store turns on a task of its own, with retries; a run then does not wait for it.
        max_pending_writes: the most turns that wait to be stored; one without space is reported as lost.
        close_timeout: seconds that `aclose` may take to store what waits.

    Raises:
        ArgumentError, ArgumentTypeError: for an invalid value, and without any scope. Nothing is
            read from the environment or the network before the provider is entered or used.
        MissingDependencyError: when there is no client, and mem0 is not installed.
    """

    def __init__(
        self,
        api_key: str | None = None,
        *,
        mem0_client: Any = None,
        host: str | None = None,
        user_id: str | None = None,
        agent_id: str | None = None,
        application_id: str | None = None,
        thread_id: str | None = None,
        scope_to_per_operation_thread_id: bool = False,
        search_user_id: str | None = None,
        search_agent_id: str | None = None,
        search_application_id: str | None = None,
        context_prompt: str = DEFAULT_CONTEXT_PROMPT,
        limit: int = 10,
        max_tokens: int | None = 1000,
        threshold: float | None = None,
        timeout: float = 10.0,
        on_error: OnError = "log",
        background_writes: bool = False,
        max_pending_writes: int = 100,
        close_timeout: float = 30.0,
    ) -> None:
        for name, value in (("api_key", api_key), ("host", host), ("context_prompt", context_prompt)):
            if value is not None and not isinstance(value, str):
                raise ArgumentTypeError(f"{name} must be a str, got {type(value).__name__}")
        if mem0_client is not None and (api_key is not None or host is not None):
            raise ArgumentError("mem0_client and api_key or host must not be given together")
        self._storing = Scope(
            check_id("user_id", user_id),
            check_id("agent_id", agent_id),
            check_id("application_id", application_id),
            check_id("thread_id", thread_id),
        )
        asked = Scope(
            check_id("search_user_id", search_user_id),
            check_id("search_agent_id", search_agent_id),
            check_id("search_application_id", search_application_id),
        )
        self._is_per_thread = check_flag("scope_to_per_operation_thread_id", scope_to_per_operation_thread_id)
        if self._is_per_thread and thread_id is not None:
            raise ArgumentError("thread_id and scope_to_per_operation_thread_id must not be given together")
        if not any(self._storing) and not any(asked) and not self._is_per_thread:
            raise ArgumentError(
                "at least one of user_id, agent_id, application_id, thread_id, "
                "scope_to_per_operation_thread_id and the search_ arguments must be given, got none"
            )
        self._asked = asked if any(asked) else None
        self._bound: str | None = None
        self._context_prompt = context_prompt
        self._limit = check_count("limit", limit)
        self._max_tokens = check_optional_count("max_tokens", max_tokens)
        self._threshold = check_threshold(threshold)
        self._timeout = check_positive_seconds("timeout", timeout)
        self._close_timeout = check_positive_seconds("close_timeout", close_timeout)
        if on_error not in ("log", "raise"):
            raise ArgumentError(f"on_error must be 'log' or 'raise', got {on_error!r}")
        self._on_error: OnError = on_error
        self._connection = Connection(mem0_client, api_key, host)
        # An application that asked for errors decides itself when it tries again.
        self._breaker = CircuitBreaker() if on_error == "log" else None
        self._unwritten: deque[UnwrittenTurn] = deque(maxlen=1000)
        self._lost_since_close = 0
        self._in_background = check_flag("background_writes", background_writes)
        self._writer = BackgroundWriter(
            self._write,
            capacity=check_count("max_pending_writes", max_pending_writes, least=1),
            attempt_seconds=max(self._timeout, 60.0),
            lost=self._lose_later,
        )
        self._users: WeakKeyDictionary[asyncio.AbstractEventLoop, int] = WeakKeyDictionary()
        self._check_scopes()

    @property
    def unwritten(self) -> tuple[UnwrittenTurn, ...]:
        """The turns that were not stored in mem0, oldest first; at most the newest 1,000."""
        return tuple(self._unwritten)

    async def thread_created(self, thread_id: str | None) -> None:
        """Learn the id of the thread, where memories are scoped to it.

        Raises:
            ContextProviderError: for a second thread, or an id that mem0 does not accept.
        """
        self._thread(thread_id)

    async def invoking(
        self, messages: Sequence[ChatMessage], *, thread_id: str | None = None, **kwargs: Any
    ) -> Context:
        """The memories that fit the user's new messages.

        Raises:
            ContextProviderError: for a second thread; with ``on_error="raise"``, when mem0 fails.
        """
        partitions = self._partitions(thread_id)
        # Embedding models reject texts of some 8,000 tokens.
        query = "\n".join(m.text for m in messages if m.role == "user" and m.text.strip())[-8000:]
        if not query.strip() or not partitions or not self._limit:
            return Context()
        memories = await self._search(query, partitions)
        texts = [memory.text for memory in memories]
        kept = [texts[index] for index in fit_budget(texts, self._max_tokens)][: self._limit]
        if not kept:
            return Context()
        shown = delimited_message("memories", [f"- {text}" for text in kept], prompt=self._context_prompt)
        return Context(messages=[shown])

    async def invoked(
        self,
        request_messages: Sequence[ChatMessage],
        response_messages: Sequence[ChatMessage] | None = None,
        invoke_exception: Exception | None = None,
        *,
        thread_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Give the turn to mem0; a run that failed is not a turn.

        Raises:
            ContextProviderError: for a second thread; with ``on_error="raise"``, when mem0 fails.
        """
        if invoke_exception is not None:
            return
        run_id = self._thread(thread_id)
        if self._is_per_thread and run_id is None:
            raise ContextProviderError(
                "Mem0Provider is to scope memories to the thread, and the thread has no id; the turn is in "
                "its thread, and mem0 was not given it"
            )
        scope = self._storing._replace(thread_id=run_id) if self._is_per_thread else self._storing
        said = said_in((*request_messages, *(response_messages or ())))
        if not said or not any(scope):
            return
        write = Write(said, scope.entities())
        if self._in_background:
            if not await self._writer.accept(write, seconds=self._timeout):
                self._record_unwritten(write, asyncio.QueueFull())
                self._fail(asyncio.QueueFull(), "mem0 was not given the turn, which is in its thread")
            return
        try:
            await self._within_timeout(lambda: self._write(write))
        except Exception as error:
            self._record_unwritten(write, error)
            self._fail(error, "mem0 was not given the turn, which is in its thread")

    async def aclose(self) -> None:
        """Store what waits, and close the client that was made here for this event loop.

        The provider can be used again afterwards.

        Raises:
            ContextProviderError: with ``on_error="raise"``, when turns that were accepted could not be
                stored; `unwritten` has them.
        """
        with suppress_shutdown_warnings():
            try:
                await self._writer.flush(seconds=self._close_timeout)
            finally:
                await self._connection.aclose()
        lost, self._lost_since_close = self._lost_since_close, 0
        if lost and self._on_error == "raise":
            raise ContextProviderError(
                f"mem0 did not take {lost} of the turns that were to be stored in the background; "
                "`unwritten` of the provider has them"
            )

    async def __aenter__(self) -> Self:
        """Enter the provider; counts one more user of it in this event loop.

        Raises:
            ArgumentError: when there is neither a client nor a key.
        """
        self._connection.key()
        loop = asyncio.get_running_loop()
        self._users[loop] = self._users.get(loop, 0) + 1
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End; the last one who leaves it in an event loop closes it there, as `aclose` does."""
        loop = asyncio.get_running_loop()
        users = self._users[loop] = self._users.get(loop, 1) - 1
        if users > 0:
            return
        self._users.pop(loop, None)
        try:
            await self.aclose()
        except ContextProviderError:
            if exc_type is None:  # else the error on its way says more
                raise

    def __repr__(self) -> str:
        stored = [f"{name}={value!r}" for name, value in self._storing._asdict().items() if value is not None]
        asked = self._asked._asdict() if self._asked else {}
        searched = [f"search_{name}={value!r}" for name, value in asked.items() if value is not None]
        scoped = ["scope_to_per_operation_thread_id=True"] if self._is_per_thread else []
        return f"Mem0Provider({', '.join([*stored, *scoped, *searched])})"

    def _check_scopes(self) -> None:
        """Reject scopes that the client cannot keep apart, and say so when nothing will be retrieved."""
        self._connection.check(self._storing, self._asked, is_per_thread=self._is_per_thread)
        if self._asked is None and not self._is_per_thread and not any(self._storing.private_scope()):
            logger.warning(
                "%r stores memories and retrieves none: those of an agent or an application are everybody's; "
                "give user_id, or search_agent_id or search_application_id to read them back",
                self,
            )

    def _thread(self, thread_id: str | None) -> str | None:
        """The thread that memories are scoped to, where they are."""
        if not self._is_per_thread:
            return self._storing.thread_id
        if thread_id is None:
            return self._bound
        if self._bound is None:
            try:
                check_id("thread_id", thread_id)
                self._connection.check(Scope(thread_id=thread_id), None, is_per_thread=False)
            except ArgumentError as error:
                raise ContextProviderError(
                    f"Mem0Provider cannot scope memories to the thread: {error}"
                ) from None
            self._bound = thread_id
        elif thread_id != self._bound:
            raise ContextProviderError(
                f"this Mem0Provider is scoped to the thread {self._bound!r} and was used on {thread_id!r}; "
                "make a provider for each thread, as AgentThread(context_provider=...) takes one"
            )
        return self._bound

    def _partitions(self, thread_id: str | None) -> list[Entities]:
        run_id = self._thread(thread_id)
        if not self._is_per_thread:
            return (self._asked or self._storing.private_scope()).partitions()
        if run_id is None:
            return []  # a thread without an id has begun just now: there is nothing to remember
        scope = self._asked or self._storing._replace(agent_id=None)
        return scope._replace(thread_id=run_id).partitions()

    async def _search(self, query: str, partitions: Sequence[Entities]) -> list[Memory]:
        """The memories of all partitions, each once, best first."""

        async def one(partition: Entities) -> list[Memory]:
            api = await self._connection.get()
            return await api.search(query, partition, limit=self._limit, threshold=self._threshold)

        searches = [self._within_timeout(partial(one, partition)) for partition in partitions]
        found: list[Memory] = []
        for answer in await asyncio.gather(*searches, return_exceptions=True):
            if isinstance(answer, Exception):
                self._fail(answer, "mem0 could not be searched")
            elif isinstance(answer, BaseException):
                raise answer
            else:
                found += answer
        return best_first(found)

    async def _within_timeout(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        if self._breaker is None:
            return await with_timeout(self._timeout, call())
        return await self._breaker.call(lambda: with_timeout(self._timeout, call()))

    async def _write(self, write: Write) -> None:
        api = await self._connection.get()
        await api.add(write.messages, write.entities)

    def _record_unwritten(self, write: Write, error: BaseException) -> None:
        name = type(error).__name__
        self._unwritten.append(UnwrittenTurn(write.messages, dict(write.entities), name))
        level = logging.DEBUG if isinstance(error, CircuitOpenError) else logging.ERROR  # once is enough
        logger.log(level, "mem0 did not take a turn (%s); `unwritten` of the provider has it", name)

    def _lose_later(self, write: Write, error: BaseException) -> None:
        """What `_record_unwritten` does, for a turn whose run has ended: `aclose` reports it."""
        self._record_unwritten(write, error)
        self._lost_since_close += 1

    def _fail(self, error: Exception, what: str) -> None:
        """Log a failure, or raise it; the log has no text of mem0's, which may repeat the conversation."""
        name = type(error).__name__
        if self._on_error == "log":
            level = logging.DEBUG if isinstance(error, CircuitOpenError) else logging.WARNING
            logger.log(level, "%s: %s", what, name)
            return
        reason = reason_of(error, self._timeout)
        clean = self._connection.redact(reason)
        text = f"{what}: {name}" + (f": {clean[:300]}" if clean else "")
        # The original, which a traceback shows, is left out where it holds a secret.
        raise ContextProviderError(text) from (error if clean == reason else None)
