"""The rules by which the test model answers: pure functions of the request that it is sent.

Nothing is remembered between requests, so an answer that uses an earlier turn proves that the turn was in the
request. Each rule takes a `Prompt` and returns a `Reply`, or `None` to leave the prompt to the next rule;
`RULES` lists them, first match wins. To teach the model something else, write a rule and put it in front:
`ModelServer(rules=[my_rule, *RULES])`. `internal_prompts` has those for programs that use a model.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, cast

__all__ = ["RULES", "Prompt", "Reply", "Rule", "ToolCall", "answer", "embed", "names_stated", "text_of"]


@dataclass(frozen=True)
class ToolCall:
    """A tool that the model wants called, with its arguments as JSON text."""

    name: str
    arguments: str


@dataclass(frozen=True)
class Reply:
    """What the model says: a text, or calls of tools."""

    text: str | None = None
    calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True)
class Prompt:
    """A chat-completions request, as a rule reads it."""

    request: Mapping[str, Any]

    @cached_property
    def messages(self) -> list[Mapping[str, Any]]:
        """The messages of the request."""
        return list(self.request.get("messages") or ())

    @cached_property
    def tools(self) -> dict[str, Mapping[str, Any]]:
        """The functions on offer, by name, each with the JSON schema of its parameters."""
        if self.request.get("tool_choice") == "none":
            return {}
        functions = [
            tool["function"] for tool in self.request.get("tools") or () if tool["type"] == "function"
        ]
        return {function["name"]: function.get("parameters") or {} for function in functions}

    def texts(self, *roles: str) -> list[str]:
        """Return the texts of the messages with one of these roles, oldest first; without roles, all."""
        return [text_of(message) for message in self.messages if not roles or message["role"] in roles]

    @property
    def question(self) -> str:
        """The text of the last user message, or an empty one."""
        return (self.texts("user") or [""])[-1]

    def tool_named(self, word: str) -> str | None:
        """Return the first tool on offer that has `word` in its name, in any case."""
        return next((name for name in self.tools if word in name.lower()), None)


Rule = Callable[[Prompt], "Reply | None"]


def text_of(message: Mapping[str, Any]) -> str:
    """Return the text of a message, whose content may be a string, a list of parts or null."""
    content = message.get("content")
    if isinstance(content, list):
        parts = cast("list[Mapping[str, Any]]", content)
        return "\n".join(part["text"] for part in parts if part.get("type") == "text")
    return content or ""


def answer(request: Mapping[str, Any], rules: Sequence[Rule] | None = None) -> Reply:
    """Answer a request by the first of `rules` that has something to say."""
    prompt = Prompt(request)
    for rule in RULES if rules is None else rules:
        reply = rule(prompt)
        if reply is not None:
            return reply
    return echo(prompt)


def embed(text: str, dimensions: int) -> list[float]:
    """Place a text so that texts with words, or parts of words, in common are near: a hashed bag of both."""
    weights = [0.0] * dimensions
    for word in re.findall(r"\w+", text.lower()) or [text]:
        padded = f" {word} "
        trigrams = [padded[start : start + 3] for start in range(len(padded) - 2)]
        for feature, weight in [(padded, 1.0), *((trigram, 0.5 / len(trigrams)) for trigram in trigrams)]:
            digest = hashlib.blake2b(feature.encode(errors="surrogatepass"), digest_size=8).digest()
            weights[int.from_bytes(digest[:7], "big") % dimensions] += weight if digest[7] & 1 else -weight
    length = math.hypot(*weights)
    return [weight / length for weight in weights] if length else [1.0, *weights[1:]]


def report_tool_results(prompt: Prompt) -> Reply | None:
    """After tool results, repeat them."""
    results: list[str] = []
    for message in reversed(prompt.messages):
        if message["role"] != "tool":
            break
        results.insert(0, text_of(message))
    return Reply(f"The tool says: {'; '.join(results)}") if results else None


def repeat_text(prompt: Prompt) -> Reply | None:
    """`repeat: TEXT` is answered with TEXT."""
    match = re.match(r"\s*repeat:\s*(.*)", prompt.question, re.IGNORECASE | re.DOTALL)
    return Reply(match[1]) if match else None


def use_named_tools(prompt: Prompt) -> Reply | None:
    """`use the tool NAME with {json}` calls the tool so; several in one message are called in parallel."""
    calls: list[ToolCall] = []
    for match in re.finditer(r"\buse the tool ([\w-]+) with\s+(?={)", prompt.question, re.IGNORECASE):
        try:
            _, end = json.JSONDecoder().raw_decode(prompt.question, match.end())
        except ValueError:
            continue
        if match[1] in prompt.tools:
            calls.append(ToolCall(match[1], prompt.question[match.end() : end]))
    return _call(prompt, calls)


def summarise(prompt: Prompt) -> Reply | None:
    """Asked to summarise, by the user or by the system prompt, give the first words of each user message."""
    asked_by = [prompt.question, *prompt.texts("system", "developer")[-1:]]
    if not any(re.search(r"summari[sz]e", text, re.IGNORECASE) for text in asked_by):
        return None
    heads = [" ".join(text.split()[:8]) for text in prompt.texts("user")]
    return Reply(f"Summary: {' | '.join(heads)}")


def count_messages(prompt: Prompt) -> Reply | None:
    """`how many messages` is answered with the number of messages in the request."""
    if "how many messages" not in prompt.question.lower():
        return None
    return Reply(f"I was sent {len(prompt.messages)} messages.")


def quote_first(prompt: Prompt) -> Reply | None:
    """`What did I say first?` is answered with the oldest user message in the request."""
    if "what did i say first" not in prompt.question.lower():
        return None
    return Reply(f'You first said: "{prompt.texts("user")[0]}"')


_ASKS_TIME = re.compile(r"\b(?:what|the|current|local) time\b", re.IGNORECASE)


def tell_time(prompt: Prompt) -> Reply | None:
    """Asked for the time, call a tool that has `time` in its name, if one is on offer."""
    tool = prompt.tool_named("time")
    if tool is None or not _ASKS_TIME.search(prompt.question):
        return None
    return _call(prompt, [ToolCall(tool, json.dumps(_example(prompt.tools[tool])))])


def tell_weather(prompt: Prompt) -> Reply | None:
    """Asked for the weather `in A and B`, call a tool that has `weather` in its name, once for each city."""
    tool = prompt.tool_named("weather")
    if tool is None or "weather" not in prompt.question.lower():
        return None
    schema = prompt.tools[tool]
    arguments = _example(schema)
    key = next(iter([*arguments, *schema.get("properties", ())]), "city")
    match = re.search(r"\bin\s+([^?.!\n]+)", prompt.question, re.IGNORECASE)
    text = re.sub(r"(?i)\s+(?:today|tomorrow|now|right now)\s*$", "", match[1]) if match else ""
    cities = [city.strip() for city in re.split(r",\s*and\s+|,|\s+and\s+", text) if city.strip()]
    sets = [{**arguments, key: city} for city in cities] or [arguments]
    return _call(prompt, [ToolCall(tool, json.dumps(values, ensure_ascii=False)) for values in sets])


_ASKS_NAME = re.compile(
    r"\bwhat(?:['\u2019]?s| is| was) my name\b|\bwhat my name is\b|\bwho am i\b|"
    r"\b(?:know|remember) my name\b",
    re.IGNORECASE,
)
_STATES_NAME = re.compile(
    r"\b(?:my name is|my name['\u2019]s|i am called|i['\u2019]m called|call me)\s+", re.IGNORECASE
)
_MEMORY_OF_NAME = re.compile(
    r"(?:^|[.;:,*>•(\"-])\s*name is\s+|\buser(?:['\u2019]?s)? name is\s+|\buser is (?:named|called)\s+",
    re.IGNORECASE | re.MULTILINE,
)
_NOT_NAMES = re.compile(
    r"a|an|the|i|i['\u2019]m|not|no|when|if|later|back|at|on|in|now|today|tomorrow|again|what|unknown",
    re.IGNORECASE,
)
_PUNCTUATION = ".,;:!?()[]*`'\"\u2018\u2019\u201c\u201d"


def recall_name(prompt: Prompt) -> Reply | None:
    """Asked for the user's name, find it in what the user said, or else in remembered facts."""
    if not _ASKS_NAME.search(prompt.question):
        return None
    sources = (
        (_STATES_NAME, prompt.texts("user")),
        (_MEMORY_OF_NAME, prompt.texts()),
        (_STATES_NAME, prompt.texts("system", "developer")),
    )
    for pattern, texts in sources:
        for text in reversed(texts):
            if names := list(_names(pattern, text)):
                return Reply(f"Your name is {names[-1]}.")
    return Reply("I don't know your name yet.")


def names_stated(text: str) -> list[str]:
    """The names that a speaker gives as their own, in order."""
    return list(_names(_STATES_NAME, text))


def greet(prompt: Prompt) -> Reply | None:
    """Told the user's name, greet the user by it."""
    names = names_stated(prompt.question)
    return Reply(f"Nice to meet you, {names[-1]}!") if names else None


def echo(prompt: Prompt) -> Reply:
    """Anything else: repeat what the user said."""
    return Reply(f"You said: {prompt.question}")


RULES: Final[tuple[Rule, ...]] = (
    report_tool_results,
    repeat_text,
    use_named_tools,
    summarise,
    count_messages,
    quote_first,
    tell_time,
    tell_weather,
    recall_name,
    greet,
    echo,
)
"""The rules of the model, in the order in which they are tried."""


def _call(prompt: Prompt, calls: Sequence[ToolCall]) -> Reply | None:
    """Make a reply of tool calls; only the first of them where the request forbids parallel calls."""
    if not calls:
        return None
    return Reply(calls=tuple(calls[:1] if prompt.request.get("parallel_tool_calls") is False else calls))


def _names(pattern: re.Pattern[str], text: str) -> Iterator[str]:
    """Yield the name after each match of `pattern`: one word, and the capitalised words that follow it."""
    for match in pattern.finditer(text):
        name: list[str] = []
        for word in re.findall(r"\S+", text[match.end() :].split("\n", 1)[0]):
            bare = word.strip(_PUNCTUATION)
            if not bare or _NOT_NAMES.fullmatch(bare) or (name and not bare[0].isupper()):
                break
            name.append(bare)
            if not word.endswith(bare):
                break
        if name:
            yield " ".join(name)


def _example(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Make arguments for a tool: a value for each property that its schema requires."""
    properties: Mapping[str, Any] = schema.get("properties", {})
    return {
        name: _example_value(name, properties.get(name, {}), schema.get("$defs", {}))
        for name in schema.get("required", ())
    }


def _example_value(name: str, schema: Mapping[str, Any], defs: Mapping[str, Any]) -> Any:
    """Make a value that fits a property's JSON schema."""
    if "$ref" in schema:
        schema = defs.get(schema["$ref"].rsplit("/", 1)[-1], {})
    for key in ("anyOf", "oneOf"):
        if schema.get(key):
            return _example_value(name, schema[key][0], defs)
    if schema.get("enum"):
        return schema["enum"][0]
    if "const" in schema or "default" in schema:
        return schema.get("const", schema.get("default"))
    kind = schema.get("type", "string")
    if isinstance(kind, list):
        kind = cast("list[str]", kind)[0]
    if kind == "object":
        return _example({"$defs": defs, **schema})
    if kind == "array":
        return [_example_value(name, schema.get("items", {}), defs)]
    if kind == "string":
        return "UTC" if name.lower() in ("timezone", "time_zone", "tz") else "example"
    return {"integer": 1, "number": 1, "boolean": True}.get(kind)
