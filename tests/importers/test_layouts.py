"""Each layout, written by the real package: taken over, a conversation is what the package itself reads."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.messages import message_to_dict

from agent_stores import ChatMessage, DataContent, TextContent, ToolCallContent, ToolResultContent
from agent_stores.importers.parsers.agent_framework import agent_framework_message
from agent_stores.plugins.agent_framework.codec import AgentFrameworkCodec
from agent_stores.plugins.langchain.codec import LangChainCodec
from agent_stores.plugins.llama_index.codec import LlamaIndexCodec
from tests.importers.conftest import BETA, Peers
from tests.importers.json_server import json_url as json_url
from tests.importers.peers import CONVERSATION
from tests.importers.support import Done, read, run_migration, threads
from tests.plugins.agent_framework.kinds import messages as agent_framework_kinds
from tests.plugins.environments import environment
from tests.servers.azurite import AzuriteServer

pytestmark = pytest.mark.timeout(900)  # an environment may have to be made first

HOSTILE = "o'brien:\n{x}*?[a]\\|v2|\u2603 \U0001f600"
IDS = ("plain", HOSTILE)

ROLES = ["system", "user", "user", "assistant", "tool", "tool", "assistant", "user", "assistant", "user"]


def check_neutral(messages: list[ChatMessage], *, calls: bool = True) -> None:
    """The conversation, as any other plug-in reads it."""
    assert [message.role for message in messages] == ROLES
    assert messages[0].text == "Be brief."
    assert messages[1].text == "What is the weather? \U0001f600"
    text, image = messages[2].contents
    assert isinstance(text, TextContent)
    assert text.text == "And here?"
    assert isinstance(image, DataContent)
    assert image.data.startswith(b"\x89PNG")
    assert [message.text for message in messages[6:]] == [
        "Sunny in Paris, snow in Oslo.",
        "yes",
        "Fine.",
        "yes",
    ]
    results = [part for message in messages[4:6] for part in message.contents]
    assert [(part.call_id, part.result) for part in results if isinstance(part, ToolResultContent)] == [
        ("a", "sunny"),
        ("b", "snow"),
    ]
    if calls:
        made = [part for part in messages[3].contents if isinstance(part, ToolCallContent)]
        assert [(part.call_id, part.name, part.parse_arguments()) for part in made] == [
            ("a", "weather", {"city": "Paris"}),
            ("b", "weather", {"city": "Oslo"}),
        ]


def write_all(peers: Peers, layout: str, url: str, **options: Any) -> dict[str, list[Any]]:
    """What the package reads of the threads that it has written."""
    written = [{"thread": name, "add": CONVERSATION, "options": options} for name in IDS]
    shown = [{"thread": name, "read": True, "options": options} for name in IDS]
    return dict(zip(IDS, peers(layout, url, *written, *shown), strict=True))


def check_whole(done: Done, *, threads: int = 2, of: int = 10) -> None:
    assert done.report["problems"] == []
    assert done.status == 0
    assert (done.report["threads"], done.report["messages"]) == (threads, threads * of)


def with_ids(found: list[dict[str, Any]], wanted: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """What was found, without the ids that messages without one were given."""
    for one, other in zip(found, wanted, strict=True):
        if other.get(name) is None and name in one:
            assert one[name]
            one[name] = None
            if name not in other:
                del one[name]
    return found


def langchain_dump(messages: list[ChatMessage]) -> list[dict[str, Any]]:
    codec = LangChainCodec()
    return [message_to_dict(one) for message in messages for one in codec.from_chat_message(message)]


def test_langchain(peers: Peers, redis_url: str, target: str) -> None:
    wanted = write_all(peers, "langchain", redis_url)
    check_whole(run_migration(f"langchain+{redis_url}", target))
    for name in IDS:
        found = read(target, name)
        check_neutral(found)
        dumps = langchain_dump(found)
        with_ids([one["data"] for one in dumps], [one["data"] for one in wanted[name]], "id")
        assert dumps == wanted[name]


def test_langchain_with_another_prefix(peers: Peers, redis_url: str, target: str) -> None:
    peers("langchain", redis_url, {"thread": "a", "add": ["user"], "options": {"key_prefix": "my*:"}})
    peers("langchain", redis_url, {"thread": "b", "add": ["user"], "options": {"key_prefix": "my-:"}})
    done = run_migration(f"langchain+{redis_url}", target, "--from-option", "key_prefix=my*:")
    check_whole(done, threads=1, of=1)
    assert list(threads(target)) == ["a"]


def test_langchain_js(peers: Peers, redis_url: str, target: str) -> None:
    names = [*CONVERSATION, "narrator"]
    (wanted,) = peers(
        "langchain-js", redis_url, {"thread": HOSTILE, "add": names}, {"thread": HOSTILE, "read": True}
    )
    check_whole(run_migration(f"langchain-js+{redis_url}", target), threads=1, of=11)
    found = read(target, HOSTILE)
    check_neutral(found[:10])
    for one, other in zip(langchain_dump(found), wanted, strict=True):
        assert one["type"] == ("chat" if other["type"] == "generic" else other["type"])
        assert {name: one["data"][name] for name in other["data"]} == other["data"]


def test_langchain_js_passes_over_other_lists(peers: Peers, redis_url: str, target: str) -> None:
    peers("langchain-js", redis_url, {"thread": "js", "add": ["user"]})
    peers("llama-index", redis_url, {"thread": "li", "add": ["user"]})
    done = run_migration(f"langchain-js+{redis_url}", target)
    check_whole(done, threads=1, of=1)
    assert done.report["unrecognized"] == 1
    assert list(threads(target)) == ["js"]


def test_langchain_redis(peers: Peers, json_url: str, target: str) -> None:
    """The package does not store calls, ids and names: what it reads again is what is taken over."""
    peers("langchain-redis", json_url, *({"thread": name, "add": CONVERSATION} for name in IDS))
    check_whole(run_migration(f"langchain-redis+{json_url}", target))
    check_whole(run_migration(f"langchain-redis+{json_url}", target))
    for name in IDS:
        found = read(target, name, dangling_calls="keep")
        check_neutral(found, calls=False)
        dumps = langchain_dump(found)
        assert dumps[1]["data"]["additional_kwargs"] == {"lang": "en"}
        assert dumps[5]["data"]["status"] == "error"
    assert set(threads(target)) == set(IDS)


def llama_index_dump(messages: list[ChatMessage]) -> list[dict[str, Any]]:
    codec = LlamaIndexCodec()
    return [one.model_dump(mode="json") for message in messages for one in codec.from_chat_message(message)]


def test_llama_index(peers: Peers, redis_url: str, target: str) -> None:
    wanted = write_all(peers, "llama-index", redis_url)
    check_whole(run_migration(f"llama-index+{redis_url}", target))
    for name in IDS:
        found = read(target, name)
        check_neutral(found)
        assert llama_index_dump(found) == wanted[name]


def test_llama_index_azure(peers: Peers, azurite_server: AzuriteServer, target: str) -> None:
    url, tables = (
        azurite_server.connection_string,
        {"chat_table_name": "Chats", "metadata_table_name": "Keys"},
    )
    names = ("plain", "a key; and \u2603")  # no quote: the package puts a key into its query as it is
    actions: list[dict[str, Any]] = []
    if not threads(target):
        # Messages with images it fails to store.
        said = [name for name in CONVERSATION if name != "image"]
        actions = [{"thread": name, "add": [*said, "text:" + "x" * 100_000]} for name in names]
    tables["chat_table_name"] += "Of" + target.partition(":")[0].capitalize()
    options = [f"{name}={value}" for name, value in tables.items()]
    shown = peers(
        "llama-index-azure",
        url,
        *({**action, "options": tables} for action in actions),
        *({"thread": name, "read": True, "options": tables} for name in names),
    )
    arguments = [argument for option in options for argument in ("--from-option", option)]
    check_whole(run_migration(f"llama-index+{url}", target, *arguments), of=10)
    for name, wanted in zip(names, shown, strict=True):
        found = read(target, name)
        assert [message.text for message in found[5:-1]] == [
            "Sunny in Paris, snow in Oslo.",
            "yes",
            "Fine.",
            "yes",
        ]
        assert llama_index_dump(found) == wanted
    again = run_migration(f"llama-index+{url}", target, *arguments)
    assert (again.report["added"], again.report["present"]) == (0, 20)


def agent_framework_dump(messages: list[ChatMessage]) -> list[dict[str, Any]]:
    codec = AgentFrameworkCodec()
    return [codec.from_chat_message(message).to_dict() for message in messages]


def test_agent_framework_scoped(peers: Peers, redis_url: str, target: str) -> None:
    scope = {"application_id": "My App", "tenant_id": "Tenant", "agent_id": "agent"}
    wanted = write_all(peers, "agent-framework", redis_url, **scope)
    check_whole(run_migration(f"agent-framework+{redis_url}", target))
    assert threads(target) == {}
    for name in IDS:
        found = read(target, name, tenant="Tenant")
        check_neutral(found)
        assert with_ids(agent_framework_dump(found), wanted[name], "message_id") == wanted[name]


def test_agent_framework_scopes(peers: Peers, redis_url: str, target: str) -> None:
    """Sessions of the same id in different scopes do not run together."""
    for agent in ("a", "b"):
        options = {"application_id": "app", "agent_id": agent}
        peers("agent-framework", redis_url, {"thread": "s", "add": [f"text:{agent}"], "options": options})
    both = run_migration(f"agent-framework+{redis_url}", target, "--thread-prefix", "both-")
    assert both.status == 4
    assert both.report["threads_skipped"] == 1
    assert "has been taken from" in both.report["problems"][0]["reason"]
    assert len(read(target, "both-s")) == 1
    for agent in ("a", "b"):
        done = run_migration(
            f"agent-framework+{redis_url}",
            target,
            *("--from-option", f"agent_id={agent}", "--thread-prefix", f"{agent}-"),
        )
        check_whole(done, threads=1, of=1)
        assert [message.text for message in read(target, f"{agent}-s")] == [agent]


def test_agent_framework_long_ids(peers: Peers, redis_url: str, target: str, tmp_path: Any) -> None:
    """Of a long id the key holds a digest only: the report says so, and a mapping gives the id."""
    name = "Session " * 40
    peers("agent-framework", redis_url, {"thread": name, "add": ["user"], "options": {"application_id": "a"}})
    done = run_migration(f"agent-framework+{redis_url}", target, "--dry-run")
    (problem,) = done.report["problems"]
    assert "--map" in problem["reason"]
    (tmp_path / "map.json").write_text(json.dumps({problem["thread_id"]: name}))
    check_whole(
        run_migration(f"agent-framework+{redis_url}", target, "--map", str(tmp_path / "map.json")),
        threads=1,
        of=1,
    )
    assert list(threads(target)) == [name]


def test_agent_framework_legacy(peers: Peers, redis_url: str, target: str) -> None:
    wanted = write_all(peers, "agent-framework", redis_url, key_format="legacy")
    check_whole(run_migration(f"agent-framework+{redis_url}", target))
    for name in IDS:
        found = read(target, name)
        check_neutral(found)
        assert with_ids(agent_framework_dump(found), wanted[name], "message_id") == wanted[name]


def test_agent_framework_beta(peers: Peers, redis_url: str, target: str) -> None:
    """What the beta wrote reads exactly in the beta, and says the same in 1.x."""
    wanted = write_all(peers, "agent-framework-beta", redis_url)
    check_whole(run_migration(f"agent-framework+{redis_url}", target))
    python = environment("peers-beta", *BETA)
    for name in IDS:
        found = read(target, name)
        check_neutral(found)
        said = agent_framework_dump(found)
        assert [one["role"] for one in said] == ROLES
        code = (
            "import asyncio, json, sys\n"
            "from agent_stores import ChatMessageStore, open_log\n"
            "from agent_stores.plugins.agent_framework.codec import AgentFrameworkCodec\n"
            "async def main():\n"
            "    log = open_log(sys.argv[1])\n"
            "    store = ChatMessageStore(log, thread_id=sys.argv[2], codec=AgentFrameworkCodec())\n"
            "    print(json.dumps([one.to_dict() for one in await store.list_messages()]))\n"
            "    await log.aclose()\n"
            "asyncio.run(main())\n"
        )
        run = subprocess.run([python, "-c", code, target, name], capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        assert with_ids(json.loads(run.stdout), wanted[name], "message_id") == wanted[name]


@pytest.mark.parametrize(
    "message", agent_framework_kinds(), ids=lambda one: one.contents[0].type if one.contents else ""
)
def test_agent_framework_needs_no_package(message: Any) -> None:
    """Every kind of message is read from JSON as the plug-in reads it from the framework's object."""
    stored = json.loads(json.dumps(message.to_dict()))
    assert agent_framework_message(stored) == AgentFrameworkCodec().to_chat_message(
        type(message).from_dict(stored)
    )


def test_two_runs_are_one(peers: Peers, redis_url: str, target: str) -> None:
    """Run twice, and once more after the source has grown: all layouts at once."""
    layouts: dict[str, Callable[[], Any]] = {
        "langchain": lambda: peers(
            "langchain", redis_url, {"thread": "t", "add": ["yes", "answer-2", "yes"]}
        ),
        "llama-index": lambda: peers(
            "llama-index", redis_url, {"thread": "t", "add": ["yes", "answer-2", "yes"]}
        ),
        "agent-framework": lambda: peers(
            "agent-framework-beta", redis_url, {"thread": "t", "add": ["yes", "answer-2", "yes"]}
        ),
    }
    for layout, write in layouts.items():
        source, mine = f"{layout}+{redis_url}", ("--thread-prefix", f"{layout}-", "--thread", "t")
        for times in (1, 2):
            write()
            first = run_migration(source, target, *mine)
            second = run_migration(source, target, *mine)
            assert first.status == second.status == 0
            assert (first.report["added"], second.report["added"]) == (3, 0)
            assert second.report["present"] == 3 * times
            texts = [message.text for message in read(target, f"{layout}-t")]
            assert texts == ["yes", "Fine.", "yes"] * times
