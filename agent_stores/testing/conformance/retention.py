"""Trimming, windows and time-to-live."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from agent_stores.backend import MAX_RUN
from agent_stores.errors import ArgumentError, ArgumentTypeError, UnansweredToolCallError
from agent_stores.listing import ThreadStats
from agent_stores.messages import ChatMessage
from agent_stores.retention import Window
from agent_stores.testing.conformance.target import MakeStore, Target, call, labels, result, stored, user


def pinned(text: str) -> ChatMessage:
    """A system message that is always kept."""
    return ChatMessage("system", text, pinned=True)


@pytest.mark.anyio
class TestTrimming:
    async def test_the_newest_messages_are_kept(self, make_store: MakeStore) -> None:
        store = make_store(max_messages=3)
        for n in range(5):
            await store.add_messages([user(str(n))])
            assert await stored(store) == [str(k) for k in range(max(0, n - 2), n + 1)]
        await store.add_messages([user(str(n)) for n in range(5, 10)])
        assert await stored(store) == ["7", "8", "9"]
        assert (await store.stats()).messages == 3

    async def test_a_group_across_the_cut_goes_as_a_whole(self, make_store: MakeStore) -> None:
        store = make_store(max_messages=3)
        await store.add_messages([user("q"), call("a"), result("a"), user("thanks")])
        assert await stored(store) == ["call a", "result a", "thanks"]
        await store.add_messages([user("next")])
        assert await stored(store) == ["thanks", "next"]

    async def test_a_group_written_in_several_calls(self, make_store: MakeStore) -> None:
        store = make_store(max_messages=3)
        await store.add_messages([call("a", "b")])
        await store.add_messages([result("a")])
        await store.add_messages([user("meanwhile")])
        await store.add_messages([result("b")])
        # Boundaries follow from the messages of one call, so that the message in between is one.
        assert await stored(store) == ["meanwhile", "result b"]
        assert await labels(store) == ["meanwhile"]
        await store.add_messages([user("next")])
        assert await stored(store) == ["meanwhile", "result b", "next"]

    async def test_a_run_without_a_boundary_delays_a_trim_for_a_while_only(
        self, make_store: MakeStore
    ) -> None:
        store = make_store(max_messages=5)
        await store.add_messages([call("a")])
        for _ in range(MAX_RUN // 32 + 2):
            await store.add_messages([result("a") for _ in range(32)])
            assert await store.count() <= 5 + MAX_RUN
        assert await store.count() == 5
        assert await store.list_messages() == []

    async def test_the_newest_group_is_kept_whole(self, make_store: MakeStore) -> None:
        store = make_store(max_messages=2)
        await store.add_messages([user("q"), call("a", "b", "c"), result("a"), result("b"), result("c")])
        assert await stored(store) == ["call a call b call c", "result a", "result b", "result c"]

    async def test_a_group_of_very_many_calls(self, make_store: MakeStore) -> None:
        store = make_store(max_messages=5)
        names = [f"c{n}" for n in range(250)]
        await store.add_messages([user("q"), call(*names)])
        for name in reversed(names[230:]):
            await store.add_messages([result(name)])
        await store.add_messages([result(name) for name in reversed(names[:230])])
        view = await store.list_messages()
        assert len(view[0].tool_calls) == 250
        assert len(view) == 251

    async def test_groups_that_overlap_are_one(self, make_store: MakeStore) -> None:
        store = make_store(max_messages=3)
        await store.add_messages([call("a"), call("b"), result("a"), result("b"), user("x")])
        assert await stored(store) == ["x"]

    async def test_a_call_without_a_result_holds_nothing_back(self, make_store: MakeStore) -> None:
        store = make_store(max_messages=2)
        await store.add_messages([call("a"), user("1")])
        await store.add_messages([user("2")])
        assert await stored(store) == ["1", "2"]

    async def test_call_ids_that_are_used_again(self, make_store: MakeStore) -> None:
        store = make_store(max_messages=4)
        for turn in range(4):
            await store.add_messages([user(f"q{turn}"), call("call_0"), result("call_0")])
        assert await stored(store) == ["q3", "call call_0", "result call_0"]

    async def test_pinned_messages_stay_and_do_not_count(self, make_store: MakeStore) -> None:
        store = make_store(max_messages=2)
        await store.add_messages([user("0"), pinned("rule 1"), user("1"), user("2")])
        await store.add_messages([pinned("rule 2"), user("3")])
        assert await stored(store) == ["rule 1", "2", "rule 2", "3"]
        assert await labels(store) == ["rule 1", "rule 2", "2", "3"]

    async def test_nothing_is_kept_at_zero(self, make_store: MakeStore) -> None:
        store = make_store(max_messages=0)
        await store.add_messages([pinned("rule"), user("1"), call("a"), result("a")])
        assert await stored(store) == ["rule"]
        await store.add_messages([user("2")])
        assert await stored(store) == ["rule"]
        assert (await store.stats()).last_position == 5

    async def test_limits_are_validated_alike(self, make_store: MakeStore) -> None:
        store = make_store()
        with pytest.raises(ArgumentError, match=r"max_messages .*-1"):
            make_store(max_messages=-1)
        with pytest.raises(ArgumentTypeError, match=r"max_messages .*float"):
            make_store(max_messages=1.5)
        for name in ("last", "before", "after", "max_tokens"):
            with pytest.raises(ArgumentError, match=rf"{name} .*-1"):
                await store.list_messages(**{name: -1})
            with pytest.raises(ArgumentTypeError, match=rf"{name} .*bool"):
                await store.list_messages(**{name: True})
        with pytest.raises(ArgumentError, match=r"max_age .*-1"):
            await store.list_messages(max_age=-1)


@pytest.mark.anyio
class TestWindow:
    async def test_last(self, make_store: MakeStore) -> None:
        store = make_store()
        await store.add_messages([pinned("rule"), user("0"), call("a"), result("a"), user("1"), user("2")])
        assert await labels(store, last=0) == ["rule"]
        assert await labels(store, last=1) == ["rule", "2"]
        assert await labels(store, last=3) == ["rule", "1", "2"]  # not the result without its call
        assert await labels(store, last=4) == ["rule", "call a", "result a", "1", "2"]
        assert await labels(store, last=99) == ["rule", "0", "call a", "result a", "1", "2"]

    async def test_last_inside_the_newest_group(self, make_store: MakeStore) -> None:
        store = make_store()
        await store.add_messages([user("0"), call("a", "b"), result("a"), result("b")])
        assert await labels(store, last=1) == ["call a call b", "result a", "result b"]
        assert await labels(store, last=0) == []

    async def test_before_and_after(self, make_store: MakeStore) -> None:
        store = make_store()
        await store.add_messages([user("1"), call("a"), result("a"), user("4"), user("5")])
        assert await labels(store, after=3) == ["4", "5"]
        assert await labels(store, after=2) == ["4", "5"]  # the rest of a group is not shown
        assert await labels(store, before=5) == ["1", "call a", "result a", "4"]
        assert await labels(store, before=3) == ["1"]
        assert await labels(store, after=1, before=5, last=1) == ["4"]
        assert await labels(store, after=5) == await labels(store, before=1) == []
        await store.add_messages([call("b", "c"), result("b"), result("c"), user("9")])
        assert await labels(store, before=8, last=2) == ["4", "5"]  # a group across the end does not count
        assert await labels(store, before=8, last=2, max_tokens=1000) == ["4", "5"]

    async def test_max_tokens(self, make_store: MakeStore) -> None:
        store = make_store(count_tokens=lambda message: 10)
        await store.add_messages([user(str(n)) for n in range(6)])
        assert await labels(store, max_tokens=0) == []
        assert await labels(store, max_tokens=5) == ["5"]
        assert await labels(store, max_tokens=29) == ["4", "5"]
        assert await labels(store, max_tokens=30) == ["3", "4", "5"]
        assert await labels(store, max_tokens=1000) == [str(n) for n in range(6)]

    async def test_max_tokens_in_a_long_thread(self, make_store: MakeStore) -> None:
        store = make_store(count_tokens=lambda message: 1)
        await store.add_messages([pinned("rule"), *(user(str(n)) for n in range(500))])
        assert len(await store.list_messages(max_tokens=400)) == 400
        assert await labels(store, max_tokens=3) == ["rule", "498", "499"]
        assert len(await store.list_messages(max_tokens=10_000)) == 501
        assert len(await store.list_messages(max_tokens=10_000, last=300)) == 301
        assert len(await store.list_messages(max_tokens=100, last=300)) == 100

    async def test_older_messages_behind_a_long_group(self, make_store: MakeStore) -> None:
        store = make_store(count_tokens=lambda message: 1)
        chain = [call(f"c{n + 1}") if n % 2 else result(f"c{n - 2}") for n in range(2, 202)]
        await store.add_messages([*(user(str(n)) for n in range(10)), call("c0"), *chain])
        everything = await labels(store)
        assert await labels(store, max_tokens=10**6) == everything

    async def test_max_age(self, make_store: MakeStore) -> None:
        store = make_store()
        now = datetime.now(timezone.utc)
        await store.add_messages(
            [
                user("old", created_at=now - timedelta(days=2)),
                user("new", created_at=now - timedelta(minutes=5)),
            ]
        )
        assert await labels(store, max_age=3600) == ["new"]
        assert await labels(store, max_age=timedelta(days=3)) == ["old", "new"]
        assert await labels(store, max_age=1) == []

    async def test_the_stores_own_window(self, make_store: MakeStore) -> None:
        store = make_store(window=Window(last=2))
        await store.add_messages([user(str(n)) for n in range(5)])
        assert await labels(store) == ["3", "4"]
        assert await labels(store, last=3) == ["2", "3", "4"]
        assert await stored(store) == [str(n) for n in range(5)]

    async def test_a_window_that_starts_on_a_user_message(self, make_store: MakeStore) -> None:
        window = Window(start_on="user")
        store = make_store(window=window, count_tokens=lambda message: 1)
        answer = ChatMessage("assistant", "hello")
        await store.add_messages([answer, pinned("rule"), call("a"), result("a")])
        assert await labels(store) == ["rule", "hello", "call a", "result a"]  # there is no user message
        await store.add_messages([user("1"), call("b"), result("b"), answer, user("2"), answer])
        assert await labels(store) == ["rule", "1", "call b", "result b", "hello", "2", "hello"]
        assert await labels(store, last=5) == ["rule", "2", "hello"]
        assert await labels(store, last=1) == ["rule", "hello"]
        assert await labels(store, max_tokens=6) == ["rule", "2", "hello"]
        assert await labels(store, after=5, before=9) == ["rule", "call b", "result b", "hello"][1:]
        assert await stored(store) == [
            *("hello", "rule", "call a", "result a", "1", "call b", "result b", "hello", "2", "hello")
        ]
        plain = make_store(store.log, thread_id=store.thread_id)
        assert (await labels(plain, last=5))[:2] == ["rule", "call b"]
        trimmed = make_store(max_messages=3, window=Window(start_on="user", last=3))
        await trimmed.add_messages([user("q"), call("c"), result("c"), user("next")])
        assert await labels(trimmed) == ["next"]
        for wrong in ("assistant", 1, True):
            with pytest.raises(ArgumentError, match="start_on must be 'user' or None"):
                Window(start_on=wrong)  # type: ignore[arg-type]

    async def test_a_call_without_a_result(self, make_store: MakeStore) -> None:
        store = make_store()
        await store.add_messages([user("q"), call("a", "b"), result("a"), user("and then?")])
        assert await labels(store) == ["q", "call a call b", "result a", "no result b", "and then?"]
        assert await stored(store) == ["q", "call a call b", "result a", "and then?"]
        dropping = make_store(thread_id=store.thread_id, log=store.log, dangling_calls="drop")
        assert await labels(dropping) == ["q", "call a", "result a", "and then?"]
        raising = make_store(thread_id=store.thread_id, log=store.log, dangling_calls="raise")
        with pytest.raises(UnansweredToolCallError) as caught:
            await raising.list_messages()
        assert caught.value.call_ids == ("b",)

    async def test_results_stand_behind_their_calls(self, make_store: MakeStore) -> None:
        store = make_store()
        await store.add_messages([call("a"), call("b"), user("hurry"), result("b"), result("a"), result("x")])
        assert await labels(store) == ["call a", "result a", "call b", "result b", "hurry"]


@pytest.mark.anyio
class TestTimeToLive:
    async def test_a_thread_expires_as_a_whole(self, make_store: MakeStore, target: Target) -> None:
        store = make_store(ttl=2 * target.unit)
        await store.add_messages([pinned("rule"), user("1", message_id="a")])
        stats = await store.stats()
        assert stats.expires_at is not None
        await target.advance(2.5 * target.unit)
        assert await labels(store) == []
        assert await stored(store) == []
        assert await store.get("a") is None
        assert await store.pop_last() is None
        assert await store.count() == 0
        assert [t.thread_id for t in (await store.list_threads(prefix=store.thread_id)).threads] == []
        await store.add_messages([user("2", message_id="a")], expected_position=0)
        assert await stored(store) == ["2"]

    async def test_writes_renew_it(self, make_store: MakeStore, target: Target) -> None:
        store = make_store(ttl=3 * target.unit)
        await store.add_messages([user("1")])
        for n in range(2):
            await target.advance(2 * target.unit)
            await store.add_messages([user(f"more {n}")])
        assert await stored(store) == ["1", "more 0", "more 1"]

    async def test_reads_renew_it_where_asked(self, make_store: MakeStore, target: Target) -> None:
        written = make_store(ttl=3 * target.unit)
        read = make_store(ttl=3 * target.unit, ttl_refresh="read")
        for store in (written, read):
            await store.add_messages([user("1")])
        for _ in range(2):
            await target.advance(2 * target.unit)
            await labels(read)
            await labels(written)
        assert await labels(read) == ["1"]
        assert await labels(written) == []

    async def test_a_fixed_one_is_not_renewed(self, make_store: MakeStore, target: Target) -> None:
        store = make_store(ttl=3 * target.unit, ttl_refresh="never")
        await store.add_messages([user("1")])
        await target.advance(target.unit)
        await store.add_messages([user("2")])
        await store.replace((await store.list_messages())[0].message_id or "", user("one"))
        await store.replace_all([user("3")])
        assert await stored(store) == ["3"]
        await target.advance(2.2 * target.unit)  # less than its time to live after the last write
        assert await stored(store) == []

    async def test_a_rewritten_thread_expires(self, make_store: MakeStore, target: Target) -> None:
        store = make_store(ttl=3 * target.unit)
        await store.replace_all([user("1")])
        await target.advance(2 * target.unit)
        await store.replace_all([user("2")])
        await target.advance(2 * target.unit)
        assert await stored(store) == ["2"]
        await target.advance(1.5 * target.unit)
        assert await stored(store) == []
        assert await store.stats() == ThreadStats(tenant=None, thread_id=store.thread_id)

    async def test_an_explicit_change(self, make_store: MakeStore, target: Target) -> None:
        store = make_store(ttl=2 * target.unit)
        assert not await store.set_ttl(5 * target.unit)
        await store.add_messages([user("1")])
        assert await store.set_ttl(None)
        assert (await store.stats()).expires_at is None
        await store.add_messages([user("2")])  # the store's own no longer counts
        await target.advance(2.5 * target.unit)
        assert await stored(store) == ["1", "2"]
        assert await store.set_ttl(target.unit)
        await target.advance(1.5 * target.unit)
        assert await stored(store) == []

    async def test_a_store_without_one_leaves_it_as_it_is(
        self, make_store: MakeStore, target: Target
    ) -> None:
        store = make_store(ttl=3 * target.unit)
        await store.add_messages([user("1")])
        await make_store(thread_id=store.thread_id, log=store.log).add_messages([user("2")])
        await target.advance(3.5 * target.unit)
        assert await stored(store) == []

    async def test_purging_removes_expired_threads_only(self, make_store: MakeStore, target: Target) -> None:
        short, long = make_store(ttl=target.unit), make_store(ttl=1000 * target.unit)
        for store in (short, long):
            await store.add_messages([user("1")])
        await target.advance(1.5 * target.unit)
        for _ in range(100):  # expired threads of other tests on the same server are purged, too
            await short.purge_expired()
            if await short.log.backend.load(short._key) is None:
                break
        assert await short.log.backend.load(short._key) is None
        assert await stored(long) == ["1"]
        assert await long.log.backend.load(long._key) is not None

    async def test_it_is_validated(self, make_store: MakeStore) -> None:
        for bad in (0, -1, float("nan"), float("inf")):
            with pytest.raises(ArgumentError, match="ttl must be "):
                make_store(ttl=bad)
        with pytest.raises(ArgumentTypeError, match=r"ttl must be a positive number .*, got str"):
            make_store(ttl="60")
        with pytest.raises(ArgumentError, match="ttl_refresh must be one of"):
            make_store(ttl=60, ttl_refresh="sometimes")
