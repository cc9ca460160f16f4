"""A Cluster in which one primary has a replica, to fail over to."""

from __future__ import annotations

import contextlib

from .ports import LOOPBACK
from .process import planted_password, wait_for
from .redis import BUS_OFFSET, SLOTS, Flavour, RedisCluster, RedisServer

_NODE_TIMEOUT = 2000  # milliseconds until a node that does not answer is taken for dead


class ReplicatedCluster(RedisCluster):
    """Three primaries; the first one has a replica, and the two swap their roles at a failover."""

    def __init__(self, nodes: list[RedisServer], replica: RedisServer) -> None:
        """Take charge of running nodes that do not know of each other yet."""
        super().__init__(nodes)
        self.pair = [nodes[0], replica]
        self._primaries = len(nodes)

    def slots(self, index: int) -> range:
        """The slots of the primary of an index; those of the pair are the first."""
        return range(SLOTS * index // self._primaries, SLOTS * (index + 1) // self._primaries)

    @property
    def primary(self) -> RedisServer:
        """The node of the pair that serves its slots."""
        return next(node for node in self.pair if node.pid is not None and self._is_primary(node))

    @property
    def replica(self) -> RedisServer:
        """The other node of the pair."""
        primary = self.primary
        return next(node for node in self.pair if node is not primary)

    def failover(self) -> None:
        """Have the replica take over while both run."""
        new = self.replica

        def is_promoted() -> bool:
            if not self._is_primary(new):
                with contextlib.suppress(Exception):  # one is under way already
                    new.command("CLUSTER", "FAILOVER")
            return self._is_primary(new)

        wait_for(is_promoted, timeout=60, what="the replica is promoted", interval=0.2)

    def kill_primary(self) -> None:
        """Kill the primary, and wait until the replica is promoted; `heal` brings the old one back."""
        new = self.replica
        self.primary.kill()
        wait_for(lambda: self._is_primary(new), timeout=60, what="the replica is promoted")

    def pause_primary(self) -> None:
        """The same with a primary that hangs; `heal` lets it go on, and it learns that it was replaced."""
        new = self.replica
        self.primary.pause()
        wait_for(lambda: self._is_primary(new), timeout=60, what="the replica is promoted")

    def _wait_ok(self) -> None:
        super()._wait_ok()

        def follows() -> bool:
            link = self.replica.info("replication")
            return (link["role"], link.get("master_link_status")) == ("slave", "up")

        if self.pair[1] in self.nodes:
            wait_for(follows, timeout=60, what="the replica follows the primary")

    def _attach(self) -> None:
        """Make the replica a part of the Cluster, and let it follow the first node."""
        primary, replica = self.pair
        replica.command("CLUSTER", "MEET", LOOPBACK, primary.port)
        primary_id = str(primary.command("CLUSTER", "MYID"))

        def replicates() -> bool:
            return replica.command("CLUSTER", "REPLICATE", primary_id) in ("OK", True)

        wait_for(replicates, timeout=30, what="the replica knows its primary")
        self.nodes.append(replica)
        self._servers.append(replica)
        self._wait_ok()

    @staticmethod
    def _is_primary(node: RedisServer) -> bool:
        nodes = str(node.command("CLUSTER", "NODES")).splitlines()
        own = next(line.split() for line in nodes if "myself" in line)
        return "master" in own[2] and len(own) > 8  # it has slots


def start_replicated_cluster(flavour: Flavour = "valkey9") -> ReplicatedCluster:
    """Start three primaries and a replica of the first, and wait until all slots are served."""
    config = [
        "cluster-enabled yes",
        f"cluster-node-timeout {_NODE_TIMEOUT}",
        "cluster-allow-replica-migration no",
    ]
    password = planted_password("redis")
    with contextlib.ExitStack() as undo:
        servers = [
            undo.enter_context(
                RedisServer(flavour, aof=True, password=password, config=config, port_offsets=[BUS_OFFSET])
            )
            for _ in range(4)
        ]
        cluster = ReplicatedCluster(servers[:3], servers[3])
        cluster._form()
        cluster._attach()
        undo.pop_all()
    return cluster
