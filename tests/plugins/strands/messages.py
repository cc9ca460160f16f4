"""Messages of Strands of every kind, and a model that needs no server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from strands.models import Model

from tests.plugins.conftest import PNG

Message = dict[str, Any]

IMAGE = {"image": {"format": "png", "source": {"bytes": PNG}}}


def use(call_id: str, **arguments: Any) -> Message:
    return {"toolUse": {"toolUseId": call_id, "name": "weather", "input": arguments}}


def result(call_id: str, *content: Message, status: str = "success") -> Message:
    return {"toolResult": {"toolUseId": call_id, "status": status, "content": list(content)}}


CONVERSATION: list[Message] = [
    {"role": "user", "content": [{"text": "The weather in Oslo and Bergen?"}, IMAGE]},
    {
        "role": "assistant",
        "content": [
            {"reasoningContent": {"reasoningText": {"text": "I look.", "signature": "c2ln"}}},
            {"text": "I look."},
            use("t1", city="Oslo"),
            use("t2", city="Bergen"),
        ],
        "metadata": {"usage": {"inputTokens": 3, "outputTokens": 4, "totalTokens": 7}},
        "tracking_id": "11111111-1111-4111-8111-111111111111",
    },
    {
        "role": "user",
        "content": [
            result("t1", {"text": "rain"}, IMAGE),
            result("t2", {"json": {"rain": [True, 1.0]}}, status="error"),
        ],
    },
    {"role": "assistant", "content": [{"text": "It rains."}]},
]

UNUSUAL: list[Message] = [
    {"role": "user", "content": []},
    {"role": "user", "content": [{}]},
    {"role": "user", "content": [{"text": "a", "new": 1}]},
    {"role": "user", "content": [{"text": "a"}, {"cachePoint": {"type": "default"}}]},
    {"role": "user", "content": [{"guardContent": {"text": {"text": "a"}}}]},
    {"role": "user", "content": [result("t")]},
    {"role": "user", "content": [result("t", {"text": "a"}, {"text": "b"})]},
    {"role": "user", "content": [result("t", {"json": None}, {"json": "x"}, {"text": "b"})]},
    {"role": "user", "content": [result("t", {"text": "a"}), {"text": "and"}]},
    {"role": "user", "content": [{"toolResult": {"toolUseId": "t", "content": [{"text": "a"}]}}]},
    {"role": "user", "content": [{"document": {"format": "pdf", "name": "a", "source": {"bytes": b"%PDF"}}}]},
    {"role": "user", "content": [{"document": {"format": "new", "name": "a", "source": {"bytes": b"?"}}}]},
    {"role": "user", "content": [{"document": {"format": "md", "source": {"bytes": b"#"}, "context": "c"}}]},
    {"role": "user", "content": [{"audio": {"format": "mp3", "source": {"bytes": b"a"}}}]},
    {
        "role": "user",
        "content": [
            {
                "video": {
                    "format": "mp4",
                    "source": {"location": {"type": "s3", "uri": "s3://b/v", "bucketOwner": "1"}},
                }
            }
        ],
    },
    {"role": "assistant", "content": [{"reasoningContent": {"redactedContent": b"\x00\xff"}}]},
    {"role": "assistant", "content": [{"reasoningContent": {"reasoningText": {"text": "t"}}}]},
    {"role": "assistant", "content": [{"toolUse": {"toolUseId": "t", "name": "n", "input": "text"}}]},
    {"role": "assistant", "content": [{"toolUse": {"toolUseId": "t", "name": "n", "input": [1]}}]},
    {"role": "assistant", "content": [{"citationsContent": {"citations": [], "content": [{"text": "a"}]}}]},
]


class ScriptedModel(Model):
    """Asks for the weather, and says what the tool said; or the name that it was told."""

    def update_config(self, **model_config: Any) -> None:
        """There is none."""

    def get_config(self) -> Any:
        return {}

    def structured_output(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    async def stream(self, messages: Any, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        _check(messages)
        last = messages[-1]["content"]
        said = " ".join(block["text"] for one in messages for block in one["content"] if "text" in block)
        yield {"messageStart": {"role": "assistant"}}
        if "weather" in last[0].get("text", ""):
            for number in range(2):
                start = {"toolUse": {"name": "weather", "toolUseId": f"t{len(messages)}{number}"}}
                yield {"contentBlockStart": {"start": start}}
                yield {"contentBlockDelta": {"delta": {"toolUse": {"input": json.dumps({"city": "Oslo"})}}}}
                yield {"contentBlockStop": {}}
            yield {"messageStop": {"stopReason": "tool_use"}}
            return
        results = [block["toolResult"]["content"][0]["text"] for block in last if "toolResult" in block]
        answer = "; ".join(results) or ("Alice" if "Alice" in said else "I don't know")
        yield {"contentBlockStart": {"start": {}}}
        yield {"contentBlockDelta": {"delta": {"text": answer}}}
        yield {"contentBlockStop": {}}
        yield {"messageStop": {"stopReason": "end_turn"}}


def _check(messages: list[Message]) -> None:
    """What providers insist on: each call is answered in the message after it, and nothing else is."""
    for index, message in enumerate(messages):
        calls = [block["toolUse"]["toolUseId"] for block in message["content"] if "toolUse" in block]
        after = messages[index + 1]["content"] if index + 1 < len(messages) else []
        results = [block["toolResult"]["toolUseId"] for block in after if "toolResult" in block]
        assert sorted(calls) == sorted(results), messages
