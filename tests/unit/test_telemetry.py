"""Spans and metrics of a log's operations."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from agent_stores import (
    ArgumentError,
    ChatMessage,
    ChatMessageStore,
    ConflictError,
    DataKeys,
    InMemoryMessageLog,
    KeyRing,
    LocalKeyService,
    MessageLog,
    MissingDependencyError,
    OutcomeUnknownError,
    open_log,
)
from agent_stores.backend import ThreadKey, VersionConflict
from agent_stores.log import NewThread
from agent_stores.sync import SyncChatMessageStore
from agent_stores.telemetry import OPERATIONS, instrument

SECRET = "the launch code is 7391"


class Recorder:
    """An SDK that keeps what it records."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.reader = InMemoryMetricReader()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.meters = MeterProvider(metric_readers=[self.reader])

    def instrument(self, log: MessageLog, *, include_ids: bool = False) -> MessageLog:
        return instrument(
            log, tracer_provider=self.tracers, meter_provider=self.meters, include_ids=include_ids
        )

    def names(self) -> list[str]:
        return [span.name for span in self.exporter.get_finished_spans()]

    def text(self) -> str:
        spans = "".join(span.to_json() for span in self.exporter.get_finished_spans())
        data = self.reader.get_metrics_data()
        return spans + (data.to_json() if data is not None else "")


@pytest.mark.anyio
async def test_operations_are_spans_without_content(tmp_path: Path) -> None:
    recorder = Recorder()
    log = recorder.instrument(open_log(str(tmp_path / "chat.db")))
    store = ChatMessageStore(log, thread_id="thread-of-alice", tenant="acme")
    await store.add_messages([ChatMessage("user", SECRET), ChatMessage("assistant", "ok")])
    await store.list_messages(last=10)
    await store.update_metadata({"title": SECRET})
    await store.list_threads()
    assert recorder.names() == [
        f"{name} agent_stores" for name in ("append", "latest", "update_metadata", "list_threads")
    ]
    spans = recorder.exporter.get_finished_spans()
    added, read = dict(spans[0].attributes or {}), dict(spans[1].attributes or {})
    assert added["db.system.name"] == "sqlite"
    assert added["db.operation.name"] == "append"
    assert added["agent_stores.rows"] == read["agent_stores.rows"] == 2
    assert added["agent_stores.bytes"] == read["agent_stores.bytes"]
    for word in (SECRET, "alice", "acme"):
        assert word not in recorder.text()
    await log.aclose()


@pytest.mark.anyio
async def test_ids_only_if_asked() -> None:
    recorder = Recorder()
    store = ChatMessageStore(
        recorder.instrument(InMemoryMessageLog(), include_ids=True), thread_id="t1", tenant="acme"
    )
    await store.add_messages([ChatMessage("user", "x")])
    attributes = dict(recorder.exporter.get_finished_spans()[0].attributes or {})
    assert (attributes["gen_ai.conversation.id"], attributes["agent_stores.tenant"]) == ("t1", "acme")


@pytest.mark.anyio
async def test_errors_and_conflicts_are_counted(tmp_path: Path) -> None:
    recorder = Recorder()
    log = recorder.instrument(open_log(str(tmp_path / "chat.db")))
    store = ChatMessageStore(log, thread_id="t")
    await store.add_messages([ChatMessage("user", "x")])
    with pytest.raises(ConflictError):
        await store.update_metadata({"a": 1}, expected_revision=7)
    span = recorder.exporter.get_finished_spans()[-1]
    assert dict(span.attributes or {})["error.type"] == "ConflictError"
    assert not span.events
    await asyncio.gather(*(store.update_metadata({str(n): n}) for n in range(20)))
    spans: list[dict[str, Any]] = [
        dict(span.attributes or {}) for span in recorder.exporter.get_finished_spans()
    ]
    conflicts = sum(attributes["agent_stores.conflicts"] for attributes in spans)
    data = recorder.reader.get_metrics_data()
    assert data is not None
    metrics: dict[str, Any] = {
        metric.name: metric.data
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    assert sum(point.count for point in metrics["db.client.operation.duration"].data_points) == 22
    counted = metrics["agent_stores.conflicts"].data_points if conflicts else []
    assert sum(point.value for point in counted) == conflicts
    await log.aclose()


def test_spans_of_the_synchronous_view_have_their_parent(tmp_path: Path) -> None:
    recorder = Recorder()
    log = recorder.instrument(open_log(str(tmp_path / "chat.db")))
    tracer = recorder.tracers.get_tracer("application")
    with tracer.start_as_current_span("turn") as parent:
        SyncChatMessageStore(ChatMessageStore(log, thread_id="t")).add_messages([ChatMessage("user", "x")])
    span = recorder.exporter.get_finished_spans()[0]
    assert span.name == "append agent_stores"
    assert span.parent is not None
    assert span.parent.span_id == parent.get_span_context().span_id


@pytest.mark.anyio
async def test_commits_that_are_made_again_are_counted() -> None:
    recorder = Recorder()
    log = InMemoryMessageLog()
    commit, results = log.backend.commit, [VersionConflict(), OutcomeUnknownError("lost"), None]

    async def unlucky(*args: Any, **kwargs: Any) -> Any:
        error = results.pop(0) if results else None
        if error is not None:
            raise error
        return await commit(*args, **kwargs)

    log.backend.commit = unlucky  # type: ignore[method-assign]
    recorder.instrument(log)
    store = ChatMessageStore(log, thread_id="t")
    await store.update_metadata({"a": 1})
    results[:] = [OutcomeUnknownError("lost")] * 9
    with pytest.raises(OutcomeUnknownError):
        await store.update_metadata({"a": 2})
    first, second = (dict(span.attributes or {}) for span in recorder.exporter.get_finished_spans())
    assert (first["agent_stores.conflicts"], first["agent_stores.retries"]) == (1, 2)
    assert (second["agent_stores.conflicts"], second["agent_stores.retries"]) == (0, 8 - len(results))
    assert second["error.type"] == "OutcomeUnknownError"
    assert '"name": "agent_stores.retries"' in recorder.text()


@pytest.mark.anyio
async def test_every_operation_has_a_span_with_the_id_of_its_conversation() -> None:
    recorder = Recorder()
    log = recorder.instrument(InMemoryMessageLog(), include_ids=True)
    store = ChatMessageStore(log, thread_id="t", tenant="acme")
    tracer = recorder.tracers.get_tracer("application")
    with tracer.start_as_current_span("turn") as parent:
        await store.add_messages([ChatMessage("user", SECRET, message_id=f"{n}") for n in range(4)])
        await store.list_messages(last=2)
        assert [m.position async for m in store.iter_messages()] == [1, 2, 3, 4]
        await store.get("1")
        await store.replace("1", ChatMessage("user", SECRET))
        await store.delete("1")
        await store.pop_last()
        await store.update_metadata({"title": SECRET})
        await store.stats()
        await store.set_ttl(60)
        await store.search(SECRET)
        await store.list_threads()
        await (await store.fork("u")).delete_thread()
        await store.replace_all([ChatMessage("user", SECRET)])
        await store.clear()
        await log.create(ThreadKey("acme", "v"), NewThread(metadata={"a": SECRET}))
        await log.list_tenants()
        await log.purge_expired()
    *spans, turn = recorder.exporter.get_finished_spans()
    assert turn.name == "turn"
    assert {span.name.split()[0] for span in spans} == set(OPERATIONS)
    for span in spans:  # `get` reads, so that the parent of a span may be another operation's
        assert span.parent is not None
        assert span.parent.trace_id == parent.get_span_context().trace_id
        attributes = dict(span.attributes or {})
        of_all = attributes["db.operation.name"] in (
            "list_threads",
            "list_tenants",
            "purge_expired",
            "search",
        )
        assert ("gen_ai.conversation.id" in attributes) != of_all
    assert SECRET not in recorder.text()


def test_spans_of_a_synchronous_view_on_another_thread_have_their_parent() -> None:
    """Data keys need an event loop, which is on a thread of its own."""
    recorder = Recorder()
    keys = DataKeys(LocalKeyService(KeyRing({"k": bytes(32)}, "k")), InMemoryMessageLog())
    log = recorder.instrument(InMemoryMessageLog(encryption=keys))
    assert not log.supports_inline
    tracer = recorder.tracers.get_tracer("application")
    view = SyncChatMessageStore(ChatMessageStore(log, thread_id="t"))
    with tracer.start_as_current_span("turn") as parent:
        view.add_messages([ChatMessage("user", "x")])
        assert len(list(view.iter_messages())) == 1
    *spans, _ = recorder.exporter.get_finished_spans()
    assert len(spans) >= 2
    for span in spans:
        assert span.parent is not None
        assert span.parent.span_id == parent.get_span_context().span_id


def test_a_log_that_is_not_instrumented_has_no_cost() -> None:
    """Neither a wrapper around a method, nor an import."""
    log = InMemoryMessageLog()
    assert not set(OPERATIONS) & set(vars(log))
    assert "commit" not in vars(log.backend)
    code = (
        "import asyncio, sys\nfrom agent_stores import ChatMessage, InMemoryChatMessageStore\n"
        "store = InMemoryChatMessageStore()\nasyncio.run(store.add_messages([ChatMessage('user', 'x')]))\n"
        "assert not [name for name in sys.modules if 'opentelemetry' in name or 'telemetry' in name]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_operation_exists_and_twice_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    methods = inspect.getmembers(MessageLog, inspect.iscoroutinefunction)
    assert {name for name, _ in methods if not name.startswith("_")} == {*OPERATIONS, "aclose"}
    log = Recorder().instrument(InMemoryMessageLog())
    with pytest.raises(ArgumentError, match="twice"):
        Recorder().instrument(log)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(MissingDependencyError, match=r"agent-stores\[otel\]"):
        instrument(InMemoryMessageLog())
