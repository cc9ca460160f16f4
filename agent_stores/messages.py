"""`ChatMessage`: one message of a conversation, neutral between frameworks."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast, get_args

import msgspec
from msgspec.structs import force_setattr

from agent_stores import _checks as check
from agent_stores._json import MAX_DEPTH
from agent_stores._part_checks import UNKNOWN_FIELDS, check_unknown_fields
from agent_stores.content_base import UnknownFields
from agent_stores.contents import (
    AnyContent,
    Content,
    TextContent,
    ToolCallContent,
    ToolResultContent,
    content_parts,
)
from agent_stores.errors import ArgumentError, ArgumentTypeError

Role = Literal["system", "developer", "user", "assistant", "tool"]
"""The author's role. Newer models call ``system`` ``developer``."""

ROLES: tuple[str, ...] = get_args(Role)

_PINNABLE = ("system", "developer")

FORMAT_VERSION = 1
"""Version of the JSON format. New fields do not change it; a change of a field's meaning does."""

_MAX_REPR = 200  # characters of text in a repr


class _MessageMeta(msgspec.StructMeta):
    """The constructor of `ChatMessage`; decoding builds the struct directly, without Python code."""

    if not TYPE_CHECKING:

        def __call__(
            cls,
            role: Role,
            text: str | None = None,
            *,
            contents: str | Content | Sequence[Content | str] | None = None,
            author_name: str | None = None,
            message_id: str | None = None,
            created_at: datetime | None = None,
            pinned: bool = False,
            additional_properties: Mapping[str, Any] | None = None,
            unknown_fields: Mapping[str, Any] | None = None,
        ) -> Any:
            if not isinstance(role, str) or role not in ROLES:
                raise ArgumentError(f"role must be one of {', '.join(ROLES)}, got {reprlib.repr(role)}")
            if text is not None:
                if not isinstance(text, str):
                    raise ArgumentTypeError(
                        f"text must be a str or None, got {type(text).__name__}; other parts go to contents="
                    )
                if contents is not None:
                    raise ArgumentError("text and contents must not be given together")
                contents = text
            if created_at is not None:
                created_at = _utc(created_at)
            check.flag(pinned, "pinned")
            return super().__call__(
                str.__str__(role),
                () if contents is None else content_parts(contents, "contents"),
                author_name=None if author_name is None else check.text(author_name, "author_name"),
                message_id=None if message_id is None else check.name(message_id, "message_id"),
                created_at=created_at,
                pinned=pinned,
                additional_properties={}
                if additional_properties is None
                else check.json_object(
                    additional_properties, "additional_properties", max_depth=MAX_DEPTH - 1
                ),
                unknown_fields={}
                if unknown_fields is None
                else check_unknown_fields(unknown_fields, "unknown_fields", cls, MAX_DEPTH),
            )


class ChatMessage(
    msgspec.Struct,
    metaclass=_MessageMeta,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    tag=FORMAT_VERSION,
    tag_field="v",
    gc=False,  # it holds JSON data, which has no cycles
):
    """One message of a conversation, immutable; equal when all fields are equal.

    ``ChatMessage("user", "Hello")`` and ``ChatMessage(role="user", text="Hello")`` are the same; parts other
    than text are given as ``contents=[...]``. Its JSON is nested at most 100 levels deep.

    Args:
        role: ``system``, ``developer``, ``user``, ``assistant`` or ``tool``.
        text: the message's text, for a message of one text part.
        contents: its parts, in order; a str becomes a `TextContent`.
        author_name: the author's name, if several share a role.
        message_id: identifies the message within its thread; a store assigns one if it is missing.
        created_at: time of creation, with a time zone; kept in UTC. A store sets it if it is missing.
        pinned: for system and developer messages: trims and windows always keep it, before all others.
        additional_properties: JSON-ready data of the application or framework.
        unknown_fields: fields that a newer version wrote, written back at the top level; none may have the
            name of a known field.

    Raises:
        ArgumentError: for an unknown role, an empty id, a time without a time zone, text together with
            contents, a known field among the unknown ones, or data that is nested too deep.
        ArgumentTypeError: for a value of the wrong type, or one that JSON cannot hold.
    """

    role: Role
    contents: tuple[AnyContent, ...] = ()
    author_name: str | None = None
    message_id: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    created_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    pinned: bool = False
    additional_properties: Mapping[str, Any] = {}
    unknown_fields: UnknownFields = msgspec.field(default_factory=dict, name=UNKNOWN_FIELDS)

    if TYPE_CHECKING:

        def __init__(
            self,
            role: Role,
            text: str | None = None,
            *,
            contents: str | Content | Sequence[Content | str] | None = None,
            author_name: str | None = None,
            message_id: str | None = None,
            created_at: datetime | None = None,
            pinned: bool = False,
            additional_properties: Mapping[str, Any] | None = None,
            unknown_fields: Mapping[str, Any] | None = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        """The checks that decoding does, too."""
        if self.pinned and self.role not in _PINNABLE:
            raise ArgumentError(
                f"pinned must be False for a message of role {self.role!r}, got True: "
                "only system and developer messages can be pinned"
            )
        if self.created_at is not None and self.created_at.tzinfo is not timezone.utc:
            force_setattr(self, "created_at", _utc(self.created_at))

    @property
    def text(self) -> str:
        """The text parts, joined, without the other parts."""
        return "".join(part.text for part in self.contents if isinstance(part, TextContent))

    @property
    def tool_calls(self) -> tuple[ToolCallContent, ...]:
        """Its tool calls, in order."""
        return tuple(part for part in self.contents if isinstance(part, ToolCallContent))

    @property
    def tool_results(self) -> tuple[ToolResultContent, ...]:
        """Its tool results, in order."""
        return tuple(part for part in self.contents if isinstance(part, ToolResultContent))

    def replace(self, **changes: Any) -> ChatMessage:
        """A copy with some fields changed; takes the constructor's keywords, and checks them the same way.

        Raises:
            ArgumentError, ArgumentTypeError: as the constructor does.
        """
        if "text" in changes and "contents" not in changes:
            changes["contents"] = changes.pop("text")
        fields = {name: getattr(self, name) for name in self.__struct_fields__}
        return ChatMessage(**{**fields, **changes})

    def __hash__(self) -> int:
        return hash((self.role, self.message_id, self.text))

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, tuple(getattr(self, name) for name in self.__struct_fields__)

    def __repr__(self) -> str:
        parts = [repr(self.role)]
        if len(self.contents) == 1 and isinstance(self.contents[0], TextContent):
            text = self.text
            parts.append(repr(text if len(text) <= _MAX_REPR else f"{text[:_MAX_REPR]}…"))
        elif self.contents:
            parts.append(f"contents={list(self.contents)!r}")
        for name in ("author_name", "message_id"):
            if (value := getattr(self, name)) is not None:
                parts.append(f"{name}={value!r}")
        if self.created_at is not None:
            parts.append(f"created_at={self.created_at.isoformat()}")
        if self.pinned:
            parts.append("pinned=True")
        if self.additional_properties:
            parts.append(f"additional_properties={self.additional_properties!r}")
        if self.unknown_fields:
            parts.append(f"unknown_fields={self.unknown_fields!r}")
        return f"ChatMessage({', '.join(parts)})"

    def to_json(self) -> bytes:
        """The message as a JSON document in UTF-8 (docs/message-format.md)."""
        from agent_stores.message_format import encode_message

        return encode_message(self)

    @classmethod
    def from_json(cls, document: bytes | str) -> ChatMessage:
        """Read a message from its JSON document.

        Raises:
            MessageFormatError: when it is malformed; the error names the field and the position.
            UnsupportedVersionError: when it is of a newer version of the format.
        """
        from agent_stores.message_format import decode_message

        return decode_message(document)

    def to_dict(self) -> dict[str, Any]:
        """The message as JSON-ready data, with the fields of the JSON document."""
        from agent_stores.message_format import message_to_dict

        return message_to_dict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ChatMessage:
        """Read a message from JSON-ready data; raises the errors of `from_json`."""
        from agent_stores.message_format import message_from_dict

        return message_from_dict(data)


def _rebuild(*fields: Any) -> ChatMessage:
    """Unpickle a message from the values of its fields."""
    names = ChatMessage.__struct_fields__
    return ChatMessage(**cast("dict[str, Any]", dict(zip(names, fields, strict=False))))


def _utc(value: Any) -> datetime:
    if not isinstance(value, datetime):
        raise ArgumentTypeError(
            f"created_at must be a datetime with a time zone or None, got {type(value).__name__}"
        )
    if value.tzinfo is None or value.utcoffset() is None:
        raise ArgumentError(f"created_at must have a time zone, such as UTC, got {value.isoformat()}")
    try:
        found = value.astimezone(timezone.utc)
    except OverflowError:
        raise ArgumentError(
            f"created_at must be between the years 1 and 9999 in UTC, got {value.isoformat()}"
        ) from None
    if type(found) is datetime:
        return found
    # A library's subclass, which msgspec does not encode.
    return datetime.combine(found.date(), found.time(), timezone.utc)
