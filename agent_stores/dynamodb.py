"""Amazon DynamoDB: `DynamoDBChatMessageStore`. Needs the extra ``dynamodb``."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from typing_extensions import TypeVar, Unpack

from agent_stores._checks import positive_seconds
from agent_stores.backends.tables.backend import TablesBackend
from agent_stores.log import MessageLog
from agent_stores.messages import ChatMessage
from agent_stores.store import ChatMessageStore
from agent_stores.store_options import StoreOptions, log_options

if TYPE_CHECKING:
    from agent_stores.attachments import Attachments
    from agent_stores.encryption import Keys

__all__ = ["DynamoDBChatMessageStore", "DynamoDBMessageLog"]

M = TypeVar("M", default=ChatMessage)


class DynamoDBMessageLog(MessageLog):
    """Threads in a table of Amazon DynamoDB.

    Logs of one process that name a table alike share their connections. Nothing connects before the first
    operation. The first write creates a missing table, billed on demand. The credentials are those that the
    SDK finds: in the environment, a profile, or the role of the host.

    Args:
        table_name: the table.
        region_name: its region; by default that of ``AWS_DEFAULT_REGION``, ``AWS_REGION`` or the profile.
        endpoint_url: another endpoint than the region's, such as that of an emulator.
        client: a ``dynamodb`` client of aiobotocore, instead of region and endpoint; it is never closed.
        timeout: seconds that a request may take, attempts and pauses included.
        clock: returns seconds since 1970 UTC, for tests of expiry.
        encryption: the keys that encrypt messages and metadata; none by default.
        attachments: where large data of messages is stored; in the messages by default.

    Raises:
        ArgumentError, ArgumentTypeError: for arguments that are invalid or exclude each other.
        MissingDependencyError: when aiobotocore is not installed; names the extra.
    """

    def __init__(
        self,
        table_name: str = "agentstores",
        *,
        region_name: str | None = None,
        endpoint_url: str | None = None,
        client: Any = None,
        timeout: float = 10.0,
        clock: Callable[[], float] = time.time,
        encryption: Keys | None = None,
        attachments: Attachments | None = None,
    ) -> None:
        # Imported here, so that the class can be imported where aiobotocore is not installed.
        from agent_stores.backends.tables.dynamodb import DynamoDBTable, parse_config

        seconds = positive_seconds("timeout", timeout)
        config = parse_config(table_name, region_name, endpoint_url, client)
        table = DynamoDBTable(config, timeout=seconds)
        backend = TablesBackend(table, table.cache, clock=clock, loop_independent=client is None)
        super().__init__(backend, clock=clock, encryption=encryption, attachments=attachments)

    def __repr__(self) -> str:
        return f"DynamoDBMessageLog({self.location!r})"


class DynamoDBChatMessageStore(ChatMessageStore[M]):
    """A conversation in a table of Amazon DynamoDB.

    Args:
        table_name: the table; the first write creates it if it is missing.
        region_name: its region; by default that of the SDK's configuration.
        endpoint_url: another endpoint than the region's, such as that of an emulator.
        client: a ``dynamodb`` client of aiobotocore, instead of region and endpoint; it stays the caller's.
        timeout: seconds that a request may take, attempts and pauses included.
        options: those of `ChatMessageStore`: ``thread_id``, ``tenant``, ``max_messages``, ``ttl`` and so on.

    Raises:
        ArgumentError, ArgumentTypeError: for arguments that are invalid or exclude each other.
        MissingDependencyError: when aiobotocore is not installed; names the extra.
    """

    state_type = "dynamodb"

    def __init__(
        self,
        table_name: str = "agentstores",
        *,
        region_name: str | None = None,
        endpoint_url: str | None = None,
        client: Any = None,
        timeout: float = 10.0,
        **options: Unpack[StoreOptions[M]],
    ) -> None:
        wrapping = log_options(options)
        log = DynamoDBMessageLog(
            table_name,
            region_name=region_name,
            endpoint_url=endpoint_url,
            client=client,
            timeout=timeout,
            **wrapping,
        )
        super().__init__(log, **options)
        self._take_ownership(log)
