"""Export and import of threads as JSON Lines: one JSON object a line, in UTF-8, in the order of writing.

A thread is a header line, a line for each of its messages, and an end line; threads follow one another::

    {"type":"agent_stores.export","version":1,"thread_id":"user 7","tenant":null,"metadata":{"title":"Tea"}}
    {"thread_id":"user 7","message":{"v":1,"role":"user","contents":[...],"message_id":"a1","created_at":...}}
    {"thread_id":"user 7","message":{"v":1,"role":"assistant","contents":[...],"message_id":"a2",...}}
    {"type":"agent_stores.export.end","thread_id":"user 7","messages":2}

- ``message`` is the stored message's own document (docs/message-format.md), with its id, its time and whether
  it is pinned; the order of the lines is that of the thread. So an export that is imported elsewhere and
  exported there is the same file again.
- ``metadata`` is the thread's metadata; it is missing where there is none. An import adds the keys that the
  thread does not have, when its messages are added.
- Positions are not in it, for a store numbers what it is given; nor is the time-to-live, which belongs to the
  store.
- The end line tells a complete file from one that was cut short. Both sides hold one page or batch at a time.
- ``version`` is raised when the meaning changes. A reader leaves aside fields that it does not know.

Importing adds a message only where its id is not in the thread yet, so that the same file can be imported
again, as after an interruption.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import msgspec

from agent_stores import _json
from agent_stores.cli.exit_codes import InputFileError
from agent_stores.errors import ConflictError, MessageFormatError, UnsupportedVersionError
from agent_stores.log import MessageLog
from agent_stores.messages import ChatMessage
from agent_stores.store import ChatMessageStore
from agent_stores.thread_updates import METADATA_BYTES

HEADER_TYPE = "agent_stores.export"
END_TYPE = "agent_stores.export.end"
VERSION = 1

_BATCH_BYTES = 8_000_000  # a batch of long messages is written before it is full
_SHOWN = 40  # characters of a malformed line in an error
_LINE_DEPTH = _json.MAX_DEPTH + 1  # a line wraps a message

_CONTROLS = re.compile(rb"\x7f|\xc2[\x80-\x9f]|\xe2\x80[\xa8-\xae]|\xe2\x81[\xa6-\xa9]")

_decoder = msgspec.json.Decoder(Any)


async def export_thread(store: ChatMessageStore[ChatMessage]) -> AsyncIterator[bytes]:
    """The lines of a thread, each with its line end; what is written to it meanwhile is left out.

    Raises:
        CorruptMessageError: when a message cannot be read, unless the store skips such messages.
    """
    stats = await store.stats()
    name, end = store.thread_id, stats.last_position
    header = {"type": HEADER_TYPE, "version": VERSION, "thread_id": name, "tenant": store.tenant}
    yield _line({**header, "metadata": stats.metadata} if stats.metadata else header)
    count = 0
    async for stored in store.iter_messages(before=end + 1):
        yield _line({"thread_id": name, "message": stored.message.to_dict()})
        count += 1
    yield _line({"type": END_TYPE, "thread_id": name, "messages": count})


class Header(NamedTuple):
    """A header line: a thread begins."""

    thread_id: str
    tenant: str | None
    metadata: dict[str, Any]


class End(NamedTuple):
    """An end line: the thread is complete."""

    messages: int


class Line(NamedTuple):
    """A line of an export, read and checked.

    Attributes:
        number: from 1 up.
        size: its bytes.
        item: what it says.
    """

    number: int
    size: int
    item: Header | ChatMessage | End


def read_export(lines: Iterable[bytes]) -> Iterator[Line]:
    """Read and check an export, line by line; empty lines are skipped.

    Raises:
        InputFileError: at the first line that is malformed or out of place, or at an end that comes too soon.
    """
    thread: str | None = None
    count = 0
    for number, raw in enumerate(lines, 1):
        text = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
        if not text.strip():
            continue
        try:
            item = _read(text, thread)
        except (MessageFormatError, UnsupportedVersionError, _LineError) as error:
            raise InputFileError(f"line {number}: {error}", line=number) from None
        if isinstance(item, Header):
            thread, count = item.thread_id, 0
        elif isinstance(item, End):
            if item.messages != count:
                raise InputFileError(
                    f"line {number}: the thread {thread!r} ends after {count} messages, "
                    f"and {item.messages} were exported",
                    line=number,
                )
            thread = None
        else:
            count += 1
        yield Line(number, len(raw), item)
    if thread is not None:
        raise InputFileError(f"the file is cut short: the thread {thread!r} has no end line")


@dataclass
class ImportReport:
    """What an import did so far.

    Attributes:
        threads: threads begun.
        messages: messages that were read and are in the store now.
        added: those of them that were not in the store before.
    """

    threads: int = 0
    messages: int = 0
    added: int = 0


async def import_threads(
    log: MessageLog,
    lines: Iterable[bytes],
    *,
    tenant: str | None = None,
    batch: int = 500,
    report: ImportReport | None = None,
    progress: Callable[[int], None] = lambda size: None,
) -> ImportReport:
    """Import an export into a log, in batches that are added whole or not at all.

    A thread without messages and metadata is not made.

    Args:
        log: where the threads go.
        lines: those of the file, as bytes.
        tenant: whose the threads will be; by default as the file says.
        batch: how many messages are added at once, at most.
        report: brought up to date after each batch, so that it tells how far a failed import came.
        progress: called with the bytes of each line.

    Raises:
        InputFileError: when the file is malformed; the batch that the line belongs to is not added.
        StoreError: as `ChatMessageStore.add_messages` raises.
    """
    report = report or ImportReport()
    target: _Target | None = None
    for line in read_export(lines):
        if isinstance(line.item, Header):
            whose = line.item.tenant if tenant is None else tenant
            store = ChatMessageStore(log, thread_id=line.item.thread_id, tenant=whose)
            target = _Target(store, line.item.metadata, report)
            report.threads += 1
        elif target is None:
            raise AssertionError("read_export yields a header before anything else")
        elif isinstance(line.item, ChatMessage):
            if target.is_full(batch):
                await target.write()
            target.take(line.item, line.size)
        else:
            await target.write()
            await target.add_metadata()
        progress(line.size)
    return report


class _Target:
    """The thread that is being imported, with the messages that wait to be added."""

    def __init__(
        self, store: ChatMessageStore[ChatMessage], metadata: dict[str, Any], report: ImportReport
    ) -> None:
        self._store = store
        self._metadata = metadata
        self._report = report
        self._waiting: list[ChatMessage] = []
        self._size = 0
        self._position: int | None = None

    def is_full(self, batch: int) -> bool:
        return len(self._waiting) >= batch or self._size >= _BATCH_BYTES

    def take(self, message: ChatMessage, size: int) -> None:
        self._waiting.append(message)
        self._size += size

    async def add_metadata(self) -> None:
        """Add the keys that the thread does not have."""
        while self._metadata:
            stats = await self._store.stats()
            missing = {key: self._metadata[key] for key in self._metadata if key not in stats.metadata}
            if not missing:
                return
            with contextlib.suppress(ConflictError):
                await self._store.update_metadata(missing, expected_revision=stats.revision)
                return

    async def write(self) -> None:
        waiting, self._waiting, self._size = self._waiting, [], 0
        if not waiting:
            return
        if self._position is None:
            self._position = (await self._store.stats()).last_position
        await self._store.add_messages(waiting)
        position = (await self._store.stats()).last_position
        self._report.added += position - self._position
        self._position = position
        self._report.messages += len(waiting)


class _LineError(Exception):
    """What is wrong with a line."""


def _read(text: bytes, thread: str | None) -> Header | ChatMessage | End:
    """Read a line.

    Args:
        text: the line.
        thread: the thread that it belongs to, or None before a header.
    """
    if _json.is_too_deep(text, _LINE_DEPTH):
        raise _LineError(f"a line must be nested at most {_LINE_DEPTH} levels deep")
    try:
        data = _json.decode(text, _decoder, Any)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        start = text[:_SHOWN].decode(errors="replace").strip()
        raise _LineError(f"not a JSON document ({error}): {start!r}") from None
    if not isinstance(data, dict):
        raise _LineError("not a JSON object")
    kind = data.get("type")
    if kind == HEADER_TYPE:
        if thread is not None:
            raise _LineError(f"a header before the end line of the thread {thread!r}")
        return _header(data)
    if thread is None:
        raise _LineError(f"not in a thread; a header line comes first, of the type {HEADER_TYPE!r}")
    named = data.get("thread_id", thread)
    if named != thread:
        raise _LineError(f"thread_id: {named!r}, within the thread {thread!r}")
    if kind == END_TYPE:
        count = data.get("messages")
        if type(count) is not int:
            raise _LineError("messages: missing from the end line, or not a number")
        return End(count)
    if "message" not in data:
        raise _LineError("neither a header, a message nor an end line")
    return _message(data["message"])


def _header(data: dict[str, Any]) -> Header:
    version = data.get("version")
    if type(version) is not int or version < 1:
        raise _LineError(f"version: expected a version number, got {version!r}")
    if version > VERSION:
        raise _LineError(
            f"the export is of version {version}; this version of agent-stores reads up to {VERSION}"
        )
    for name, optional in (("thread_id", False), ("tenant", True)):
        value = data.get(name)
        if not (isinstance(value, str) and value) and not (optional and value is None):
            raise _LineError(f"{name}: expected non-empty text, got {value!r}")
    metadata = data.get("metadata", {})
    if not isinstance(metadata, dict):
        raise _LineError(f"metadata: expected an object, got {type(metadata).__name__}")
    if len(_json.encode(metadata)) > METADATA_BYTES:
        raise _LineError(f"metadata: expected at most {METADATA_BYTES} bytes")
    return Header(cast("str", data["thread_id"]), data.get("tenant"), metadata)


def _message(data: Any) -> ChatMessage:
    try:
        message = ChatMessage.from_dict(data)
    except MessageFormatError as error:
        raise _LineError(f"message: {error}") from None
    if not message.message_id:
        raise _LineError("message: message_id: missing; without it, importing again would add it again")
    return message


def _line(data: dict[str, Any]) -> bytes:
    return escape_controls(_json.encode(data)) + b"\n"


def escape_controls(document: bytes) -> bytes:
    r"""A JSON document with no character that steers a terminal or ends a line: each as ``\u007f``.

    JSON itself demands escapes only below U+0020. These are DEL, the C1 controls, the line separators and the
    characters that change the direction of text.
    """
    return _CONTROLS.sub(lambda found: b"\\u%04x" % ord(found[0].decode()), document)
