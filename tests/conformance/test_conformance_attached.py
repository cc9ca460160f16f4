"""The conformance suite with attachments, with and without encryption.

Every data part is an attachment here.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent_stores import Attachments, InMemoryMessageLog, KeyRing, MessageLog, open_log
from agent_stores.backend import Limits, ThreadKey
from agent_stores.backends.tables.backend import TablesBackend
from agent_stores.testing.conformance import *  # noqa: F403
from agent_stores.testing.conformance import Clock, Target
from tests.tables.memory_table import MemoryTable

KINDS = ["memory", "memory-limited", "tables", "sqlite"]


def open_attached(url: str, folder: str, encrypted: bool, **options: Any) -> MessageLog:
    """A log on a file with attachments in a folder, also in another process."""
    return open_log(url, attachments=Attachments(folder, over=0), encryption=ring(encrypted), **options)


def ring(encrypted: bool) -> KeyRing | None:
    return KeyRing({"2026-11": bytes(range(32))}, "2026-11") if encrypted else None


@pytest.fixture(params=[f"{kind}{'-encrypted' * is_encrypted}" for kind in KINDS for is_encrypted in (0, 1)])
async def target(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Target]:
    clock = Clock()
    name: str = request.param
    kind, encrypted = name.removesuffix("-encrypted"), name.endswith("-encrypted")
    options: dict[str, Any] = {
        "attachments": Attachments(f"memory://attachments/{uuid.uuid4().hex}", over=0),
        "encryption": ring(encrypted),
        "clock": clock,
    }
    if kind.startswith("memory"):
        limits = Limits(commit_rows=4, commit_bytes=3_000_000) if kind == "memory-limited" else None
        log = InMemoryMessageLog(limits=limits, **options)
        yield Target(name, open_log=lambda: log, advance=clock.advance)
        return
    if kind == "tables":
        table = MemoryTable()
        yield Target(
            name,
            open_log=lambda: MessageLog(TablesBackend(table, clock=clock), **options),
            advance=clock.advance,
        )
        return
    url, folder = str(tmp_path / "chat.db"), str(tmp_path / "attachments")

    async def corrupt(key: ThreadKey, position: int) -> None:
        """Damage a stored message, below the attachments and the encryption."""
        plain = open_log(url)
        snapshot = await plain.backend.rows(key, after=position - 1, before=position + 1)
        assert snapshot is not None
        damaged = [msgspec.structs.replace(row, body=b'{"role": ') for row in snapshot.rows]
        await plain.backend.commit(key, snapshot.thread, expected=snapshot.version, put=damaged)
        await plain.aclose()

    yield Target(
        name,
        open_log=lambda: open_attached(
            url, folder, encrypted, clock=clock, engine_options={"logging_name": f"client-{uuid.uuid4().hex}"}
        ),
        open_in_process=partial(open_attached, url, folder, encrypted, timeout=60),
        corrupt=corrupt,
        advance=clock.advance,
    )
