"""What a search finds, and what it must not: for logs that offer one (`MessageLog.supports_search`).

It is not part of ``from agent_stores.testing.conformance import *``: a backend whose log can search imports
`TestSearch` from here beside it.
"""

from __future__ import annotations

import asyncio
import uuid

import pytest

from agent_stores.errors import ArgumentError
from agent_stores.log import MessageLog
from agent_stores.messages import ChatMessage
from agent_stores.store import ChatMessageStore
from agent_stores.testing.conformance.target import MakeStore, Target, call, result, user

pytestmark = pytest.mark.anyio

HOSTILE = (
    'tea" OR "1"="1',
    "tea) AND (owner : x",
    "owner:tea",
    "body : tea NOT x",
    "tea*",
    "NEAR(tea coffee, 2)",
    "^tea + - : ( { ' \" \\ ;--",
    "tea & ! | <-> :*",
    "%tea_ \x00 \ud800 tea",
    "'; DROP TABLE agent_messages; -- tea",
)


def searchable(store: ChatMessageStore) -> MessageLog:
    """The store's log, which must be able to search."""
    log = store.log
    assert log.supports_search
    return log


async def find(store: ChatMessageStore, query: str, **options: object) -> list[str]:
    """The texts that a search finds in the store's tenant."""
    hits = await searchable(store).search(store.tenant, query, **options)  # type: ignore[arg-type]
    return [ChatMessage.from_json(hit.row.body).text for hit in hits]


def own() -> str:
    """A tenant of a test's own."""
    return f"tenant-{uuid.uuid4().hex}"


@pytest.mark.anyio
class TestSearch:
    async def test_words_are_found_whatever_their_case(self, make_store: MakeStore) -> None:
        store = make_store(tenant=own())
        await store.add_messages([user("I love Tea."), user("Coffee, please"), user("the café at the lake")])
        assert await find(store, "TEA") == ["I love Tea."]
        assert await find(store, "do you have coffee?") == ["Coffee, please"]
        assert await find(store, "lake") == ["the café at the lake"]
        assert await find(store, "café") == ["the café at the lake"]
        assert await find(store, "whisky") == []
        assert await find(store, " ?! ") == []

    async def test_the_best_comes_first(self, make_store: MakeStore) -> None:
        store = make_store(tenant=own())
        await store.add_messages(
            [*(user(f"tea number {n}") for n in range(5)), user("the tea of Ceylon"), user("nothing")]
        )
        found = await find(store, "tea from ceylon")
        assert found[0] == "the tea of Ceylon"
        assert len(found) == 6
        assert await find(store, "tea from ceylon", limit=1) == ["the tea of Ceylon"]
        assert await find(store, "tea", limit=0) == []
        with pytest.raises(ArgumentError, match="limit must be"):
            await find(store, "tea", limit=-1)

    async def test_what_a_hit_says(self, make_store: MakeStore) -> None:
        store = make_store(tenant=own(), thread_id="t \x00/\u2028'\"")
        await store.add_messages([user("one"), user("two", message_id="m")])
        (hit,) = await searchable(store).search(store.tenant, "two")
        assert hit.thread_id == store.thread_id
        assert hit.row.position == 2
        assert hit.score > 0
        assert ChatMessage.from_json(hit.row.body).message_id == "m"

    async def test_tenants_never_meet(self, make_store: MakeStore) -> None:
        name = own()
        stores = [make_store(tenant=tenant, thread_id=f"{name}-t") for tenant in (name, f"{name}2", None)]
        word = uuid.uuid4().hex
        for number, store in enumerate(stores):
            await store.add_messages([user(f"{word} {number}")])
        for number, store in enumerate(stores):
            assert await find(store, word) == [f"{word} {number}"]
        assert await find(make_store(tenant=own()), word) == []

    @pytest.mark.parametrize("query", HOSTILE)
    async def test_a_query_is_words_and_no_language(self, make_store: MakeStore, query: str) -> None:
        mine, theirs = make_store(tenant=own()), make_store(tenant=own())
        await theirs.add_messages([user(f"their tea {query}".replace("\ud800", ""))])
        await mine.add_messages([user("my tea"), user("unrelated")])
        assert await find(mine, query) == ["my tea"]

    async def test_one_thread_or_the_others(self, make_store: MakeStore) -> None:
        tenant = own()
        one, two = make_store(tenant=tenant), make_store(tenant=tenant)
        await one.add_messages([user("tea 1"), user("tea 2"), user("tea 3")])
        await two.add_messages([user("tea 4")])
        assert sorted(await find(one, "tea")) == ["tea 1", "tea 2", "tea 3", "tea 4"]
        assert await find(one, "tea", thread_id=two.thread_id) == ["tea 4"]
        assert sorted(await find(one, "tea", before=(one.thread_id, 3))) == ["tea 1", "tea 2", "tea 4"]
        assert await find(one, "tea", before=(one.thread_id, 0)) == ["tea 4"]
        both = {"thread_id": one.thread_id, "before": (one.thread_id, 2)}
        assert await find(one, "tea", **both) == ["tea 1"]

    async def test_what_is_gone_is_not_found(self, make_store: MakeStore) -> None:
        tenant = own()
        store = make_store(tenant=tenant)
        await store.add_messages([user(f"tea {n}", message_id=f"m{n}") for n in range(6)])
        await store.replace("m0", user("coffee 0"))
        await store.delete(["m1", "m2"])
        await store.pop_last()
        assert sorted(await find(store, "tea")) == ["tea 3", "tea 4"]
        assert await find(store, "coffee") == ["coffee 0"]
        branch = await store.fork(at=4)
        assert sorted(await find(store, "tea", thread_id=branch.thread_id)) == ["tea 3"]
        await branch.aclose()
        await store.clear()
        assert await find(store, "tea", thread_id=store.thread_id) == []
        await store.add_messages([user("tea again")])
        assert await find(store, "tea", thread_id=store.thread_id) == ["tea again"]
        await store.delete_thread()
        assert await find(store, "tea", thread_id=store.thread_id) == []

    async def test_what_is_trimmed_is_not_found(self, make_store: MakeStore) -> None:
        store = make_store(tenant=own(), max_messages=2)
        for n in range(5):
            await store.add_messages([user(f"tea {n}")])
        assert sorted(await find(store, "tea")) == ["tea 3", "tea 4"]

    async def test_what_expired_is_not_found(self, target: Target, make_store: MakeStore) -> None:
        tenant = own()
        short, long = make_store(tenant=tenant, ttl=target.unit), make_store(tenant=tenant)
        await short.add_messages([user("short tea")])
        await long.add_messages([user("long tea")])
        assert len(await find(long, "tea")) == 2
        await target.advance(1.5 * target.unit)
        assert await find(long, "tea") == ["long tea"]
        await short.add_messages([user("new tea")])
        assert sorted(await find(long, "tea")) == ["long tea", "new tea"]

    async def test_only_what_people_and_models_said(self, make_store: MakeStore) -> None:
        store = make_store(tenant=own())
        await store.add_messages(
            [
                ChatMessage("system", "tea for all", pinned=True),
                call("tea"),
                result("tea"),
                ChatMessage("tool", "tea"),
                ChatMessage("assistant", contents=["tea", "and milk"]),
                user("role contents text user"),
            ]
        )
        assert await find(store, "tea") == ["teaand milk"]
        assert await find(store, "milk") == ["teaand milk"]
        assert await find(store, "type v") == []

    async def test_odd_and_long_messages_can_be_stored_and_others_found(self, make_store: MakeStore) -> None:
        store = make_store(tenant=own())
        odd = ["nul \x00 tea", "\\u0000 backslash tea", "😀 smile tea", "x" * 2_000_000, ""]
        long = " ".join(f"word{n}" for n in range(150_000))
        await store.add_messages([user(text) for text in (*odd, long)])
        assert await find(store, "smile") == ["😀 smile tea"]
        assert await find(store, "word7") == [long]
        assert len(await store.list_messages()) == 6

    async def test_writers_at_once_are_all_found(self, make_store: MakeStore) -> None:
        tenant = own()
        stores = [make_store(tenant=tenant) for _ in range(8)]
        await asyncio.gather(*(store.add_messages([user("tea")] * 5) for store in stores))
        assert len(await find(stores[0], "tea", limit=100)) == 40
