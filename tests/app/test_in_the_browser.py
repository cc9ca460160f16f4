"""The story of the chat application, in a real browser."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from agent_stores import ChatMessage, ChatMessageStore, open_log
from agent_stores.testing.model_server import ModelServer
from tests.app.identity_provider import IdentityProvider
from tests.app.server import AppServer
from tests.app.window import PATIENCE, Window
from tests.servers.mem0_platform import Mem0Platform

pytestmark = [pytest.mark.timeout(900)]

Windows = Callable[..., Window]
LONG = "repeat: " + " ".join(f"word{number}" for number in range(400))
SLOW = 0.3  # seconds a word: the answer does not end before it is stopped, however slow the machine is


def someone(name: str) -> str:
    """A user whom no other test knows."""
    return f"{name} {uuid.uuid4().hex[:6]}"


def test_a_conversation_from_its_first_word_to_its_end(
    window: Windows,
    app_server: AppServer,
    model: ModelServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alice = someone("Alice")
    here = window()
    here.sign_in(alice)
    here.sees("No conversations yet")
    here.begin()
    here.picture("empty")
    here.ask("Hello, my name is Alice", "Nice to meet you, Alice!")
    expect(here.entries).to_have_count(1)
    expect(here.entries.first).to_contain_text("Hello, my name is Alice")
    expect(here.entries.first).to_contain_text("2 messages")

    # A tool is called; its call and its result count as messages.
    here.ask("What time is it in UTC?", "The tool says")
    here.sees("Called current_time")
    here.sees("tokens in 6 messages")

    # Stopped in the middle: what was said until then is kept, whole.
    monkeypatch.setattr(model, "chunk_delay", SLOW)
    here.say(LONG)
    expect(here.turns.last).to_contain_text("word5", timeout=PATIENCE)
    here.picture("streaming")
    here.stop()
    here.sees("Stopped here")
    monkeypatch.undo()
    expect(here.turns.last).not_to_contain_text("word399")
    here.sees("tokens in 8 messages")
    here.ask("What's my name?", "Your name is Alice.")

    # The window of the history: of ten messages the newest one, and the new question.
    here.menu("settings")
    slider = here.page.get_by_role("slider", name="History sent to the model")
    slider.press("Home")
    expect(here.page.locator(".st-key-head")).to_contain_text(
        re.compile(r"sends \d+ tokens in 1 message"), timeout=PATIENCE
    )
    here.picture("settings")
    here.page.keyboard.press("Escape")
    here.ask("How many messages were you sent?", "I was sent 3 messages.")  # instructions, one, and this

    # Instructions change in place.
    here.menu("settings")
    here.page.get_by_role("combobox", name=re.compile("Instructions")).click()
    here.page.get_by_role("option", name="Teacher").click()
    expect(here.page.locator(".st-key-head")).to_contain_text("Teacher", timeout=PATIENCE)
    here.page.keyboard.press("Escape")
    expect(here.turns).to_have_count(10)

    # Renamed, copied, exported.
    here.menu("actions")
    here.page.get_by_label("Title").fill("About names")
    here.page.get_by_label("Title").press("Enter")
    expect(here.entries.first).to_contain_text("About names", timeout=PATIENCE)
    here.settled()
    with here.page.expect_download() as download:
        here.page.get_by_role("button", name="Export").click()
    exported = tmp_path / "conversation.jsonl"
    download.value.save_as(exported)
    assert exported.read_text().count("\n") == 14  # header, 12 messages, end
    here.page.get_by_role("button", name="Copy", exact=True).click()
    here.sees("About names (copy)")
    expect(here.entries).to_have_count(2)

    # Deleted, and imported again.
    here.settled()
    here.menu("actions")
    sure = here.page.get_by_text("Delete it for good")
    expect(sure).to_have_count(1, timeout=PATIENCE)  # the menu of the conversation before may still fade
    sure.click()
    here.page.locator(".st-key-delete button").click()
    here.sees("Choose a conversation at the side")
    expect(here.entries).to_have_count(1)
    other = window()
    other.sign_in(someone("Carol"))
    other.sidebar.get_by_text("Import", exact=True).click()
    other.page.locator("input[type=file]").set_input_files(exported)
    other.sees("About names")
    expect(other.turns).to_have_count(10)

    # Another question in the place of an earlier one, in a branch.
    here.entries.first.click()
    expect(here.turns).to_have_count(10, timeout=PATIENCE)
    here.settled()
    here.turns.nth(2).get_by_role("button").first.click()
    here.page.get_by_label("Your message").fill("What did I say first?")
    here.page.get_by_role("button", name="Ask in a branch").click()
    here.sees("About names (branch)")
    expect(here.turns).to_have_count(4, timeout=PATIENCE)
    expect(here.turns.last).to_contain_text("You first said")
    expect(here.entries).to_have_count(2)

    # Searched.
    here.page.get_by_placeholder("Search in all conversations").fill("word3")
    here.page.get_by_placeholder("Search in all conversations").press("Enter")
    here.sees("Results for")
    here.picture("search")
    here.page.locator(".st-key-hit-0 button").click()
    expect(here.turns).to_have_count(10, timeout=PATIENCE)

    # After a restart, everything is there.
    address = here.page.url
    app_server.stop()
    app_server.start()
    again = window()
    again.sign_in(alice, address.rpartition("/")[2])
    again.sees("Stopped here")
    expect(again.turns).to_have_count(10)
    expect(again.entries).to_have_count(2)
    again.picture("after-a-restart")


def test_two_windows_and_two_users(
    window: Windows, model: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = someone("Alice")
    one, two = window(), window(420, 860, "dark")
    one.sign_in(alice)
    one.begin()
    one.ask("Hello, my name is Alice", "Nice to meet you, Alice!")
    query = one.page.url.rpartition("/")[2]
    _sign_in_narrow(two, alice, query)
    expect(two.turns).to_have_count(2)

    # What one writes appears in the other while it is written, and may be stopped there.
    monkeypatch.setattr(model, "chunk_delay", SLOW)
    one.say(LONG)
    expect(two.turns.last).to_contain_text("word5", timeout=PATIENCE)
    expect(two.composer).to_be_disabled()
    two.stop()
    for each in (one, two):
        expect(each.turns).to_have_count(4, timeout=PATIENCE)
        each.sees("Stopped here")
    monkeypatch.undo()
    two.ask("What's my name?", "Your name is Alice.")
    expect(one.turns).to_have_count(6, timeout=PATIENCE)
    assert one.turns.all_inner_texts() == two.turns.all_inner_texts()

    # A setting changed here shows there.
    one.menu("settings")
    one.page.get_by_role("slider", name="Time-to-live").press("Home")
    one.sees("This conversation is gone in")
    one.page.keyboard.press("Escape")
    two.sees("This conversation is gone in")
    two.picture("lifetime")

    # Another user, with the address of the conversation.
    bob = window()
    bob.sign_in(someone("Bob"), query)
    bob.sees("There is no such conversation")
    bob.sees("No conversations yet")
    expect(bob.page.get_by_text("Alice")).to_have_count(0)
    bob.picture("another-user")

    # Its time runs out: 10 seconds after the last message.
    one.sees("There is no such conversation")
    two.sees("There is no such conversation")


def test_what_another_process_adds(window: Windows, app_server: AppServer) -> None:
    here = window()
    here.sign_in(someone("Alice"))
    here.begin()
    here.ask("Hello, my name is Alice", "Nice to meet you, Alice!")
    thread_id = here.page.url.rpartition("thread=")[2]

    async def add() -> None:
        log = open_log(app_server.store_url)
        for tenant in await log.list_tenants():
            if (await log.list_threads(tenant, prefix=thread_id)).threads:
                store = ChatMessageStore(log, tenant=tenant, thread_id=thread_id)
                await store.add_messages([ChatMessage("user", "from elsewhere")])
        await log.aclose()

    with ThreadPoolExecutor(1) as thread:  # Playwright's event loop is on this one
        thread.submit(asyncio.run, add()).result()
    expect(here.turns.last).to_contain_text("from elsewhere", timeout=PATIENCE)
    expect(here.turns).to_have_count(3)


def test_errors_and_memories(
    window: Windows, model: ModelServer, platform: Mem0Platform, app_with_memory: AppServer
) -> None:
    here = window(server=app_with_memory)
    here.sign_in("Alice")
    here.begin()
    model.fail_next(401, "Incorrect API key provided: test-key")
    here.say("Hello, my name is Alice")
    here.sees("The model's service does not accept the key.")
    expect(here.page.get_by_text("test-key")).to_have_count(0)
    here.picture("an-error")
    here.page.get_by_role("button", name="Try again").click()
    here.sees("Nice to meet you, Alice!")
    expect(here.turns).to_have_count(2, timeout=PATIENCE)
    here.sees("tokens in 2 messages")

    # What the user told there is remembered elsewhere, and shown beside the answer that used it.
    for _ in range(300):
        if platform.memories:
            break
        here.page.wait_for_timeout(100)
    for _ in range(5):
        here.begin()
        here.ask("What's my name?", "name")
        if "Alice" in here.turns.last.inner_text():
            break
        # Where mem0 took longer than it may, as on a busy machine, it is left alone for 30 seconds.
        here.page.wait_for_timeout(10_000)
    expect(here.turns.last).to_contain_text("Your name is Alice.")
    used = here.page.get_by_text(re.compile("memor(y|ies) used")).first  # a question is remembered, too
    expect(used).to_be_visible(timeout=PATIENCE)
    used.click()
    here.page.wait_for_timeout(500)
    here.picture("memories")
    other = window(server=app_with_memory)
    other.sign_in("Bob")
    other.begin()
    other.ask("What's my name?", "I don't know your name yet.")
    expect(other.page.get_by_text(re.compile("memor(y|ies) used"))).to_have_count(0)


def test_signing_in_for_real(
    window: Windows, identity_provider: IdentityProvider, app_with_sign_in: AppServer
) -> None:
    here = window(server=app_with_sign_in)
    identity_provider.person = {"sub": "1", "name": "Alice Example"}
    here.open()
    here.page.get_by_role("button", name="Sign in").click()
    expect(here.sidebar.get_by_text("Alice Example")).to_be_visible(timeout=PATIENCE)
    here.begin()
    here.ask("Hello, my name is Alice", "Nice to meet you, Alice!")
    query = here.page.url.rpartition("/")[2]
    here.page.reload()
    expect(here.turns).to_have_count(2, timeout=PATIENCE)
    # The page is drawn anew before the browser goes to where its cookie is taken away.
    with here.page.expect_response(re.compile("/auth/logout")):
        here.page.get_by_role("button", name="Sign out").click()
    here.sees("Conversations that last")

    # Another person with the same name, in the same browser, with the address of the conversation.
    identity_provider.person = {"sub": "2", "name": "Alice Example"}
    here.open(query)
    expect(here.turns).to_have_count(0)
    here.page.get_by_role("button", name="Sign in").click()
    expect(here.sidebar.get_by_text("Alice Example")).to_be_visible(timeout=PATIENCE)
    here.sees("No conversations yet")
    here.open(query)
    here.sees("There is no such conversation")


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 420)])
def test_it_fits(window: Windows, scheme: str, width: int) -> None:
    here = window(width, 820, scheme)
    here.open()
    here.picture(f"sign-in-{scheme}-{width}")
    if width > 500:
        here.sign_in(someone("Alice"))
    else:
        _sign_in_narrow(here, someone("Alice"))
        here.page.get_by_test_id("stExpandSidebarButton").click()
    here.picture(f"side-{scheme}-{width}")
    here.begin()
    if width < 500:  # the side bar, which lies over the page there, has made room by itself
        expect(here.page.get_by_test_id("stExpandSidebarButton")).to_be_visible(timeout=PATIENCE)
        expect(here.page.get_by_test_id("stSidebarCollapseButton")).not_to_be_in_viewport(timeout=PATIENCE)
    here.ask("Plan a weekend in Oslo. My name is Alice", "Nice to meet you, Alice!")
    here.ask(
        "repeat: A plan:\n\n1. **Saturday**: the Opera House, then Akershus fortress.\n2. **Sunday**: the "
        "Fram museum, for $15 a person.\n\n| day | hours |\n|---|---|\n| Saturday | 6 |\n| Sunday | 4 |",
        "Fram museum",
    )
    here.ask("x" * 300, "xxx")
    here.ask("What time is it in UTC?", "The tool says")
    here.picture(f"conversation-{scheme}-{width}")
    measured: Any = here.page.evaluate(
        "() => [document.documentElement.scrollWidth, ...Array.from("
        "document.querySelectorAll('[data-testid=stChatMessage]'), e => e.getBoundingClientRect().right)]"
    )
    assert max(measured) <= width
    here.menu("settings")
    here.picture(f"settings-{scheme}-{width}")


def _sign_in_narrow(here: Window, name: str, query: str = "") -> None:
    """Where the side bar is folded in."""
    here.open(query)
    here.page.get_by_label("Your name").fill(name)
    here.page.get_by_role("button", name="Continue").click()
    expect(here.page.get_by_label("Your name")).to_have_count(0, timeout=PATIENCE)
