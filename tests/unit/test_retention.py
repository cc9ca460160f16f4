"""Boundaries, windows and views, checked against an independent reading of the API's rules."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_stores import (
    ApprovalRequestContent,
    ApprovalResponseContent,
    ChatMessage,
    InMemoryChatMessageStore,
    ReasoningContent,
    TextContent,
    ToolCallContent,
    ToolResultContent,
    Window,
)
from agent_stores.backend import MAX_RUN, ThreadKey
from agent_stores.errors import ArgumentError, UnansweredToolCallError
from agent_stores.retention import find_boundaries, is_synthesized, repair, window_start
from agent_stores.testing.chat_rules import chat_violations
from agent_stores.thread_updates import trim_index

ids = st.sampled_from(["a", "b", "c", "d"])


def call_message(call_ids: Sequence[str]) -> ChatMessage:
    return ChatMessage("assistant", contents=[ToolCallContent(i, "f", "{}") for i in dict.fromkeys(call_ids)])


def result_message(call_ids: Sequence[str]) -> ChatMessage:
    return ChatMessage("tool", contents=[ToolResultContent(i, "ok") for i in call_ids])


plain = st.sampled_from([ChatMessage(role, f"{role} says") for role in ("user", "assistant", "system")])
pinned = st.just(ChatMessage("system", "always", pinned=True))
called = st.lists(ids, min_size=1, max_size=3).map(call_message)
answered = st.lists(ids, min_size=1, max_size=2, unique=True).map(result_message)
mixed = st.builds(
    lambda calls, results, words: ChatMessage(
        "assistant",
        contents=[
            TextContent(words),
            *(ToolCallContent(i, "f", "{}") for i in calls),
            *(ToolResultContent(i, "ok") for i in results),
        ],
    ),
    st.lists(ids, max_size=2, unique=True),
    st.lists(ids, max_size=2, unique=True),
    st.just("hm"),
)
conversations = st.lists(plain | called | answered | answered | mixed | pinned, max_size=14)


def wire(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    """The messages as chat-completions requests have them, part by part and without any mending."""
    sent: list[dict[str, Any]] = []
    for message in messages:
        calls = [
            {"id": c.call_id, "type": "function", "function": {"name": c.name, "arguments": str(c.arguments)}}
            for c in message.tool_calls
        ]
        if calls or message.text or not message.tool_results:
            entry: dict[str, Any] = {"role": message.role, "content": message.text}
            if calls:
                entry["tool_calls"] = calls
            sent.append(entry)
        sent.extend(
            {"role": "tool", "tool_call_id": r.call_id, "content": json.dumps(r.result)}
            for r in message.tool_results
        )
    return sent


def violations(messages: Sequence[ChatMessage]) -> list[str]:
    return chat_violations(wire(messages)) if messages else []


@given(conversations, st.sampled_from(["synthesize", "drop"]))
@settings(max_examples=500)
def test_any_view_is_accepted_by_a_provider(messages: list[ChatMessage], policy: Any) -> None:
    view = repair(messages, policy)
    assert violations(view) == []
    # Nothing but calls and results is lost, and nothing is repaired twice.
    assert [m.text for m in view if m.text] == [m.text for m in messages if m.text]
    assert repair(view, policy) == view
    if violations(messages) == [] and not any(m.role != "tool" and m.tool_results for m in messages):
        assert view == messages


@given(conversations)
@settings(max_examples=200)
def test_results_keep_their_calls(messages: list[ChatMessage]) -> None:
    view = repair(messages, "synthesize")
    calls = [c.call_id for m in view for c in m.tool_calls]
    results = [r.call_id for m in view for r in m.tool_results]
    assert sorted(calls) == sorted(results)
    assert calls == [c.call_id for m in messages for c in m.tool_calls]
    dropped = repair(messages, "drop")
    kept = [r for m in view for r in m.tool_results if not is_synthesized(r)]
    assert [r for m in dropped for r in m.tool_results] == kept


@given(
    conversations,
    st.none() | st.integers(0, 8),
    st.none() | st.integers(0, 8),
    st.none() | st.integers(0, 60),
    st.lists(st.integers(1, 4), min_size=14, max_size=14),
    st.sampled_from(["synthesize", "drop"]),
)
@settings(max_examples=400, deadline=None)
def test_no_mixture_of_limits_brings_an_invalid_conversation(
    messages: list[ChatMessage],
    max_messages: int | None,
    last: int | None,
    max_tokens: int | None,
    sizes: list[int],
    policy: Any,
) -> None:
    """The messages arrive in calls of any size, are trimmed, and are read through a window."""

    async def story() -> None:
        store = InMemoryChatMessageStore(
            max_messages=max_messages,
            window=Window(last=last, max_tokens=max_tokens),
            dangling_calls=policy,
            count_tokens=lambda message: 5,
        )
        rest = list(messages)
        for size in sizes:
            await store.add_messages(rest[:size])
            rest = rest[size:]
            assert violations(await store.list_messages()) == []
            rows = await store.log.read(ThreadKey(None, store.thread_id))
            boundaries = [row.boundary for row in rows if not row.pinned]
            if max_messages is not None and len(boundaries) > max_messages:
                # More than the limit only where the newest group is longer than it.
                assert not any(boundaries[len(boundaries) - max_messages :])
                assert boundaries[0]
        for start in range(0, 15, 3):
            assert violations(await store.list_messages(after=start, last=4)) == []
            assert violations(await store.list_messages(before=start)) == []

    asyncio.run(story())


@given(conversations)
@settings(max_examples=300)
def test_a_boundary_never_parts_a_call_from_its_result(messages: list[ChatMessage]) -> None:
    boundaries = find_boundaries(messages)
    assert len(boundaries) == len(messages)
    inside: set[int] = set()
    waiting: dict[str, int] = {}
    previous: list[type] = []
    for index, message in enumerate(messages):
        own = {call.call_id for call in message.tool_calls}
        for answer in message.tool_results:
            if answer.call_id not in own:
                inside.update(range(waiting.pop(answer.call_id, index - 1) + 1, index + 1))
        answered = {answer.call_id for answer in message.tool_results}
        waiting.update((call_id, index) for call_id in own - answered)
        kinds = [type(part) for part in message.contents]
        if previous and set(previous) == set(kinds) == {ToolCallContent}:
            inside.add(index)  # items of one turn
        previous = kinds
    assert [index for index, boundary in enumerate(boundaries) if not boundary] == sorted(inside)


def test_the_items_of_a_turn_stay_together() -> None:
    reasoning = ChatMessage("assistant", contents=[ReasoningContent("hm")])
    calls = [call_message(["a"]), call_message(["b"])]
    results = [result_message(["a"]), result_message(["b"])]
    question = ChatMessage("user", "?")
    turn = [question, reasoning, *calls, *results, ChatMessage("assistant", "!")]
    assert find_boundaries(turn) == [True, True, False, False, False, False, True]
    # A result that comes alone answers a call of an earlier batch.
    assert find_boundaries([result_message(["a"]), question]) == [False, True]
    asked = ChatMessage("assistant", contents=[ApprovalRequestContent("r", ToolCallContent("c", "f", "{}"))])
    answer = ChatMessage("user", contents=[ApprovalResponseContent("r", True)])
    assert find_boundaries([question, asked, question, answer]) == [True, True, False, False]


@given(st.lists(st.booleans(), max_size=10), st.integers(0, 12))
def test_where_a_trim_cuts(boundaries: list[bool], start: int) -> None:
    boundaries = [True, *boundaries]
    found = trim_index(boundaries, start)
    after = [i for i in range(start, len(boundaries)) if boundaries[i]]
    if start == 0:
        assert found == 0
    elif start >= len(boundaries):
        assert found == len(boundaries)
    elif after:
        assert found == after[0]
    else:
        assert found == max(i for i in range(start) if boundaries[i])


def test_a_long_run_without_a_boundary_is_cut() -> None:
    for run in (MAX_RUN - 1, MAX_RUN):
        assert trim_index([True, *[False] * (run + 5)], run) == 0
    assert trim_index([True, *[False] * (MAX_RUN + 5)], MAX_RUN + 1) == MAX_RUN + 1


def test_a_window_by_tokens_shows_the_newest_message_at_least() -> None:
    boundaries = [True] * 4
    for limit, start in ((0, 4), (1, 3), (10, 3), (19, 3), (20, 2), (1000, 0)):
        assert window_start(boundaries, tokens=[10] * 4, max_tokens=limit) == start


def test_the_policy_raise_names_the_calls() -> None:
    messages = [call_message(["a", "b"]), result_message(["a"]), result_message(["x"])]
    with pytest.raises(UnansweredToolCallError, match="'b', 'x'") as caught:
        repair(messages, "raise")
    assert caught.value.call_ids == ("b", "x")
    assert repair([messages[0], result_message(["a", "b"])], "raise")


def test_a_pending_approval_is_left_alone() -> None:
    call = ToolCallContent("a", "delete", "{}")
    asking = ChatMessage("assistant", contents=[call, ApprovalRequestContent("r", call)])
    for policy in ("synthesize", "drop", "raise"):
        assert repair([asking], policy) == [asking]
    answer = ChatMessage("user", contents=[ApprovalResponseContent("r", True, call)])
    view = repair([asking, answer], "synthesize")
    assert [is_synthesized(r) for m in view for r in m.tool_results] == [True]


def test_only_the_newest_call_of_an_id_waits_for_approval() -> None:
    call = ToolCallContent("a", "delete", "{}")
    old = ChatMessage("assistant", contents=[call])
    asking = ChatMessage("assistant", contents=[call, ApprovalRequestContent("r", call)])
    view = repair([old, asking], "synthesize")
    assert [m.role for m in view] == ["assistant", "tool", "assistant"]
    with pytest.raises(UnansweredToolCallError):
        repair([old, asking], "raise")


def test_a_real_result_takes_the_place_of_a_synthesized_one() -> None:
    view = repair([call_message(["a"])], "synthesize")
    assert is_synthesized(view[1].tool_results[0])
    late = [*view, result_message(["a"])]
    assert repair(late, "synthesize") == [call_message(["a"]), result_message(["a"])]


@pytest.mark.parametrize("start", range(4))
def test_a_window_that_starts_on_a_user_message(start: int) -> None:
    turn = [
        ChatMessage("assistant", "hello"),
        call_message(["a"]),
        result_message(["a"]),
        ChatMessage("user", "question"),
        ChatMessage("assistant", "answer"),
    ]

    async def run() -> None:
        store = InMemoryChatMessageStore(window=Window(start_on="user"))
        await store.add_messages([ChatMessage("system", "rules", pinned=True), *turn[start:]])
        assert [m.text for m in await store.list_messages()] == ["rules", "question", "answer"]
        assert [m.text for m in await store.list_messages(last=1)] == ["rules", "answer"]  # nothing else
        assert [m.text for m in await store.list_messages(max_tokens=1000)] == ["rules", "question", "answer"]

    asyncio.run(run())


def test_windows_are_validated() -> None:
    for bad in (
        {"last": -1},
        {"max_tokens": -1},
        {"max_age": -0.5},
        {"max_age": float("nan")},
        {"start_on": "tool"},
    ):
        with pytest.raises(ArgumentError, match=next(iter(bad))):
            Window(**bad)


def test_every_order_of_two_parallel_calls() -> None:
    story = [call_message(["a"]), call_message(["b"]), result_message(["a"]), result_message(["b"])]
    for order in itertools.permutations(story):
        for policy in ("synthesize", "drop"):
            assert violations(repair(order, policy)) == []
