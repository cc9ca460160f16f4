"""Google ADK."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from google.adk.events.event import Event
from google.genai import types

from agent_stores import ChatMessageStore
from agent_stores.google_adk import EventCodec
from agent_stores.log import MessageLog
from agent_stores.plugins.google_adk.event_reader import EventReader
from tests.plugins.pairs.features import BYTES, LINK, PNG, Aspect, media

_ROLES = {"user": "user", "model": "assistant"}


def _event(role: str, *parts: types.Part, **fields: Any) -> Event:
    author = "user" if role == "user" and not any(part.function_response for part in parts) else "agent"
    content = types.Content(role=role, parts=list(parts))
    return Event(author=author, invocation_id="i", content=content, **{"timestamp": 1.5, **fields})


def _text(text: str, **fields: Any) -> types.Part:
    return types.Part(text=text, **fields)


def _inline(data: bytes, media_type: str, name: str | None = None) -> types.Part:
    return types.Part(inline_data=types.Blob(data=data, mime_type=media_type, display_name=name))


def _link(name: str, media_type: str) -> types.Part:
    return types.Part(file_data=types.FileData(file_uri=f"{LINK}.{name}", mime_type=media_type))


def _call(call_id: str | None, name: str = "look", args: Any = None) -> types.Part:
    return types.Part(function_call=types.FunctionCall(id=call_id, name=name, args=args or {}))


def _result(call_id: str, response: dict[str, Any], parts: Any = None) -> types.Part:
    answer = types.FunctionResponse(id=call_id, name="look", response=response, parts=parts)
    return types.Part(function_response=answer)


_RED = _event("user", _result("a", {"result": "red"}))


class GoogleADK:
    """The events of `AgentStoresSessionService`, on a thread that all frameworks share."""

    label = "Google ADK"
    messages: Mapping[str, Sequence[Any]] = {
        "text": [_event("user", _text("Hello.")), _event("model", _text("Hi."))],
        "image": [_event("user", _text("See."), _inline(PNG, "image/png"))],
        "image_link": [_event("user", _text("See."), _link("png", "image/png"))],
        "answer_image": [_event("model", _inline(PNG, "image/png"))],
        "audio": [_event("user", _inline(BYTES, "audio/wav"))],
        "audio_link": [_event("user", _link("wav", "audio/wav"))],
        "video": [_event("user", _inline(BYTES, "video/mp4"))],
        "file": [_event("user", _inline(BYTES, "application/pdf"))],
        "file_link": [_event("user", _link("pdf", "application/pdf"))],
        "file_name": [_event("user", _inline(BYTES, "application/pdf", "b.pdf"))],
        "image_name": [_event("user", _inline(PNG, "image/png", "b.png"))],
        "reasoning": [_event("model", _text("Hm.", thought=True))],
        "calls": [
            _event("model", _call("a"), _call("b", "see")),
            _event("user", _result("a", {"result": "red"}), _result("b", {"result": "red"})),
        ],
        "arguments_object": [_event("model", _call("a", args={"at": 1})), _RED],
        "call_without_id": [_event("model", _text("Hi."), _call(None))],
        "results": [
            _event("model", _call("a"), _call("b")),
            _event("user", _result("a", {"result": "red"}), _result("b", {"result": "blue"})),
        ],
        "result_data": [_event("model", _call("a")), _event("user", _result("a", {"n": 1}))],
        "failed": [_event("model", _call("a")), _event("user", _result("a", {"error": "no"}))],
        "own_part": [
            _event(
                "model",
                _text("Hi."),
                types.Part(executable_code=types.ExecutableCode(code="1", language=types.Language.PYTHON)),
            )
        ],
        "message_id": [_event("user", _text("Hello."), id="m1")],
        "own_fields": [_event("model", _text("Hi."), custom_metadata={"own": 1})],
    }

    async def write(self, log: MessageLog, messages: Sequence[Any]) -> None:
        codec = EventCodec()
        ours = [codec.to_chat_message(event) for event in messages]
        await ChatMessageStore(log, thread_id="s").add_messages(ours)

    async def read(self, log: MessageLog) -> list[Any]:
        store = ChatMessageStore(log, thread_id="s")
        last = (await store.stats()).last_position
        return [one.event for one in await EventReader(EventCodec(), "agent").read(store, last, None)]

    async def again(self, log: MessageLog, messages: Sequence[Any]) -> None:
        """As a caller that adds an event again, which is stored already."""
        await self.write(log, messages)

    def say(self, messages: Sequence[Any]) -> list[Aspect]:
        return [aspect for event in messages for aspect in _say(event)]

    def dump(self, messages: Sequence[Any]) -> list[Any]:
        return [event.model_dump(mode="json", exclude={"id", "invocation_id"}) for event in messages]


def _say(event: Event) -> list[Aspect]:
    said: list[Aspect] = [("id", event.id)]
    if event.author not in ("user", "agent"):
        said.append(("author", event.author))
    if event.custom_metadata:
        said.append(("own",))
    assert event.content is not None
    role = _ROLES[event.content.role or "user"]
    for part in event.content.parts or []:
        said += _say_part(role, part)
    return said


def _say_part(role: str, part: types.Part) -> list[Aspect]:
    if part.text is not None:
        if not part.thought:
            return [(role, "text", part.text)]
        data = part.model_dump(mode="json")
        sealed = data["thought_signature"]
        return [("reasoning", part.text), *([] if sealed is None else [("sealed", part.text, sealed)])]
    if (call := part.function_call) is not None:
        return [("call", call.id, call.name), ("an object", call.args)]
    if (answer := part.function_response) is not None:
        response = answer.response or {}
        value = response.get("error", response.get("result", response))
        said: list[Aspect] = [("result", answer.id, value)]
        for inner in answer.parts or []:
            if inner.inline_data is not None:
                said.append(("result", "image", inner.inline_data.data))
        return said + ([("failed", answer.id)] if "error" in response else [])
    blob, file = part.inline_data, part.file_data
    if blob is not None:
        name: list[Aspect] = [] if blob.display_name is None else [("filename", blob.display_name)]
        return [(role, _kind(blob.mime_type), blob.data), *name]
    if file is not None:
        name = [] if file.display_name is None else [("filename", file.display_name)]
        return [media(role, _kind(file.mime_type), url=file.file_uri), *name]
    raise AssertionError(f"a part that should not be shown here: {part}")


def _kind(media_type: str | None) -> str:
    top = (media_type or "").partition("/")[0]
    return top if top in ("image", "audio", "video") else "file"
