"""`load_attachment`: the data of attachments that a store with ``lazy=True`` left where they are."""

from __future__ import annotations

from typing import Any

from agent_stores._attached import ADDRESS
from agent_stores.contents import DataContent, UriContent
from agent_stores.errors import ArgumentError, ArgumentTypeError, AttachmentError
from agent_stores.store import ChatMessageStore


async def load_attachment(store: ChatMessageStore[Any], part: UriContent) -> DataContent:
    """The data for a part of a message that was read lazily.

    An address is of use only to the tenant whose thread has the attachment, whatever it says.

    Args:
        store: a store of the same tenant, with ``attachments=``.
        part: of a message; its `uri` begins with ``attachment:``.

    Raises:
        ArgumentError, ArgumentTypeError: for a part that is no attachment, or a store without attachments.
        AttachmentError: when it does not exist, was changed, or the file system fails.
    """
    if not isinstance(part, UriContent):
        raise ArgumentTypeError(f"part must be a UriContent, got {type(part).__name__}")
    if not ADDRESS.fullmatch(part.uri):
        raise ArgumentError(f"part.uri must be the address of an attachment, got {part.uri[:100]!r}")
    read = getattr(store.log.backend, "read_attachment", None)
    if read is None:
        raise ArgumentError("store must have attachments=, got one without")
    data: bytes = await read(store.tenant, part.uri)
    if part.media_type is None:
        raise AttachmentError("part has no media_type, as every attachment has")
    return DataContent(
        data,
        part.media_type,
        part.filename,
        additional_properties=part.additional_properties,
        unknown_fields=part.unknown_fields,
    )
