"""One conversation, begun in one framework and read in another, with the real packages."""

from __future__ import annotations

import asyncio
import base64
import itertools
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from claude_agent_sdk.testing import run_session_store_conformance

from agent_stores import Attachments, KeyRing, erase, rekey
from agent_stores.chatkit import AgentStoresChatKitStore
from agent_stores.claude_agent import AgentStoresSessionStore
from agent_stores.log import MessageLog, ThreadKey
from agent_stores.testing.model_server import ModelServer
from agent_stores.urls import open_log
from tests.plugins.conftest import PNG
from tests.plugins.exchange import ANSWER, GOES_ON, IMAGE, QUESTION, READERS, RESULTS, SAID, THREAD, WRITERS
from tests.plugins.langgraph.suite import check as check_saver

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


@pytest.fixture(autouse=True)
def no_blocking_calls() -> None:
    """Strands' managers block, by their interface."""


@pytest.fixture(params=["redis", "postgresql"])
async def server_log(request: pytest.FixtureRequest) -> AsyncIterator[MessageLog]:
    """A log on a server."""
    if request.param == "redis":
        url = request.getfixturevalue("redis62_server").url
    else:
        url = request.getfixturevalue("postgres_server").create_database(f"exchange_{uuid.uuid4().hex}")
    log = open_log(url)
    yield log
    for thread in (await log.list_threads(None)).threads:
        await log.delete_thread(ThreadKey(None, thread.thread_id))
    await log.aclose()


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("writer", WRITERS)
async def test_a_conversation_is_the_same_in(writer: str, reader: str, log: MessageLog) -> None:
    await check(writer, reader, log)


@pytest.mark.parametrize("writer", WRITERS)
async def test_a_conversation_is_the_same_on_servers(writer: str, server_log: MessageLog) -> None:
    for reader in READERS:
        await check(writer, reader, server_log)
        await server_log.delete_thread(ThreadKey(None, THREAD))


async def test_claude_s_suite_on_servers(server_log: MessageLog) -> None:
    tenants = (f"claude-{uuid.uuid4().hex}" for _ in itertools.count())
    await run_session_store_conformance(lambda: AgentStoresSessionStore(server_log, tenant=next(tenants)))


async def test_langgraph_s_suite_on_servers(
    server_log: MessageLog, record_property: Callable[[str, object], None]
) -> None:
    record_property("judge", await check_saver(server_log))


async def check(writer: str, reader: str, log: MessageLog) -> None:
    """Write the conversation, and compare what it says."""
    await WRITERS[writer](log)
    found = await READERS[reader](log)
    # Where each call is in a message of its own, its result comes directly after it.
    key = {fact[1] if fact[0] == "result" else fact[2]: 0 for fact in SAID if fact[0] in ("call", "result")}
    assert sorted(map(repr, found)) == sorted(map(repr, SAID))
    assert [fact for fact in found if fact[0] not in ("call", "result")] == [SAID[0], SAID[1], SAID[-1]]
    for name in key:
        call = next(index for index, fact in enumerate(found) if fact[0] == "call" and fact[2] == name)
        assert call < found.index(("result", name, dict(RESULTS)[name]))


@pytest.mark.parametrize("writer", WRITERS)
async def test_chatkit_shows_what_is_said(writer: str, log: MessageLog) -> None:
    await WRITERS[writer](log)
    store: AgentStoresChatKitStore[Any] = AgentStoresChatKitStore(log)
    items: Any = (await store.load_thread_items(THREAD, None, 99, "asc", None)).data
    assert [(item.type, item.content[0].text) for item in items] == [
        ("user_message", "The weather?"),
        ("assistant_message", "Rain and sun."),
    ]
    assert [one.preview_url.unicode_string() for one in items[0].attachments] == [
        f"data:image/png;base64,{IMAGE}"
    ]


@pytest.mark.parametrize("writer", WRITERS)
async def test_it_goes_on_in_every_framework_and_comes_back(
    writer: str, server_log: MessageLog, model_server: ModelServer
) -> None:
    await WRITERS[writer](server_log)
    turns = [("user", QUESTION), ("assistant", ANSWER)]
    for count, goes_on in enumerate(GOES_ON.values(), 1):
        await goes_on(server_log, model_server.base_url)
        for name, reader in READERS.items():
            found = await reader(server_log)
            assert found[-2 * count :] == turns * count, name
            assert sorted(map(repr, found[: -2 * count])) == sorted(map(repr, SAID)), name


@pytest.mark.parametrize("writer", WRITERS)
async def test_a_conversation_is_encrypted_whole_has_its_image_elsewhere_and_is_erased(
    writer: str, tmp_path: Path
) -> None:
    """What a framework keeps for itself is encrypted, too, and nothing of it remains."""
    old, new = bytes(32), bytes(range(32))
    folder = tmp_path / "stored"
    folder.mkdir()
    pieces = [b"weather", b"Rain and sun", b"Bergen", PNG[-40:], base64.b64encode(PNG)[-60:-4]]

    def opened(keys: dict[str, bytes] | None, current: str = "") -> MessageLog:
        options: Any = {"encryption": KeyRing(keys, current, allow_plaintext=False)} if keys else {}
        return open_log(folder / "chat.db", attachments=Attachments(folder / "files", over=10), **options)

    def found_pieces() -> list[bytes]:
        contents = b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())
        return [piece for piece in pieces if piece in contents]

    plain = opened(None)
    await check(writer, writer, plain)
    assert set(await asyncio.to_thread(found_pieces)) >= {b"Rain and sun", PNG[-40:]}
    await erase(plain, all_threads=True)
    assert await asyncio.to_thread(found_pieces) == []
    first, second = opened({"old": old}, "old"), opened({"old": old, "new": new}, "new")
    third = opened({"new": new}, "new")
    await check(writer, writer, first)
    assert await asyncio.to_thread(found_pieces) == []
    report = await rekey(second.backend)
    assert (report.complete, report.attachments > 0) == (True, True)
    assert sorted(map(repr, await READERS[writer](third))) == sorted(map(repr, SAID))
    assert sorted(map(repr, await READERS["ChatMessage"](third))) == sorted(map(repr, SAID))
    receipt = await erase(third, all_threads=True)
    assert (receipt["complete"], receipt["attachments"]["removed"] > 0) == (True, True)
    assert not [file for file in (folder / "files").rglob("*") if file.is_file()]
    for log in (plain, first, second, third):
        await log.aclose()
