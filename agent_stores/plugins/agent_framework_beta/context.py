"""`ContextProviderAdapter`: any of our context providers in an agent of Agent Framework's betas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agent_stores.plugins.agent_framework.compat import MESSAGE, framework
from agent_stores.plugins.agent_framework.providers import ProviderAdapter, framework_tools
from agent_stores.protocols import ContextProvider


class ContextProviderAdapter(ProviderAdapter, framework.ContextProvider):  # type: ignore[misc]
    """Context providers of ours as one of the framework's, for ``ChatAgent(context_provider=...)``.

    Each run asks them all at once; one that fails adds nothing, and the log says which. The framework tells
    its providers of threads that a service keeps only, and of runs that succeed only.

    Providers are entered by ``async with`` on this object or the agent, or else by the first run in an event
    loop, and left at the end of the one or the other.

    Args:
        providers: one, or several in the order in which their context is put together.

    Raises:
        ArgumentTypeError: when one of them lacks a method of `ContextProvider`.
    """

    def __init__(self, providers: ContextProvider | Sequence[ContextProvider]) -> None:
        self._use(providers)

    async def thread_created(self, thread_id: str | None) -> None:
        """Tell the providers of a thread that a service keeps; called by the agent."""
        await self._tell_thread(thread_id)

    async def invoking(self, messages: Any, **kwargs: Any) -> Any:
        """What the providers add to a run; called by the agent."""
        found, added = await self._ask(_several(messages))
        tools = framework_tools(found.tools)
        return framework.Context(instructions=found.instructions, messages=added, tools=tools)

    async def invoked(
        self,
        request_messages: Any,
        response_messages: Any = None,
        invoke_exception: Exception | None = None,
        **kwargs: Any,
    ) -> None:
        """Let the providers learn from a run; called by the agent."""
        answer = None if response_messages is None else _several(response_messages)
        await self._tell_end(_several(request_messages), answer, invoke_exception)


def _several(messages: Any) -> Sequence[Any]:
    return [messages] if isinstance(messages, MESSAGE) else list(messages)
