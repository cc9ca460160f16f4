"""Nothing is added twice, and nothing is half there: retries, conflicts, cancellation."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from agent_stores.errors import ArgumentError, ConflictError, OutcomeUnknownError
from agent_stores.log import MessageLog
from agent_stores.messages import ChatMessage
from agent_stores.testing.conformance.retries import LostReply
from agent_stores.testing.conformance.target import MakeStore, labels, stored, user


def _turn(name: str) -> list[ChatMessage]:
    return [user(f"{name}: {n}", message_id=f"{name}: {n}") for n in range(3)]


@pytest.mark.anyio
class TestIdempotency:
    async def test_a_message_with_an_id_is_added_once(self, make_store: MakeStore) -> None:
        store = make_store()
        await store.add_messages([user("1", message_id="a"), user("2", message_id="b")])
        await store.add_messages([user("1", message_id="a"), user("2", message_id="b")])
        await store.add_messages([user("2", message_id="b"), user("3", message_id="c")])
        assert await stored(store) == ["1", "2", "3"]
        assert (await store.stats()).messages == 3

    async def test_an_id_twice_in_one_call(self, make_store: MakeStore) -> None:
        store = make_store()
        await store.add_messages([user("1", message_id="a"), user("again", message_id="a"), user("2")])
        assert await stored(store) == ["1", "2"]

    async def test_ids_belong_to_their_thread(self, make_store: MakeStore) -> None:
        one, two = make_store(), make_store()
        await one.add_messages([user("x", message_id="a")])
        await two.add_messages([user("y", message_id="a")])
        assert await stored(two) == ["y"]

    async def test_the_same_words_twice_are_two_messages(self, make_store: MakeStore) -> None:
        store = make_store()
        message = user("go on")
        await store.add_messages([message, message])
        await store.add_messages([message])
        assert await stored(store) == ["go on"] * 3

    async def test_retry_of_a_call_whose_reply_was_lost(self, make_store: MakeStore) -> None:
        store = make_store()
        flaky = make_store(cast("MessageLog", LostReply(store.log)), thread_id=store.thread_id)
        messages = [user("without an id"), user("with one", message_id="a")]
        with pytest.raises(OutcomeUnknownError):
            await flaky.add_messages(messages)
        await flaky.add_messages(messages)
        assert await stored(store) == ["without an id", "with one"]

    async def test_the_same_objects_after_a_retry_are_new_messages(self, make_store: MakeStore) -> None:
        store = make_store()
        flaky = make_store(cast("MessageLog", LostReply(store.log)), thread_id=store.thread_id)
        message = user("continue")
        with pytest.raises(OutcomeUnknownError):
            await flaky.add_messages([message])
        await flaky.add_messages([message])  # the retry
        await flaky.add_messages([message])  # said once more
        assert await stored(store) == ["continue", "continue"]

    async def test_retry_of_a_call_that_was_trimmed(self, make_store: MakeStore) -> None:
        store = make_store(max_messages=2)
        messages = [user(str(n), message_id=str(n)) for n in range(5)]
        await store.add_messages(messages)
        await store.add_messages(messages)
        assert await stored(store) == ["3", "4"]
        await store.add_messages([user("5", message_id="5")])
        await store.add_messages(messages)
        assert await stored(store) == ["4", "5"]

    async def test_messages_that_were_deleted_can_be_added_again(self, make_store: MakeStore) -> None:
        store = make_store()
        messages = [user("1", message_id="a"), user("2", message_id="b")]
        await store.add_messages(messages)
        await store.delete("b")
        await store.add_messages(messages)
        assert await stored(store) == ["1", "2"]
        await store.clear()
        await store.add_messages(messages)
        assert await stored(store) == ["1", "2"]
        await store.delete_thread()
        await store.add_messages(messages)
        assert await stored(store) == ["1", "2"]

    async def test_expected_position(self, make_store: MakeStore) -> None:
        store = make_store()
        await store.add_messages([user("1")], expected_position=0)
        await store.add_messages([user("2", message_id="b")], expected_position=1)
        with pytest.raises(ConflictError) as caught:
            await store.add_messages([user("3")], expected_position=1)
        assert (caught.value.expected, caught.value.actual) == (1, 2)
        await store.add_messages([user("2", message_id="b")], expected_position=1)  # the retry is no conflict
        assert await stored(store) == ["1", "2"]
        with pytest.raises(ArgumentError, match=r"expected_position .*-1"):
            await store.add_messages([user("x")], expected_position=-1)

    async def test_one_of_several_writers_wins_a_position(self, make_store: MakeStore) -> None:
        store = make_store()
        await store.add_messages([user("start")])
        outcomes = await asyncio.gather(
            *(store.add_messages([user(str(n))], expected_position=1) for n in range(8)),
            return_exceptions=True,
        )
        assert sum(outcome is None for outcome in outcomes) == 1
        assert sum(isinstance(outcome, ConflictError) for outcome in outcomes) == 7
        assert await store.count() == 2

    async def test_initial_messages_are_put_in_once(self, make_store: MakeStore) -> None:
        initial = [user("hello", message_id="i1"), user("there", message_id="i2")]
        store = make_store(messages=initial)
        assert await labels(store) == ["hello", "there"]
        again = make_store(messages=[user("other")], thread_id=store.thread_id)
        await again.add_messages([user("more")])
        assert await stored(store) == ["hello", "there", "more"]
        first = make_store(messages=initial)
        await first.add_messages([user("more")])
        assert await labels(first) == ["hello", "there", "more"]
        await first.clear()
        assert await labels(make_store(messages=initial, thread_id=first.thread_id)) == []


@pytest.mark.anyio
class TestCancellation:
    async def test_a_call_cancelled_at_any_await(self, make_store: MakeStore) -> None:
        """Cancel after 0, 1, 2… turns of the event loop, until the call ends by itself."""
        store = make_store()
        await store.add_messages([user("start")])
        expected = ["start"]
        for turns in range(400):
            messages = _turn(f"turn {turns}")
            task = asyncio.ensure_future(store.add_messages(messages))
            for _ in range(turns):
                await asyncio.sleep(0)
            finished = task.done()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await store.add_messages(messages)  # must be there once, whatever happened
            expected += [f"turn {turns}: {n}" for n in range(3)]
            if finished or turns > 60:
                break
        for pause in (0.0005, 0.001, 0.002, 0.004, 0.008):
            messages = _turn(f"pause {pause}")
            task = asyncio.ensure_future(store.add_messages(messages))
            await asyncio.sleep(pause)
            task.cancel()  # a client library may end the call regardless: wait_for did, before Python 3.12
            await asyncio.gather(task, return_exceptions=True)
            await store.add_messages(messages)
            expected += [f"pause {pause}: {n}" for n in range(3)]
        assert await stored(store) == expected

    async def test_the_connection_is_usable_after_a_cancelled_read(self, make_store: MakeStore) -> None:
        store = make_store()
        await store.add_messages([user(str(n)) for n in range(50)])
        for turns in range(0, 40, 2):
            task = asyncio.ensure_future(store.list_messages())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert len(await store.list_messages()) == 50
