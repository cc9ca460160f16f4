"""`rekey` on the files of attachments: counts, keys of all kinds, kills at each step, writers and readers."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from msgspec.structs import replace

import agent_stores
from agent_stores import (
    AttachmentError,
    Attachments,
    ChatMessage,
    ChatMessageStore,
    DataContent,
    DataKeys,
    EncryptionKeyError,
    InMemoryMessageLog,
    KeyRing,
    LocalKeyService,
    MessageLog,
    TextContent,
    ToolCallContent,
    ToolResultContent,
    UriContent,
    erase,
    load_attachment,
    open_log,
    rekey,
)
from agent_stores.attachments.files import Files, digest
from agent_stores.backend import Change, RowRange, ThreadKey
from agent_stores.backends.memory import MemoryBackend
from agent_stores.encryption import Keys, RekeyReport
from tests.integration import rekey_step

pytestmark = pytest.mark.anyio
OLD_RING, BOTH, STRICT = rekey_step.OLD_RING, rekey_step.BOTH, rekey_step.STRICT
WORD = b"planted-zebra"
IMAGE = WORD * 40
OTHER = b"other" + IMAGE
STEP = str(rekey_step.__file__)


class Killed(BaseException):
    """Ends a run as a kill does: nothing of it goes on."""


class Place:
    """A folder of attachments, whose file system can do something before each change."""

    def __init__(self, folder: Path | None) -> None:
        self.path = f"/rekeyed-{uuid.uuid4().hex}" if folder is None else str(folder / "files")
        self.fs = fsspec.filesystem("memory" if folder is None else "file")
        self.before: Callable[[str, tuple[Any, ...]], None] = lambda name, args: None
        self.changes = 0

    def attachments(self, **options: Any) -> Attachments:
        return Attachments(self.path, filesystem=self, **{"over": 100, **options})

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.fs, name)
        if name not in ("pipe_file", "rm_file"):
            return method

        def changing(*args: Any) -> Any:
            self.changes += 1
            self.before(name, args)
            return method(*args)

        return changing

    def files(self) -> dict[str, bytes]:
        return {name: self.fs.cat_file(name) for name in self.fs.find(self.path)}

    def data(self) -> list[bytes]:
        return [data for name, data in self.files().items() if "@" not in name and "!" not in name]

    def have(self, *words: bytes) -> list[str]:
        """The files that hold one of the words."""
        return [name for name, data in self.files().items() if any(word in data for word in words)]


@pytest.fixture(params=["memory", "folder"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path if request.param == "folder" else None)
    yield made
    if made.fs.exists(made.path):
        made.fs.rm(made.path, recursive=True)


def store(log: MessageLog, name: str = "t", tenant: str | None = "acme", **options: Any) -> Any:
    return ChatMessageStore(log, thread_id=name, tenant=tenant, **options)


def image(data: bytes = IMAGE, text: str = "look") -> ChatMessage:
    return ChatMessage("user", contents=[TextContent(text), DataContent(data, "image/png")])


def opened(backend: MemoryBackend, place: Place, keys: Keys | None, **options: Any) -> MessageLog:
    return MessageLog(backend, encryption=keys, attachments=place.attachments(**options))


async def plant(log: MessageLog) -> dict[tuple[str | None, str], list[Any]]:
    """Threads that share data, a fork, and data in a result of a tool; returns their contents."""
    call = [
        ChatMessage("assistant", contents=[ToolCallContent("c", "draw")]),
        ChatMessage("tool", contents=[ToolResultContent("c", 1, contents=(DataContent(OTHER, "a/b"),))]),
    ]
    await store(log, "a").add_messages([image(), *call, image(b"small")])
    await store(log, "b").add_messages([image(text="again"), image(OTHER, "twice")])
    await (await store(log, "b").fork("c", at=1)).aclose()
    await store(log, "d", None).add_messages([image()])
    names: list[tuple[str | None, str]] = [("acme", "a"), ("acme", "b"), ("acme", "c"), (None, "d")]
    return {(tenant, name): await contents(log, name, tenant) for tenant, name in names}


async def contents(log: MessageLog, name: str, tenant: str | None = "acme") -> list[Any]:
    return [message.contents for message in await store(log, name, tenant).list_messages()]


async def check(log: MessageLog, planted: dict[tuple[str | None, str], list[Any]]) -> None:
    for (tenant, name), expected in planted.items():
        assert await contents(log, name, tenant) == expected, name


async def rekey_all(log: MessageLog) -> RekeyReport:
    report = RekeyReport()
    for tenant in ("acme", None):
        await rekey(log.backend, tenant, report=report)
    return report


# -- keys of all kinds --------------------------------------------------------------------------------


class KeyChange:
    """Keys before a change, during it, and afterwards."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.key_log = InMemoryMessageLog()
        self.per: Any = "thread" if kind.endswith("thread") else "tenant"

    def data_keys(self, **options: Any) -> DataKeys:
        service = LocalKeyService(OLD_RING)
        return DataKeys(service, self.key_log, per=self.per, cache_seconds=0, **options)

    def before(self) -> Keys | None:
        if self.kind == "plain":
            return None
        return self.data_keys() if self.kind.startswith("rotated") else OLD_RING

    def during(self) -> Keys:
        if self.kind in ("plain", "ring"):
            return BOTH
        return self.data_keys(former=OLD_RING)

    def after(self) -> Keys:
        return STRICT if self.kind in ("plain", "ring") else self.data_keys(allow_plaintext=False)

    async def rotate(self) -> list[bytes]:
        """Make new keys the current ones; returns the ids of the former ones."""
        if not self.kind.startswith("rotated"):
            return [b'"old"']
        former: list[bytes] = []
        for tenant, names in ((None, ["d"]), ("acme", ["a", "b", "c"])):
            for name in [*names, "$attachments"] if self.per == "thread" else ["data keys"]:
                stats = await self.key_log.stats(ThreadKey(tenant, name))
                assert stats is not None
                former.append(stats.metadata["current"].encode())
                await self.data_keys().rotate(tenant, name if self.per == "thread" else None)
        return former


@pytest.mark.parametrize(
    "kind", ["ring", "plain", "rotated tenant", "rotated thread", "to data keys", "to data keys per thread"]
)
async def test_afterwards_no_file_needs_the_former_key(place: Place, kind: str) -> None:
    change, backend = KeyChange(kind), MemoryBackend()
    planted = await plant(opened(backend, place, change.before()))
    assert len(place.data()) == 3
    former = await change.rotate()
    during = opened(backend, place, change.during())
    await check(during, planted)
    report = await rekey_all(during)
    assert (report.threads, report.messages, report.attachments) == (4, 8, 3)
    assert (report.complete, report.problems) == (True, [])
    files = place.files()
    assert len(place.data()) == 3
    assert place.have(WORD, *former) == []
    assert all(b'"$encrypted":1' in data for data in place.data())
    await check(opened(backend, place, change.after()), planted)
    again = await rekey_all(during)
    assert (again.messages, again.metadata, again.attachments, again.complete) == (0, 0, 0, True)
    assert place.files() == files
    for name in "abc":
        stats = await during.stats(ThreadKey("acme", name))
        found = await backend.rows(ThreadKey("acme", name), RowRange())
        assert stats is not None
        assert found is not None
        assert stats.bytes == sum(len(row.body) for row in found.rows)
    reads = during.backend.reads  # type: ignore[attr-defined]
    await check(opened(backend, place, change.after(), lazy=True), {})
    await contents(during, "b")
    assert during.backend.reads - reads == 2  # type: ignore[attr-defined]
    if kind.startswith("rotated"):
        for tenant, names in ((None, ["d"]), ("acme", ["a", "b", "c"])):
            for name in [*names, "$attachments"] if change.per == "thread" else [""]:
                await change.data_keys().destroy(tenant, name or None)
        with pytest.raises(EncryptionKeyError, match="was destroyed"):
            await contents(opened(backend, place, change.after()), "a")


async def test_messages_get_the_address_of_the_new_file(place: Place) -> None:
    backend = MemoryBackend()
    await plant(opened(backend, place, OLD_RING))
    before = opened(backend, place, BOTH, lazy=True)
    [message] = await store(before, "c").list_messages()
    await rekey_all(before)
    [again] = await store(before, "c").list_messages()
    assert again.contents[1].uri != message.contents[1].uri
    assert any(again.contents[1].uri[11:].partition("?")[0] in name for name in place.files())
    # What was read before is of use afterwards, too: to be loaded, and in a message.
    after = opened(backend, place, STRICT)
    part = message.contents[1]
    assert isinstance(part, UriContent)
    assert (await load_attachment(store(after), part)).data == IMAGE
    await store(after, "new").add_messages([ChatMessage("user", contents=[part])])
    assert await contents(after, "new") == [(DataContent(IMAGE, "image/png"),)]
    assert len(place.data()) == 3


async def test_a_fork_made_between_two_keys_shares_data(place: Place) -> None:
    backend = MemoryBackend()
    await plant(opened(backend, place, OLD_RING))
    both = opened(backend, place, BOTH)
    reads = both.backend.reads  # type: ignore[attr-defined]
    await (await store(both, "b").fork("early")).aclose()
    await store(both, "new").add_messages([image()])
    await (await store(both, "b").fork("late", at=1)).aclose()
    assert both.backend.reads == reads  # type: ignore[attr-defined]
    assert len(place.data()) == 4
    report = await rekey_all(both)
    assert report.attachments == 2  # one of them was stored by a client before
    assert len(place.data()) == 3
    for name in ("early", "late", "new"):
        assert (await contents(opened(backend, place, STRICT), name))[0][1].data == IMAGE


# -- what stays -----------------------------------------------------------------------------------------


async def test_a_missing_or_wrong_key_removes_nothing(place: Place) -> None:
    backend = MemoryBackend()
    planted = await plant(opened(backend, place, OLD_RING))
    files = place.files()
    new = rekey_step.NEW
    for keys in (KeyRing({"new": new}, "new"), KeyRing({"new": new, "old": bytes(32)}, "new"), STRICT):
        report = await rekey_all(opened(backend, place, keys))
        assert (report.failed, report.failed_attachments, report.attachments) == (4, 3, 0)
        assert not report.complete
        assert len(report.problems) == 7
        assert all("'old'" in problem.reason for problem in report.problems)
        assert {p.thread_id for p in report.problems if "attachment" in p.reason} <= {"a", "b", "c", "d"}
        assert place.files() == files
    await check(opened(backend, place, BOTH), planted)
    assert (await rekey_all(opened(backend, place, BOTH))).complete
    await check(opened(backend, place, STRICT), planted)


async def test_plain_files_stay_where_everything_must_be_encrypted(place: Place) -> None:
    backend = MemoryBackend()
    await plant(opened(backend, place, None))
    files = place.files()
    report = await rekey_all(opened(backend, place, STRICT))
    assert (report.failed, report.failed_attachments, report.messages) == (4, 3, 0)
    assert place.files() == files


async def test_data_that_was_changed_stays_and_is_reported(place: Place) -> None:
    backend = MemoryBackend()
    await store(opened(backend, place, OLD_RING)).add_messages([image(), image(OTHER)])
    name = next(name for name in place.files() if "@" not in name)
    whole = place.fs.cat_file(name)
    place.fs.pipe_file(name, whole[:-20] + b"A" * 18 + whole[-2:])
    log = opened(backend, place, BOTH)
    report = await rekey_all(log)
    assert (report.messages, report.attachments, report.damaged, report.complete) == (2, 1, 1, False)
    [problem] = report.problems
    assert (problem.tenant, problem.thread_id, "was changed" in problem.reason) == ("acme", "t", True)
    assert place.fs.exists(name)
    place.fs.pipe_file(name, whole)  # from a backup
    assert (await rekey_all(log)).complete
    assert len(await contents(opened(backend, place, STRICT), "t")) == 2


async def test_files_of_messages_that_cannot_be_encrypted(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their messages still have the address of a file that is gone, and find the one that replaced it."""
    backend = MemoryBackend()
    await store(opened(backend, place, OLD_RING), "a").add_messages([image()])
    key = ThreadKey("acme", "a")
    found = await backend.rows(key, RowRange())
    assert found is not None
    both = opened(backend, place, BOTH)
    await rekey_all(both)
    renewed = await backend.rows(key, RowRange())
    assert renewed is not None
    old = replace(found.rows[0], position=1)
    await backend.commit(key, Change(renewed.thread, renewed.version, [old]))
    assert (await contents(both, "a"))[0][1].data == IMAGE
    moment = time.time() + 200_000
    monkeypatch.setattr("agent_stores.attachments.files.time.time", lambda: moment)
    for _ in range(3):
        await both.purge_expired()
    assert (await contents(both, "a"))[0][1].data == IMAGE
    await (await store(both, "a").fork("b")).aclose()
    receipt = await erase(both, tenant="acme", thread_ids=["a"])
    assert (receipt["attachments"], receipt["complete"]) == ({"found": 1, "removed": 1, "remaining": 0}, True)
    assert place.files() == {}


async def test_a_log_without_the_attachments_reports_them(place: Place) -> None:
    backend = MemoryBackend()
    await plant(opened(backend, place, OLD_RING))
    files = place.files()
    for messages in (8, 0):
        report = await rekey_all(MessageLog(backend, encryption=BOTH))
        assert (report.messages, report.failed_attachments, report.complete) == (messages, 6, False)
        assert "attachments=" in report.problems[0].reason
    assert place.files() == files
    with pytest.raises(EncryptionKeyError, match="'old'") as caught:
        await contents(opened(backend, place, STRICT), "a")
    assert caught.value.key_id == "old"
    assert (await rekey_all(opened(backend, place, BOTH))).attachments == 3


async def test_data_that_no_thread_refers_to_is_left_to_the_sweeper(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = opened(MemoryBackend(), place, OLD_RING)
    await store(log, "a").add_messages([image()])
    for name in place.files():
        if "@" in name:
            place.fs.rm(name)
    files = place.files()
    both = opened(MemoryBackend(), place, BOTH)
    report = await rekey_all(both)
    assert (report.complete, report.attachments, place.files()) == (True, 0, files)
    moment = time.time() + 200_000
    monkeypatch.setattr("agent_stores.attachments.files.time.time", lambda: moment)
    await both.purge_expired()
    assert place.files() == {}


async def test_a_file_system_that_fails_ends_the_run_and_the_next_goes_on(place: Place) -> None:
    backend = MemoryBackend()
    planted = await plant(opened(backend, place, OLD_RING))
    both = opened(backend, place, BOTH)
    steps = itertools.count(1)

    def fail(name: str, args: tuple[Any, ...]) -> None:
        if next(steps) == 7:
            raise OSError("secret")

    place.before = fail
    report = RekeyReport()
    with pytest.raises(AttachmentError, match="OSError") as caught:
        await rekey(both.backend, "acme", report=report)
    assert "secret" not in str(caught.value)
    assert report.attachments
    place.before = lambda name, args: None
    await check(both, planted)
    assert (await rekey_all(both)).complete
    await check(opened(backend, place, STRICT), planted)


# -- kills, readers and writers -----------------------------------------------------------------------


def count_changes(place: Place) -> int:
    """How many changes of files a whole run makes."""

    async def work() -> int:
        backend = MemoryBackend()
        await plant(opened(backend, place, OLD_RING))
        before = place.changes
        await rekey_all(opened(backend, place, BOTH))
        return place.changes - before

    count = asyncio.run(work())
    place.fs.rm(place.path, recursive=True)
    return count


@pytest.mark.parametrize("half", [False, True], ids=["before", "halfway"])
async def test_a_run_that_ends_at_any_change_of_a_file(place: Place, half: bool) -> None:
    count = await asyncio.to_thread(count_changes, place)
    assert count >= 20
    for step in range(1, count + 1):
        backend = MemoryBackend()
        planted = await plant(opened(backend, place, OLD_RING))
        both = opened(backend, place, BOTH)
        steps = itertools.count(1)

        def kill(name: str, args: tuple[Any, ...], step: int = step, steps: Any = steps) -> None:
            if next(steps) == step:
                if half and name == "pipe_file":
                    with contextlib.suppress(FileNotFoundError):
                        place.fs.pipe_file(args[0], args[1][: len(args[1]) // 2])
                raise Killed

        place.before = kill
        with pytest.raises(Killed):
            await rekey_all(both)
        place.before = lambda name, args: None
        await check(both, planted)
        report = await rekey_all(both)
        assert report.complete, step
        await check(opened(backend, place, STRICT), planted)
        whole = [data for data in place.data() if data.endswith(b'"}')]
        assert len(whole) == 3
        assert place.have(b'"old"') == []
        await asyncio.to_thread(place.fs.rm, place.path, recursive=True)


async def test_readers_and_writers_at_each_change_of_a_file(place: Place) -> None:
    """Before each step threads are read, one is forked, and the same data is added, also by its address."""
    backend = MemoryBackend()
    planted = await plant(opened(backend, place, OLD_RING))
    both, reader = opened(backend, place, BOTH), opened(backend, place, BOTH)
    [message] = await store(opened(backend, place, BOTH, lazy=True), "c").list_messages()
    stale, written = message.contents[1], list[str]()

    async def use() -> None:
        await check(reader, planted)
        number = len(written)
        await (await store(reader, "b").fork(f"fork{number}")).aclose()
        await store(reader, f"new{number}").add_messages(
            [image(OTHER), ChatMessage("user", contents=[stale])]
        )
        written.append(f"{number}")

    def work(name: str, args: tuple[Any, ...]) -> None:
        place.before = lambda name, args: None
        asyncio.run(use())
        place.before = work

    place.before = work
    await rekey_all(both)
    place.before = lambda name, args: None
    assert len(written) >= 20
    report = await rekey_all(both)
    assert report.complete
    strict = opened(backend, place, STRICT)
    await check(strict, planted)
    for number in written:
        assert await contents(strict, f"fork{number}") == planted["acme", "b"]
        assert [parts[-1].data for parts in await contents(strict, f"new{number}")] == [OTHER, IMAGE]
    assert place.have(b'"old"') == []
    assert len(place.data()) == 3


def referring(place: Place) -> list[set[str]]:
    """For all data of a tenant, the digests of the threads that refer to a file of it that is there."""
    files = Files(place.fs, place.path, 2)
    return [
        {each.thread for copy in files.copies(folder) if copy.exists for each in copy.references}
        for folder in files.folders("acme")
    ]


async def test_a_writer_at_each_step_that_still_has_the_former_key(place: Place) -> None:
    """Its messages keep their data, whatever is erased then, and the next run encrypts them."""
    backend = MemoryBackend()
    planted = await plant(opened(backend, place, OLD_RING))
    both, late = opened(backend, place, BOTH), list[str]()

    async def use() -> None:
        late.append(f"late{len(late)}")
        await store(opened(backend, place, OLD_RING), late[-1]).add_messages([image(), image(OTHER)])

    def work(name: str, args: tuple[Any, ...]) -> None:
        place.before = lambda name, args: None
        asyncio.run(use())
        place.before = work

    place.before = work
    await rekey(both.backend, "acme")
    place.before = lambda name, args: None
    assert len(late) >= 20
    await check(both, planted)
    for kept in await asyncio.to_thread(referring, place):
        assert {digest(ThreadKey("acme", name)) for name in late} <= kept
    await erase(both, tenant="acme", thread_ids=["a", "b"])
    for keys in (BOTH, STRICT):
        for name in late:
            found = await contents(opened(backend, place, keys), name)
            assert [parts[1].data for parts in found] == [IMAGE, OTHER], name
        assert (await rekey_all(both)).complete
    assert place.have(b'"old"') == []


async def test_a_run_among_writers_readers_and_sweepers(tmp_path: Path) -> None:
    place, path = Place(tmp_path), tmp_path / "chat.db"
    images = [b"%d" % n + IMAGE for n in range(4)]

    def log_of(keys: KeyRing) -> MessageLog:
        return open_log(path, encryption=keys, attachments=place.attachments(grace=2), timeout=60)

    first = log_of(OLD_RING)
    for name in "abcd":
        await store(first, name).add_messages([image(data) for data in images])
    logs = [log_of(BOTH) for _ in range(3)]
    until = time.monotonic() + 6
    added = dict.fromkeys("abcd", 0)

    async def write(name: str) -> None:
        writer = store(logs[0], name)
        while time.monotonic() < until:
            await writer.add_messages([image(images[added[name] % 4])])
            added[name] += 1
            await asyncio.sleep(0.05)

    async def work(call: Callable[[], Awaitable[Any]]) -> None:
        while time.monotonic() < until:
            await call()

    async def read() -> None:
        for name in "abcd":
            found = await contents(logs[1], name)
            assert [parts[1].data for parts in found] == [images[n % 4] for n in range(len(found))]

    await asyncio.gather(
        *map(write, "abcd"),
        work(read),
        work(logs[2].purge_expired),
        work(lambda: rekey(logs[2].backend, "acme")),
    )
    report = await rekey(logs[0].backend, "acme")
    assert report.complete
    strict = log_of(STRICT)
    for name in "abcd":
        found = await contents(strict, name)
        assert [parts[1].data for parts in found] == [images[n % 4] for n in range(4 + added[name])]
    assert await asyncio.to_thread(place.have, b'"old"') == []
    for log in (first, strict, *logs):
        await log.aclose()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["ring", "plain"])
async def test_killed_at_each_step(tmp_path: Path, kind: str) -> None:
    """By `kill -9`, before and after each commit and each change of a file, with threads in a file."""
    log = rekey_step.opened(tmp_path / "whole", OLD_RING if kind == "ring" else None)
    await asyncio.to_thread((tmp_path / "whole").mkdir)
    planted = await plant(log)
    await log.aclose()
    environment = {**os.environ, "PYTHONPATH": str(Path(agent_stores.__file__).parents[1])}
    process = await asyncio.create_subprocess_exec(
        sys.executable, STEP, str(tmp_path), env=environment, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    assert int(output) >= 40
    for step in range(1, int(output) + 1):
        folder = tmp_path / f"{step}"
        both, strict = (rekey_step.opened(folder, keys) for keys in (BOTH, STRICT))
        await check(both, planted)
        report = await rekey_all(both)
        assert report.complete
        await check(strict, planted)
        await asyncio.gather(both.aclose(), strict.aclose())
        files = [file.read_bytes() for file in (folder / "files").rglob("*") if file.is_file()]
        assert not any(word in data for data in files for word in (b'"old"', WORD)), step


def test_the_steps_are_those_of_the_library() -> None:
    assert all(callable(getattr(Files, name)) for name in rekey_step.STEPS)
