"""LangChain's histories in DynamoDB, written by the real package, and read as the package reads them."""

from __future__ import annotations

import asyncio
import os
import uuid
from typing import Any

import pytest

from agent_stores import ChatMessage
from agent_stores.importers.registry import open_source
from agent_stores.importers.source import SourceThread
from tests.importers.conftest import Peers
from tests.importers.peers import CONVERSATION
from tests.importers.test_layouts import check_neutral, langchain_dump
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
def test_langchain_dynamodb(peers: Peers, dynamodb_server: DynamoDBServer, is_composite: bool) -> None:
    table = f"Sessions-{uuid.uuid4().hex[:8]}"
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
    found = read_all(url, endpoint_url=dynamodb_server.endpoint)
    ids = [f"{name}:chat" if is_composite else name for name in IDS]
    assert sorted(found) == sorted(ids)
    for name, wanted in zip(ids, written, strict=True):
        thread, messages = found[name]
        assert thread.expires_in is not None
        assert 3000 < thread.expires_in <= 3600
        check_neutral(messages)
        assert langchain_dump(messages) == wanted
    assert read_all(f"{url}-none", endpoint_url=dynamodb_server.endpoint) == {}
