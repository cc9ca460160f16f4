"""Microsoft Agent Framework 1.x."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agent_framework import Content, Message

from agent_stores.agent_framework import AgentStoresHistoryProvider
from agent_stores.log import MessageLog
from tests.plugins.pairs.features import BROKEN, BYTES, LINK, PNG, SPACED, Aspect, media


def _user(*contents: Any) -> Message:
    return Message("user", list(contents))


def _answer(*contents: Any) -> Message:
    return Message("assistant", list(contents))


def _call(call_id: str, name: str = "look", arguments: Any = "{}") -> Content:
    return Content.from_function_call(call_id, name, arguments=arguments)


def _result(call_id: str, result: Any = "red", **more: Any) -> Message:
    return Message("tool", [Content.from_function_result(call_id, result=result, **more)])


_IMAGE = Content.from_data(PNG, "image/png")
_FILE = Content.from_data(BYTES, "application/pdf", name="b.pdf")


class AgentFramework:
    """`AgentStoresHistoryProvider`."""

    label = "Agent Framework"
    messages: Mapping[str, Sequence[Any]] = {
        "text": [_user("Hello."), _answer("Hi.")],
        "system": [Message("system", ["Be brief."])],
        "developer": [Message("developer", ["Be brief."])],
        "image": [_user("See.", _IMAGE)],
        "image_link": [_user("See.", Content.from_uri(f"{LINK}.png", media_type="image/png"))],
        "answer_image": [_answer(_IMAGE)],
        "audio": [_user(Content.from_data(BYTES, "audio/wav"))],
        "audio_link": [_user(Content.from_uri(f"{LINK}.wav", media_type="audio/wav"))],
        "video": [_user(Content.from_data(BYTES, "video/mp4"))],
        "file": [_user(_FILE)],
        "file_link": [_user(Content.from_uri(f"{LINK}.pdf", media_type="application/pdf"))],
        "file_name": [_user(_FILE)],
        "image_name": [_user(Content.from_data(PNG, "image/png", name="b.png"))],
        "reasoning": [_answer(Content.from_text_reasoning(text="Hm."))],
        "sealed": [
            _answer(
                Content.from_text_reasoning(text="Hm.", protected_data="c2ln"),
                Content.from_text_reasoning(text="So.", protected_data="c2ln2"),
            )
        ],
        "calls": [_answer(_call("a"), _call("b", "see")), _result("a"), _result("b")],
        "arguments_text": [_answer(_call("a", arguments=SPACED)), _result("a")],
        "arguments_object": [_answer(_call("a", arguments={"at": 1})), _result("a")],
        "arguments_broken": [_answer(_call("a", arguments=BROKEN)), _result("a")],
        "results": [_answer(_call("a"), _call("b")), _result("a"), _result("b", "blue")],
        "result_image": [_answer(_call("a")), _result("a", [Content.from_text("red"), _IMAGE])],
        "result_own_part": [
            _answer(_call("a")),
            _result("a", [Content.from_text("red"), Content.from_hosted_file("f")]),
        ],
        "failed": [_answer(_call("a")), _result("a", "no", exception="no")],
        "author": [Message("user", ["Hello."], author_name="Ada")],
        "usage": [
            _answer(
                "Hi.",
                Content.from_usage(
                    {"input_token_count": 5, "output_token_count": 7, "total_token_count": 12}
                ),
            )
        ],
        "error": [_answer(Content.from_error(message="Slow down", error_code="rate", error_details="60 s"))],
        "request": [_answer(Content.from_function_approval_request("r", _call("a")))],
        "response": [_user(Content.from_function_approval_response(True, "r", _call("a")))],
        "own_part": [_answer("Hi.", Content.from_hosted_file("f"))],
        "message_id": [Message("user", ["Hello."], message_id="m1")],
        "own_fields": [Message("user", ["Hello."], additional_properties={"own": 1})],
    }

    async def write(self, log: MessageLog, messages: Sequence[Any]) -> None:
        await AgentStoresHistoryProvider(log).save_messages("s", messages)

    async def read(self, log: MessageLog) -> list[Any]:
        return await AgentStoresHistoryProvider(log).get_messages("s")

    async def again(self, log: MessageLog, messages: Sequence[Any]) -> None:
        """As a provider that stores what another one loaded."""
        await AgentStoresHistoryProvider(log).save_messages("s", messages)

    def say(self, messages: Sequence[Any]) -> list[Aspect]:
        return [aspect for message in messages for aspect in _say(message)]

    def dump(self, messages: Sequence[Any]) -> list[Any]:
        return [{**message.to_dict(), "message_id": None} for message in messages]


def _say(message: Message) -> list[Aspect]:
    said: list[Aspect] = [("id", message.message_id)]
    if message.author_name:
        said.append(("author", message.author_name))
    if "own" in message.additional_properties:
        said.append(("own",))
    for content in message.contents:
        said += _say_content(str(message.role), content)
    return said


def _say_content(role: str, content: Any) -> list[Aspect]:
    kind = content.type
    if kind == "text":
        return [(role, "text", content.text)]
    if kind == "text_reasoning":
        sealed = content.protected_data
        return [
            ("reasoning", content.text),
            *([] if sealed is None else [("sealed", content.text, sealed)]),
        ]
    if kind in ("data", "uri"):
        what = (content.media_type or "").partition("/")[0]
        name = [("filename", content.name)] if content.name else []
        return [media(role, what if what in ("image", "audio", "video") else "file", url=content.uri), *name]
    if kind == "function_call":
        form = "JSON text" if isinstance(content.arguments, str) else "an object"
        return [("call", content.call_id, content.name), (form, content.arguments)]
    if kind == "function_result":
        said: list[Aspect] = [("result", content.call_id, content.result)]
        for item in content.items or ():
            said += [] if item.type == "text" else _say_content("result", item)
        return said + ([("failed", content.call_id)] if content.exception is not None else [])
    if kind == "usage":
        used = content.usage_details
        counts = (used["input_token_count"], used["output_token_count"], used["total_token_count"])
        return [("usage", *counts)]
    if kind == "error":
        return [("error", content.message, content.error_code, content.error_details)]
    if kind == "function_approval_request":
        return [("request", content.id, content.function_call.name)]
    if kind == "function_approval_response":
        return [("response", content.id, content.approved)]
    raise AssertionError(f"a content that should not be shown here: {content}")
