"""LangChain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from agent_stores.langchain import AgentStoresChatMessageHistory
from agent_stores.log import MessageLog
from tests.plugins.pairs.features import BROKEN, ENCODED, IMAGE, LINK, Aspect, media

_ROLES = {"human": "user", "ai": "assistant", "system": "system"}


def _call(call_id: str, name: str = "look", args: Any = None) -> Any:
    return {"type": "tool_call", "id": call_id, "name": name, "args": args or {}}


def _link(kind: str, name: str, media_type: str) -> list[BaseMessage]:
    return [HumanMessage([{"type": kind, "url": f"{LINK}.{name}", "mime_type": media_type}])]


def _inline(kind: str, media_type: str, data: str = ENCODED) -> dict[str, Any]:
    return {"type": kind, "base64": data, "mime_type": media_type}


class LangChain:
    """`AgentStoresChatMessageHistory`."""

    label = "LangChain"
    messages: Mapping[str, Sequence[Any]] = {
        "text": [HumanMessage("Hello."), AIMessage("Hi.")],
        "system": [SystemMessage("Be brief.")],
        "developer": [SystemMessage("Be brief.", additional_kwargs={"__openai_role__": "developer"})],
        "image": [HumanMessage([{"type": "text", "text": "See."}, _inline("image", "image/png", IMAGE)])],
        "image_link": [
            HumanMessage(
                [
                    {"type": "text", "text": "See."},
                    {"type": "image_url", "image_url": {"url": f"{LINK}.png"}},
                ]
            )
        ],
        "answer_image": [AIMessage([_inline("image", "image/png", IMAGE)])],
        "audio": [HumanMessage([_inline("audio", "audio/wav")])],
        "audio_link": _link("audio", "wav", "audio/wav"),
        "video": [HumanMessage([_inline("video", "video/mp4")])],
        "file": [HumanMessage([_inline("file", "application/pdf")])],
        "file_link": _link("file", "pdf", "application/pdf"),
        "file_name": [
            HumanMessage([{**_inline("file", "application/pdf"), "extras": {"filename": "b.pdf"}}])
        ],
        "reasoning": [AIMessage([{"type": "reasoning", "reasoning": "Hm."}])],
        "sealed": [
            AIMessage(
                [
                    {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
                    {"type": "thinking", "thinking": "So.", "signature": "c2ln2"},
                ]
            )
        ],
        "calls": [
            AIMessage("", tool_calls=[_call("a"), _call("b", "see")]),
            ToolMessage("red", tool_call_id="a"),
            ToolMessage("red", tool_call_id="b"),
        ],
        "arguments_object": [
            AIMessage("", tool_calls=[_call("a", args={"at": 1})]),
            ToolMessage("red", tool_call_id="a"),
        ],
        "arguments_broken": [
            AIMessage(
                "",
                invalid_tool_calls=[
                    {
                        "type": "invalid_tool_call",
                        "id": "a",
                        "name": "look",
                        "args": BROKEN,
                        "error": "no JSON",
                    }
                ],
            ),
            ToolMessage("red", tool_call_id="a"),
        ],
        "call_without_id": [AIMessage("Hi.", tool_calls=[{**_call("a"), "id": None}])],
        "results": [
            AIMessage("", tool_calls=[_call("a"), _call("b")]),
            ToolMessage("red", tool_call_id="a"),
            ToolMessage("blue", tool_call_id="b"),
        ],
        "result_image": [
            AIMessage("", tool_calls=[_call("a")]),
            ToolMessage(
                [{"type": "text", "text": "red"}, _inline("image", "image/png", IMAGE)], tool_call_id="a"
            ),
        ],
        "result_own_part": [
            AIMessage("", tool_calls=[_call("a")]),
            ToolMessage([{"type": "text", "text": "red"}, {"type": "map", "of": "x"}], tool_call_id="a"),
        ],
        "failed": [
            AIMessage("", tool_calls=[_call("a")]),
            ToolMessage("no", tool_call_id="a", status="error"),
        ],
        "author": [HumanMessage("Hello.", name="Ada")],
        "usage": [
            AIMessage("Hi.", usage_metadata={"input_tokens": 5, "output_tokens": 7, "total_tokens": 12})
        ],
        "own_part": [AIMessage([{"type": "text", "text": "Hi."}, {"type": "server_tool_call", "id": "x"}])],
        "message_id": [HumanMessage("Hello.", id="m1")],
        "own_fields": [AIMessage("Hi.", response_metadata={"own": 1})],
    }

    async def write(self, log: MessageLog, messages: Sequence[Any]) -> None:
        await AgentStoresChatMessageHistory("s", log).aadd_messages(list(messages))

    async def read(self, log: MessageLog) -> list[Any]:
        return await AgentStoresChatMessageHistory("s", log).aget_messages()

    async def again(self, log: MessageLog, messages: Sequence[Any]) -> None:
        """As a graph's state is added, past and new messages alike."""
        await AgentStoresChatMessageHistory("s", log).aadd_messages(list(messages))

    def say(self, messages: Sequence[Any]) -> list[Aspect]:
        return [aspect for message in messages for aspect in _say(message)]

    def dump(self, messages: Sequence[Any]) -> list[Any]:
        return [message.model_dump(exclude={"id"}) for message in messages]


def _say(message: Any) -> list[Aspect]:
    said: list[Aspect] = [("id", message.id)]
    if message.name:
        said.append(("author", message.name))
    if message.response_metadata:
        said.append(("own",))
    content = message.content
    blocks = content if isinstance(content, list) else [{"type": "text", "text": content}] if content else []
    if isinstance(message, ToolMessage):
        texts = [block["text"] for block in blocks if block["type"] == "text"]
        said.append(("result", message.tool_call_id, "".join(texts)))
        said += [
            aspect for block in blocks if block["type"] != "text" for aspect in _say_block("result", block)
        ]
        return said + ([("failed", message.tool_call_id)] if message.status == "error" else [])
    for block in blocks:
        said += _say_block(_ROLES[message.type], block)
    if isinstance(message, AIMessage):
        for call in message.tool_calls:
            said += [("call", call["id"], call["name"]), ("an object", call["args"])]
        for invalid in message.invalid_tool_calls:
            said += [("call", invalid["id"], invalid["name"]), ("an invalid call's text", invalid["args"])]
        if (usage := message.usage_metadata) is not None:
            said.append(("usage", usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]))
    return said


def _say_block(role: str, block: dict[str, Any]) -> list[Aspect]:
    kind = block["type"]
    if kind == "text":
        return [(role, "text", block["text"])]
    if kind == "reasoning":
        text, sealed = block["reasoning"], block.get("extras", {}).get("signature")
        return [("reasoning", text), *([] if sealed is None else [("sealed", text, sealed)])]
    if kind == "thinking":
        return [("reasoning", block["thinking"]), ("sealed", block["thinking"], block["signature"])]
    if kind in ("map", "server_tool_call"):
        return [("own part",)]
    if kind == "image_url":
        return [media(role, "image", url=block["image_url"]["url"])]
    if kind in ("image", "audio", "video", "file"):
        name = block.get("extras", {}).get("filename")
        said = media(role, kind, url=block.get("url"), data=block.get("base64"))
        return [said, *([] if name is None else [("filename", name)])]
    raise AssertionError(f"a block that should not be shown here: {block}")
