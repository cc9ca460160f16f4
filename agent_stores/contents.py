"""What a message is made of: immutable, typed content parts.

Every part has a ``type`` on the wire (docs/message-format.md lists them with their fields). A part of a type
that this version does not know becomes an `OpaqueContent`, and fields that it does not know are kept in
``unknown_fields``: both are written back as they were read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias, cast

import msgspec
from msgspec.structs import force_setattr

from agent_stores import _checks as check
from agent_stores._json import json_value
from agent_stores.errors import ArgumentError, ArgumentTypeError

# What the constructors check, for documents.
Name = Annotated[str, msgspec.Meta(min_length=1)]
TokenCount = Annotated[int, msgspec.Meta(ge=0)]

_optional_text = check.optional(check.text)
_optional_tokens = check.optional(check.token_count)


def _arguments(value: Any, where: str) -> Any:
    return value if isinstance(value, str) else check.json_object(value, where)


def _call(value: Any, where: str) -> Any:
    if not isinstance(value, ToolCallContent):
        raise ArgumentTypeError(f"{where} is of type {type(value).__name__}; accepted is ToolCallContent")
    return value


def _parts(value: Any, where: str) -> Any:
    return content_parts(value, where)


def _opaque(value: Any, where: str) -> Any:
    data = check.json_object(value, where)
    kind = data.get("type")
    if not isinstance(kind, str) or not kind:
        raise ArgumentError(f"{where} has no 'type'; an opaque part needs one, as text")
    if kind in CONTENT_TYPES:
        raise ArgumentError(f"{where} is of the known type {kind!r}; use {CONTENT_TYPES[kind].__name__}")
    return data


class _CheckedMeta(msgspec.StructMeta):
    """Checks what callers construct; decoding does not come this way, as the decoder has checked it."""

    if not TYPE_CHECKING:

        def __call__(cls, *args: Any, **kwargs: Any) -> Any:
            part = super().__call__(*args, **kwargs)
            part._check()
            return part


class Content(
    msgspec.Struct,
    metaclass=_CheckedMeta,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    repr_omit_defaults=True,
    gc=False,  # it holds JSON data, which has no cycles
):
    """Base of the content parts.

    Attributes:
        additional_properties: JSON-ready data that belongs to the part and has no field of its own.
        unknown_fields: fields that a newer version wrote, written back at the top level of the part.
    """

    _checks: ClassVar[Mapping[str, check.Check]] = {}

    additional_properties: Mapping[str, Any] = {}
    unknown_fields: Mapping[str, Any] = msgspec.field(default_factory=dict, name="$unknown")

    @property
    def type(self) -> str:
        """The part's type name on the wire."""
        return str(self.__struct_config__.tag)

    def __hash__(self) -> int:
        return hash(self.type)

    def _check(self) -> None:
        for name, checked in (*self._checks.items(), *_COMMON_CHECKS):
            given = getattr(self, name)
            kept = checked(given, f"{type(self).__name__}.{name}")
            if kept is not given:
                force_setattr(self, name, kept)


class TextContent(Content, frozen=True, tag="text", kw_only=False):
    """Text.

    Attributes:
        text: any Unicode text, the empty text included.
    """

    _checks: ClassVar[Mapping[str, check.Check]] = {"text": check.text}

    text: str


class ReasoningContent(Content, frozen=True, tag="reasoning", kw_only=False):
    """What a model says that it thought.

    Attributes:
        text: the reasoning or its summary; may be empty when a provider shows none of it.
        protected_data: the provider's signed or encrypted form, to be handed back to it unchanged.
    """

    _checks: ClassVar[Mapping[str, check.Check]] = {"text": check.text, "protected_data": _optional_text}

    text: str = ""
    protected_data: str | None = None


MediaKind = Literal["image", "audio", "video", "text", "file"]


def _media_kind(media_type: str | None) -> MediaKind:
    top = (media_type or "").partition("/")[0].lower()
    return cast("MediaKind", top) if top in {"image", "audio", "video", "text"} else "file"


class DataContent(Content, frozen=True, tag="data", kw_only=False):
    """An image, a file or a recording, by its bytes (Base64 on the wire).

    Attributes:
        data: the bytes.
        media_type: their type, such as ``image/png``.
        filename: the file's name, where it has one.
    """

    _checks: ClassVar[Mapping[str, check.Check]] = {
        "data": check.binary,
        "media_type": check.name,
        "filename": _optional_text,
    }

    data: bytes
    media_type: Name
    filename: str | None = None

    @property
    def kind(self) -> MediaKind:
        """What the media type says that it is: ``image``, ``audio``, ``video``, ``text`` or else ``file``."""
        return _media_kind(self.media_type)

    def __repr__(self) -> str:
        return f"DataContent(<{len(self.data)} bytes>, media_type={self.media_type!r})"


class UriContent(Content, frozen=True, tag="uri", kw_only=False):
    """An image, a file or a recording, by its address.

    Attributes:
        uri: the address; not fetched by this library.
        media_type: the type of what is there, where known.
        filename: the file's name, where it has one.
    """

    _checks: ClassVar[Mapping[str, check.Check]] = {
        "uri": check.name,
        "media_type": _optional_text,
        "filename": _optional_text,
    }

    uri: Name
    media_type: str | None = None
    filename: str | None = None

    @property
    def kind(self) -> MediaKind:
        """What the media type says that it is: ``image``, ``audio``, ``video``, ``text`` or else ``file``."""
        return _media_kind(self.media_type)


class ToolCallContent(Content, frozen=True, tag="tool_call", kw_only=False):
    """A model's request to call a tool.

    Attributes:
        call_id: names the call; its result carries the same id. Some models use an id again in later turns.
        name: the tool's name.
        arguments: as the model gave them: JSON text (which may be malformed), or an object.
    """

    _checks: ClassVar[Mapping[str, check.Check]] = {
        "call_id": check.name,
        "name": check.name,
        "arguments": _arguments,
    }

    call_id: Name
    name: Name
    arguments: str | dict[str, Any] = ""

    def parse_arguments(self) -> dict[str, Any]:
        """The arguments as an object; no text means no arguments.

        Raises:
            ArgumentError: when the text is not a JSON object.
        """
        if not isinstance(self.arguments, str):
            return dict(self.arguments)
        if not self.arguments.strip():
            return {}
        try:
            value = json.loads(self.arguments)
        except ValueError as error:
            raise ArgumentError(f"the arguments of {self.name!r} are not JSON: {error}") from None
        if not isinstance(value, dict):
            raise ArgumentError(f"the arguments of {self.name!r} are not a JSON object")
        return value


class ToolResultContent(Content, frozen=True, tag="tool_result", kw_only=False):
    """What a tool call brought.

    Attributes:
        call_id: the id of the call that it answers.
        result: the result as JSON-ready data; text for most tools.
        is_error: whether the tool failed; the result then says how.
        contents: further parts of the result, such as an image.
    """

    _checks: ClassVar[Mapping[str, check.Check]] = {
        "call_id": check.name,
        "result": json_value,
        "is_error": check.flag,
        "contents": _parts,
    }

    call_id: Name
    result: Any = None
    is_error: bool = False
    contents: tuple[AnyContent, ...] = ()

    def result_text(self) -> str:
        """The result as a model is shown it: text as it is, other data as JSON."""
        if isinstance(self.result, str):
            return self.result
        return json.dumps(self.result, ensure_ascii=False)


class ApprovalRequestContent(Content, frozen=True, tag="approval_request", kw_only=False):
    """A tool call that waits for a person's approval.

    Attributes:
        request_id: names the request; the response carries the same id.
        tool_call: the call to be approved.
    """

    _checks: ClassVar[Mapping[str, check.Check]] = {"request_id": check.name, "tool_call": _call}

    request_id: Name
    tool_call: ToolCallContent


class ApprovalResponseContent(Content, frozen=True, tag="approval_response", kw_only=False):
    """A person's answer to an approval request.

    Attributes:
        request_id: the id of the request that it answers.
        approved: whether the call may be made.
        tool_call: the call, where the framework repeats it.
    """

    _checks: ClassVar[Mapping[str, check.Check]] = {
        "request_id": check.name,
        "approved": check.flag,
        "tool_call": check.optional(_call),
    }

    request_id: Name
    approved: bool
    tool_call: ToolCallContent | None = None


class ErrorContent(Content, frozen=True, tag="error", kw_only=False):
    """An error that belongs to the conversation.

    Attributes:
        message: what went wrong.
        code: the provider's or tool's code for it.
        details: anything further.
    """

    _checks: ClassVar[Mapping[str, check.Check]] = {
        "message": check.text,
        "code": _optional_text,
        "details": _optional_text,
    }

    message: str
    code: str | None = None
    details: str | None = None


class UsageContent(Content, frozen=True, tag="usage", kw_only=False):
    """What a model call consumed, in tokens.

    Attributes:
        input_tokens: tokens sent.
        output_tokens: tokens received.
        total_tokens: both, as the provider counts them.
    """

    _checks: ClassVar[Mapping[str, check.Check]] = {
        "input_tokens": _optional_tokens,
        "output_tokens": _optional_tokens,
        "total_tokens": _optional_tokens,
    }

    input_tokens: TokenCount | None = None
    output_tokens: TokenCount | None = None
    total_tokens: TokenCount | None = None


class OpaqueContent(Content, frozen=True, tag="$opaque", kw_only=False):
    """A part of a type that this version does not know, kept as it is.

    Attributes:
        data: the whole part, its ``type`` included.
    """

    _checks: ClassVar[Mapping[str, check.Check]] = {"data": _opaque}

    data: dict[str, Any]

    @property
    def type(self) -> str:
        """The part's own type name."""
        return str(self.data["type"])


AnyContent: TypeAlias = (
    TextContent
    | ReasoningContent
    | DataContent
    | UriContent
    | ToolCallContent
    | ToolResultContent
    | ApprovalRequestContent
    | ApprovalResponseContent
    | ErrorContent
    | UsageContent
    | OpaqueContent
)
"""Any content part, as the type of a field that holds one."""

CONTENT_TYPES: Mapping[str, type[Content]] = {
    str(kind.__struct_config__.tag): kind
    for kind in (
        TextContent,
        ReasoningContent,
        DataContent,
        UriContent,
        ToolCallContent,
        ToolResultContent,
        ApprovalRequestContent,
        ApprovalResponseContent,
        ErrorContent,
        UsageContent,
    )
}
"""The parts that this version knows, by their type on the wire."""


def content_parts(value: object, where: str) -> tuple[AnyContent, ...]:
    """The parts that a caller gave, as a tuple; text stands for a `TextContent`.

    Raises:
        ArgumentTypeError: when it is neither text, a part, nor a sequence of these.
    """
    if isinstance(value, str):
        return (TextContent(value),)
    if isinstance(value, Content):
        return (cast("AnyContent", value),)
    if not isinstance(value, (list, tuple)) and (
        not isinstance(value, Sequence) or isinstance(value, (bytes, bytearray))
    ):
        raise ArgumentTypeError(
            f"{where} is of type {type(value).__name__}; accepted are text, a content part, "
            "or a sequence of these"
        )
    parts: list[AnyContent] = []
    for index, item in enumerate(value):
        if isinstance(item, str):
            parts.append(TextContent(item))
        elif isinstance(item, Content):
            parts.append(cast("AnyContent", item))
        else:
            raise ArgumentTypeError(
                f"{where}[{index}] is of type {type(item).__name__}; accepted are text and content parts"
            )
    return tuple(parts)


_COMMON_CHECKS: tuple[tuple[str, check.Check], ...] = (
    ("additional_properties", check.json_object),
    ("unknown_fields", check.json_object),
)
