"""`AgentStoresHistoryProvider`: Agent Framework 1.x keeps its conversations in any of our stores."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal

from agent_framework import HistoryProvider, Message
from typing_extensions import Unpack

from agent_stores.errors import ArgumentError, ArgumentTypeError
from agent_stores.messages import ChatMessage
from agent_stores.plugins.agent_framework.codec import AgentFrameworkCodec
from agent_stores.plugins.agent_framework.ids import (
    find_repeated,
    loaded,
    may_repeat,
    replayed_ids,
    stored,
    with_ids,
)
from agent_stores.plugins.agent_framework.redis_options import PREFIX, redis_options
from agent_stores.plugins.closing import AsyncClosing
from agent_stores.plugins.merge_messages import model_view
from agent_stores.plugins.store_resolver import PluginOptions, StoreLike, StoreResolver
from agent_stores.plugins.thread_ids import escape
from agent_stores.retention import DanglingCalls
from agent_stores.store import ChatMessageStore
from agent_stores.store_options import choice, identifier, sequence

if TYPE_CHECKING:
    import redis.asyncio as aioredis
    from agent_framework import SessionContext, SupportsAgentRun
    from redis.credentials import CredentialProvider


KeyFormat = Literal["scoped", "legacy"]

_run: ContextVar[tuple[SessionContext, Collection[str]] | None] = ContextVar("agent_stores_run", default=None)
"""The framework's own object for the run whose begin or end is in progress; the agent's history providers."""


@contextmanager
def _running(context: SessionContext, histories: Collection[str] = ()) -> Iterator[None]:
    token = _run.set((context, histories))
    try:
        yield
    finally:
        _run.reset(token)


class AgentStoresHistoryProvider(AsyncClosing, HistoryProvider):
    """A `HistoryProvider` over a store: the session's id is the thread's id.

    Saving costs what the new messages cost, and reads nothing that is stored, unless answers of a model are
    among a run's input: a client may send the whole conversation again, and what is stored already is then
    not added again. A message with a `message_id`
    is stored once in its thread (an answer with the id of another one says something else, and is another).
    One without gets an id, which is set on it, so that the same object is stored once, too, however late a
    turn is tried again. Messages with the same words are different messages, and so is the same object in
    two runs.

    Args:
        source: a URL as `open_log` takes it, a `MessageLog` (which stays open), or a function that makes the
            store of a session id.
        source_id: names this provider among those of its agent.
        load_messages: whether a run is given the history.
        store_inputs: whether a run's input is stored.
        store_outputs: whether its response is stored.
        store_context_messages: whether messages that other providers add are stored.
        store_context_from: only those of the providers with these source ids.
        skip_excluded: whether a run is not given messages whose additional property ``"_excluded"`` is true.
        options: those of `ChatMessageStore`, such as ``tenant``, ``max_messages``, ``ttl`` and ``window``;
            with a function, whose stores have their own, only ``dangling_calls``: what a run is given for
            tool calls that have no result, and that its input does not answer either.

    Raises:
        ArgumentError, ArgumentTypeError: for values that are not accepted. Nothing connects before the first
            operation.
        MissingDependencyError: when the URL's backend is not installed; names the extra.
    """

    DEFAULT_SOURCE_ID = "agent_stores"

    def __init__(
        self,
        source: StoreLike,
        *,
        source_id: str = DEFAULT_SOURCE_ID,
        load_messages: bool = True,
        store_inputs: bool = True,
        store_outputs: bool = True,
        store_context_messages: bool = False,
        store_context_from: Collection[str] | None = None,
        skip_excluded: bool = False,
        **options: Unpack[PluginOptions],
    ) -> None:
        if isinstance(store_context_from, str):
            raise ArgumentTypeError("store_context_from must be a set of source ids, got a str")
        super().__init__(
            identifier("source_id", source_id),
            load_messages=load_messages,
            store_inputs=store_inputs,
            store_context_messages=store_context_messages,
            store_context_from=None if store_context_from is None else set(store_context_from),
            store_outputs=store_outputs,
        )
        self.skip_excluded = skip_excluded
        self._dangling_calls: DanglingCalls = choice(
            "dangling_calls", options.pop("dangling_calls", "synthesize"), DanglingCalls
        )
        self._codec = AgentFrameworkCodec()
        own = ("source_id", "load_messages", "store_inputs", "store_outputs", "store_context_messages")
        accepts = (*own, "store_context_from", "skip_excluded")
        self._opened = StoreResolver(source, options=options, dangling_calls="keep", accepts=accepts)

    def store(self, session_id: str | None) -> ChatMessageStore[ChatMessage]:
        """The store of a session: for counting, clearing, branching and all that a history provider has not.

        It shows all messages as they are stored. It is closed with this provider.

        Raises:
            ArgumentError, ArgumentTypeError: for an id that is empty or None: all sessions without one would
                share a history.
            StoreClosedError: after `aclose`.
        """
        return self._opened.store(identifier("session_id", session_id))

    async def get_messages(
        self, session_id: str | None, *, state: dict[str, Any] | None = None, **kwargs: Any
    ) -> list[Message]:
        """The messages of a session, oldest first, within the store's window.

        Called by itself, this gives them as they are stored. In a run, the calls and results among them are
        paired as `dangling_calls` says.

        Raises:
            CorruptMessageError: when one cannot be read, unless they are skipped.
            UnansweredToolCallError: in a run, when `dangling_calls` is ``"raise"``.
            StoreUnavailableError: when the server cannot be reached.
            ArgumentError, ArgumentTypeError: for an id that is not accepted.
        """
        history = await self.store(session_id).list_messages()
        run = _run.get()
        if run is not None:
            history = model_view(history, self._dangling_calls, _answered(run[0].input_messages))
        found = [self._codec.from_chat_message(message) for message in history]
        loaded(found, history)
        if self.skip_excluded:
            found = [message for message in found if not message.additional_properties.get("_excluded")]
        return found

    async def save_messages(
        self,
        session_id: str | None,
        messages: Sequence[Message],
        *,
        state: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Add messages to a session, in order, all or none.

        Raises:
            MessageTooLargeError: when one is larger than the store can hold.
            StoreUnavailableError, StoreRejectedError: when nothing was written.
            OutcomeUnknownError: when they may or may not be stored; saving the same messages again is safe.
            ArgumentError, ArgumentTypeError: for an id that is not accepted, or a message that holds what
                JSON cannot.
        """
        store = self.store(session_id)
        given = sequence("messages", messages)
        if not given:
            return
        neutral = [self._codec.to_chat_message(message) for message in given]
        context, histories = _run.get() or (None, ())
        if repeated := await self._repeated(store, given, neutral, context):
            given = [message for at, message in enumerate(given) if at not in repeated]
            neutral = [message for at, message in enumerate(neutral) if at not in repeated]
            if not given:
                return
        if context is not None and histories:
            loaders = {
                id(message): source
                for source, loaded_messages in context.context_messages.items()
                if source in histories
                for message in loaded_messages
            }
            neutral = replayed_ids(neutral, [loaders.get(id(message)) for message in given])
        await store.add_messages(with_ids(given, neutral, context))
        stored(given)

    async def clear(self, session_id: str | None) -> None:
        """Delete all messages of a session."""
        await self.store(session_id).clear()

    async def _repeated(
        self,
        store: ChatMessageStore[ChatMessage],
        given: Sequence[Message],
        neutral: Sequence[ChatMessage],
        context: SessionContext | None,
    ) -> range:
        """The indexes of messages that a client sent again, among the input of a run or of one call."""
        span = range(len(given)) if context is None else _span(given, context.input_messages)
        sent = neutral[span.start : span.stop]
        if not may_repeat(sent):
            return range(0)
        newest = [one.message for one in await store.latest(len(sent) + 1)]
        shown = [self._codec.from_chat_message(message).message_id for message in newest]
        end, size = find_repeated(newest, shown, sent)
        if context is None and end == len(sent):
            return range(0)  # there is nothing else in the call: it is a turn that says the same
        repeated = range(span.start, span.start + end)
        if size:  # so that a run that is tried again knows them
            loaded([given[at] for at in repeated[-size:]], newest[-size:])
        return repeated

    async def before_run(self, *, context: SessionContext, **run: Any) -> None:
        """Give a run the history; called by the agent."""
        with _running(context):
            await super().before_run(context=context, **run)

    async def after_run(self, *, agent: SupportsAgentRun, context: SessionContext, **run: Any) -> None:
        """Store what a run added; called by the agent."""
        providers = getattr(agent, "context_providers", None) or ()
        histories = {one.source_id for one in providers if isinstance(one, HistoryProvider)}
        with _running(context, histories):
            await super().after_run(agent=agent, context=context, **run)


def _answered(inputs: Sequence[Message]) -> list[str]:
    """The ids of the calls that a run's input answers."""
    contents = (content for message in inputs for content in message.contents)
    return [one.call_id for one in contents if one.type == "function_result" and one.call_id]


def _span(given: Sequence[Message], inputs: Sequence[Message]) -> range:
    """Where a run's input is among the messages that it stores."""
    first = next((at for at, message in enumerate(given) if inputs and message is inputs[0]), len(given))
    return range(first, min(first + len(inputs), len(given)))


class RedisHistoryProvider(AgentStoresHistoryProvider):
    """`AgentStoresHistoryProvider` as agent-framework-redis' ``RedisHistoryProvider`` is made.

    Its data is in our layout; ``agent-stores migrate`` copies what the framework's own provider wrote.

    With the key format ``"scoped"``, the threads' tenant is
    ``{tenant_id}/{application_id}/{agent_id}/{source_id}``, with ``%`` and ``/`` escaped in each, and nothing
    for one that is None. With ``"legacy"``, they have no tenant.

    Args:
        source_id: names this provider among those of its agent.
        redis_url: the server.
        credential_provider: gives user and password, or token, at each connection to `host`.
        host, port, ssl, username: the server, with a `credential_provider`.
        redis_client: an asynchronous client of the caller's, which stays open.
        key_prefix: the beginning of all keys; the framework's default stands for ours, which is ``agent``.
        tenant_id, application_id, agent_id: whose the conversations are; see above.
        key_format: ``"legacy"`` is deprecated.
        max_messages: the newest messages that a session keeps.
        load_messages, store_outputs, store_inputs, store_context_messages, store_context_from: see
            `AgentStoresHistoryProvider`.

    Raises:
        ArgumentError, ArgumentTypeError: for values that are not accepted.
    """

    DEFAULT_SOURCE_ID = "redis_memory"

    def __init__(
        self,
        source_id: str = DEFAULT_SOURCE_ID,
        redis_url: str | None = None,
        credential_provider: CredentialProvider | None = None,
        host: str | None = None,
        port: int = 6380,
        ssl: bool = True,
        username: str | None = None,
        *,
        redis_client: aioredis.Redis | None = None,
        key_prefix: str = PREFIX,
        tenant_id: str | None = None,
        application_id: str | None = None,
        agent_id: str | None = None,
        key_format: KeyFormat = "scoped",
        max_messages: int | None = None,
        load_messages: bool = True,
        store_outputs: bool = True,
        store_inputs: bool = True,
        store_context_messages: bool = False,
        store_context_from: set[str] | None = None,
    ) -> None:
        from agent_stores.redis import RedisMessageLog

        scope = (tenant_id, application_id, agent_id)
        if choice("key_format", key_format, KeyFormat) == "legacy":
            if scope != (None, None, None):
                raise ArgumentError(
                    "tenant_id, application_id and agent_id must be None for the legacy format"
                )
            warnings.warn("key_format='legacy' is deprecated: use 'scoped'", DeprecationWarning, stacklevel=2)
        elif not application_id or "" in scope:
            raise ArgumentError("application_id must be given, and no id may be empty, for the scoped format")
        names = [escape(name or "", "/") for name in (*scope, source_id)]
        options = redis_options(key_prefix, credential_provider, host, port, ssl, username)
        log = RedisMessageLog(redis_url, redis_client=redis_client, **options)
        super().__init__(
            log,
            source_id=source_id,
            load_messages=load_messages,
            store_inputs=store_inputs,
            store_outputs=store_outputs,
            store_context_messages=store_context_messages,
            store_context_from=store_context_from,
            tenant=None if key_format == "legacy" else "/".join(names),
            max_messages=max_messages,
        )
        self._opened.own(log)
