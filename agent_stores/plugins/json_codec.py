"""`JsonCodec`: the part that codecs of frameworks share whose messages are JSON objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

from agent_stores._json import json_value
from agent_stores.contents import AnyContent, DataContent, OpaqueContent, ReasoningContent, UriContent
from agent_stores.errors import ArgumentTypeError
from agent_stores.messages import ChatMessage, Role
from agent_stores.plugins.framework_data import framework_data
from agent_stores.plugins.json_diff import apply_diff, attach_diff, digest
from agent_stores.plugins.unsupported import UnsupportedWarnings

Data = dict[str, Any]
"""A framework's message, or a part of one, as JSON."""

LeaveOut = Callable[[AnyContent, str], None]
"""Takes a part that a framework is not shown, and the reason."""


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
    """

    data: Data
    exact: bool


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
        no_place: fields of ours that the framework's messages cannot hold: ``author_name``,
            ``<kind>.filename`` of media, ``reasoning.protected_data``.
    """

    def __init__(
        self,
        framework: str,
        title: str,
        read: Callable[[Data], Shape],
        build: Callable[[ChatMessage, Mapping[str, Any], LeaveOut], Data | None],
        no_place: Sequence[str] = (),
    ) -> None:
        self.framework = framework
        self.unsupported = UnsupportedWarnings(title)
        self._read = read
        self._build = build
        self._no_place = frozenset(no_place)

    def encode(
        self,
        data: Mapping[str, Any],
        *,
        message_id: str | None = None,
        kind: str | None = None,
        role: Role = "assistant",
    ) -> ChatMessage:
        """Our message for a framework's.

        Args:
            data: the framework's message.
            message_id: its id in the thread.
            kind: the name of its kind, for one that has no neutral form; by default its ``type``.
            role: the role of a message that has no neutral form.

        Raises:
            ArgumentTypeError: when it is not a JSON object.
            ArgumentError: when it holds a number that JSON cannot.
        """
        if not isinstance(data, Mapping):
            raise ArgumentTypeError(f"a message must be a JSON object, got {type(data).__name__}")
        wanted = cast("Data", json_value(data, "the message"))
        kind = kind or wanted.get("type")
        try:
            message, found = self._read(wanted)
            hints = {"own": True, **found}
            base = self._build(message, hints, _ignore) or {}
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
        if len(message.contents) == 1 and (data := self._opaque(message.contents[0])) is not None:
            return Decoded(data, True)
        hints = framework_data(message, self.framework)

        def leave_out(part: AnyContent, why: str) -> None:
            self.unsupported(part.type, why, message_id=message.message_id)

        base = self._build(message, hints, _ignore if quiet else leave_out)
        if base is None:
            if not hints.get("own"):
                return None
            base = {}
        exact = bool(hints.get("own")) and ("of" not in hints or hints["of"] == digest(base))
        if not (exact or quiet):
            self._tell_fields(message)
        return Decoded(apply_diff(message, self.framework, base), exact)

    def _tell_fields(self, message: ChatMessage) -> None:
        """Say which fields of another framework's message are not shown."""
        present = {"author_name"} if message.author_name is not None else set()
        inner = [part for result in message.tool_results for part in result.contents]
        for part in (*message.contents, *inner):
            if isinstance(part, (DataContent, UriContent)) and part.filename is not None:
                present.add(f"{part.kind}.filename")
            elif isinstance(part, ReasoningContent) and part.protected_data is not None:
                present.add("reasoning.protected_data")
        for name in sorted(present & self._no_place):
            self.unsupported.field(name, "the framework has no field for it", message_id=message.message_id)

    def _opaque(self, part: AnyContent) -> Data | None:
        if isinstance(part, OpaqueContent) and part.type.startswith(f"{self.framework}."):
            data = part.data.get("data")
            return data if isinstance(data, dict) else None
        return None


def _ignore(part: AnyContent, why: str) -> None:
    return None
