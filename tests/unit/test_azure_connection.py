"""The Azure Tables store's connection arguments, its keys, and that no secret ever shows."""

from __future__ import annotations

import base64
import json
import logging
import pickle
import subprocess
import sys
from typing import Any

import pytest
from azure.core.credentials import AccessToken, AzureNamedKeyCredential, AzureSasCredential
from azure.data.tables.aio import TableServiceClient

from agent_stores import AzureTableChatMessageStore, ChatMessage, open_log
from agent_stores.azure import AzureTableMessageLog
from agent_stores.cli.access import opened
from agent_stores.errors import (
    AgentStoresError,
    ArgumentError,
    ArgumentTypeError,
    StateError,
    StoreUnavailableError,
)
from agent_stores.log import ThreadKey
from agent_stores.stores.azure_tables import keys
from agent_stores.stores.azure_tables.heads import LAYOUT, ThreadHead, add_range, head_entity, read_head
from agent_stores.stores.azure_tables.text import UNITS, join_text, pieces, split_text, utf16_units
from agent_stores.testing.conformance.isolation import HOSTILE_NAMES

pytestmark = pytest.mark.anyio

KEY = base64.b64encode(b"planted-s3cret").decode()
SAS = "sv=2024-01-01&ss=t&srt=sco&sp=rwdlacu&se=2030-01-01T00:00:00Z&sig=planted%2Fs3cret%3D"
NOBODY = "http://127.0.0.1:1/acc"
HIDDEN = (KEY, KEY.rstrip("="), "planted", "s3cret")


def by_key(endpoint: str = "") -> str:
    return f"AccountName=acc;AccountKey={KEY};{endpoint}"


class Token:
    """A token credential as azure.identity.aio has them."""

    async def __aenter__(self) -> Token:
        return self

    async def get_token(self, *scopes: str, **kwargs: Any) -> AccessToken:
        return AccessToken("planted-s3cret-token", 2**40)

    async def close(self) -> None:
        """Nothing to close."""

    async def __aexit__(self, *args: Any) -> None:
        """Nothing to close."""


class SyncToken:
    def get_token(self, *scopes: str, **kwargs: Any) -> AccessToken:
        return AccessToken("planted-s3cret-token", 2**40)


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        (by_key(), "https://acc.table.core.windows.net"),
        (f"DefaultEndpointsProtocol=http;{by_key()}", "http://acc.table.core.windows.net"),
        (by_key("EndpointSuffix=core.chinacloudapi.cn"), "https://acc.table.core.chinacloudapi.cn"),
        (
            by_key("TableEndpoint=https://Acc.table.cosmos.azure.com:443/;"),
            "https://acc.table.cosmos.azure.com:443",
        ),
        (f"accountname=acc;accountkey={KEY}", "https://acc.table.core.windows.net"),
        (f" AccountName = acc ;\n AccountKey = {KEY} ; ", "https://acc.table.core.windows.net"),
        ("UseDevelopmentStorage=true", "http://127.0.0.1:10002/devstoreaccount1"),
        (f"TableEndpoint={NOBODY};SharedAccessSignature={SAS}", NOBODY),
        (f"BlobEndpoint=https://x;TableEndpoint={NOBODY};SharedAccessSignature={SAS}", NOBODY),
    ],
)
def test_connection_strings(text: str, endpoint: str) -> None:
    log = AzureTableMessageLog(text, table_name="Chats")
    assert log.location == f"{endpoint}/chats"
    assert open_log(text).location == f"{endpoint}/agentstores"
    assert open_log(text, table_name="Chats").location == f"{endpoint}/chats"
    shown = repr(log) + repr(log._server.address) + repr(vars(log)) + repr(log._server.address.identity)
    assert not any(hidden in shown for hidden in HIDDEN)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        KEY,
        f"AccountKey={KEY}",
        "AccountName=acc",
        f"AccountName=acc;{KEY}",
        f"AccountName=acc;AccountKey=!{KEY}",
        f"AccountName=acc;AccountKey={KEY};TableEndpoint=ftp://x",
        f"AccountName=acc;AccountKey={KEY};TableEndpoint=http://user:{KEY}@x",
        f"AccountName=a{KEY}/x;AccountKey={KEY};TableEndpoint=https://[x",
        f"TableEndpoint={NOBODY}?{SAS};AccountName=acc;AccountKey={KEY}",
        f"TableEndpoint={NOBODY};SharedAccessSignature=planted",
        "UseDevelopmentStorage=false",
    ],
)
def test_connection_strings_that_are_not_accepted(text: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        AzureTableMessageLog(text)
    shown = str(caught.value) + repr(caught.value.__cause__)
    assert not any(hidden in shown for hidden in HIDDEN)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"endpoint": NOBODY},
        {"endpoint": f"{NOBODY}?{SAS}", "sas_token": SAS},
        {"endpoint": "acc.table.core.windows.net", "sas_token": SAS},
        {"endpoint": NOBODY, "sas_token": SAS, "account_key": KEY, "account_name": "acc"},
        {"endpoint": NOBODY, "account_key": KEY},
        {"endpoint": NOBODY, "credential": Token()},
        {"endpoint": NOBODY, "account_name": "acc"},
        {"account_name": "acc/..", "account_key": KEY},
        {"connection_string": by_key(), "endpoint": NOBODY},
        {"connection_string": by_key(), "account_key": KEY},
        {
            "table_service_client": TableServiceClient(NOBODY, credential=AzureSasCredential(SAS)),
            "sas_token": SAS,
        },
        {
            "table_service_client": TableServiceClient(NOBODY, credential=AzureSasCredential(SAS)),
            "client_options": {"user_agent": "x"},
        },
        {"connection_string": by_key(), "timeout": 0},
        {"connection_string": by_key(), "timeout": None},
        {"connection_string": by_key(), "table_name": "ab"},
        {"connection_string": by_key(), "table_name": "a" * 64},
        {"connection_string": by_key(), "table_name": "1abc"},
        {"connection_string": by_key(), "table_name": "a-b"},
        {"connection_string": by_key(), "table_name": "agent_stores"},
        {"connection_string": by_key(), "table_name": "Tables"},
        {"connection_string": by_key(), "table_name": "chät"},
        {"connection_string": by_key(), "table_name": "abc\n"},
        {"connection_string": by_key(), "table_name": ""},
    ],
)
def test_arguments_that_are_not_accepted(arguments: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError) as caught:
        AzureTableChatMessageStore(**arguments)
    assert not any(hidden in str(caught.value) for hidden in HIDDEN)


@pytest.mark.parametrize(
    "arguments",
    [
        {"connection_string": by_key().encode()},
        {"connection_string": by_key(), "table_name": 7},
        {"connection_string": by_key(), "client_options": 7},
        {"endpoint": NOBODY, "credential": KEY},
        {"endpoint": "https://x", "credential": SyncToken()},
        {"table_service_client": object()},
    ],
)
def test_arguments_of_other_types(arguments: dict[str, Any]) -> None:
    with pytest.raises(ArgumentTypeError) as caught:
        AzureTableChatMessageStore(**arguments)
    assert not any(hidden in str(caught.value) for hidden in HIDDEN)


@pytest.mark.parametrize("name", ["abc", "A" * 63, "a1B2", "agentstores"])
def test_table_names(name: str) -> None:
    assert AzureTableMessageLog(by_key(), table_name=name)._server.address.table == name


async def test_ways_of_naming_an_account() -> None:
    kind = AzureTableChatMessageStore
    public = "https://acc.table.core.windows.net/agentstores"
    named = AzureNamedKeyCredential("acc", KEY)
    stores = [
        kind.from_account_and_key("acc", KEY),
        kind.from_account_and_id("acc"),
        kind.from_sas_token("https://acc.table.core.windows.net/", f"?{SAS}"),
        kind.from_endpoint("https://ACC.table.core.windows.net", Token()),
        kind.from_endpoint("https://acc.table.core.windows.net", named),
        kind.from_connection_string(by_key(), table_name="AgentStores"),
        kind(table_service_client=TableServiceClient("https://acc.table.core.windows.net", credential=named)),
    ]
    assert {store.location for store in stores} == {public}
    state = await stores[0].serialize()
    for store in stores:  # who asks, and how, is no matter
        await store.update_from_state(dict(state))
        assert await store.serialize() == state
    for other in (
        kind.from_account_and_key("abc", KEY),
        kind.from_account_and_key("acc", KEY, table_name="abc"),
    ):
        with pytest.raises(StateError, match="location"):
            await other.update_from_state(dict(state))
    servers = [store.log._server for store in stores]  # type: ignore[attr-defined]
    assert servers[0] is servers[5]
    assert len({id(server) for server in servers}) == 6


@pytest.mark.parametrize(
    ("url", "variables", "location"),
    [
        ("azure-tables://acc/chats", {"AZURE_STORAGE_KEY": KEY}, "https://acc.table.core.windows.net/chats"),
        (
            "azure-tables://acc",
            {"AZURE_STORAGE_SAS_TOKEN": SAS},
            "https://acc.table.core.windows.net/agentstores",
        ),
        ("azure-tables://acc/chats", {}, "https://acc.table.core.windows.net/chats"),
        (
            "azure-tables://acc/chats",
            {"AZURE_STORAGE_CONNECTION_STRING": by_key("EndpointSuffix=core.example")},
            "https://acc.table.core.example/chats",
        ),
        (
            "azure-tables:///chats",
            {"AZURE_STORAGE_CONNECTION_STRING": "UseDevelopmentStorage=true"},
            "http://127.0.0.1:10002/devstoreaccount1/chats",
        ),
        (
            "azure-tables://other/chats",
            {"AZURE_STORAGE_CONNECTION_STRING": by_key(), "AZURE_STORAGE_KEY": KEY},
            "https://other.table.core.windows.net/chats",
        ),
    ],
)
async def test_urls(
    url: str, variables: dict[str, str], location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CONNECTION_STRING", "KEY", "SAS_TOKEN"):
        monkeypatch.delenv(f"AZURE_STORAGE_{name}", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert open_log(url).location == location
    async with opened(url) as log:  # as the command line does
        assert log.location == location


@pytest.mark.parametrize(
    "url",
    [
        f"azure-tables://:{KEY}@acc/chats",
        f"azure-tables://acc/chats?{SAS}",
        f"azure-tables://acc/chats/{KEY}",
        "azure-tables://acc/x",
        "azure-tables:///chats",
        f"AccountName=acc;AccountKey={KEY}!",
    ],
)
def test_urls_that_are_not_accepted(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_CONNECTION_STRING", raising=False)
    with pytest.raises(ArgumentError) as caught:
        open_log(url)
    assert not any(hidden in str(caught.value) for hidden in HIDDEN)


@pytest.mark.parametrize(
    "arguments",
    [
        {"connection_string": by_key(f"TableEndpoint={NOBODY}")},
        {"connection_string": f"TableEndpoint={NOBODY};SharedAccessSignature={SAS}"},
        {"endpoint": NOBODY, "account_name": "acc", "account_key": KEY},
        {"endpoint": NOBODY, "sas_token": SAS},
        {"endpoint": NOBODY, "credential": AzureSasCredential(SAS)},
        {"endpoint": "https://127.0.0.1:1/acc", "credential": Token()},
        {"table_service_client": TableServiceClient(f"{NOBODY}?{SAS}")},
    ],
)
async def test_secrets_never_show(arguments: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with AzureTableChatMessageStore(**arguments, tenant="acme", timeout=0.3) as store:
        shown = [
            repr(store),
            repr(store.log),
            store.location,
            repr(vars(store.log)),
            repr(vars(store.log._server)),  # type: ignore[attr-defined]
            json.dumps(await store.serialize()),
        ]
        for work in (
            store.add_messages([ChatMessage("user", "x")]),
            store.list_messages(),
            store.list_threads(),
        ):
            with pytest.raises(StoreUnavailableError, match=r"127\.0\.0\.1:1") as caught:
                await work
            error: BaseException | None = caught.value
            assert isinstance(error, AgentStoresError)
            shown += [str(error), repr(error)]
    if client := arguments.get("table_service_client"):
        await client.close()
    text = "\n".join([*shown, caplog.text])
    assert not any(hidden in text for hidden in HIDDEN)


# Keys


def test_partitions_are_valid_readable_and_unambiguous() -> None:
    assert keys.thread_partition(ThreadKey("acme", "user_123")) == "t.acme~.user_123"
    assert keys.thread_partition(ThreadKey(None, "a/b")) == "t.~.a~2Fb"
    names = [None, *HOSTILE_NAMES, "~", "~.", "a~.b", "~41", "~d", "A~41", "x" * 240, "x" * 241]
    threads = [
        ThreadKey(tenant, thread or "nobody")
        for tenant in names
        for thread in ("b", "~.b", "b~.", ".", *names[1:3])
    ]
    made = [keys.thread_partition(key) for key in dict.fromkeys(threads)]
    assert len(set(made)) == len(made)
    more = [keys.thread_partition(ThreadKey(None, name or "nobody")) for name in names]
    assert len(set(more)) == len(more)
    for key in (*made, *more, *map(keys.index_partition, names)):
        assert len(key) <= 512
        assert not set(key) & set("/\\#?%+'\" \t\n\x00")
        assert key.isascii()
        assert key.isprintable()
    indexes = [keys.index_partition(name) for name in names]
    assert len(set(indexes)) == len(indexes)


def test_rows_of_the_list_sort_as_the_ids_do() -> None:
    names = [
        *HOSTILE_NAMES,
        *(chr(code) for code in range(0x250)),
        "a!",
        "ab",
        "a~",
        "aZ",
        "\ue000",
        "\uffff",
    ]
    short = [name for name in dict.fromkeys(names) if len(keys.sortable(name)) <= 480]
    assert sorted(short, key=keys.index_row) == sorted(short)
    rows = [keys.index_row(name) for name in dict.fromkeys(names)]
    assert len(set(rows)) == len(rows)
    for name, row in zip(dict.fromkeys(names), rows, strict=True):
        assert len(row) <= 512
        assert row.isascii()
        assert not set(row) & set("/\\#?%+'\" ")
        for length in range(min(len(name), 200)):
            begin = keys.index_prefix(name[:length])
            assert begin <= row < keys.after_prefix(begin)
    for prefix in ("a", "é", "\x00", "~"):
        begin = keys.index_prefix(prefix)
        for name in short:
            inside = begin <= keys.index_row(name) < keys.after_prefix(begin)
            assert inside == name.startswith(prefix), (prefix, name)
    assert sorted(["x" * 160 + "a", "x" * 160], key=keys.index_row) == ["x" * 160, "x" * 160 + "a"]
    assert keys.index_row("x" * 3000) != keys.index_row("x" * 2999 + "y")


def test_rows_of_messages_sort_the_newest_first() -> None:
    numbers = [1, 2, 9, 10, 11, 99, 100, 10**6, 2**53 - 1]
    rows = [keys.message_row(number) for number in numbers]
    assert sorted(rows, reverse=True) == rows
    assert [keys.message_number(row) for row in rows] == numbers
    assert keys.HEAD < keys.message_row(1, pinned=True) < rows[-1] < rows[0] < keys.unique_row("")
    part = keys.continuation_row(rows[1], "a_-Z0123", 0)
    assert rows[1] < part < keys.continuation_row(rows[1], "a_-Z0123", 12) < rows[0]
    assert keys.message_number(part) == 2
    assert keys.is_continuation(part)
    assert not keys.is_continuation(rows[0])


def test_times_sort() -> None:
    times = [-5, 0, 7, 10**15, 10**17]
    assert sorted(times, key=keys.timer_time) == times
    key = ThreadKey(None, "t")
    assert keys.timer_row(key, 7) < keys.timer_time(8)
    assert keys.timer_partition(key) in keys.timer_partitions()


# Text


@pytest.mark.parametrize("character", ["x", "é", "語", "😀", "\ud83d"])
def test_text_in_pieces(character: str) -> None:
    width = utf16_units(character)
    for size in (0, 1, UNITS - 1, UNITS, UNITS + 1, 3 * UNITS, 3 * UNITS + 1):
        text = "y" * (size % width) + character * (size // width)
        found = list(pieces(text))
        assert "".join(found) == text
        assert all(utf16_units(piece) <= UNITS for piece in found)
        assert len(found) <= max(1, -(-size // (UNITS - 1)))
        properties = split_text("body", text)
        assert list(properties)[:2] == ["body", "body1"][: len(properties)]
        assert join_text("body", {**properties, "other": 1, f"body{len(properties)}": None}) == text


def test_heads_are_small_and_complete() -> None:
    head = ThreadHead(last_position=5, open_calls={"\ud83d": 3, "c": 4}, dead=[(1, 2)], recent=["a"])
    entity = head_entity(ThreadKey("\x00", "\ud83d"), head)
    assert read_head(entity) == head
    assert entity["version"] == LAYOUT
    assert len(str(entity["head"])) < 120
    big = ThreadHead(open_calls={f"call {n} {'é' * 40}": n for n in range(2000)})
    entity = head_entity(ThreadKey(None, "t"), big)
    assert "head1" in entity
    assert read_head(entity) == big


def test_ranges() -> None:
    ranges: list[tuple[int, int]] = []
    for first, last in ((5, 6), (1, 1), (2, 3), (4, 4), (10, 12), (11, 11)):
        ranges = add_range(ranges, first, last)
    assert ranges == [(1, 6), (10, 12)]


def test_without_the_packages_installed() -> None:
    code = (
        "import sys; sys.modules[sys.argv[1]] = None\n"
        "from agent_stores import AzureTableChatMessageStore, open_log\n"
        "text = 'UseDevelopmentStorage=true'\n"
        "for make in (lambda: AzureTableChatMessageStore(text), lambda: open_log(text)):\n"
        "    try: make()\n"
        "    except ImportError as error: print(type(error).__name__, 'agent-stores[azure]' in str(error))\n"
    )
    for module in ("azure.data.tables", "aiohttp"):
        result = subprocess.run([sys.executable, "-c", code, module], capture_output=True, text=True)
        assert result.stdout.splitlines() == ["MissingDependencyError True"] * 2, result.stderr
    code = (
        "import sys; sys.modules['azure.identity'] = sys.modules['azure.identity.aio'] = None\n"
        "from agent_stores import AzureTableChatMessageStore\n"
        "try: AzureTableChatMessageStore.from_account_and_id('acc')\n"
        "except ImportError as error: print(type(error).__name__, 'azure-identity' in str(error))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.splitlines() == ["MissingDependencyError True"], result.stderr


def test_errors_can_be_pickled() -> None:
    with pytest.raises(ArgumentError) as caught:
        AzureTableMessageLog()
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
