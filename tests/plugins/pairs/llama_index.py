"""LlamaIndex."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.core.base.llms import types as llama
from llama_index.core.llms import ChatMessage

from agent_stores.llama_index import AgentStoresChatStore, AgentStoresMemory
from agent_stores.log import MessageLog
from tests.plugins.pairs.features import BROKEN, BYTES, LINK, PNG, SPACED, Aspect, media


def _user(*blocks: Any) -> ChatMessage:
    return ChatMessage(role="user", blocks=list(blocks))


def _answer(*blocks: Any) -> ChatMessage:
    return ChatMessage(role="assistant", blocks=list(blocks))


def _call(call_id: str, name: str = "look", arguments: Any = None) -> llama.ToolCallBlock:
    return llama.ToolCallBlock(tool_call_id=call_id, tool_name=name, tool_kwargs=arguments or {})


def _result(call_id: str, text: str = "red", *more: Any) -> ChatMessage:
    return ChatMessage(
        role="tool",
        blocks=[llama.TextBlock(text=text), *more],
        additional_kwargs={"tool_call_id": call_id},
    )


def _thinking(text: str, signature: str) -> llama.ThinkingBlock:
    return llama.ThinkingBlock(content=text, additional_information={"signature": signature})


_SEE = llama.TextBlock(text="See.")
_IMAGE = llama.ImageBlock(image=PNG, image_mimetype="image/png")
_FILE = llama.DocumentBlock(data=BYTES, document_mimetype="application/pdf", title="b.pdf")
_CITATION = llama.CitationBlock(
    cited_content=llama.TextBlock(text="so"), source="b", title="b", additional_location_info={}
)


class LlamaIndex:
    """`AgentStoresMemory`, and `AgentStoresChatStore` on the same conversation."""

    label = "LlamaIndex"
    messages: Mapping[str, Sequence[Any]] = {
        "text": [ChatMessage("Hello.", role="user"), ChatMessage("Hi.", role="assistant")],
        "system": [ChatMessage("Be brief.", role="system")],
        "developer": [ChatMessage("Be brief.", role="developer")],
        "image": [_user(_SEE, _IMAGE)],
        "image_link": [_user(_SEE, llama.ImageBlock(url=f"{LINK}.png"))],
        "answer_image": [_answer(_IMAGE)],
        "audio": [_user(llama.AudioBlock(audio=BYTES, format="wav"))],
        "audio_link": [_user(llama.AudioBlock(url=f"{LINK}.wav", format="wav"))],
        "video": [_user(llama.VideoBlock(video=BYTES, video_mimetype="video/mp4"))],
        "file": [_user(_FILE)],
        "file_link": [
            _user(llama.DocumentBlock(url=f"{LINK}.pdf", document_mimetype="application/pdf", title="b.pdf"))
        ],
        "file_name": [_user(_FILE)],
        "reasoning": [_answer(llama.ThinkingBlock(content="Hm."))],
        "sealed": [_answer(_thinking("Hm.", "c2ln"), _thinking("So.", "c2ln2"))],
        "calls": [_answer(_call("a"), _call("b", "see")), _result("a"), _result("b")],
        "arguments_text": [_answer(_call("a", arguments=SPACED)), _result("a")],
        "arguments_object": [_answer(_call("a", arguments={"at": 1})), _result("a")],
        "arguments_broken": [_answer(_call("a", arguments=BROKEN)), _result("a")],
        "call_without_id": [
            _answer(llama.TextBlock(text="Hi."), llama.ToolCallBlock(tool_name="look", tool_kwargs={}))
        ],
        "results": [_answer(_call("a"), _call("b")), _result("a"), _result("b", "blue")],
        "result_image": [_answer(_call("a")), _result("a", "red", _IMAGE)],
        "result_own_part": [_answer(_call("a")), _result("a", "red", _CITATION)],
        "author": [ChatMessage("Hello.", role="user", additional_kwargs={"name": "Ada"})],
        "own_part": [
            _answer(
                llama.TextBlock(text="Hi."),
                _CITATION,
            )
        ],
        "own_fields": [ChatMessage("Hello.", role="user", additional_kwargs={"own": 1})],
    }

    async def write(self, log: MessageLog, messages: Sequence[Any]) -> None:
        await AgentStoresMemory(log, chat_store_key="s").aput_messages(list(messages))

    async def read(self, log: MessageLog) -> list[Any]:
        return await AgentStoresMemory(log, chat_store_key="s").aget()

    async def again(self, log: MessageLog, messages: Sequence[Any]) -> None:
        """As LlamaIndex's memories do: everything is set to what it was."""
        store = AgentStoresChatStore(log)
        await store.aset_messages("s", await store.aget_messages("s"))

    def say(self, messages: Sequence[Any]) -> list[Aspect]:
        return [aspect for message in messages for aspect in _say(message)]

    def dump(self, messages: Sequence[Any]) -> list[Any]:
        return [message.model_dump() for message in messages]


def _say(message: ChatMessage) -> list[Aspect]:
    said: list[Aspect] = []
    more, role, blocks = message.additional_kwargs, message.role.value, list(message.blocks)
    if "name" in more:
        said.append(("author", more["name"]))
    if "own" in more:
        said.append(("own",))
    if "tool_call_id" in more:
        texts = [block.text for block in blocks if isinstance(block, llama.TextBlock)]
        said.append(("result", more["tool_call_id"], "".join(texts)))
        role, blocks = "result", [block for block in blocks if not isinstance(block, llama.TextBlock)]
    for block in blocks:
        said += _say_block(role, block)
    return said


def _say_block(role: str, block: Any) -> list[Aspect]:
    url = None if getattr(block, "url", None) is None else str(block.url)
    if isinstance(block, llama.TextBlock):
        return [(role, "text", block.text)]
    if isinstance(block, llama.ThinkingBlock):
        sealed = (block.additional_information or {}).get("signature")
        text = block.content
        return [("reasoning", text), *([] if sealed is None else [("sealed", text, sealed)])]
    if isinstance(block, llama.ToolCallBlock):
        kind = "JSON text" if isinstance(block.tool_kwargs, str) else "an object"
        return [("call", block.tool_call_id, block.tool_name), (kind, block.tool_kwargs)]
    if isinstance(block, llama.ImageBlock):
        return [media(role, "image", url=url, data=_text(block.image))]
    if isinstance(block, llama.AudioBlock):
        return [media(role, "audio", url=url, data=_text(block.audio))]
    if isinstance(block, llama.VideoBlock):
        return [media(role, "video", url=url, data=_text(block.video))]
    if isinstance(block, llama.DocumentBlock):
        name: list[Aspect] = [("filename", block.title)] if block.title else []
        return [media(role, "file", url=url, data=_text(block.data)), *name]
    raise AssertionError(f"a block that should not be shown here: {block}")


def _text(data: Any) -> str | None:
    return data.decode() if isinstance(data, bytes) else None
