"""`AgentStoresCheckpointStorage`: one suite on the framework's own storages and on ours."""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from agent_framework import (
    CheckpointStorage,
    Executor,
    FileCheckpointStorage,
    InMemoryCheckpointStorage,
    WorkflowBuilder,
    WorkflowCheckpoint,
    WorkflowCheckpointException,
    WorkflowContext,
    handler,
)

from agent_stores import ChatMessageStore, InMemoryMessageLog
from agent_stores.agent_framework import AgentStoresCheckpointStorage
from agent_stores.errors import StoreClosedError
from tests.plugins.agent_framework.conftest import redis_url

pytestmark = pytest.mark.anyio

WorkflowMessage: Any = import_module("agent_framework._workflows._runner_context").WorkflowMessage
RESTRICTS = "allowed_checkpoint_types" in inspect.signature(FileCheckpointStorage).parameters
"""Whether the installed version restricts the types of checkpoints: 1.0.0 does not."""


@dataclass
class Draft:
    """A value of an application's."""

    text: str
    votes: tuple[int, ...] = ()


ALLOWED: dict[str, Any] = {"allowed_checkpoint_types": [f"{__name__}:Draft"]} if RESTRICTS else {}


@pytest.fixture(
    params=["memory", "file", "ours, in memory", "ours, on SQLite", "ours, on Redis", "ours, kept a while"]
)
async def storage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Any]:
    ours, database = AgentStoresCheckpointStorage, tmp_path / "chat.db"
    make: dict[str, Callable[[], CheckpointStorage]] = {
        "memory": InMemoryCheckpointStorage,
        "file": lambda: FileCheckpointStorage(tmp_path, **ALLOWED),
        "ours, in memory": lambda: ours("memory:", **ALLOWED),
        "ours, on SQLite": lambda: ours(database, **ALLOWED),
        "ours, on Redis": lambda: ours(redis_url(request), tenant=tmp_path.name, **ALLOWED),
        "ours, kept a while": lambda: ours(database, ttl=3600, max_messages=50, **ALLOWED),
    }
    made = make[request.param]()
    yield made
    if isinstance(made, ours):
        await made.aclose()


START = datetime(2026, 11, 1, 12, tzinfo=timezone.utc)


def checkpoint(name: str, workflow: str = "w", minute: int = 0, **fields: Any) -> WorkflowCheckpoint:
    time = (START + timedelta(minutes=minute)).isoformat()
    return WorkflowCheckpoint(workflow, "graph", checkpoint_id=name, timestamp=time, **fields)


def ids(found: list[WorkflowCheckpoint]) -> list[str]:
    """The ids in order: that of the framework's files is any."""
    return sorted(one.checkpoint_id for one in found)


async def test_what_is_not_there(storage: CheckpointStorage) -> None:
    with pytest.raises(WorkflowCheckpointException, match="none"):
        await storage.load("none")
    assert await storage.delete("none") is False
    assert await storage.list_checkpoints(workflow_name="w") == []
    assert await storage.list_checkpoint_ids(workflow_name="w") == []
    assert await storage.get_latest(workflow_name="w") is None


async def test_a_checkpoint_comes_back(storage: CheckpointStorage) -> None:
    state = {
        "draft": Draft("é🙂", (1, 2)),
        "numbers": [1, 2.5, True, None, 10**40],
        "nested": {"at": START, "set": frozenset({1}), "bytes": b"\0\xff", "tuple": (1, "a")},
        "_executor_state": {"a": {"__type__": "mine", "seen": {"1": "one"}}},
    }
    given = checkpoint(
        "c1",
        previous_checkpoint_id="c0",
        messages={"a": [WorkflowMessage(data=Draft("x"), source_id="a", target_id="b")]},
        state=state,
        iteration_count=3,
        metadata={"note": "n"},
    )
    assert await storage.save(given) == "c1"
    assert await storage.load("c1") == given
    assert await storage.list_checkpoints(workflow_name="w") == [given]
    assert await storage.get_latest(workflow_name="w") == given


async def test_numbers_that_are_not_finite(storage: CheckpointStorage) -> None:
    await storage.save(checkpoint("c1", state={"score": -math.inf, "loss": math.nan}))
    state = (await storage.load("c1")).state
    assert state["score"] == -math.inf
    assert math.isnan(state["loss"])


async def test_what_is_read_is_a_copy(storage: CheckpointStorage) -> None:
    if isinstance(storage, InMemoryCheckpointStorage) and not RESTRICTS:
        return  # 1.0.0 hands out the object itself
    given = checkpoint("c1", state={"list": [1]})
    await storage.save(given)
    given.state["list"].append(2)
    (await storage.load("c1")).state["list"].append(3)
    (await storage.list_checkpoints(workflow_name="w"))[0].state["list"].append(4)
    assert (await storage.load("c1")).state == {"list": [1]}


async def test_each_workflow_has_its_own(storage: CheckpointStorage) -> None:
    names = ["w", "W", "w/x", "w#x", "w%2Fx", "é"]
    for n, workflow in enumerate(names):
        for m in range(2):
            await storage.save(checkpoint(f"{n}-{m}", workflow, n + m))
    for n, workflow in enumerate(names):
        assert ids(await storage.list_checkpoints(workflow_name=workflow)) == [f"{n}-0", f"{n}-1"]
        assert sorted(await storage.list_checkpoint_ids(workflow_name=workflow)) == [f"{n}-0", f"{n}-1"]
        latest = await storage.get_latest(workflow_name=workflow)
        assert latest is not None
        assert latest.checkpoint_id == f"{n}-1"
        assert (await storage.load(f"{n}-1")).workflow_name == workflow


async def test_the_latest_is_the_one_of_the_latest_time(storage: CheckpointStorage) -> None:
    for name, minute in (("b", 2), ("d", 4), ("a", 1), ("c", 3)):
        await storage.save(checkpoint(name, minute=minute))
    for name in "dcba":
        latest = await storage.get_latest(workflow_name="w")
        assert latest is not None
        assert latest.checkpoint_id == name
        assert await storage.delete(name) is True
    assert await storage.get_latest(workflow_name="w") is None


async def test_saving_an_id_again_replaces(storage: CheckpointStorage) -> None:
    await storage.save(checkpoint("a", minute=5, state={"n": 1}))
    await storage.save(checkpoint("b", minute=6))
    await storage.save(checkpoint("a", minute=7, state={"n": 2}))
    assert (await storage.load("a")).state == {"n": 2}
    assert ids(await storage.list_checkpoints(workflow_name="w")) == ["a", "b"]
    latest = await storage.get_latest(workflow_name="w")
    assert latest is not None
    assert latest.checkpoint_id == "a"


async def test_deleting(storage: CheckpointStorage) -> None:
    for name in "abc":
        await storage.save(checkpoint(name))
    assert await storage.delete("b") is True
    assert await storage.delete("b") is False
    with pytest.raises(WorkflowCheckpointException, match="b"):
        await storage.load("b")
    assert sorted(await storage.list_checkpoint_ids(workflow_name="w")) == ["a", "c"]
    await storage.save(checkpoint("b", state={"n": 1}))
    assert (await storage.load("b")).state == {"n": 1}


async def test_several_at_once(storage: CheckpointStorage) -> None:
    names = [f"{n:02}" for n in range(20)]
    await asyncio.gather(*(storage.save(checkpoint(name, f"w{int(name) % 3}")) for name in names))
    found = [one for n in range(3) for one in await storage.list_checkpoint_ids(workflow_name=f"w{n}")]
    assert sorted(found) == names
    await asyncio.gather(*(storage.delete(name) for name in names))
    assert await storage.list_checkpoint_ids(workflow_name="w0") == []


async def test_what_cannot_be_stored(storage: CheckpointStorage) -> None:
    if isinstance(storage, InMemoryCheckpointStorage):
        await storage.save(checkpoint("a", state={"f": len}))  # it keeps any object
        return
    kinds = (WorkflowCheckpointException, AttributeError) if RESTRICTS else Exception
    with pytest.raises(kinds):
        await storage.save(checkpoint("a", state={"f": lambda: None}))
    assert await storage.list_checkpoint_ids(workflow_name="w") == []


class Count(Executor):
    """Counts what reaches it, and hands it on three times."""

    def __init__(self, name: str) -> None:
        super().__init__(id=name)
        self.seen = 0
        self.fails_at: int | None = None

    @handler
    async def count(self, number: int, context: WorkflowContext[int, int]) -> None:
        if number == self.fails_at:
            raise RuntimeError("the process died")
        self.seen += 1
        await (context.send_message(number + 1) if number < 6 else context.yield_output(number))

    async def on_checkpoint_save(self) -> dict[str, Any]:
        return {"seen": self.seen}

    async def on_checkpoint_restore(self, state: dict[str, Any]) -> None:
        self.seen = state["seen"]


def workflow_of(storage: CheckpointStorage, fails_at: int | None = None) -> tuple[Any, Count]:
    first, second = Count("first"), Count("second")
    second.fails_at = fails_at
    builder = WorkflowBuilder(name="counting", start_executor=first, checkpoint_storage=storage)
    return builder.add_edge(first, second).add_edge(second, first).build(), second


async def test_a_workflow_goes_on_from_its_latest_checkpoint(storage: CheckpointStorage) -> None:
    workflow, _ = workflow_of(storage, fails_at=4)
    with pytest.raises(RuntimeError, match="the process died"):
        await workflow.run(1)
    latest = await storage.get_latest(workflow_name="counting")
    assert latest is not None
    again, second = workflow_of(storage)
    result = await again.run(checkpoint_id=latest.checkpoint_id)
    assert result.get_outputs() == [6]
    assert second.seen == 3
    chain = {one.checkpoint_id: one for one in await storage.list_checkpoints(workflow_name="counting")}
    newest = await storage.get_latest(workflow_name="counting")
    steps = 0
    while newest is not None:
        steps += 1
        newest = chain[newest.previous_checkpoint_id] if newest.previous_checkpoint_id else None
    assert steps > 2  # the first run's as well, except in 1.0.0


# -- ours only --------------------------------------------------------------------------------------------


class Reads(InMemoryMessageLog):
    """Counts what is read."""

    def __init__(self) -> None:
        super().__init__()
        self.pages: list[int] = []
        self.bodies = 0

    async def read(self, key: Any, **options: Any) -> Any:
        rows = await super().read(key, **options)
        self.pages.append(len(rows))
        self.bodies += sum(bool(row.body) for row in rows) if options.get("bodies", True) else 0
        return rows


async def test_listing_reads_pages() -> None:
    log = Reads()
    storage = AgentStoresCheckpointStorage(log)
    for n in range(100):
        await storage.save(checkpoint(f"{n:03}", minute=n))
    for n in range(20):
        await storage.save(checkpoint(f"other-{n}", "other"))
    log.pages.clear()
    assert await storage.list_checkpoint_ids(workflow_name="w") == [f"{n:03}" for n in range(100)]
    assert (log.pages, log.bodies) == ([100], 0)
    latest = await storage.get_latest(workflow_name="w")
    assert latest is not None
    assert latest.checkpoint_id == "099"
    assert log.bodies == 1
    log.pages.clear()
    found = await storage.list_checkpoints(workflow_name="w")
    assert [one.checkpoint_id for one in found] == [f"{n:03}" for n in range(100)]
    assert max(log.pages) <= 32
    assert sum(log.pages) == 100
    log.pages.clear()
    assert (await storage.load("050")).checkpoint_id == "050"
    assert log.pages == [1]  # whatever the number of workflows and checkpoints


async def test_text_that_is_not_unicode() -> None:
    """Half an emoji, from a stream that was cut; files cannot hold it."""
    storage = AgentStoresCheckpointStorage("memory:")
    await storage.save(checkpoint("a", state={"half": "\ud83d"}))
    assert (await storage.load("a")).state == {"half": "\ud83d"}


async def test_a_checkpoint_changes_its_workflow() -> None:
    """As it does in the framework's storages."""
    for storage in (InMemoryCheckpointStorage(), AgentStoresCheckpointStorage("memory:")):
        await storage.save(checkpoint("a", "one"))
        await storage.save(checkpoint("a", "two"))
        assert await storage.list_checkpoint_ids(workflow_name="one") == []
        assert (await storage.load("a")).workflow_name == "two"


async def test_the_newest_are_kept() -> None:
    log = InMemoryMessageLog()
    storage = AgentStoresCheckpointStorage(log, max_messages=3)
    for n in range(10):
        await storage.save(checkpoint(str(n), minute=n))
        await storage.save(checkpoint(f"x{n}", "other", minute=n))
    assert await storage.list_checkpoint_ids(workflow_name="w") == ["7", "8", "9"]
    assert (await storage.load("8")).checkpoint_id == "8"
    with pytest.raises(WorkflowCheckpointException, match="no checkpoint of id '6'"):
        await storage.load("6")
    # Nothing stays of those that are gone.
    threads = (await ChatMessageStore(log).list_threads()).threads
    assert [one.thread_id for one in threads] == [
        "#agent_framework/workflow/other",
        "#agent_framework/workflow/w",
    ]


async def test_nothing_stays_of_what_was_deleted() -> None:
    log = InMemoryMessageLog()
    storage = AgentStoresCheckpointStorage(log)
    await storage.save(checkpoint("a"))
    threads = ["#agent_framework/checkpoint/a", "#agent_framework/workflow/w"]
    store = ChatMessageStore(log)
    assert [one.thread_id for one in (await store.list_threads()).threads] == threads
    await storage.delete("a")
    assert [one.thread_id for one in (await store.list_threads()).threads] == threads[1:]


if RESTRICTS:

    async def test_types_that_are_not_allowed(caplog: pytest.LogCaptureFixture) -> None:
        log = InMemoryMessageLog()
        strict = AgentStoresCheckpointStorage(log)
        with pytest.raises(WorkflowCheckpointException, match="Draft"):
            await strict.save(checkpoint("a", state={"draft": Draft("x")}))
        storage = AgentStoresCheckpointStorage(log, **ALLOWED)
        await storage.save(checkpoint("a", state={"draft": Draft("x")}))
        await storage.save(checkpoint("b"))
        with pytest.raises(WorkflowCheckpointException, match="Draft"):
            await strict.load("a")
        with caplog.at_level(logging.WARNING, "agent_stores"):
            assert ids(await strict.list_checkpoints(workflow_name="w")) == ["b"]
        assert "the checkpoint 'a' is not shown" in caplog.text
        with pytest.raises(TypeError, match="must be a collection of str, got a str"):
            AgentStoresCheckpointStorage(log, allowed_checkpoint_types="x:Y")


async def test_arguments(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="must be one of source, allowed_checkpoint_types, tenant"):
        AgentStoresCheckpointStorage("memory:", path="x")  # type: ignore[call-arg]
    if not RESTRICTS:
        with pytest.raises(ValueError, match="allowed_checkpoint_types must be None"):
            AgentStoresCheckpointStorage("memory:", allowed_checkpoint_types=["x:Y"])
    async with AgentStoresCheckpointStorage(tmp_path / "chat.db") as storage:
        wrongs: list[dict[str, Any]] = [
            {"workflow_name": ""},
            {"checkpoint_id": ""},
            {"timestamp": "yesterday"},
        ]
        for wrong in wrongs:
            fields: dict[str, Any] = {"workflow_name": "w", "graph_signature_hash": "g", **wrong}
            given = WorkflowCheckpoint(**fields)
            with pytest.raises((ValueError, WorkflowCheckpointException)):
                await storage.save(given)
        assert await storage.delete("") is False
    with pytest.raises(StoreClosedError):
        await storage.load("a")
