"""One run of an agent, step by step: what the model is sent, what it answers, and what is stored."""

from __future__ import annotations

import sys
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from agent_stores._concurrency import gather_or_cancel
from agent_stores.agent.chat_client import ChatClient, ChatResponse, add_usage
from agent_stores.agent.providers import AggregateContextProvider
from agent_stores.agent.responses import AgentResponse
from agent_stores.agent.tools import Tool, ToolInput, tools_by_name
from agent_stores.contents import ToolCallContent, ToolResultContent, UsageContent
from agent_stores.errors import (
    AgentRunError,
    ArgumentError,
    ArgumentTypeError,
    ContextProviderError,
    MissingDependencyError,
    OutcomeUnknownError,
)
from agent_stores.messages import ChatMessage
from agent_stores.protocols import Context, ContextProvider
from agent_stores.retention import repair
from agent_stores.threads import AgentThread

_MAX_REASON = 500  # characters of a failure's text in our error; some servers answer with whole pages

_LIMIT_REACHED = "The tool was not called: the limit of tool calls for one answer is reached."

_current_run: ContextVar[AgentRun | None] = ContextVar("agent_stores_turn", default=None)
"""The run whose tool is being called."""


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """The settings that an agent passes to each of its runs.

    Attributes:
        name: the agent's name.
        instructions: the system message of the run.
        tools: the tools of the agent and of this run.
        chat_client: the client that calls the model.
        providers: the agent's context providers.
        max_tool_rounds: limit of tool-call rounds; None for no limit.
        options: options of each model call.
    """

    name: str | None
    instructions: str | None
    tools: Sequence[ToolInput]
    chat_client: ChatClient
    providers: AggregateContextProvider
    max_tool_rounds: int | None
    options: Mapping[str, Any]


class AgentRun:
    """The state of a run; `begin` makes one."""

    def __init__(self, thread: AgentThread, inputs: Sequence[ChatMessage], settings: RunSettings) -> None:
        self.thread = thread
        self.inputs = [_stamped(message) for message in inputs]
        self.is_done = False
        self._settings = settings
        self._tools: dict[str, Tool[..., Any]] = {}
        self._to_send: list[ChatMessage] = []
        self._generated: list[ChatMessage] = []
        self._conversation_id = thread.service_thread_id
        self._rounds = 0
        self._usage: UsageContent | None = None
        self._finish_reason: str | None = None
        self._outer = _current_run.get()
        self._is_active = True

    @classmethod
    @asynccontextmanager
    async def begin(
        cls, thread: AgentThread, inputs: Sequence[ChatMessage], settings: RunSettings
    ) -> AsyncIterator[AgentRun]:
        """Lock the thread, load its history and context, and release the thread at the end.

        Raises:
            ArgumentError: when this is called by a tool of a run on the same thread, which it would wait for;
                when two tools have the same name; when there is nothing to send.
            StoreError: when the history cannot be read.
            ContextProviderError: when a context provider fails the run.
        """
        run = cls(thread, inputs, settings)
        run._reject_own_thread()
        providers = settings.providers
        own = thread.context_provider
        if own is not None and not any(own is provider for provider in providers.providers):
            providers = AggregateContextProvider([*providers.providers, own])
        async with thread.lock:
            try:
                await notify_thread_created(thread, providers.providers)
                history = await run._history()
                about = {"thread": thread, "chat_client": settings.chat_client}
                context = await providers.invoking(
                    run.inputs, thread_id=thread.thread_id, history=tuple(history), **about
                )
                try:
                    run._prepare(context, history)
                    yield run
                except Exception as error:
                    with suppress(ContextProviderError):  # what went wrong first is what is raised
                        await providers.invoked(run.inputs, None, error, thread_id=thread.thread_id, **about)
                    raise
                await providers.invoked(run.inputs, run._generated, None, thread_id=thread.thread_id, **about)
            finally:
                run._is_active = False

    def request(self) -> dict[str, Any]:
        """The arguments of the model's next call."""
        options = dict(self._settings.options)
        if self._is_last_round:
            options["tool_choice"] = "none"
        elif self._rounds and options.get("tool_choice") not in (None, "auto", "none"):
            del options["tool_choice"]  # a call that was demanded has been made: else it would never end
        return {
            "messages": tuple(self._to_send),
            "tools": tuple(self._tools.values()),
            "conversation_id": self._conversation_id,
            "options": options,
        }

    @contextmanager
    def calling_model(self) -> Iterator[None]:
        """Translate an exception of a model call into an `AgentRunError` that says what was stored.

        Raises:
            AgentRunError: caused by the error of the chat client; argument errors pass unchanged.
        """
        try:
            yield
        except (ArgumentError, ArgumentTypeError, MissingDependencyError):
            raise
        except Exception as error:
            reason = str(error) if isinstance(error, AgentRunError) else f"{type(error).__name__}: {error}"
            if len(reason) > _MAX_REASON:
                reason = f"{reason[:_MAX_REASON]}…"
            name = self.thread.thread_id
            where = "the thread" if name is None else f"the thread {name!r}"
            outcome = f"nothing of the turn was added to {where}"
            if self._conversation_id is not None:
                outcome = f"the turn is not complete, and the service may have added a part of it to {where}"
            raise AgentRunError(f"the model call failed ({reason}); {outcome}") from error

    async def handle_response(self, response: ChatResponse) -> list[ChatMessage]:
        """Add the model's answer to the run, and call the tools that it asks for, concurrently.

        Returns:
            The messages with the tools' results, in the order of the calls.
        """
        assistant_messages = [
            _stamped(message, self._settings.name, new_id=True) for message in response.messages
        ]
        self._usage = add_usage(self._usage, response.usage)
        self._finish_reason = response.finish_reason
        if self.thread.message_store is None:
            self._conversation_id = response.conversation_id or self._conversation_id
        answered = {result.call_id for message in assistant_messages for result in message.tool_results}
        calls = [
            call
            for message in assistant_messages
            for call in message.tool_calls
            if call.call_id not in answered
        ]
        self.is_done = not calls
        if not self._is_last_round:
            results = await gather_or_cancel(self._answer(call) for call in calls)
        else:  # it called tools although there was to be no further call
            self.is_done = True
            results = [ToolResultContent(call.call_id, _LIMIT_REACHED, is_error=True) for call in calls]
        self._rounds += 1
        tool_messages = [_stamped(ChatMessage("tool", contents=[result])) for result in results]
        self._generated += [*assistant_messages, *tool_messages]
        # A service that keeps the conversation knows what went before.
        self._to_send = (
            tool_messages
            if self._conversation_id is not None
            else [*self._to_send, *assistant_messages, *tool_messages]
        )
        return tool_messages

    async def finish(self) -> AgentResponse:
        """Store the turn in one step.

        Raises:
            StoreError: when it cannot be stored; the note on it says that the model did answer.
        """
        if self._conversation_id is not None:
            self.thread.service_thread_id = self._conversation_id
        else:
            await self._store([*self.inputs, *self._generated])
        return AgentResponse(
            messages=tuple(self._generated), usage=self._usage, finish_reason=self._finish_reason
        )

    async def _store(self, messages: Sequence[ChatMessage]) -> None:
        try:
            try:
                await self.thread.on_new_messages(messages)
            except OutcomeUnknownError:  # all of them have ids: none can be added twice
                await self.thread.on_new_messages(messages)
        except Exception as error:
            if sys.version_info >= (3, 11):
                error.add_note("The model answered, but the turn could not be stored in the thread.")
            raise

    @property
    def _is_last_round(self) -> bool:
        limit = self._settings.max_tool_rounds
        return limit is not None and self._rounds >= limit

    def _reject_own_thread(self) -> None:
        outer = self._outer
        while outer is not None:
            if outer._is_active and outer.thread is self.thread:
                raise ArgumentError(
                    "a tool cannot run an agent on the thread of the run that called it: that run would wait "
                    "for itself; give it another thread"
                )
            outer = outer._outer

    async def _history(self) -> list[ChatMessage]:
        store = self.thread.message_store
        history = [] if store is None else list(await store.list_messages())
        for message in history:
            if not isinstance(message, ChatMessage):
                raise ArgumentTypeError(
                    f"the thread's store holds messages of type {type(message).__name__}; ChatAgent uses "
                    "ChatMessage: give it a store without a framework's codec"
                )
        return history

    def _prepare(self, context: Context, history: Sequence[ChatMessage]) -> None:
        self._tools = tools_by_name([*self._settings.tools, *context.tools])
        texts = [text for text in (self._settings.instructions, context.instructions) if text]
        system = [ChatMessage("system", "\n\n".join(texts))] if texts else []
        # A result in the input goes before one that the history made up for want of it.
        self._to_send = repair([*system, *context.messages, *history, *self.inputs], "synthesize")
        if not self._to_send and self._conversation_id is None:
            raise ArgumentError("there is nothing to send: no messages, no history and no instructions")

    async def _answer(self, call: ToolCallContent) -> ToolResultContent:
        _current_run.set(self)  # in this task's own context
        tool = self._tools.get(call.name)
        if tool is None:
            known = ", ".join(self._tools) or "none"
            text = f"There is no tool {call.name!r}; the tools are: {known}."
            return ToolResultContent(call.call_id, text, is_error=True)
        return await tool.answer(call)


async def notify_thread_created(thread: AgentThread, providers: Sequence[ContextProvider]) -> None:
    """Call `thread_created` of the providers that have not been notified of this thread."""
    known = thread._notified_providers
    new = [provider for provider in providers if not any(provider is other for other in known)]
    await AggregateContextProvider(new).thread_created(thread.thread_id)
    known += new


def _stamped(message: ChatMessage, author: str | None = None, *, new_id: bool = False) -> ChatMessage:
    """A message with an id and a time, so that storing it a second time adds nothing.

    A service's own id is replaced: some services use one again, and stores leave out what they have.
    """
    return message.replace(
        message_id=uuid.uuid4().hex if new_id or message.message_id is None else message.message_id,
        created_at=message.created_at or datetime.now(timezone.utc),
        author_name=message.author_name or author,
    )
