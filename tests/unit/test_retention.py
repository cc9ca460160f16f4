"""Cuts, windows and views, checked against an independent reading of the chat-completions API's rules."""

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
    TextContent,
    ToolCallContent,
    ToolResultContent,
    Window,
)
from agent_stores.errors import ArgumentError, UnansweredToolCallError
from agent_stores.retention import cut_at, group_cuts, is_synthesized, message_links, repair, window_start
from agent_stores.testing.chat_rules import chat_violations

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
            held = [item.message async for item in store.iter_messages()]
            loose = [m for m in held if not m.pinned]
            if max_messages is not None and len(loose) > max_messages:
                # More than the limit only where the newest group is longer than it.
                cuts, _ = group_cuts(map(message_links, loose))
                assert not any(cuts[len(loose) - max_messages :])
                assert cuts[0]
        for start in range(0, 15, 3):
            assert violations(await store.list_messages(after=start, last=4)) == []
            assert violations(await store.list_messages(before=start)) == []

    asyncio.run(story())


@given(conversations)
@settings(max_examples=300)
def test_cuts_never_part_a_call_from_its_result(messages: list[ChatMessage]) -> None:
    cuts, open_calls = group_cuts(map(message_links, messages))
    assert len(cuts) == len(messages)
    pairs = []
    waiting: dict[str, int] = {}
    for index, message in enumerate(messages):
        own = {c.call_id for c in message.tool_calls}
        for r in message.tool_results:
            if r.call_id not in own and r.call_id in waiting:
                pairs.append((waiting.pop(r.call_id), index))
        waiting.update((call_id, index) for call_id in own)
        for r in message.tool_results:
            if r.call_id in own:
                waiting.pop(r.call_id, None)
    assert open_calls == waiting
    for index, cut in enumerate(cuts):
        assert cut == (not any(start < index <= end for start, end in pairs))


@given(st.lists(st.booleans(), max_size=10), st.integers(0, 12))
def test_where_a_cut_falls(cuts: list[bool], start: int) -> None:
    cuts = [True, *cuts]
    found = cut_at(cuts, start)
    after = [i for i in range(start, len(cuts)) if cuts[i]]
    if start == 0:
        assert found == 0
    elif start >= len(cuts):
        assert found == len(cuts)
    elif after:
        assert found == after[0]
    else:
        assert found == max(i for i in range(start) if cuts[i])


def test_a_window_by_tokens_shows_the_newest_message_at_least() -> None:
    cuts = [True] * 4
    for limit, start in ((0, 4), (1, 3), (10, 3), (19, 3), (20, 2), (1000, 0)):
        assert window_start(cuts, tokens=[10] * 4, max_tokens=limit) == start


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


def test_windows_are_validated() -> None:
    for bad in ({"last": -1}, {"max_tokens": -1}, {"max_age": -0.5}, {"max_age": float("nan")}):
        with pytest.raises(ArgumentError, match=next(iter(bad))):
            Window(**bad)


def test_every_order_of_two_parallel_calls() -> None:
    story = [call_message(["a"]), call_message(["b"]), result_message(["a"]), result_message(["b"])]
    for order in itertools.permutations(story):
        for policy in ("synthesize", "drop"):
            assert violations(repair(order, policy)) == []
