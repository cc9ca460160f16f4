"""The code of the page runs as it is printed, in the versions that it names."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from openai import AsyncOpenAI

from agent_stores.testing.model_server import ModelServer
from tests.docs.running import blocks_of, run_block
from tests.plugins.agent_framework_beta.agents import OpenAIChatClient
from tests.plugins.environments import REPOSITORY

pytestmark = pytest.mark.anyio

PAGE = REPOSITORY / "docs" / "plugins-agent-framework-beta.md"


async def test_the_page(model_server: ModelServer) -> None:
    async with AsyncOpenAI(api_key="k", base_url=model_server.base_url) as openai:
        names: dict[str, Any] = {
            "SECRET": "a secret",
            "client": OpenAIChatClient(model_id="test-model", async_client=openai),
            "json": json,
            "url": os.environ["AGENT_STORES_TEST_REDIS"],
        }
        first, second = blocks_of(PAGE)
        assert run_block(first, PAGE.name, names) is None
        agent = names["agent"]
        thread = agent.get_new_thread()
        await agent.run("My name is Alice", thread=thread)
        assert (await agent.run("What's my name?", thread=thread)).text == "Your name is Alice."
        assert await thread.message_store.count() == 4
        await thread.message_store.aclose()
        coroutine = run_block(second, PAGE.name, names)
        assert coroutine is not None
        await coroutine
        agent, restored = names["agent"], names["restored"]
        assert (await agent.run("What's my name?", thread=restored)).text == "Your name is Alice."
        assert await restored.message_store.count() == 4
        await names["stores"].aclose()
