"""The code of the page runs as it is printed, given what the page leaves to its reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from agent_framework import Agent, WorkflowBuilder, WorkflowContext, executor
from agent_framework.openai import OpenAIChatCompletionClient
from openai import AsyncOpenAI

from agent_stores import Context
from agent_stores.testing.model_server import ModelServer
from tests.docs.running import blocks_of, run_block
from tests.plugins.environments import REPOSITORY
from tests.servers.redis import RedisServer

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:.*SessionStore is experimental:FutureWarning"),
]

PAGE = REPOSITORY / "docs" / "plugins-agent-framework.md"


class Provider:
    """A context provider of this library."""

    async def thread_created(self, thread_id: str | None) -> None:
        return None

    async def invoking(self, messages: Any, **kwargs: Any) -> Context:
        return Context(instructions="Be brief.")

    async def invoked(self, *args: Any, **kwargs: Any) -> None:
        return None

    async def __aenter__(self) -> Provider:
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        return None


@executor(id="writer")
async def writer(subject: str, context: WorkflowContext[str, str]) -> None:
    await context.yield_output(f"{subject}: ...")


async def test_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_server: ModelServer, valkey_server: RedisServer
) -> None:
    monkeypatch.chdir(tmp_path)
    async with AsyncOpenAI(api_key="k", base_url=model_server.base_url) as openai:
        client = OpenAIChatCompletionClient(model="test-model", async_client=openai)
        names: dict[str, Any] = {
            "Agent": Agent,
            "WorkflowBuilder": WorkflowBuilder,
            "client": client,
            "provider": Provider(),
            "writer": writer,
        }
        for code in blocks_of(PAGE):
            code = code.replace("redis://localhost:6379", valkey_server.url)
            if (coroutine := run_block(code, PAGE.name, names)) is not None:
                await coroutine
        found = await names["history"].get_messages("user_123")
        assert [message.role for message in found] == ["user", "assistant"]
        assert names["session"].session_id == "user_123"
        assert names["latest"].workflow_name == "review"
        for one in ("history", "sessions", "checkpoints"):
            await names[one].aclose()
