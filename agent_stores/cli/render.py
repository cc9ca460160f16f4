"""How threads and messages are shown to a person: tables, and text that is safe for a terminal."""

from __future__ import annotations

import contextlib
import json
import re
import sys
import unicodedata
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import datetime, timezone
from typing import Any, TypeAlias

import msgspec
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from agent_stores.contents import (
    AnyContent,
    ApprovalRequestContent,
    ApprovalResponseContent,
    DataContent,
    ErrorContent,
    ReasoningContent,
    TextContent,
    ToolCallContent,
    ToolResultContent,
    UriContent,
    UsageContent,
)
from agent_stores.log import ThreadStats
from agent_stores.messages import ChatMessage
from agent_stores.store import StoredMessage

SHORT = 200  # characters of a message's text in a table
_SHORT_PART = 80  # characters of a tool call's arguments, or of a result
_PAGE = 200  # rows that are laid out at once
_ROLE_STYLES = {"user": "cyan", "assistant": "green", "tool": "yellow", "system": "magenta"}
_Row: TypeAlias = "Sequence[str | Text]"

_BIDI = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def console(*, error: bool = False) -> Console:
    """A console on standard output, or on standard error."""
    return Console(stderr=error, highlight=False, emoji=False, markup=False, soft_wrap=False)


def clean(text: str) -> str:
    r"""Text in which nothing steers a terminal: control characters and the like as ``\u001b``."""
    return "".join(
        f"\\u{ord(char):04x}"
        if char != "\n" and (unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") or char in _BIDI)
        else char
        for char in text
    )


def shorten(text: str, limit: int = SHORT) -> str:
    """Text on one line, cut where it is longer; says by how much."""
    line = re.sub(r"\s+", " ", text[: 4 * limit]).strip()
    left = len(text) - 4 * limit
    if left <= 0 and len(line) <= limit:
        return clean(line)
    kept = line[:limit].rstrip()
    return f"{clean(kept)}… (+{max(0, left) + len(line) - len(kept):,} characters)"


def describe(message: ChatMessage) -> Text:
    """What a message says, part by part, shortened."""
    parts = [_describe_part(part) for part in message.contents]
    shown = Text("\n").join(parts)
    if message.pinned:
        shown = Text.assemble(("pinned ", "bold"), shown)
    if message.author_name:
        shown = Text.assemble((f"{shorten(message.author_name, 30)}: ", "bold"), shown)
    return shown


def _describe_part(part: AnyContent) -> Text:
    if isinstance(part, TextContent):
        return Text(shorten(part.text))
    if isinstance(part, ReasoningContent):
        return Text(f"(thinks) {shorten(part.text)}", style="dim italic")
    if isinstance(part, ToolCallContent):
        return Text(f"calls {_call(part)}", style="yellow")
    if isinstance(part, ToolResultContent):
        more = f" and {len(part.contents)} more parts" if part.contents else ""
        style = "red" if part.is_error else "yellow"
        word = "error" if part.is_error else "result"
        return Text(f"{word} {shorten(part.result_text(), _SHORT_PART)}{more}", style=style)
    if isinstance(part, DataContent):
        return _media(part.media_type, part.filename, size(len(part.data)))
    if isinstance(part, UriContent):
        return _media(part.media_type or part.kind, part.filename, shorten(part.uri, _SHORT_PART))
    if isinstance(part, ErrorContent):
        return Text(f"error {shorten(part.message, _SHORT_PART)}", style="red")
    if isinstance(part, UsageContent):
        return Text(f"({part.input_tokens or 0:,} tokens in, {part.output_tokens or 0:,} out)", style="dim")
    if isinstance(part, ApprovalRequestContent):
        return Text(f"asks to approve {_call(part.tool_call)}", style="yellow")
    if isinstance(part, ApprovalResponseContent):
        return Text("approved" if part.approved else "rejected", style="yellow")
    return Text(f"[{shorten(part.type, 40)}]", style="dim")


def _call(part: ToolCallContent) -> str:
    arguments = part.arguments
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return f"{shorten(part.name, 40)}({shorten(text, _SHORT_PART)})"


def _media(kind: str, filename: str | None, what: str) -> Text:
    name = f" {shorten(filename, 40)}" if filename else ""
    return Text(f"[{shorten(kind, 40)}{name}, {what}]", style="blue")


def size(count: float) -> str:
    """A number of bytes in a short form."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def count(number: int, noun: str) -> str:
    """A number of things, such as ``1 thread`` or ``2,000 threads``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def format_time(time: datetime | None) -> str:
    """A time in UTC, to the minute."""
    return "" if time is None else f"{time:%Y-%m-%d %H:%M}"


def _from_now(time: datetime | None) -> str:
    """How long until a time, in one unit."""
    if time is None:
        return ""
    seconds = max(0.0, (time - datetime.now(timezone.utc)).total_seconds())
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.0f} {unit}"
    return f"{seconds:.0f} s"


def print_threads(out: Console, threads: Sequence[ThreadStats]) -> None:
    """A table of threads; a long one is laid out page by page. Ids are never wrapped: they can be copied."""
    if not threads:
        out.print("no threads")
        return
    columns: list[dict[str, Any]] = [
        {"header": "thread", "no_wrap": True, "ratio": 1},
        {"header": "messages", "justify": "right", "width": 8},
        {"header": "bytes", "justify": "right", "width": 8},
        {"header": "tokens", "justify": "right", "width": 7},
        {"header": "last (UTC)", "width": 16},
        {"header": "expires", "justify": "right", "width": 7},
    ]
    if not any(thread.expires_at for thread in threads):
        columns.pop()
    others = sum(column["width"] + 2 for column in columns[1:])
    width = 2 + others + max(cell_len(clean(thread.thread_id)) for thread in threads)
    for start in range(0, len(threads), _PAGE):
        rows = [_thread_row(thread)[: len(columns)] for thread in threads[start : start + _PAGE]]
        _print_table(out, columns, rows, show_header=start == 0, width=width)


def _thread_row(thread: ThreadStats) -> _Row:
    return [
        Text(clean(thread.thread_id)),
        f"{thread.messages:,}",
        size(thread.bytes),
        f"{thread.tokens:,}",
        format_time(thread.last_at),
        _from_now(thread.expires_at),
    ]


async def print_messages(
    out: Console, messages: AsyncIterator[StoredMessage[ChatMessage]], *, last_position: int
) -> None:
    """A table of messages; long threads are laid out page by page, as they are read.

    Args:
        out: where to print.
        messages: in order.
        last_position: the largest position that may come.
    """
    columns: list[dict[str, Any]] = [
        {"header": "#", "justify": "right", "width": len(str(last_position))},
        {"header": "role", "width": 9},
        {"header": "message", "overflow": "fold", "ratio": 1},
        {"header": "time (UTC)", "width": 16},
    ]
    rows: list[_Row] = []
    first = True
    async for stored in messages:
        message = stored.message
        role = Text(message.role, style=_ROLE_STYLES.get(message.role, ""))
        rows.append([str(stored.position), role, describe(message), format_time(message.created_at)])
        if len(rows) == _PAGE:
            _print_table(out, columns, rows, show_header=first)
            rows, first = [], False
    if rows or first:
        _print_table(out, columns, rows, show_header=first)


def _print_table(
    out: Console,
    columns: Sequence[dict[str, Any]],
    rows: Sequence[Sequence[str | Text]],
    *,
    show_header: bool,
    width: int = 0,
) -> None:
    """Print a table as wide as the terminal, or wider where `width` says so: the terminal wraps its lines."""
    table = Table(
        box=box.SIMPLE_HEAD,
        expand=True,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
        show_header=show_header,
    )
    for column in columns:
        table.add_column(**column)
    for row in rows:
        table.add_row(*row)
    out.width = max(width, out.width)
    out.print(table)


def print_raw(out: Console, stored: StoredMessage[ChatMessage]) -> None:
    """A message's whole document, indented, below its position."""
    out.print(f"# position {stored.position}", style="bold")
    document = json.dumps(stored.message.to_dict(), indent=2, ensure_ascii=False)
    out.print(clean(document), soft_wrap=True)


def write_json(data: Any) -> None:
    """A line of JSON on standard output."""
    # Everything beyond ASCII is escaped, and so are control characters but DEL.
    document = json.dumps(msgspec.to_builtins(data), ensure_ascii=True)
    sys.stdout.write(document.replace("\x7f", "\\u007f") + "\n")


@contextlib.contextmanager
def progress_bar(size: int | None) -> Iterator[Callable[[int], None]]:
    """A bar by bytes on standard error, where that is a terminal."""
    bars = console(error=True)
    if not bars.is_terminal:
        yield lambda count: None
        return
    columns = TextColumn("importing"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    with Progress(*columns, console=bars, transient=True) as progress:
        task = progress.add_task("", total=size)
        yield lambda count: progress.advance(task, count)
