"""Writes conversations with Pydantic AI harness; run in an environment of it.

    python harness.py FILE save|more

On the output are the conversations as the harness reads them: their messages as JSON, by their ids.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from pydantic_ai import Agent, BinaryContent
from pydantic_ai.messages import (
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelResponse,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai_harness.step_persistence import SqliteStepStore, StepPersistence, continue_run
from pydantic_ai_harness.step_persistence.conversations import ConversationSummary, SqliteConversationStore

IMAGE = bytes(range(256)) * 400  # is kept apart, as is the text below
MESSAGES: list[ModelMessage] = [
    ModelRequest(
        parts=[
            UserPromptPart(["The weather? \U0001f600", BinaryContent(IMAGE, media_type="image/png")]),
        ]
    ),
    ModelResponse(
        parts=[
            ToolCallPart("weather", {"city": "Oslo"}, tool_call_id="a"),
            ToolCallPart("weather", {"city": "Bergen"}, tool_call_id="b"),
        ]
    ),
    ModelRequest(
        parts=[
            ToolReturnPart("weather", "rain " * 30_000, tool_call_id="a"),
            # What the application returns may look like a reference of the harness.
            ToolReturnPart("weather", {"__harness_external_media__": True, "uri": "x"}, tool_call_id="b"),
        ]
    ),
    ModelResponse(parts=[TextPart("Rain and sun.")]),
]
SAVED = ("plain", "o'brien: \u2603")


def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    """Calls the tool once, and then answers."""
    is_told = any(isinstance(part, ToolReturnPart) for part in messages[-1].parts)
    return ModelResponse(parts=[TextPart("It rains.") if is_told else ToolCallPart("weather", {}, "c1")])


async def run(steps: SqliteStepStore, run_id: str, prompt: str, history: list[ModelMessage]) -> None:
    """A run whose steps are kept, of the conversation ``steps``."""
    capability: Any = StepPersistence(store=steps, run_id=run_id)
    agent: Any = Agent(FunctionModel(answer), capabilities=[capability])
    agent.tool_plain(name="weather")(lambda: "rain")
    await agent.run(prompt, message_history=history, conversation_id="steps")


async def main(file: Path, action: str) -> None:
    """Write, and read all of it."""
    conversations, steps = SqliteConversationStore(database=file), SqliteStepStore(database=file)
    last = "first"
    if action == "save":
        for name in SAVED:
            await conversations.save(
                summary=ConversationSummary(id=name, workspace="w", title="Weather"), messages=MESSAGES
            )
        await run(steps, "first", "weather?", [])
    else:
        saved = await conversations.get(conversation_id="plain")
        more = [*saved.messages, ModelRequest(parts=[UserPromptPart("And then?")])]
        await conversations.save(summary=saved.summary, messages=more)
        await run(steps, "second", "And now?", await continue_run(steps, run_id="first"))
        last = "second"
    found = {name: (await conversations.get(conversation_id=name)).messages for name in SAVED}
    found["steps"] = await continue_run(steps, run_id=last)
    shown = {
        name: ModelMessagesTypeAdapter.dump_python(messages, mode="json") for name, messages in found.items()
    }
    print(json.dumps(shown))


asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
