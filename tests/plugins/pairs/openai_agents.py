"""The OpenAI Agents SDK: items of the Responses API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agent_stores.log import MessageLog
from agent_stores.openai_agents import AgentStoresSession
from tests.plugins.pairs.features import BROKEN, ENCODED, IMAGE, LINK, SPACED, Aspect, media


def _user(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


def _call(call_id: str, name: str = "look", arguments: str = "{}") -> dict[str, Any]:
    return {"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments}


def _output(call_id: str, output: Any = "red") -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call_id, "output": output}


def _reasoning(text: str, sealed: str) -> dict[str, Any]:
    summary = [{"type": "summary_text", "text": text}]
    return {"type": "reasoning", "summary": summary, "encrypted_content": sealed}


_SEE = {"type": "input_text", "text": "See."}
_INLINE = {"type": "input_image", "image_url": f"data:image/png;base64,{IMAGE}", "detail": "auto"}
_FILE = {"type": "input_file", "file_data": f"data:application/pdf;base64,{ENCODED}", "filename": "b.pdf"}
_ANSWER = {
    "id": "m1",
    "type": "message",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "Hi.", "annotations": []}],
}


class OpenAIAgents:
    """`AgentStoresSession`."""

    label = "OpenAI Agents SDK"
    messages: Mapping[str, Sequence[Any]] = {
        "text": [{"role": "user", "content": "Hello."}, _ANSWER],
        "system": [{"role": "system", "content": "Be brief."}],
        "developer": [{"role": "developer", "content": "Be brief."}],
        "image": [_user(_SEE, _INLINE)],
        "image_link": [_user(_SEE, {"type": "input_image", "image_url": f"{LINK}.png", "detail": "auto"})],
        "answer_image": [
            {"type": "image_generation_call", "id": "ig_1", "status": "completed", "result": IMAGE}
        ],
        "audio": [_user({"type": "input_audio", "input_audio": {"data": ENCODED, "format": "wav"}})],
        "file": [_user(_FILE)],
        "file_link": [_user({"type": "input_file", "file_url": f"{LINK}.pdf"})],
        "file_name": [_user(_FILE)],
        "reasoning": [
            {"id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]},
            _ANSWER,
        ],
        "sealed": [_reasoning("Hm.", "c2ln"), _reasoning("So.", "c2ln2"), _ANSWER],
        "calls": [_call("a"), _call("b", "see"), _output("a"), _output("b")],
        "arguments_text": [_call("a", arguments=SPACED), _output("a")],
        "arguments_object": [
            {"type": "shell_call", "call_id": "a", "status": "completed", "at": 1},
            {"type": "shell_call_output", "call_id": "a", "output": "red"},
        ],
        "arguments_broken": [_call("a", arguments=BROKEN), _output("a")],
        "results": [_call("a"), _call("b"), _output("a"), _output("b", "blue")],
        "result_data": [
            {"type": "shell_call", "call_id": "a", "status": "completed", "action": {}},
            {"type": "shell_call_output", "call_id": "a", "output": {"n": 1}},
        ],
        "result_image": [_call("a"), _output("a", [{"type": "input_text", "text": "red"}, _INLINE])],
        "result_own_part": [
            _call("a"),
            _output("a", [{"type": "input_text", "text": "red"}, {"type": "input_image", "file_id": "f"}]),
        ],
        "failed": [
            {
                "type": "mcp_call",
                "id": "a",
                "server_label": "s",
                "name": "look",
                "arguments": "{}",
                "error": "no",
            }
        ],
        "request": [
            {
                "type": "mcp_approval_request",
                "id": "r",
                "server_label": "s",
                "name": "look",
                "arguments": "{}",
            }
        ],
        "response": [{"type": "mcp_approval_response", "approval_request_id": "r", "approve": True}],
        "own_part": [{"type": "web_search_call", "id": "ws_1", "status": "completed"}],
        "message_id": [_ANSWER],
        "own_fields": [{**_ANSWER, "phase": "final_answer"}],
    }

    async def write(self, log: MessageLog, messages: Sequence[Any]) -> None:
        await AgentStoresSession("s", log).add_items(list(messages))

    async def read(self, log: MessageLog) -> list[Any]:
        return list(await AgentStoresSession("s", log).get_items())

    async def again(self, log: MessageLog, messages: Sequence[Any]) -> None:
        """A session only adds: the next turn, which is taken back."""
        session = AgentStoresSession("s", log)
        await session.add_items([{"role": "user", "content": "And?"}])
        await session.pop_item()

    def say(self, messages: Sequence[Any]) -> list[Aspect]:
        return [aspect for item in messages for aspect in _say(item)]

    def dump(self, messages: Sequence[Any]) -> list[Any]:
        return list(messages)


def _say(item: dict[str, Any]) -> list[Aspect]:
    said: list[Aspect] = [("id", item["id"])] if "id" in item else []
    kind = item.get("type", "message")
    if "phase" in item:
        said.append(("own",))
    if kind == "message":
        content = item["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        return said + [aspect for part in parts for aspect in _say_part(item["role"], part)]
    if kind == "reasoning":
        text = "".join(part["text"] for part in item["summary"])
        sealed = item.get("encrypted_content")
        return [*said, ("reasoning", text), *([] if sealed is None else [("sealed", text, sealed)])]
    if kind == "function_call":
        return [*said, ("call", item["call_id"], item["name"]), ("JSON text", item["arguments"])]
    if kind == "function_call_output":
        output = item["output"]
        parts = [{"type": "input_text", "text": output}] if isinstance(output, str) else output
        texts = [part["text"] for part in parts if part["type"] == "input_text"]
        said.append(("result", item["call_id"], "".join(texts)))
        for part in parts:
            if part["type"] != "input_text":
                said += _say_part("result", part)
        return said
    if kind == "mcp_approval_request":
        return [*said, ("request", item["id"], item["name"])]
    if kind == "mcp_approval_response":
        return [*said, ("response", item["approval_request_id"], item["approve"])]
    raise AssertionError(f"an item that should not be shown here: {item}")


def _say_part(role: str, part: dict[str, Any]) -> list[Aspect]:
    name: list[Aspect] = [("filename", part["filename"])] if "filename" in part else []
    if part["type"] in ("text", "input_text", "output_text"):
        return [(role, "text", part["text"])]
    if part["type"] == "input_image":
        return [media(role, "image", url=part["image_url"])]
    if part["type"] == "input_file":
        return [media(role, "file", url=part.get("file_data", part.get("file_url"))), *name]
    if part["type"] == "input_audio":
        return [media(role, "audio", data=part["input_audio"]["data"])]
    raise AssertionError(f"a part that should not be shown here: {part}")
