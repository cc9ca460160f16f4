"""What stores offer beyond the protocol, and how they end."""

from __future__ import annotations

import asyncio
import uuid
from datetime import datetime, timezone
from typing import Any

import pytest

from agent_stores.errors import (
    ArgumentError,
    ArgumentTypeError,
    ConflictError,
    NotFoundError,
    StoreClosedError,
    ThreadExistsError,
)
from agent_stores.log import MessageLog, ThreadKey
from agent_stores.message_rows import make_rows
from agent_stores.messages import ChatMessage
from agent_stores.protocols import ChatMessageStoreProtocol
from agent_stores.store import ChatMessageStore
from agent_stores.testing.conformance.target import (
    MakeStore,
    Target,
    call,
    label,
    labels,
    result,
    stored,
    user,
)


class _Words:
    """A framework whose messages are words."""

    def to_chat_message(self, message: str) -> ChatMessage:
        return user(message)

    def from_chat_message(self, message: ChatMessage) -> str:
        return label(message)


@pytest.mark.anyio
class TestOperations:
    async def test_it_has_the_shape_of_the_protocols(self, make_store: MakeStore) -> None:
        store = make_store()
        assert isinstance(store, ChatMessageStoreProtocol)
        assert isinstance(store.log, MessageLog)
        assert store.thread_id in repr(store)
        assert bool(store)

    async def test_get(self, make_store: MakeStore) -> None:
        store = make_store()
        await store.add_messages([user("1", message_id="a"), user("2")])
        found = await store.get("a")
        assert found is not None
        assert (found.text, found.message_id) == ("1", "a")
        assert await store.get("b") is None
        assert (await store.list_messages())[1].message_id

    async def test_the_newest(self, make_store: MakeStore) -> None:
        store = make_store()
        assert await store.latest(3) == []
        messages = [user("1"), call("a", "b"), result("a"), result("b"), user("2")]
        await store.add_messages([ChatMessage("system", "rules", pinned=True), *messages])

        async def newest(count: int) -> list[str]:
            return [label(item.message) for item in await store.latest(count)]

        every = ["rules", "1", "call a call b", "result a", "result b", "2"]
        for count in range(8):
            assert await newest(count) == every[max(0, len(every) - count) :]
        assert [item.position for item in await store.latest(2)] == [5, 6]
        with pytest.raises(ArgumentError, match=r"count .*-1"):
            await store.latest(-1)

    async def test_another_codec_on_the_same_thread(self, make_store: MakeStore) -> None:
        store = make_store(max_messages=3)
        other: ChatMessageStore[str] = store.with_codec(_Words(), dangling_calls="keep")
        await other.add_messages(["one", "two"])
        await store.add_messages([user("three"), call("a")])
        assert await other.list_messages() == ["two", "three", "call a"]
        assert await labels(store) == ["two", "three", "call a", "no result a"]
        assert [item.message for item in await other.latest(2)] == ["three", "call a"]
        await other.aclose()
        assert await store.count() == 3
        with pytest.raises(ArgumentTypeError, match="codec must be a MessageCodec or None, got int"):
            store.with_codec(3)  # type: ignore[arg-type]

    async def test_replace_keeps_the_place(self, make_store: MakeStore) -> None:
        store = make_store(max_messages=10)
        await store.add_messages([user("1", message_id="a"), user("2")])
        before = await store.stats()
        await store.replace("a", user("the first, longer", message_id="other"))
        assert await stored(store) == ["the first, longer", "2"]
        found = await store.get("a")
        assert found is not None
        assert found.message_id == "a"
        after = await store.stats()
        assert after.messages == before.messages
        assert after.bytes > before.bytes
        assert after.last_position == before.last_position
        with pytest.raises(NotFoundError, match="'missing'"):
            await store.replace("missing", user("x"))

    async def test_rewrite(self, make_store: MakeStore) -> None:
        store = make_store()
        await store.replace_all([])
        assert await store.count() == 0
        await store.replace_all([user("1", message_id="a"), call("x")])
        assert await stored(store) == ["1", "call x"]
        rules = ChatMessage("system", "rules", pinned=True)
        await store.add_messages([rules, user("2", message_id="b")])
        first_at = (await store.stats()).first_at
        await store.replace_all([user("one", message_id="a"), result("x"), user("2", message_id="b")])
        assert [(item.position, label(item.message)) async for item in store.iter_messages()] == [
            (5, "one"),
            (6, "result x"),
            (7, "2"),
        ]
        stats = await store.stats()
        assert (stats.messages, stats.last_position, stats.first_at) == (3, 7, first_at)
        found = await store.get("a")
        assert found is not None
        assert found.text == "one"
        await store.add_messages([user("again", message_id="a"), call("y"), result("y"), user("3")])
        assert await labels(store, last=2) == ["3"]
        await store.replace_all([])
        assert await stored(store) == []
        await store.add_messages([user("4")])
        assert (await store.stats()).last_position == 11

    async def test_a_long_rewrite_of_the_same_messages(self, make_store: MakeStore) -> None:
        store = make_store()
        messages = [user(str(n), message_id=f"m{n}") for n in range(120)]
        await store.replace_all(messages)
        await store.replace_all(messages[::-1])
        await store.add_messages([user("again", message_id="m7"), user("new", message_id="n")])
        assert await stored(store) == [*(str(n) for n in reversed(range(120))), "new"]
        found = await store.get("m119")
        assert found is not None
        assert found.text == "119"
        assert await store.delete(["m0", "m119"]) == 2

    async def test_rewrite_keeps_what_the_limit_keeps(self, make_store: MakeStore) -> None:
        store = make_store(max_messages=2)
        await store.replace_all(
            [ChatMessage("system", "rules", pinned=True), user("1"), call("x"), result("x"), user("2")]
        )
        assert await stored(store) == ["rules", "2"]
        await store.add_messages([user("3"), user("4")])
        assert await stored(store) == ["rules", "3", "4"]

    async def test_replace_all_at_the_expected_position(self, make_store: MakeStore) -> None:
        store = make_store()
        await store.replace_all([user("1")], expected_position=0)
        await store.add_messages([user("2")])
        for messages in ([], [user("3")]):
            with pytest.raises(ConflictError) as caught:
                await store.replace_all(messages, expected_position=1)
            assert caught.value.actual == 2
        assert await stored(store) == ["1", "2"]
        await store.replace_all([user("3")], expected_position=2)
        assert await stored(store) == ["3"]

    async def test_the_retry_of_a_rewrite_changes_nothing(self, make_store: MakeStore) -> None:
        store = make_store()
        key = ThreadKey(store.tenant, store.thread_id)
        for batch, texts in (("a" * 18, ["1", "2"]), ("b" * 18, [])):
            records = make_rows([user(text, message_id=text) for text in texts], lambda _: 1)
            await store.add_messages([user("before")])
            last = await store.log.replace_all(key, records, request_id=batch)
            await store.add_messages([user("after")])
            assert await store.log.replace_all(key, records, request_id=batch) == last + 1
            assert await stored(store) == [*texts, "after"]

    async def test_readers_see_one_rewrite_or_another(self, make_store: MakeStore) -> None:
        store = make_store()
        stories = [[user(f"{name}{n}") for n in range(20)] for name in "ab"]
        await store.replace_all(stories[0])
        seen = []

        async def read() -> None:
            for _ in range(30):
                seen.append(await labels(store))
                await asyncio.sleep(0)

        async def write() -> None:
            for n in range(10):
                await store.replace_all(stories[n % 2])

        await asyncio.gather(read(), read(), write())
        whole = [[message.text for message in story] for story in stories]
        assert all(view in whole for view in seen)

    async def test_delete(self, make_store: MakeStore) -> None:
        store = make_store()
        await store.add_messages([user(str(n), message_id=str(n)) for n in range(4)])
        assert await store.delete(["1", "2", "missing", "1"]) == 2
        assert await store.delete("3") == 1
        assert await store.delete([]) == 0
        assert await stored(store) == ["0"]
        await store.add_messages([user("4")])
        assert [item.position async for item in store.iter_messages()] == [1, 5]

    async def test_pop_last(self, make_store: MakeStore) -> None:
        store = make_store()
        assert await store.pop_last() is None
        await store.add_messages([user("1"), user("2"), ChatMessage("system", "rule", pinned=True)])
        popped = await store.pop_last()
        assert popped is not None
        assert popped.text == "2"
        assert await stored(store) == ["1", "rule"]

    async def test_clear_keeps_the_thread(self, make_store: MakeStore) -> None:
        store = make_store()
        await store.add_messages([user("1"), user("2")])
        assert await store.clear() == 2
        assert await store.clear() == 0
        stats = await store.stats()
        assert (stats.messages, stats.bytes, stats.tokens, stats.last_position) == (0, 0, 0, 2)
        await store.add_messages([user("3")], expected_position=2)
        assert await stored(store) == ["3"]

    async def test_edits_do_not_move_boundaries(self, make_store: MakeStore) -> None:
        store = make_store(max_messages=2)
        await store.add_messages([call("a", message_id="call"), result("a", message_id="result")])
        popped = await store.pop_last()
        assert popped is not None
        await store.add_messages([popped])
        await store.add_messages([user("1")])
        assert await stored(store) == ["1"]
        other = make_store(max_messages=2)
        await other.add_messages([call("a", message_id="call"), result("a", message_id="result")])
        await other.delete("call")
        await other.add_messages([user("1"), user("2")])
        assert await stored(other) == ["1", "2"]
        third = make_store(max_messages=2)
        await third.add_messages([call("a", message_id="call"), result("a")])
        await third.replace("call", user("no call any more"))
        await third.add_messages([user("1")])
        assert await stored(third) == ["1"]  # the result still belongs to what was its call
        assert await labels(third) == ["1"]

    async def test_stats(self, make_store: MakeStore) -> None:
        store = make_store(count_tokens=lambda message: 3)
        empty = await store.stats()
        assert (empty.messages, empty.bytes, empty.last_position, empty.first_at) == (0, 0, 0, None)
        first = datetime(2024, 2, 29, 12, 0, 0, 123456, tzinfo=timezone.utc)
        last = datetime(2025, 1, 1, tzinfo=timezone.utc)
        messages = [user("1", created_at=first, message_id="a"), user("2", created_at=last, message_id="b")]
        await store.add_messages(messages)
        stats = await store.stats()
        assert (stats.thread_id, stats.tenant) == (store.thread_id, None)
        assert (stats.messages, stats.tokens, stats.last_position) == (2, 6, 2)
        plain = sum(len(message.to_json()) for message in messages)
        assert stats.bytes == sum(row.bytes for row in await store.log.read(store._key))
        assert stats.bytes >= plain if hasattr(store.log.backend, "seal") else stats.bytes == plain
        assert (stats.first_at, stats.last_at, stats.expires_at) == (first, last, None)

    async def test_iterate_in_pages(self, make_store: MakeStore) -> None:
        store = make_store()
        await store.add_messages([user(str(n)) for n in range(25)])
        for size in (1, 7, 25, 100):
            assert [item.message.text async for item in store.iter_messages(page_size=size)] == [
                str(n) for n in range(25)
            ]
        part = [item.position async for item in store.iter_messages(after=3, before=9, page_size=2)]
        assert part == [4, 5, 6, 7, 8]
        with pytest.raises(ArgumentError, match="page_size must be a positive int, got 0"):
            await store.iter_messages(page_size=0).__anext__()

    async def test_a_branch_goes_its_own_way(self, make_store: MakeStore) -> None:
        store = make_store(tenant="acme")
        await store.add_messages([user("1", message_id="a"), user("2"), user("3")])
        branch = await store.fork(f"{store.thread_id}-branch", at=2)
        assert branch.thread_id == f"{store.thread_id}-branch"
        assert branch.tenant == "acme"
        await branch.add_messages([user("other 3")], expected_position=2)
        await store.replace("a", user("one"))
        assert await stored(store) == ["one", "2", "3"]
        assert await stored(branch) == ["1", "2", "other 3"]
        whole = await store.fork()
        await store.delete_thread()
        assert await stored(whole) == ["one", "2", "3"]
        assert (await whole.stats()).bytes > 0
        with pytest.raises(ThreadExistsError):
            await whole.fork(branch.thread_id)
        with pytest.raises(NotFoundError):
            await make_store().fork()
        await branch.aclose()
        assert await stored(whole) == ["one", "2", "3"]

    async def test_a_branch_from_inside_a_group(self, make_store: MakeStore) -> None:
        store = make_store()
        await store.add_messages([user("q"), call("a"), result("a")])
        branch = await store.fork(at=2)
        assert await labels(branch) == ["q", "call a", "no result a"]
        await branch.add_messages([result("a")])
        assert await labels(branch, last=1) == ["call a", "result a"]

    async def test_delete_thread(self, make_store: MakeStore) -> None:
        store = make_store()
        other = make_store(log=store.log)
        for each in (store, other):
            await each.add_messages([user("1")])
        assert await store.delete_thread()
        assert not await store.delete_thread()
        assert await store.delete_thread(other.thread_id)
        assert await stored(store) == await stored(other) == []
        await store.add_messages([user("new")], expected_position=0)

    async def test_bad_arguments(self, make_store: MakeStore) -> None:
        store = make_store()
        for bad, error in (("", ArgumentError), (7, ArgumentTypeError)):
            with pytest.raises(error, match="thread_id must be a non-empty str"):
                make_store(thread_id=bad)
            with pytest.raises(error, match="tenant must be a non-empty str"):
                make_store(tenant=bad)
        for wrong in ("text", b"bytes", user("alone"), None, {"role": "user"}):
            with pytest.raises(ArgumentTypeError, match="messages must be a sequence"):
                await store.add_messages(wrong)  # type: ignore[arg-type]
        with pytest.raises(ArgumentTypeError, match=r"messages\[1\] must be a ChatMessage, got str"):
            await store.add_messages([user("1"), "2"])  # type: ignore[list-item]
        with pytest.raises(ArgumentError, match="dangling_calls must be one of"):
            make_store(dangling_calls="fix")
        with pytest.raises(ArgumentError, match="limit must be a positive int, got 0"):
            await store.list_threads(limit=0)
        for cursor in ("not a cursor\x00", f'["recent", {10**30}, "a"]', '["recent", -1, "a"]'):
            with pytest.raises(ArgumentError, match="cursor must be one that"):
                await store.list_threads(cursor=cursor, order="recent")
        absent: Any = None
        with pytest.raises(ArgumentTypeError, match="after must be a non-negative int, got None"):
            await store.iter_messages(after=absent).__anext__()
        with pytest.raises(ArgumentTypeError, match="limit must be a non-negative int, got None"):
            await store.search("words", limit=absent)
        for given in (1.5, -1, True, "3"):
            counting = make_store(thread_id=store.thread_id, count_tokens=lambda _, count=given: count)
            with pytest.raises((ArgumentError, ArgumentTypeError), match="what count_tokens returns must be"):
                await counting.add_messages([user("1")])
        assert await store.count() == 0


@pytest.mark.anyio
class TestLifecycle:
    async def test_a_closed_store_raises(self, target: Target) -> None:
        log = target.open_log()
        store = ChatMessageStore(log, thread_id="closing")
        await store.aclose()
        await store.aclose()
        for work in (
            store.add_messages([user("x")]),
            store.list_messages(),
            store.stats(),
            store.clear(),
            store.delete_thread(),
            store.list_threads(),
            store.fork(),
        ):
            with pytest.raises(StoreClosedError):
                await work
        # The log was lent to the store, and is not closed with it.
        assert await ChatMessageStore(log, thread_id="closing").list_messages() == []
        await log.aclose()
        await log.aclose()
        with pytest.raises(StoreClosedError):
            await log.stats(store._key)

    async def test_as_a_context_manager(self, target: Target) -> None:
        log = target.open_log()
        async with ChatMessageStore(log) as store:
            await store.add_messages([user("1")])
        with pytest.raises(StoreClosedError):
            await store.list_messages()
        await log.aclose()

    async def test_several_event_loops(self, target: Target) -> None:
        """One store used by loops one after the other, and by three at once."""
        log = target.open_log()
        store = ChatMessageStore(log, thread_id=f"loops-{uuid.uuid4().hex}")

        async def add(name: str) -> None:
            for n in range(5):
                await store.add_messages([user(f"{name}{n}")])

        def add_in_a_loop_of_its_own(name: str) -> None:
            asyncio.run(add(name))

        for name in "ab":
            await asyncio.to_thread(add_in_a_loop_of_its_own, name)
        in_threads = [asyncio.to_thread(add_in_a_loop_of_its_own, name) for name in "cd"]
        await asyncio.gather(add("e"), *in_threads)
        texts = await stored(store)
        assert texts[:10] == [f"{name}{n}" for name in "ab" for n in range(5)]
        assert sorted(texts[10:]) == [f"{name}{n}" for name in "cde" for n in range(5)]
        await log.aclose()
