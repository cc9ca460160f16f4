"""A missing or wrong key neither reads as empty, nor adds, overwrites or removes anything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agent_stores import (
    ArgumentError,
    ChatMessage,
    ChatMessageStore,
    EncryptionKeyError,
    KeyRing,
    MessageLog,
    open_log,
)
from agent_stores.backend import Backend, Change, ListCursor, Row, RowRange, Thread, ThreadKey, ThreadQuery
from agent_stores.backends.memory import MemoryBackend
from agent_stores.cli.jsonl import export_thread

pytestmark = pytest.mark.anyio
KEYS = KeyRing({"right": bytes(range(32))}, "right")
KEY = ThreadKey("acme", "t")
WRONG: dict[str, KeyRing | None] = {
    "another key of the id": KeyRing({"right": bytes(range(1, 33))}, "right"),
    "another id": KeyRing({"other": bytes(range(1, 33))}, "other"),
    "no encryption": None,
}

Open = Callable[[KeyRing | None], MessageLog]


@pytest.fixture(params=["memory", "sqlite", "postgresql", "valkey9"])
async def opener(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Open]:
    """Opens logs on one server, with any keys."""
    name = request.param
    logs: list[MessageLog] = []
    shared = MemoryBackend()
    named: dict[str, Any] = {}
    url = str(tmp_path / "chat.db")
    if name == "postgresql":
        url, named = request.getfixturevalue("postgres_server").url, {"table_prefix": "wrong_"}
    elif name == "valkey9":
        url, named = request.getfixturevalue("valkey_server").url, {"key_prefix": "wrong"}

    def opened(keys: KeyRing | None) -> MessageLog:
        log = (
            MessageLog(shared, encryption=keys)
            if name == "memory"
            else open_log(url, encryption=keys, **named)
        )
        logs.append(log)
        return log

    await opened(KEYS).delete_thread(KEY)
    yield opened
    if name != "memory":
        for log in logs:
            await log.aclose()


def inner(log: MessageLog) -> Backend:
    """The database below the encryption."""
    return getattr(log.backend, "inner", log.backend)


async def stored(log: MessageLog) -> tuple[dict[str, Any], list[tuple[int, str, bytes]], list[str]]:
    """All that the server has: metadata, rows, and threads of the tenant."""
    found = await inner(log).rows(KEY, RowRange())
    assert found is not None
    listed = await inner(log).threads(ThreadQuery("acme", after=ListCursor(0, "")))
    rows = [(row.position, row.message_id, row.body) for row in found.rows]
    return found.thread.metadata, rows, [item.key.thread_id for item in listed]


def row(name: str) -> Row:
    """A row of a message."""
    return Row(name, b'{"role":"user"}', bytes=15)


def operations(log: MessageLog) -> dict[str, Callable[[], Awaitable[Any]]]:
    """Every operation that reads, adds, overwrites or removes what it cannot read."""
    store = ChatMessageStore(log, thread_id="t", tenant="acme", max_messages=2, on_corrupt="skip")
    return {
        "trim": partial(store.add_messages, [ChatMessage("user", "new")]),
        "append": partial(log.append, KEY, [row("new")]),
        "replace": partial(log.replace, KEY, row("m1")),
        "delete": partial(log.delete, KEY, ["m1"]),
        "pop": partial(log.pop_last, KEY),
        "clear": partial(log.clear, KEY),
        "rewrite": partial(log.replace_all, KEY, [row("new")]),
        "rewrite to nothing": partial(log.replace_all, KEY, []),
        "fork": partial(log.fork, KEY, ThreadKey("acme", "branch")),
        "metadata": partial(log.update_metadata, KEY, {"title": "new"}),
        "other metadata": partial(log.update_metadata, KEY, {"other": 1}),
        "export": partial(_drain, store),
        "read": store.list_messages,
        "stats": store.stats,
        "get": partial(store.get, "m1"),
    }


async def _drain(store: ChatMessageStore) -> None:
    async for _ in export_thread(store):
        pass


# Without encryption= nothing is known of keys when rows are added; docs/security.md says so.
PLAIN_WRITES = ("trim", "append")


@pytest.mark.parametrize("wrong", WRONG)
async def test_a_wrong_key_changes_nothing(opener: Open, wrong: str) -> None:
    right = opener(KEYS)
    store = ChatMessageStore(right, thread_id="t", tenant="acme", metadata={"title": "old"})
    await store.add_messages([ChatMessage("user", f"{n}", message_id=f"m{n}") for n in range(5)])
    before = await stored(right)
    for name in operations(right):
        log = opener(WRONG[wrong])  # one that has not read the thread yet
        if WRONG[wrong] is None and name in PLAIN_WRITES:
            continue
        with pytest.raises(EncryptionKeyError, match="'right'") as caught:
            await operations(log)[name]()
        assert caught.value.key_id == "right", name
        assert await stored(right) == before, name
    assert [m.text for m in await store.list_messages()] == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("wrong", list(WRONG)[:2])
async def test_a_wrong_key_is_noticed_without_metadata(opener: Open, wrong: str) -> None:
    right = opener(KEYS)
    store = ChatMessageStore(right, thread_id="t", tenant="acme")
    await store.add_messages([ChatMessage("user", f"{n}", message_id=f"m{n}") for n in range(5)])
    before = await stored(right)
    for name in operations(right):
        if name in ("metadata", "other metadata", "stats"):
            continue
        log = opener(WRONG[wrong])
        with pytest.raises(EncryptionKeyError, match="'right'"):
            await operations(log)[name]()
        assert await stored(right) == before, name


async def test_what_cannot_be_read_can_be_deleted(opener: Open) -> None:
    right = opener(KEYS)
    await ChatMessageStore(right, thread_id="t", tenant="acme").add_messages([ChatMessage("user", "x")])
    assert await opener(WRONG["another id"]).delete_thread(KEY)


async def test_the_check_costs_one_read_of_a_thread_that_was_not_read(opener: Open) -> None:
    log = opener(KEYS)
    reads = 0
    rows = inner(log).rows

    async def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal reads
        reads += 1
        return await rows(*args, **kwargs)

    inner(log).rows = counted  # type: ignore[method-assign]
    for n in range(5):
        await log.append(KEY, [row(f"{n}")])
    assert reads == 1
    other = opener(KEYS)
    assert len(await other.latest(KEY, 20)) == 5
    reads = 0
    inner(other).rows = counted  # type: ignore[method-assign]
    await other.append(KEY, [row("other")])
    assert reads == 0


async def test_migration_with_a_wrong_key_reads_and_writes_nothing(tmp_path: Path) -> None:
    url = str(tmp_path / "chat.db")
    log = open_log(url, encryption=KEYS)
    store = ChatMessageStore(log, thread_id="t", tenant="acme")
    await store.add_messages([ChatMessage("user", "old", message_id="m0")])
    before = await stored(log)
    from agent_stores.cli.jsonl import import_threads

    lines = [
        b'{"type":"agent_stores.export","version":1,"thread_id":"t","tenant":"acme","metadata":{"a":1}}\n',
        b'{"thread_id":"t","message":{"v":1,"role":"user","message_id":"m9"}}\n',
        b'{"type":"agent_stores.export.end","thread_id":"t","messages":1}\n',
    ]
    other = open_log(url, encryption=WRONG["another id"])
    with pytest.raises(EncryptionKeyError, match="'right'"):
        await import_threads(other, lines)
    assert await stored(log) == before
    await asyncio.gather(log.aclose(), other.aclose())


async def test_damaged_metadata_is_an_error_and_is_kept(opener: Open) -> None:
    log = opener(KEYS)
    store = ChatMessageStore(log, thread_id="t", tenant="acme", metadata={"title": "x", "other": 1})
    await store.add_messages([ChatMessage("user", "hello")])
    found = await inner(log).load(KEY)
    assert found is not None
    moved = {"title": found.thread.metadata["other"], "other": {"$encrypted": 9}}
    await inner(log).commit(KEY, Change(_with(found.thread, moved), found.version))
    from agent_stores import CorruptMessageError, rekey

    for _ in range(2):
        with pytest.raises(CorruptMessageError, match=r"metadata 'title' .* was changed or moved"):
            await log.stats(KEY)
        await log.update_metadata(KEY, {"new": 1})  # what is damaged is stored as it was
        await log.update_metadata(KEY, {"new": None})
        assert (await inner(log).load(KEY)).thread.metadata == moved  # type: ignore[union-attr]
    report = await rekey(log.backend, "acme")
    assert (report.damaged, report.metadata, report.complete) == (1, 0, False)
    assert (await inner(log).load(KEY)).thread.metadata == moved  # type: ignore[union-attr]
    await log.update_metadata(KEY, {"title": "again", "other": None})
    assert (await log.stats(KEY)).metadata == {"title": "again"}  # type: ignore[union-attr]


def _with(thread: Thread, metadata: dict[str, Any]) -> Thread:
    from msgspec.structs import replace

    return replace(thread, metadata=metadata)


async def test_plain_metadata_is_not_read_when_everything_must_be_encrypted(opener: Open) -> None:
    plain = opener(None)
    await plain.update_metadata(KEY, {"title": "forged"})
    before = (await inner(plain).load(KEY)).thread.metadata  # type: ignore[union-attr]
    strict = opener(KeyRing({"right": bytes(range(32))}, "right", allow_plaintext=False))
    with pytest.raises(EncryptionKeyError, match=r"metadata 'title' .* allow_plaintext is False"):
        await strict.stats(KEY)
    (listed,) = (await strict.list_threads("acme")).threads
    assert listed.metadata["title"] != "forged"
    await strict.update_metadata(KEY, {"real": 1})  # does not encrypt what was forged
    found = (await inner(plain).load(KEY)).thread.metadata  # type: ignore[union-attr]
    assert found["title"] == before["title"]
    with pytest.raises(EncryptionKeyError):
        await strict.stats(KEY)
    with pytest.raises(ArgumentError):
        await strict.update_metadata(KEY, {"a": {"$encrypted": 0}})


async def test_two_bodies_of_a_thread_that_were_swapped_are_noticed(opener: Open) -> None:
    log = opener(KEYS)
    store = ChatMessageStore(log, thread_id="t", tenant="acme", on_corrupt="skip")
    await store.add_messages([ChatMessage("user", f"{n}", message_id=f"m{n}") for n in range(4)])
    await store.add_messages([ChatMessage("system", "pinned", message_id="ü\x00", pinned=True)])
    found = await inner(log).rows(KEY, RowRange())
    assert found is not None
    from msgspec.structs import replace

    one, two = found.rows[1:3]
    swapped = [replace(one, body=two.body), replace(two, body=one.body)]
    await inner(log).commit(KEY, Change(found.thread, found.version, swapped))
    for rows in (await log.latest(KEY, 20), await log.latest(KEY), await log.read(KEY)):
        assert sum(b"damaged" in each.body for each in rows) == 2
    assert {m.text for m in await store.list_messages()} == {"pinned", "0", "3"}
