"""Any content is kept exactly; what cannot be kept or read is named."""

from __future__ import annotations

import logging
from datetime import datetime, timezone
from typing import Any, cast

import pytest

from agent_stores.contents import (
    ApprovalRequestContent,
    DataContent,
    ErrorContent,
    OpaqueContent,
    ReasoningContent,
    TextContent,
    ToolCallContent,
    ToolResultContent,
    UriContent,
    UsageContent,
)
from agent_stores.errors import CorruptMessageError, MessageTooLargeError
from agent_stores.log import MessageLog
from agent_stores.messages import ChatMessage
from agent_stores.testing.conformance.target import MakeStore, Target, call, result, stored, user

WHEN = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=timezone.utc)

EVERYTHING = ChatMessage(
    "assistant",
    contents=[
        TextContent("Ünïcödé 😀 \x00 \ud83d \u2028 \\ \" '"),
        TextContent(""),
        ReasoningContent("hm", protected_data="c2lnbmVk"),
        DataContent(bytes(range(256)), "image/png", filename="a.png"),
        UriContent("https://example.com/a.mp3", "audio/mpeg"),
        ToolCallContent("c1", "weather", '{"city": "Zürich", "days": 1.0}'),
        ToolCallContent("c2", "weather", {"nested": [{"deep": [None, True, 1, 1.5, "x", 2**70]}]}),
        ToolResultContent("c1", {"temperature": -1.5}, contents=(DataContent(b"\x00", "image/png"),)),
        ToolResultContent("c2", "failed", is_error=True),
        ApprovalRequestContent("r1", ToolCallContent("c3", "delete", "{}")),
        ErrorContent("refused", code="policy", details="no"),
        UsageContent(10, 20, 30, additional_properties={"cached": 5}),
        OpaqueContent({"type": "hologram", "data": {"x": [1, 2]}}),
    ],
    author_name="the agent",
    message_id="everything",
    created_at=WHEN,
    additional_properties={"a": {"b": [1, "two", None, {"c": 3.25}]}, "empty": {}, "ключ": "значение"},
    unknown_fields={"from_the_future": [1, 2, 3]},
)


@pytest.mark.anyio
class TestContent:
    async def test_everything_comes_back_as_it_was(self, make_store: MakeStore) -> None:
        store = make_store()
        await store.add_messages([EVERYTHING])
        assert [item.message async for item in store.iter_messages()] == [EVERYTHING]
        assert await store.get("everything") == EVERYTHING

    async def test_call_ids_of_any_text(self, make_store: MakeStore) -> None:
        store = make_store(max_messages=3)
        for call_id in ("\ud800", "\x00", "😀'\"\\", "x" * 3000):
            await store.add_messages([call(call_id)])
            await store.add_messages([result(call_id)])
            assert await stored(store) == [f"call {call_id}", f"result {call_id}"]

    async def test_a_call_of_a_newer_version_that_waits(self, make_store: MakeStore) -> None:
        newer = ChatMessage.from_dict(
            {
                "role": "assistant",
                "contents": [
                    {"type": "approval_request", "request_id": "r", "tool_call": {"type": "mcp", "id": "t"}},
                    {"type": "tool_call", "call_id": "c", "name": "f"},
                ],
                "message_id": "m",
                "created_at": "2026-01-01T00:00:00Z",
            }
        )
        store = make_store()
        await store.add_messages([newer])
        assert (await store.list_messages())[0] == newer

    async def test_a_message_gets_an_id_and_a_time(self, make_store: MakeStore) -> None:
        store = make_store()
        await store.add_messages([user("1"), user("2")])
        one, two = await store.list_messages()
        assert one.message_id != two.message_id
        assert one.created_at is not None
        assert abs((datetime.now(timezone.utc) - one.created_at).total_seconds()) < 60

    async def test_many_messages_in_one_call(self, make_store: MakeStore) -> None:
        store = make_store(max_messages=1100)
        messages = [user(str(n), message_id=str(n)) for n in range(1200)]
        await store.add_messages(messages)
        await store.add_messages(messages)
        assert await stored(store) == [str(n) for n in range(100, 1200)]
        assert await store.delete([str(n) for n in range(1150)]) == 1050
        assert await store.count() == 50


@pytest.mark.anyio
class TestSizes:
    async def test_two_megabytes(self, make_store: MakeStore) -> None:
        store = make_store()
        text = "😀\x00'\"\\é" * (2_000_000 // 11)
        await store.add_messages(
            [user(text), ChatMessage("user", contents=[DataContent(b"\xff" * 1_500_000, "a/b")])]
        )
        one, two = await store.list_messages()
        assert one.text == text
        assert isinstance(two.contents[0], DataContent)
        assert two.contents[0].data == b"\xff" * 1_500_000

    async def test_a_message_over_the_limit(self, make_store: MakeStore) -> None:
        store = make_store()
        await store.add_messages([user("1")])
        real = store.log.max_message_bytes
        if real is None or real > 32_000_000:  # too much to try: the same, with a lower limit
            limited = cast("MessageLog", _Limited(store.log, 1000))
            store = make_store(limited, thread_id=store.thread_id)
        limit = store.log.max_message_bytes
        assert limit is not None
        with pytest.raises(MessageTooLargeError, match=f"at most {limit} bytes") as caught:
            await store.add_messages([user("fits"), user("x" * (limit + 1))])
        assert caught.value.limit == limit
        assert caught.value.size > limit
        with pytest.raises(MessageTooLargeError):
            await store.replace((await store.list_messages())[0].message_id or "", user("x" * (limit + 1)))
        assert await stored(store) == ["1"]


class _Limited:
    """A log with a lower limit than its own."""

    def __init__(self, log: Any, limit: int) -> None:
        self._log = log
        self.max_message_bytes = limit

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


@pytest.mark.anyio
class TestCorruption:
    async def test_one_unreadable_message(
        self, make_store: MakeStore, target: Target, caplog: pytest.LogCaptureFixture
    ) -> None:
        store = make_store()
        await store.add_messages([user("1", message_id="a"), user("2", message_id="b"), user("3")])
        if target.corrupt is None:
            assert target.open_in_process is None, (
                "a backend that outlives the process says how to corrupt it"
            )
            return
        await target.corrupt(store._key, 2)
        with pytest.raises(CorruptMessageError, match="position 2") as caught:
            await store.list_messages()
        assert (caught.value.thread_id, caught.value.position) == (store.thread_id, 2)
        with pytest.raises(CorruptMessageError):
            await store.get("b")
        skipping = make_store(store.log, thread_id=store.thread_id, on_corrupt="skip")
        with caplog.at_level(logging.WARNING, "agent_stores"):
            assert [message.text for message in await skipping.list_messages()] == ["1", "3"]
        assert "position 2" in caplog.text
        await store.add_messages([user("4")])
        assert await stored(skipping) == ["1", "3", "4"]
        await store.replace("b", user("mended"))
        assert await stored(store) == ["1", "mended", "3", "4"]
