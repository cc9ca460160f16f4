"""`AgentStoresSessionStore` against the Claude Agent SDK."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest
from claude_agent_sdk import (
    delete_session_via_store,
    fold_session_summary,
    fork_session_via_store,
    get_session_messages_from_store,
    list_sessions_from_store,
    project_key_for_directory,
    rename_session_via_store,
)
from claude_agent_sdk.testing import run_session_store_conformance
from claude_agent_sdk.types import SessionKey

from agent_stores import ChatMessage, ChatMessageStore
from agent_stores.claude_agent import AgentStoresSessionStore
from agent_stores.contents import DataContent, ReasoningContent, ToolCallContent, ToolResultContent
from agent_stores.errors import ArgumentError, ArgumentTypeError, OutcomeUnknownError, StoreClosedError
from agent_stores.log import MessageLog
from tests.plugins.claude_agent.transcript import CONVERSATION, UNUSUAL, Entry, entry
from tests.plugins.conftest import PNG

pytestmark = pytest.mark.anyio

SESSION = "5f5b5c0e-6d4f-4d1c-9a51-6f4b7b1f6a10"
KEY: SessionKey = {"project_key": "p", "session_id": SESSION}


def entries(given: Sequence[Entry]) -> Any:
    return list(given)


async def test_the_sdk_s_conformance_suite(
    log: MessageLog, record_property: Callable[[str, object], None]
) -> None:
    tenants = map(str, itertools.count())
    await run_session_store_conformance(lambda: AgentStoresSessionStore(log, tenant=next(tenants)))
    passed = int(next(tenants)) - 1  # a store for each contract, and one to see what it implements
    assert passed == 14
    server = log.location.partition(":")[0]
    record_property("judge", f"run_session_store_conformance on {server}: {passed} passed, 0 skipped")


@pytest.mark.parametrize("number", range(len(UNUSUAL)))
async def test_unusual_entries_come_back_exactly(log: MessageLog, number: int) -> None:
    store = AgentStoresSessionStore(log)
    await store.append(KEY, entries([UNUSUAL[number]]))
    loaded = await store.load(KEY)
    assert repr(loaded) == repr([UNUSUAL[number]]) or loaded == [UNUSUAL[number]]


async def test_a_transcript_comes_back_exactly(log: MessageLog) -> None:
    await AgentStoresSessionStore(log).append(KEY, entries(CONVERSATION))
    assert await AgentStoresSessionStore(log).load(KEY) == CONVERSATION


async def test_other_plug_ins_read_a_transcript(log: MessageLog) -> None:
    await AgentStoresSessionStore(log).append(KEY, entries(CONVERSATION))
    store = ChatMessageStore(log, thread_id=f"p/{SESSION}")
    shown = {message.message_id: message for message in await store.list_messages()}
    said = [shown[one["uuid"]] for one in CONVERSATION if "message" in one]
    assert [message.role for message in said] == [
        *("user", "assistant", "assistant", "assistant", "tool"),
        *("assistant", "tool", "assistant", "user"),
    ]
    assert said[0].text == "What is in the file?"
    assert said[0].created_at is not None
    assert said[0].created_at.isoformat() == "2026-11-28T10:00:01.123000+00:00"
    assert said[1].contents == (ReasoningContent("I read it.", protected_data="c2ln"),)
    assert said[3].contents == (ToolCallContent("t1", "Read", {"path": "a.txt"}),)
    assert said[4].contents == (ToolResultContent("t1", "hello"),)
    image = DataContent(PNG, media_type="image/png")
    assert said[6].contents == (
        ToolResultContent("t2", "b", contents=(image,)),
        ToolResultContent("t3", "no such file", is_error=True),
    )
    assert said[8].contents[1] == image


async def test_a_message_is_stored_once(log: MessageLog) -> None:
    text = "a long text " * 1000
    await AgentStoresSessionStore(log).append(
        KEY,
        entries(
            [
                entry(1, "user", text),
                entry(2, "assistant", [{"type": "text", "text": text}]),
                entry(3, "user", [{"type": "text", "text": text}]),
                entry(4, "user", [{"type": "tool_result", "tool_use_id": "t", "content": text}]),
            ]
        ),
    )
    stats = await ChatMessageStore(log, thread_id=f"p/{SESSION}").stats()
    assert stats.bytes < 4 * (len(text) + 1000)


async def test_messages_of_others_are_part_of_the_conversation(log: MessageLog) -> None:
    store = AgentStoresSessionStore(log)
    await store.append(KEY, entries(CONVERSATION[:2]))
    other = ChatMessageStore(log, thread_id=f"p/{SESSION}")
    call = ToolCallContent("c1", "weather", '{"city": "Oslo"}')
    await other.add_messages(
        [
            ChatMessage("system", "Be brief."),
            ChatMessage("assistant", contents=["I look.", call]),
            ChatMessage("tool", contents=[ToolResultContent("c1", {"rain": True})]),
            ChatMessage("assistant", "It rains."),
        ]
    )
    loaded = cast("list[Entry]", await store.load(KEY))
    assert loaded[:2] == CONVERSATION[:2]
    assert [one["message"]["content"] for one in loaded[2:]] == [
        [
            {"type": "text", "text": "I look."},
            {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Oslo"}},
        ],
        [{"type": "tool_result", "tool_use_id": "c1", "content": '{"rain": true}'}],
        [{"type": "text", "text": "It rains."}],
    ]
    assert await store.load(KEY) == loaded  # under the same ids each time
    key = {**KEY, "project_key": project_key_for_directory("/tmp")}
    await store.append(cast("SessionKey", key), entries(loaded))
    chain = await get_session_messages_from_store(store, SESSION, "/tmp")
    assert [message.uuid for message in chain] == [one["uuid"] for one in loaded[1:]]


async def test_a_uuid_is_an_idempotency_key(log: MessageLog) -> None:
    store = AgentStoresSessionStore(log)
    title: Entry = {"type": "custom-title", "customTitle": "t"}
    await store.append(KEY, entries([CONVERSATION[1], title]))
    await store.append(KEY, entries([dict(CONVERSATION[1]), dict(title), CONVERSATION[2], CONVERSATION[2]]))
    assert await store.load(KEY) == [CONVERSATION[1], title, title, CONVERSATION[2]]


async def test_the_retry_of_a_lost_call_adds_nothing_twice(
    log: MessageLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = AgentStoresSessionStore(log)
    append, lost = log.append, True

    async def lose_the_answer(*args: Any, **options: Any) -> int:
        nonlocal lost
        position = await append(*args, **options)
        if lost:
            lost = False
            raise OutcomeUnknownError("the connection was lost")
        return position

    monkeypatch.setattr(log, "append", lose_the_answer)
    batch = entries([CONVERSATION[0], CONVERSATION[1], CONVERSATION[9]])
    with pytest.raises(OutcomeUnknownError):
        await store.append(KEY, batch)
    await store.append(KEY, batch)
    assert await store.load(KEY) == batch


async def test_summaries_of_concurrent_writers(log: MessageLog) -> None:
    stores = [AgentStoresSessionStore(log) for _ in range(4)]
    await asyncio.gather(
        *(
            stores[number % 4].append(KEY, entries([{"type": "custom-title", "customTitle": f"{number}"}]))
            for number in range(12)
        )
    )
    loaded = cast("Any", await stores[0].load(KEY))
    assert len(loaded) == 12
    (summary,) = await stores[0].list_session_summaries("p")
    assert summary["data"] == fold_session_summary(None, KEY, loaded)["data"]
    assert summary["data"]["custom_title"] == loaded[-1]["customTitle"]


async def test_a_summary_that_does_not_cover_all_entries_is_not_listed(log: MessageLog) -> None:
    project = project_key_for_directory("/tmp")
    key: SessionKey = {"project_key": project, "session_id": SESSION}
    store = AgentStoresSessionStore(log)
    await store.append(key, entries(CONVERSATION[:2]))
    assert len(await store.list_session_summaries(project)) == 1
    await ChatMessageStore(log, thread_id=f"{project}/{SESSION}").add_messages([ChatMessage("user", "Hi")])
    assert await store.list_session_summaries(project) == []
    (info,) = await list_sessions_from_store(store, "/tmp")
    assert info.first_prompt == "What is in the file?"
    await store.append(key, entries([{"type": "custom-title", "customTitle": "t"}]))
    (summary,) = await store.list_session_summaries(project)
    assert summary["data"]["custom_title"] == "t"


async def test_a_summary_that_is_too_large_is_left_to_the_sdk(log: MessageLog) -> None:
    store = AgentStoresSessionStore(log)
    await store.append(KEY, entries([{"type": "last-prompt", "lastPrompt": "x" * 70_000}]))
    await store.append(KEY, entries([CONVERSATION[1]]))
    assert await store.list_session_summaries("p") == []
    assert [one["session_id"] for one in await store.list_sessions("p")] == [SESSION]


async def test_listing_reads_no_entries(log: MessageLog, monkeypatch: pytest.MonkeyPatch) -> None:
    store = AgentStoresSessionStore(log)
    for number in range(30):
        await store.append({"project_key": "p", "session_id": f"s{number}"}, entries(CONVERSATION[:3]))

    async def rows(*args: Any, **options: Any) -> None:
        raise AssertionError("rows were read")

    monkeypatch.setattr(log.backend, "rows", rows)
    assert len(await store.list_sessions("p")) == len(await store.list_session_summaries("p")) == 30


@pytest.mark.parametrize("name", ["a/b", "a#b", "a", "%2F", "a%", "ü\x00'\""])
async def test_names_are_kept_apart(log: MessageLog, name: str) -> None:
    store = AgentStoresSessionStore(log)
    keys: list[Any] = [
        {"project_key": project, "session_id": session, **({"subpath": subpath} if subpath else {})}
        for project in (name, "a", "b")
        for session in (name, "b", "a/b#c")
        for subpath in (None, "c", "b#c")
    ]
    unique = list({repr(key): key for key in keys}.values())
    for number, key in enumerate(unique):
        await store.append(key, entries([{"type": "x", "n": number}]))
    for number, key in enumerate(unique):
        assert await store.load(key) == [{"type": "x", "n": number}]
    assert {one["session_id"] for one in await store.list_sessions(name)} == {name, "b", "a/b#c"}
    whole: SessionKey = {"project_key": name, "session_id": name}
    assert await store.list_subkeys(cast("Any", whole)) == ["b#c", "c"]
    await store.delete(whole)
    assert len([one for one in unique if await store.load(one) is not None]) == len(unique) - 3


async def test_the_sdk_s_functions(log: MessageLog) -> None:
    project = project_key_for_directory("/tmp")
    key: SessionKey = {"project_key": project, "session_id": SESSION}
    store = AgentStoresSessionStore(log)
    await store.append(key, entries(CONVERSATION))
    await rename_session_via_store(store, SESSION, "Renamed", "/tmp")
    (info,) = await list_sessions_from_store(store, "/tmp")
    assert (info.custom_title, info.first_prompt) == ("Renamed", "What is in the file?")
    fork = await fork_session_via_store(store, SESSION, "/tmp")
    messages = await get_session_messages_from_store(store, fork.session_id, "/tmp")
    original = await get_session_messages_from_store(store, SESSION, "/tmp")
    assert [message.message for message in messages] == [message.message for message in original]
    assert len(messages) == 9
    await delete_session_via_store(store, SESSION, "/tmp")
    assert await store.load(key) is None
    assert [one.session_id for one in await list_sessions_from_store(store, "/tmp")] == [fork.session_id]


async def test_a_run_that_died_between_call_and_result_goes_on(log: MessageLog) -> None:
    store = AgentStoresSessionStore(log)
    await store.append(KEY, entries(CONVERSATION[:5]))
    assert await store.load(KEY) == CONVERSATION[:5]
    other = ChatMessageStore(log, thread_id=f"p/{SESSION}")
    await other.add_messages([ChatMessage("user", "Are you there?")])
    shown = await other.list_messages()
    assert [message.role for message in shown[-3:]] == ["assistant", "tool", "user"]
    await AgentStoresSessionStore(log).append(KEY, entries([CONVERSATION[8]]))
    loaded = cast("list[Entry]", await store.load(KEY))
    assert loaded[:5] == CONVERSATION[:5]
    assert loaded[5]["message"]["content"] == "Are you there?"
    assert loaded[6] == CONVERSATION[8]


async def test_options_and_closing(log: MessageLog) -> None:
    with pytest.raises(ArgumentTypeError, match="max_message"):
        AgentStoresSessionStore(log, max_message=3)  # type: ignore[call-arg]
    with pytest.raises(ArgumentError, match="dangling_calls"):
        AgentStoresSessionStore(log, dangling_calls="drop")
    store = AgentStoresSessionStore(log, max_messages=2)
    await store.append(KEY, entries([{"type": "x", "n": number} for number in range(5)]))
    assert await store.load(KEY) == [{"type": "x", "n": 3}, {"type": "x", "n": 4}]
    with pytest.raises(ArgumentError):
        await store.load({"project_key": "p", "session_id": "s", "subpath": ""})
    async with AgentStoresSessionStore("memory:") as closed:
        await closed.append(KEY, entries(CONVERSATION))
    with pytest.raises(StoreClosedError):
        await closed.load(KEY)
