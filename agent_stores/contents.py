"""The parts of a message: immutable, typed.

Every part has a ``type`` in its JSON (docs/message-format.md lists the types with their fields). A part of a
type that this version does not know becomes an `OpaqueContent`, and fields that it does not know are kept in
``unknown_fields``: both are written back as they were read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, cast

import msgspec

from agent_stores import _checks as check
from agent_stores._part_checks import PART_DEPTH, check_depth, has_unknown_call, part_object, part_value
from agent_stores.content_base import Content as Content
from agent_stores.content_base import Name, TokenCount
from agent_stores.errors import ArgumentError, ArgumentTypeError

_optional_text = check.optional(check.text)
_optional_tokens = check.optional(check.token_count)


def _arguments(value: Any, where: str) -> Any:
    return check.text(value, where) if isinstance(value, str) else part_object(value, where)


def _call(value: Any, where: str) -> Any:
    if not isinstance(value, ToolCallContent):
        raise ArgumentTypeError(f"{where} must be a ToolCallContent, got {type(value).__name__}")
    check_depth([value], where, PART_DEPTH - 1)
    return value


def _parts(value: Any, where: str) -> Any:
    parts = content_parts(value, where)
    check_depth(parts, where, PART_DEPTH - 2)
    return parts


def _opaque(value: Any, where: str) -> Any:
    data = check.json_object(value, where, max_depth=PART_DEPTH)
    kind = data.get("type")
    if not isinstance(kind, str) or not kind:
        raise ArgumentError(f"{where}['type'] must be a non-empty str, got {kind!r}")
    if kind in CONTENT_TYPES and not has_unknown_call(data):
        raise ArgumentError(
            f"{where}['type'] must not be a known type, got {kind!r}; use {CONTENT_TYPES[kind].__name__}"
        )
    return data


class TextContent(Content, frozen=True, tag="text", kw_only=False):
    """Text.

    Attributes:
        text: any Unicode text, the empty text included.
    """

    _checks: ClassVar[Mapping[str, check.Check]] = {"text": check.text}

    text: str


class ReasoningContent(Content, frozen=True, tag="reasoning", kw_only=False):
    """A model's reasoning.

    Attributes:
        text: the reasoning or its summary; empty when the provider does not show it.
        protected_data: the provider's signed or encrypted form, to be returned to it unchanged.
    """

    _checks: ClassVar[Mapping[str, check.Check]] = {"text": check.text, "protected_data": _optional_text}

    text: str = ""
    protected_data: str | None = None


MediaKind = Literal["image", "audio", "video", "text", "file"]


def _media_kind(media_type: str | None) -> MediaKind:
    top = (media_type or "").partition("/")[0].lower()
    return cast("MediaKind", top) if top in {"image", "audio", "video", "text"} else "file"


class DataContent(Content, frozen=True, tag="data", kw_only=False):
    """An image, a recording or another file, by its bytes (Base64 in JSON).

    Attributes:
        data: the bytes.
        media_type: their type, such as ``image/png``.
        filename: the file's name, if it has one.
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
        """The kind of its media type: ``image``, ``audio``, ``video``, ``text``, or ``file`` for others."""
        return _media_kind(self.media_type)

    def __repr__(self) -> str:
        return f"DataContent(<{len(self.data)} bytes>, media_type={self.media_type!r})"


class UriContent(Content, frozen=True, tag="uri", kw_only=False):
    """An image, a recording or another file, by its address.

    Attributes:
        uri: the address; this library does not fetch it.
        media_type: the type of the file, if known.
        filename: the file's name, if it has one.
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
        """The kind of its media type: ``image``, ``audio``, ``video``, ``text``, or ``file`` for others."""
        return _media_kind(self.media_type)


class ToolCallContent(Content, frozen=True, tag="tool_call", kw_only=False):
    """A model's request to call a tool.

    Attributes:
        call_id: identifies the call; its result has the same id. Some models reuse ids in later turns.
        name: the tool's name.
        arguments: the model's arguments: JSON text (which may be malformed), or an object.
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
        """The arguments as an object; empty text means no arguments.

        Raises:
            ArgumentError: when the text is not a JSON object.
        """
        if not isinstance(self.arguments, str):
            return dict(self.arguments)
        if not self.arguments.strip():
            return {}
        try:
            value = json.loads(self.arguments)
        except (ValueError, RecursionError) as error:
            raise ArgumentError(f"arguments of {self.name!r} must be a JSON object: {error}") from None
        if not isinstance(value, dict):
            raise ArgumentError(
                f"arguments of {self.name!r} must be a JSON object, got {type(value).__name__}"
            )
        return value


class ToolResultContent(Content, frozen=True, tag="tool_result", kw_only=False):
    """The result of a tool call.

    Attributes:
        call_id: the id of the call that it answers.
        result: the result as JSON-ready data; text for most tools.
        is_error: whether the tool failed; the result then describes the error.
        contents: further parts of the result, such as an image.
    """

    _checks: ClassVar[Mapping[str, check.Check]] = {
        "call_id": check.name,
        "result": part_value,
        "is_error": check.flag,
        "contents": _parts,
    }

    call_id: Name
    result: Any = None
    is_error: bool = False
    contents: tuple[AnyContent, ...] = ()

    def result_text(self) -> str:
        """The result as text for a model: text as it is, other data as JSON."""
        if isinstance(self.result, str):
            return self.result
        return json.dumps(self.result, ensure_ascii=False)


class ApprovalRequestContent(Content, frozen=True, tag="approval_request", kw_only=False):
    """A tool call that waits for a person's approval.

    Attributes:
        request_id: identifies the request; the response has the same id.
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
        tool_call: the call, if the framework repeats it.
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
        message: the error's text.
        code: the provider's or tool's error code.
        details: further information.
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
    """The tokens that a model call used.

    Attributes:
        input_tokens: tokens sent.
        output_tokens: tokens received.
        total_tokens: their sum, as the provider counts it.
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
        data: the whole part, including its ``type``. It has no additional properties apart from those.
    """

    _checks: ClassVar[Mapping[str, check.Check]] = {"data": _opaque}

    # No length satisfies this: documents of the tag "$opaque" are not decoded into a part without a check.
    data: Annotated[dict[str, Any], msgspec.Meta(min_length=1, max_length=0)]

    def _check(self) -> None:
        super()._check()
        for name in ("additional_properties", "unknown_fields"):
            if getattr(self, name):
                raise ArgumentError(f"OpaqueContent.{name} must be empty: data holds the whole part")

    @property
    def type(self) -> str:
        """The part's own type."""
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
"""The parts that this version knows, by their type in JSON."""


def content_parts(value: object, where: str) -> tuple[AnyContent, ...]:
    """The caller's parts as a tuple; a str becomes a `TextContent`.

    Raises:
        ArgumentTypeError: when it is neither a str, a part, nor a sequence of these.
    """
    if isinstance(value, str):
        return (TextContent(value),)
    if isinstance(value, Content):
        return (cast("AnyContent", value),)
    if not isinstance(value, (list, tuple)) and (
        not isinstance(value, Sequence) or isinstance(value, (bytes, bytearray))
    ):
        raise ArgumentTypeError(
            f"{where} must be a str, a content part or a sequence of these, got {type(value).__name__}"
        )
    parts: list[AnyContent] = []
    for index, item in enumerate(value):
        if isinstance(item, str):
            parts.append(TextContent(item))
        elif isinstance(item, Content):
            parts.append(cast("AnyContent", item))
        else:
            raise ArgumentTypeError(
                f"{where}[{index}] must be a str or a content part, got {type(item).__name__}"
            )
    return tuple(parts)
