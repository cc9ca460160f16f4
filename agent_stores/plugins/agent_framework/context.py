"""`ContextProviderAdapter`: any of our context providers in an agent of Agent Framework 1.x."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from agent_framework import ContextProvider as FrameworkContextProvider

from agent_stores.plugins.agent_framework.providers import ProviderAdapter, framework_tools
from agent_stores.protocols import ContextProvider
from agent_stores.store_options import identifier

if TYPE_CHECKING:
    from agent_framework import AgentSession, SessionContext


class ContextProviderAdapter(ProviderAdapter, FrameworkContextProvider):
    """Context providers of ours as one of the framework's, for ``Agent(context_providers=[...])``.

    Each run asks them all at once; one that fails adds nothing, and the log says which. Their messages stand
    before the run's own, and are not stored unless a history provider is told to. The framework tells its
    providers of runs that succeed only.

    Providers are entered by ``async with`` on this object, or else by the first run in an event loop, and
    left at the end of the one or the other.

    Args:
        providers: one, or several in the order in which their context is put together.
        source_id: names this provider among those of its agent; by default the names of the classes.

    Raises:
        ArgumentError, ArgumentTypeError: for values that are not accepted.
    """

    def __init__(
        self, providers: ContextProvider | Sequence[ContextProvider], *, source_id: str | None = None
    ) -> None:
        names = self._use(providers)
        super().__init__(names if source_id is None else identifier("source_id", source_id))
        self._introduced: WeakSet[AgentSession] = WeakSet()

    async def before_run(self, *, session: AgentSession, context: SessionContext, **run: Any) -> None:
        """Add context to a run; called by the agent."""
        if session not in self._introduced:
            self._introduced.add(session)
            await self._tell_thread(session.session_id)
        found, messages = await self._ask(context.input_messages, thread_id=session.session_id)
        if found.instructions:
            context.extend_instructions(self.source_id, found.instructions)
        if messages:
            context.extend_messages(self, messages)
        if found.tools:
            context.extend_tools(self.source_id, framework_tools(found.tools))

    async def after_run(self, *, session: AgentSession, context: SessionContext, **run: Any) -> None:
        """Let the providers learn from a run; called by the agent."""
        answer = context.response.messages if context.response else []
        await self._tell_end(context.input_messages, answer, thread_id=session.session_id)
