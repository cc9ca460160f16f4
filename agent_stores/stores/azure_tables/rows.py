"""Messages as rows, and rows as messages; docs/azure-tables.md describes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace as structs_replace

from agent_stores import _json
from agent_stores.log import Entry, Record
from agent_stores.stores.azure_tables import keys
from agent_stores.stores.azure_tables.heads import Brief, ThreadHead
from agent_stores.stores.azure_tables.text import PROPERTIES, join_text, pieces, split_text
from agent_stores.stores.azure_tables.transactions import sent_bytes

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""The largest message, in bytes of its JSON in UTF-8: some 50 rows at most."""

META = ("RowKey", "meta", *(f"links{number or ''}" for number in range(PROPERTIES)))
"""The properties that say all of a message but its text."""

_ROW_BYTES = 1_000_000  # of a row as it is sent: Azurite counts so, where Azure counts what it stores
_LONGEST_LINK = 64  # characters of a call's id; longer ones are known by their digest
_ONE_ROW = 300_000  # bytes of a document: as it is sent, at most three times that
_FEW_LINKS = 100
_links = msgspec.json.Decoder(tuple[tuple[str, ...], tuple[str, ...]])


class MessageRow(NamedTuple):
    """A message's row, and what did not fit into it.

    Attributes:
        key: the row's key.
        position: the message's place.
        pinned: whether it is pinned.
        cut: whether a cut may fall before it, by its row alone.
        bytes: the size of its document.
        tokens: its tokens.
        created_us: when it was made.
        parts: how many further rows it has.
        tag: what these are told by.
        id_digest: the digest of its id.
        entity: the row itself.
    """

    key: str
    position: int
    pinned: bool
    cut: bool
    bytes: int
    tokens: int
    created_us: int
    parts: int
    tag: str
    id_digest: str
    entity: Any

    @property
    def links(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The ids of its calls, and of those that it answers."""
        if self.entity.get("links") is None:
            return (), ()
        text = join_text("links", self.entity)
        return _json.decode(text.encode(), _links, tuple[tuple[str, ...], tuple[str, ...]])

    @property
    def row_keys(self) -> list[str]:
        """The keys of all its rows."""
        return row_keys(self.key, self.parts, self.tag)

    def brief(self) -> Brief:
        """What trimming needs of it."""
        return Brief(self.position, self.cut, self.bytes, self.tokens, self.id_digest, self.parts, self.tag)


def row_keys(key: str, parts: int, tag: str) -> list[str]:
    """The keys of a message's rows."""
    return [key, *(keys.continuation_row(key, tag, number) for number in range(parts))]


def fits_one_row(record: Record) -> bool:
    """Whether a message surely takes one row."""
    return len(record.body) <= _ONE_ROW and len(record.calls) + len(record.results) <= _FEW_LINKS


def with_short_links(record: Record) -> Record:
    """A record whose links to others are short."""
    if not record.calls and not record.results:
        return record
    return structs_replace(
        record, calls=tuple(map(_short, record.calls)), results=tuple(map(_short, record.results))
    )


def message_entities(
    partition: str, number: int, record: Record, *, cut: bool, id_digest: str, tag: str
) -> list[dict[str, Any]]:
    """The rows of a message.

    Args:
        partition: the thread's partition.
        number: the row's number.
        record: the message.
        cut: whether a cut may fall before it.
        id_digest: the digest of its id.
        tag: what its further rows are to be told by.
    """
    key = keys.message_row(number, pinned=record.pinned)
    links = {}
    if record.calls or record.results:
        links = split_text("links", _json.encode((record.calls, record.results)).decode())
    rows: list[dict[str, Any]] = [{"PartitionKey": partition, "RowKey": key, "meta": "", **links}]
    sent = sum(sent_bytes(name, text) for name, text in links.items())
    held = len(links)
    count = 0
    for piece in pieces(record.body.decode()):
        size = sent_bytes("body00", piece)
        if held == PROPERTIES or (held and sent + size > _ROW_BYTES):
            row_key = keys.continuation_row(key, tag, len(rows) - 1)
            rows.append({"PartitionKey": partition, "RowKey": row_key})
            sent = held = count = 0
        rows[-1][f"body{count or ''}"] = piece
        sent, held, count = sent + size, held + 1, count + 1
    parts = len(rows) - 1
    rows[0]["meta"] = _meta(
        cut, len(record.body), record.tokens, record.created_us, parts, tag if parts else "", id_digest
    )
    return rows


def with_cut(row: MessageRow, cut: bool) -> dict[str, Any]:
    """A message's row with another mark for cuts; all its properties must have been read."""
    entity = {name: value for name, value in row.entity.items() if value is not None}
    entity["meta"] = _meta(cut, row.bytes, row.tokens, row.created_us, row.parts, row.tag, row.id_digest)
    return entity


def unique_entity(partition: str, id_digest: str, row_key: str) -> dict[str, Any]:
    """The row that says which row a message id belongs to."""
    return {"PartitionKey": partition, "RowKey": keys.unique_row(id_digest), "row": row_key}


def read_row(head: ThreadHead, entity: Any) -> MessageRow:
    """A message's row; one that is damaged reads as one without text."""
    key = entity["RowKey"]
    position = keys.message_number(key) - head.offset
    pinned = key[0] == keys.PINNED
    try:
        cut, size, tokens, created, parts, tag, id_digest = entity["meta"].split(",")
        return MessageRow(
            key,
            position,
            pinned,
            cut == "1",
            int(size),
            int(tokens),
            int(created),
            int(parts),
            tag,
            id_digest,
            entity,
        )
    except (KeyError, ValueError, AttributeError):
        return MessageRow(key, position, pinned, True, 0, 0, 0, 0, "", "", entity)


def message_rows(head: ThreadHead, entities: Iterable[Any]) -> list[MessageRow]:
    """The rows of messages that the thread holds, among all that were read; without their further rows."""
    found = []
    for entity in entities:
        key = entity["RowKey"]
        if key[0] not in (keys.PINNED, keys.MESSAGE) or keys.is_continuation(key):
            continue
        if head.holds(keys.message_number(key) - head.offset, pinned=key[0] == keys.PINNED):
            found.append(read_row(head, entity))
    return found


def body_of(row: MessageRow, further: dict[str, Any]) -> bytes:
    """A message's document.

    Args:
        row: the message's row.
        further: rows that were read, by key.
    """
    parts = []
    for key in row.row_keys:
        entity = row.entity if key == row.key else further.get(key)
        try:
            parts.append(join_text("body", entity or {}))
        except (KeyError, TypeError):
            return b""  # unreadable, as the decoder will say
    return "".join(parts).encode("utf-8", "surrogatepass")


def to_entry(head: ThreadHead, row: MessageRow, body: bytes) -> Entry:
    """A message as readers get it."""
    return Entry(row.position, body, row.pinned, head.is_cut(row.position, row.cut))


def loose(rows: Sequence[MessageRow]) -> list[MessageRow]:
    """The messages that are not pinned."""
    return [row for row in rows if not row.pinned]


def _meta(cut: bool, size: int, tokens: int, created_us: int, parts: int, tag: str, id_digest: str) -> str:
    return f"{int(cut)},{size},{tokens},{created_us},{parts},{tag},{id_digest}"


def _short(link: str) -> str:
    return link if len(link) <= _LONGEST_LINK and not link.startswith("~") else f"~{keys.digest(link)}"
