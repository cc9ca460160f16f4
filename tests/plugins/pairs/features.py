"""What a conversation may hold, and what each framework is to say of it when it is read there."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

from agent_stores.log import MessageLog

Aspect: TypeAlias = tuple[Any, ...]
"""One thing that a framework's object says: its kind, then its values; of text and media the role first."""

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
IMAGE = base64.b64encode(PNG).decode()
BYTES = b"bytes of it"
ENCODED = base64.b64encode(BYTES).decode()
LINK = "https://example.com/b"
SPACED = '{"at":  1}'
BROKEN = '{"at": '

_ARGUMENTS = ("JSON text", "an object", "an invalid call's text")


class Feature(NamedTuple):
    """A row of the table.

    Attributes:
        label: as the table calls it.
        said: what a framework's objects say where it is kept, in this order.
        instead: the kinds of aspects that may stand for it.
        beside: it is the store's or a framework's own bookkeeping, which no other framework is shown and of
            which no line in the log tells.
    """

    label: str
    said: tuple[Aspect, ...]
    instead: tuple[str, ...] = ()
    beside: bool = False


FEATURES: Mapping[str, Feature] = {
    "text": Feature("text", (("user", "text", "Hello."), ("assistant", "text", "Hi."))),
    "system": Feature("system message", (("system", "text", "Be brief."),)),
    "developer": Feature("developer message", (("developer", "text", "Be brief."),), ("text",)),
    "image": Feature("image, its data", (("user", "text", "See."), ("user", "image", PNG))),
    "image_link": Feature("image, its URL", (("user", "text", "See."), ("user", "image", f"{LINK}.png"))),
    "answer_image": Feature("image in an answer", (("assistant", "image", PNG),)),
    "audio": Feature("audio, its data", (("user", "audio", BYTES),)),
    "audio_link": Feature("audio, its URL", (("user", "audio", f"{LINK}.wav"),)),
    "video": Feature("video, its data", (("user", "video", BYTES),)),
    "file": Feature("file, its data", (("user", "file", BYTES),)),
    "file_link": Feature("file, its URL", (("user", "file", f"{LINK}.pdf"),)),
    "file_name": Feature("name of a file", (("filename", "b.pdf"),)),
    "image_name": Feature("name of an image's file", (("filename", "b.png"),)),
    "reasoning": Feature("reasoning, its text", (("reasoning", "Hm."),)),
    "sealed": Feature(
        "reasoning, signed or encrypted by the provider",
        (("sealed", "Hm.", "c2ln"), ("sealed", "So.", "c2ln2")),
    ),
    "calls": Feature("parallel tool calls: ids, names, order", (("call", "a", "look"), ("call", "b", "see"))),
    "arguments_text": Feature("arguments as JSON text, verbatim", (("JSON text", SPACED),), _ARGUMENTS),
    "arguments_object": Feature("arguments as an object", (("an object", {"at": 1}),), _ARGUMENTS),
    "arguments_broken": Feature("arguments that are not JSON", (("JSON text", BROKEN),), _ARGUMENTS),
    "call_without_id": Feature("tool call without an id", (("call", None, "look"),), ("an opaque part",)),
    "results": Feature("tool results: ids, text, order", (("result", "a", "red"), ("result", "b", "blue"))),
    "result_data": Feature("tool result that is JSON data", (("result", "a", {"n": 1}),), ("result",)),
    "result_image": Feature("image in a tool result", (("result", "a", "red"), ("result", "image", PNG))),
    "failed": Feature("tool result: that the tool failed", (("result", "a", "no"), ("failed", "a"))),
    "author": Feature("author's name", (("author", "Ada"),)),
    "usage": Feature("usage in tokens", (("usage", 5, 7, 12),)),
    "error": Feature("error in the conversation", (("error", "Slow down", "rate", "60 s"),), ("text",)),
    "request": Feature("request for approval", (("request", "r", "look"),)),
    "response": Feature("response to it", (("response", "r", True),)),
    "result_own_part": Feature(
        "part that only its framework has, in a tool result",
        (("result", "a", "red"), ("own part",)),
        ("an opaque part",),
    ),
    "own_part": Feature("part that only its framework has", (("own part",),), ("an opaque part",)),
    "message_id": Feature("id of a message", (("id", "m1"),), ("id",), beside=True),
    "own_fields": Feature("further fields of a framework's own", (("own",),), beside=True),
}
"""The rows, in order, by the name under which each framework has its messages."""


class Framework(Protocol):
    """One framework: its own messages with each feature, and its plug-in.

    Attributes:
        label: as the table calls it.
        messages: its messages, by the name of the feature that they have; what it cannot say is missing.
    """

    label: str
    messages: Mapping[str, Sequence[Any]]

    async def write(self, log: MessageLog, messages: Sequence[Any]) -> None:
        """Add its messages to the thread ``s``, through its plug-in."""

    async def read(self, log: MessageLog) -> list[Any]:
        """The thread ``s`` as its plug-in shows it to a model, with a plug-in of its own."""

    async def again(self, log: MessageLog, messages: Sequence[Any]) -> None:
        """Write back what was read, as the framework's users do."""

    def say(self, messages: Sequence[Any]) -> list[Aspect]:
        """What its messages say, from the framework's own objects."""

    def dump(self, messages: Sequence[Any]) -> list[Any]:
        """Its messages as data, to compare them."""


def media(role: str, kind: str, *, url: str | None = None, data: str | bytes | None = None) -> Aspect:
    """What a block of media says, by its URL, its bytes or their Base64."""
    if url is not None and url.startswith("data:"):
        data = url.partition(",")[2]
    elif url is not None:
        return role, kind, url
    return role, kind, base64.b64decode(data) if isinstance(data, str) else data
