"""The pages of the chat application by Streamlit's own `AppTest`: what they say and do, without a browser."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from agent_stores import ChatMessage, DatabaseChatMessageStore
from agent_stores.sync import SyncChatMessageStore
from agent_stores.testing.model_server import ModelServer
from engine import Engine
from settings import Settings
from tests.app.server import APP
from tests.servers.proxy import FaultProxy
from tests.servers.redis import RedisServer

PATIENCE = 30.0  # seconds


@pytest.fixture(autouse=True)
def _environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No settings but a folder; what the pages start is closed at the end."""
    started: list[Engine] = []
    begin = Engine.__init__

    def remember(engine: Engine, settings: Settings) -> None:
        begin(engine, settings)
        started.append(engine)

    monkeypatch.setattr(Engine, "__init__", remember)
    for name in list(os.environ):
        if name.startswith(("OPENAI_", "MEM0_", "CHAT_APP_", "AGENT_STORES_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("CHAT_APP_FOLDER", str(tmp_path))
    yield
    for engine in started:
        engine.close()


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    with ModelServer() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", server.api_key)
        monkeypatch.setenv("OPENAI_MODEL", "test-model")
        yield server


def page(thread: str | None = None) -> AppTest:
    test = AppTest.from_file(str(APP), default_timeout=PATIENCE)
    if thread is not None:
        test.query_params["thread"] = thread
    return test.run()


def sign_in(name: str, thread: str | None = None) -> AppTest:
    test = page(thread)
    test.text_input[0].set_value(name)
    test.button[0].click().run()
    assert not test.exception
    return test


def press(test: AppTest, key: str) -> None:
    test.button(key=key).click().run()
    assert not test.exception


def texts(test: AppTest) -> str:
    return "\n".join(
        str(element.value) for element in (*test.markdown, *test.caption, *test.error, *test.info)
    )


def say(test: AppTest, text: str) -> None:
    test.chat_input[0].set_value(text).run()
    settle(test)


def settle(test: AppTest) -> None:
    end = time.monotonic() + PATIENCE
    while test.chat_input[0].disabled:
        assert time.monotonic() < end
        time.sleep(0.05)
        test.run()
    assert not test.exception


def opened(test: AppTest) -> str:
    value = test.query_params["thread"]
    return value if isinstance(value, str) else value[0]


def test_a_name_is_asked_for_and_said_to_be_no_authentication() -> None:
    test = page()
    assert "not authentication" in texts(test)
    test.button[0].click().run()
    assert [warning.value for warning in test.warning] == ["Type a name first."]
    test.text_input[0].set_value("  Alice   Ann ")
    test.button[0].click().run()
    assert "Hello, Alice Ann" in texts(test)
    assert "Local test model" in texts(test)
    press(test, "sign-out")
    assert "not authentication" in texts(test)
    press(test, "person-alice ann")
    assert "Hello, Alice Ann" in texts(test)


def test_a_message_that_comes_while_another_window_asks_is_kept() -> None:
    one = sign_in("Alice")
    press(one, "new")
    two = sign_in("Alice", opened(one))
    one.chat_input[0].set_value("repeat: " + "word " * 60).run()
    two.chat_input[0].set_value("And *this*?").run()
    assert "another window asked" in two.warning[0].value
    assert two.button(key="send-unsent").disabled
    settle(two)
    press(two, "send-unsent")
    settle(two)
    assert not two.warning
    assert "in 4 messages" in texts(two)
    assert "You said: And *this*?" in texts(two)


def test_a_conversation(model: ModelServer) -> None:
    test = sign_in("Alice")
    press(test, "new")
    say(test, "Hello, my name is Alice")
    assert "Nice to meet you, Alice!" in texts(test)
    say(test, "What time is it in UTC?")
    assert "The tool says" in texts(test)
    assert "in 6 messages" in texts(test)

    slider = next(s for s in test.select_slider if "History" in s.label)
    slider.set_value(1).run()
    say(test, "How many messages?")
    assert "I was sent 3 messages." in texts(test)
    style = next(box for box in test.selectbox if "Instructions" in box.label)
    style.set_value("Brief").run()
    say(test, "And now?")
    assert "at most two sentences" in model.requests[-1]["messages"][0]["content"]
    lifetime = next(s for s in test.select_slider if "Time-to-live" in s.label)
    lifetime.set_value(3600).run()
    assert "gone in" in texts(test)

    # The next conversation begins with these settings.
    first = opened(test)
    press(test, "new")
    assert opened(test) != first
    assert next(s for s in test.select_slider if "History" in s.label).value == 1

    # Another user who knows the address.
    bob = sign_in("Bob", first)
    assert "There is no such conversation" in texts(bob)
    assert "Alice" not in texts(bob)
    press(bob, "new-instead")
    assert "Hello, Bob" in texts(bob)

    # Another window of the same user.
    again = sign_in("alice", first)
    assert "Nice to meet you, Alice!" in texts(again)
    again.checkbox[0].check().run()
    press(again, "delete")
    assert "Choose a conversation" in texts(again)
    assert "There is no such conversation" in texts(sign_in("Alice", first))


@pytest.mark.parametrize("thread", ["x", "../../people", "people", "😀" * 300, " ", "user:bob"])
def test_any_id_in_the_address(thread: str) -> None:
    assert "There is no such conversation" in texts(sign_in("Alice", thread))


def test_editing_branches(model: ModelServer) -> None:
    test = sign_in("Alice")
    press(test, "new")
    say(test, "My name is Alice")
    first = opened(test)
    key = next(button.key for button in test.button if str(button.key).startswith("edit-"))
    press(test, str(key))
    test.text_area[0].set_value("My name is Zoe").run()
    press(test, "branch")
    settle(test)
    assert opened(test) != first
    assert "Nice to meet you, Zoe!" in texts(test)
    assert "Nice to meet you, Alice!" not in texts(test)
    press(test, f"open-{first}")
    assert "Nice to meet you, Alice!" in texts(test)


def test_searching(model: ModelServer) -> None:
    test = sign_in("Alice")
    press(test, "new")
    say(test, "The boat is called Ada")
    test.text_input(key="search").set_value("boat").run()
    assert "Results for" in texts(test)
    press(test, "hit-0")
    assert "Results for" not in texts(test)
    assert "You said: The boat is called Ada" in texts(test)
    test.text_input(key="search").set_value("plane").run()
    assert "Nothing was found" in texts(test)


def test_a_search_leads_to_the_message_in_a_long_conversation(tmp_path: Path) -> None:
    test = sign_in("Alice")
    press(test, "new")
    with SyncChatMessageStore(
        DatabaseChatMessageStore(tmp_path / "chat.db", thread_id=opened(test), tenant="user:alice")
    ) as store:
        store.add_messages([ChatMessage("user", f"line {n}") for n in range(400)])
    test.run()
    assert "line 399" in texts(test)
    test.text_input(key="search").set_value("100").run()
    press(test, "hit-0")
    assert "line 100" in texts(test)
    assert "line 399" not in texts(test)
    press(test, "to-end")
    assert "line 399" in texts(test)
    assert "line 100" not in texts(test)


def lifetime_of(test: AppTest) -> Any:
    return next(slider for slider in test.select_slider if "Time-to-live" in slider.label)


def test_a_new_title_is_no_setting_of_the_next_conversation() -> None:
    test = sign_in("Alice")
    press(test, "new")
    lifetime_of(test).set_value(3600).run()
    first = opened(test)
    press(test, "new")
    lifetime_of(test).set_value(0).run()
    press(test, f"open-{first}")
    next(field for field in test.text_input if field.label == "Title").set_value("Boats").run()
    press(test, "new")
    assert lifetime_of(test).value == 0


def test_a_store_that_comes_back(redis62_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultProxy(redis62_server.port) as proxy:
        monkeypatch.setenv("AGENT_STORES_URL", proxy.url(redis62_server.url))
        test = sign_in("Alice")
        press(test, "new")
        say(test, "Hello, my name is Alice")
        proxy.drop_all(refuse=True)
        test.run()
        assert "The store cannot be reached." in texts(test)
        press(test, "look-again")
        assert "The store cannot be reached." in texts(test)
        proxy.heal()
        press(test, "look-again")
        assert "cannot be reached" not in texts(test)
        assert "Nice to meet you, Alice!" in texts(test)


def test_errors_of_the_model_and_the_store(model: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    test = sign_in("Alice")
    press(test, "new")
    model.fail_next(404, "no such model")
    say(test, "Hello, my name is Alice")
    assert "does not know this model" in texts(test)
    assert "in 0 messages" in texts(test)
    press(test, "again")
    settle(test)
    assert "Nice to meet you, Alice!" in texts(test)
    assert "in 2 messages" in texts(test)

    for url, said in (
        ("postgresql://user:planted@127.0.0.1:1/db", "The store cannot be reached."),
        ("oracle://user:planted@host/db", "This is not accepted."),
    ):
        monkeypatch.setenv("AGENT_STORES_URL", url)
        broken = page()
        assert said in texts(broken)
        assert "planted" not in texts(broken)
        assert not broken.exception


def test_a_header_of_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAT_APP_SIGN_IN", "header:X-Forwarded-User")
    assert "sent no X-Forwarded-User" in texts(page())
    monkeypatch.setenv("CHAT_APP_SIGN_IN", "anything")
    assert "it must be one of names, oidc" in texts(page())
