"""`ChatAgent`: a model with instructions, tools and context, that holds conversations on threads."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Any, TypeAlias

from typing_extensions import Self

from agent_stores import _checks as check
from agent_stores._checks import check_limit
from agent_stores._concurrency import LoopLocal
from agent_stores.agent.chat_client import ChatClient, ChatUpdate, join_updates
from agent_stores.agent.providers import AggregateContextProvider
from agent_stores.agent.responses import AgentResponse, AgentUpdate
from agent_stores.agent.run import AgentRun, RunSettings
from agent_stores.agent.tools import ToolInput, tools_by_name
from agent_stores.errors import ArgumentTypeError
from agent_stores.memory import InMemoryChatMessageStore
from agent_stores.messages import ChatMessage
from agent_stores.protocols import ChatMessageStoreProtocol, ContextProvider
from agent_stores.states import StateKey
from agent_stores.threads import AgentThread, read_thread_state

AgentInput: TypeAlias = "str | ChatMessage | Sequence[str | ChatMessage] | None"
"""What a run takes: text (of the user), a message, several of these, or nothing new."""

StoreFactory: TypeAlias = Callable[[], ChatMessageStoreProtocol[ChatMessage]]
"""Makes the store of a new thread."""


class ChatAgent:
    """A model with instructions, tools and context.

    An agent keeps nothing of a conversation: that is in the thread. One agent serves any number of threads at
    once; runs on the same thread object wait for each other.

    Context providers are entered by ``async with agent``, or else by the first run in an event loop, and left
    at the end of that block, by `aclose`, or else when the event loop ends. ``async with agent`` also enters
    and leaves the chat client, if it can be. The threads' stores belong to the caller.

    Args:
        chat_client: the model.
        instructions: the system message of every run; not stored in the thread.
        name: the agent's name, as the author of its messages.
        tools: Python functions that the model may call.
        chat_message_store_factory: makes the store of each new thread; in memory by default.
        context_providers: one or several; each run asks them all at once. One that fails is left out, and the
            log says so.
        max_tool_rounds: how often the tools are called in one run; then the model must answer without them.
            None for as often as it wants.
        options: settings of every call of the model, in the service's terms, such as ``temperature``.

    Raises:
        ArgumentError, ArgumentTypeError: for values that are not accepted.
    """

    def __init__(
        self,
        chat_client: ChatClient,
        instructions: str | None = None,
        *,
        name: str | None = None,
        tools: ToolInput | Iterable[ToolInput] | None = None,
        chat_message_store_factory: StoreFactory | None = None,
        context_providers: ContextProvider | Sequence[ContextProvider] | None = None,
        max_tool_rounds: int | None = 10,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(chat_client, ChatClient):
            raise ArgumentTypeError(
                f"chat_client must have the methods of ChatClient, got {type(chat_client).__name__}"
            )
        if chat_message_store_factory is not None and not callable(chat_message_store_factory):
            raise ArgumentTypeError(
                "chat_message_store_factory must be a function that makes a store, "
                f"got {type(chat_message_store_factory).__name__}"
            )
        self.chat_client = chat_client
        self.instructions: str | None = check.optional(check.text)(instructions, "instructions")
        self.name: str | None = check.optional(check.name)(name, "name")
        self._tools = tools_by_name(tools)
        self._factory = chat_message_store_factory
        self._providers = AggregateContextProvider(() if context_providers is None else context_providers)
        self._max_tool_rounds = check_limit("max_tool_rounds", max_tool_rounds)
        self._options = dict(options or {})
        self._entered = LoopLocal(self._providers.enter_all)

    async def run(
        self,
        messages: AgentInput = None,
        *,
        thread: AgentThread | None = None,
        tools: ToolInput | Iterable[ToolInput] | None = None,
        **options: Any,
    ) -> AgentResponse:
        """Let the model answer.

        The input and everything that the run brings are added to the thread in one step at its end. When the
        run fails or is cancelled, nothing of it is.

        Args:
            messages: what is new, as text of the user or as messages.
            thread: the conversation; a new one by default (`get_new_thread`).
            tools: further tools for this run.
            options: settings of the model's calls in this run; they go before the agent's own.

        Raises:
            AgentRunError: when the model cannot be called, or breaks off.
            StoreError: when the history cannot be read or the turn not be stored.
            ContextProviderError: when a context provider that is configured to do so fails the run.
            ArgumentError, ArgumentTypeError: for values that are not accepted, and settings that are missing.
        """
        async with self._begin(messages, thread, tools, options) as run:
            while not run.is_done:
                with run.calling_model():
                    response = await self.chat_client.get_response(**run.request())
                await run.handle_response(response)
            return await run.finish()

    def run_stream(
        self,
        messages: AgentInput = None,
        *,
        thread: AgentThread | None = None,
        tools: ToolInput | Iterable[ToolInput] | None = None,
        **options: Any,
    ) -> AsyncGenerator[AgentUpdate, None]:
        """Let the model answer in pieces; takes and raises what `run` does.

        The last update has the whole `response`, and comes when the turn is stored. A stream that is not read
        to its end stores nothing. Until it is at its end, closed (``await stream.aclose()``, or
        `contextlib.aclosing`) or garbage-collected, it holds the thread, and other runs on it wait.
        """
        return self._stream(self._begin(messages, thread, tools, options))

    def get_new_thread(self, *, service_thread_id: str | None = None) -> AgentThread:
        """A new conversation.

        Args:
            service_thread_id: goes on with a conversation that the model's service keeps.

        Returns:
            A thread with a store from the factory, or with one in memory. Without a factory, and with a chat
            client that says that its service keeps conversations, one that the first run decides.

        Raises:
            ArgumentTypeError: when the factory makes something that is not a store.
        """
        if service_thread_id is not None:
            return AgentThread(service_thread_id=service_thread_id)
        if self._factory is not None:
            return AgentThread(message_store=self._factory())
        if getattr(self.chat_client, "keeps_conversations", False):
            return AgentThread()
        return AgentThread(message_store=InMemoryChatMessageStore())

    async def deserialize_thread(
        self, state: Mapping[str, Any], *, key: StateKey | None = None
    ) -> AgentThread:
        """The conversation of a state, in a store from the factory; adds nothing to it.

        Args:
            state: what `AgentThread.serialize` returned.
            key: verifies the state's signature; of several keys any may have signed it.

        Raises:
            StateError: when the state is malformed, its signature is wrong, or it belongs to another store,
                server or tenant; without a factory, when it is not that of an in-memory store.
            UnsupportedVersionError: when a newer version wrote it.
        """
        content = read_thread_state(state, key)
        store = None if content.service_thread_id is not None or self._factory is None else self._factory()
        return await AgentThread.deserialize(state, message_store=store, key=key)

    async def aclose(self) -> None:
        """Leave the context providers that a run entered in this event loop."""
        await self._entered.aclose()

    async def __aenter__(self) -> Self:
        enter = getattr(self.chat_client, "__aenter__", None)
        if enter is not None:
            await enter()
        self._entered.retain()
        try:
            await self._entered.get()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        leave = getattr(self.chat_client, "__aexit__", None)
        try:
            await self._entered.release()
        finally:
            if leave is not None:
                await leave(exc_type, exc_value, traceback)

    def __repr__(self) -> str:
        name = "" if self.name is None else f", name={self.name!r}"
        return f"ChatAgent({self.chat_client!r}{name})"

    def _begin(
        self,
        messages: AgentInput,
        thread: AgentThread | None,
        tools: ToolInput | Iterable[ToolInput] | None,
        options: Mapping[str, Any],
    ) -> AbstractAsyncContextManager[AgentRun]:
        """Check what a run was given; the run itself begins when the result is entered."""
        if thread is not None and not isinstance(thread, AgentThread):
            raise ArgumentTypeError(f"thread must be an AgentThread, got {type(thread).__name__}")
        settings = RunSettings(
            name=self.name,
            instructions=self.instructions,
            tools=tuple(tools_by_name([*self._tools.values(), *tools_by_name(tools).values()]).values()),
            chat_client=self.chat_client,
            providers=self._providers,
            max_tool_rounds=self._max_tool_rounds,
            options={**self._options, **options},
        )
        inputs = _messages(messages)
        return self._turn(self.get_new_thread() if thread is None else thread, inputs, settings)

    @asynccontextmanager
    async def _turn(
        self, thread: AgentThread, inputs: Sequence[ChatMessage], settings: RunSettings
    ) -> AsyncIterator[AgentRun]:
        if self._providers.providers:
            await self._entered.get()
        async with AgentRun.begin(thread, inputs, settings) as run:
            yield run

    async def _stream(
        self, beginning: AbstractAsyncContextManager[AgentRun]
    ) -> AsyncGenerator[AgentUpdate, None]:
        async with beginning as run:
            while not run.is_done:
                updates: list[ChatUpdate] = []
                with run.calling_model():
                    async with AsyncExitStack() as stack:
                        stream = self.chat_client.get_streaming_response(**run.request())
                        close = getattr(stream, "aclose", None)
                        if close is not None:
                            stack.push_async_callback(close)
                        async for update in stream:
                            updates.append(update)
                            if update.contents:
                                yield AgentUpdate(update.contents)
                for message in await run.handle_response(join_updates(updates)):
                    yield AgentUpdate(message.contents, role="tool")
            response = await run.finish()
        yield AgentUpdate(response=response)


def _messages(messages: AgentInput) -> list[ChatMessage]:
    given: Any = [messages] if isinstance(messages, (str, ChatMessage)) else messages
    if given is None:
        return []
    if isinstance(given, bytes) or not isinstance(given, Sequence):
        raise ArgumentTypeError(
            f"messages must be a str, a ChatMessage or a list of these, got {type(given).__name__}"
        )
    checked: list[ChatMessage] = []
    for index, item in enumerate(given):
        if not isinstance(item, (str, ChatMessage)):
            raise ArgumentTypeError(
                f"messages[{index}] must be a str or a ChatMessage, got {type(item).__name__}"
            )
        checked.append(ChatMessage("user", item) if isinstance(item, str) else item)
    return checked
