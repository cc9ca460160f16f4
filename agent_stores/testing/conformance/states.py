"""States: small, without secrets, and good for their own conversation only."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
from typing import Any

import pytest

from agent_stores.errors import StateError, UnsupportedVersionError
from agent_stores.testing.conformance.target import MakeStore, Target, stored, user
from agent_stores.testing.other_process import go_on


@pytest.mark.anyio
class TestStates:
    async def test_another_store_goes_on(self, make_store: MakeStore) -> None:
        store = make_store(tenant="acme")
        await store.add_messages([user("1")])
        state = json.loads(json.dumps(await store.serialize()))
        other = make_store(tenant="acme")
        for _ in range(2):  # restoring twice is as restoring once
            await other.update_from_state(dict(state))
        assert other.thread_id == store.thread_id
        assert await stored(other) == ["1"]
        await other.add_messages([user("2")])
        assert await stored(store) == ["1", "2"]
        assert json.loads(json.dumps(await other.serialize())) == state

    async def test_another_process_goes_on(self, make_store: MakeStore, target: Target) -> None:
        if target.open_in_process is None:
            return  # its data cannot be reached from another process
        store = make_store()
        await store.add_messages([user("before")])
        state = json.dumps(await store.serialize())
        process = multiprocessing.get_context("spawn").Process(
            target=go_on, args=(target.open_in_process, state)
        )
        await asyncio.to_thread(process.start)
        await asyncio.to_thread(process.join, 60)
        assert process.exitcode == 0
        assert await stored(store) == ["before", "after"]

    async def test_a_state_names_only_a_thread(self, make_store: MakeStore) -> None:
        store = make_store(tenant="acme")
        state = await store.serialize()
        assert set(state) == {"type", "version", "thread_id", "tenant", "location"}
        changes: list[dict[str, Any]] = [
            {"tenant": "other"},
            {"tenant": None},
            {"location": "postgresql://elsewhere:5432/chat"},
            {"type": "agent_stores.other"},
            {"type": None},
            {"version": "1"},
            {"version": 0},
            {"thread_id": ""},
            {"thread_id": 7},
            {"thread_id": None},
        ]
        for change in changes:
            with pytest.raises(StateError):
                await store.update_from_state({**state, **change})
        with pytest.raises(UnsupportedVersionError, match="got 2"):
            await store.update_from_state({**state, "version": 2})
        malformed: list[Any] = ["text", None, 7, {1: 2}, {**state, "x": {1}}, {**state, "x": float("nan")}]
        for bad in malformed:
            with pytest.raises(StateError, match="the state"):
                await store.update_from_state(bad)
        for name in ("type", "version", "thread_id", "tenant", "location", "messages", "x"):
            with pytest.raises(StateError):
                await store.update_from_state({**state, name: _nested(1_500)})
        for name in ("type", "version", "tenant", "location"):
            with pytest.raises(StateError, match=r"\\ud800"):
                await store.update_from_state({**state, name: "\ud800"})
        assert await store.serialize() == state

    async def test_restoring_adds_no_initial_messages(self, make_store: MakeStore) -> None:
        state = await make_store().serialize()
        other = make_store(messages=[user("hello")])
        await other.update_from_state(state)
        assert await stored(other) == []

    async def test_unknown_fields_are_kept(self, make_store: MakeStore) -> None:
        store = make_store()
        state = {**await store.serialize(), "from_the_future": {"x": 1}}
        other = make_store()
        await other.update_from_state(state)
        assert await other.serialize() == state


def _nested(levels: int) -> Any:
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value
