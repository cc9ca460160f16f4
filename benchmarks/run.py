"""Compare what a turn of a conversation costs: see docs/benchmarks.md."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import redis  # noqa: E402
from catalogue import BACKENDS, LONGEST, SPECS, Spec  # noqa: E402
from environments import make_environment, versions  # noqa: E402
from measure import (  # noqa: E402
    Options,
    count_azure,
    count_dynamodb,
    count_postgresql,
    count_redis,
    count_sqlite,
    measure,
)
from report import markdown, plain, tables, times  # noqa: E402

_NAMED = [
    "redis",
    "hiredis",
    "msgspec",
    "sqlalchemy",
    "psycopg",
    "asyncpg",
    "aiosqlite",
    "agent-framework-core",
    "agent-framework-redis",
    "llama-index-core",
    "llama-index-storage-chat-store-redis",
    "llama-index-storage-chat-store-azure",
    "azure-data-tables",
    "aiohttp",
    "aiobotocore",
    "langchain-community",
    "openai-agents",
]


def main() -> None:
    options = _arguments()
    chosen = {
        backend: [
            spec
            for spec in SPECS[backend]
            if not options.only or any(part in spec.key for part in options.only)
        ]
        for backend in options.backends
    }
    environments = sorted({spec.environment for specs in chosen.values() for spec in specs} | {"own"})
    pythons = {name: make_environment(name) for name in environments}
    found = {name: versions(python) for name, python in pythons.items()}
    results: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "versions": {
            name: {package: all_[package] for package in _NAMED if package in all_}
            for name, all_ in found.items()
        },
        "rounds": options.rounds,
        "burst": options.burst,
        "backends": {},
    }
    text: list[str] = []
    for backend, specs in chosen.items():
        print(f"{backend}:", flush=True)
        with _server(backend, options.folder) as (url, server):
            part = _run(backend, specs, url, options)
        results["backends"][backend] = {"server": server, **part}
        text += _report(backend, specs, part, options.lengths, server)
    options.out.mkdir(parents=True, exist_ok=True)
    name = time.strftime("%Y-%m-%d-%H%M%S")
    page, data = options.out / f"{name}.md", options.out / f"{name}.json"
    heading = f"# {results['date']}\n\nPython {results['python']}, {results['machine']}.\n"
    page.write_text("\n".join([heading, *text]))
    data.write_text(json.dumps(results, indent=1) + "\n")
    subprocess.run([str(pythons["own"]), str(HERE / "plot.py"), str(data), str(options.plot)], check=True)
    print(f"Written: {page}, {data} and {options.plot}")


def _run(backend: str, specs: Sequence[Spec], url: str, options: argparse.Namespace) -> dict[str, Any]:
    counts: dict[str, dict[str, Any]] = {}
    if not options.no_counts:
        print("  counting commands and bytes", flush=True)
        count = {
            "redis": count_redis,
            "sqlite": count_sqlite,
            "postgresql": count_postgresql,
            "mariadb": lambda specs, url: {},  # its statements are counted in tests/integration
            "azure": count_azure,
            "dynamodb": count_dynamodb,
        }[backend]
        counts = count(specs, url)

    def forget() -> None:
        if backend == "redis":
            with contextlib.closing(redis.Redis.from_url(url)) as client:
                client.flushall()

    limits = Options(options.rounds, options.burst, options.longest)
    lengths = [length for length in options.lengths if length <= LONGEST.get(backend, length)]
    cells, failed = measure(specs, url, lengths, limits, forget=forget)
    return {
        "candidates": [
            {
                "key": spec.key,
                "label": spec.label,
                "group": spec.group,
                "medians": {length: cell.medians() for length, cell in cells[spec.key].items()},
                "samples": {length: len(cell.append) for length, cell in cells[spec.key].items()},
                "counts": counts.get(spec.key),
            }
            for spec in specs
        ],
        "failed": failed,
    }


def _report(
    backend: str, specs: Sequence[Spec], part: dict[str, Any], lengths: Sequence[int], server: str
) -> list[str]:
    medians = {one["key"]: one["medians"] for one in part["candidates"]}
    counts = {one["key"]: one["counts"] for one in part["candidates"] if one["counts"]}
    print(f"\n{backend}: {server}\n")
    text = [f"## {backend}: {server}\n"]
    for table in [*tables(specs, medians, counts, lengths), times(specs, medians, lengths)]:
        print(plain(*table))
        text.append(markdown(*table))
    for key, error in part["failed"].items():
        text.append(f"{key} failed: {error.splitlines()[0]}\n")
    return text


@contextlib.contextmanager
def _server(backend: str, folder: Path | None) -> Iterator[tuple[str, str]]:
    """A server of our own on loopback, or a folder for SQLite's files; and what it is."""
    if backend == "sqlite":
        import sqlite3

        memory = Path("/dev/shm")
        folder = folder or (memory if memory.is_dir() else None)
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        name = tempfile.mkdtemp(prefix="benchmark-", dir=folder)
        place = "in memory" if folder == memory else "on a disk"
        try:
            yield name, f"SQLite {sqlite3.sqlite_version}, WAL, synchronous=FULL, files {place}"
        finally:
            shutil.rmtree(name, ignore_errors=True)
    elif backend == "redis":
        from tests.servers.redis import RedisServer

        with RedisServer("valkey9").start() as redis_server:
            info = redis_server.info("server")
            name = f"Valkey {info['valkey_version']}" if "valkey_version" in info else "Redis"
            yield redis_server.url, f"{name} on loopback"
    elif backend == "mariadb":
        from tests.servers.mariadb import MariaDBServer

        with MariaDBServer().start() as mariadb:
            with mariadb.connect() as connection:
                version = connection.get_server_info()
            yield mariadb.url, f"MariaDB {version.partition('-')[0]} on loopback"
    elif backend == "azure":
        from tests.servers.azurite import PACKAGE, AzuriteServer

        with AzuriteServer().start() as azurite:
            yield azurite.connection_string, f"{PACKAGE.replace('@', ' ')} on loopback, in memory"
    elif backend == "dynamodb":
        from importlib.metadata import version as package_version

        from tests.servers.dynamodb import DynamoDBServer

        # The SDK finds them; the emulator takes any.
        login = {"AWS_ACCESS_KEY_ID": "benchmark", "AWS_SECRET_ACCESS_KEY": "benchmark"}
        os.environ.update(login, AWS_DEFAULT_REGION=DynamoDBServer.region)
        with DynamoDBServer().start() as dynamodb:
            yield dynamodb.endpoint, f"moto {package_version('moto')} on loopback, in memory"
    else:
        import psycopg

        from tests.servers.postgres import PostgresServer

        with PostgresServer(settings={"fsync": "on", "shared_buffers": "256MB"}).start() as postgres:
            with psycopg.connect(postgres.url) as connection:
                version = connection.info.server_version
            yield postgres.url, f"PostgreSQL {version // 10000}.{version % 10000} on loopback, fsync on"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds, threads of up to 1,000 messages")
    parser.add_argument(
        "--lengths", type=_numbers, help="messages in the thread, as 10,100,1000,10000,100000"
    )
    parser.add_argument("--rounds", type=int, help="how often each candidate has its turn at a length")
    parser.add_argument("--burst", type=int, default=4, help="turns that it then makes")
    parser.add_argument("--longest", type=float, help="seconds that a cell may take")
    parser.add_argument(
        "--backends", type=_backends, default=list(BACKENDS), help="as redis,sqlite,azure,dynamodb"
    )
    parser.add_argument(
        "--only", type=lambda given: given.split(","), help="candidates with this in their names"
    )
    parser.add_argument("--no-counts", action="store_true", help="time only")
    parser.add_argument(
        "--folder",
        type=Path,
        help="where SQLite's files are made; /dev/shm where there is one, so that no disk is measured",
    )
    parser.add_argument("--out", type=Path, default=HERE / "results", help="where results are written")
    parser.add_argument(
        "--plot", type=Path, help="the plot's file; docs/images/benchmark.svg after a full run"
    )
    options = parser.parse_args()
    options.lengths = options.lengths or (
        [10, 100, 1000] if options.quick else [10, 100, 1000, 10_000, 100_000]
    )
    options.rounds = options.rounds or (8 if options.quick else 40)
    options.longest = options.longest or (5.0 if options.quick else 30.0)
    if options.plot is None:
        partial = options.quick or options.only or len(options.backends) < len(BACKENDS)
        options.plot = options.out / "benchmark.svg" if partial else HERE.parent / "docs/images/benchmark.svg"
    return options


def _numbers(given: str) -> list[int]:
    return sorted({int(one.replace("_", "")) for one in given.split(",")})


def _backends(given: str) -> list[str]:
    wanted = given.split(",")
    for one in wanted:
        if one not in BACKENDS:
            raise argparse.ArgumentTypeError(f"{one!r} is none of {', '.join(BACKENDS)}")
    return wanted


if __name__ == "__main__":
    main()
