"""The driver: candidates take turns, in a shuffled order, and so meet the same state of the machine."""

from __future__ import annotations

import contextlib
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis
from catalogue import Spec
from environments import WorkerError, WorkerProcess, make_environment
from relay import Relay

WHOLE = 1000
"""The length of the thread that is read whole, and of those whose commands and bytes are counted."""

_LONG = 30_000_000  # nanoseconds; a longer operation is run once per visit
_FEWEST = 3  # turns that a median takes at least


@dataclass
class Cell:
    """What was measured of a candidate at a length, in nanoseconds."""

    append: list[int] = field(default_factory=list)
    read: list[int] = field(default_factory=list)
    whole: list[int] = field(default_factory=list)

    def medians(self) -> dict[str, float]:
        """The medians of appending, reading, both, and reading the whole thread."""
        found = {"append": self.append, "read": self.read, "whole": self.whole}
        medians = {name: statistics.median(times) for name, times in found.items() if times}
        if "append" in medians and "read" in medians:
            medians["turn"] = medians["append"] + medians["read"]
        return medians


@dataclass
class Options:
    """How long to measure.

    Attributes:
        rounds: how often each candidate has its turn at a length.
        burst: how many turns of a conversation it then makes.
        longest: seconds that a cell may take; beyond, fewer rounds are made, and then none.
    """

    rounds: int
    burst: int
    longest: float


Cells = dict[str, dict[int, Cell]]


class Workers:
    """One process for each environment, started when it is first needed."""

    def __init__(self, stack: contextlib.ExitStack, *, counting: bool = False) -> None:
        self._stack = stack
        self._counting = counting
        self._running: dict[str, WorkerProcess] = {}
        self.failed: dict[str, str] = {}

    def ask(self, spec: Spec, do: str, **question: Any) -> dict[str, Any]:
        """Ask the process of a candidate."""
        worker = self._running.get(spec.environment)
        if worker is None:
            worker = WorkerProcess(make_environment(spec.environment), spec.module, counting=self._counting)
            self._running[spec.environment] = self._stack.enter_context(worker)
        return worker.ask(do, name=spec.name, **question)


def measure(
    specs: Sequence[Spec],
    url: str,
    lengths: Sequence[int],
    options: Options,
    *,
    forget: Callable[[], None],
    seed: int = 1,
) -> tuple[Cells, dict[str, str]]:
    """Time all candidates at all lengths; returns their cells, and what went wrong."""
    cells: Cells = {spec.key: {} for spec in specs}
    order = random.Random(seed)
    with contextlib.ExitStack() as stack:
        workers = Workers(stack)
        previous = 0
        for length in lengths:
            started = time.monotonic()
            plan = _fill(specs, workers, cells, url, length, previous, options)
            for number in range(options.rounds):
                shuffled = order.sample(list(plan), len(plan))
                for spec in shuffled:
                    if number % plan[spec] == 0:
                        _visit(spec, workers, cells[spec.key][length], length, options)
            forget()
            previous = length
            print(f"  {length:>7,} messages: {time.monotonic() - started:.0f} s", flush=True)
        return cells, workers.failed


def _fill(
    specs: Sequence[Spec],
    workers: Workers,
    cells: Cells,
    url: str,
    length: int,
    previous: int,
    options: Options,
) -> dict[Spec, int]:
    """Make the threads; returns, for each candidate, the interval between its visits, in rounds."""
    plan: dict[Spec, int] = {}
    for spec in specs:
        if spec.key in workers.failed:
            continue
        expected = 0.0
        before = cells[spec.key].get(previous)
        if previous and before is None:
            continue  # it was too slow before
        if before is not None:
            grown = length / previous if _grows(cells[spec.key], previous) else 1.0
            expected = before.medians()["turn"] / 1e9 * grown
        if expected * _FEWEST > options.longest:
            continue
        wanted = options.rounds * options.burst
        affordable = wanted if not expected else max(_FEWEST, int(options.longest / expected))
        try:
            workers.ask(spec, "fill", url=url, length=length)
            workers.ask(spec, "turns", appends=1, reads=1)
        except WorkerError as error:
            _note(spec, workers, error)
            continue
        cells[spec.key][length] = Cell()
        plan[spec] = max(1, wanted // affordable)
    return plan


def _grows(cells: dict[int, Cell], length: int) -> bool:
    """Whether the last step of length made turns slower, as reading everything does."""
    shorter = [other for other in cells if other < length]
    if not shorter:
        return True
    return cells[length].medians()["turn"] > 1.5 * cells[max(shorter)].medians()["turn"]


def _visit(spec: Spec, workers: Workers, cell: Cell, length: int, options: Options) -> None:
    if spec.key in workers.failed:
        return
    appends, reads = _affordable(cell.append, options.burst), _affordable(cell.read, options.burst)
    try:
        times = workers.ask(spec, "turns", appends=appends, reads=reads)
        cell.append += times["append"]
        cell.read += times["read"]
        if length == WHOLE:
            cell.whole += workers.ask(spec, "read_all", count=max(1, options.burst // 2))["read"]
    except WorkerError as error:
        _note(spec, workers, error)


def _affordable(times: Sequence[int], burst: int) -> int:
    """How many operations to make at once: one where it takes long, and others would wait."""
    return 1 if times and statistics.median(times) > _LONG else burst


def _note(spec: Spec, workers: Workers, error: WorkerError) -> None:
    workers.failed[spec.key] = str(error)
    print(f"  {spec.label}: {error}", flush=True)


def count_redis(specs: Sequence[Spec], url: str) -> dict[str, dict[str, Any]]:
    """Commands, round trips, commands that the server ran, and bytes a message, of each operation."""
    found: dict[str, dict[str, Any]] = {}
    admin = redis.Redis.from_url(url)
    for spec, workers, relay in _counting(specs, url):
        admin.flushall()
        with contextlib.suppress(WorkerError):
            workers.ask(spec, "fill", url=relay.url, length=WHOLE)
            stored = sum(int(admin.memory_usage(key, samples=0) or 0) for key in admin.scan_iter(count=1000))
            workers.ask(spec, "turns", appends=2, reads=2)
            operations = {}
            for what in ("append", "read", "read_all"):
                admin.config_resetstat()
                relay.reset()
                answer = workers.ask(spec, "once", what=what)
                time.sleep(0.05)  # for the relay's other thread
                executed = sum(
                    int(value["calls"])
                    for name, value in admin.info("commandstats").items()
                    if name not in ("cmdstat_config|resetstat", "cmdstat_config", "cmdstat_info")
                )
                operations[what] = {
                    "trips": relay.trips,
                    "commands": relay.commands,
                    "executed": executed,
                }
            found[spec.key] = {**operations, "bytes": stored / WHOLE, "json": answer["json"]}
    admin.flushall()
    admin.close()
    return found


def count_sqlite(specs: Sequence[Spec], folder: str) -> dict[str, dict[str, Any]]:
    """Statements and commits of each operation, and the file's bytes a message."""
    found: dict[str, dict[str, Any]] = {}
    with contextlib.ExitStack() as stack:
        workers = Workers(stack, counting=True)
        for spec in specs:
            own = Path(folder) / f"count-{spec.name}"
            own.mkdir()
            with contextlib.suppress(WorkerError):
                workers.ask(spec, "fill", url=str(own), length=WHOLE)
                stored = _file_bytes(own)
                workers.ask(spec, "turns", appends=2, reads=2)
                operations = {}
                for what in ("append", "read", "read_all"):
                    answer = workers.ask(spec, "once", what=what)
                    operations[what] = {
                        "statements": answer["statements"],
                        "commits": answer["commits"],
                    }
                found[spec.key] = {
                    **operations,
                    "bytes": stored / WHOLE,
                    "json": answer["json"],
                    "synchronous": answer["synchronous"],
                }
    return found


def _file_bytes(folder: Path) -> int:
    import sqlite3

    [file] = folder.glob("*.db")
    with contextlib.closing(sqlite3.connect(file)) as connection:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        return int(pages) * int(connection.execute("PRAGMA page_size").fetchone()[0])


def count_postgresql(specs: Sequence[Spec], url: str) -> dict[str, dict[str, Any]]:
    """Statements and round trips of each operation, and the tables' bytes a message."""
    import psycopg

    found: dict[str, dict[str, Any]] = {}
    size = (
        "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0) FROM pg_class c "
        "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'public' AND c.relkind = 'r'"
    )
    with psycopg.connect(url, autocommit=True) as admin:

        def stored() -> int:
            row = admin.execute(size).fetchone()
            return int(row[0]) if row else 0

        for spec, workers, relay in _counting(specs, url):
            admin.execute("DROP SCHEMA public CASCADE")
            admin.execute("CREATE SCHEMA public")
            with contextlib.suppress(WorkerError):
                workers.ask(spec, "fill", url=relay.url, length=WHOLE)
                kept = stored()
                workers.ask(
                    spec, "turns", appends=12, reads=12
                )  # psycopg prepares a statement after some runs
                operations = {}
                for what in ("append", "read", "read_all"):
                    workers.ask(spec, "once", what=what)
                    relay.reset()
                    answer = workers.ask(spec, "once", what=what)
                    time.sleep(0.05)
                    operations[what] = {"trips": relay.trips, "statements": relay.commands}
                found[spec.key] = {**operations, "bytes": kept / WHOLE, "json": answer["json"]}
    return found


def count_azure(specs: Sequence[Spec], url: str) -> dict[str, dict[str, Any]]:
    """Requests of each operation, rows that they write, and bytes a message, as the service charges them."""
    return _count_requests(specs, url, _azure_bytes)


def count_dynamodb(specs: Sequence[Spec], url: str) -> dict[str, dict[str, Any]]:
    """The same for DynamoDB."""
    return _count_requests(specs, url, _dynamodb_bytes)


def _count_requests(
    specs: Sequence[Spec], url: str, count_bytes: Callable[[str], int]
) -> dict[str, dict[str, Any]]:
    from tests.servers.http_proxy import HttpProxy

    found: dict[str, dict[str, Any]] = {}
    port = int(url.partition("127.0.0.1:")[2].partition("/")[0])
    for spec in specs:
        with contextlib.ExitStack() as stack:
            proxy = stack.enter_context(HttpProxy(port))
            workers = Workers(stack, counting=True)
            through = url.replace(f":{port}", f":{proxy.port}")
            before = count_bytes(url)
            with contextlib.suppress(WorkerError):
                workers.ask(spec, "fill", url=through, length=WHOLE)
                stored = count_bytes(url) - before
                workers.ask(spec, "turns", appends=2, reads=2)
                operations = {}
                for what in ("append", "read", "read_all"):
                    proxy.requests.clear()
                    answer = workers.ask(spec, "once", what=what)
                    operations[what] = {
                        "trips": len(proxy.requests),
                        "rows": sum(one.rows_written for one in proxy.requests),
                    }
                found[spec.key] = {**operations, "bytes": stored / WHOLE, "json": answer["json"]}
    return found


def _azure_bytes(url: str) -> int:
    """What all rows of an account take: 4 bytes, the keys, and 8 with the name and value of each property."""
    from azure.data.tables import TableServiceClient

    total = 0
    with TableServiceClient.from_connection_string(url) as service:
        for table in service.list_tables():
            for row in service.get_table_client(table.name).list_entities():
                total += 4 + 2 * (len(row["PartitionKey"]) + len(row["RowKey"]))
                for name, value in row.items():
                    if name not in ("PartitionKey", "RowKey"):
                        size = 2 * len(value) + 4 if isinstance(value, str) else 8
                        total += 8 + 2 * len(name) + size
    return total


def _dynamodb_bytes(url: str) -> int:
    """What all items of an endpoint take: 100 bytes, and the name and the text of each attribute."""
    from botocore.session import get_session

    client: Any = get_session().create_client("dynamodb", endpoint_url=url)
    total = 0
    for name in client.list_tables()["TableNames"]:
        for page in client.get_paginator("scan").paginate(TableName=name):
            for item in page["Items"]:
                texts = [text for value in item.values() for text in value.values()]
                total += 100 + sum(len(text.encode()) for text in (*item, *texts))
    return total


def _counting(specs: Sequence[Spec], url: str) -> Iterator[tuple[Spec, Workers, Relay]]:
    """Each candidate in turn, in a process and behind a relay of its own."""
    for spec in specs:
        with contextlib.ExitStack() as stack:
            relay = Relay(url)
            stack.callback(relay.close)
            yield spec, Workers(stack, counting=True), relay
