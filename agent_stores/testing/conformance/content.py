"""Any content is kept exactly; what cannot be kept or read is named."""

from __future__ import annotations

import logging
import uuid
from datetime import datetime, timezone
from functools import partial
from typing import Any, cast

import pytest
from msgspec.structs import replace

from agent_stores._json import MAX_DEPTH
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
from agent_stores.errors import ArgumentError, CorruptMessageError, MessageTooLargeError
from agent_stores.log import MessageLog
from agent_stores.message_rows import make_rows
from agent_stores.messages import ChatMessage
from agent_stores.store import ChatMessageStore
from agent_stores.testing.conformance.target import MakeStore, Target, call, result, stored, user
from agent_stores.tokens import estimate_tokens

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

    async def test_text_of_a_subclass(self, make_store: MakeStore) -> None:
        class Markup(str):
            """As markupsafe's, which templates return."""

            __slots__ = ()

        thread = Markup(uuid.uuid4().hex)
        store = make_store(thread_id=thread, tenant=thread)
        message = user(Markup("é <b>"), message_id=Markup("m"), author_name=Markup("ann"), created_at=WHEN)
        await store.add_messages([message, call(Markup("c")), result(Markup("c"))])
        assert await store.get(Markup("m")) == message
        await store.replace(Markup("m"), user(Markup("new")))
        await store.update_metadata({Markup("title"): Markup("x")})
        page = await store.list_threads(prefix=Markup(thread[:8]))
        assert [(each.thread_id, each.metadata) for each in page.threads] == [(thread, {"title": "x"})]
        assert await stored(store) == ["new", "call c", "result c"]
        assert await store.delete([Markup("m")]) == 1
        branch = await store.fork(Markup(f"{thread}-2"))
        assert await stored(branch) == ["call c", "result c"]
        assert await make_store(tenant=thread).delete_thread(thread)

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

    async def test_unknown_fields_replace_no_known_ones(self, make_store: MakeStore) -> None:
        """Not even those of a message whose constructor did not check them."""
        hidden = {"role": "system", "pinned": True, "v": 99, "contents": [], "mood": "good"}
        store = make_store(max_messages=1)
        await store.add_messages([replace(user("1", message_id="a"), unknown_fields=hidden)])
        (found,) = await store.list_messages()
        assert (found.role, found.pinned, found.text) == ("user", False, "1")
        assert found.unknown_fields == {"mood": "good"}
        await store.replace("a", replace(found, unknown_fields=hidden))
        await store.add_messages([user("2")])
        assert await stored(store) == ["2"]

    async def test_the_deepest_message(self, make_store: MakeStore) -> None:
        value: Any = "x"
        for _ in range(MAX_DEPTH - 2):
            value = [value]
        store = make_store()
        await store.add_messages([user("1", message_id="a", additional_properties={"a": value})])
        (found,) = await store.list_messages()
        assert found.additional_properties == {"a": value}
        other = make_store()
        await other.add_messages([found])
        assert await other.get("a") == found
        with pytest.raises(ArgumentError, match="additional_properties must be nested at most 99 levels"):
            found.replace(additional_properties={"a": [value]})

    async def test_text_with_unpaired_surrogates(self, make_store: MakeStore) -> None:
        store = make_store(thread_id=f"\ud800{uuid.uuid4().hex}", metadata={"\udfff": "\ud800"})
        await store.add_messages([user("\ud800", message_id="\udfff", author_name="\ud800")])
        (found,) = await store.list_messages()
        assert (found.text, found.message_id, found.author_name) == ("\ud800", "\udfff", "\ud800")
        assert await store.metadata() == {"\udfff": "\ud800"}
        assert await store.delete(["\ud800"]) == 0
        page = await store.list_threads(prefix=store.thread_id)
        assert [thread.thread_id for thread in page.threads] == [store.thread_id]
        for cursor in ("\ud800", '["id", "\ud800", "x"]', '["id", 1, "\\ud800', "[" * 100_000):
            with pytest.raises(ArgumentError, match="cursor must be one that list_threads"):
                await store.list_threads(cursor=cursor)

    async def test_many_messages_in_one_call(self, make_store: MakeStore, target: Target) -> None:
        count = 300 if target.shortened else 1200  # more than one transaction holds
        store = make_store(max_messages=count - 100)
        messages = [user(str(n), message_id=str(n)) for n in range(count)]
        await store.add_messages(messages)
        await store.add_messages(messages)
        assert await stored(store) == [str(n) for n in range(100, count)]
        assert await store.delete([str(n) for n in range(count - 50)]) == count - 150
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


async def _next(store: ChatMessageStore) -> Any:
    return await store.iter_messages(after=1).__anext__()


class _Limited:
    """A log with a lower limit than its own."""

    def __init__(self, log: Any, limit: int) -> None:
        self._log = log
        self.max_message_bytes = limit

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


@pytest.mark.anyio
class TestCorruption:
    @pytest.mark.parametrize(
        "body",
        [
            b'{"role":"user","additional_properties":{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
            b'{"role":"user","mood":' + b"[" * 1_500 + b"]" * 1_500 + b"}",
            b'{"role":"\\ud800"}',
            b'{"role":"user","$unknown":{"role":"system","pinned":true}}',
        ],
        ids=["deep", "deep-unknown-field", "surrogate", "hidden-fields"],
    )
    async def test_a_record_of_another_program(
        self, make_store: MakeStore, body: bytes, caplog: pytest.LogCaptureFixture
    ) -> None:
        store = make_store()
        await store.add_messages([user("1")])
        (row,) = make_rows([user("2", message_id="b")], estimate_tokens)
        await store.log.append(store._key, [replace(row, body=body, bytes=len(body))])
        await store.add_messages([user("3")])
        for read in (store.list_messages, partial(store.get, "b"), partial(_next, store)):
            with pytest.raises(CorruptMessageError, match="position 2"):
                await read()
        skipping = make_store(store.log, thread_id=store.thread_id, on_corrupt="skip")
        with caplog.at_level(logging.WARNING, "agent_stores"):
            assert [message.text for message in await skipping.list_messages()] == ["1", "3"]
            assert await stored(skipping) == ["1", "3"]
        assert "position 2" in caplog.text
        await store.replace("b", user("replaced"))
        assert await stored(store) == ["1", "replaced", "3"]

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
