"""Messages as JSON documents (docs/message-format.md), version 1.

Reading is fast for documents with known fields only: msgspec decodes them straight into `ChatMessage`. A
document that holds more is read a second time, field by field, so that nothing of it is lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast

import msgspec
from msgspec.structs import force_setattr

from agent_stores import _json
from agent_stores.contents import (
    CONTENT_TYPES,
    AnyContent,
    ApprovalRequestContent,
    ApprovalResponseContent,
    Content,
    OpaqueContent,
    ToolCallContent,
    ToolResultContent,
)
from agent_stores.errors import MessageFormatError, UnsupportedVersionError
from agent_stores.messages import FORMAT_VERSION, ChatMessage

S = TypeVar("S", bound=msgspec.Struct)

_decoder = msgspec.json.Decoder(ChatMessage)
_plain_decoder = msgspec.json.Decoder(Any)


def encode_message(message: ChatMessage) -> bytes:
    """The message's JSON document in UTF-8."""
    if _is_plain(message):
        return _json.encode(message)
    return _json.encode(message_to_dict(message))


def decode_message(document: bytes | str) -> ChatMessage:
    """The message of a JSON document.

    Raises:
        MessageFormatError: when it is malformed, naming the field and the position.
        UnsupportedVersionError: when its format has another meaning in a newer version.
    """
    try:
        return _decoder.decode(document)
    except msgspec.ValidationError:
        pass  # unknown fields or types, or a real error: told apart below
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass  # escapes that msgspec does not take, or not JSON at all
    try:
        plain = _json.decode(document, _plain_decoder, Any)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MessageFormatError(f"the message is not a JSON document: {error}") from None
    return message_from_dict(plain)


def decode_messages(documents: Sequence[bytes]) -> list[ChatMessage]:
    """The messages of several documents; raises as `decode_message` does."""
    try:
        return list(map(_decoder.decode, documents))
    except (msgspec.DecodeError, UnicodeDecodeError):  # of which `ValidationError` is one
        return list(map(decode_message, documents))


def message_to_dict(message: ChatMessage) -> dict[str, Any]:
    """The message as JSON-ready data."""
    data = cast("dict[str, Any]", msgspec.to_builtins(message))
    if not _is_plain(message):
        data["contents"] = [_part_to_dict(part) for part in message.contents]
        data.update(data.pop("$unknown", {}))
    return data


def message_from_dict(data: Any) -> ChatMessage:
    """The message of JSON-ready data; raises as `decode_message` does."""
    fields = _mapping(data, "the message")
    version = fields.pop("v", FORMAT_VERSION)
    if type(version) is not int or version < 1:
        raise MessageFormatError(f"v: expected a version number, got {version!r}")
    if version > FORMAT_VERSION:
        raise UnsupportedVersionError(
            f"the message is of format version {version}; "
            f"this version of agent-stores reads up to {FORMAT_VERSION}"
        )
    if "role" not in fields:
        raise MessageFormatError("role: missing from the message")
    parts = _parts_from_list(fields.pop("contents", ()), "contents")
    message = _read_struct(ChatMessage, fields, "")
    if parts:
        force_setattr(message, "contents", parts)
    return message


def _is_plain(message: ChatMessage) -> bool:
    return not message.unknown_fields and all(map(_is_plain_part, message.contents))


def _is_plain_part(part: Content) -> bool:
    if part.unknown_fields or isinstance(part, OpaqueContent):
        return False
    if isinstance(part, ToolResultContent):
        return all(map(_is_plain_part, part.contents))
    if isinstance(part, (ApprovalRequestContent, ApprovalResponseContent)):
        return part.tool_call is None or _is_plain_part(part.tool_call)
    return True


def _part_to_dict(part: Content) -> dict[str, Any]:
    if isinstance(part, OpaqueContent):
        return dict(part.data)
    data = cast("dict[str, Any]", msgspec.to_builtins(part))
    data.update(data.pop("$unknown", {}))
    if isinstance(part, ToolResultContent) and part.contents:
        data["contents"] = [_part_to_dict(inner) for inner in part.contents]
    if isinstance(part, (ApprovalRequestContent, ApprovalResponseContent)) and part.tool_call is not None:
        data["tool_call"] = _part_to_dict(part.tool_call)
    return data


def _parts_from_list(value: Any, where: str) -> tuple[AnyContent, ...]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise MessageFormatError(f"{where}: expected an array, got {_json_type(value)}")
    return tuple(_part_from_dict(item, f"{where}[{index}]") for index, item in enumerate(value))


def _part_from_dict(value: Any, where: str) -> AnyContent:
    fields = _mapping(value, where)
    kind = fields.get("type")
    if not isinstance(kind, str) or not kind:
        raise MessageFormatError(f"{where}.type: expected the part's type as text, got {_json_type(kind)}")
    if kind not in CONTENT_TYPES:
        return OpaqueContent(fields)
    del fields["type"]
    part_type = CONTENT_TYPES[kind]
    nested: dict[str, Any] = {}
    if part_type is ToolResultContent and "contents" in fields:
        nested["contents"] = _parts_from_list(fields.pop("contents"), f"{where}.contents")
    if "tool_call" in part_type.__struct_fields__ and fields.get("tool_call") is not None:
        call = _part_from_dict(fields["tool_call"], f"{where}.tool_call")
        if not isinstance(call, ToolCallContent):  # a kind of call that a newer version knows
            return _opaque({"type": kind, **fields})
        nested["tool_call"] = call
        # The struct is read with the call's known fields, which the complete call then replaces.
        fields["tool_call"] = {"type": "tool_call", "call_id": "x", "name": "x"}
    part = _read_struct(part_type, fields, f"{where}.")
    for name, item in nested.items():
        force_setattr(part, name, item)
    return cast("AnyContent", part)


def _opaque(data: dict[str, Any]) -> OpaqueContent:
    """A part kept as it is, though its type is known."""
    part = OpaqueContent({"type": "unknown"})
    force_setattr(part, "data", data)
    return part


def _read_struct(kind: type[S], fields: dict[str, Any], where: str) -> S:
    """Read a struct, keeping the fields that it does not have."""
    known = set(kind.__struct_encode_fields__)
    unknown = {name: value for name, value in fields.items() if name not in known}
    present = {name: value for name, value in fields.items() if name in known}
    try:
        struct = msgspec.convert(present, kind)
    except msgspec.ValidationError as error:
        reason, _, path = str(error).partition(" - at `$")
        path = path.rstrip("`").lstrip(".")
        name = f"{where}{path}" if path else where.rstrip(".")
        raise MessageFormatError(f"{name or 'the message'}: {reason[:1].lower()}{reason[1:]}") from None
    if unknown:
        force_setattr(struct, "unknown_fields", {**unknown, **getattr(struct, "unknown_fields", {})})
    return struct


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise MessageFormatError(f"{where}: expected an object, got {_json_type(value)}")
    return dict(value)


def _json_type(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "text"
    if isinstance(value, Mapping):
        return "an object"
    return "an array" if isinstance(value, Sequence) else type(value).__name__
