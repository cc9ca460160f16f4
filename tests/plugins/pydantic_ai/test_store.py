"""`AgentStoresConversationStore`, and Pydantic AI's own store under the same tests."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai import Agent, BinaryContent, DeferredToolRequests, ImageUrl
from pydantic_ai.conversation import Conversation
from pydantic_ai.conversation_store import (
    ConversationConflict,
    ConversationEntry,
    ConversationRecord,
    ConversationStore,
    InMemoryConversationStore,
)
from pydantic_ai.exceptions import UserError
from pydantic_ai.messages import (
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelResponse,
    NativeToolCallPart,
    NativeToolReturnPart,
    SystemPromptPart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.usage import RunUsage

from agent_stores import ChatMessage, ChatMessageStore
from agent_stores.contents import (
    DataContent,
    ReasoningContent,
    TextContent,
    ToolCallContent,
    ToolResultContent,
    UriContent,
)
from agent_stores.errors import ArgumentError, ArgumentTypeError, StoreClosedError
from agent_stores.log import MessageLog
from agent_stores.pydantic_ai import AgentStoresConversationStore
from tests.plugins.conftest import PNG

pytestmark = pytest.mark.anyio

TIME = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=timezone.utc)


@pytest.fixture(params=["ours, memory", "ours, sqlite", "InMemoryConversationStore"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ConversationStore]:
    if request.param == "InMemoryConversationStore":
        yield InMemoryConversationStore()
        return
    made = AgentStoresConversationStore("memory:" if "memory" in request.param else tmp_path / "chat.db")
    yield made
    await made.aclose()


def ask(text: str) -> ModelRequest:
    return ModelRequest(parts=[UserPromptPart(text, timestamp=TIME)])


def answer(text: str) -> ModelResponse:
    return ModelResponse(parts=[TextPart(text)], timestamp=TIME)


def text_of(message: ModelMessage) -> str:
    return str(message.parts[0].content)  # type: ignore[union-attr]


async def texts(store: ConversationStore, conversation_id: str = "c", **options: Any) -> list[str]:
    loaded = await store.load(conversation_id, **options)
    assert loaded is not None
    return [text_of(message) for message in loaded.messages]


async def begun(store: ConversationStore, *messages: str, **fields: Any) -> Conversation:
    made = [ask(text) if number % 2 == 0 else answer(text) for number, text in enumerate(messages)]
    conversation = Conversation(conversation_id="c", messages=list(made))
    await store.save(conversation, **fields)
    return conversation


# -- the same for Pydantic AI's own store -------------------------------------------------------------------


async def test_saving_and_loading(store: ConversationStore) -> None:
    assert await store.load("c") is None
    assert await store.load_entries("c") is None
    conversation = Conversation(conversation_id="c", messages=[ask("1"), answer("2")])
    conversation.usage = RunUsage(requests=1, input_tokens=5, details={"x": 2})
    entries = await store.save(conversation)
    assert [text_of(entry.message) for entry in entries] == ["1", "2"]
    assert entries[1].parent_id == entries[0].id
    loaded = await store.load("c")
    assert loaded is not None
    assert loaded.messages == [ask("1"), answer("2")]
    assert (loaded.usage, loaded.revision) == (conversation.usage, conversation.revision)
    loaded.messages += [ask("3"), answer("4")]
    await store.save(loaded)
    assert await texts(store) == ["1", "2", "3", "4"]
    assert await texts(store, limit=3) == ["2", "3", "4"]
    assert await texts(store, limit=0) == []
    assert await texts(store, limit=99) == ["1", "2", "3", "4"]
    stored = await store.load_entries("c")
    assert stored is not None
    assert stored[:2] == entries
    assert await store.load_entries("c", limit=1) == stored[-1:]
    assert await store.read_entry(entries[1].id) == entries[1]
    assert await store.read_entry(entries[0].id) == entries[0]
    with pytest.raises(LookupError):
        await store.read_entry("none")


async def test_conflicts(store: ConversationStore) -> None:
    first = await begun(store, "1", "2")
    second = await store.load("c")
    assert second is not None
    first.messages += [ask("first")]
    await store.save(first)
    second.messages += [ask("second")]
    with pytest.raises(ConversationConflict):
        await store.save(second)
    with pytest.raises(ConversationConflict):
        await store.save(Conversation(conversation_id="c", messages=[ask("new")]))
    assert await texts(store) == ["1", "2", "first"]
    record = await store.read_record("c")
    assert record is not None
    stale = dataclasses.replace(record, revision="x")
    for expected in (None, "other"):
        with pytest.raises(ConversationConflict):
            await store.write_record(stale, expected_revision=expected)
    missing = dataclasses.replace(record, head_id="missing", revision="x")
    with pytest.raises(ConversationConflict):
        await store.write_record(missing, expected_revision=record.revision)
    with pytest.raises(ConversationConflict):
        await store.delete_record("c", expected_revision="other")
    with pytest.raises(ConversationConflict):
        await store.delete_record("none", expected_revision="other")
    assert await store.read_record("c") == record


async def test_a_save_without_new_messages(store: ConversationStore) -> None:
    first = await begun(store, "1")
    second = await store.load("c")
    assert second is not None
    first.usage = RunUsage(requests=3)
    await store.save(first)
    with pytest.raises(ConversationConflict):
        await store.save(second)
    loaded = await store.load("c")
    assert loaded is not None
    assert loaded.usage.requests == 3


async def test_deferred_requests_and_an_empty_conversation(store: ConversationStore) -> None:
    conversation = Conversation(conversation_id="c")
    conversation.deferred_tool_requests = DeferredToolRequests(
        approvals=[ToolCallPart("f", {"a": None}, "c1")], metadata={"c1": {"why": [1]}}
    )
    await store.save(conversation)
    loaded = await store.load("c")
    assert loaded is not None
    assert loaded.messages == []
    assert loaded.deferred_tool_requests == conversation.deferred_tool_requests
    loaded.messages.append(ask("1"))
    loaded.deferred_tool_requests = None
    await store.save(loaded)
    again = await store.load("c")
    assert again is not None
    assert again.deferred_tool_requests is None
    assert await texts(store) == ["1"]


async def test_branches(store: ConversationStore) -> None:
    conversation = await begun(store, "1", "2", "3", "4")
    left = (await store.read_record("c")).head_id  # type: ignore[union-attr]
    branched = await store.branch("c", at=2, expected_revision=conversation.revision)
    assert await texts(store) == ["1", "2"]
    branched.messages += [ask("other"), answer("way")]
    await store.save(branched)
    assert await texts(store) == ["1", "2", "other", "way"]
    record = await store.read_record("c")
    assert record is not None
    assert record.branches == [left]
    assert [text_of(one.message) for one in await store.read_history(left)] == ["1", "2", "3", "4"]
    middle = (await store.read_history(left))[2]
    back = await store.branch("c", from_entry=middle.id, expected_revision=branched.revision)
    assert await texts(store) == ["1", "2", "3"]
    back.messages.append(answer("new"))
    await store.save(back)
    assert await texts(store) == ["1", "2", "3", "new"]
    record = await store.read_record("c")
    assert record is not None
    assert record.branches[0] == left
    lines = [[text_of(e.message) for e in await store.read_history(tip)] for tip in record.branches]
    assert lines == [["1", "2", "3", "4"], ["1", "2", "other", "way"]]
    emptied = await store.branch("c", at=0, expected_revision=back.revision)
    assert emptied.messages == []
    assert await texts(store) == []
    with pytest.raises(UserError):
        await store.branch("c", from_entry="none", expected_revision=emptied.revision)
    with pytest.raises(ConversationConflict):
        await store.branch("c", at=0, expected_revision="old")


async def test_a_rewritten_history(store: ConversationStore) -> None:
    conversation = await begun(store, "1", "2", "3")
    conversation.messages[1:] = [answer("summary"), ask("4")]
    await store.save(conversation)
    assert await texts(store) == ["1", "summary", "4"]
    record = await store.read_record("c")
    assert record is not None
    assert [text_of(e.message) for e in await store.read_history(record.branches[0])] == ["1", "2", "3"]


async def test_forks(store: ConversationStore) -> None:
    await begun(store, "1", "2", "3", scope="alice")
    fork = await store.fork("c", at=2, new_conversation_id="f")
    fork.messages.append(ask("fork"))
    await store.save(fork)
    assert await texts(store, "f") == ["1", "2", "fork"]
    assert await texts(store) == ["1", "2", "3"]
    with pytest.raises(ConversationConflict):
        await store.fork("c", new_conversation_id="f")
    record = await store.read_record("f")
    assert record is not None
    assert (record.forked_from, record.scope) == ("c", "alice")
    entries = await store.load_entries("c")
    assert entries is not None
    assert record.forked_at == entries[1].id
    await store.delete("c")
    assert await store.load("c") is None
    assert await texts(store, "f") == ["1", "2", "fork"]


async def test_scopes_and_listing(store: ConversationStore) -> None:
    for number, scope in enumerate(["alice", "bob", None, "alice"]):
        await store.save(Conversation(conversation_id=f"c{number}", messages=[ask("x")]), scope=scope)
        await asyncio.sleep(0.002)
    assert [one.conversation_id for one in await store.list_conversations()] == ["c3", "c2", "c1", "c0"]
    listed = await store.list_conversations(scope="alice", limit=1)
    assert [one.conversation_id for one in listed] == ["c3"]
    assert await store.list_conversations(limit=0) == []
    assert listed[0] == await store.read_record("c3")
    assert await store.load("c1", scope="alice") is None
    await store.delete("c1", scope="alice")
    assert await store.load("c1", scope="bob") is not None
    with pytest.raises(ConversationConflict):
        await store.save(Conversation(conversation_id="c1", messages=[]), scope="alice")


async def test_a_conversation_that_is_made_again_has_another_revision(store: ConversationStore) -> None:
    old = await begun(store, "1")
    await store.delete("c")
    await begun(store, "1")
    old.messages.append(answer("2"))
    with pytest.raises(ConversationConflict):
        await store.save(old)


async def test_unusual_messages(store: ConversationStore) -> None:
    given = unusual_messages()
    await store.save(Conversation(conversation_id="c", messages=list(given)))
    loaded = await store.load("c")
    assert loaded is not None
    assert [dump(one) for one in loaded.messages] == [dump(one) for one in given]


async def test_agents(store: ConversationStore) -> None:
    agent = Agent(FunctionModel(lambda messages, info: answer(f"I see {len(messages)}.")))
    for number in range(3):
        conversation = await store.load("c") or Conversation(conversation_id="c")
        result = await agent.run(f"{number}", conversation=conversation)
        await store.save(result)
    assert await texts(store) == ["0", "I see 1.", "1", "I see 3.", "2", "I see 5."]
    record = await store.read_record("c")
    assert record is not None
    assert record.usage.requests == 3


# -- ours alone ---------------------------------------------------------------------------------------------


async def test_two_processes_race(log: MessageLog) -> None:
    await begun(AgentStoresConversationStore(log), "1")
    stores = [AgentStoresConversationStore(log) for _ in range(6)]

    async def save(number: int, store: ConversationStore) -> None:
        loaded = await store.load("c")
        assert loaded is not None
        await asyncio.sleep(0)
        if number % 2:
            loaded.messages.append(answer(f"{number}"))
        loaded.usage = RunUsage(requests=number)
        await store.save(loaded)

    outcomes = await asyncio.gather(*map(save, range(6), stores), return_exceptions=True)
    won = [number for number, outcome in enumerate(outcomes) if outcome is None]
    assert all(outcome is None or isinstance(outcome, ConversationConflict) for outcome in outcomes)
    assert won
    final = await texts(stores[0])
    assert final == ["1", *(f"{number}" for number in won if number % 2)]
    assert (await ChatMessageStore(log, thread_id="c").count()) == len(final)


@pytest.mark.parametrize("rewritten", [0, 2])
async def test_a_save_that_loses_at_the_end_leaves_nothing(
    log: MessageLog, monkeypatch: pytest.MonkeyPatch, rewritten: int
) -> None:
    store = AgentStoresConversationStore(log)
    await begun(store, "1", "2", "3")
    loaded = await store.load("c")
    assert loaded is not None
    loaded.messages[3 - rewritten :] = [answer("lost")]
    update = log.update_metadata

    async def late(key: Any, changes: Any, **options: Any) -> int:
        await update(key, {"title": "changed by another writer"})
        return await update(key, changes, **options)

    with monkeypatch.context() as patched:
        patched.setattr(log, "update_metadata", late)
        with pytest.raises(ConversationConflict):
            await store.save(loaded)
    assert await texts(store) == ["1", "2", "3"]


@pytest.mark.parametrize("is_new", [False, True])
async def test_what_a_losing_save_takes_back_is_not_gone_on_with(
    log: MessageLog, monkeypatch: pytest.MonkeyPatch, is_new: bool
) -> None:
    """A reader that looked between the two steps of a save that loses, and after they were taken back."""
    store, reader = AgentStoresConversationStore(log), AgentStoresConversationStore(log)
    await ChatMessageStore(log, thread_id="c").add_messages([ChatMessage("user", "1")])
    if not is_new:
        loaded = await store.load("c")
        assert loaded is not None
        await store.save(loaded)
    loaded = await store.load("c")
    assert loaded is not None
    loaded.messages.append(answer("lost"))
    update = log.update_metadata
    seen: list[Conversation | None] = []
    left = []

    async def lose(key: Any, changes: Any, **options: Any) -> int:
        seen.append(await reader.load("c"))
        left.append(await reader.read_record("c"))
        await update(key, {"title": "changed by another writer"})
        return await update(key, changes, **options)

    with monkeypatch.context() as patched:
        patched.setattr(log, "update_metadata", lose)
        with pytest.raises(ConversationConflict):
            await store.save(loaded)
    (conversation,), (record,) = seen, left
    assert conversation is not None
    assert record is not None
    assert [text_of(message) for message in conversation.messages] == ["1", "lost"]
    conversation.messages.append(ask("2"))
    with pytest.raises(ConversationConflict):
        await reader.save(conversation)
    with pytest.raises(LookupError):
        await reader.read_history(record.head_id)

    async def late(conversation_id: str) -> ConversationRecord | None:
        return await read_record(conversation_id) if is_read_again.pop() else record

    read_record, is_read_again = reader.read_record, [True, True, False]
    monkeypatch.setattr(reader, "read_record", late)
    assert await texts(reader) == ["1"]


async def test_a_message_is_stored_once_and_others_read_it(log: MessageLog) -> None:
    store = AgentStoresConversationStore(log)
    conversation = Conversation(conversation_id="c", messages=list(unusual_messages()))
    await store.save(conversation)
    shown = [found.message async for found in ChatMessageStore(log, thread_id="c").iter_messages()]
    assert [message.role for message in shown] == ["system", "user", "assistant", "tool", "user", "assistant"]
    assert shown[1].contents[1:] == (
        TextContent("What is it?"),
        UriContent("http://x/a.png", "image/png"),
        DataContent(PNG, media_type="image/png"),
    )
    assert shown[2].contents == (
        TextContent("I look."),
        ReasoningContent("Hm.", protected_data="sig"),
        ToolCallContent("c1", "f", {"x": None}),
        ToolCallContent("c2", "g", '{"y": 1}'),
    )
    assert shown[3].contents == (
        ToolResultContent("c1", "one"),
        ToolResultContent("c2", {"a": [1]}),
        ToolResultContent("c3", None, is_error=True, contents=(DataContent(PNG, media_type="image/png"),)),
    )
    assert shown[3].created_at == TIME
    branched = await store.branch("c", at=1, expected_revision=conversation.revision)
    assert await ChatMessageStore(log, thread_id="c").count() == 1
    assert len(branched.messages) == 1


async def test_others_begin_and_continue_a_conversation(log: MessageLog) -> None:
    other = ChatMessageStore(log, thread_id="c")
    image = DataContent(PNG, media_type="image/png", filename="a.png")
    await other.add_messages(
        [
            ChatMessage("system", "Be brief."),
            ChatMessage("user", contents=["Hello", image]),
            ChatMessage("assistant", contents=["I look.", ToolCallContent("c1", "f", '{"x": 1}')]),
            ChatMessage("tool", contents=[ToolResultContent("c1", "1")]),
            ChatMessage("assistant", "Done."),
        ]
    )
    store = AgentStoresConversationStore(log)
    conversation = await store.load("c")
    assert conversation is not None
    kinds = [message.kind for message in conversation.messages]
    assert kinds == ["request", "request", "response", "request", "response"]
    (returned,) = conversation.messages[3].parts
    assert isinstance(returned, ToolReturnPart)
    assert (returned.tool_name, returned.content) == ("f", "1")
    prompt = conversation.messages[1].parts[0]
    assert isinstance(prompt, UserPromptPart)
    text, binary = list(prompt.content)
    assert isinstance(binary, BinaryContent)
    assert (text, binary.data, binary.media_type) == ("Hello", PNG, "image/png")
    agent = Agent(FunctionModel(lambda messages, info: answer(f"I see {len(messages)}.")))
    result = await agent.run("And?", conversation=conversation)
    await store.save(result)
    assert (await texts(store))[-1] == "I see 5."  # Pydantic AI joins the first two requests
    loaded = await store.load("c")
    assert loaded is not None
    await other.add_messages([ChatMessage("user", "Me, too.")])
    with pytest.raises(ConversationConflict):
        await store.save(loaded)
    again = await AgentStoresConversationStore(log).load("c")
    assert again is not None
    assert text_of(again.messages[-1]) == "Me, too."
    again.messages.append(answer("You."))
    await store.save(again)
    assert (await other.list_messages())[-1].text == "You."
    assert await other.count() == 9


async def test_a_run_that_died_between_call_and_result_goes_on(log: MessageLog) -> None:
    store = AgentStoresConversationStore(log)
    calls = ModelResponse(parts=[ToolCallPart("f", {"x": 1}, "c1")], timestamp=TIME)
    await store.save(Conversation(conversation_id="c", messages=[ask("1"), calls]))
    shown: list[ModelMessage] = []

    def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        shown[:] = messages
        return answer("I am here.")

    agent = Agent(FunctionModel(model))

    @agent.tool_plain
    def f(x: int) -> str:
        return f"result {x}"

    conversation = await AgentStoresConversationStore(log).load("c")
    result = await agent.run(conversation=conversation)  # without a prompt, the call is made
    await AgentStoresConversationStore(log).save(result)
    assert [part.content for part in shown[-1].parts if isinstance(part, ToolReturnPart)] == ["result 1"]
    listed = await ChatMessageStore(log, thread_id="c").list_messages()
    assert [message.role for message in listed] == ["user", "assistant", "tool", "assistant"]


async def test_listing_reads_no_messages(log: MessageLog, monkeypatch: pytest.MonkeyPatch) -> None:
    store = AgentStoresConversationStore(log)
    for number in range(30):
        await store.save(Conversation(conversation_id=f"c{number}", messages=[ask("x")]))

    async def rows(*args: Any, **options: Any) -> None:
        raise AssertionError("rows were read")

    monkeypatch.setattr(log.backend, "rows", rows)
    assert len(await store.list_conversations()) == 30


async def test_an_entry_that_was_not_read_before(log: MessageLog) -> None:
    store = AgentStoresConversationStore(log)
    conversation = await begun(store, "1", "2", "3")
    entries = await store.load_entries("c")
    assert entries is not None
    await store.branch("c", at=1, expected_revision=conversation.revision)
    for entry in entries:
        assert await AgentStoresConversationStore(log).read_entry(entry.id) == entry


async def test_options_and_closing(log: MessageLog) -> None:
    with pytest.raises(ArgumentTypeError, match="max_message"):
        AgentStoresConversationStore(log, max_message=3)  # type: ignore[call-arg]
    with pytest.raises(ArgumentError, match="#pydantic_ai/"):
        await AgentStoresConversationStore(log).load("#pydantic_ai/c")
    store = AgentStoresConversationStore(log, ttl=60)
    await begun(store, "1")
    assert (await ChatMessageStore(log, thread_id="c").stats()).expires_at is not None
    record = ConversationRecord(conversation_id="big", head_id=None, scope="x" * 70_000)
    with pytest.raises(ArgumentError):
        await store.write_record(
            dataclasses.replace(record, head_id="e"),
            new_entries=[ConversationEntry(id="e", parent_id=None, message=ask("1"))],
            expected_revision=None,
        )
    assert await store.load("big") is None
    async with AgentStoresConversationStore("memory:") as closed:
        pass
    with pytest.raises(StoreClosedError):
        await closed.load("c")


def dump(message: ModelMessage) -> Any:
    return ModelMessagesTypeAdapter.dump_python([message], mode="json")


def unusual_messages() -> list[ModelMessage]:
    image = BinaryContent(PNG, media_type="image/png")
    return [
        ModelRequest(parts=[SystemPromptPart("Only a system prompt.", timestamp=TIME)]),
        ModelRequest(
            parts=[
                SystemPromptPart("Be brief.", timestamp=TIME),
                UserPromptPart(["What is it?", ImageUrl("http://x/a.png"), image], timestamp=TIME),
            ],
            instructions="Answer.",
            run_id="r",
            metadata={"a": None, "b": [1.5]},
        ),
        ModelResponse(
            parts=[
                TextPart("I look."),
                ThinkingPart("Hm.", signature="sig", id="rs"),
                ToolCallPart("f", {"x": None}, "c1"),
                ToolCallPart("g", '{"y": 1}', "c2"),
            ],
            timestamp=TIME,
            model_name="m",
            provider_details={"x": {"y": None}},
        ),
        ModelRequest(
            parts=[
                ToolReturnPart("f", "one", "c1", timestamp=TIME),
                ToolReturnPart("g", {"a": [1]}, "c2", timestamp=TIME, metadata={"z": 1}),
                ToolReturnPart("g", image, "c3", timestamp=TIME, outcome="failed"),
            ]
        ),
        ModelRequest(
            parts=[
                ToolReturnPart("f", ["a", image, None], "c4", timestamp=TIME),
                UserPromptPart([], timestamp=TIME),
                UserPromptPart("", timestamp=TIME),
                UserPromptPart("more", timestamp=TIME),
            ]
        ),
        ModelResponse(
            parts=[
                NativeToolCallPart(tool_name="web_search", args={"q": "x"}, tool_call_id="b1"),
                NativeToolReturnPart("web_search", {"r": 1}, "b1", timestamp=TIME),
                TextPart("Found."),
            ],
            timestamp=TIME,
        ),
    ]
