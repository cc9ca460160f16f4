"""What is repeated because its reply was lost takes effect once, whatever happens in between."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from agent_stores.backend import RECENT_REQUESTS, ThreadKey
from agent_stores.errors import OutcomeUnknownError
from agent_stores.log import MessageLog
from agent_stores.message_rows import make_rows
from agent_stores.messages import ChatMessage
from agent_stores.store import ChatMessageStore
from agent_stores.testing.conformance.target import MakeStore, Target, labels, stored, user

Edit = Callable[[ChatMessageStore], Awaitable[Any]]

EDITS: dict[str, Edit] = {
    "replace_all": lambda store: store.replace_all([user("a summary")]),
    "replace_all-nothing": lambda store: store.replace_all([]),
    "clear": lambda store: store.clear(),
    "delete": lambda store: store.delete(["known", "other"]),
    "pop_last": lambda store: store.pop_last(),
}
"""Edits that remove messages; each name begins with that of the operation."""


class LostReply:
    """A log that does what it is asked, and whose replies are lost.

    Args:
        log: the log.
        operation: whose replies are lost.
        count: how many of its replies are lost; the later ones arrive.
    """

    def __init__(self, log: MessageLog, operation: str = "append", count: int = 1) -> None:
        self._log = log
        self._operation = operation
        self.count = count

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._log, name)
        if name != self._operation:
            return method

        async def call(*args: Any, **options: Any) -> Any:
            result = await method(*args, **options)
            if self.count > 0:
                self.count -= 1
                raise OutcomeUnknownError("the connection was lost while the write was confirmed")
            return result

        return call


@pytest.mark.anyio
class TestRetries:
    @pytest.mark.parametrize("name", sorted(EDITS))
    async def test_messages_are_not_added_again_after_an_edit(self, make_store: MakeStore, name: str) -> None:
        """A turn is stored and its reply lost; the thread is compacted; the turn is sent again."""
        store = make_store()
        await store.add_messages([user("before", message_id="other")])
        flaky = make_store(cast("MessageLog", LostReply(store.log)), thread_id=store.thread_id)
        turn = [user("with an id", message_id="known"), user("without")]
        with pytest.raises(OutcomeUnknownError):
            await flaky.add_messages(turn)
        await EDITS[name](store)
        after = await stored(store)
        await flaky.add_messages(turn)
        assert await stored(store) == after
        await flaky.add_messages([user("next")])
        assert await stored(store) == [*after, "next"]
        # A new call is not a retry.
        await flaky.add_messages([turn[1]])
        assert await stored(store) == [*after, "next", "without"]

    @pytest.mark.parametrize("name", sorted(EDITS))
    async def test_a_request_belongs_to_one_call(self, make_store: MakeStore, name: str) -> None:
        store = make_store()
        key = ThreadKey(store.tenant, store.thread_id)
        rows = make_rows([user("1", message_id="known"), user("2", message_id="b")], lambda _: 1)
        await store.log.append(key, rows, request_id="request-1")
        await EDITS[name](store)
        after = await stored(store)
        await store.log.append(key, rows, request_id="request-1")
        assert await stored(store) == after
        gone = {"replace_all": ["1", "2"], "clear": ["1", "2"], "pop_last": ["2"], "delete": []}
        await store.log.append(key, rows, request_id="request-2")
        assert await stored(store) == [*after, *gone[name.split("-")[0]]]

    @pytest.mark.parametrize("max_messages", [None, 10])
    async def test_forty_failed_calls(self, make_store: MakeStore, max_messages: int | None) -> None:
        store = make_store(max_messages=max_messages)
        flaky_log = cast("MessageLog", LostReply(store.log, count=40))
        flaky = make_store(flaky_log, thread_id=store.thread_id)
        calls = [[user(f"{n}a"), user(f"{n}b")] for n in range(40)]
        for messages in calls:
            with pytest.raises(OutcomeUnknownError):
                await flaky.add_messages(messages)
        for messages in calls[20:]:
            await flaky.add_messages(messages)
        if max_messages is None:
            for messages in calls[:20]:
                await flaky.add_messages(messages)
        assert await stored(store) == [f"{n}{half}" for n in range(40) for half in "ab"]
        for messages in calls[-2:]:  # now they are new
            await flaky.add_messages(messages)
        assert (await stored(store))[-4:] == ["38a", "38b", "39a", "39b"]

    @pytest.mark.parametrize("calls", [0, 3, RECENT_REQUESTS + 5])
    async def test_the_rest_of_a_trimmed_batch(self, make_store: MakeStore, calls: int) -> None:
        """Of a batch that is partly trimmed, nothing is added again after the messages that came later."""
        store = make_store(max_messages=8 + calls)
        batch = [user(str(n), message_id=str(n)) for n in range(10)]
        await store.add_messages(batch)
        for n in range(calls):
            await store.add_messages([user(f"later {n}")])
        await store.add_messages([user("x"), user("y")])
        kept = [str(n) for n in range(4, 10)] + [f"later {n}" for n in range(calls)] + ["x", "y"]
        assert await stored(store) == kept
        await store.add_messages(batch)
        assert await stored(store) == kept
        await store.add_messages([*batch, user("z", message_id="z")])
        assert await stored(store) == [*kept[1:], "z"]
        await store.add_messages([batch[4], *batch, user("z", message_id="z")])
        assert (await stored(store))[-1] == "z"

    async def test_a_batch_with_an_id_twice_that_was_trimmed(self, make_store: MakeStore) -> None:
        store = make_store(max_messages=2)
        batch = [user("1", message_id="1"), user("1", message_id="1"), user("2", message_id="2")]
        await store.add_messages(batch)
        await store.add_messages([user("3")])
        await store.add_messages(batch)
        assert await stored(store) == ["2", "3"]

    async def test_deleted_messages_are_added_by_a_new_call(self, make_store: MakeStore) -> None:
        store = make_store()
        batch = [user(str(n), message_id=str(n)) for n in range(3)]
        await store.add_messages(batch)
        await store.delete("1")
        await store.add_messages([batch[1]])
        assert await stored(store) == ["0", "2", "1"]
        await store.delete(["0", "1", "2"])
        await store.add_messages(batch)
        assert await stored(store) == ["0", "1", "2"]
        assert (await store.stats()).last_position == 7

    async def test_edits_whose_reply_was_lost_are_repeated(self, make_store: MakeStore) -> None:
        store = make_store()
        key = ThreadKey(store.tenant, store.thread_id)

        async def twice(operation: str, *args: Any, **options: Any) -> None:
            log = LostReply(store.log, operation)
            with pytest.raises(OutcomeUnknownError):
                await getattr(log, operation)(key, *args, **options)
            await getattr(log, operation)(key, *args, **options)

        rows = make_rows([user(str(n), message_id=str(n)) for n in range(5)], lambda _: 1)
        await twice("append", rows, request_id="request-1")
        await twice("delete", ["0", "1"])
        assert await stored(store) == ["2", "3", "4"]
        await twice("replace", make_rows([user("two", message_id="2")], lambda _: 1)[0])
        assert await stored(store) == ["two", "3", "4"]
        await twice("update_metadata", {"title": "x"})
        assert (await store.stats()).revision == 1
        await twice("replace_all", rows[:2], request_id="request-2")
        stats = await store.stats()
        assert (stats.messages, stats.last_position) == (2, 7)
        await twice("clear")
        assert await stored(store) == []
        await twice("delete_thread")
        assert await store.log.stats(key) is None

    async def test_two_first_writers(self, make_store: MakeStore) -> None:
        """Each of two hosts begins the thread with the same instructions."""
        for _ in range(5):
            rules = ChatMessage("system", "rules", pinned=True)
            one = make_store(messages=[rules, user("hello")], metadata={"title": "new"})
            two = make_store(
                thread_id=one.thread_id, messages=[rules, user("hello")], metadata={"title": "new"}
            )
            await asyncio.gather(one.add_messages([user("of one")]), two.add_messages([user("of two")]))
            texts = await stored(one)
            assert texts[:2] == ["rules", "hello"]
            assert sorted(texts[2:]) == ["of one", "of two"]
            stats = await two.stats()
            assert (stats.messages, stats.last_position, stats.revision) == (4, 4, 1)

    async def test_first_writers_of_different_kinds(self, make_store: MakeStore) -> None:
        first = make_store(messages=[user("hello")])
        others = [make_store(thread_id=first.thread_id, messages=[user("hello")]) for _ in range(3)]
        shown, _, _, metadata = await asyncio.gather(
            labels(first),
            others[0].add_messages([user("1")]),
            others[1].update_metadata({"n": 1}),
            others[2].metadata(),
        )
        assert shown[0] == "hello"
        assert metadata in ({}, {"n": 1})
        assert await stored(first) == ["hello", "1"]
        assert await first.metadata() == {"n": 1}

    async def test_initial_messages_come_back(self, make_store: MakeStore, target: Target) -> None:
        rules = ChatMessage("system", "rules", pinned=True)
        store = make_store(messages=[rules], ttl=2 * target.unit)
        assert await labels(store) == ["rules"]
        await store.add_messages([user("1")])
        await target.advance(2.5 * target.unit)
        assert await labels(store) == ["rules"]
        await target.advance(2.5 * target.unit)
        assert await store.count() == 1
        await target.advance(2.5 * target.unit)
        assert [item.message.text for item in await store.latest(5)] == ["rules"]
        await target.advance(2.5 * target.unit)
        assert await stored(store) == ["rules"]
        await target.advance(2.5 * target.unit)
        await store.add_messages([user("2")])
        assert await labels(store) == ["rules", "2"]
        stats = await store.stats()
        assert (stats.messages, stats.last_position) == (2, 2)
        assert await labels(store, after=5) == []

    @pytest.mark.parametrize("operation", ["add_messages", "replace_all"])
    async def test_a_large_call_that_dies(
        self, make_store: MakeStore, target: Target, monkeypatch: pytest.MonkeyPatch, operation: str
    ) -> None:
        """A writer dies at its nth commit: no message of its call is seen, and the next writer goes on.

        Servers that limit a commit take several of them for a large call.
        """
        for at in (2, 3) if target.shortened else (1, 2, 3, 4):
            store = make_store()
            await store.add_messages([user("before", message_id="before")])
            writer = make_store(thread_id=store.thread_id)
            size = min(250, 2 * (store.log.backend.limits.commit_rows or 10) + 1)
            messages = [user(str(n), message_id=str(n)) for n in range(size)]
            with monkeypatch.context() as patch:
                _die_at_commit(patch, writer, at)
                try:
                    await getattr(writer, operation)(messages)
                except asyncio.CancelledError:
                    assert await stored(store) == ["before"]
                    stats = await store.stats()
                    assert (stats.messages, stats.last_position) == (1, 1)
                    if at % 2:
                        await store.add_messages([user("of another")])
                        assert await stored(store) == ["before", "of another"]
            kept = await stored(store) if operation == "add_messages" else []
            await getattr(writer, operation)(messages)
            texts = [message.text for message in messages]
            assert await stored(store) == (kept if kept[1:2] == ["0"] else [*kept, *texts])
            await store.add_messages([user("last")])
            assert (await stored(store))[-2:] == [texts[-1], "last"]
            assert await store.count() == len(await stored(store))


def _die_at_commit(patch: pytest.MonkeyPatch, store: ChatMessageStore, at: int) -> None:
    """Let a store's client stop, as with its process, at its nth commit."""
    backend = store.log.backend
    commit = backend.commit
    commits = 0

    async def dying_commit(*args: Any, **options: Any) -> Any:
        nonlocal commits
        commits += 1
        if commits == at:
            raise asyncio.CancelledError
        return await commit(*args, **options)

    patch.setattr(backend, "commit", dying_commit)
