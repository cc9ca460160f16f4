"""The DynamoDB store on moto's server: what requests cost, limits, faults, and ways of connecting."""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import threading
import time
import uuid
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiobotocore.session import get_session

from agent_stores import ChatMessage, DynamoDBChatMessageStore, open_log
from agent_stores.backend import Row, ThreadKey, TimeToLive
from agent_stores.backends.tables import layout
from agent_stores.backends.tables.dynamodb import DynamoDBTable, parse_config
from agent_stores.dynamodb import DynamoDBMessageLog
from agent_stores.errors import (
    ArgumentError,
    ArgumentTypeError,
    OutcomeUnknownError,
    StateError,
    StoreRejectedError,
    StoreUnavailableError,
)
from tests.servers.dynamodb import DynamoDBServer
from tests.servers.http_proxy import HttpProxy

pytestmark = pytest.mark.anyio

REGION = DynamoDBServer.region
BODY = b'{"role":"user","contents":[{"type":"text","text":"hello"}]}'


@pytest.fixture
def proxy(dynamodb_server: DynamoDBServer) -> Iterator[HttpProxy]:
    with HttpProxy(dynamodb_server.port) as started:
        yield started


@pytest.fixture
def table() -> str:
    return f"t-{uuid.uuid4().hex[:20]}"


@pytest.fixture
async def make_log(proxy: HttpProxy, table: str) -> AsyncIterator[Callable[..., DynamoDBMessageLog]]:
    """Logs through the proxy, each with a client and a memory of its own."""
    async with AsyncExitStack() as stack:
        made = 0

        def make(**options: Any) -> DynamoDBMessageLog:
            nonlocal made
            made += 1
            options["timeout"] = options.get("timeout", 10) + made / 10_000  # tells connections apart
            url = f"http://127.0.0.1:{proxy.port}"
            log = DynamoDBMessageLog(table, region_name=REGION, endpoint_url=url, **options)
            stack.push_async_callback(log.aclose)
            return log

        yield make


@pytest.fixture
async def make_store(proxy: HttpProxy, table: str) -> AsyncIterator[Callable[..., DynamoDBChatMessageStore]]:
    async with AsyncExitStack() as stack:

        def make(**options: Any) -> DynamoDBChatMessageStore:
            url = f"http://127.0.0.1:{proxy.port}"
            store: DynamoDBChatMessageStore = DynamoDBChatMessageStore(
                table, region_name=REGION, endpoint_url=url, **options
            )
            stack.push_async_callback(store.aclose)
            return store

        yield make


def user(text: str, **fields: Any) -> ChatMessage:
    return ChatMessage("user", text, **fields)


def row(name: str, body: bytes = BODY, **fields: Any) -> Row:
    return Row(name, body, bytes=len(body), tokens=3, created_us=1, **fields)


async def texts(store: DynamoDBChatMessageStore) -> list[str]:
    return [item.message.text async for item in store.iter_messages()]


async def items_of(log: DynamoDBMessageLog) -> list[dict[str, Any]]:
    table: Any = log.backend.table  # type: ignore[attr-defined]
    answer = await table.call("scan", {"TableName": table.config.table})
    return list(answer["Items"])


async def test_the_table_that_is_made(make_log: Any, table: str) -> None:
    log = make_log()
    assert await log.latest(ThreadKey(None, "t")) == []
    assert (await log.list_threads(None)).threads == []
    assert await log.purge_expired() == 0
    sdk = log.backend.table
    assert await sdk.call("describe_table", {"TableName": table}) == {}  # reading makes none
    await log.append(ThreadKey(None, "t"), [row("1")], ttl=TimeToLive(60.0))
    made = (await sdk.call("describe_table", {"TableName": table}))["Table"]
    assert made["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    answer = await sdk.call("describe_time_to_live", {"TableName": table})
    assert answer["TimeToLiveDescription"] == {"TimeToLiveStatus": "ENABLED", "AttributeName": "expires"}
    (head,) = [item for item in await items_of(log) if item["sk"]["S"] == layout.HEAD]
    assert 0 < int(head["expires"]["N"]) - time.time() <= 61


# Limits


@pytest.mark.parametrize("size", [DynamoDBTable.limits.item_bytes + over for over in (0, 1)])
async def test_bodies_at_the_size_of_an_item(make_log: Any, size: int) -> None:
    log, key = make_log(), ThreadKey(None, "t")
    body = ("é" * (size // 2) + "x" * (size % 2)).encode()
    await log.append(key, [row("a", body), row("b")])
    assert [each.body for each in await log.read(key)] == [body, BODY]
    for item in await items_of(log):
        assert sum(len(text.encode()) for value in item.values() for text in value.values()) < 400 * 1024


async def test_large_calls_and_messages(make_log: Any, proxy: HttpProxy) -> None:
    log, key = make_log(timeout=60), ThreadKey(None, "t")
    body = b"x" * 300_000
    await log.append(key, [row(f"{n}", body) for n in range(30)])
    await log.append(key, [row("large", b"y" * 5_000_000)])
    assert max(request.rows for request in proxy.requests) <= 100
    assert max(request.sent for request in proxy.requests) <= 4_000_000
    assert [len(each.body) for each in await log.read(key)] == [300_000] * 30 + [5_000_000]
    assert await log.delete(key, ["large"]) == 1
    assert not [item for item in await items_of(log) if item["sk"]["S"][0] == "x" and "body" in item]


# Faults


def problem(code: str, **fields: Any) -> str:
    return json.dumps({"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": f"{code}.", **fields})


CANCELLED = "Transaction cancelled, please refer cancellation reasons for specific reasons"


@pytest.mark.parametrize(
    "body",
    [
        problem("ThrottlingException"),
        problem("ProvisionedThroughputExceededException"),
        problem("RequestLimitExceeded"),
        problem("TransactionConflictException"),
        problem("TransactionCanceledException", CancellationReasons=[{"Code": "TransactionConflict"}]),
        problem("TransactionCanceledException", CancellationReasons=[{"Code": "ThrottlingError"}]),
    ],
)
async def test_a_busy_service_is_asked_again(make_store: Any, proxy: HttpProxy, body: str) -> None:
    store = make_store()
    await store.add_messages([user("1")])
    proxy.answer(400, b"needle", times=2, body=body)
    await store.add_messages([user("needle")])
    proxy.answer(400, b"KeyConditionExpression", times=2, body=problem("ThrottlingException"))
    assert [message.text for message in await store.list_messages()] == ["1", "needle"]
    proxy.answer(400, b"lost", times=100, body=body)
    with pytest.raises(StoreUnavailableError, match="nothing was written"):
        await store.add_messages([user("lost")])
    proxy.heal()
    assert await texts(store) == ["1", "needle"]


@pytest.mark.parametrize("status", [500, 503])
async def test_errors_of_the_service_pass(make_store: Any, proxy: HttpProxy, status: int) -> None:
    store = make_store()
    for n in range(3):
        proxy.answer(status, f"needle {n}".encode(), body=problem("InternalServerError"))
        await store.add_messages([user(f"needle {n}"), user("more")])
    assert len(await texts(store)) == 6


async def test_a_lost_answer_is_asked_for_again(make_store: Any, proxy: HttpProxy) -> None:
    store = make_store(max_messages=100)
    for n in range(4):
        proxy.lose_answer(f"needle {n}".encode())
        await store.add_messages([user(f"needle {n}"), user(f"more {n}")])
    assert await texts(store) == [text for n in range(4) for text in (f"needle {n}", f"more {n}")]
    works: list[tuple[Callable[[], Awaitable[Any]], Any]] = [
        (lambda: store.pop_last(), None),
        (lambda: store.delete("gone"), 0),
        (lambda: store.set_ttl(60), True),
        (lambda: store.clear(), 7),
        (lambda: store.delete_thread(), True),
    ]
    for work, expected in works:
        proxy.lose_answer(b"TransactItems")
        proxy.lose_answer(b"ConditionExpression")
        result = await work()
        assert expected is None or result == expected
        proxy.heal()
    assert await texts(store) == []


async def test_a_table_that_seems_missing_after_a_lost_answer(make_store: Any, proxy: HttpProxy) -> None:
    store = make_store()
    await store.add_messages([user("1")])
    proxy.lose_answer(b"needle")
    proxy.answer(400, b"needle", times=100, body=problem("ResourceNotFoundException"))
    proxy.answer(400, b"BillingMode", times=100, body=problem("AccessDeniedException"))
    await store.add_messages([user("needle")])
    proxy.heal()
    assert await texts(store) == ["1", "needle"]


async def test_an_answer_that_stays_lost(make_store: Any, proxy: HttpProxy) -> None:
    store = make_store()
    await store.add_messages([user("1")])
    store.log.backend.table.attempts.timeout = 1  # of what follows: the emulator may be slow to make a table
    messages = [user("needle")]
    proxy.lose_answer(b"needle", times=100)
    proxy.answer(503, b"ConsistentRead", times=100, body=problem("InternalServerError"))
    with pytest.raises(OutcomeUnknownError, match="may or may not be stored"):
        await store.add_messages(messages)
    proxy.heal()
    store.log.backend.table.attempts.timeout = 10
    await store.add_messages(messages)
    assert await texts(store) == ["1", "needle"]


async def test_rejections(make_store: Any, proxy: HttpProxy) -> None:
    store = make_store()
    await store.add_messages([user("1")])
    for code in ("AccessDeniedException", "UnrecognizedClientException", "ExpiredTokenException"):
        proxy.answer(400, b"TransactItems", body=problem(code))
        with pytest.raises(StoreRejectedError, match=rf"{code}.*nothing was written"):
            await store.add_messages([user("2")])
    assert await texts(store) == ["1"]


async def test_without_credentials(table: str, proxy: HttpProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import asyncio, sys\n"
        "from agent_stores import ChatMessage, DynamoDBChatMessageStore\n"
        "async def main():\n"
        "    name, url = sys.argv[1:]\n"
        "    store = DynamoDBChatMessageStore(name, region_name='eu-central-1', endpoint_url=url)\n"
        "    try: await store.add_messages([ChatMessage('user', 'x')])\n"
        "    except Exception as error: print(type(error).__name__, error)\n"
        "    await store.aclose()\n"
        "asyncio.run(main())\n"
    )
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    url = f"http://127.0.0.1:{proxy.port}"
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", code, table, url], capture_output=True, text=True
    )
    assert done.stdout.startswith("StoreRejectedError"), done.stdout + done.stderr


async def test_no_service(free_port: int) -> None:
    url = f"http://127.0.0.1:{free_port}"
    store: DynamoDBChatMessageStore = DynamoDBChatMessageStore(
        region_name=REGION, endpoint_url=url, timeout=2
    )
    with pytest.raises(StoreUnavailableError, match=f"127.0.0.1:{free_port}"):
        await store.add_messages([user("1")])
    await store.aclose()


# Several writers


async def test_eight_writers_on_one_thread(make_log: Any) -> None:
    key = ThreadKey(None, "t")
    logs = [make_log(timeout=60) for _ in range(8)]

    async def write(n: int) -> None:
        for turn in range(5):
            await logs[n].append(key, [row(f"{n}.{turn}.{half}") for half in "ab"], max_messages=1000)

    await asyncio.gather(*(write(n) for n in range(8)))
    found = [each.message_id for each in await logs[0].read(key)]
    assert len(found) == 80
    assert all(a[:-1] == b[:-1] for a, b in zip(found[::2], found[1::2], strict=True))


# Ways of connecting


async def test_ways_of_connecting(
    dynamodb_server: DynamoDBServer, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = dynamodb_server.endpoint
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    async with get_session().create_client("dynamodb", region_name=REGION, endpoint_url=url) as client:
        kind = DynamoDBChatMessageStore
        options: dict[str, Any] = {"table_name": table, "thread_id": "t"}
        stores = [
            kind(region_name=REGION, endpoint_url=url, **options),
            kind(endpoint_url=f"{url}/", **options),
            kind(client=client, **options),
        ]
        for n, store in enumerate(stores):
            await store.add_messages([user(str(n))])
            assert await texts(store) == [str(m) for m in range(n + 1)]
            state = await store.serialize()
            assert state["location"] == f"{url}/{table}"
            shown = json.dumps(state) + repr(store) + repr(store.log) + repr(vars(store.log))
            assert "s3cret" not in shown
            assert "planted-id" not in shown
            await store.aclose()
        assert (await client.list_tables())["TableNames"]  # the borrowed client is open still
        other = kind(endpoint_url=url, table_name="another", thread_id="t")
        with pytest.raises(StateError, match="location"):
            await other.update_from_state(state)
        await other.aclose()


def test_urls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    for url, location in (
        ("dynamodb://eu-central-1/chats", "dynamodb://eu-central-1/chats"),
        ("dynamodb://eu-central-1", "dynamodb://eu-central-1/agentstores"),
    ):
        assert open_log(url).location == location
    assert open_log("dynamodb://eu-central-1", table_name="other").location == "dynamodb://eu-central-1/other"
    for url in (
        "dynamodb://key:planted@eu-central-1/chats",
        "dynamodb://eu-central-1/chats?key=planted",
        "dynamodb://eu-central-1/chats/planted",
        "dynamodb://EU_1/chats",
    ):
        with pytest.raises(ArgumentError) as caught:
            open_log(url)
        assert "planted" not in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [
        {"table_name": "a"},
        {"table_name": "a b"},
        {"region_name": "eu central"},
        {"endpoint_url": "ftp://x"},
        {"endpoint_url": "http://key:planted@x"},
        {"timeout": 0},
        {"timeout": None},
    ],
)
def test_arguments_that_are_not_accepted(arguments: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError) as caught:
        DynamoDBChatMessageStore(**{"region_name": REGION, **arguments})
    assert "planted" not in str(caught.value)


@pytest.mark.parametrize("arguments", [{"table_name": 7}, {"region_name": 7}, {"client": object()}])
def test_arguments_of_other_types(arguments: dict[str, Any]) -> None:
    with pytest.raises(ArgumentTypeError):
        DynamoDBChatMessageStore(**arguments)


def test_a_client_and_an_endpoint() -> None:
    with pytest.raises(ArgumentError, match="client must not be given together"):
        parse_config("abc", REGION, None, object())


def test_without_the_package() -> None:
    code = (
        "import sys; sys.modules['aiobotocore.client'] = None\n"
        "from agent_stores import DynamoDBChatMessageStore, open_log\n"
        "for make in (DynamoDBChatMessageStore, lambda: open_log('dynamodb://eu-central-1/abc')):\n"
        "    try: make()\n"
        "    except ImportError as error: print(type(error).__name__, 'stores[dynamodb]' in str(error))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["MissingDependencyError True"] * 2, done.stderr


async def test_a_cancelled_first_call_makes_no_client(table: str) -> None:
    config, begun = parse_config(table, REGION, "http://127.0.0.1:9", None), threading.Event()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    busy = loop.run_in_executor(None, begun.wait)
    async with AsyncExitStack() as stack:
        connecting = asyncio.ensure_future(config.connect(stack, 10))
        await asyncio.sleep(0)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            begun.set()
            await busy
            del connecting
            gc.collect()
    assert [str(each.message) for each in caught] == []
