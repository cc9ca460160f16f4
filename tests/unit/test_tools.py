"""Python functions as tools: schema, arguments, results and errors."""

from __future__ import annotations

import asyncio
import datetime
import functools
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Literal

import msgspec
import pytest

from agent_stores.agent.tools import Tool, tool, tools_by_name
from agent_stores.contents import DataContent, TextContent, ToolCallContent, ToolResultContent
from agent_stores.errors import ArgumentError, ArgumentTypeError

pytestmark = pytest.mark.anyio


class Unit(Enum):
    C = "celsius"
    F = "fahrenheit"


@dataclass
class Place:
    city: str
    near: Place | None = None


class Custom:
    pass


def weather(  # type: ignore[no-untyped-def]
    place: Annotated[Place, "Where."],
    days: Annotated[int, msgspec.Meta(ge=1, le=7), "How many days."] = 1,
    *,
    unit: Unit = Unit.C,
    kind: Literal["short", "long"] | None = None,
    anything=None,
) -> str:
    """Tell the
    weather.

    Not for the model.
    """
    return f"{place.city} {days} {unit.name} {kind} {anything}"


def at(name: str = "f", arguments: Any = "") -> ToolCallContent:
    return ToolCallContent("call", name, arguments)


def test_what_a_model_is_told() -> None:
    told = Tool(weather)
    assert (told.name, told.description) == ("weather", "Tell the weather.")
    assert told.parameters == {
        "type": "object",
        "properties": {
            "place": {"description": "Where.", "$ref": "#/$defs/Place"},
            "days": {
                "type": "integer",
                "minimum": 1,
                "maximum": 7,
                "description": "How many days.",
                "default": 1,
            },
            "unit": {"$ref": "#/$defs/Unit", "default": "celsius"},
            "kind": {"anyOf": [{"enum": ["long", "short"]}, {"type": "null"}], "default": None},
            "anything": {"default": None},
        },
        "required": ["place"],
        "additionalProperties": False,
        "$defs": {
            "Place": {
                "title": "Place",
                "type": "object",
                "properties": {
                    "city": {"type": "string"},
                    "near": {"anyOf": [{"$ref": "#/$defs/Place"}, {"type": "null"}], "default": None},
                },
                "required": ["city"],
            },
            "Unit": {"title": "Unit", "enum": ["celsius", "fahrenheit"]},
        },
    }


def test_a_tool_without_parameters() -> None:
    def now() -> str:
        return "now"

    assert Tool(now).parameters == {
        "type": "object",
        "properties": {},
        "required": [],
        "additionalProperties": False,
    }
    assert Tool(now).description == ""


async def test_arguments_are_converted() -> None:
    result = await Tool(weather).answer(
        at(arguments='{"place": {"city": "Rome"}, "days": "3", "unit": "fahrenheit"}')
    )
    assert result == ToolResultContent("call", "Rome 3 F None None")
    result = await Tool(weather).answer(at(arguments={"place": {"city": "Rome"}, "anything": [1]}))
    assert result.result == "Rome 1 C None [1]"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("", "missing required field `place`"),
        ("{", "must be a JSON object: "),
        ("[]", "must be a JSON object, got list"),
        ({"place": {"city": 5}}, "$.place.city"),
        ({"place": {"city": "Rome"}, "days": 8}, "<= 7"),
        ({"place": {"city": "Rome"}, "planet": "Mars"}, "`planet`"),
    ],
)
async def test_bad_arguments_are_told_to_the_model(arguments: Any, said: str) -> None:
    result = await Tool(weather).answer(at(arguments=arguments))
    assert result.is_error
    assert result.result_text().startswith("ArgumentError: ")
    assert said in result.result_text()


async def test_defaults_are_the_functions_own() -> None:
    kept: list[int] = []

    def collect(value: int, into: list[int] = kept, at: Any = Custom) -> bool:
        into.append(value)
        return at is Custom

    assert (await Tool(collect).answer(at(arguments={"value": 1}))).result is True
    assert kept == [1]


async def test_a_default_of_none_takes_null() -> None:
    def greet(name: str = None) -> str:  # type: ignore[assignment]  # noqa: RUF013
        return f"Hello {name}"

    assert (await Tool(greet).answer(at(arguments={"name": None}))).result == "Hello None"


async def test_positional_only_parameters() -> None:
    def divide(a: float, b: float = 2, /, *, digits: int = 1) -> float:
        return round(a / b, digits)

    assert (await Tool(divide).answer(at(arguments={"a": 3}))).result == 1.5
    assert (await Tool(divide).answer(at(arguments={"b": 4, "a": 1, "digits": 2}))).result == 0.25


async def test_every_kind_of_callable() -> None:
    class Greeter:
        def __init__(self, word: str) -> None:
            self.word = word

        def greet(self, name: str) -> str:
            return f"{self.word} {name}"

        async def __call__(self, name: str) -> str:
            return f"{self.word}, {name}"

    async def shout(text: str, mark: str) -> str:
        return text.upper() + mark

    def lazily(name: str) -> Any:
        return shout(name, "?")

    for function, name, expected in (
        (Greeter("Hi").greet, "greet", "Hi Ann"),
        (Greeter("Hi"), "Greeter", "Hi, Ann"),
        (functools.partial(shout, mark="!"), "shout", "ANN!"),
        (lazily, "lazily", "ANN?"),
    ):
        given: Any = function
        made: Tool[..., Any] = Tool(given)
        assert made.name == name
        parameter = next(iter(made.parameters["properties"]))
        assert (await made.answer(at(arguments={parameter: "Ann"}))).result == expected


async def test_synchronous_functions_do_not_block_the_loop() -> None:
    loop, entered, leave = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def wait() -> str:
        loop.call_soon_threadsafe(entered.set)
        assert leave.wait(10)
        return threading.current_thread().name

    running = asyncio.ensure_future(Tool(wait).answer(at()))
    await asyncio.wait_for(entered.wait(), 10)
    leave.set()
    assert (await running).result != threading.current_thread().name


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("text", "text"),
        (None, None),
        (5, 5),
        ({"a": (1, 2.5)}, {"a": [1, 2.5]}),
        ({1: True}, {"1": True}),
        (datetime.date(2026, 1, 2), "2026-01-02"),
        (Place("Rome"), {"city": "Rome", "near": None}),
        (Unit.F, "fahrenheit"),
        ([], []),
    ],
)
async def test_results(value: Any, expected: Any) -> None:
    def give() -> Any:
        return value

    assert await Tool(give).answer(at()) == ToolResultContent("call", expected)


async def test_results_of_other_libraries() -> None:
    class Model:
        def model_dump(self, mode: str) -> dict[str, Any]:
            return {"mode": mode}

    def give() -> Any:
        return [Model()]

    assert (await Tool(give).answer(at())).result == [{"mode": "json"}]


async def test_content_parts_as_results() -> None:
    picture = DataContent(b"x", "image/png")

    def draw(many: bool) -> Any:
        return ["ignored"] and ([TextContent("Here:"), picture] if many else picture)

    assert (await Tool(draw).answer(at(arguments={"many": False}))).contents == (picture,)
    assert len((await Tool(draw).answer(at(arguments={"many": True}))).contents) == 2


def nested(levels: int) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (Custom(), "JSON cannot hold"),
        (float("nan"), "must be a finite number, got nan"),
        ({"a": [object()]}, "JSON cannot hold"),
        (nested(200), "must be nested at most 100 levels deep"),
        (nested(99), "must be nested at most 97 levels deep"),
    ],
)
async def test_results_that_json_cannot_hold(value: Any, words: str) -> None:
    def give() -> Any:
        return value

    result = await Tool(give).answer(at())
    assert result.is_error
    assert words in result.result_text()


@pytest.mark.parametrize("error", [ValueError("no such city"), StopIteration("x"), KeyError()])
async def test_errors_are_told_to_the_model(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise error

    async def fail_later() -> None:
        raise error

    with caplog.at_level(logging.DEBUG):
        for function in (fail, fail_later):
            result = await asyncio.wait_for(Tool(function).answer(at()), 10)
            assert result.is_error
    if not isinstance(error, StopIteration):  # Python makes a RuntimeError of that
        assert result.result == (f"ValueError: {error}" if str(error) else "KeyError")
    assert "no such city" not in caplog.text
    assert type(error).__name__ in caplog.text or "RuntimeError" in caplog.text


async def test_cancellation_is_not_an_error_of_the_tool() -> None:
    async def cancelled() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await Tool(cancelled).answer(at())


async def test_the_decorator() -> None:
    @tool
    def one(a: int) -> int:
        """First."""
        return a + 1

    @tool(name="zwei", description="Two.\n\nReally.")
    async def two(a: int) -> int:
        return a + 2

    assert (one(1), await two(1)) == (2, 3)
    assert (one.name, one.description, one.__doc__, repr(one)) == ("one", "First.", "First.", "Tool('one')")
    assert (two.name, two.description) == ("zwei", "Two.\n\nReally.")
    assert await one.invoke({"a": 1}) == 2
    with pytest.raises(ArgumentError):
        await one.invoke({"a": "x"})


def generate() -> Any:
    yield 1


def star(*args: int) -> None: ...


def double_star(**kwargs: int) -> None: ...


def custom(a: int, b: Custom) -> None: ...


def unresolved(a: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: Tool(lambda: 1), ArgumentError, "name=.*'<lambda>'"),
        (lambda: Tool(star, name="a b"), ArgumentError, "'a b'"),
        (lambda: Tool(star, name="a" * 65), ArgumentError, "1 to 64"),
        (lambda: Tool(star, name=5), ArgumentTypeError, "got int"),  # type: ignore[arg-type]
        (lambda: Tool(5), ArgumentTypeError, "got int"),  # type: ignore[arg-type]
        (lambda: Tool(generate), ArgumentTypeError, "generator"),
        (lambda: Tool(star), ArgumentError, r"\*args"),
        (lambda: Tool(double_star), ArgumentError, r"\*\*kwargs"),
        (lambda: Tool(custom), ArgumentTypeError, r"'b' of the tool 'custom'.*Custom"),
        (lambda: Tool(unresolved), ArgumentError, "Missing"),
        (lambda: Tool(iter), ArgumentTypeError, "signature"),
        (lambda: tools_by_name([star]), ArgumentError, r"\*args"),
        (lambda: tools_by_name("ab"), ArgumentTypeError, "got str"),  # type: ignore[arg-type]
        (lambda: tools_by_name(5), ArgumentTypeError, "got int"),  # type: ignore[arg-type]
        (lambda: tools_by_name([weather, Tool(weather)]), ArgumentError, "two tools have the name 'weather'"),
    ],
)
def test_what_is_no_tool(make: Callable[[], Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        make()


def test_toolboxes() -> None:
    made: Tool[..., Any] = Tool(weather, name="other")
    assert list(tools_by_name([weather, made])) == ["weather", "other"]
    assert tools_by_name(made) == {"other": made}
    assert list(tools_by_name(weather)) == ["weather"]
    assert tools_by_name(None) == tools_by_name(()) == {}
