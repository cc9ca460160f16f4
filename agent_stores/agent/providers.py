"""Several context providers as one."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, TypeVar

from typing_extensions import Self

from agent_stores._concurrency import gather_or_cancel
from agent_stores.errors import ArgumentTypeError, ContextProviderError
from agent_stores.messages import ChatMessage
from agent_stores.protocols import Context, ContextProvider

logger = logging.getLogger("agent_stores")

T = TypeVar("T")


class AggregateContextProvider(ContextProvider):
    """Runs several context providers at once, and merges what they add in their order.

    A provider that raises adds nothing: the log says which one (without the error's text, which may repeat
    the conversation), and the others' context is kept. Only entering one raises what it raises, and a
    `ContextProviderError` is raised once all of them have been asked: with it, a provider fails the run.

    Args:
        providers: one, or several in the order in which their context is put together.

    Raises:
        ArgumentTypeError: when one of them lacks a method of `ContextProvider`.
    """

    def __init__(self, providers: ContextProvider | Sequence[ContextProvider] = ()) -> None:
        given: Any = [providers] if isinstance(providers, ContextProvider) else providers
        if isinstance(given, (str, bytes)) or not isinstance(given, Sequence):
            raise ArgumentTypeError(
                f"context_providers must have the methods of ContextProvider, got {type(given).__name__}"
            )
        for index, provider in enumerate(given):
            if not isinstance(provider, ContextProvider):
                raise ArgumentTypeError(
                    f"context_providers[{index}] must have the methods of ContextProvider, "
                    f"got {type(provider).__name__}"
                )
        self.providers = tuple(given)
        """The providers, in order."""
        self._entered: list[AsyncExitStack] = []

    async def thread_created(self, thread_id: str | None) -> None:
        """Tell all of them of a thread."""
        await self._all("thread_created", lambda provider: provider.thread_created(thread_id))

    async def invoking(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Context:
        """The context of all of them together.

        Instructions are put together with an empty line between them; messages and tools one after another.
        """
        contexts = await self._all("invoking", lambda provider: _context(provider, messages, kwargs))
        return Context(
            instructions="\n\n".join(c.instructions for c in contexts if c and c.instructions) or None,
            messages=[message for c in contexts if c for message in c.messages],
            tools=[tool for c in contexts if c for tool in c.tools],
        )

    async def invoked(
        self,
        request_messages: Sequence[ChatMessage],
        response_messages: Sequence[ChatMessage] | None = None,
        invoke_exception: Exception | None = None,
        **kwargs: Any,
    ) -> None:
        """Tell all of them how a run ended."""
        await self._all(
            "invoked",
            lambda provider: provider.invoked(
                request_messages,
                response_messages,
                invoke_exception,
                **accepted_kwargs(provider.invoked, kwargs),
            ),
        )

    async def __aenter__(self) -> Self:
        """Enter all of them in order; if one raises, those before it are left again."""
        async with AsyncExitStack() as stack:
            await self.enter_all(stack)
            self._entered.append(stack.pop_all())
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave all of them, the last one first."""
        await self._entered.pop().__aexit__(exc_type, exc_value, traceback)

    async def enter_all(self, stack: AsyncExitStack) -> None:
        """Enter all of them on a stack, which is to leave them."""
        for provider in self.providers:
            await stack.enter_async_context(provider)

    async def _all(self, step: str, call: Callable[[ContextProvider], Awaitable[T]]) -> list[T | None]:
        """What each of them returns, or None for one that raised."""
        refusals: list[ContextProviderError] = []

        async def attempt(provider: ContextProvider) -> T | None:
            try:
                return await call(provider)
            except ContextProviderError as error:
                refusals.append(error)
                return None
            except Exception as error:
                logger.warning(
                    "the context provider %s failed in %s with %s; the run goes on without it",
                    type(provider).__name__,
                    step,
                    type(error).__name__,
                )
                return None

        results = await gather_or_cancel(attempt(provider) for provider in self.providers)
        if refusals:
            raise refusals[0]
        return results


async def _context(
    provider: ContextProvider, messages: Sequence[ChatMessage], kwargs: dict[str, Any]
) -> Context:
    context: Any = await provider.invoking(messages, **accepted_kwargs(provider.invoking, kwargs))
    if context is None:
        return Context()
    if not isinstance(context, Context) or not all(isinstance(m, ChatMessage) for m in context.messages):
        raise ArgumentTypeError(
            f"{type(provider).__name__}.invoking did not return a Context of ChatMessages"
        )
    return context


def accepted_kwargs(method: Callable[..., Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Those of the keywords that a method takes: providers written without ``**kwargs`` work too."""
    parameters = inspect.signature(method).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return kwargs
    names = {parameter.name for parameter in parameters}
    return {name: value for name, value in kwargs.items() if name in names}
