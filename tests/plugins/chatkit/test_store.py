"""`AgentStoresChatKitStore` against ChatKit; the first part runs on a store like its examples', too."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from chatkit.store import NotFoundError, Store
from chatkit.types import LockedStatus, ThreadMetadata

from agent_stores import ChatMessage, ChatMessageStore
from agent_stores.chatkit import AgentStoresChatKitStore, ThreadItemCodec
from agent_stores.contents import (
    DataContent,
    OpaqueContent,
    TextContent,
    ToolCallContent,
    ToolResultContent,
    UriContent,
)
from agent_stores.errors import ArgumentError, ArgumentTypeError, ConflictError, StoreClosedError
from agent_stores.log import MessageLog
from agent_stores.urls import open_log
from tests.plugins.chatkit.items import AT, FILE, ITEMS, PICTURE, assistant, user
from tests.plugins.chatkit.reference import EchoServer, ReferenceStore, User
from tests.plugins.conftest import PNG

pytestmark = pytest.mark.anyio

ALICE, BOB = User("alice"), User("bob")
Open = Callable[[], Store[User]]


def on(log: MessageLog, **options: Any) -> AgentStoresChatKitStore[User]:
    return AgentStoresChatKitStore(log, tenant_of=lambda context: context.name, **options)


@pytest.fixture(params=["reference", "memory", "sqlite"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens stores on one place: that of the examples, which is one object, and ours."""
    if request.param == "reference":
        store = ReferenceStore()
        return lambda: store
    log = open_log("memory:" if request.param == "memory" else tmp_path / "chat.db")
    return lambda: on(log)


def thread(name: str = "t", **more: Any) -> ThreadMetadata:
    return ThreadMetadata(
        **{"id": name, "created_at": AT, "title": "A thread", "metadata": {"n": [1.0]}, **more}
    )


async def fill(store: Store[User], items: Any = ITEMS, context: User = ALICE) -> None:
    await store.save_thread(thread(), context)
    for item in items:
        await store.add_thread_item("t", item, context)


async def ids(store: Store[User], after: str | None, limit: int, order: str) -> Any:
    page = await store.load_thread_items("t", after, limit, order, ALICE)
    return [int(item.id.removeprefix("item_")) for item in page.data], page.has_more, page.after


# -- as the stores of ChatKit's examples ---------------------------------------------------------------------


async def test_threads(open_store: Open) -> None:
    store = open_store()
    with pytest.raises(NotFoundError):
        await store.load_thread("t", ALICE)
    saved = thread(status=LockedStatus(reason="r"), allowed_image_domains=["e.org"])
    await store.save_thread(saved, ALICE)
    assert await open_store().load_thread("t", ALICE) == saved
    await store.save_thread(thread(title=None, created_at=datetime(2026, 1, 1), metadata={}), ALICE)
    loaded = await open_store().load_thread("t", ALICE)
    assert (loaded.title, loaded.metadata, loaded.status.type) == (None, {}, "active")
    await store.delete_thread("t", ALICE)
    await store.delete_thread("t", ALICE)
    with pytest.raises(NotFoundError):
        await open_store().load_thread("t", ALICE)


async def test_items_come_back_exactly(open_store: Open) -> None:
    await fill(open_store())
    page = await open_store().load_thread_items("t", None, 100, "asc", ALICE)
    assert page.data == ITEMS
    assert [item.model_dump_json() for item in page.data] == [item.model_dump_json() for item in ITEMS]
    for item in ITEMS:
        assert await open_store().load_item("t", item.id, ALICE) == item
    await open_store().delete_thread("t", ALICE)
    assert (await open_store().load_thread_items("t", None, 100, "asc", ALICE)).data == []


async def test_pages_of_items(open_store: Open) -> None:
    store = open_store()
    assert await ids(store, None, 3, "asc") == ([], False, None)
    await fill(store, [user(number, "x") for number in (3, 1, 5, 2, 4)])  # the order is that of adding
    assert await ids(store, None, 2, "asc") == ([3, 1], True, "item_1")
    assert await ids(store, "item_1", 3, "asc") == ([5, 2, 4], False, None)
    assert await ids(store, None, 2, "desc") == ([4, 2], True, "item_2")
    assert await ids(store, "item_2", 2, "desc") == ([5, 1], True, "item_1")
    assert await ids(store, "item_1", 2, "desc") == ([3], False, None)
    assert await ids(store, "item_3", 2, "desc") == ([], False, None)
    assert await ids(store, None, 5, "asc") == ([3, 1, 5, 2, 4], False, None)
    with pytest.raises(NotFoundError):
        await ids(store, "item_9", 2, "asc")


async def test_items_are_replaced_and_deleted(open_store: Open) -> None:
    store = open_store()
    await fill(store, [user(1, "a"), assistant(2, "b"), user(3, "c")])
    await store.save_item("t", assistant(2, "new"), ALICE)
    await store.save_item("t", user(3, "also new"), ALICE)
    await store.save_item("t", assistant(4, "added"), ALICE)
    await store.delete_thread_item("t", "item_1", ALICE)
    await store.delete_thread_item("t", "item_1", ALICE)
    page = await open_store().load_thread_items("t", None, 9, "asc", ALICE)
    assert page.data == [assistant(2, "new"), user(3, "also new"), assistant(4, "added")]
    with pytest.raises(NotFoundError):
        await store.load_item("t", "item_1", ALICE)


async def test_pages_of_threads(open_store: Open) -> None:
    store = open_store()
    for number in (2, 0, 3, 1):
        await store.save_thread(thread(f"t{number}", created_at=AT + timedelta(seconds=number)), ALICE)
    await fill(store)
    await store.delete_thread("t", ALICE)
    first = await store.load_threads(3, None, "desc", ALICE)
    assert ([one.id for one in first.data], first.has_more, first.after) == (["t3", "t2", "t1"], True, "t1")
    second = await store.load_threads(3, first.after, "desc", ALICE)
    assert ([one.id for one in second.data], second.has_more, second.after) == (["t0"], False, None)
    oldest = await store.load_threads(9, "t0", "asc", ALICE)
    assert [one.id for one in oldest.data] == ["t1", "t2", "t3"]
    assert (await store.load_threads(9, None, "asc", BOB)).data == []


async def test_users_are_kept_apart(open_store: Open) -> None:
    store = open_store()
    await fill(store)
    await store.save_attachment(FILE, ALICE)
    with pytest.raises(NotFoundError):
        await store.load_thread("t", BOB)
    with pytest.raises(NotFoundError):
        await store.load_item("t", "item_1", BOB)
    with pytest.raises(NotFoundError):
        await store.load_attachment(FILE.id, BOB)
    assert (await store.load_thread_items("t", None, 9, "asc", BOB)).data == []
    await store.delete_thread("t", BOB)
    await store.delete_thread_item("t", "item_1", BOB)
    await store.delete_attachment(FILE.id, BOB)
    await fill(store, [user(1, "Bob's")], BOB)
    assert await store.load_item("t", "item_1", ALICE) == ITEMS[0]
    assert await store.load_attachment(FILE.id, ALICE) == FILE


async def test_attachments(open_store: Open) -> None:
    store = open_store()
    for attachment in (PICTURE, FILE, FILE.model_copy(update={"thread_id": "t"})):
        await store.save_attachment(attachment, ALICE)
        assert await open_store().load_attachment(attachment.id, ALICE) == attachment
    await store.delete_attachment(FILE.id, ALICE)
    await store.delete_attachment(FILE.id, ALICE)
    with pytest.raises(NotFoundError):
        await store.load_attachment(FILE.id, ALICE)
    assert await store.load_attachment(PICTURE.id, ALICE) == PICTURE
    assert (await store.load_threads(9, None, "asc", ALICE)).data == []


async def test_a_server(open_store: Open) -> None:
    await open_store().save_attachment(PICTURE, ALICE)
    message = {"attachments": [PICTURE.id], "inference_options": {}}

    def said(text: str) -> Any:
        return {**message, "content": [{"type": "input_text", "text": text}]}

    events = await EchoServer(open_store()).request("threads.create", ALICE, input=said("Hello"))
    name = events[0]["thread"]["id"]
    await EchoServer(open_store()).request(
        "threads.add_user_message", ALICE, input=said("where am I"), thread_id=name
    )
    await EchoServer(open_store()).request(
        "threads.add_client_tool_output", ALICE, thread_id=name, result={"lat": 1}
    )
    await EchoServer(open_store()).request(
        "threads.add_user_message", ALICE, input=said("where?"), thread_id=name
    )
    # the client went away without an answer to the second call, and comes back
    await EchoServer(open_store()).request(
        "threads.add_user_message", ALICE, input=said("Bye"), thread_id=name
    )
    server = EchoServer(open_store())
    await server.request("threads.update", ALICE, thread_id=name, title="New")
    (found,) = await server.request("threads.get_by_id", ALICE, thread_id=name)
    assert found["title"] == "New"
    shown = [
        item["content"][0]["text"]
        if "content" in item
        else (item["type"], item["status"], item.get("output"))
        for item in found["items"]["data"]
    ]
    assert shown[:6] == [
        *("Hello", "1: Hello", "where am I"),
        ("client_tool_call", "completed", {"lat": 1}),
        *("{'lat': 1}", "where?"),
    ]
    assert shown[6:8] == [("client_tool_call", "pending", None), "Bye"]
    (listed,) = await server.request("threads.list", ALICE)
    assert [one["id"] for one in listed["data"]] == [name]
    await server.request(
        "threads.retry_after_item", ALICE, thread_id=name, item_id=found["items"]["data"][0]["id"]
    )
    (page,) = await server.request("items.list", ALICE, thread_id=name, order="asc")
    assert [item["content"][0]["text"] for item in page["data"]] == ["Hello", "1: Hello"]
    await server.request("threads.delete", ALICE, thread_id=name)
    assert (await server.request("threads.list", ALICE))[0]["data"] == []


# -- ours alone ----------------------------------------------------------------------------------------------


async def test_an_item_is_added_once(log: MessageLog) -> None:
    await fill(on(log), [*ITEMS, *ITEMS])
    with pytest.raises(ConflictError, match="item_1"):
        await on(log).add_thread_item("t", user(1, "other"), ALICE)
    assert (await on(log).load_thread_items("t", None, 99, "asc", ALICE)).data == ITEMS


async def test_other_plug_ins_read_a_thread(log: MessageLog) -> None:
    await fill(on(log))
    store = ChatMessageStore(log, thread_id="t", tenant="alice")
    stored = {found.message.message_id: found.message async for found in store.iter_messages()}
    shown = [stored[f"item_{number}"] for number in range(1, 9)]
    assert [message.role for message in shown] == ["user", "user", *["assistant"] * 6]
    assert shown[0].contents[:2] == (
        TextContent("Hello"),
        UriContent("https://e.org/a.png", media_type="image/png", filename="a.png"),
    )
    assert (shown[0].created_at, shown[1].text, shown[2].text) == (AT, "For Alice", "Here. And here.")
    assert shown[3].contents == (ToolCallContent("c1", "position", {"exact": True}),)
    assert shown[4].contents == (ToolCallContent("c2", "p", {}), ToolResultContent("c2", {"x": 1.0}))
    assert isinstance(shown[6].contents[0], OpaqueContent)
    assert shown[7].contents == (UriContent("https://e.org/i.png", media_type="image/png"),)


async def test_a_message_is_stored_once(log: MessageLog) -> None:
    text = "a long text " * 1000
    await fill(on(log), [user(1, text), assistant(2, text)])
    stats = await ChatMessageStore(log, thread_id="t", tenant="alice").stats()
    assert stats.bytes < 2 * (len(text) + 1000)


async def test_a_conversation_of_another_framework_goes_on(log: MessageLog) -> None:
    other = ChatMessageStore(log, thread_id="t", tenant="alice")
    await other.add_messages(
        [
            ChatMessage("system", "Be brief.", pinned=True, message_id="m0"),
            ChatMessage(
                "user", contents=["Hello", DataContent(PNG, media_type="image/png")], message_id="m1"
            ),
            ChatMessage("assistant", contents=[ToolCallContent("c1", "f", "{}")], message_id="m2"),
            ChatMessage("tool", contents=[ToolResultContent("c1", "x")], message_id="m3"),
            ChatMessage("assistant", "Hi", message_id="m4"),
        ]
    )
    store = on(log)
    loaded = await store.load_thread("t", ALICE)
    assert (loaded.id, loaded.title) == ("t", None)
    page = await store.load_thread_items("t", None, 2, "asc", ALICE)
    assert [(item.id, item.thread_id, item.type) for item in page.data] == [
        ("m1", "t", "user_message"),
        ("m4", "t", "assistant_message"),
    ]
    assert page.data[0].attachments[0].mime_type == "image/png"  # type: ignore[union-attr]
    assert not page.has_more
    desc = await store.load_thread_items("t", None, 1, "desc", ALICE)
    assert ([item.id for item in desc.data], desc.has_more) == (["m4"], True)
    desc = await store.load_thread_items("t", desc.after, 9, "desc", ALICE)
    assert ([item.id for item in desc.data], desc.has_more) == (["m1"], False)
    events = await EchoServer(store).request(
        "threads.add_user_message",
        ALICE,
        thread_id="t",
        input={
            "content": [{"type": "input_text", "text": "More"}],
            "attachments": [],
            "inference_options": {},
        },
    )
    assert events[-1]["item"]["content"][0]["text"] == "3: More"
    assert [m.text for m in await other.list_messages() if m.text] == [
        "Be brief.",
        "Hello",
        "Hi",
        "More",
        "3: More",
    ]


async def test_a_copied_thread_has_items_of_its_own(log: MessageLog) -> None:
    await fill(on(log), ITEMS[:3])
    await ChatMessageStore(log, thread_id="t", tenant="alice").fork("copy")
    page = await on(log).load_thread_items("copy", None, 9, "asc", ALICE)
    assert {item.thread_id for item in page.data} == {"copy"}
    assert (await on(log).load_thread("copy", ALICE)).id == "copy"


async def test_an_item_of_a_kind_that_is_not_installed(log: MessageLog) -> None:
    codec = ThreadItemCodec()
    new = {"id": "n", "thread_id": "t", "created_at": AT.isoformat(), "type": "newer"}
    store = ChatMessageStore(log, thread_id="t", tenant="alice")
    await store.add_messages([codec.json.encode(new, message_id="n")])
    await fill(on(log), ITEMS[:1])
    page = await on(log).load_thread_items("t", None, 9, "asc", ALICE)
    assert page.data == ITEMS[:1]
    assert await store.count() == 2


async def test_listing_reads_no_items(log: MessageLog, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(on(log))

    async def rows(*args: Any, **options: Any) -> None:
        raise AssertionError("rows were read")

    monkeypatch.setattr(log.backend, "rows", rows)
    assert len((await on(log).load_threads(9, None, "desc", ALICE)).data) == 1


async def test_limits_leave_attachments_alone(log: MessageLog) -> None:
    store = on(log, max_messages=2)
    for number in range(4):
        await store.save_attachment(FILE.model_copy(update={"id": f"a{number}"}), ALICE)
    await fill(store, [user(number, "x") for number in range(4)])
    assert [(await store.load_attachment(f"a{number}", ALICE)).id for number in range(4)] == [
        "a0",
        "a1",
        "a2",
        "a3",
    ]
    assert await ids(store, None, 9, "asc") == ([2, 3], False, None)


async def test_options_and_closing(log: MessageLog) -> None:
    shared: AgentStoresChatKitStore[Any] = AgentStoresChatKitStore(log, tenant="alice")
    await fill(on(log), ITEMS[:1])
    assert await shared.load_item("t", "item_1", None) == ITEMS[0]
    with pytest.raises(ArgumentError, match="tenant_of"):
        on(log, tenant="alice")
    with pytest.raises(ArgumentError, match="tenant_of"):
        AgentStoresChatKitStore(lambda name: ChatMessageStore(log, thread_id=name), tenant_of=str)
    with pytest.raises(ArgumentTypeError, match="max_message"):
        on(log, max_message=3)
    with pytest.raises(ArgumentTypeError, match="ThreadItem"):
        ThreadItemCodec().to_chat_message("text")  # type: ignore[arg-type]
    store: AgentStoresChatKitStore[User]
    store = AgentStoresChatKitStore("memory:", tenant_of=lambda context: context.name)
    async with store:
        await fill(store)
    with pytest.raises(StoreClosedError):
        await store.load_thread("t", ALICE)
