"""Attachments: data stored once and elsewhere, read inline or lazily, removed when nothing refers to it."""

from __future__ import annotations

import asyncio
import json
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from agent_stores import (
    ArgumentError,
    ArgumentTypeError,
    AttachmentError,
    Attachments,
    ChatMessage,
    ChatMessageStore,
    CorruptMessageError,
    DataContent,
    DataKeys,
    InMemoryMessageLog,
    KeyRing,
    LocalKeyService,
    MessageLog,
    MessageTooLargeError,
    TextContent,
    ToolCallContent,
    ToolResultContent,
    UriContent,
    erase,
    load_attachment,
    open_log,
)
from agent_stores.attachments.files import Files
from agent_stores.backend import Limits
from agent_stores.cli.app import run
from agent_stores.sync import SyncChatMessageStore
from tests.servers.dynamodb import DynamoDBServer

pytestmark = pytest.mark.anyio
WORD = b"planted-zebra"
IMAGE = WORD + bytes(range(256)) * 8


class Place:
    """A folder in fsspec's memory, and what is in it."""

    def __init__(self) -> None:
        self.path = f"/attachments-{uuid.uuid4().hex}"
        self.fs = fsspec.filesystem("memory")

    def attachments(self, **options: Any) -> Attachments:
        return Attachments(f"memory:/{self.path}", **{"over": 100, **options})

    def files(self) -> dict[str, bytes]:
        return {name: self.fs.cat_file(name) for name in self.fs.find(self.path)}

    def data(self) -> list[bytes]:
        return [data for name, data in self.files().items() if "@" not in name and "!" not in name]


@pytest.fixture
def place() -> Iterator[Place]:
    made = Place()
    yield made
    if made.fs.exists(made.path):
        made.fs.rm(made.path, recursive=True)


@pytest.fixture(params=[None, KeyRing({"k": bytes(32)}, "k")], ids=["plain", "encrypted"])
def log(request: pytest.FixtureRequest, place: Place) -> MessageLog:
    return InMemoryMessageLog(attachments=place.attachments(), encryption=request.param)


def store(log: MessageLog, name: str = "t", tenant: str | None = "acme", **options: Any) -> Any:
    return ChatMessageStore(log, thread_id=name, tenant=tenant, **options)


def image(data: bytes = IMAGE, text: str = "look", **fields: Any) -> ChatMessage:
    return ChatMessage("user", contents=[TextContent(text), DataContent(data, "image/png", **fields)])


def lazy(log: MessageLog, place: Place) -> MessageLog:
    """The same threads, read lazily."""
    other = InMemoryMessageLog(attachments=place.attachments(lazy=True))
    inner: Any = log.backend
    other.backend.inner = inner.inner  # type: ignore[attr-defined]
    return other


async def test_data_is_stored_once(log: MessageLog, place: Place) -> None:
    first, second = store(log), store(log, "u")
    given = [
        image(filename="a.png", additional_properties={"a": [1]}),
        ChatMessage("assistant", contents=[ToolCallContent("c", "draw")]),
        ChatMessage("tool", contents=[ToolResultContent("c", 1, contents=(DataContent(IMAGE, "a/b"),))]),
        image(b"small"),
    ]
    await first.add_messages(given)
    await second.add_messages([image(text="again")])
    assert len(place.data()) == 1
    assert [m.contents for m in await first.list_messages()] == [m.contents for m in given]
    assert [m.contents for m in await second.list_messages()] == [image(text="again").contents]
    assert (await first.stats()).bytes < 6000
    assert [m.contents[1].data for m in await first.latest(1) for m in [m.message]] == [b"small"]
    await store(log, tenant="other").add_messages([image()])
    assert len(place.data()) == 2
    async for stored in first.iter_messages():
        assert (await first.get(stored.message.message_id)) == stored.message
    popped = await second.pop_last()
    assert popped is not None
    assert popped.contents[1].data == IMAGE


async def test_nothing_is_in_the_clear_with_encryption(place: Place) -> None:
    log = InMemoryMessageLog(attachments=place.attachments(), encryption=KeyRing({"k": bytes(32)}, "k"))
    await store(log).add_messages([image()])
    assert len(place.data()) == 1
    assert not any(WORD in data for data in place.files().values())
    wrong = InMemoryMessageLog(attachments=place.attachments(), encryption=KeyRing({"k": bytes(32)}, "k"))
    wrong.backend.inner = log.backend.inner  # type: ignore[attr-defined]
    assert (await store(wrong).list_messages())[0].contents[1].data == IMAGE


async def test_data_keys_encrypt_attachments(place: Place) -> None:
    master = KeyRing({"k": bytes(32)}, "k")
    keys = DataKeys(LocalKeyService(master), InMemoryMessageLog(), per="thread")
    wrapped = InMemoryMessageLog(attachments=place.attachments(), encryption=keys)
    await store(wrapped, tenant="other").add_messages([image()])
    assert (await store(wrapped, tenant="other").list_messages())[0].contents[1].data == IMAGE
    assert not any(WORD in data for data in place.files().values())


async def test_lazy_reads(place: Place) -> None:
    log = InMemoryMessageLog(attachments=place.attachments())
    await store(log).add_messages([image(filename="a.png")])
    reader = lazy(log, place)
    [message] = await store(reader).list_messages()
    part = message.contents[1]
    assert isinstance(part, UriContent)
    assert (part.media_type, part.filename) == ("image/png", "a.png")
    assert part.uri.startswith("attachment:")
    assert part.uri.endswith(f"?bytes={len(IMAGE)}")
    assert reader.backend.reads == 0  # type: ignore[attr-defined]
    assert await load_attachment(store(reader), part) == DataContent(IMAGE, "image/png", "a.png")
    with pytest.raises(AttachmentError, match="does not exist"):
        await load_attachment(store(reader, tenant="other"), part)
    with pytest.raises(ArgumentError, match="must be the address of an attachment"):
        await load_attachment(store(reader), UriContent("attachment:../x?bytes=1", "a/b"))
    with pytest.raises(ArgumentError, match="store must have attachments="):
        await load_attachment(store(InMemoryMessageLog()), part)
    # A message that was read lazily is added again: it refers to the same data.
    await store(reader, "copy").add_messages([ChatMessage("user", contents=message.contents)])
    assert len(place.data()) == 1
    reading = InMemoryMessageLog(attachments=place.attachments())
    reading.backend.inner = reader.backend.inner  # type: ignore[attr-defined]
    assert (await store(reading, "copy").list_messages())[0].contents[1].data == IMAGE
    missing = UriContent(part.uri.replace("attachment:" + part.uri[11:15], "attachment:0000"), "image/png")
    with pytest.raises(AttachmentError, match="does not exist; nothing was written"):
        await store(reader).add_messages([ChatMessage("user", contents=[missing])])


async def test_without_the_option_reads_raise(log: MessageLog) -> None:
    plain = InMemoryMessageLog(encryption=None)
    inner: Any = log.backend
    await store(log).add_messages([ChatMessage("user", "text"), image()])
    plain.backend = inner.inner
    for on_corrupt in ("raise", "skip"):
        reader = store(plain, on_corrupt=on_corrupt)
        reader._handle.log._latest = None
        with pytest.raises(AttachmentError, match="give the store attachments="):
            await reader.list_messages()


async def test_no_message_is_stored_without_data(log: MessageLog, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = store(log)

    def fail(*args: Any) -> None:
        raise OSError("secret")

    given = [ChatMessage("user", "before"), image()]
    monkeypatch.setattr(Files, "_write", lambda self, path, data: self._do(fail))
    with pytest.raises(AttachmentError, match="OSError; no message was changed") as caught:
        await writer.add_messages(given)
    assert "secret" not in str(caught.value)
    assert await writer.count() == 0
    monkeypatch.undo()
    await writer.add_messages(given)
    assert [m.contents for m in await writer.list_messages()] == [m.contents for m in given]


async def test_a_message_whose_data_is_missing_or_changed(log: MessageLog, place: Place) -> None:
    writer = store(log, on_corrupt="skip")
    await writer.add_messages([ChatMessage("user", "text"), image(), image(IMAGE + b"2")])
    one, two = (name for name in place.files() if "@" not in name)
    place.fs.rm(one)
    place.fs.pipe_file(two, b"changed")
    assert [m.text for m in await writer.list_messages()] == ["text"]
    with pytest.raises(CorruptMessageError, match="position 2"):
        await store(log).list_messages()


async def test_what_is_half_written_is_not_used(log: MessageLog, place: Place) -> None:
    await store(log).add_messages([image()])
    [name] = [name for name in place.files() if "@" not in name]
    whole = place.fs.cat_file(name)
    place.fs.pipe_file(name, whole[:50])
    await store(log, "u").add_messages([image()])
    assert (await store(log, "u").list_messages())[0].contents[1].data == IMAGE


async def test_large_data_on_a_server_with_small_rows(place: Place) -> None:
    log = InMemoryMessageLog(limits=Limits(body_bytes=5000), attachments=place.attachments())
    await store(log).add_messages([image(os.urandom(1_000_000))])
    with pytest.raises(MessageTooLargeError, match="at most 5000 bytes"):
        await store(log).add_messages([ChatMessage("user", "x" * 6000)])
    assert await store(log).count() == 1


async def test_arguments(tmp_path: Path) -> None:
    wrong: dict[str, Any]
    for wrong in ({"over": -1}, {"grace": 0}, {"filesystem": object(), "storage_options": {}}):
        with pytest.raises(ArgumentError):
            Attachments(str(tmp_path), **wrong)
    unfit: dict[str, Any]
    for unfit in ({"over": None}, {"lazy": 1}):
        with pytest.raises(ArgumentTypeError):
            Attachments(str(tmp_path), **unfit)
    with pytest.raises(AttachmentError, match="nonsense:// cannot be opened") as caught:
        Attachments("nonsense://user:hunter2@host")
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ArgumentTypeError, match="attachments must be Attachments"):
        InMemoryMessageLog(attachments=str(tmp_path))  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="attachments must be given to the log"):
        ChatMessageStore(InMemoryMessageLog(), attachments=Attachments(str(tmp_path)))
    assert repr(Attachments(str(tmp_path))) == "Attachments(LocalFileSystem, over=64000, lazy=False)"


async def test_reading_the_text_of_a_thread_with_large_images(place: Place) -> None:
    images, plain = "images", "plain"
    log = InMemoryMessageLog(attachments=place.attachments(over=64_000))
    for n in range(16):
        await store(log, images).add_messages([image(n.to_bytes(1, "big") * 10_000_000, f"image {n}")])
        await store(log, plain).add_messages([ChatMessage("user", f"image {n}")])
    assert sum(map(len, place.data())) == 160_000_000
    reader = lazy(log, place)
    times: dict[str, list[float]] = {images: [], plain: []}
    for _ in range(30):
        for name, found in times.items():
            start = time.process_time()
            texts = [message.text for message in await store(reader, name).list_messages()]
            found.append(time.process_time() - start)
            assert texts == [f"image {n}" for n in range(16)]
    assert reader.backend.reads == 0  # type: ignore[attr-defined]
    assert min(times[images]) < 3 * min(times[plain]) + 0.002


# -- forks, sweeps and erasures -----------------------------------------------------------------------


async def age(monkeypatch: pytest.MonkeyPatch, seconds: float = 200_000) -> None:
    """Let time pass for the files."""
    moment = time.time() + seconds
    monkeypatch.setattr("agent_stores.attachments.files.time.time", lambda: moment)


async def test_forks_keep_data(log: MessageLog, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    first = store(log)
    await first.add_messages([image(), image(b"2" + IMAGE)])
    backend: Any = log.backend
    branch = await first.fork("branch", at=1)
    assert backend.reads == 0
    await first.delete_thread()
    await age(monkeypatch)
    assert await log.purge_expired() == 0
    assert len(place.data()) == 1
    assert [m.contents[1].data for m in await branch.list_messages()] == [IMAGE]
    await branch.clear()
    await log.purge_expired()
    assert place.files() == {}


async def test_data_is_removed_after_the_grace_period(
    log: MessageLog, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = store(log, max_messages=1)
    for n in range(5):
        await writer.add_messages([image(b"%d" % n + IMAGE)])
    await store(log, tenant=None).add_messages([image()])
    await log.purge_expired()
    assert len(place.data()) == 6
    await age(monkeypatch)
    await log.purge_expired(limit=1)
    await log.purge_expired(limit=2)
    assert len(place.data()) >= 3
    await log.purge_expired()
    assert len(place.data()) == 2
    assert [m.contents[1].data[:1] for m in await writer.list_messages()] == [b"4"]
    [message] = await store(log, tenant=None).list_messages()
    await store(log, tenant=None).delete(message.message_id)
    await log.purge_expired()
    assert len(place.data()) == 1


@pytest.mark.parametrize("step", ["_is_used", "doom", "remove"])
async def test_a_writer_and_a_sweeper_at_the_same_time(
    log: MessageLog, place: Place, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Whichever step of the sweep a write comes before, the message has its data."""
    backend: Any = log.backend
    await store(log, "old").add_messages([image()])
    await store(log, "old").clear()
    await age(monkeypatch)
    sweeper: Any = backend.sweep_attachments.__self__
    written: list[str] = []

    async def write() -> None:
        if not written:
            written.append(step)
            await store(log, "new").add_messages([image()])

    if step == "_is_used":
        is_used = sweeper._is_used

        async def used(*args: Any) -> Any:
            found = await is_used(*args)
            await write()
            return found

        monkeypatch.setattr(sweeper, step, used)
    else:
        method = getattr(sweeper._files, step)

        def call(*args: Any) -> Any:
            if not written:
                asyncio.run(write())
            return method(*args)

        monkeypatch.setattr(sweeper._files, step, call)
    for _ in range(3):
        await log.purge_expired()
        found = await store(log, "new").list_messages()
        assert [m.contents[1].data for m in found] == [IMAGE]
    assert written
    assert len(place.data()) == 1
    assert not any("!" in name for name in place.files())


async def test_two_sweepers_and_many_writers(tmp_path: Path) -> None:
    path, folder = str(tmp_path / "chat.db"), str(tmp_path / "files")
    options: dict[str, Any] = {"over": 0, "grace": 2}
    logs = [open_log(path, attachments=Attachments(folder, **options)) for _ in range(3)]
    until = time.monotonic() + 8

    async def write(name: str) -> None:
        writer = store(logs[0], name)
        n = 0
        while time.monotonic() < until:
            n += 1
            await writer.add_messages([image(b"%d" % (n % 3))])
            assert (await writer.latest(1))[0].message.contents[1].data == b"%d" % (n % 3)
            if n % 4 == 0:
                await writer.clear()
                await asyncio.sleep(0.3)

    async def sweep(log: MessageLog) -> None:
        while time.monotonic() < until:
            await log.purge_expired()

    await asyncio.gather(*(write(f"{n}") for n in range(4)), *map(sweep, logs[1:]))
    for n in range(4):
        await store(logs[0], f"{n}").list_messages()
    for log in logs:
        await log.aclose()


async def test_an_erasure_removes_data(log: MessageLog, place: Place) -> None:
    await store(log, "a").add_messages([image(), image(b"trimmed" + IMAGE), image(b"shared")])
    await store(log, "a").add_messages([image(b"s" * 200)])
    await store(log, "a").pop_last()
    await store(log, "b").add_messages([image(b"s" * 200)])
    await store(log, "a").fork("c")
    choice: dict[str, Any] = {"tenant": "acme", "thread_ids": ["a"]}
    looked = await erase(log, dry_run=True, **choice)
    assert looked["attachments"] == {"found": 2, "removed": 0, "remaining": 2}
    receipt = await erase(log, **choice)
    assert receipt["attachments"] == {"found": 2, "removed": 2, "remaining": 0}
    assert receipt["complete"]
    assert len(place.data()) == 1
    assert not any(WORD in data or b'"a"' in data or b'"c"' in data for data in place.files().values())
    assert (await store(log, "b").list_messages())[0].contents[1].data == b"s" * 200


# -- places -------------------------------------------------------------------------------------------


def files_in(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file()]


async def test_a_folder_and_a_file(tmp_path: Path) -> None:
    attachments = Attachments(tmp_path / "files", over=100)
    log = open_log(tmp_path / "chat.db", attachments=attachments)
    await store(log).add_messages([image()])
    assert (await store(log).list_messages())[0].contents[1].data == IMAGE
    assert [hit.message.text for hit in await store(log).search("look")] == ["look"]
    with_sync = SyncChatMessageStore(store(log, "sync"))
    await asyncio.to_thread(with_sync.add_messages, [image()])
    assert len(await asyncio.to_thread(files_in, tmp_path / "files")) == 3
    await erase(log, tenant="acme", all_threads=True)
    assert await asyncio.to_thread(files_in, tmp_path / "files") == []
    assert not any(WORD in file.read_bytes() for file in await asyncio.to_thread(files_in, tmp_path))
    await log.aclose()


async def test_s3(dynamodb_server: DynamoDBServer, tmp_path: Path) -> None:
    pytest.importorskip("s3fs")
    options = {"endpoint_url": dynamodb_server.endpoint, "skip_instance_cache": True}
    fs: Any = await asyncio.to_thread(fsspec.filesystem, "s3", **options)
    await asyncio.to_thread(fs.mkdir, "pictures")
    attachments = await asyncio.to_thread(
        lambda: Attachments("s3://pictures/prefix", over=100, storage_options=options)
    )
    log = InMemoryMessageLog(attachments=attachments)
    await store(log, "a").add_messages([image()])
    await store(log, "b").add_messages([image()])
    names = await asyncio.to_thread(fs.find, "pictures")
    assert len([name for name in names if "@" not in name]) == 1
    assert (await store(log, "b").list_messages())[0].contents[1].data == IMAGE
    await (await store(log, "a").fork("c")).aclose()
    receipt = await erase(log, tenant="acme", thread_ids=["a", "b"])
    assert receipt["attachments"] == {"found": 1, "removed": 1, "remaining": 0}
    fs.invalidate_cache()
    assert await asyncio.to_thread(fs.find, "pictures") == []


async def test_export_and_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = str(tmp_path / "a.db"), str(tmp_path / "b.db")
    file = tmp_path / "threads.jsonl"
    log = open_log(source, attachments=Attachments(tmp_path / "one", over=100))
    await store(log, tenant=None).add_messages([image()])
    await log.aclose()
    assert await asyncio.to_thread(run, ["export", "--store", source, "-o", str(file)]) == 1
    monkeypatch.setenv("AGENT_STORES_ATTACHMENTS", str(tmp_path / "one"))
    assert await asyncio.to_thread(run, ["export", "--store", source, "-o", str(file)]) == 0
    monkeypatch.setenv("AGENT_STORES_ATTACHMENTS", str(tmp_path / "two"))
    assert await asyncio.to_thread(run, ["import", "--store", target, str(file)]) == 0
    line = json.loads(file.read_text().splitlines()[1])
    assert line["message"]["contents"][1]["type"] == "data"
    log = open_log(target, attachments=Attachments(tmp_path / "two", over=100))
    assert (await store(log, tenant=None).list_messages())[0].contents[1].data == IMAGE
    await log.aclose()
