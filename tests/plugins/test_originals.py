"""The stores of LlamaIndex and LangChain, and ours of the same names: one suite on both, on real servers."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.plugins.environments import environment, run_tests
from tests.servers.azurite import AzuriteServer
from tests.servers.redis import RedisServer

PACKAGES = (
    "langchain-community>=0.4",
    "langchain-redis>=0.2.6",
    "llama-index-storage-chat-store-redis>=0.8",
    "llama-index-storage-chat-store-azure>=0.6",
    "aiohttp",
    "aiosqlite",
)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("framework", ["llama_index", "langchain"])
def test_as_the_originals(
    framework: str,
    valkey_server: RedisServer,
    azurite_server: AzuriteServer,
    record_property: Callable[[str, object], None],
) -> None:
    said = run_tests(
        environment("originals", *PACKAGES),
        *("--confcutdir=tests/plugins", "-W", "ignore", "-rx"),
        f"tests/plugins/originals/test_{framework}.py",
        ORIGINALS_REDIS=valkey_server.url,
        ORIGINALS_AZURE=azurite_server.connection_string,
    )
    assert "skipped" not in said
    *shown, total = said.splitlines()
    reasons = {line.partition(" - ")[2] for line in shown if line.startswith("XFAIL ")}
    record_property("judge", "; ".join([f"{framework}, its own stores and ours: {total.strip()}", *reasons]))
