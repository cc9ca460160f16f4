"""Any sequence of operations does on a backend what it does on the in-memory reference."""

from __future__ import annotations

import random
from typing import Any

import pytest

from agent_stores.memory import InMemoryMessageLog
from agent_stores.messages import ChatMessage
from agent_stores.store import ChatMessageStore
from agent_stores.testing.conformance.target import MakeStore, Target, call, label, labels, result, user

STEPS = 40


@pytest.mark.anyio
class TestAgainstReference:
    @pytest.mark.parametrize("seed", range(12))
    async def test_random_operation_sequence(self, make_store: MakeStore, target: Target, seed: int) -> None:
        story = random.Random(seed)
        limit = story.choice([None, None, 0, 1, 3, 5, 8])
        store = make_store(max_messages=limit)
        reference = make_store(InMemoryMessageLog(), thread_id=store.thread_id, max_messages=limit)
        ids: list[str] = []
        for step in range(STEPS // 4 if target.shortened else STEPS):
            action, arguments = _choose(story, step, ids)
            outcomes = [await getattr(each, action)(*arguments) for each in (store, reference)]
            if action == "pop_last":
                outcomes = [outcome and outcome.message_id for outcome in outcomes]
            assert outcomes[0] == outcomes[1], action
            await _compare(store, reference, story)


def _choose(story: random.Random, step: int, ids: list[str]) -> tuple[str, tuple[Any, ...]]:
    chance = story.random()
    if chance < 0.72 or not ids:
        messages = [_message(story, f"{step}.{n}", ids) for n in range(story.choice([1, 1, 2, 3, 6]))]
        return "add_messages", (messages,)
    if chance < 0.80:
        return "pop_last", ()
    if chance < 0.90:
        return "delete", (story.sample(ids, min(len(ids), story.randint(1, 3))),)
    if chance < 0.92:
        return "clear", ()
    if chance < 0.95:
        messages = [_message(story, f"{step}.{n}", ids) for n in range(story.choice([0, 1, 4, 9]))]
        return "replace_all", (messages,)
    return "count", ()


def _message(story: random.Random, name: str, ids: list[str]) -> ChatMessage:
    if ids and story.random() < 0.1:
        name = story.choice(ids)  # a repetition
    else:
        ids.append(name)
    kind = story.random()
    call_id = f"c{story.randint(0, 5)}"
    if kind < 0.3:
        return call(call_id, *([f"c{story.randint(6, 9)}"] if kind < 0.1 else []), message_id=name)
    if kind < 0.65:
        return result(f"c{story.randint(0, 9)}", message_id=name)
    if kind < 0.7:
        return ChatMessage("system", f"rule {name}", pinned=True, message_id=name)
    return user(name, message_id=name)


async def _compare(store: ChatMessageStore, reference: ChatMessageStore, story: random.Random) -> None:
    held = [(item.position, label(item.message)) async for item in store.iter_messages()]
    assert held == [(item.position, label(item.message)) async for item in reference.iter_messages()]
    stats = [await each.stats() for each in (store, reference)]
    for name in ("messages", "tokens", "last_position"):
        assert getattr(stats[0], name) == getattr(stats[1], name), name
    highest = stats[1].last_position + 1
    for limits in (
        {},
        {"last": story.randint(0, 6)},
        {"last": story.randint(0, 6), "before": story.randint(0, highest)},
        {"after": story.randint(0, highest), "last": story.randint(0, 6)},
        {"after": story.randint(0, highest), "before": story.randint(0, highest)},
        {"max_tokens": story.randint(0, 60)},
    ):
        assert await labels(store, **limits) == await labels(reference, **limits), limits
