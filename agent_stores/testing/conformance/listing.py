"""Listings of threads and tenants: by id and by recency, in pages, of one tenant."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from typing import Any

import pytest

from agent_stores.backend import Change, Thread, ThreadKey, ThreadOrder
from agent_stores.capabilities import TenantLister
from agent_stores.errors import ArgumentError, StoreRejectedError
from agent_stores.store import ChatMessageStore
from agent_stores.testing.conformance.target import MakeStore, Target, user


async def listed(store: ChatMessageStore, **options: Any) -> list[str]:
    """The ids of all threads of a store's tenant, read in pages."""
    found: list[str] = []
    cursor = None
    for _ in range(100):
        page = await store.list_threads(cursor=cursor, **options)
        assert len(page.threads) <= options.get("limit", 100)
        found += [stats.thread_id for stats in page.threads]
        cursor = page.cursor
        if cursor is None:
            return found
    raise AssertionError("a listing has no end")


async def tick() -> None:
    """Let the time of the next write be another one."""
    await asyncio.sleep(0.003)


def new_tenant() -> str:
    """A tenant that no other test uses."""
    return f"tenant-{uuid.uuid4().hex}"


@pytest.mark.anyio
class TestListing:
    async def test_by_prefix(self, make_store: MakeStore) -> None:
        tenant = new_tenant()
        log = make_store().log
        names = ["user%1", "user_1", "user_1:a", "user_1:b", "user_2", "User_1", "user", "use", "usex"]
        for name in names:
            await make_store(log, tenant=tenant, thread_id=name).add_messages([user("x")])
        store = make_store(log, tenant=tenant)
        for prefix in (
            "",
            "u",
            "use",
            "user",
            "user_",
            "user_1",
            "user_1:",
            "user%",
            "U",
            "z",
            "user_1:a\x00",
        ):
            expected = sorted(name for name in names if name.startswith(prefix))
            page = await store.list_threads(prefix=prefix)
            assert [stats.thread_id for stats in page.threads] == expected, prefix
            assert page.cursor is None
            assert sorted(await listed(store, prefix=prefix, order="recent", limit=3)) == expected, prefix

    @pytest.mark.parametrize("order", ["id", "recent"])
    async def test_in_pages(self, make_store: MakeStore, order: ThreadOrder) -> None:
        tenant = new_tenant()
        log = make_store().log
        names = sorted(f"t{a}{b}" for a, b in itertools.product("abc", repeat=2))
        for name in reversed(names):
            await make_store(log, tenant=tenant, thread_id=name).add_messages([user("x"), user("y")])
            await tick()
        store = make_store(log, tenant=tenant)
        for limit in (1, 4, 8, 9, 20):
            assert await listed(store, limit=limit, order=order) == names
        assert {stats.messages for stats in (await store.list_threads(order=order)).threads} == {2}

    async def test_every_write_makes_a_thread_the_most_recent(self, make_store: MakeStore) -> None:
        tenant = new_tenant()
        log = make_store().log
        a, b = (make_store(log, tenant=tenant, thread_id=name) for name in "ab")
        writes: list[tuple[str, tuple[Any, ...]]] = [
            ("add_messages", ([user(str(n), message_id=str(n)) for n in range(4)],)),
            ("replace", ("0", user("zero"))),
            ("delete", ("1",)),
            ("pop_last", ()),
            ("update_metadata", ({"title": "x"},)),
            ("set_ttl", (1000,)),
            ("clear", ()),
            ("replace_all", ([user("new")],)),
        ]
        for operation, arguments in writes:
            for store in (b, a):
                await getattr(store, operation)(*arguments)
                await tick()
                expected = ["b"] if store is b and operation == "add_messages" else None
                expected = expected or [store.thread_id, "a" if store is b else "b"]
                assert await listed(a, order="recent") == expected, operation
        page = await a.list_threads(order="recent")
        times = [stats.updated_at for stats in page.threads]
        assert None not in times
        assert times == sorted(times, reverse=True)  # type: ignore[type-var]
        assert await listed(a) == ["a", "b"]
        await tick()
        await (await b.fork("c")).aclose()
        assert (await listed(a, order="recent"))[0] == "c"

    async def test_reads_do_not(self, make_store: MakeStore) -> None:
        tenant = new_tenant()
        log = make_store().log
        a, b = (make_store(log, tenant=tenant, thread_id=name, ttl=1000, ttl_refresh="read") for name in "ab")
        for store in (a, b):
            await store.add_messages([user("1", message_id="m")])
            await tick()
        await a.list_messages()
        await a.get("m")
        await a.latest(1)
        await a.add_messages([user("1", message_id="m")])  # it is in the thread
        assert await listed(a, order="recent") == ["b", "a"]

    async def test_threads_of_the_same_time_are_ordered_by_id(self, make_store: MakeStore) -> None:
        tenant = new_tenant()
        store = make_store(tenant=tenant)
        # Backends divide threads among partitions: five of these are in one shard of the Redis backend.
        in_one_shard = ["t17", "t21", "t65", "t68", "t82"]
        names = sorted(["B", "a", "b", "c", "é", "\ue000", "😀", *in_one_shard])
        for name, updated_us in [("newer", 2_000), ("older", 1), *((name, 1_000) for name in names[::-1])]:
            thread = Thread(updated_us=updated_us * 1_000_000, recent_request_ids=("request",))
            await store.log.backend.commit(ThreadKey(tenant, name), Change(thread, None))
        for limit in (1, 2, 3, 20):
            assert await listed(store, order="recent", limit=limit) == ["newer", *names, "older"]
        assert await listed(store, order="id", limit=2) == sorted([*names, "newer", "older"])

    async def test_a_page_does_not_shift(self, make_store: MakeStore) -> None:
        """Threads that are written between two pages move to the front; no other thread is lost."""
        tenant = new_tenant()
        log = make_store().log
        stores = {name: make_store(log, tenant=tenant, thread_id=name) for name in "abcdef"}
        for store in stores.values():
            await store.add_messages([user("x")])
            await tick()
        first = await stores["a"].list_threads(order="recent", limit=2)
        assert [stats.thread_id for stats in first.threads] == ["f", "e"]
        await stores["c"].add_messages([user("y")])
        second = await stores["a"].list_threads(order="recent", limit=10, cursor=first.cursor)
        assert [stats.thread_id for stats in second.threads] == ["d", "b", "a"]
        assert second.cursor is None

    @pytest.mark.parametrize("order", ["id", "recent"])
    async def test_expired_threads_are_not_listed(
        self, make_store: MakeStore, target: Target, order: ThreadOrder
    ) -> None:
        tenant = new_tenant()
        log = make_store().log
        for n in range(12):
            options = {"ttl": target.unit} if n % 4 else {}
            store = make_store(log, tenant=tenant, thread_id=f"t{n:02}", **options)
            await store.add_messages([user("x")])
            await tick()
        await target.advance(1.5 * target.unit)
        kept = ["t00", "t04", "t08"] if order == "id" else ["t08", "t04", "t00"]
        for limit in (1, 2, 3, 100):
            assert await listed(make_store(log, tenant=tenant), order=order, limit=limit) == kept

    async def test_wrong_arguments(self, make_store: MakeStore) -> None:
        tenant = new_tenant()
        log = make_store().log
        for name in "ab":
            await make_store(log, tenant=tenant, thread_id=name).add_messages([user("x")])
        store = make_store(log, tenant=tenant)
        with pytest.raises(ArgumentError, match="order must be one of"):
            await store.list_threads(order="newest")  # type: ignore[arg-type]
        by_id = (await store.list_threads(limit=1)).cursor
        recent = (await store.list_threads(limit=1, order="recent")).cursor
        for order, cursor in (("recent", by_id), ("id", recent), ("recent", "[]"), ("id", '["id",1]')):
            with pytest.raises(ArgumentError, match="cursor must be one that"):
                await store.list_threads(order=order, cursor=cursor)  # type: ignore[arg-type]

    async def test_threads_of_others_are_not_listed(self, make_store: MakeStore) -> None:
        tenant = new_tenant()
        mine = make_store(tenant=tenant)
        theirs = make_store(tenant=f"{tenant}-other", log=mine.log)
        for store in (mine, theirs):
            await store.add_messages([user("x")])
        for order in ("id", "recent"):
            assert await listed(mine, order=order) == [mine.thread_id]
        assert not await mine.delete_thread(theirs.thread_id)
        assert await theirs.count() == 1

    async def test_tenants(self, make_store: MakeStore) -> None:
        log = make_store().log
        if not isinstance(log.backend, TenantLister):
            with pytest.raises(StoreRejectedError, match="cannot list tenants"):
                await log.list_tenants()
            return
        begin = f"tenants-{uuid.uuid4().hex}"
        names = [f"{begin}{end}" for end in ("", "\x00", "-", "A", "a", "a'b", "é", "\ue000", "😀")]
        for name in reversed(names):
            for thread_id in "ab":
                await make_store(log, tenant=name, thread_id=thread_id).add_messages([user("x")])
        no_tenant = make_store(log)
        await no_tenant.add_messages([user("x")])
        assert await log.list_tenants(limit=1) == [None]
        for limit in (1, 4, len(names)):
            found: list[str | None] = []
            after = begin[:-1]
            while len(found) < len(names):
                page = await log.list_tenants(after=after, limit=min(limit, len(names) - len(found)))
                assert page
                found += page
                after = str(page[-1])
            assert found == names
        for thread_id in "ab":
            await make_store(log, tenant=names[1], thread_id=thread_id).delete_thread()
        assert await log.list_tenants(after=names[0], limit=1) == [names[2]]
