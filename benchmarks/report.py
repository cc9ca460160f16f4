"""What was measured, as tables: plain text for a terminal, Markdown for a file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from catalogue import Spec

Medians = dict[str, dict[int, dict[str, float]]]
Counts = dict[str, dict[str, Any]]

_NAMES = {"append": "append a turn", "read": "read the last 20", "turn": "whole turn"}
NONE = "—"


def tables(
    specs: Sequence[Spec], medians: Medians, counts: Counts, lengths: Sequence[int]
) -> Iterable[tuple[str, list[str], list[list[str]]]]:
    """Yield each table as its title, column headings and rows."""
    for what, name in _NAMES.items():
        rows = []
        for spec in specs:
            base = medians[_bound(specs, spec).key]
            cells = [ratio(medians[spec.key], base, length, what) for length in lengths]
            rows.append([spec.label, *cells])
        yield f"{name}, as a multiple of raw", ["", *(f"{length:,}" for length in lengths)], rows
    rows = []
    for spec in specs:
        base = medians[_bound(specs, spec).key]
        cost = ratio(medians[spec.key], base, 1000, "whole")
        rows.append([spec.label, cost])
    if any(row[1] != NONE for row in rows):
        yield "read a whole thread of 1,000, as a multiple of raw", ["", "1,000"], rows
    if counts:
        yield _count_table(specs, counts)


def times(
    specs: Sequence[Spec], medians: Medians, lengths: Sequence[int]
) -> tuple[str, list[str], list[list[str]]]:
    """Microseconds of the lower bounds, to judge the ratios by; they hold for one machine and moment."""
    rows = []
    for spec in specs:
        if _bound(specs, spec) is spec:
            for what, name in _NAMES.items():
                found = [medians[spec.key].get(length, {}).get(what) for length in lengths]
                rows.append(
                    [
                        f"{spec.label}: {name}",
                        *(NONE if one is None else f"{one / 1e3:,.0f}" for one in found),
                    ]
                )
    return "the lower bound, in microseconds", ["", *(f"{length:,}" for length in lengths)], rows


def ratio(
    found: dict[int, dict[str, float]], base: dict[int, dict[str, float]], length: int, what: str
) -> str:
    """A median as a multiple of the lower bound's."""
    one, other = found.get(length, {}).get(what), base.get(length, {}).get(what)
    if one is None or other is None:
        return NONE
    value = one / other
    return f"{value:.2f}" if value < 10 else f"{value:,.0f}"


def plain(title: str, headings: list[str], rows: list[list[str]]) -> str:
    """A table for a terminal."""
    widths = [max(len(row[column]) for row in [headings, *rows]) for column in range(len(headings))]
    lines = [title]
    for row in [headings, *rows]:
        first, *others = (
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  " + "  ".join([first, *others]))
    return "\n".join(lines) + "\n"


def markdown(title: str, headings: list[str], rows: list[list[str]]) -> str:
    """A table for a page."""
    lines = [
        f"### {title[:1].upper()}{title[1:]}",
        "",
        "| " + " | ".join(headings) + " |",
        "|" + "|".join(["---", *["---:"] * (len(headings) - 1)]) + "|",
        *("| " + " | ".join(row) + " |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


def _bound(specs: Sequence[Spec], spec: Spec) -> Spec:
    return next(other for other in specs if other.group == spec.group)


def _count_table(specs: Sequence[Spec], counts: Counts) -> tuple[str, list[str], list[list[str]]]:
    keys = [
        key for key in ("trips", "commands", "executed", "statements", "commits", "rows") if _has(counts, key)
    ]
    names = {"trips": "round trips", "executed": "executed by the server", "rows": "rows written"}
    headings = [
        "append / read / read all",
        *(names.get(key, key) for key in keys),
        "bytes a message",
        "of its JSON",
    ]
    rows = []
    for spec in specs:
        found = counts.get(spec.key)
        if found is None:
            rows.append([spec.label, *[NONE] * (len(headings) - 1)])
            continue
        cells = [" / ".join(str(found[what][key]) for what in ("append", "read", "read_all")) for key in keys]
        stored, own = found["bytes"], found["json"]
        rows.append([spec.label, *cells, f"{stored:,.0f}", f"{stored / own:.2f}"])
    if _has_synchronous(counts):
        headings.append("synchronous")
        for spec, row in zip(specs, rows, strict=True):
            row.append(counts.get(spec.key, {}).get("synchronous", NONE))
    return "what passes, and what is kept (at 1,000 messages)", headings, rows


def _has(counts: Counts, key: str) -> bool:
    return any(key in found["append"] for found in counts.values())


def _has_synchronous(counts: Counts) -> bool:
    return any(found.get("synchronous") for found in counts.values())
