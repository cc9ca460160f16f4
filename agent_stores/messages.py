"""`ChatMessage`: one message of a conversation, neutral between frameworks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast, get_args

import msgspec
from msgspec.structs import force_setattr

from agent_stores import _checks as check
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
"""Who speaks. ``developer`` is what newer models call ``system``."""

ROLES: tuple[str, ...] = get_args(Role)

_PINNABLE = ("system", "developer")

FORMAT_VERSION = 1
"""Version of the JSON format; new fields do not change it, a change of meaning does."""

_SHOWN = 200  # characters of text in a repr


class _MessageMeta(msgspec.StructMeta):
    """Gives `ChatMessage` its constructor; decoding builds the struct directly, without Python code."""

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
                raise ArgumentError(f"role is {role!r}; accepted are {', '.join(ROLES)}")
            if text is not None:
                if not isinstance(text, str):
                    raise ArgumentTypeError(
                        f"text is of type {type(text).__name__}; accepted is str "
                        "(give other parts as contents=)"
                    )
                if contents is not None:
                    raise ArgumentError("text and contents are both given; accepted is one of them")
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
                additional_properties=check.json_object(additional_properties or {}, "additional_properties"),
                unknown_fields=check.json_object(unknown_fields or {}, "unknown_fields"),
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

    ``ChatMessage("user", "Hello")`` and ``ChatMessage(role="user", text="Hello")`` are the same; anything but
    text is given as ``contents=[...]``.

    Args:
        role: ``system``, ``developer``, ``user``, ``assistant`` or ``tool``.
        text: the message's text, for a message of one text part.
        contents: its parts, in order; text stands for a `TextContent`.
        author_name: who wrote it, where several share a role.
        message_id: names the message within its thread; a store gives one to a message that has none.
        created_at: when it was made, with a time zone; kept in UTC. A store fills it in where it is missing.
        pinned: for system and developer messages: trimming and windows always keep it, in front.
        additional_properties: JSON-ready data of the application or framework.
        unknown_fields: fields that a newer version wrote, written back at the top level.

    Raises:
        ArgumentError: for an unknown role, an empty id, a naive time, or both text and contents.
        ArgumentTypeError: for a value of another type, or one that JSON cannot hold.
    """

    role: Role
    contents: tuple[AnyContent, ...] = ()
    author_name: str | None = None
    message_id: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    created_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    pinned: bool = False
    additional_properties: Mapping[str, Any] = {}
    unknown_fields: Mapping[str, Any] = msgspec.field(default_factory=dict, name="$unknown")

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
        """What holds for documents as for callers; decoding comes this way, too."""
        if self.pinned and self.role not in _PINNABLE:
            raise ArgumentError(
                f"pinned is True for the role {self.role!r}; only system and developer messages can be pinned"
            )
        if self.created_at is not None and self.created_at.tzinfo is not timezone.utc:
            force_setattr(self, "created_at", _utc(self.created_at))

    @property
    def text(self) -> str:
        """The text parts, joined; other parts are left out."""
        return "".join(part.text for part in self.contents if isinstance(part, TextContent))

    @property
    def tool_calls(self) -> tuple[ToolCallContent, ...]:
        """The tool calls in it, in order."""
        return tuple(part for part in self.contents if isinstance(part, ToolCallContent))

    @property
    def tool_results(self) -> tuple[ToolResultContent, ...]:
        """The tool results in it, in order."""
        return tuple(part for part in self.contents if isinstance(part, ToolResultContent))

    def replace(self, **changes: Any) -> ChatMessage:
        """A copy with some fields changed; takes the constructor's keywords, and checks them likewise.

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
            parts.append(repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"))
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
            MessageFormatError: when it is malformed, naming the field and the position.
            UnsupportedVersionError: when a newer version wrote it in a format with another meaning.
        """
        from agent_stores.message_format import decode_message

        return decode_message(document)

    def to_dict(self) -> dict[str, Any]:
        """The message as JSON-ready data, with the fields of the JSON document."""
        from agent_stores.message_format import message_to_dict

        return message_to_dict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ChatMessage:
        """Read a message from JSON-ready data; raises as `from_json` does."""
        from agent_stores.message_format import message_from_dict

        return message_from_dict(data)


def _rebuild(*fields: Any) -> ChatMessage:
    """Unpickle a message: field by field, as the struct holds them."""
    names = ChatMessage.__struct_fields__
    return ChatMessage(**cast("dict[str, Any]", dict(zip(names, fields, strict=False))))


def _utc(value: Any) -> datetime:
    if not isinstance(value, datetime):
        raise ArgumentTypeError(
            f"created_at is of type {type(value).__name__}; accepted is datetime with a time zone"
        )
    if value.tzinfo is None or value.utcoffset() is None:
        raise ArgumentError(f"created_at is {value.isoformat()}, without a time zone; give one, such as UTC")
    try:
        found = value.astimezone(timezone.utc)
    except OverflowError:
        raise ArgumentError(f"created_at is {value.isoformat()}, which UTC cannot say") from None
    if type(found) is datetime:
        return found
    # Of a library's own class, which JSON does not take.
    return datetime.combine(found.date(), found.time(), timezone.utc)
