"""ChatKit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from chatkit.types import (
    AssistantMessageContent,
    AssistantMessageItem,
    ClientToolCallItem,
    FileAttachment,
    GeneratedImage,
    GeneratedImageItem,
    HiddenContextItem,
    ImageAttachment,
    InferenceOptions,
    UserMessageItem,
    UserMessageTextContent,
)
from pydantic import AnyUrl

from agent_stores.chatkit import AgentStoresChatKitStore
from agent_stores.log import MessageLog
from tests.plugins.pairs.features import IMAGE, LINK, Aspect, media

_PENDING: Any = {"status": "pending", "output": None}
_DATA = f"data:image/png;base64,{IMAGE}"


def _base(name: str) -> dict[str, Any]:
    return {"id": name, "thread_id": "s", "created_at": datetime(2026, 1, 2, 3, 4, 5, 6, timezone.utc)}


def _user(*texts: str, name: str = "i1", **more: Any) -> UserMessageItem:
    content = [UserMessageTextContent(text=text) for text in texts]
    fields = {**_base(name), "content": content, "inference_options": InferenceOptions(), **more}
    return UserMessageItem(**fields)


def _assistant(text: str, name: str = "i2") -> AssistantMessageItem:
    return AssistantMessageItem(**_base(name), content=[AssistantMessageContent(text=text)])


def _image(url: str) -> ImageAttachment:
    return ImageAttachment(id="a1", name="image", mime_type="image/png", preview_url=AnyUrl(url))


def _call(call_id: str, tool: str, number: int, **more: Any) -> ClientToolCallItem:
    fields = {"arguments": {}, "status": "completed", "output": "red", **more}
    return ClientToolCallItem(**_base(f"i{number}"), call_id=call_id, name=tool, **fields)


class ChatKit:
    """`AgentStoresChatKitStore`."""

    label = "ChatKit"
    messages: Mapping[str, Sequence[Any]] = {
        "text": [_user("Hello."), _assistant("Hi.")],
        "image": [_user("See.", attachments=[_image(_DATA)])],
        "image_link": [_user("See.", attachments=[_image(f"{LINK}.png")])],
        "answer_image": [GeneratedImageItem(**_base("i1"), image=GeneratedImage(id="g", url=_DATA))],
        "image_name": [_user("See.", attachments=[_image(_DATA).model_copy(update={"name": "b.png"})])],
        "arguments_object": [_call("a", "look", 1, arguments={"at": 1}, **_PENDING)],
        "results": [_call("a", "look", 1), _call("b", "look", 2, output="blue")],
        "result_data": [_call("a", "look", 1, output={"n": 1})],
        "own_part": [HiddenContextItem(**_base("i1"), content={"own": 1})],
        "message_id": [_user("Hello.", name="m1")],
        "own_fields": [_user("Hello.", quoted_text="Earlier.")],
    }

    async def write(self, log: MessageLog, messages: Sequence[Any]) -> None:
        store: AgentStoresChatKitStore[Any] = AgentStoresChatKitStore(log)
        for item in messages:
            await store.add_thread_item("s", item, None)

    async def read(self, log: MessageLog) -> list[Any]:
        store: AgentStoresChatKitStore[Any] = AgentStoresChatKitStore(log)
        return (await store.load_thread_items("s", None, 99, "asc", None)).data

    async def again(self, log: MessageLog, messages: Sequence[Any]) -> None:
        """As a server that saves what it has read: the items' ids are those of the messages."""
        await self.write(log, messages)

    def say(self, messages: Sequence[Any]) -> list[Aspect]:
        said: list[Aspect] = []
        for item in messages:
            said += [("id", item.id), *_say(item)]
        return said

    def dump(self, messages: Sequence[Any]) -> list[Any]:
        return [item.model_dump(mode="json") for item in messages]


def _say(item: Any) -> list[Aspect]:
    if isinstance(item, UserMessageItem):
        said: list[Aspect] = [("user", "text", part.text) for part in item.content]
        said += [("own",)] if item.quoted_text else []
        for attachment in item.attachments:
            if isinstance(attachment, FileAttachment):
                said.append(("own part",))
                continue
            said.append(media("user", "image", url=str(attachment.preview_url)))
            said += [("filename", attachment.name)] if attachment.name != "image" else []
        return said
    if isinstance(item, AssistantMessageItem):
        return [("assistant", "text", part.text) for part in item.content]
    if isinstance(item, ClientToolCallItem):
        said = [("call", item.call_id, item.name), ("an object", item.arguments)]
        return said + ([("result", item.call_id, item.output)] if item.status == "completed" else [])
    if isinstance(item, GeneratedImageItem) and item.image is not None:
        return [media("assistant", "image", url=item.image.url)]
    assert isinstance(item, HiddenContextItem)
    return [("own part",)]
