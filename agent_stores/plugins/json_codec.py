"""`JsonCodec`: the part that codecs of frameworks share whose messages are JSON objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

from agent_stores._json import json_value
from agent_stores.contents import (
    AnyContent,
    DataContent,
    ErrorContent,
    OpaqueContent,
    ReasoningContent,
    ToolResultContent,
    UriContent,
)
from agent_stores.errors import ArgumentTypeError
from agent_stores.messages import ChatMessage, Role
from agent_stores.plugins.framework_data import framework_data, without_framework_data
from agent_stores.plugins.json_diff import DIFF_FIELDS, apply_diff, attach_diff, digest, json_equal
from agent_stores.plugins.unsupported import UnsupportedWarnings, error_text, holds
from agent_stores.retention import is_synthesized

Data = dict[str, Any]
"""A framework's message, or a part of one, as JSON."""

LeaveOut = Callable[[AnyContent, str], None]
"""Takes a part that a framework is not shown, and the reason."""

Split = Callable[[ChatMessage], Sequence[Sequence[int]]]
"""Gives the indexes of the parts of each of the framework's messages that a neutral one is shown as."""


class Shape(NamedTuple):
    """The neutral form of a framework's message.

    Attributes:
        message: the neutral form.
        hints: what `build` needs in order to lay the message out as it was; small, and JSON-ready.
    """

    message: ChatMessage
    hints: Data = {}  # noqa: RUF012 - never changed


class Decoded(NamedTuple):
    """A framework's message for a neutral one.

    Attributes:
        data: the message.
        exact: whether this is what the framework wrote; False for messages of others, and for changed ones.
        parts: the indexes of the neutral message's parts that it shows.
    """

    data: Data
    exact: bool
    parts: tuple[int, ...]


class JsonCodec:
    """Converts a framework's messages, which are JSON objects, without loss.

    Args:
        framework: the key of the framework's data in ``additional_properties``.
        title: the framework, as its users call it.
        read: the neutral form of a message; raises `ValueError`, `TypeError`, `LookupError` or
            `AttributeError` for one that has none, which is then kept whole, as an opaque part.
        build: the plainest message of the framework for a neutral form, from its role and contents and the
            hints of `Shape` alone; None when there is nothing to show. The hint ``own`` says that the
            framework itself wrote the message.
        no_place: fields of ours that the framework's messages cannot hold, or not always: ``author_name``,
            ``reasoning.protected_data``, ``tool_result.is_error``. Names of files need not be given.
        split: for a framework that needs several messages for some neutral ones; its own are always one.
            Nothing is kept of a message that follows from its neutral form, so that there is no hint ``own``.
        has_errors: whether the framework has parts for errors; `build` gets text in their place otherwise.
        marks_own: whether the hint ``own`` is kept of a message that follows from its neutral form, too, so
            that `Decoded.exact` tells it from others. By default, where there is no `split`.
    """

    def __init__(
        self,
        framework: str,
        title: str,
        read: Callable[[Data], Shape],
        build: Callable[[ChatMessage, Mapping[str, Any], LeaveOut], Data | None],
        no_place: Sequence[str] = (),
        split: Split | None = None,
        has_errors: bool = False,
        marks_own: bool | None = None,
    ) -> None:
        self.framework = framework
        self.unsupported = UnsupportedWarnings(title)
        self._read = read
        self._build = build
        self._no_place = frozenset(no_place)
        self._split = split
        self._has_errors = has_errors
        self._marks_own = split is None if marks_own is None else marks_own

    def encode(
        self,
        data: Mapping[str, Any],
        *,
        message_id: str | None = None,
        kind: str | None = None,
        role: Role = "assistant",
        what: str = "the message",
    ) -> ChatMessage:
        """Our message for a framework's.

        Args:
            data: the framework's message.
            message_id: its id in the thread.
            kind: the name of its kind, for one that has no neutral form; by default its ``type``.
            role: the role of a message that has no neutral form.
            what: names the message in errors.

        Raises:
            ArgumentTypeError: when it is not a JSON object.
            ArgumentError: when it holds a number that JSON cannot.
        """
        if not isinstance(data, Mapping):
            raise ArgumentTypeError(f"{what} must be a JSON object, got {type(data).__name__}")
        wanted = cast("Data", json_value(data, what))
        kind = kind or wanted.get("type")
        try:
            message, hints = self._read(wanted)
            base = self._build(message, {"own": True, **hints}, ignore) or {}
            if self._marks_own:
                hints = {"own": True, **hints}
            elif self._split is not None and hints and len(self._split(message)) == 1:
                plain = self._build(message, {}, ignore)
                hints = {} if plain is not None and json_equal(plain, base) else hints
        except (ValueError, TypeError, LookupError, AttributeError):
            opaque = {"type": f"{self.framework}.{kind or 'message'}", "data": wanted}
            return ChatMessage(role, contents=[OpaqueContent(opaque)], message_id=message_id)
        if message_id is not None:
            message = message.replace(message_id=message_id)
        return attach_diff(message, self.framework, base, wanted, **hints)

    def decode(self, message: ChatMessage, *, quiet: bool = False) -> Decoded | None:
        """The framework's message for one of ours; None when there is nothing to show.

        Args:
            message: our message.
            quiet: whether to log nothing about the parts that are left out.
        """
        every = tuple(range(len(message.contents)))
        if len(message.contents) == 1 and (data := self._opaque(message.contents[0])) is not None:
            return Decoded(data, True, every)
        kept = framework_data(message, self.framework)
        hints = {name: value for name, value in kept.items() if name not in DIFF_FIELDS}
        if kept and self._split is None:
            hints["own"] = True
        omitted: list[int] = []

        def leave_out(part: AnyContent, why: str) -> None:
            omitted.append(id(part))
            if not quiet:
                self.unsupported(part.type, why, message_id=message.message_id)

        base = self._build(message if self._has_errors else _without_errors(message), hints, leave_out)
        is_own = bool(hints.get("own") or (self._split and kept))
        exact = is_own and ("of" not in kept or kept["of"] == digest(base or {}))
        if base is None and not (hints.get("own") or (exact and "of" in kept)):
            return None
        data = apply_diff(message, self.framework, base or {})
        if not (exact or quiet):
            self._tell_fields(message, data, omitted)
        return Decoded(data, exact, every)

    def decode_all(self, message: ChatMessage) -> list[Decoded]:
        """The framework's messages for one of ours, for a codec with a `split`."""
        runs = [] if self._split is None else self._split(message)
        if len(runs) <= 1:
            found = self.decode(message)
            return [] if found is None else [found]
        return [
            found._replace(parts=tuple(run))
            for run in runs
            if (found := self.decode(self._part(message, run))) is not None
        ]

    def _part(self, message: ChatMessage, run: Sequence[int]) -> ChatMessage:
        """A message of some of the parts, as another framework would have written it."""
        properties = without_framework_data(message.additional_properties, self.framework)
        contents = [message.contents[index] for index in run]
        return message.replace(contents=contents, additional_properties=properties)

    def _tell_fields(self, message: ChatMessage, data: Data, omitted: Sequence[int]) -> None:
        """Say which fields of another framework's message are not shown."""
        found = {"author_name": message.author_name}
        for part in (*message.contents, *(inner for one in message.tool_results for inner in one.contents)):
            if id(part) in omitted:
                continue
            if isinstance(part, (DataContent, UriContent)):
                self.unsupported.filename(part, data, message_id=message.message_id)
            elif isinstance(part, ReasoningContent):
                found["reasoning.protected_data"] = part.protected_data
            elif isinstance(part, ToolResultContent) and part.is_error and not is_synthesized(part):
                found["tool_result.is_error"] = ""
        for name, value in sorted(found.items()):
            if value is not None and name in self._no_place and not (value and holds(data, value)):
                self.unsupported.field(
                    name, "the framework has no field for it", message_id=message.message_id
                )

    def _opaque(self, part: AnyContent) -> Data | None:
        if isinstance(part, OpaqueContent) and part.type.startswith(f"{self.framework}."):
            data = part.data.get("data")
            return data if isinstance(data, dict) else None
        return None


def _without_errors(message: ChatMessage) -> ChatMessage:
    """The message, with errors as the text that frameworks show."""
    if not any(isinstance(part, ErrorContent) for part in message.contents):
        return message
    parts = [error_text(part) if isinstance(part, ErrorContent) else part for part in message.contents]
    return message.replace(contents=parts)


def ignore(part: AnyContent, why: str) -> None:
    """The `LeaveOut` that tells no one."""
