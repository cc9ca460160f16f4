"""Python functions as tools: their schemas, and how they are called."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeAlias, TypeVar, cast, overload

import msgspec
from typing_extensions import ParamSpec

from agent_stores._concurrency import settle
from agent_stores._json import json_value
from agent_stores.agent.tool_schema import Parameters
from agent_stores.contents import AnyContent, Content, ToolCallContent, ToolResultContent
from agent_stores.errors import ArgumentError, ArgumentTypeError

logger = logging.getLogger("agent_stores")

P = ParamSpec("P")
R = TypeVar("R")

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


class Tool(Generic[P, R]):
    """A Python function that a model may call; callable as the function itself.

    The model receives the function's name, the first paragraph of its docstring, and the JSON schema of its
    parameters, from their annotations: ``Annotated[T, "what it means"]`` describes one, and one without
    annotation takes any value. Parameters with defaults may be left out by the model.

    Args:
        function: a function, a coroutine function, or any other callable with a signature. For a method, give
            the bound one. Synchronous ones are called in a worker thread, so that they do not block the event
            loop; a run that is cancelled does not wait for them.
        name: the tool's name; the function's by default. 1 to 64 of the characters a-z A-Z 0-9 _ -.
        description: the description for the model; the first paragraph of the docstring by default.

    Raises:
        ArgumentError: for a name that is not accepted, or parameters that a model cannot give.
        ArgumentTypeError: for something that is not callable, or a parameter's type that JSON Schema cannot
            describe.

    Attributes:
        name: the tool's name.
        description: the description for the model; may be empty.
        parameters: the JSON schema of its parameters, an object.
        function: the function.
    """

    def __init__(
        self, function: Callable[P, R], *, name: str | None = None, description: str | None = None
    ) -> None:
        if not callable(function):
            raise ArgumentTypeError(f"a tool must be a function, got {type(function).__name__}")
        named: Any = function
        while isinstance(named, functools.partial):
            named = named.func
        if inspect.isgeneratorfunction(named) or inspect.isasyncgenfunction(named):
            raise ArgumentTypeError(f"tool {named.__name__!r} must be a function, got a generator")
        self.name = _tool_name(getattr(named, "__name__", type(named).__name__) if name is None else name)
        self.description = _first_paragraph(inspect.getdoc(named)) if description is None else description
        self.function = function
        self._parameters = Parameters(function, self.name)
        self.parameters: Mapping[str, Any] = self._parameters.schema
        functools.update_wrapper(self, named, updated=())

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function itself, without any conversion."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"Tool({self.name!r})"

    async def invoke(self, arguments: Mapping[str, Any]) -> Any:
        """Call the function with a model's arguments.

        Args:
            arguments: by name, as JSON-ready data; converted to the types of the annotations.

        Returns:
            What the function returned.

        Raises:
            ArgumentError: when an argument is missing, unknown, or does not fit.
            Exception: whatever the function raises.
        """
        args, kwargs = self._parameters.bind(dict(arguments))
        call = cast("Callable[..., Any]", self.function)
        if inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(type(call).__call__):
            return await call(*args, **kwargs)

        def outcome() -> tuple[Any, Exception | None]:
            # Raised here and not through the thread's future, which does not take a StopIteration.
            try:
                return call(*args, **kwargs), None
            except Exception as error:
                return None, error

        value, error = await asyncio.to_thread(outcome)
        if error is not None:
            raise error
        return await settle(value)

    async def answer(self, call: ToolCallContent) -> ToolResultContent:
        """The result of a model's call; an error in the tool is a result too, so that the model sees it.

        Text is kept as it is, content parts (such as an image) become parts of the result, and other values
        are put into JSON. Only what is no `Exception` is raised, such as a cancellation.
        """
        try:
            return _result(call.call_id, await self.invoke(call.parse_arguments()))
        except Exception as error:
            # Its text may repeat what the conversation says: it is for the model, not for the log.
            logger.warning("the tool %r failed with %s", self.name, type(error).__name__)
            return ToolResultContent(call.call_id, _error_text(error), is_error=True)


ToolInput: TypeAlias = "Tool[..., Any] | Callable[..., Any]"
"""What is accepted as a tool: a function, or a `Tool` made of one."""


@overload
def tool(function: Callable[P, R], /) -> Tool[P, R]: ...
@overload
def tool(
    *, name: str | None = None, description: str | None = None
) -> Callable[[Callable[P, R]], Tool[P, R]]: ...
def tool(
    function: Callable[P, R] | None = None, /, *, name: str | None = None, description: str | None = None
) -> Any:
    """Decorate a function to make it a `Tool`: ``@tool``, or ``@tool(name=..., description=...)``.

    It can be called as before. A plain function can be given to an agent just as well; the decorator is for
    another name or description, and finds mistakes where the function is defined.

    Raises:
        ArgumentError, ArgumentTypeError: as `Tool` does.
    """
    if function is not None:
        return Tool(function)
    return functools.partial(Tool, name=name, description=description)


def tools_by_name(tools: ToolInput | Iterable[ToolInput] | None) -> dict[str, Tool[..., Any]]:
    """Tools by name.

    Raises:
        ArgumentError: when two of them have the same name, or as `Tool` does.
        ArgumentTypeError: as `Tool` does.
    """
    if tools is None:
        return {}
    if callable(tools):
        tools = [tools]
    if isinstance(tools, (str, bytes, Mapping)) or not isinstance(tools, Iterable):
        raise ArgumentTypeError(
            f"tools must be a function or a list of functions, got {type(tools).__name__}"
        )
    by_name: dict[str, Tool[..., Any]] = {}
    for given in tools:
        made: Tool[..., Any] = given if isinstance(given, Tool) else Tool(given)
        if made.name in by_name:
            raise ArgumentError(
                f"two tools have the name {made.name!r}; give one of them another: Tool(function, name=...)"
            )
        by_name[made.name] = made
    return by_name


def _tool_name(name: object) -> str:
    if not isinstance(name, str):
        raise ArgumentTypeError(f"a tool's name must be a str, got {type(name).__name__}")
    if not _NAME.fullmatch(name):
        raise ArgumentError(
            "a tool's name must be 1 to 64 of the characters a-z A-Z 0-9 _ - (Tool(function, name=...) sets "
            f"another than the function's), got {name!r}"
        )
    return name


def _first_paragraph(doc: str | None) -> str:
    return " ".join((doc or "").strip().split("\n\n")[0].split())


def _result(call_id: str, value: Any) -> ToolResultContent:
    if isinstance(value, str):
        return ToolResultContent(call_id, value)
    parts = [value] if isinstance(value, Content) else value
    if isinstance(parts, Sequence) and parts and all(isinstance(part, Content) for part in parts):
        return ToolResultContent(call_id, contents=tuple(cast("Sequence[AnyContent]", parts)))
    plain = msgspec.to_builtins(value, str_keys=True, enc_hook=_plain)
    return ToolResultContent(call_id, json_value(plain, "what the tool returned"))


def _plain(value: Any) -> Any:
    """JSON-ready data for a type that msgspec does not know: models of pydantic dump themselves."""
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        return dump(mode="json")
    raise ArgumentTypeError(f"the tool returned a {type(value).__name__}, which JSON cannot hold")


def _error_text(error: Exception) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
