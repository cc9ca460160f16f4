"""The parts of the chat application without its pages: conversations, runs, errors and text."""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

import runs
from about import ABOUT_KEY, OWN_STYLE, About, read_about, title_of
from agent_stores import (
    ChatMessage,
    Context,
    ContextProvider,
    InMemoryMessageLog,
    MessageLog,
    NotFoundError,
    OpenAIChatClient,
    StoreUnavailableError,
    ToolCallContent,
    ToolResultContent,
    open_log,
)
from agent_stores.backends.memory import MemoryBackend
from agent_stores.cli.exit_codes import InputFileError
from agent_stores.context import delimited_message
from agent_stores.testing.conformance import Clock
from agent_stores.testing.model_server import ModelServer
from engine import Engine
from errors import explain
from memories import Noted
from page import ago
from people import known, prefer, preferred, remember
from runs import Run, answer
from settings import read_settings
from tests.servers.postgres import PostgresServer
from tests.servers.process import wait_for
from tests.servers.redis import RedisServer
from text import answered, plain, snippet
from threads import Threads

pytestmark = pytest.mark.anyio

NEVER = datetime.min.replace(tzinfo=timezone.utc)


@pytest.fixture
def threads() -> Threads:
    return Threads(InMemoryMessageLog(), "user:alice")


def question(text: str = "Hello", message_id: str = "q1") -> ChatMessage:
    return ChatMessage("user", text, message_id=message_id)


async def filled(threads: Threads, *texts: str) -> str:
    thread_id = await threads.create(About(title="One"))
    await threads.store(thread_id).add_messages(
        [ChatMessage("assistant" if n % 2 else "user", text) for n, text in enumerate(texts)]
    )
    return thread_id


async def test_conversations_are_listed_newest_first_without_what_belongs_to_the_application(
    threads: Threads,
) -> None:
    first = await filled(threads, "Hi", "Hello")
    await asyncio.sleep(0.005)
    second = await threads.create(About())
    found, cursor = await threads.listed()
    assert [(c.thread_id, c.about.shown_title, c.messages) for c in found] == [
        (second, "New conversation", 0),
        (first, "One", 2),
    ]
    assert cursor is None
    assert found[0].tokens == 0 < found[1].tokens
    await threads.store(first).add_messages([question("More")])
    (newest,), cursor = await threads.listed(limit=1)
    (older,), end = await threads.listed(limit=1, cursor=cursor)
    assert (newest.thread_id, older.thread_id, end) == (first, second, None)
    await threads.store(first).pop_last()
    assert [m.message.text for m in (await threads.read(first))[0]] == ["Hi", "Hello"]


async def test_a_user_reaches_nothing_of_another_by_any_id(threads: Threads) -> None:
    thread_id = await filled(threads, "secret", "yes")
    bob = Threads(threads._log, "user:bob")
    assert await bob.open(thread_id) is None
    assert await bob.open("x" * 10_000) is None
    assert (await bob.read(thread_id))[0] == []
    assert (await bob.search("secret")).found == []
    with pytest.raises(NotFoundError):
        await bob.save(thread_id, About(title="mine"))
    with pytest.raises(NotFoundError):
        await bob.branch(replace(await opened(threads, thread_id)), "any")
    await bob.delete(thread_id)
    assert (await opened(threads, thread_id)).messages == 2


async def opened(threads: Threads, thread_id: str) -> Any:
    conversation = await threads.open(thread_id)
    assert conversation is not None
    return conversation


async def test_two_windows_change_different_settings(threads: Threads) -> None:
    thread_id = await filled(threads, "Hi", "Hello")
    drawn = (await opened(threads, thread_id)).about
    mark = (await threads.mark(thread_id))[0]
    await threads.save(thread_id, replace(drawn, title="Two"), before=drawn)
    assert (await threads.mark(thread_id))[0] != mark  # as long as the title before
    await threads.save(thread_id, replace(drawn, history=5), before=drawn)
    about = (await opened(threads, thread_id)).about
    assert (about.title, about.history) == ("Two", 5)


async def test_the_window_keeps_tool_calls_with_their_results(threads: Threads) -> None:
    thread_id = await threads.create(About(history=2))
    await threads.store(thread_id).add_messages(
        [
            ChatMessage("user", "What time is it?"),
            ChatMessage("assistant", contents=[ToolCallContent("c1", "current_time", {})]),
            ChatMessage("tool", contents=[ToolResultContent("c1", "12:00")]),
            ChatMessage("assistant", "Noon."),
        ]
    )
    conversation = await opened(threads, thread_id)
    shown = await threads.store(thread_id, conversation.about).list_messages()
    assert [message.role for message in shown] == ["assistant"]
    assert (await threads.sent(conversation))[0] == 1
    everything = replace(conversation, about=About())
    assert (await threads.sent(everything))[0] == 4


async def test_a_branch_leaves_the_conversation_and_keeps_its_settings(threads: Threads) -> None:
    thread_id = await threads.create(About(title="One", style="Brief"))
    await threads.store(thread_id).add_messages(
        [question(), ChatMessage("assistant", "A"), question("Again", "q2"), ChatMessage("assistant", "B")]
    )
    conversation = await opened(threads, thread_id)
    branch = await opened(threads, await threads.branch(conversation, "q2"))
    assert (branch.about.title, branch.about.style, branch.messages) == ("One (branch)", "Brief", 2)
    first = await opened(threads, await threads.branch(branch, "q1"))
    assert (first.about.title, first.messages) == ("One (branch)", 0)
    assert (await opened(threads, thread_id)).messages == 4
    copied = await opened(threads, await threads.copy(conversation))
    assert (copied.about.title, copied.messages) == ("One (copy)", 4)
    with pytest.raises(NotFoundError):
        await threads.branch(conversation, "missing")


async def test_an_export_is_imported_as_the_users_own_once(threads: Threads) -> None:
    thread_id = await filled(threads, "Hi", "Hello")
    content = await threads.export(thread_id)
    bob = Threads(InMemoryMessageLog(), "user:bob")
    for _ in range(2):
        assert await bob.import_file(content) == [thread_id]
        conversation = await opened(bob, thread_id)
        assert (conversation.about.title, conversation.messages) == ("One", 2)
    # One from elsewhere has neither title nor settings, and may name any tenant.
    lines = [json.loads(line) for line in io.BytesIO(content)]
    del lines[0]["metadata"]
    lines[0]["tenant"] = "user:alice"
    carol = Threads(InMemoryMessageLog(), "user:carol")
    await carol.import_file("\n".join(map(json.dumps, lines)).encode())
    assert (await opened(carol, thread_id)).about.title == "Imported conversation"
    with pytest.raises(InputFileError):
        await carol.import_file(content[:-20])


async def test_an_imported_conversation_lives_as_long_as_it_says(threads: Threads) -> None:
    content = await threads.export(await threads.create(About(title="One", ttl=600)))
    bob = Threads(InMemoryMessageLog(), "user:bob")
    (thread_id,) = await bob.import_file(content)
    assert (await opened(bob, thread_id)).expires_at is not None
    with pytest.raises(InputFileError, match="more than 200 characters"):
        await bob.import_file(content.replace(thread_id.encode(), b"x" * 201))
    assert len((await bob.listed())[0]) == 1


def test_the_first_day_of_all_is_shown() -> None:
    assert ago(datetime.min.replace(tzinfo=timezone.utc)) == "01 Jan 1"


async def test_a_conversation_does_not_run_out_while_it_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, pauses, keep_alive = Clock(), list[float](), runs._keep_alive
    threads = Threads(MessageLog(MemoryBackend(), clock=clock), "user:alice")

    async def keep_alive_often(threads: Threads, thread_id: str, pause: float) -> None:
        pauses.append(pause)
        await keep_alive(threads, thread_id, 0.01)

    monkeypatch.setattr(runs, "_keep_alive", keep_alive_often)
    thread_id = await threads.create(About(title="One", ttl=600))
    with ModelServer(chunk_delay=60) as model:
        run = Run(thread_id, question())
        running = asyncio.create_task(run_of(threads, model, run))
        await until(lambda: len(pauses) == 1)
        for _ in range(3):
            await clock.advance(400)
            while ((await threads.mark(thread_id))[1] or NEVER).timestamp() < clock() + 500:
                assert not running.done()
                await asyncio.sleep(0.01)
        running.cancel()
        await running
    assert pauses == [200]
    assert (await opened(threads, thread_id)).about == About(title="One", ttl=600)


async def test_what_is_noted_in_a_file_is_not_taken_as_it_is() -> None:
    data = {"title": 7, "style": "Evil", "history": "all", "ttl": -1, "own": "x", "more": 1}
    assert read_about({ABOUT_KEY: data}) == About(own="x")
    assert read_about({}) == read_about({ABOUT_KEY: "text"}) == About()
    about = About(title="T", style=OWN_STYLE, own="Be kind.", history=3, ttl=60)
    assert read_about(about.to_metadata()) == about
    assert (about.instructions, replace(about, own=" ").instructions) == ("Be kind.", None)


async def test_a_time_to_live_is_set_and_taken_away(threads: Threads) -> None:
    thread_id = await filled(threads, "Hi", "Hello")
    await threads.save(thread_id, About(title="One", ttl=600))
    first = (await threads.mark(thread_id))[1]
    assert first is not None
    await asyncio.sleep(0.02)
    await threads.store(thread_id).add_messages([question("More")])
    assert ((await threads.mark(thread_id))[1] or first) > first  # it slides
    await threads.save(thread_id, About(title="One"))
    assert (await threads.mark(thread_id))[1] is None


async def test_searching_with_and_without_an_index(threads: Threads) -> None:
    thread_id = await filled(threads, "The boat is called Ada", "A fine name")
    with_index = await threads.search("boat")
    assert [(title, hit.thread_id) for title, hit in with_index.found] == [("One", thread_id)]
    assert not with_index.is_scan
    scanned = await threads._scan("boat", 20)
    assert [(title, hit.message.text) for title, hit in scanned.found] == [("One", "The boat is called Ada")]
    assert (scanned.is_scan, scanned.is_complete) == (True, True)
    assert (await threads._scan("?", 20)).found == []


@pytest.mark.parametrize("kind", ["redis", "postgresql"])
def test_on_servers(
    kind: str, redis62_server: RedisServer, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    url = redis62_server.url if kind == "redis" else postgres_server.create_database("chat-app")
    engine = Engine(read_settings({"AGENT_STORES_URL": url, "CHAT_APP_FOLDER": str(tmp_path / "none")}))
    try:
        threads = Threads(engine.log, f"user:{tmp_path}")
        thread_id = engine.call(threads.create(About(history=4, ttl=600)))
        assert engine.ask(threads, thread_id, "The boat is called Ada", "alice")
        run = engine.run_of(threads, thread_id)
        assert run is not None
        end = time.monotonic() + 60
        while run.is_running:
            assert time.monotonic() < end
            time.sleep(0.05)
        assert run.state == "stored"
        (conversation,), _ = engine.call(threads.listed())
        assert (conversation.about.title, conversation.messages) == ("The boat is called Ada", 2)
        assert conversation.expires_at is not None
        hits = engine.call(threads.search("boat"))
        assert (len(hits.found), hits.is_scan) == (2, kind == "redis")
        branch = engine.call(threads.branch(conversation, run.message.message_id or ""))
        assert engine.call(threads.read(branch))[0] == []
        assert engine.call(threads.import_file(engine.call(threads.export(thread_id)))) == [thread_id]
        for each in (thread_id, branch):
            engine.call(threads.delete(each))
        assert engine.call(threads.listed()) == ([], None)
        assert not (tmp_path / "none").exists()
    finally:
        engine.close()


async def run_of(
    threads: Threads, model: ModelServer, run: Run, memory: ContextProvider | None = None
) -> None:
    client = OpenAIChatClient("test-model", api_key=model.api_key, base_url=model.base_url)
    async with client:
        await answer(run, threads, client, memory)


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(3000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not happen in 30 seconds")


async def test_a_run_is_stored_once_also_when_it_is_sent_again(threads: Threads) -> None:
    thread_id = await threads.create(About())
    with ModelServer() as model:
        for _ in range(2):
            run = Run(thread_id, question("Hello, my name is Alice"))
            await run_of(threads, model, run)
            assert (run.state, run.problem) == ("stored", None)
    conversation = await opened(threads, thread_id)
    assert (conversation.messages, conversation.about.title) == (2, "Hello, my name is Alice")


async def begun(threads: Threads, thread_id: str, model: ModelServer) -> tuple[Run, asyncio.Task[None]]:
    """A run of which some words are there, and more are to come."""
    run = Run(thread_id, question("repeat: " + "word " * 200))
    task = asyncio.create_task(run_of(threads, model, run))
    await until(lambda: "word word" in run.text)
    return run, task


async def test_a_stopped_run_leaves_whole_turns(threads: Threads) -> None:
    thread_id = await threads.create(About())
    with ModelServer(chunk_delay=0.02) as model:
        run, task = await begun(threads, thread_id, model)
        # Another window writes meanwhile: nothing is lost.
        await threads.store(thread_id).add_messages([question("From elsewhere", "other")])
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert run.state == "stopped"
        messages = [stored.message for stored in (await threads.read(thread_id))[0]]
        assert [m.role for m in messages] == ["user", "user", "assistant"]
        assert messages[2].text == run.text
        assert (await opened(threads, thread_id)).about.title.startswith("repeat: word")
        model.chunk_delay, model.delay = 0, 5
        silent = Run(thread_id, question("Anything", "q9"))
        task = asyncio.create_task(run_of(threads, model, silent))
        await until(lambda: len(model.requests) == 2)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert silent.state == "stopped"
        assert await threads.store(thread_id).get("q9") is None


async def test_a_conversation_that_was_deleted_meanwhile_does_not_come_back(threads: Threads) -> None:
    thread_id = await threads.create(About())
    with ModelServer(chunk_delay=0.02) as model:
        run, task = await begun(threads, thread_id, model)
        await threads.delete(thread_id)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert run.problem is not None
    assert run.problem.title == "This conversation is gone."
    assert await threads.open(thread_id) is None


async def test_a_run_that_fails_adds_nothing_and_says_why(threads: Threads) -> None:
    thread_id = await threads.create(About())
    with ModelServer() as model:
        model.fail_next(401, "Incorrect API key: test-key")
        run = Run(thread_id, question())
        await run_of(threads, model, run)
    assert run.state == "failed"
    assert run.problem is not None
    assert run.problem.title == "The model's service does not accept the key."
    assert "test-key" not in str(run.problem)
    assert (await opened(threads, thread_id)).messages == 0
    gone = Run("nowhere", question())
    with ModelServer() as model:
        await run_of(threads, model, gone)
    assert gone.problem is not None
    assert gone.problem.title == "This conversation is gone."
    assert await threads.open("nowhere") is None


class Remembers(ContextProvider):
    async def invoking(self, messages: Any, **kwargs: Any) -> Context:
        return Context(
            messages=[
                delimited_message("memories", ["- The user's name is <Alice>", "- Likes tea"], prompt="P")
            ]
        )


async def test_memories_stay_beside_the_answer_that_used_them(threads: Threads) -> None:
    thread_id = await threads.create(About())
    run = Run(thread_id, question("Hello"))
    with ModelServer() as model:
        await run_of(threads, model, run, Noted(Remembers(), run.memories))
    kept = (await threads.read(thread_id))[0][-1].message.additional_properties
    assert kept == {"chat_app": {"memories": ["The user's name is <Alice>", "Likes tea"]}}


def test_memories_by_mem0_in_this_process(tmp_path: Path) -> None:
    settings = read_settings({"CHAT_APP_FOLDER": str(tmp_path), "CHAT_APP_MEMORY": "local"})

    def ask(engine: Engine, user_id: str, text: str) -> Run:
        threads = Threads(engine.log, f"user:{user_id}")
        thread_id = engine.call(threads.create(About()))
        assert engine.ask(threads, thread_id, text, user_id)
        run = engine.run_of(threads, thread_id)
        assert run is not None
        wait_for(lambda: not run.is_running, timeout=60, what="the answer is stored")
        assert run.problem is None
        return run

    engine = Engine(settings)
    try:
        ask(engine, "alice é", "Hello, my name is Alice")
    finally:
        engine.close()  # stores what waits
    engine = Engine(settings)
    try:
        mine, other = (ask(engine, user_id, "What's my name?") for user_id in ("alice é", "bob"))
        assert (mine.text, other.text) == ("Your name is Alice.", "I don't know your name yet.")
        assert any("Alice" in memory for memory in mine.memories)
        assert not other.memories
    finally:
        engine.close()


async def test_users_are_kept_once_with_their_settings() -> None:
    log = InMemoryMessageLog()
    for _ in range(2):
        await remember(log, "alice", "Alice")
    await prefer(log, "alice", "Alice", About(title="not this", history=5, ttl=60))
    await remember(log, "alice", "Alice")
    assert await known(log) == [("alice", "Alice")]
    assert await preferred(log, "alice") == About(history=5, ttl=60)
    assert await preferred(log, "bob") == About()


def test_one_answer_at_a_time(tmp_path: Path) -> None:
    engine = Engine(read_settings({"CHAT_APP_FOLDER": str(tmp_path)}))
    try:
        threads = Threads(engine.log, "user:alice")
        thread_id = engine.call(threads.create(About()))
        assert engine.ask(threads, thread_id, "repeat: " + "word " * 100, "alice")
        assert not engine.ask(threads, thread_id, "once more", "alice")
        engine.stop(threads, thread_id)
        run = engine.run_of(threads, thread_id)
        assert run is not None
        assert run.state == "stopped"
        assert engine.call(threads.store(thread_id).count()) in (0, 2)  # with a word of the answer, or none
        engine.forget(threads, thread_id)
        assert engine.run_of(threads, thread_id) is None
        with pytest.raises(StoreUnavailableError):
            engine.call(asyncio.sleep(5), patience=0.01)
    finally:
        engine.close()
        engine.close()


def test_settings() -> None:
    assert read_settings({"XDG_DATA_HOME": "/data"}).store_url == "sqlite:////data/agent-stores-chat/chat.db"
    given = read_settings(
        {"AGENT_STORES_URL": "redis://localhost", "MEM0_API_KEY": "k", "OPENAI_BASE_URL": "http://x"}
    )
    assert (given.store_url, given.memory, given.has_model) == ("redis://localhost", "platform", True)
    for name, value in (
        ("CHAT_APP_SIGN_IN", "none"),
        ("CHAT_APP_SIGN_IN", "header: "),
        ("CHAT_APP_MEMORY", "x"),
    ):
        with pytest.raises(ValueError, match=f"{name} is {value!r}; it must be"):
            read_settings({name: value})


def test_text_shows_what_was_typed() -> None:
    assert plain("# <b>*x*</b> ![a](http://b)\n$1") == (
        "\\# \\<b\\>\\*x\\*\\</b\\> \\!\\[a\\]\\(http\\://b\\)  \n\\$1"
    )
    assert answered("![pixel](http://elsewhere/?q=secret) costs $5") == (
        "[pixel](http://elsewhere/?q=secret) costs \\$5"
    )
    assert plain("a\n===\n\n\tb") == "a  \n\\=\\=\\=  \n  \n\u2003\u2003b"  # neither a heading nor code
    assert snippet("a " * 200 + "the boat", "boat", 20).endswith("the boat")
    assert title_of("word " * 50).endswith("word…")
    assert title_of(" One\n two ") == "One two"


@pytest.mark.parametrize(
    "text", ["!![x](http://e)", "!!![x][r]\n\n[r]: http://e", "![a\n](http://e)", "`![x](http://e)`"]
)
def test_no_answer_holds_a_picture(text: str) -> None:
    assert "![" not in answered(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("`$a` costs $5", "`$a` costs \\$5"),
        ("```sh\necho $HOME\n```\n$5", "```sh\necho $HOME\n```\n\\$5"),
        ("```sh\necho $HO", "```sh\necho $HO"),
        ("costs \\$5", "costs \\$5"),
        ("vec![1, 2]", "vec! [1, 2]"),
    ],
)
def test_code_in_an_answer_stays_as_it_is(text: str, shown: str) -> None:
    assert answered(text) == shown


@pytest.mark.parametrize("text", ["` `` ``` ", "!", "\\", "![", "```\n", "[![", "`a"])
def test_long_answers_are_shown_at_once(text: str) -> None:
    begun = time.thread_time()
    answered(text * 20_000)
    assert time.thread_time() - begun < 2


def test_errors_hold_nothing_that_is_not_for_users() -> None:
    problem = explain(StoreUnavailableError("postgresql://host: password=planted refused"))
    assert "planted" not in str(problem)
    assert explain(RuntimeError("planted")).title == "Something went wrong."


def test_what_other_processes_add_is_counted_while_a_window_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine._UNSEEN", 0.4)
    url = f"sqlite:///{tmp_path / 'chat.db'}"
    engine = Engine(read_settings({"AGENT_STORES_URL": url, "CHAT_APP_FOLDER": str(tmp_path)}))
    try:
        threads = Threads(engine.log, "user:alice")
        thread_id = engine.call(threads.create(About()))
        other = Threads(open_log(url), "user:alice").store(thread_id)

        def added() -> int:
            return engine.added(threads, thread_id, 0)

        assert added() == 0
        engine.call(other.add_messages([question("1", "a")]))
        wait_for(lambda: added() == 1, timeout=30, what="a message of another process")
        engine.call(other.add_messages([question("2", "b")]))
        wait_for(lambda: added() == 2, timeout=30, what="the next message")
        (watcher,) = engine._watchers.values()
        wait_for(lambda: not engine._watchers, timeout=30, what="the end of the watcher")
        assert watcher.task is not None
        wait_for(watcher.task.done, timeout=30, what="the end of its task")
        wait_for(lambda: added() == 2, timeout=30, what="the messages, after the position given")
        assert [*engine._watchers.values()] != [watcher]
        engine.call(other.log.aclose())
    finally:
        engine.close()
    assert engine._watchers == {}
