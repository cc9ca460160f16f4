"""The Azure Tables store's connection arguments, and that no secret ever shows."""

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
from agent_stores.backends.tables.azure import parse_config
from agent_stores.cli.store_access import opened
from agent_stores.errors import (
    AgentStoresError,
    ArgumentError,
    ArgumentTypeError,
    StateError,
    StoreUnavailableError,
)

pytestmark = pytest.mark.anyio

KEY = base64.b64encode(b"planted-s3cret").decode()
SAS = "sv=2024-01-01&ss=t&srt=sco&sp=rwdlacu&se=2030-01-01T00:00:00Z&sig=planted%2Fs3cret%3D"
UNUSED = "http://127.0.0.1:1/acc"
HIDDEN = (KEY, KEY.rstrip("="), "planted", "s3cret")


NOTHING: dict[str, Any] = dict.fromkeys(
    ("endpoint", "account_name", "account_key", "sas_token", "credential", "table_service_client")
)


def _table(log: Any) -> Any:
    return log.backend.table


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
        (f"TableEndpoint={UNUSED};SharedAccessSignature={SAS}", UNUSED),
        (f"BlobEndpoint=https://x;TableEndpoint={UNUSED};SharedAccessSignature={SAS}", UNUSED),
    ],
)
def test_connection_strings(text: str, endpoint: str) -> None:
    log = AzureTableMessageLog(text, table_name="Chats")
    assert log.location == f"{endpoint}/chats"
    assert open_log(text).location == f"{endpoint}/agentstores"
    assert open_log(text, table_name="Chats").location == f"{endpoint}/chats"
    config = parse_config(connection_string=text, table_name="Chats", **NOTHING)
    shown = repr(log) + repr(vars(log)) + repr(vars(_table(log))) + repr(config) + repr(config.identity)
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
        f"TableEndpoint={UNUSED}?{SAS};AccountName=acc;AccountKey={KEY}",
        f"TableEndpoint={UNUSED};SharedAccessSignature=planted",
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
        {"endpoint": UNUSED},
        {"endpoint": f"{UNUSED}?{SAS}", "sas_token": SAS},
        {"endpoint": "acc.table.core.windows.net", "sas_token": SAS},
        {"endpoint": UNUSED, "sas_token": SAS, "account_key": KEY, "account_name": "acc"},
        {"endpoint": UNUSED, "account_key": KEY},
        {"endpoint": UNUSED, "credential": Token()},
        {"endpoint": UNUSED, "account_name": "acc"},
        {"account_name": "acc/..", "account_key": KEY},
        {"connection_string": by_key(), "endpoint": UNUSED},
        {"connection_string": by_key(), "account_key": KEY},
        {
            "table_service_client": TableServiceClient(UNUSED, credential=AzureSasCredential(SAS)),
            "sas_token": SAS,
        },
        {
            "table_service_client": TableServiceClient(UNUSED, credential=AzureSasCredential(SAS)),
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
        {"endpoint": UNUSED, "credential": KEY},
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
    assert parse_config(connection_string=by_key(), table_name=name, **NOTHING).table == name


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
    servers = [_table(store.log)._server for store in stores]
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
        {"connection_string": by_key(f"TableEndpoint={UNUSED}")},
        {"connection_string": f"TableEndpoint={UNUSED};SharedAccessSignature={SAS}"},
        {"endpoint": UNUSED, "account_name": "acc", "account_key": KEY},
        {"endpoint": UNUSED, "sas_token": SAS},
        {"endpoint": UNUSED, "credential": AzureSasCredential(SAS)},
        {"endpoint": "https://127.0.0.1:1/acc", "credential": Token()},
        {"table_service_client": TableServiceClient(f"{UNUSED}?{SAS}")},
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
            repr(vars(_table(store.log))),
            repr(vars(_table(store.log)._server)),
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


# Packages and errors


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
