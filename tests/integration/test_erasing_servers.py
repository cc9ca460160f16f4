"""After an erasure, planted words are nowhere on a server, read without this library.

Nor in the files of attachments, nor in what mem0's platform remembers of the user.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from agent_stores import (
    Attachments,
    ChatMessage,
    ChatMessageStore,
    DataContent,
    MessageLog,
    erase,
    open_log,
)
from agent_stores.mem0 import Mem0Provider
from tests.servers.azurite import AzuriteServer
from tests.servers.dynamodb import DynamoDBServer
from tests.servers.mariadb import MariaDBServer
from tests.servers.mem0_platform import Mem0Platform
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer

pytestmark = pytest.mark.anyio
WORD, KEPT = "plantedzebra", "keptwalrus"


@pytest.fixture
def attachments(tmp_path: Path) -> Attachments:
    """Files of this test."""
    return Attachments(tmp_path / "attachments", over=100)


async def check(
    log: MessageLog,
    attachments: Attachments,
    everything: Callable[[], Awaitable[str]],
    *,
    search: bool = False,
) -> None:
    """Plant words in threads, forks, attachments and memories; erase them; look for them everywhere."""
    with Mem0Platform() as platform:
        await check_with(platform, log, attachments, everything, search=search)


async def check_with(
    platform: Mem0Platform,
    log: MessageLog,
    attachments: Attachments,
    scan: Callable[[], Awaitable[str]],
    *,
    search: bool,
) -> None:
    """See `check`."""

    def files() -> str:
        found = attachments.filesystem.find(attachments.path)
        return repr([(name, attachments.filesystem.cat_file(name)) for name in found])

    async def everything() -> str:
        memories = [memory["memory"] for memory in platform.memories]
        return "".join([await scan(), await asyncio.to_thread(files), *memories])

    def store(name: str, **options: Any) -> ChatMessageStore[ChatMessage]:
        return ChatMessageStore(log, thread_id=name, tenant=f"{WORD}-erasure", **options)

    first = store(f"{WORD}-1", metadata={"title": WORD})
    await first.add_messages(
        [ChatMessage("user", f"{WORD} {n}", message_id=f"{WORD}-{n}") for n in range(60)]
    )
    await first.add_messages([ChatMessage("user", f"{WORD} " * 60_000)])
    if search:
        assert await first.search(WORD)
    second = await first.fork(f"{WORD}-2")
    await (await second.fork(f"{WORD}-3", at=5)).update_metadata({"title": "another"})
    await second.delete_thread()
    for name, words in ((f"{WORD}-1", (WORD, "shared")), (f"{WORD}-3", (f"{WORD} of a fork",))):
        data = [DataContent(word.encode() * 50, "image/png") for word in words]
        await store(name).add_messages([ChatMessage("user", contents=data)])
    platform.remember(WORD, user_id="alice")
    platform.remember(KEPT, user_id="bob")
    await store(f"{WORD}-4", ttl=3600).add_messages([ChatMessage("user", WORD)])
    await store(f"{WORD}-4").set_ttl(7200)
    other = ChatMessageStore(log, thread_id=KEPT, tenant=KEPT)
    await other.add_messages([ChatMessage("user", contents=[DataContent(KEPT.encode() * 50, "image/png")])])
    assert (await everything()).count(WORD) > (await scan()).count(WORD) + 100
    provider = Mem0Provider(api_key=platform.api_key, host=platform.host, user_id="alice")
    for removed in (3, 0):
        receipt = await erase(
            log, tenant=f"{WORD}-erasure", thread_ids=[f"{WORD}-1", f"{WORD}-4"], providers=[provider]
        )
        assert receipt["complete"]
        assert (receipt["removed"]["threads"], receipt["removed"]["forks"]) == (removed, removed // 3)
        assert receipt["attachments"] == {"found": removed, "removed": removed, "remaining": 0}
        assert receipt["providers"][0]["removed"] == removed // 3
        found = await everything()
        assert WORD not in found
        assert KEPT in found
    await provider.aclose()
    assert [memory["memory"] for memory in platform.memories] == [KEPT]
    assert len(await other.list_messages()) == 1
    await other.delete_thread()
    await log.aclose()


async def test_postgresql(postgres_server: PostgresServer, attachments: Attachments) -> None:
    log = open_log(postgres_server.url, table_prefix="erasure_", attachments=attachments)

    async def everything() -> str:
        import psycopg

        async with await psycopg.AsyncConnection.connect(postgres_server.url) as connection:
            query = "SELECT tablename FROM pg_tables WHERE tablename LIKE 'erasure%'"
            tables = await (await connection.execute(query)).fetchall()
            assert len(tables) == 4  # the search index, too
            rows = []
            for (table,) in tables:
                rows += await (await connection.execute(f"SELECT {table}::text FROM {table}")).fetchall()
            return repr(rows)

    await check(log, attachments, everything, search=True)


async def test_mariadb(mariadb_server: MariaDBServer, attachments: Attachments) -> None:
    log = open_log(mariadb_server.url, table_prefix="erasure_", attachments=attachments)
    database = log.backend.database  # type: ignore[attr-defined]

    async def everything() -> str:
        tables = ("erasure_threads", "erasure_messages")
        return repr([await database.run((f"SELECT * FROM {table}", ())) for table in tables])

    await check(log, attachments, everything)


async def test_valkey(valkey_server: RedisServer, attachments: Attachments) -> None:
    import redis.asyncio

    log = open_log(valkey_server.url, key_prefix="erasure", attachments=attachments)
    client = redis.asyncio.Redis.from_url(valkey_server.url)

    async def everything() -> str:
        found: list[Any] = []
        async for key in client.scan_iter(match="erasure*"):
            found.append((key, await client.dump(key)))
            kind = await client.type(key)
            if kind == b"hash":
                found.append(await client.hgetall(key))
            elif kind == b"list":
                found.append(await client.lrange(key, 0, -1))
            elif kind == b"zset":
                found.append(await client.zrange(key, 0, -1))
        return repr(found)

    await check(log, attachments, everything)
    await client.aclose()


async def test_azure_tables(azurite_server: AzuriteServer, attachments: Attachments) -> None:
    from azure.data.tables.aio import TableClient

    url = azurite_server.connection_string
    log = open_log(url, table_name="erasure", attachments=attachments)
    client = TableClient.from_connection_string(url, "erasure")

    async def everything() -> str:
        return repr([dict(entity) async for entity in client.list_entities()])

    await check(log, attachments, everything)
    await client.close()


async def test_dynamodb(dynamodb_server: DynamoDBServer, attachments: Attachments) -> None:
    from aiobotocore.session import get_session

    log = open_log(
        "dynamodb://us-east-1/erasure", endpoint_url=dynamodb_server.endpoint, attachments=attachments
    )

    async def everything() -> str:
        client = get_session().create_client("dynamodb", "us-east-1", endpoint_url=dynamodb_server.endpoint)
        async with client as service:
            start: dict[str, Any] = {}
            found = []
            while True:
                page = await service.scan(TableName="erasure", **start)
                found.append(page["Items"])
                if "LastEvaluatedKey" not in page:
                    return repr(found)
                start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}

    await check(log, attachments, everything)
