"""The figures in the README are those of docs/benchmarks.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SECTIONS = {
    section.partition(":")[0]: section
    for section in (ROOT / "docs" / "benchmarks.md").read_text().split("\n## ")
}
APPEND = ": append a turn"
ROWS = {
    "PostgreSQL": (
        "raw: psycopg, asynchronous",
        "agent-stores, psycopg",
        "agent-stores, psycopg: max_messages, ttl",
    ),
    "Redis": ("raw: MULTI RPUSH LTRIM, LRANGE, json", "agent-stores", "agent-stores: max_messages, ttl"),
    "SQLite": ("raw: sqlite3 on a worker thread", "agent-stores", "agent-stores: max_messages, ttl"),
    "SQLite, synchronous": ("raw, synchronous", "agent-stores, synchronous view"),
}


def measured(database: str, label: str) -> str:
    """The lowest and the highest value in the first row of this label of a database's section."""
    found = re.search(rf"^\| {re.escape(label)} \| (.+) \|$", SECTIONS[database], re.MULTILINE)
    assert found is not None, f"docs/benchmarks.md has no row {label!r} of {database}"
    values = sorted(found[1].split(" | "), key=lambda value: float(value.replace(",", "")))
    return f"{values[0]}-{values[-1]}"


@pytest.mark.parametrize("row", ROWS)
def test_the_costs_in_the_readme(row: str) -> None:
    found = re.search(rf"^\| {re.escape(row)} \| (.+) \|$", README, re.MULTILINE)
    assert found is not None
    bound, *ours = found[1].split(" | ")
    database = row.partition(",")[0]
    raw, *labels = ROWS[row]
    assert bound.startswith(f"{measured(database, raw + APPEND)} µs")
    assert ours[: len(labels)] == [measured(database, label) for label in labels]


def test_the_cost_of_another_store_in_the_readme() -> None:
    assert f"costs {measured('SQLite', 'OpenAI Agents SQLiteSession')} on SQLite" in README
