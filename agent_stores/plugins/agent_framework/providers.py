"""`ProviderAdapter`: what the adapters of context providers share, for all versions of the framework."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from typing_extensions import Self

from agent_stores._concurrency import LoopLocal
from agent_stores.agent.providers import AggregateContextProvider
from agent_stores.agent.tools import Tool
from agent_stores.messages import ChatMessage
from agent_stores.plugins.agent_framework.codec import AgentFrameworkCodec
from agent_stores.plugins.agent_framework.compat import framework
from agent_stores.plugins.closing import AsyncContext
from agent_stores.protocols import Context, ContextProvider


class ProviderAdapter(AsyncContext):
    """Context providers of ours, asked with the framework's messages.

    They are entered by the first run in an event loop, and left by `aclose` or with the loop.
    """

    def _use(self, providers: ContextProvider | Sequence[ContextProvider]) -> str:
        """Set the providers; returns the names of their classes."""
        self._all = AggregateContextProvider(providers)
        self._codec = AgentFrameworkCodec()
        self._entered = LoopLocal(self._all.enter_all)
        return "+".join(dict.fromkeys(type(one).__name__ for one in self._all.providers)) or "none"

    async def _tell_thread(self, thread_id: str | None) -> None:
        """Tell them of a conversation."""
        await self._entered.get()
        await self._all.thread_created(thread_id)

    async def _ask(self, messages: Sequence[Any], **about: Any) -> tuple[Context, list[Any]]:
        """What they add to a run, and its messages as the framework's; one that fails adds nothing."""
        await self._entered.get()
        found = await self._all.invoking(self._ours(messages), **about)
        return found, [self._codec.from_chat_message(message) for message in found.messages]

    async def _tell_end(
        self,
        request: Sequence[Any],
        response: Sequence[Any] | None,
        error: Exception | None = None,
        **about: Any,
    ) -> None:
        """Tell them how a run ended."""
        await self._entered.get()
        answer = None if response is None else self._ours(response)
        await self._all.invoked(self._ours(request), answer, error, **about)

    async def __aenter__(self) -> Self:
        await self._entered.get()
        return self

    async def aclose(self) -> None:
        """Leave the providers; a later run enters them again."""
        await self._entered.aclose()

    def _ours(self, messages: Sequence[Any]) -> list[ChatMessage]:
        return [self._codec.to_chat_message(message) for message in messages]


def framework_tools(tools: Sequence[Callable[..., Any]]) -> list[Any]:
    """Tools as the framework takes them; its own stay as they are."""
    make: Any = getattr(framework, "tool", None) or framework.ai_function
    own: Any = getattr(framework, "FunctionTool", None) or framework.AIFunction

    def convert(given: Callable[..., Any]) -> Any:
        if isinstance(given, Tool):
            return make(given.function, name=given.name, description=given.description)
        # One of the betas does not take functions in all places.
        return given if isinstance(given, own) else make(given)

    return [convert(given) for given in tools]
