"""Turns per second of eight processes on one Redis server, and on a Cluster of one, two and three primaries.

Each process appends turns to threads of its own, several at a time. Prints a table in Markdown: turns per
second, the server's memory for a million turns, and the processor time of servers and clients for a turn,
which says what bounds the rate. Call: ``python benchmarks/throughput.py [seconds]``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import psutil

from agent_stores import ChatMessage, RedisChatMessageStore
from tests.servers.redis import RedisServer, start_cluster

PROCESSES = 8
THREADS = 4  # of each process, to which it adds at the same time
QUESTION, ANSWER = "q" * 200, "a" * 800  # characters


async def add_turns(url: str, name: str, seconds: float) -> tuple[int, float]:
    """Add turns for a time; returns how many, and the processor time that it took, in seconds."""
    stores = [RedisChatMessageStore(url, thread_id=f"{name}-{n}", timeout=60) for n in range(THREADS)]
    for store in stores:  # connects, and sends the script
        await store.add_messages([ChatMessage("user", QUESTION), ChatMessage("assistant", ANSWER)])
    print("ready", flush=True)
    sys.stdin.readline()
    end, began = time.monotonic() + seconds, time.process_time()

    async def work(store: RedisChatMessageStore) -> int:
        count = 0
        while time.monotonic() < end:
            await store.add_messages([ChatMessage("user", QUESTION), ChatMessage("assistant", ANSWER)])
            count += 1
        return count

    turns = sum(await asyncio.gather(*map(work, stores)))
    used = time.process_time() - began
    for store in stores:
        await store.aclose()
    return turns, used


def measure(name: str, url: str, servers: Sequence[RedisServer], seconds: float) -> str:
    """One row of the table."""
    command = [sys.executable, __file__, "--client", url]
    clients = [
        subprocess.Popen(
            [*command, f"p{n}", str(seconds)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for n in range(PROCESSES)
    ]
    pipes = [(client.stdin, client.stdout) for client in clients]
    for _, output in pipes:
        assert output is not None
        assert output.readline() == "ready\n"
    memory, used = _memory(servers), _processor_time(servers)
    began = time.monotonic()
    for given, _ in pipes:
        assert given is not None
        given.write("\n")
        given.flush()
    found = [json.loads(output.readline()) for _, output in pipes if output is not None]
    passed = time.monotonic() - began
    served = [after - before for before, after in zip(used, _processor_time(servers), strict=True)]
    grown = _memory(servers) - memory
    for client in clients:
        client.communicate()
    turns = sum(count for count, _ in found)
    spent = sum(seconds for _, seconds in found)
    return (
        f"| {name} | {turns / passed:,.0f} | {grown / turns / 1000:,.2f} GB "
        f"| {sum(served) / turns * 1e6:,.0f} µs "
        f"| {max(served) / passed:.0%} | {spent / turns * 1e6:,.0f} µs "
        f"| {(sum(served) + spent) / passed / (os.cpu_count() or 1):.0%} |"
    )


def _memory(servers: Sequence[RedisServer]) -> int:
    return sum(int(server.info("memory")["used_memory"]) for server in servers)


def _processor_time(servers: Sequence[RedisServer]) -> list[float]:
    times = [psutil.Process(server.pid).cpu_times() for server in servers]
    return [one.user + one.system for one in times]


@contextlib.contextmanager
def _targets(primaries: int) -> Iterator[tuple[str, str, Sequence[RedisServer]]]:
    if primaries == 0:
        with RedisServer() as server:
            yield "one server", server.url, [server]
        return
    with start_cluster(primaries) as cluster:
        url = cluster.url.replace("redis://", "redis+cluster://")
        yield f"Cluster, primaries: {primaries}", url, cluster.nodes


def main() -> None:
    """Measure, or be one of the processes that are measured."""
    if sys.argv[1:2] == ["--client"]:
        url, name, seconds = sys.argv[2:]
        print(json.dumps(asyncio.run(add_turns(url, name, float(seconds)))), flush=True)
        return
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 15.0
    print(f"{PROCESSES} processes with {THREADS} threads each, {os.cpu_count()} cores\n")
    print(
        "| | turns a second | memory for a million turns | servers' processor time a turn "
        "| the busiest server | clients' processor time a turn | all cores |"
    )
    print("|---|---|---|---|---|---|---|")
    for primaries in range(4):
        with _targets(primaries) as (title, url, servers):
            print(measure(title, url, servers, seconds), flush=True)


if __name__ == "__main__":
    main()
