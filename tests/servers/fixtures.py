"""Servers as session-scoped fixtures. Tests that break one leave it running and healthy behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from . import azurite, dynamodb, mariadb, postgres, redis


def _need(*modules: str) -> None:
    """Skip where a module is missing; `pwd` stands for all that Windows lacks."""
    for module in ("pwd", "psutil", *modules):
        pytest.importorskip(module)


def _skip_if(reason: str | None) -> None:
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.PostgresServer]:
    """A PostgreSQL server, shared by the session."""
    _need("psycopg")
    from . import postgres

    _skip_if(postgres.available())
    with postgres.PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[mariadb.MariaDBServer]:
    """A MariaDB server, shared by the session."""
    _need("pymysql")
    from . import mariadb

    _skip_if(mariadb.available())
    with mariadb.MariaDBServer() as server:
        yield server


@pytest.fixture(scope="session")
def redis62_server() -> Iterator[redis.RedisServer]:
    """A Redis 6.2 server, shared by the session."""
    _need("redis")
    from . import redis

    _skip_if(redis.available("redis62"))
    with redis.RedisServer("redis62") as server:
        yield server


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[redis.RedisServer]:
    """A Valkey 9 server, shared by the session."""
    _need("redis")
    from . import redis

    _skip_if(redis.available("valkey9"))
    with redis.RedisServer("valkey9") as server:
        yield server


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[redis.RedisCluster]:
    """A cluster of three Valkey 9 primaries, shared by the session."""
    _need("redis")
    from . import redis

    _skip_if(redis.available("valkey9"))
    with redis.start_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def redis_sentinel() -> Iterator[redis.RedisSentinel]:
    """A Valkey 9 primary and replica under one sentinel, shared by the session."""
    _need("redis")
    from . import redis

    _skip_if(redis.available("valkey9"))
    with redis.start_sentinel() as group:
        yield group


@pytest.fixture(scope="session")
def azurite_server() -> Iterator[azurite.AzuriteServer]:
    """Azurite's table service, shared by the session."""
    _need("azure.data.tables", "aiohttp")
    from . import azurite

    _skip_if(azurite.available())
    with azurite.AzuriteServer() as server:
        yield server


@pytest.fixture(scope="session")
def dynamodb_server() -> Iterator[dynamodb.DynamoDBServer]:
    """An emulator of DynamoDB, shared by the session; the environment has credentials for it."""
    _need("aiobotocore", "moto")
    from . import dynamodb

    names = {"AWS_ACCESS_KEY_ID": "planted-id", "AWS_SECRET_ACCESS_KEY": "planted-s3cret"}
    with pytest.MonkeyPatch.context() as patch, dynamodb.DynamoDBServer() as server:
        for name, value in names.items():
            patch.setenv(name, value)
        yield server
