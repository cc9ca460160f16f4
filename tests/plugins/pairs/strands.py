"""Strands Agents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from strands.types.session import SessionMessage

from agent_stores.log import MessageLog
from agent_stores.strands import AgentStoresSessionManager
from tests.plugins.pairs.features import BYTES, PNG, Aspect

_DOCUMENT = {"document": {"format": "pdf", "name": "document", "source": {"bytes": BYTES}}}
_NAMED = {"document": {"format": "pdf", "name": "b.pdf", "source": {"bytes": BYTES}}}


def _user(*content: Any) -> Any:
    return {"role": "user", "content": list(content)}


def _answer(*content: Any, **fields: Any) -> Any:
    return {"role": "assistant", "content": list(content), **fields}


def _media(kind: str, form: str, data: bytes) -> Any:
    return {kind: {"format": form, "source": {"bytes": data}}}


def _call(call_id: str, name: str = "look", arguments: Any = None) -> Any:
    return {"toolUse": {"toolUseId": call_id, "name": name, "input": arguments or {}}}


def _result(call_id: str, *content: Any, status: str = "success") -> Any:
    return {"toolResult": {"toolUseId": call_id, "status": status, "content": list(content)}}


def _reasoning(text: str, **signature: str) -> Any:
    return {"reasoningContent": {"reasoningText": {"text": text, **signature}}}


_RED = _user(_result("a", {"text": "red"}))


class Strands:
    """`AgentStoresSessionManager`."""

    label = "Strands"
    messages: Mapping[str, Sequence[Any]] = {
        "text": [_user({"text": "Hello."}), _answer({"text": "Hi."})],
        "image": [_user({"text": "See."}, _media("image", "png", PNG))],
        "answer_image": [_answer(_media("image", "png", PNG))],
        "audio": [_user(_media("audio", "wav", BYTES))],
        "video": [_user(_media("video", "mp4", BYTES))],
        "file": [_user(_DOCUMENT)],
        "file_name": [_user(_NAMED)],
        "reasoning": [_answer(_reasoning("Hm."))],
        "sealed": [_answer(_reasoning("Hm.", signature="c2ln"), _reasoning("So.", signature="c2ln2"))],
        "calls": [
            _answer(_call("a"), _call("b", "see")),
            _user(_result("a", {"text": "red"}), _result("b", {"text": "red"})),
        ],
        "arguments_object": [_answer(_call("a", arguments={"at": 1})), _RED],
        "results": [
            _answer(_call("a"), _call("b")),
            _user(_result("a", {"text": "red"}), _result("b", {"text": "blue"})),
        ],
        "result_data": [_answer(_call("a")), _user(_result("a", {"json": {"n": 1}}))],
        "result_image": [
            _answer(_call("a")),
            _user(_result("a", {"text": "red"}, _media("image", "png", PNG))),
        ],
        "failed": [_answer(_call("a")), _user(_result("a", {"text": "no"}, status="error"))],
        "own_part": [_user({"text": "Hello."}, {"cachePoint": {"type": "default"}})],
        "own_fields": [_answer({"text": "Hi."}, metadata={"own": 1})],
    }

    async def write(self, log: MessageLog, messages: Sequence[Any]) -> None:
        manager = AgentStoresSessionManager("s", log)
        for number, message in enumerate(messages):
            manager.create_message("s", "default", SessionMessage(message, number))

    async def read(self, log: MessageLog) -> list[Any]:
        manager = AgentStoresSessionManager("s", log)
        if not manager._has_messages("default"):
            return []
        codec, stored = manager._codec, manager._opened.wait(manager._all("s"))
        return [one.to_message() for one in codec.from_stored(stored)]

    async def again(self, log: MessageLog, messages: Sequence[Any]) -> None:
        """As a manager that is opened again; Strands writes back no message that it has read."""
        AgentStoresSessionManager("s", log)

    def say(self, messages: Sequence[Any]) -> list[Aspect]:
        said: list[Aspect] = []
        for message in messages:
            said += [("own",)] if "metadata" in message else []
            said += [aspect for block in message["content"] for aspect in _say(message["role"], block)]
        return said

    def dump(self, messages: Sequence[Any]) -> list[Any]:
        return [dict(message) for message in messages]


def _say(role: str, block: Any) -> list[Aspect]:
    ((kind, value),) = block.items()
    if kind == "text":
        return [(role, "text", value)]
    if kind == "reasoningContent":
        told = value["reasoningText"]
        sealed: list[Aspect] = []
        if "signature" in told:
            sealed = [("sealed", told["text"], told["signature"])]
        return [("reasoning", told["text"]), *sealed]
    if kind == "toolUse":
        how = "JSON text" if isinstance(value["input"], str) else "an object"
        return [("call", value["toolUseId"], value["name"]), (how, value["input"])]
    if kind == "toolResult":
        first, *more = value["content"] or [{"text": ""}]
        said: list[Aspect] = [("result", value["toolUseId"], first.get("json", first.get("text")))]
        said += [aspect for inner in more for aspect in _say("result", inner)]
        return said + ([("failed", value["toolUseId"])] if value["status"] == "error" else [])
    name: list[Aspect] = [("filename", value["name"])] if value.get("name", "document") != "document" else []
    return [(role, "file" if kind == "document" else kind, value["source"]["bytes"]), *name]
