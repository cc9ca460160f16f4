"""The tables stores where event loops end without a word, and after a fork: nothing stays open or is said."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.integration.leaving import leave

MAKE = """
from agent_stores import AzureTableChatMessageStore, DynamoDBChatMessageStore

kind, where, table = sys.argv[1:]
if kind == "azure":
    store = AzureTableChatMessageStore(where, table_name=table, thread_id="t")
else:
    store = DynamoDBChatMessageStore(table, region_name="eu-central-1", endpoint_url=where, thread_id="t")
"""


@pytest.mark.parametrize("kind", ["azure", "dynamodb"])
def test_nothing_is_left_behind_or_said(kind: str, request: pytest.FixtureRequest) -> None:
    server: Any = request.getfixturevalue("azurite_server" if kind == "azure" else "dynamodb_server")
    where = server.connection_string if kind == "azure" else server.endpoint
    # Python's development mode has aiohttp reject moto's two "Server" headers.
    options = ["-X", "dev"] if kind == "azure" else []
    found = leave(MAKE, kind, where, f"leaving{uuid.uuid4().hex[:12]}", options=options)
    assert found == ["True", "0", *"123456"]
