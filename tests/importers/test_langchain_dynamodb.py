"""LangChain's histories in DynamoDB, written by the real package, read as it reads them, and migrated."""

from __future__ import annotations

import asyncio
import os
import uuid
from datetime import datetime, timezone
from typing import Any

import pytest

from agent_stores import ChatMessage
from agent_stores.importers.registry import open_source
from agent_stores.importers.source import SourceThread
from tests.importers.conftest import Peers
from tests.importers.peers import CONVERSATION
from tests.importers.support import Done, read, run_migration, threads
from tests.importers.test_layouts import check_neutral, check_whole, langchain_dump, with_ids
from tests.servers.dynamodb import DynamoDBServer

pytestmark = pytest.mark.timeout(900)  # an environment may have to be made first

IDS = ("plain", "o'brien:\n{x} \u2603 \U0001f600")


def read_all(url: str, **options: str) -> dict[str, tuple[SourceThread, list[ChatMessage]]]:
    async def work() -> dict[str, tuple[SourceThread, list[ChatMessage]]]:
        source = open_source(url, options)
        found = {}
        async for thread in source.threads():
            messages = []
            async for page in source.pages(thread):
                assert all(each.problem is None for each in page)
                messages += [each.message for each in page if each.message is not None]
            found[thread.thread_id] = (thread, messages)
        await source.aclose()
        return found

    return asyncio.run(work())


@pytest.mark.parametrize("is_composite", [False, True])
def test_langchain_dynamodb(
    peers: Peers,
    dynamodb_server: DynamoDBServer,
    target: str,
    is_composite: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = uuid.uuid4().hex[:8]
    table = f"Sessions-{name}"
    options: dict[str, Any] = {"table_name": table, "ttl": 3600, "composite": is_composite}
    names = ("SessionId", "App") if is_composite else ("SessionId",)

    async def create() -> None:
        from aiobotocore.session import get_session

        async with get_session().create_client(
            "dynamodb", region_name=dynamodb_server.region, endpoint_url=dynamodb_server.endpoint
        ) as client:
            await client.create_table(
                TableName=table,
                KeySchema=[
                    {"AttributeName": name, "KeyType": kind}
                    for name, kind in zip(names, ("HASH", "RANGE"), strict=False)
                ],
                AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in names],
                BillingMode="PAY_PER_REQUEST",
            )

    asyncio.run(create())
    assert "AWS_ACCESS_KEY_ID" in os.environ
    written = peers(
        "langchain-dynamodb",
        dynamodb_server.endpoint,
        *({"thread": name, "add": CONVERSATION, "options": options} for name in IDS),
        *({"thread": name, "read": True, "options": options} for name in IDS),
    )
    url = f"langchain+dynamodb://{dynamodb_server.region}/{table}"
    endpoint = ("--from-option", f"endpoint_url={dynamodb_server.endpoint}")
    ids = [f"{name}:chat" if is_composite else name for name in IDS]
    wanted = dict(zip(ids, written, strict=True))

    found = read_all(url, endpoint_url=dynamodb_server.endpoint)
    assert sorted(found) == sorted(ids)
    for thread, messages in found.values():
        assert thread.expires_in is not None
        assert 3000 < thread.expires_in <= 3600
        assert langchain_dump(messages) == wanted[thread.thread_id]
    assert read_all(f"{url}-none", endpoint_url=dynamodb_server.endpoint) == {}

    check_migrated(run_migration(url, target, *endpoint), target, wanted)
    again = run_migration(url, target, *endpoint)
    assert (again.status, again.report["added"], again.report["present"]) == (0, 0, 20)
    # Also into a table of ours, both found as the SDK finds an endpoint.
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", dynamodb_server.endpoint)
    ours = f"dynamodb://{dynamodb_server.region}/ours-{name}"
    check_migrated(run_migration(url, ours), ours, wanted)


def check_migrated(done: Done, target: str, wanted: dict[str, Any]) -> None:
    check_whole(done)
    held = threads(target)
    assert sorted(held) == sorted(wanted)
    for name, dumps in wanted.items():
        expires_at = held[name].expires_at
        assert expires_at is not None
        assert 3000 < (expires_at - datetime.now(timezone.utc)).total_seconds() <= 3600
        messages = read(target, name)
        check_neutral(messages)
        migrated = langchain_dump(messages)
        with_ids([one["data"] for one in migrated], [one["data"] for one in dumps], "id")
        assert migrated == dumps
