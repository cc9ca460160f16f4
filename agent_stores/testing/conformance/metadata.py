"""A thread's metadata: merged by key, with a revision, and as durable as the thread."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest

from agent_stores.errors import ArgumentError, ArgumentTypeError, ConflictError
from agent_stores.messages import ChatMessage
from agent_stores.testing.conformance.target import MakeStore, Target, stored, user
from agent_stores.thread_updates import METADATA_BYTES


@pytest.mark.anyio
class TestMetadata:
    async def test_values_are_merged_by_key(self, make_store: MakeStore) -> None:
        store = make_store()
        assert await store.metadata() == {}
        assert (await store.stats()).revision == 0
        assert await store.update_metadata({"title": "Paris", "tags": ["a", "b"]}) == 1
        assert await store.update_metadata({"title": "Rome", "user": {"name": "Alice"}}) == 2
        assert await store.metadata() == {"title": "Rome", "tags": ["a", "b"], "user": {"name": "Alice"}}
        assert await store.update_metadata({"tags": None, "missing": None, "user": {"id": 7}}) == 3
        assert await store.metadata() == {"title": "Rome", "user": {"id": 7}}
        assert (await store.stats()).revision == 3

    async def test_what_changes_nothing_is_no_revision(self, make_store: MakeStore) -> None:
        store = make_store()
        assert await store.update_metadata({"n": 1}) == 1
        for changes in ({"n": 1}, {}, {"missing": None}):
            assert await store.update_metadata(changes) == 1
        assert await store.update_metadata({"n": True}) == 2
        assert await store.metadata() == {"n": True}
        assert (await store.metadata())["n"] is True

    async def test_without_and_with_messages(self, make_store: MakeStore) -> None:
        store = make_store(tenant=f"tenant-{uuid.uuid4().hex}", max_messages=2)
        await store.update_metadata({"title": "empty"})
        stats = await store.stats()
        assert (stats.messages, stats.last_position, stats.first_at) == (0, 0, None)
        assert [t.metadata for t in (await store.list_threads()).threads] == [{"title": "empty"}]
        await store.add_messages([user("1"), user("2")], expected_position=0)
        await store.update_metadata({"state": {"step": 1}})
        await store.add_messages([user("3")])
        assert await stored(store) == ["2", "3"]
        stats = await store.stats()
        assert (stats.messages, stats.last_position, stats.revision) == (2, 3, 2)
        assert stats.metadata == {"title": "empty", "state": {"step": 1}}

    async def test_initial_messages_come_after_metadata(self, make_store: MakeStore) -> None:
        """A thread to which no message was ever added begins with them."""
        plain = make_store()
        await plain.update_metadata({"title": "first"})
        store = make_store(thread_id=plain.thread_id, messages=[user("hello")])
        await store.add_messages([user("1")])
        assert await stored(store) == ["hello", "1"]
        assert await store.metadata() == {"title": "first"}

    async def test_editing_messages_keeps_it(self, make_store: MakeStore) -> None:
        store = make_store()
        await store.add_messages([user(str(n), message_id=str(n)) for n in range(4)])
        await store.update_metadata({"title": "kept"})
        await store.replace("0", user("zero"))
        await store.delete("1")
        await store.pop_last()
        await store.replace_all([user("new")])
        await store.clear()
        stats = await store.stats()
        assert (stats.metadata, stats.revision) == ({"title": "kept"}, 1)
        await store.delete_thread()
        assert await store.metadata() == {}
        await store.add_messages([user("anew")])
        stats = await store.stats()
        assert (stats.metadata, stats.revision) == ({}, 0)

    async def test_expected_revision(self, make_store: MakeStore) -> None:
        store = make_store()
        assert await store.update_metadata({"n": 0}, expected_revision=0) == 1
        assert await store.update_metadata({"n": 1}, expected_revision=1) == 2
        before = await store.stats()
        for stale in (0, 1, 3):
            with pytest.raises(ConflictError, match=f"expected_revision is {stale}") as caught:
                await store.update_metadata({"n": 2, "other": True}, expected_revision=stale)
            assert (caught.value.expected, caught.value.actual) == (stale, 2)
        assert await store.stats() == before
        with pytest.raises(ConflictError):
            await make_store().update_metadata({"n": 1}, expected_revision=1)
        with pytest.raises(ArgumentError, match=r"expected_revision .*-1"):
            await store.update_metadata({"n": 1}, expected_revision=-1)

    async def test_messages_do_not_change_the_revision(self, make_store: MakeStore) -> None:
        store = make_store()
        revision = await store.update_metadata({"n": 0})
        await store.add_messages([user("1")])
        assert await store.update_metadata({"n": 1}, expected_revision=revision) == revision + 1
        position = (await store.stats()).last_position
        await store.update_metadata({"n": 2})
        await store.add_messages([user("2")], expected_position=position)

    async def test_any_json(self, make_store: MakeStore) -> None:
        values: dict[str, Any] = {
            "text": "Ünïcödé 😀 \x00 \ud83d \u2028 \\ \" '",
            "\x00": "a NUL as key",
            "": "no key",
            "\udc00": "half of an emoji",
            "__proto__": {"$type": "x", "_id": 1},
            "numbers": [0, -1, 2**53, -(2**63), 1.5, 1e300, 0.1],
            "words": [True, False, [None], {"none": None}],
            "nested": {"a": [{"b": [[], {}, ""]}]},
        }
        store = make_store()
        await store.update_metadata(values)
        found = await make_store(thread_id=store.thread_id).metadata()
        assert found == values
        assert type(found["words"][0]) is bool
        assert type(found["numbers"][4]) is float

    async def test_what_json_cannot_hold(self, make_store: MakeStore) -> None:
        store = make_store()
        await store.update_metadata({"kept": 1})
        for value in (object(), b"bytes", {1, 2}, {1: "x"}):
            with pytest.raises(ArgumentTypeError, match="changes"):
                await store.update_metadata({"other": 1, "bad": value})
            with pytest.raises(ArgumentTypeError, match="metadata"):
                make_store(metadata={"bad": value})
        for number in (float("nan"), float("inf")):
            with pytest.raises(ArgumentError, match="changes"):
                await store.update_metadata({"other": 1, "bad": number})
            with pytest.raises(ArgumentError, match="metadata"):
                make_store(metadata={"bad": number})
        for wrong in (None, "text", ["pairs"], 7):
            with pytest.raises(ArgumentTypeError, match="changes"):
                await store.update_metadata(wrong)  # type: ignore[arg-type]
        stats = await store.stats()
        assert (stats.metadata, stats.revision) == ({"kept": 1}, 1)

    async def test_the_largest_metadata(self, make_store: MakeStore) -> None:
        store = make_store()
        overhead = len('{"a":"","b":""}')
        half = METADATA_BYTES // 2 - overhead
        await store.update_metadata({"a": "x" * half})
        await store.update_metadata({"b": "y" * (METADATA_BYTES - overhead - half)})
        before = await store.stats()
        with pytest.raises(ArgumentError, match=f"metadata must be at most {METADATA_BYTES} bytes"):
            await store.update_metadata({"b": "y" * (METADATA_BYTES - overhead - half + 1)})
        with pytest.raises(ArgumentError, match=f"metadata must be at most {METADATA_BYTES} bytes"):
            await store.update_metadata({"c": ""})
        assert await store.stats() == before
        await store.add_messages([user("1")])
        await store.update_metadata({"a": None, "c": "x" * half})
        assert sorted(await store.metadata()) == ["b", "c"]
        with pytest.raises(ArgumentError, match=f"metadata must be at most {METADATA_BYTES} bytes"):
            make_store(metadata={"a": "😀" * (METADATA_BYTES // 4)})

    async def test_listings_have_it(self, make_store: MakeStore) -> None:
        tenant = f"tenant-{uuid.uuid4().hex}"
        log = make_store().log
        for name in "abc":
            store = make_store(log, tenant=tenant, thread_id=name)
            await store.update_metadata({"title": f"thread {name}"})
            await store.add_messages([user("x")])
        for order in ("id", "recent"):
            page = await make_store(log, tenant=tenant).list_threads(order=order)
            found = {t.thread_id: (t.metadata, t.revision, t.messages) for t in page.threads}
            assert found == {name: ({"title": f"thread {name}"}, 1, 1) for name in "abc"}

    async def test_a_fork_has_its_own(self, make_store: MakeStore) -> None:
        store = make_store()
        await store.add_messages([user("1"), user("2")])
        await store.update_metadata({"title": "of both"})
        branch = await store.fork(at=1)
        stats = await branch.stats()
        assert (stats.metadata, stats.revision) == ({"title": "of both"}, 1)
        await branch.update_metadata({"title": "of the branch"}, expected_revision=1)
        await store.update_metadata({"more": 1})
        assert await branch.metadata() == {"title": "of the branch"}
        assert await store.metadata() == {"title": "of both", "more": 1}
        alone = make_store()
        await alone.update_metadata({"title": "no messages"})
        assert await (await alone.fork()).metadata() == {"title": "no messages"}

    async def test_it_expires_with_the_thread(self, make_store: MakeStore, target: Target) -> None:
        store = make_store(ttl=2 * target.unit)
        await store.update_metadata({"title": "soon gone"})
        assert (await store.stats()).expires_at is not None
        await target.advance(2.5 * target.unit)
        assert await store.metadata() == {}
        stats = await store.stats()
        assert (stats.revision, stats.expires_at) == (0, None)
        assert await store.update_metadata({"n": 1}, expected_revision=0) == 1
        assert await store.metadata() == {"n": 1}

    async def test_updates_renew_the_time_to_live(self, make_store: MakeStore, target: Target) -> None:
        store = make_store(ttl=3 * target.unit)
        await store.add_messages([user("1")])
        for n in range(2):
            await target.advance(2 * target.unit)
            await store.update_metadata({"n": n})
        assert await stored(store) == ["1"]

    async def test_initial_metadata(self, make_store: MakeStore) -> None:
        initial = {"title": "new", "n": 1}
        read = make_store(metadata=initial)
        assert await read.metadata() == initial
        written = make_store(metadata=initial)
        await written.add_messages([user("1")])
        stats = await written.stats()
        assert (stats.metadata, stats.messages, stats.last_position) == (initial, 1, 1)
        updated = make_store(metadata=initial, messages=[user("hello")])
        assert await updated.update_metadata({"n": 2}, expected_revision=1) == 2
        assert await updated.metadata() == {"title": "new", "n": 2}
        assert await stored(updated) == ["hello"]
        # It is of a new thread only.
        other = make_store(thread_id=written.thread_id, metadata={"title": "other", "x": 1})
        assert await other.metadata() == initial
        await other.add_messages([user("2")])
        assert await other.metadata() == initial
        initial["title"] = "changed by the caller"
        assert await make_store(thread_id=read.thread_id).metadata() == {"title": "new", "n": 1}

    async def test_initial_metadata_comes_back(self, make_store: MakeStore, target: Target) -> None:
        rules = ChatMessage("system", "rules", pinned=True)
        store = make_store(ttl=2 * target.unit, messages=[rules], metadata={"title": "new"})
        assert await store.metadata() == {"title": "new"}
        await store.update_metadata({"title": "later"})
        await target.advance(2.5 * target.unit)
        assert await store.metadata() == {"title": "new"}
        assert await stored(store) == ["rules"]
        await target.advance(2.5 * target.unit)
        assert await store.update_metadata({"n": 1}) == 2
        assert await store.metadata() == {"title": "new", "n": 1}
        assert await stored(store) == ["rules"]

    async def test_updates_at_once_lose_nothing(self, make_store: MakeStore) -> None:
        first = make_store()
        stores = [first, *(make_store(thread_id=first.thread_id) for _ in range(3))]

        async def update(number: int) -> None:
            for step in range(4):
                await stores[number].update_metadata({f"{number}.{step}": step, "shared": number})
                await stores[number].add_messages([user(f"{number}.{step}")])

        await asyncio.gather(*map(update, range(4)))
        metadata = await first.metadata()
        assert metadata.pop("shared") in range(4)
        assert metadata == {f"{number}.{step}": step for number in range(4) for step in range(4)}
        stats = await first.stats()
        assert (stats.messages, stats.last_position) == (16, 16)
        assert stats.revision == 16

    async def test_one_of_several_wins_a_revision(self, make_store: MakeStore) -> None:
        first = make_store()
        stores = [first, *(make_store(thread_id=first.thread_id) for _ in range(3))]
        outcomes = await asyncio.gather(
            *(store.update_metadata({"winner": n}, expected_revision=0) for n, store in enumerate(stores)),
            return_exceptions=True,
        )
        assert [type(outcome) for outcome in outcomes].count(ConflictError) == 3
        winner = next(n for n, outcome in enumerate(outcomes) if outcome == 1)
        assert await first.metadata() == {"winner": winner}
