"""What `rekey` does with messages that it cannot encrypt, unfinished commits, and writers that are faster."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from agent_stores import InMemoryMessageLog, KeyRing, MessageLog, StoreUnavailableError, rekey
from agent_stores.backend import Limits, RowRange, ThreadKey, VersionConflict
from agent_stores.backends.memory import MemoryBackend
from agent_stores.encryption import rekeying
from agent_stores.errors import OutcomeUnknownError
from agent_stores.message_rows import make_rows
from agent_stores.messages import ChatMessage

pytestmark = pytest.mark.anyio
KEYS = KeyRing({"new": bytes(range(32))}, "new")
KEY = ThreadKey("acme", "t")


def rows_of(*texts: str) -> Any:
    messages = [ChatMessage("user", text, message_id=f"m{n}") for n, text in enumerate(texts)]
    return make_rows(messages, lambda message: 1)


async def test_a_message_that_becomes_too_large_is_reported_and_stops_nothing() -> None:
    backend = MemoryBackend(Limits(body_bytes=2000))
    await MessageLog(backend).append(KEY, rows_of("a", "x" * 1800, "b"))
    await MessageLog(backend).append(ThreadKey("acme", "u"), rows_of("c"))
    log = MessageLog(backend, encryption=KEYS)
    for messages in (3, 0):
        report = await rekey(log.backend, "acme")
        assert (report.threads, report.messages, report.too_large) == (2, messages, 1)
        assert not report.complete
        (problem,) = report.problems
        assert (problem.thread_id, problem.position) == ("t", 2)
        assert "the limit is 2000" in problem.reason
    rows = await log.read(KEY)
    assert [len(row.body) > 1800 for row in rows] == [False, True, False]


async def test_rows_of_an_unfinished_commit_are_removed() -> None:
    backend = MemoryBackend(Limits(commit_rows=2))
    plain = MessageLog(backend)
    await plain.append(KEY, rows_of("visible"))
    commit = backend.commit

    async def dies(*args: Any, **kwargs: Any) -> Any:
        if dies.calls == 2:  # type: ignore[attr-defined]
            raise KeyboardInterrupt
        dies.calls += 1  # type: ignore[attr-defined]
        return await commit(*args, **kwargs)

    dies.calls = 0  # type: ignore[attr-defined]
    backend.commit = dies  # type: ignore[method-assign]
    rows = [replace(row, message_id=f"n{n}") for n, row in enumerate(rows_of(*["planted"] * 7))]
    with pytest.raises(KeyboardInterrupt):
        await plain.append(KEY, rows)
    backend.commit = commit  # type: ignore[method-assign]
    staged = await backend.rows(KEY, RowRange(staged=True))
    assert staged is not None
    assert len(staged.rows) == 5
    report = await rekey(MessageLog(backend, encryption=KEYS).backend, "acme")
    assert (report.messages, report.complete) == (1, True)
    left = await backend.rows(KEY, RowRange(staged=True))
    assert left is not None
    assert [b"planted" in row.body for row in left.rows] == [False]
    assert left.thread.staged_position == 0
    assert len(await MessageLog(backend, encryption=KEYS).read(KEY)) == 1


@pytest.mark.parametrize("error", [VersionConflict(), OutcomeUnknownError("lost")])
async def test_writers_that_are_always_faster_end_a_thread_and_not_the_run(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rekeying, "_PATIENCE", 0.2)
    backend = MemoryBackend()
    log = MessageLog(backend)
    for thread_id in ("a", "b", "c"):
        await log.append(ThreadKey("acme", thread_id), rows_of("1", "2"))
    commit = backend.commit

    async def busy(key: ThreadKey, *args: Any, **kwargs: Any) -> Any:
        if key.thread_id == "b":
            raise error
        return await commit(key, *args, **kwargs)

    backend.commit = busy  # type: ignore[method-assign]
    encrypted = MessageLog(backend, encryption=KEYS)
    report = await rekey(encrypted.backend, "acme")
    assert (report.threads, report.messages, report.failed) == (3, 4, 1)
    assert [problem.thread_id for problem in report.problems] == ["b"]
    backend.commit = commit  # type: ignore[method-assign]
    report = await rekey(encrypted.backend, "acme")
    assert (report.messages, report.complete) == (2, True)


async def test_a_server_that_fails_ends_the_run() -> None:
    backend = MemoryBackend()
    await MessageLog(backend).append(KEY, rows_of("1"))

    async def down(*args: Any, **kwargs: Any) -> Any:
        raise StoreUnavailableError("down")

    backend.commit = down  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailableError):
        await rekey(MessageLog(backend, encryption=KEYS).backend, "acme")


async def test_progress_and_order() -> None:
    backend = MemoryBackend()
    for number in range(250):
        await MessageLog(backend).append(ThreadKey("acme", f"{number}"), rows_of("1"))
    await MessageLog(backend).append(ThreadKey("acme", "long"), rows_of(*map(str, range(350))))
    seen: list[tuple[int, int]] = []
    log = MessageLog(backend, encryption=KEYS)
    await rekey(log.backend, "acme", progress=lambda report: seen.append((report.threads, report.messages)))
    assert seen[-1] == (251, 600)
    assert len(seen) == 251 + 3
    assert seen == sorted(seen)
    assert [row.message_id for row in await log.read(ThreadKey("acme", "long"))] == [
        f"m{n}" for n in range(350)
    ]


async def test_what_must_be_encrypted_and_is_not_stays_as_it_is() -> None:
    backend = MemoryBackend()
    await MessageLog(backend).append(KEY, rows_of("forged"))
    await MessageLog(backend).update_metadata(ThreadKey("acme", "u"), {"title": "forged"})
    strict = KeyRing({"new": bytes(range(32))}, "new", allow_plaintext=False)
    report = await rekey(MessageLog(backend, encryption=strict).backend, "acme")
    assert (report.failed, report.messages, report.metadata) == (2, 0, 0)
    found = await backend.rows(KEY, RowRange())
    assert found is not None
    assert b"forged" in found.rows[0].body


async def test_a_log_without_keys_cannot_be_rekeyed() -> None:
    with pytest.raises(TypeError, match="encryption="):
        await rekey(InMemoryMessageLog().backend)
