"""Spans and metrics of a log's operations, by OpenTelemetry. Needs the extra ``otel``.

Names follow OpenTelemetry's semantic conventions for database clients and for generative AI (the id of the
conversation). Nothing of a message is recorded; ids of threads and tenants only if asked.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from agent_stores.backend import Row, ThreadKey, VersionConflict
from agent_stores.errors import (
    ArgumentError,
    MissingDependencyError,
    OutcomeUnknownError,
    StoreUnavailableError,
)
from agent_stores.listing import ThreadPage
from agent_stores.log import MessageLog

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

L = TypeVar("L", bound=MessageLog)

OPERATIONS = (
    "append",
    "create",
    "latest",
    "read",
    "get",
    "replace",
    "delete",
    "pop_last",
    "clear",
    "replace_all",
    "stats",
    "update_metadata",
    "set_ttl",
    "fork",
    "delete_thread",
    "list_threads",
    "list_tenants",
    "purge_expired",
    "search",
)
"""The operations of `MessageLog` that are recorded."""

_SYSTEMS = {"postgresql": "postgresql", "mariadb": "mariadb", "sqlite": "sqlite", "memory": "memory"}
_SYSTEM_OF_LOG = {
    "RedisMessageLog": "redis",
    "AzureTableMessageLog": "azure.tables",
    "DynamoDBMessageLog": "aws.dynamodb",
}


class _Lost:
    """The commits of an operation that did not take effect, or may not have.

    Attributes:
        conflicts: those that another writer preceded.
        unconfirmed: those whose connection was lost.
    """

    def __init__(self) -> None:
        self.conflicts = self.unconfirmed = 0

    def retries(self, error: BaseException | None) -> int:
        """How many of them were made again; the last one was not when the operation failed for it."""
        gave_up = isinstance(error, (OutcomeUnknownError, StoreUnavailableError))
        return max(0, self.conflicts + self.unconfirmed - gave_up)


_lost: ContextVar[_Lost | None] = ContextVar("agent_stores_lost_commits", default=None)


def instrument(
    log: L,
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    include_ids: bool = False,
) -> L:
    """Record a span and metrics for every operation of a log, from now on.

    Give the log to stores and plug-ins, or take that of a store: ``instrument(store.log)``. A log that is not
    instrumented has no cost.

    A span is of the kind *client*, named ``<operation> agent_stores``. Its attributes are ``db.system.name``,
    ``db.operation.name``, ``server.address``, ``server.port``, ``agent_stores.rows`` and
    ``agent_stores.bytes`` (of the rows given or returned), ``agent_stores.conflicts`` (commits that another
    writer preceded), ``agent_stores.retries`` (commits that were made again, for a conflict or a lost
    connection), and ``error.type`` (the class of the error). The histogram ``db.client.operation.duration``
    is in seconds; the counters ``agent_stores.conflicts`` and ``agent_stores.retries`` add these up.

    Args:
        log: the log; it is returned.
        tracer_provider: OpenTelemetry's; the global one by default.
        meter_provider: likewise.
        include_ids: record thread ids (``gen_ai.conversation.id``) and tenants (``agent_stores.tenant``).

    Raises:
        ArgumentError: when the log is instrumented already.
        MissingDependencyError: when ``opentelemetry-api`` is not installed.
    """
    try:
        from opentelemetry import metrics, trace
    except ImportError as error:
        raise MissingDependencyError.of(
            "opentelemetry-api", extra="otel", purpose="agent_stores.telemetry"
        ) from error
    if "append" in vars(log):
        raise ArgumentError("log must not be instrumented twice")
    tracer = trace.get_tracer("agent_stores", tracer_provider=tracer_provider)
    meter = metrics.get_meter("agent_stores", meter_provider=meter_provider)
    duration = meter.create_histogram("db.client.operation.duration", "s", "Duration of operations of a log.")
    conflicts = meter.create_counter(
        "agent_stores.conflicts", "{conflict}", "Commits that lost to another writer."
    )
    retries = meter.create_counter("agent_stores.retries", "{retry}", "Commits that were made again.")
    server = _server_of(log)

    def recorded(operation: str, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        fixed = {**server, "db.operation.name": operation}

        @functools.wraps(method)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            lost, began = _Lost(), time.perf_counter()
            failure: BaseException | None = None
            token = _lost.set(lost)
            measured: dict[str, Any] = dict(fixed)
            with tracer.start_as_current_span(
                f"{operation} agent_stores",
                kind=trace.SpanKind.CLIENT,
                attributes=fixed,
                record_exception=False,  # its text may name ids
                set_status_on_exception=False,
            ) as span:
                if include_ids and args and isinstance(args[0], ThreadKey):
                    span.set_attribute("gen_ai.conversation.id", args[0].thread_id)
                    if args[0].tenant is not None:
                        span.set_attribute("agent_stores.tenant", args[0].tenant)
                try:
                    result = await method(*args, **kwargs)
                    for name, value in _sizes(args, kwargs, result).items():
                        span.set_attribute(name, value)
                    return result
                except BaseException as error:
                    failure = error
                    measured["error.type"] = type(error).__name__
                    span.set_attribute("error.type", type(error).__name__)
                    span.set_status(trace.StatusCode.ERROR)
                    raise
                finally:
                    _lost.reset(token)
                    repeated = lost.retries(failure)
                    span.set_attribute("agent_stores.conflicts", lost.conflicts)
                    span.set_attribute("agent_stores.retries", repeated)
                    duration.record(time.perf_counter() - began, measured)
                    if lost.conflicts:
                        conflicts.add(lost.conflicts, fixed)
                    if repeated:
                        retries.add(repeated, fixed)

        return wrapper

    for operation in OPERATIONS:
        setattr(log, operation, recorded(operation, getattr(log, operation)))
    _count_lost_commits(log)
    return log


def _count_lost_commits(log: MessageLog) -> None:
    commit = log.backend.commit

    @functools.wraps(commit)
    async def counted(*args: Any, **kwargs: Any) -> Any:
        try:
            return await commit(*args, **kwargs)
        except (VersionConflict, OutcomeUnknownError) as error:
            if (lost := _lost.get()) is not None:
                lost.conflicts += isinstance(error, VersionConflict)
                lost.unconfirmed += isinstance(error, OutcomeUnknownError)
            raise

    log.backend.commit = counted  # type: ignore[method-assign]


def _server_of(log: MessageLog) -> dict[str, Any]:
    """The attributes that name the server, from the log's location, which has no secret."""
    parts = urlsplit(log.location)
    names = [kind.__name__ for kind in type(log).__mro__]
    systems = [_SYSTEM_OF_LOG[name] for name in names if name in _SYSTEM_OF_LOG]
    system = systems[0] if systems else _SYSTEMS.get(parts.scheme or log.location, "other_sql")
    found: dict[str, Any] = {"db.system.name": system}
    if parts.hostname:
        found["server.address"] = parts.hostname
        try:
            port = parts.port
        except ValueError:  # several hosts
            port = None
        if port:
            found["server.port"] = port
    return found


def _sizes(args: Sequence[Any], kwargs: dict[str, Any], result: Any) -> dict[str, int]:
    """How many rows and bytes an operation wrote or returned."""
    given = [value for value in (*args, *kwargs.values(), result) if isinstance(value, (list, tuple))]
    rows = [row for value in given for row in value if isinstance(row, Row)]
    if isinstance(result, Row):
        rows.append(result)
    if rows:
        return {
            "agent_stores.rows": len(rows),
            "agent_stores.bytes": sum(row.bytes or len(row.body) for row in rows),
        }
    return {"agent_stores.rows": len(result.threads)} if isinstance(result, ThreadPage) else {}
