"""The servers that the other tests run on: they start, break as they are told, and leave nothing behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil  # type: ignore[import-untyped, unused-ignore]
import psycopg
import pymysql  # type: ignore[import-untyped, unused-ignore]
import pytest
import redis
from redis.backoff import NoBackoff
from redis.exceptions import MovedError
from redis.retry import Retry
from redis.sentinel import Sentinel

from tests.servers import azurite, mariadb, postgres, process
from tests.servers import redis as redis_servers
from tests.servers.http_proxy import HttpProxy
from tests.servers.ports import LOOPBACK, PortLease
from tests.servers.process import ServerError, ServerProcess, wait_for
from tests.servers.proxy import FaultProxy
from tests.servers.reaper import is_gone
from tests.servers.redis import RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KINDS = ["postgres", "mariadb", "redis62", "valkey9"]


def make(kind: str) -> ServerProcess:
    """A server of a kind that keeps its data over a crash, or a skip where it cannot run."""
    server: ServerProcess
    if kind == "postgres":
        reason, server = postgres.available(), postgres.PostgresServer()
    elif kind == "mariadb":
        reason, server = mariadb.available(), mariadb.MariaDBServer()
    else:
        flavour: redis_servers.Flavour = "redis62" if kind == "redis62" else "valkey9"
        reason, server = redis_servers.available(flavour), RedisServer(flavour, aof=True)
    if reason is not None:
        pytest.skip(reason)
    return server


def connect(server: ServerProcess) -> Any:
    """A connection of the server's usual client, through which `write` and `read` work."""
    if isinstance(server, postgres.PostgresServer):
        return psycopg.connect(server.url, connect_timeout=60, autocommit=True)
    if isinstance(server, mariadb.MariaDBServer):
        return server.connect()
    assert isinstance(server, RedisServer)
    return server.client()


def write(client: Any, value: int) -> None:
    """Store a value."""
    if isinstance(client, redis.Redis):
        client.rpush("kept", value)
        return
    with client.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS kept (value INT)")
        cursor.execute(f"INSERT INTO kept VALUES ({value})")


def read(client: Any) -> list[int]:
    """The stored values."""
    if isinstance(client, redis.Redis):
        return [int(value) for value in client.lrange("kept", 0, -1)]
    with client.cursor() as cursor:
        cursor.execute("SELECT value FROM kept ORDER BY value")
        return [row[0] for row in cursor.fetchall()]


@pytest.mark.parametrize("kind", KINDS)
def test_life_of_a_server(kind: str) -> None:
    with make(kind) as server:
        port, folder, seen = server.port, server.folder, server.processes()
        assert seen
        assert folder.is_dir()
        with contextlib.closing(connect(server)) as client:
            write(client, 1)

        server.kill()
        assert server.pid is None
        assert all(map(is_gone, seen))
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((LOOPBACK, port), timeout=60)
        server.restart()
        assert server.port == port
        with contextlib.closing(connect(server)) as client:
            assert read(client) == [1]
            write(client, 2)

        server.restart()
        with contextlib.closing(connect(server)) as client:
            assert read(client) == [1, 2]
        seen += server.processes()
    assert all(map(is_gone, seen))
    assert not folder.exists()
    server.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_paused_server_hangs(kind: str) -> None:
    with make(kind) as server, contextlib.closing(connect(server)) as client:
        write(client, 1)
        server.pause()
        answers: list[list[int]] = []
        reader = threading.Thread(target=lambda: answers.append(read(client)))
        reader.start()
        reader.join(0.5)
        assert answers == []
        socket.create_connection((LOOPBACK, server.port), timeout=60).close()
        server.resume()
        reader.join(10)
        assert answers == [[1]]
        server.pause()


@pytest.mark.parametrize("kind", KINDS)
def test_a_password_is_asked_for(kind: str) -> None:
    with make(kind) as server:
        assert isinstance(server, (postgres.PostgresServer, mariadb.MariaDBServer, RedisServer))
        assert server.password.startswith("planted-")
        assert f":{server.password}@127.0.0.1:{server.port}/" in server.url
        right, server.password = server.password, "wrong"
        with pytest.raises((psycopg.OperationalError, pymysql.OperationalError, redis.AuthenticationError)):
            read(connect(server))
        server.password = right


def test_a_start_that_fails_shows_the_log_and_leaves_nothing() -> None:
    server = RedisServer(args=["--no-such-option", "1"])
    with pytest.raises(ServerError, match="no-such-option"):
        server.start()
    with pytest.raises(ServerError, match="not started"):
        _ = server.folder


@pytest.mark.parametrize("kind", KINDS)
def test_a_lost_race_for_the_port_is_run_again(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    server = make(kind)
    with FaultProxy(target_port=1) as rival:
        rival.drop_all(refuse=True)
        leases: list[PortLease] = []

        def lease(*offsets: int) -> PortLease:
            leases.append(PortLease(*offsets))
            if len(leases) == 1:
                leases[0].port = rival.port
            return leases[-1]

        monkeypatch.setattr(process, "PortLease", lease)
        with server:
            assert len(leases) == 2
            assert server.port == leases[1].port


def test_a_leased_port_is_given_to_no_other_process() -> None:
    lease = PortLease(1)
    for port in (lease.port, lease.port + 1):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((LOOPBACK, port), timeout=60)
    lease.release()
    lease.release()


STARTER = """
import json, os, signal, sys, time
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer

signal.signal(signal.SIGINT, signal.default_int_handler)  # which is ignored in the background of a shell
servers = [PostgresServer().start(), RedisServer().start(), RedisServer("redis62").start()]
pids = [process.pid for server in servers for process in server.processes()]
print(json.dumps([pids, [str(server.folder) for server in servers]]), flush=True)
if sys.argv[1] == "fork":
    if os.fork() == 0:
        sys.exit()
    os.wait()
    servers[1].command("PING")
    os._exit(0)
time.sleep(60)
"""


@pytest.mark.skipif(postgres.available() is not None, reason="PostgreSQL cannot run here")
@pytest.mark.parametrize("end", ["fork", "SIGINT", "SIGKILL"])
def test_nothing_outlives_the_run(end: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STARTER, end],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    ) as starter:
        assert starter.stdout is not None
        pids, folders = json.loads(starter.stdout.readline())
        if end.startswith("SIG"):
            starter.send_signal(signal.Signals[end])

        def all_gone() -> bool:
            processes = []
            for pid in pids:
                with contextlib.suppress(psutil.NoSuchProcess):
                    processes.append(psutil.Process(pid))
            return all(map(is_gone, processes)) and not any(Path(folder).exists() for folder in folders)

        assert len(pids) > 5
        assert wait_for(all_gone, timeout=60, what="servers and folders are gone")
        starter.wait(timeout=30)
        assert end != "fork" or starter.returncode == 0


def test_shared_servers(
    postgres_server: postgres.PostgresServer, redis62_server: RedisServer, valkey_server: RedisServer
) -> None:
    with psycopg.connect(postgres_server.url) as connection:
        row = connection.execute(
            "SELECT current_database(), current_setting('server_version_num')"
        ).fetchone()
        assert row is not None
        assert row[0] == "agent_stores"
        assert int(row[1]) >= 160000
    with psycopg.connect(postgres_server.create_database('odd "name"')) as connection:
        assert connection.info.dbname == 'odd "name"'
        connection.execute("CREATE TABLE t (x TEXT)")
    assert redis62_server.info("server")["redis_version"].startswith("6.2.")
    assert valkey_server.info("server")["valkey_version"].startswith("9.")


def test_shared_mariadb(mariadb_server: mariadb.MariaDBServer) -> None:
    assert mariadb_server.create_database("another").endswith("/another")
    with mariadb_server.connect("another") as connection, connection.cursor() as cursor:
        cursor.execute("SELECT DATABASE(), VERSION(), @@innodb_flush_log_at_trx_commit")
        row = cursor.fetchone()
        assert row is not None
        assert (row[0], "MariaDB" in row[1], row[2]) == ("another", True, 2)
    for user in ("root", ""):
        with pytest.raises(pymysql.OperationalError):
            pymysql.connect(host=LOOPBACK, port=mariadb_server.port, user=user)


def test_azurite() -> None:
    if (reason := azurite.available()) is not None:
        pytest.skip(reason)
    from azure.core.exceptions import HttpResponseError
    from azure.data.tables import TableServiceClient

    with azurite.AzuriteServer() as server, HttpProxy(server.port) as proxy:
        for text in (server.connection_string, server.connection_string_at(proxy.port)):
            with TableServiceClient.from_connection_string(text) as client:
                client.create_table_if_not_exists("kept").upsert_entity({"PartitionKey": "a", "RowKey": "b"})
                assert [table.name for table in client.list_tables()] == ["kept"]
        assert proxy.counts() == {"new table": 1, "row": 1, "query": 1}
        wrong = server.connection_string.replace(server.key, "bm90aGluZw==")
        with (
            TableServiceClient.from_connection_string(wrong, retry_total=0) as client,
            pytest.raises(HttpResponseError, match=r"403|Authorization"),
        ):
            list(client.list_tables())
        server.kill()
        assert server.processes() == []
        server.restart()
        with TableServiceClient.from_connection_string(server.connection_string) as client:
            assert list(client.list_tables()) == []  # it forgets all
        folder = server.folder
    assert not folder.exists()


def test_cluster(redis_cluster: redis_servers.RedisCluster) -> None:
    assert len(redis_cluster.urls) == 3
    assert {redis_cluster.owner(str(number)) for number in range(50)} == set(redis_cluster.nodes)
    with contextlib.closing(redis.RedisCluster.from_url(redis_cluster.url)) as client:
        for number in range(50):
            client.set(str(number), number)
    for number in range(50):
        assert redis_cluster.owner(str(number)).command("GET", str(number)) == str(number)
    with pytest.raises(MovedError):
        [node.command("GET", "1") for node in redis_cluster.nodes]

    redis_cluster.owner("1").kill()
    assert redis_cluster.owner("1").pid is None
    redis_cluster.heal()
    assert redis_cluster.owner("1").command("SET", "1", "again") in ("OK", True)


def test_sentinel(redis_sentinel: redis_servers.RedisSentinel) -> None:
    assert_follows(redis_sentinel)
    old = redis_sentinel.primary
    assert redis_sentinel.failover() is not old
    assert redis_sentinel.replica is old
    assert_follows(redis_sentinel)

    assert redis_sentinel.kill_primary() is old
    assert redis_sentinel.replica.pid is None
    redis_sentinel.heal()
    assert redis_sentinel.primary is old
    assert_follows(redis_sentinel)


@pytest.mark.skipif(redis_servers.available("redis62") is not None, reason="Redis 6.2 cannot run here")
def test_three_sentinels_of_redis62() -> None:
    with redis_servers.start_sentinel(3, flavour="redis62") as group:
        assert len(group.sentinels) == 3
        old = group.primary
        group.watchers[0].kill()
        assert group.kill_primary() is not old
        group.heal()
        assert_follows(group)
    assert all(server.pid is None for server in (*group.servers, *group.watchers))


def assert_follows(group: redis_servers.RedisSentinel) -> None:
    """What a client writes through the sentinels reaches the replica."""
    make_client: Any = Sentinel
    client = make_client(group.sentinels, password=group.password, decode_responses=True)
    primary, replica = client.master_for(group.service_name), client.slave_for(group.service_name)
    with contextlib.closing(primary), contextlib.closing(replica):
        count = primary.incr("count")
        wait_for(lambda: replica.get("count") == str(count), timeout=60, what="the replica has the value")
    for sentinel in client.sentinels:
        sentinel.close()


# The proxy


class Echo:
    """A server that answers each line with itself, behind a proxy."""

    def __init__(self, listener: socket.socket, proxy: FaultProxy) -> None:
        self.proxy = proxy
        self.served: list[bytes] = []
        self._listener = listener
        self._clients = contextlib.ExitStack()

    def dial(self) -> socket.socket:
        """A new connection to the proxy, closed in the end."""
        return self._clients.enter_context(socket.create_connection((LOOPBACK, self.proxy.port), timeout=60))

    def close(self) -> None:
        """Close the clients' connections."""
        self._clients.close()

    def accept(self) -> None:
        """Serve until the listener is shut down."""
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=[connection], daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection, connection.makefile("rb") as lines:
            for line in lines:
                self.served.append(line)
                connection.sendall(line)


@pytest.fixture
def echo() -> Iterator[Echo]:
    """A server behind a proxy."""
    with (
        socket.create_server((LOOPBACK, 0)) as listener,
        FaultProxy(listener.getsockname()[1]) as proxy,
        contextlib.closing(Echo(listener, proxy)) as server,
    ):
        acceptor = threading.Thread(target=server.accept)
        acceptor.start()
        yield server
        listener.shutdown(socket.SHUT_RDWR)
        acceptor.join()


def ask(connection: socket.socket, line: bytes) -> bytes:
    """Send a line and return the answer, empty when the connection was cut."""
    with contextlib.suppress(ConnectionError):
        connection.sendall(line)
        return connection.recv(65536)
    return b""


def test_proxy_passes_on_and_counts(echo: Echo) -> None:
    proxy, one, two = echo.proxy, echo.dial(), echo.dial()
    assert ask(one, b"1\n") == b"1\n"
    assert ask(two, b"two\n") == b"two\n"
    assert (proxy.connections, proxy.open_connections, proxy.cuts) == (2, 2, 0)
    assert (proxy.client_bytes, proxy.server_bytes) == (6, 6)
    big = b"x" * 5_000_000 + b"\n"
    sender = threading.Thread(target=one.sendall, args=[big])
    sender.start()
    with one.makefile("rb") as lines:
        assert lines.readline() == big
    sender.join()
    one.close()
    two.shutdown(socket.SHUT_WR)
    assert two.recv(1) == b""
    wait_for(lambda: proxy.open_connections == 0, timeout=60, what="the proxy let go")


def test_cut_after_client_bytes(echo: Echo) -> None:
    proxy, one, two = echo.proxy, echo.dial(), echo.dial()
    assert ask(one, b"before\n") == b"before\n"
    proxy.cut_after_client_bytes(9)
    assert ask(one, b"1234\n") == b"1234\n"
    assert ask(one, b"678\n0\n") in (b"678\n", b"")
    assert one.recv(1) == b""
    assert proxy.cuts == 1
    assert proxy.client_bytes == 7 + 9
    assert ask(two, b"a long line, and the mode is over\n") != b""
    assert b"0\n" not in echo.served


def test_cut_before_request(echo: Echo) -> None:
    proxy, one, two = echo.proxy, echo.dial(), echo.dial()
    proxy.cut_before_request(b"INSERT")
    assert ask(one, b"SELECT\n") == b"SELECT\n"
    assert ask(one, b"INSERT 1\n") == b""
    assert proxy.cuts == 1
    assert ask(two, b"INSERT 1\n") == b"INSERT 1\n"
    assert echo.served == [b"SELECT\n", b"INSERT 1\n"]


def test_cut_before_reply(echo: Echo) -> None:
    proxy, one, two = echo.proxy, echo.dial(), echo.dial()
    proxy.cut_before_reply(b"INSERT")
    assert ask(one, b"SELECT\n") == b"SELECT\n"
    assert ask(one, b"INSERT 1\nAND MORE\n") == b""
    assert proxy.cuts == 1
    assert ask(two, b"INSERT 2\n") == b"INSERT 2\n"
    assert echo.served == [b"SELECT\n", b"INSERT 1\n", b"AND MORE\n", b"INSERT 2\n"]


def test_a_match_may_lie_across_packets(echo: Echo) -> None:
    proxy = echo.proxy
    for cut in (proxy.cut_before_request, proxy.cut_before_reply):
        connection = echo.dial()
        cut(b"needle")
        for part in (b"one nee", b"d", b"l"):
            passed = proxy.client_bytes
            connection.sendall(part)
            wait_for(lambda: proxy.client_bytes == passed + len(part), timeout=60, what="passed on")  # noqa: B023
        assert ask(connection, b"e two\n") == b""
    assert proxy.cuts == 2
    assert echo.served == [b"one needl", b"one needle two\n"]


def test_modes_can_work_more_than_once(echo: Echo) -> None:
    proxy = echo.proxy
    proxy.cut_before_request(b"x", times=2)
    assert [ask(echo.dial(), b"x\n") for _ in range(3)] == [b"", b"", b"x\n"]
    proxy.cut_before_reply(b"x", times=None)
    assert [ask(echo.dial(), b"x\n") for _ in range(3)] == [b"", b"", b""]
    proxy.heal()
    assert ask(echo.dial(), b"x\n") == b"x\n"
    assert proxy.cuts == 5


def test_drop_all(echo: Echo) -> None:
    proxy, one, two = echo.proxy, echo.dial(), echo.dial()
    assert ask(one, b"1\n") + ask(two, b"2\n") == b"1\n2\n"
    proxy.drop_all()
    assert ask(one, b"1\n") + ask(two, b"2\n") == b""
    assert ask(echo.dial(), b"3\n") == b"3\n"
    assert proxy.cuts == 2
    proxy.drop_all(refuse=True)
    assert ask(echo.dial(), b"4\n") == b""
    assert proxy.cuts == 4
    proxy.heal()
    assert ask(echo.dial(), b"5\n") == b"5\n"
    assert echo.served == [b"1\n", b"2\n", b"3\n", b"5\n"]


def test_hold(echo: Echo) -> None:
    proxy, patient, hasty = echo.proxy, echo.dial(), echo.dial()
    proxy.hold()
    for connection in (patient, hasty):
        connection.settimeout(0.2)
        with pytest.raises(TimeoutError):
            ask(connection, b"held\n")
    hasty.close()
    late = echo.dial()
    late.sendall(b"late\n")
    assert echo.served == []
    wait_for(lambda: proxy.connections == 3, timeout=60, what="all are accepted")
    assert (proxy.client_bytes, proxy.cuts) == (0, 0)
    proxy.heal()
    assert patient.recv(100) == b"held\n"
    assert late.recv(100) == b"late\n"
    wait_for(lambda: len(echo.served) == 3, timeout=60, what="what was held is passed on")
    proxy.hold()
    late.sendall(b"never\n")
    proxy.close()
    proxy.close()
    assert late.recv(1) == b""


def test_a_server_that_is_down(echo: Echo) -> None:
    lease = PortLease()
    with (
        FaultProxy(lease.port) as proxy,
        socket.create_connection((LOOPBACK, proxy.port), timeout=60) as client,
    ):
        assert client.recv(1) == b""
        assert (
            proxy.url("redis://:a%40b@127.0.0.1:1/0?x=y#z")
            == f"redis://:a%40b@127.0.0.1:{proxy.port}/0?x=y#z"
        )
        assert proxy.url("http://h") == f"http://127.0.0.1:{proxy.port}"
    lease.release()


FAILURES = (psycopg.OperationalError, pymysql.OperationalError, redis.ConnectionError)


def through(proxy: FaultProxy, server: ServerProcess) -> Any:
    """A connection of the server's usual client, through the proxy."""
    if isinstance(server, postgres.PostgresServer):
        return psycopg.connect(proxy.url(server.url), connect_timeout=60, autocommit=True)
    assert isinstance(server, (mariadb.MariaDBServer, RedisServer))
    if isinstance(server, mariadb.MariaDBServer):
        return pymysql.connect(
            host=LOOPBACK,
            port=proxy.port,
            user=server.user,
            password=server.password,
            database=server.database,
            autocommit=True,
        )
    return redis.Redis.from_url(
        proxy.url(server.url), decode_responses=True, retry=Retry(NoBackoff(), 0), socket_timeout=5
    )


@pytest.mark.parametrize("kind", KINDS)
def test_cuts_with_real_clients(kind: str) -> None:
    with make(kind) as server, FaultProxy(server.port) as proxy:
        modes: list[tuple[Callable[[bytes], None], list[int]]] = [
            (proxy.cut_before_request, []),
            (proxy.cut_before_reply, [11]),
            (lambda match: proxy.cut_after_client_bytes(len(match)), [11]),
        ]
        with contextlib.closing(through(proxy, server)) as client:
            write(client, 10)
        for cuts, (mode, stored) in enumerate(modes, start=1):
            with contextlib.closing(through(proxy, server)) as client:
                assert 10 in read(client)
                mode(b"(11)" if kind in ("postgres", "mariadb") else b"$2\r\n11")
                with pytest.raises(FAILURES):
                    write(client, 11)
                assert proxy.cuts == cuts
            with contextlib.closing(connect(server)) as client:
                assert read(client)[1:] == stored
