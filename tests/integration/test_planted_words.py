"""With encryption, words of messages, metadata and attachments are in no server, file, log, error or span."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import os
import traceback
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import agent_stores.backends.tables.dynamodb  # noqa: F401 - the SDK reads files with its import
from agent_stores import (
    AgentStoresError,
    Attachments,
    ChatMessage,
    ChatMessageStore,
    DataContent,
    DataKeys,
    KeyRing,
    LocalKeyService,
    MessageLog,
    open_log,
    rekey,
)
from agent_stores.azure import AzureTableMessageLog
from agent_stores.backend import Change, RowRange, ThreadKey
from agent_stores.contents import ToolCallContent, ToolResultContent
from agent_stores.dynamodb import DynamoDBMessageLog
from agent_stores.encryption import Keys
from agent_stores.telemetry import instrument
from tests.conformance.targets import innermost

pytestmark = pytest.mark.anyio

Open = Callable[[Keys | None], MessageLog]
Scan = Callable[[], Awaitable[bytes]]


class Server(NamedTuple):
    """A server.

    Attributes:
        open: opens a log on it, with attachments in a folder.
        scan: everything that it has stored, and that folder.
    """

    open: Open
    scan: Scan


@pytest.fixture
def word() -> str:
    """A word that is nowhere else."""
    return f"planted{uuid.uuid4().hex}"


@pytest.fixture(params=["sqlite", "postgresql", "mariadb", "valkey9", "redis62", "azurite", "dynamodb"])
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Server]:
    name, unique = request.param, f"p{uuid.uuid4().hex[:12]}"
    logs: list[MessageLog] = []
    folder = tmp_path / "attachments"

    def made(make: Callable[..., MessageLog], scan: Scan) -> Server:
        def opened(keys: Keys | None) -> MessageLog:
            logs.append(make(encryption=keys, attachments=Attachments(folder, over=1000)))
            return logs[-1]

        async def everything() -> bytes:
            return b"\n".join([await scan(), await asyncio.to_thread(_read_all, folder)])

        return Server(opened, everything)

    if name == "sqlite":
        path = tmp_path / "data" / "chat.db"
        await asyncio.to_thread(path.parent.mkdir)
        yield made(partial(open_log, path), lambda: asyncio.to_thread(_read_all, path.parent))
    elif name in ("postgresql", "mariadb"):
        running = request.getfixturevalue("postgres_server" if name == "postgresql" else "mariadb_server")
        url = await asyncio.to_thread(running.create_database, unique)
        yield made(partial(open_log, url), lambda: _rows_and_files(url, running.folder))
    elif name in ("valkey9", "redis62"):
        running = request.getfixturevalue("valkey_server" if name == "valkey9" else "redis62_server")
        yield made(
            partial(open_log, running.url, key_prefix=unique), lambda: asyncio.to_thread(_dump, running.url)
        )
    elif name == "azurite":
        running = request.getfixturevalue("azurite_server")
        text = running.connection_string
        yield made(
            partial(AzureTableMessageLog, text, table_name=unique),
            lambda: _entities(text, unique, running.folder),
        )
    else:
        running = request.getfixturevalue("dynamodb_server")
        where = {"region_name": running.region, "endpoint_url": running.endpoint}
        yield made(partial(DynamoDBMessageLog, unique, **where), lambda: _items(running, unique))
    for log in logs:
        await log.aclose()


def _read_all(folder: Path) -> bytes:
    content = []
    for file in folder.rglob("*"):
        with contextlib.suppress(OSError):
            if file.is_file():
                content.append(file.read_bytes())
    return b"\n".join(content)


async def _rows_and_files(url: str, folder: Path) -> bytes:
    import sqlalchemy

    def read() -> bytes:
        driver = "postgresql+psycopg" if url.startswith("postgresql") else "mariadb+pymysql"
        engine = sqlalchemy.create_engine(f"{driver}{url[url.index('://') :]}")
        content = []
        with engine.connect() as connection:
            for table in sqlalchemy.inspect(connection).get_table_names():
                for row in connection.execute(sqlalchemy.text(f"SELECT * FROM {table}")):
                    content.append(_flatten(list(row)))
        engine.dispose()
        return b"\n".join([*content, _read_all(folder)])

    return await asyncio.to_thread(read)


def _dump(url: str) -> bytes:
    import redis

    content = []
    client = redis.Redis.from_url(url)
    for key in client.scan_iter():
        kind = bytes(client.type(key))  # type: ignore[arg-type]
        read: dict[bytes, Callable[[], Any]] = {
            b"hash": lambda key=key: client.hgetall(key),  # type: ignore[misc]
            b"list": lambda key=key: client.lrange(key, 0, -1),  # type: ignore[misc]
            b"zset": lambda key=key: client.zrange(key, 0, -1),  # type: ignore[misc]
            b"string": lambda key=key: client.get(key),  # type: ignore[misc]
            b"set": lambda key=key: client.smembers(key),  # type: ignore[misc]
        }
        content.append(_flatten([key, read[kind](), client.dump(key)]))
    client.close()
    return b"\n".join(content)


async def _entities(connection_string: str, table: str, folder: Path) -> bytes:
    from azure.data.tables.aio import TableServiceClient

    async with TableServiceClient.from_connection_string(connection_string) as service:
        found = [entity async for entity in service.get_table_client(table).list_entities()]
    return _flatten([list(entity.values()) for entity in found]) + await asyncio.to_thread(_read_all, folder)


async def _items(running: Any, table: str) -> bytes:
    from aiobotocore.session import get_session

    client = get_session().create_client(
        "dynamodb", region_name=running.region, endpoint_url=running.endpoint
    )
    async with client as opened:
        pages = [page async for page in opened.get_paginator("scan").paginate(TableName=table)]
    return _flatten([page["Items"] for page in pages])


def _flatten(value: Any) -> bytes:
    if isinstance(value, dict):
        return _flatten([*value.keys(), *value.values()])
    if isinstance(value, (list, tuple, set)):
        return b"\n".join(map(_flatten, value))
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    return str(value).encode(errors="surrogatepass")


def forms(word: str) -> list[bytes]:
    """A word, and what every Base64 text that contains it has in common, whatever comes before it."""
    encoded = (base64.b64encode(b"x" * before + word.encode()) for before in range(3))
    return [word.encode(), *(text[4:-4] for text in encoded)]


async def use(log: MessageLog, word: str) -> list[str]:
    """Do everything that writes what a user said; returns the texts of errors."""
    errors: list[str] = []
    options: dict[str, Any] = {"tenant": "acme", "metadata": {"title": f"{word} title", "tags": [word]}}
    store = ChatMessageStore(
        log, thread_id="t", messages=[ChatMessage("system", f"{word} first", pinned=True)], **options
    )
    call = ToolCallContent("c", "search", f'{{"q": "{word}"}}')
    await store.add_messages(
        [
            ChatMessage("user", f"{word} " + os.urandom(40_000).hex(), message_id="a"),
            ChatMessage("assistant", contents=[call], additional_properties={word: word}),
            ChatMessage("tool", contents=[ToolResultContent("c", {word: [word]})]),
        ]
    )
    files = ChatMessageStore(log, thread_id="files", **options)
    data = [DataContent(word.encode() * times, "image/png", filename=word) for times in (3, 100)]
    await files.add_messages([ChatMessage("user", contents=data)])
    assert (await files.list_messages())[0].contents == tuple(data)
    await (await files.fork("more files")).aclose()
    await store.replace("a", ChatMessage("user", f"{word} again"))
    await store.update_metadata({"more": {word: 1}})
    await (await store.fork("branch")).aclose()
    rewritten = ChatMessageStore(log, thread_id="rewritten", **options)
    await rewritten.add_messages([ChatMessage("user", word)])
    await rewritten.replace_all([ChatMessage("user", f"{word} new")])
    trimmed = ChatMessageStore(log, thread_id="trimmed", max_messages=2, **options)
    for _ in range(5):
        await trimmed.add_messages([ChatMessage("user", word)])
    many = ChatMessageStore(log, thread_id="many", **options)
    await many.add_messages([ChatMessage("user", f"{word} {n}") for n in range(250)])
    assert len(await store.list_messages()) == 4
    assert (await store.metadata())["tags"] == [word]
    for failing in (
        lambda: store.update_metadata({"large": word * 10_000}),
        lambda: store.search(word),
        lambda: store.add_messages([ChatMessage("user", word)], expected_position=1),
        lambda: store.update_metadata({"x": word}, expected_revision=99),
    ):
        with contextlib.suppress(AgentStoresError, TypeError):
            try:
                await failing()
            except Exception as error:
                errors.append("".join(traceback.format_exception(error)) + repr(error))
                raise
    return errors


async def damage(log: MessageLog) -> list[str]:
    """Errors of reading with wrong keys, and of what was moved."""
    inner = innermost(log.backend)
    from msgspec.structs import replace

    key = ThreadKey("acme", "many")
    found = await inner.rows(key, RowRange(limit=2))
    assert found is not None
    one, two = found.rows
    await inner.commit(key, Change(found.thread, found.version, [replace(one, body=two.body)]))
    errors = []
    other = MessageLog(inner, encryption=KeyRing({"other": bytes(32)}, "other"))
    for opened in (log, MessageLog(inner), other):
        store = ChatMessageStore(opened, thread_id="many", tenant="acme")
        for read in (store.list_messages, store.stats, store.pop_last):
            try:
                await read()
            except AgentStoresError as error:
                errors.append("".join(traceback.format_exception(error)) + repr(error))
    return errors


class Spans:
    """Telemetry that keeps what it records."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider(metric_readers=[self.reader])

    def text(self) -> str:
        spans = "".join(span.to_json() for span in self.exporter.get_finished_spans())
        metrics = self.reader.get_metrics_data()
        assert spans
        assert metrics
        return spans + metrics.to_json()


@pytest.fixture
def everything_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.DEBUG):
        yield caplog


async def lose(log: MessageLog, folder: Path) -> list[str]:
    """Errors of attachments that were changed."""
    store = ChatMessageStore(log, thread_id="files", tenant="acme")
    for file in [each for each in await asyncio.to_thread(lambda: [*folder.rglob("*")]) if each.is_file()]:
        if "@" not in file.name:
            file.write_bytes(file.read_bytes()[:-9])
    errors = []
    for failing in (store.list_messages, store.pop_last, lambda: store.fork("another")):
        try:
            await failing()
        except AgentStoresError as error:
            errors.append("".join(traceback.format_exception(error)) + repr(error))
    return errors


async def test_words_are_nowhere(
    server: Server, word: str, everything_is_logged: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    key = os.urandom(32)
    spans = Spans()
    log = instrument(
        server.open(KeyRing({"k": key}, "k")),
        tracer_provider=spans.tracers,
        meter_provider=spans.meters,
        include_ids=True,
    )
    errors = await use(log, word)
    errors += await damage(log)
    assert len(errors) >= 8
    stored = await server.scan()
    assert b'"$encrypted":1' in stored
    lost = await lose(log, tmp_path / "attachments")
    assert lost
    errors += lost
    secrets = [*forms(word), key, key.hex().encode(), base64.b64encode(key)]
    for where in (
        stored,
        "".join(errors).encode(),
        spans.text().encode(),
        everything_is_logged.text.encode(),
    ):
        assert not [secret for secret in secrets if secret in where]


async def test_the_search_for_words_finds_what_is_in_the_clear_until_rekey(
    server: Server, word: str, tmp_path: Path
) -> None:
    await use(server.open(None), word)
    assert word.encode() in await server.scan()
    assert word.encode() in await asyncio.to_thread(_read_all, tmp_path / "attachments")
    log = server.open(KeyRing({"k": os.urandom(32)}, "k"))
    report = await rekey(log.backend, "acme")
    assert (report.complete, report.attachments) == (True, 1)
    files = await asyncio.to_thread(_read_all, tmp_path / "attachments")
    assert not any(form in files for form in forms(word))
    store = ChatMessageStore(log, thread_id="many", tenant="acme")
    assert [m.text for m in await store.list_messages()] == [f"{word} {n}" for n in range(250)]
    for thread_id in ("t", "branch", "rewritten", "trimmed", "many", "files", "more files"):
        rows = await innermost(log.backend).rows(_key(thread_id), RowRange())
        assert rows is not None
        assert not any(form in row.body for row in rows.rows for form in forms(word))
        assert word.encode() not in _flatten(rows.thread.metadata)


def _key(thread_id: str) -> ThreadKey:
    return ThreadKey("acme", thread_id)


async def test_data_keys_are_nowhere_unwrapped(server: Server, word: str) -> None:
    seen: list[bytes] = []

    class Service(LocalKeyService):
        async def wrap(self, data_key: bytes, context: Any) -> bytes:
            seen.append(data_key)
            return await super().wrap(data_key, context)

    service = Service(KeyRing({"master": os.urandom(32)}, "master"))
    keys = DataKeys(service, server.open(None), per="tenant")
    log = server.open(keys)
    await ChatMessageStore(log, thread_id="t", tenant="acme", metadata={"a": word}).add_messages(
        [ChatMessage("user", word)]
    )
    stored = await server.scan()
    assert seen
    for secret in (word.encode(), seen[0], base64.b64encode(seen[0]), seen[0].hex().encode()):
        assert secret not in stored
