"""`AgentStoresSessionStore`: one suite on the framework's own stores and on ours."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import warnings
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from agent_framework import AgentSession, FileSessionStore, Message, SessionStore, register_state_type

from agent_stores import ChatMessage, ChatMessageStore, InMemoryMessageLog
from agent_stores.encryption import KeyRing
from agent_stores.errors import StoreClosedError
from tests.servers.redis import RedisServer

with warnings.catch_warnings():  # that sessions are experimental, once in a process
    warnings.simplefilter("ignore", FutureWarning)
    from agent_stores.agent_framework import AgentStoresSessionStore as ours

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:.*SessionStore is experimental:FutureWarning"),
]


class Cart:
    """A value of an application's."""

    def __init__(self, items: list[str]) -> None:
        self.items = items

    def to_dict(self) -> dict[str, Any]:
        return {"items": self.items}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Cart:
        return cls(list(data["items"]))


register_state_type(Cart, type_id="tests.cart")


KINDS = ["memory", "file", "msgpack", "ours, in memory", "ours, on SQLite", "ours, on Redis"]


@pytest.fixture(params=KINDS)
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, valkey_server: RedisServer
) -> AsyncIterator[SessionStore]:
    make: dict[str, Callable[[], SessionStore]] = {
        "memory": SessionStore,
        "file": lambda: FileSessionStore(tmp_path),
        "msgpack": lambda: FileSessionStore(tmp_path, serialization_format="msgpack"),
        "ours, in memory": lambda: ours("memory:"),
        "ours, on SQLite": lambda: ours(tmp_path / "chat.db"),
        "ours, on Redis": lambda: ours(valkey_server.url, tenant=tmp_path.name),
    }
    made = make[request.param]()
    yield made
    if isinstance(made, ours):
        await made.aclose()


def session(**state: Any) -> AgentSession:
    made = AgentSession(session_id="inner")
    made.state.update(state)
    return made


async def test_a_session_that_is_not_there(store: SessionStore) -> None:
    assert await store.get("a") is None
    await store.delete("a")
    await store.set("a", session())
    assert await store.get("A") is None


async def test_a_session_comes_back(store: SessionStore) -> None:
    given = session(n=1, text="é🙂", nested={"list": [1, 2.5, None, True]}, cart=Cart(["tea"]))
    given.service_session_id = "resp_1"
    await store.set("a", given)
    found = await store.get("a")
    assert found is not None
    assert type(found) is AgentSession
    assert (found.session_id, found.service_session_id) == ("inner", "resp_1")
    assert found.state["cart"].items == ["tea"]
    assert found.to_dict() == given.to_dict()


async def test_a_service_may_have_several_ids(store: SessionStore) -> None:
    given = session()
    given.service_session_id = {"conversation": "c", "response": "r"}  # type: ignore[assignment,unused-ignore]
    await store.set("a", given)
    found = await store.get("a")
    assert found is not None
    assert found.service_session_id == {"conversation": "c", "response": "r"}


async def test_messages_in_the_state(store: SessionStore) -> None:
    await store.set(
        "a", session(history={"messages": [Message("user", ["hi"]), Message("assistant", ["yes"])]})
    )
    found = await store.get("a")
    assert found is not None
    assert [(type(one), one.text) for one in found.state["history"]["messages"]] == [
        (Message, "hi"),
        (Message, "yes"),
    ]


async def test_what_is_read_is_a_copy(store: SessionStore) -> None:
    given = session(list=[1])
    await store.set("a", given)
    given.state["list"].append(2)
    first = await store.get("a")
    assert first is not None
    assert first.state == {"list": [1]}
    first.state["list"].append(3)
    second = await store.get("a")
    assert second is not None
    assert second.state == {"list": [1]}


async def test_setting_replaces(store: SessionStore) -> None:
    for n in range(3):
        await store.set("a", session(n=n))
    await store.set("b", session(n=9))
    found = await store.get("a")
    assert found is not None
    assert found.state == {"n": 2}
    await store.delete("a")
    assert await store.get("a") is None
    await store.delete("a")
    other = await store.get("b")
    assert other is not None
    assert other.state == {"n": 9}
    await store.set("a", session(n=4))
    again = await store.get("a")
    assert again is not None
    assert again.state == {"n": 4}


async def test_ids(store: SessionStore) -> None:
    ids = ["a", "a#session", "a/b", "a%2Fb", "../a", "A", "a b", "é", "~session-x", "a:b", "x" * 128]
    for n, name in enumerate(ids):
        await store.set(name, session(n=n))
    found = [await store.get(name) for name in ids]
    assert [one and one.state["n"] for one in found] == list(range(len(ids)))
    wrongs: list[Any] = ["", None, 1]
    for wrong in wrongs:
        with pytest.raises(ValueError, match="session_id must be a non-empty string"):
            await store.get(wrong)
        with pytest.raises(ValueError, match="session_id must be a non-empty string"):
            await store.set(wrong, session())
        with pytest.raises(ValueError, match="session_id must be a non-empty string"):
            await store.delete(wrong)


async def test_of_two_writers_the_last_one_wins(store: SessionStore) -> None:
    await asyncio.gather(*(store.set("a", session(n=n, filler="x" * 1000)) for n in range(8)))
    found = await store.get("a")
    assert found is not None
    assert found.state["filler"] == "x" * 1000
    assert found.state["n"] in range(8)


async def test_a_large_session(store: SessionStore) -> None:
    deep: dict[str, Any] = {}
    for _ in range(60):
        deep = {"in": deep}
    given = session(text="x" * 300_000, deep=deep)
    await store.set("a", given)
    found = await store.get("a")
    assert found is not None
    assert found.to_dict() == given.to_dict()


@pytest.mark.filterwarnings("ignore:AgentSession state value:RuntimeWarning")
@pytest.mark.parametrize("store", KINDS[1:], indirect=True)
async def test_what_cannot_be_stored(store: SessionStore) -> None:
    """The framework's store in memory holds any object; those that last say what they cannot hold."""
    with pytest.raises(TypeError):
        await store.set("a", session(value=object()))
    with pytest.raises(ValueError, match="finite"):
        await store.set("a", session(value=float("nan")))

    class Subclass(AgentSession):
        pass

    with pytest.raises(TypeError, match="AgentSession"):
        await store.set("a", Subclass())
    assert await store.get("a") is None


# -- ours only --------------------------------------------------------------------------------------------


async def test_a_conversation_stays_when_its_session_is_deleted() -> None:
    log = InMemoryMessageLog()
    conversation = ChatMessageStore(log, thread_id="a")
    await conversation.add_messages([ChatMessage("user", "hi")])
    async with ours(log) as store:
        await store.set("a", session(n=1))
        assert [one.thread_id for one in (await conversation.list_threads()).threads] == ["a", "a#session"]
        await store.delete("a")
    assert [one.thread_id for one in (await conversation.list_threads()).threads] == ["a"]
    assert await conversation.count() == 1


async def test_options(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    async with ours(path, tenant="x") as one, ours(path, tenant="y") as other:
        await one.set("a", session(n=1))
        assert await other.get("a") is None
    async with ours(path, ttl=3600) as store:
        await store.set("a", session(n=1))
        stats = await store._opened.store("a#session").stats()
        assert stats.expires_at is not None
    with pytest.raises(StoreClosedError):
        await store.get("a")
    keys = KeyRing({"k": bytes(range(32))}, current="k")
    async with ours(path, tenant="secret", encryption=keys) as store:
        await store.set("a", session(word="abracadabra"))
        found = await store.get("a")
        assert found is not None
        assert found.state == {"word": "abracadabra"}
    assert b"abracadabra" not in path.read_bytes()
    with pytest.raises(TypeError, match=r"argument must be one of source, tenant.*, got 'max_message'"):
        ours("memory:", max_message=1)  # type: ignore[call-arg]


def test_it_is_a_session_store_and_warns_when_it_is_first_asked_for() -> None:
    code = (
        "import agent_stores.agent_framework as ours, agent_framework as theirs\n"
        "assert issubclass(ours.AgentStoresSessionStore, theirs.SessionStore)\n"
        "ours.AgentStoresSessionStore('memory:')\n"
    )
    done = subprocess.run([sys.executable, "-W", "always", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("SessionStore is experimental") == 1
    code = "import agent_stores.agent_framework"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
