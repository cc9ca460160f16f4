"""What the adapters of context providers share, for all versions of the framework."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from typing_extensions import Self

from agent_stores._concurrency import LoopLocal
from agent_stores.agent.providers import AggregateContextProvider
from agent_stores.agent.tools import Tool
from agent_stores.messages import ChatMessage
from agent_stores.plugins.agent_framework.codec import AgentFrameworkCodec
from agent_stores.plugins.agent_framework.compat import installed
from agent_stores.plugins.closing import AsyncContext
from agent_stores.protocols import Context, ContextProvider


class Providers(AsyncContext):
    """Context providers of ours, asked with the framework's messages.

    They are entered by the first run in an event loop, and left by `aclose` or with the loop.

    Args:
        providers: one, or several in the order in which their context is put together.
    """

    def __init__(self, providers: ContextProvider | Sequence[ContextProvider]) -> None:
        self._all = AggregateContextProvider(providers)
        self._codec = AgentFrameworkCodec()
        self._entered = LoopLocal(self._all.enter_all)
        self.name = "+".join(dict.fromkeys(type(one).__name__ for one in self._all.providers)) or "none"
        """The names of their classes."""

    async def thread_created(self, thread_id: str | None) -> None:
        """Tell them of a conversation."""
        await self._entered.get()
        await self._all.thread_created(thread_id)

    async def invoking(self, messages: Sequence[Any], **about: Any) -> tuple[Context, list[Any]]:
        """What they add to a run, and its messages as the framework's; one that fails adds nothing."""
        await self._entered.get()
        found = await self._all.invoking(self._ours(messages), **about)
        return found, [self._codec.from_chat_message(message) for message in found.messages]

    async def invoked(
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


class ProviderAdapter(AsyncContext):
    """How the adapters are entered and left."""

    _providers: Providers

    async def aclose(self) -> None:
        """Leave the providers; a later run enters them again."""
        await self._providers.aclose()

    async def __aenter__(self) -> Self:
        await self._providers.__aenter__()
        return self


def framework_tools(tools: Sequence[Callable[..., Any]]) -> list[Any]:
    """Tools as the framework takes them; its own stay as they are."""
    module = installed().module
    is_old = not hasattr(module, "tool")
    make, own = (module.ai_function, module.AIFunction) if is_old else (module.tool, module.FunctionTool)

    def convert(given: Callable[..., Any]) -> Any:
        if isinstance(given, Tool):
            return make(given.function, name=given.name, description=given.description)
        # One of the betas does not take functions in all places.
        return given if isinstance(given, own) else make(given)

    return [convert(given) for given in tools]
