"""After an erasure, planted words are nowhere on a server, read without this library."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from agent_stores import ChatMessage, ChatMessageStore, MessageLog, erase, open_log
from tests.servers.azurite import AzuriteServer
from tests.servers.dynamodb import DynamoDBServer
from tests.servers.mariadb import MariaDBServer
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer

pytestmark = pytest.mark.anyio
WORD, KEPT = "plantedzebra", "keptwalrus"


async def check(log: MessageLog, everything: Callable[[], Awaitable[str]], *, search: bool = False) -> None:
    """Plant words in threads, forks and expiring threads; erase them; look for them everywhere."""

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
    await store(f"{WORD}-4", ttl=3600).add_messages([ChatMessage("user", WORD)])
    await store(f"{WORD}-4").set_ttl(7200)
    other = ChatMessageStore(log, thread_id=KEPT, tenant=KEPT)
    await other.add_messages([ChatMessage("user", KEPT)])
    assert WORD in await everything()
    receipt = await erase(log, tenant=f"{WORD}-erasure", thread_ids=[f"{WORD}-1", f"{WORD}-4"])
    assert receipt["complete"]
    assert (receipt["removed"]["threads"], receipt["removed"]["forks"]) == (3, 1)
    found = await everything()
    assert WORD not in found
    assert KEPT in found
    assert len(await other.list_messages()) == 1
    await other.delete_thread()
    await log.aclose()


async def test_postgresql(postgres_server: PostgresServer) -> None:
    log = open_log(postgres_server.url, table_prefix="erasure_")

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

    await check(log, everything, search=True)


async def test_mariadb(mariadb_server: MariaDBServer) -> None:
    log = open_log(mariadb_server.url, table_prefix="erasure_")
    database = log.backend.database  # type: ignore[attr-defined]

    async def everything() -> str:
        tables = ("erasure_threads", "erasure_messages")
        return repr([await database.run((f"SELECT * FROM {table}", ())) for table in tables])

    await check(log, everything)


async def test_valkey(valkey_server: RedisServer) -> None:
    import redis.asyncio

    log = open_log(valkey_server.url, key_prefix="erasure")
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

    await check(log, everything)
    await client.aclose()


async def test_azure_tables(azurite_server: AzuriteServer) -> None:
    from azure.data.tables.aio import TableClient

    url = azurite_server.connection_string
    log = open_log(url, table_name="erasure")
    client = TableClient.from_connection_string(url, "erasure")

    async def everything() -> str:
        return repr([dict(entity) async for entity in client.list_entities()])

    await check(log, everything)
    await client.close()


async def test_dynamodb(dynamodb_server: DynamoDBServer) -> None:
    from aiobotocore.session import get_session

    log = open_log("dynamodb://us-east-1/erasure", endpoint_url=dynamodb_server.endpoint)

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

    await check(log, everything)
