"""What an OpenAI-compatible endpoint is asked and answers, as JSON: checks of requests, shapes of replies."""

from __future__ import annotations

import base64
import json
import re
import struct
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from agent_stores.testing.chat_rules import chat_violations
from agent_stores.testing.scripted_model import Reply, embed

DIMENSIONS = 1536


class RefusedError(Exception):
    """A request that is answered with an error."""

    def __init__(
        self, message: str, status: int = 400, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        kind = "server_error" if status >= 500 else "invalid_request_error"
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


def parse_request(body: bytes) -> dict[str, Any]:
    """Decode the body of a request, which must be an object that names a model."""
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"The body of the request is not valid JSON: {error}") from error
    if not isinstance(request, dict):
        raise RefusedError("The body of the request must be a JSON object.")
    return cast("dict[str, Any]", request)


def require_model(request: Mapping[str, Any]) -> None:
    """Reject a request that names no model."""
    if not isinstance(request.get("model"), str) or not request["model"]:
        raise RefusedError("The request must name a model.", param="model")


def check_completion(request: Mapping[str, Any]) -> None:
    """Reject what the real endpoint rejects: a conversation that breaks its rules, malformed tools."""
    require_model(request)
    messages = request.get("messages")
    if not isinstance(messages, list):
        raise RefusedError("messages: must be a list", param="messages")
    if broken := chat_violations(cast("list[dict[str, Any]]", messages)):
        raise RefusedError("; ".join(broken), param="messages")
    if request.get("tools") is None:
        return
    try:
        names = [tool["function"]["name"] for tool in request["tools"] if tool["type"] == "function"]
    except (TypeError, KeyError) as error:
        raise RefusedError(
            "tools: must be a list of tools, each with type and function", param="tools"
        ) from error
    if not request["tools"] or not all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", str(name)) for name in names):
        raise RefusedError("tools: must not be empty; names are 1 to 64 of a-z A-Z 0-9 _ -", param="tools")


def count_tokens(text: str) -> int:
    """Estimate the tokens of a text: one for four characters."""
    return max(1, -(-len(text) // 4))


def completion(request: Mapping[str, Any], reply: Reply, call_ids: Sequence[str]) -> dict[str, Any]:
    """Build the answer to a chat request. Its id is random, so that no two servers give the same."""
    message: dict[str, Any] = {"role": "assistant", "content": reply.text, "refusal": None}
    if reply.calls:
        message["tool_calls"] = [
            {"id": call_id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call_id, call in zip(call_ids, reply.calls, strict=True)
        ]
    asked = count_tokens(json.dumps([request["messages"], request.get("tools")], ensure_ascii=False))
    said = count_tokens((reply.text or "") + "".join(call.name + call.arguments for call in reply.calls))
    reason = "tool_calls" if reply.calls else "stop"
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": request["model"],
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": reason}],
        "usage": {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said},
    }


def completion_chunks(completion: Mapping[str, Any], with_usage: bool) -> Iterator[dict[str, Any]]:
    """Cut a completion into the chunks of a stream."""
    choice = completion["choices"][0]
    usage: dict[str, Any] = {"usage": None} if with_usage else {}
    head = (
        {key: completion[key] for key in ("id", "created", "model")}
        | {"object": "chat.completion.chunk"}
        | usage
    )
    for delta in _deltas(choice["message"]):
        yield head | {"choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}]}
    last: dict[str, Any] = {
        "index": 0,
        "delta": {},
        "logprobs": None,
        "finish_reason": choice["finish_reason"],
    }
    yield head | {"choices": [last]}
    if with_usage:
        yield head | {"choices": [], "usage": completion["usage"]}


def _deltas(message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Cut a message into its role, its words, and the beginning and the pieces of each tool call."""
    text: str | None = message["content"]
    yield {"role": "assistant", "content": None if text is None else "", "refusal": None}
    for word in re.findall(r"\s*\S+|\s+", text or ""):
        yield {"content": word}
    for index, call in enumerate(message.get("tool_calls", ())):
        arguments: str = call["function"]["arguments"]
        yield {"tool_calls": [{"index": index, **call, "function": {**call["function"], "arguments": ""}}]}
        for start in range(0, len(arguments), 8):
            yield {"tool_calls": [{"index": index, "function": {"arguments": arguments[start : start + 8]}}]}


def embedding_response(request: Mapping[str, Any]) -> dict[str, Any]:
    """Build the answer to a request for embeddings."""
    require_model(request)
    dimensions, encoding = request.get("dimensions"), request.get("encoding_format") or "float"
    size = DIMENSIONS if dimensions is None else dimensions
    if type(size) is not int or not 1 <= size <= 4096:
        raise RefusedError("dimensions: must be an integer from 1 to 4096", param="dimensions")
    if encoding not in ("float", "base64"):
        raise RefusedError("encoding_format: must be float or base64", param="encoding_format")
    texts = _input_texts(request.get("input"))
    data: list[dict[str, Any]] = []
    for index, text in enumerate(texts):
        vector: Any = embed(text, size)
        if encoding == "base64":
            vector = base64.b64encode(struct.pack(f"<{size}f", *vector)).decode()
        data.append({"object": "embedding", "index": index, "embedding": vector})
    tokens = sum(map(count_tokens, texts))
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": request["model"], "usage": usage}


def _input_texts(value: object) -> list[str]:
    """Read `input`: a text, a list of texts, the tokens of a text, or a list of such tokens."""
    items = cast("list[object]", value) if isinstance(value, list) else [value]
    if items and all(type(item) is int for item in items):
        items = [items]
    texts = [
        " ".join(map(str, cast("list[object]", item))) if isinstance(item, list) else item for item in items
    ]
    if not texts or not all(isinstance(text, str) and text for text in texts):
        raise RefusedError("input: must be a non-empty text, or a non-empty list of them", param="input")
    return cast("list[str]", texts)
