"""Messages as JSON documents (docs/message-format.md), version 1.

msgspec decodes documents with only known fields directly into `ChatMessage`. Other documents are read a
second time, field by field, so that nothing is lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast

import msgspec
from msgspec.structs import force_setattr

from agent_stores import _json
from agent_stores._attached import check_inline
from agent_stores._encrypted import check_plain
from agent_stores._part_checks import UNKNOWN_FIELDS, has_unknown_call, known_fields
from agent_stores.contents import (
    CONTENT_TYPES,
    AnyContent,
    ApprovalRequestContent,
    ApprovalResponseContent,
    Content,
    OpaqueContent,
    TextContent,
    ToolResultContent,
)
from agent_stores.errors import ArgumentError, ArgumentTypeError, MessageFormatError, UnsupportedVersionError
from agent_stores.messages import FORMAT_VERSION, ChatMessage

S = TypeVar("S", bound=msgspec.Struct)

_decoder = msgspec.json.Decoder(ChatMessage)
_plain_decoder = msgspec.json.Decoder(Any)


def encode_message(message: ChatMessage) -> bytes:
    """The message's JSON document in UTF-8."""
    return _json.encode(message if _is_plain(message) else message_to_dict(message))


def decode_message(document: bytes | str) -> ChatMessage:
    """The message of a JSON document.

    Raises:
        MessageFormatError: when it is malformed; the error names the field and the position.
        UnsupportedVersionError: when it is of a newer version of the format.
    """
    _check_depth(document)
    return decode_stored(document)


def decode_stored(document: bytes | str) -> ChatMessage:
    """The message of a stored document, which was checked on its way in; raises as `decode_message` does."""
    try:
        return _decoder.decode(document)
    except msgspec.ValidationError:
        pass  # unknown fields or types, or an error, which the second reading names
    except (msgspec.DecodeError, UnicodeError):
        pass  # unpaired surrogates, or not JSON
    except RecursionError:  # the document is nested too deep, or the caller's stack is nearly used up
        _check_depth(document)
        raise
    _check_depth(document)
    check_plain(document)
    check_inline(document)
    try:
        plain = _json.decode(document, _plain_decoder, Any)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise MessageFormatError(f"the message is not a JSON document: {error}") from None
    return message_from_dict(plain)


def decode_messages(documents: Sequence[bytes]) -> list[ChatMessage]:
    """The messages of several stored documents; raises as `decode_message` does."""
    try:
        return list(map(_decoder.decode, documents))
    except (msgspec.DecodeError, UnicodeError, RecursionError):  # `ValidationError` is a `DecodeError`
        return list(map(decode_stored, documents))


def _check_depth(document: bytes | str) -> None:
    if _json.is_too_deep(document):
        raise MessageFormatError(f"the message must be nested at most {_json.MAX_DEPTH} levels deep")


def message_to_dict(message: ChatMessage) -> dict[str, Any]:
    """The message as JSON-ready data."""
    data = cast("dict[str, Any]", msgspec.to_builtins(message))
    if not _is_plain(message):
        if message.contents:
            data["contents"] = [_part_to_dict(part) for part in message.contents]
        _flatten_unknown(data, ChatMessage)
    return data


def message_from_dict(data: Any) -> ChatMessage:
    """The message of JSON-ready data; raises as `decode_message` does."""
    try:
        fields = _mapping(_json.json_value(data, "the message"), "the message")
    except (ArgumentError, ArgumentTypeError) as error:
        raise MessageFormatError(str(error)) from None
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
    if message.unknown_fields:
        return False
    for part in message.contents:
        if (type(part) is not TextContent or part.unknown_fields) and not _is_plain_part(part):
            return False
    return True


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
    _flatten_unknown(data, type(part))
    if isinstance(part, ToolResultContent) and part.contents:
        data["contents"] = [_part_to_dict(inner) for inner in part.contents]
    if isinstance(part, (ApprovalRequestContent, ApprovalResponseContent)) and part.tool_call is not None:
        data["tool_call"] = _part_to_dict(part.tool_call)
    return data


def _flatten_unknown(data: dict[str, Any], kind: type[msgspec.Struct]) -> None:
    """Move unknown fields to the top level; they never replace known ones."""
    unknown = data.pop(UNKNOWN_FIELDS, None)
    if unknown:
        known = known_fields(kind)
        data.update((name, value) for name, value in unknown.items() if name not in known)


def _parts_from_list(value: Any, where: str) -> tuple[AnyContent, ...]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise MessageFormatError(f"{where}: expected an array, got {_json_type(value)}")
    return tuple(_part_from_dict(item, f"{where}[{index}]") for index, item in enumerate(value))


def _part_from_dict(value: Any, where: str) -> AnyContent:
    fields = _mapping(value, where)
    kind = fields.get("type")
    if not isinstance(kind, str) or not kind:
        raise MessageFormatError(f"{where}.type: expected the part's type as text, got {_json_type(kind)}")
    if kind not in CONTENT_TYPES or has_unknown_call(fields):
        return OpaqueContent(fields)
    del fields["type"]
    part_type = CONTENT_TYPES[kind]
    nested: dict[str, Any] = {}
    if part_type is ToolResultContent and "contents" in fields:
        nested["contents"] = _parts_from_list(fields.pop("contents"), f"{where}.contents")
    if "tool_call" in part_type.__struct_fields__ and fields.get("tool_call") is not None:
        nested["tool_call"] = _part_from_dict(fields["tool_call"], f"{where}.tool_call")
        # The struct is read with the call's known fields, which the complete call then replaces.
        fields["tool_call"] = {"type": "tool_call", "call_id": "x", "name": "x"}
    part = _read_struct(part_type, fields, f"{where}.")
    for name, item in nested.items():
        force_setattr(part, name, item)
    return cast("AnyContent", part)


def _read_struct(kind: type[S], fields: dict[str, Any], where: str) -> S:
    """Read a struct, keeping the fields that it does not have."""
    if fields.pop(UNKNOWN_FIELDS, {}) != {}:
        raise MessageFormatError(f"{where}{UNKNOWN_FIELDS}: the name is reserved")
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
    except UnicodeEncodeError:
        name = f"{where}{_find_surrogates(kind, present)}"
        raise MessageFormatError(f"{name}: an unpaired surrogate is not valid here") from None
    if unknown:
        force_setattr(struct, "unknown_fields", unknown)
    return struct


def _find_surrogates(kind: type[msgspec.Struct], values: Mapping[str, Any]) -> str:
    """The name of the field whose text msgspec cannot convert."""
    for field in msgspec.structs.fields(kind):
        try:
            if field.encode_name in values:
                msgspec.convert(values[field.encode_name], field.type)
        except UnicodeEncodeError:
            return field.encode_name
        except msgspec.ValidationError:
            pass
    return "the message"


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
