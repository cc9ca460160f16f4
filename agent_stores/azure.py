"""Azure Table Storage and Cosmos DB's API for Table. Needs the extra ``azure``."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from typing_extensions import Self, TypeVar, Unpack

from agent_stores._checks import positive_seconds
from agent_stores.backends.tables.backend import TablesBackend
from agent_stores.errors import ArgumentError, ArgumentTypeError
from agent_stores.log import MessageLog
from agent_stores.messages import ChatMessage
from agent_stores.store import ChatMessageStore
from agent_stores.store_options import StoreOptions, log_options

if TYPE_CHECKING:
    from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential
    from azure.core.credentials_async import AsyncTokenCredential
    from azure.data.tables.aio import TableServiceClient

    from agent_stores.attachments import Attachments
    from agent_stores.encryption import Keys

__all__ = ["AzureTableChatMessageStore", "AzureTableMessageLog"]

M = TypeVar("M", default=ChatMessage)


class AzureTableMessageLog(MessageLog):
    """Threads in a table of Azure Table Storage, or of Cosmos DB's API for Table.

    Logs of one process that name a table alike, with the same login, share their connections. Nothing
    connects before the first operation. The first write creates a missing table.

    Args:
        connection_string: the account and its login; see `AzureTableChatMessageStore`.
        endpoint: the account's URL for tables instead, with a login.
        account_name: the account's name, instead of its URL or with it.
        account_key: its key.
        sas_token: a shared access signature instead.
        credential: an `AzureNamedKeyCredential`, `AzureSasCredential` or asynchronous token credential of the
            caller's instead; it is never closed.
        table_service_client: an asynchronous client of the caller's instead of all that; it is never closed.
        table_name: the table.
        timeout: seconds that a request may take, attempts and pauses included.
        client_options: further arguments of `azure.data.tables.aio.TableClient`.
        clock: returns seconds since 1970 UTC, for tests of expiry.
        encryption: the keys that encrypt messages and metadata; none by default.
        attachments: where large data of messages is stored; in the messages by default.

    Raises:
        ArgumentError, ArgumentTypeError: for arguments that are invalid or exclude each other.
        MissingDependencyError: when a package is missing; names the extra.
    """

    def __init__(
        self,
        connection_string: str | None = None,
        *,
        endpoint: str | None = None,
        account_name: str | None = None,
        account_key: str | None = None,
        sas_token: str | None = None,
        credential: AzureNamedKeyCredential | AzureSasCredential | AsyncTokenCredential | None = None,
        table_service_client: TableServiceClient | None = None,
        table_name: str = "agentstores",
        timeout: float = 10.0,
        client_options: Mapping[str, Any] | None = None,
        clock: Callable[[], float] = time.time,
        encryption: Keys | None = None,
        attachments: Attachments | None = None,
    ) -> None:
        # Imported here, so that the class can be imported where azure-data-tables is not installed.
        from agent_stores.backends.tables.azure import AzureTable, parse_config

        seconds = positive_seconds("timeout", timeout)
        if client_options is not None and not isinstance(client_options, Mapping):
            raise ArgumentTypeError(f"client_options must be a mapping, got {type(client_options).__name__}")
        if client_options and table_service_client is not None:
            raise ArgumentError("client_options must not be given together with table_service_client")
        config = parse_config(
            connection_string=connection_string,
            endpoint=endpoint,
            account_name=account_name,
            account_key=account_key,
            sas_token=sas_token,
            credential=credential,
            table_service_client=table_service_client,
            table_name=table_name,
            client_options=client_options,
        )
        table = AzureTable(config, timeout=seconds)
        backend = TablesBackend(table, table.cache, clock=clock, loop_independent=config.loop_independent)
        super().__init__(backend, clock=clock, encryption=encryption, attachments=attachments)

    def __repr__(self) -> str:
        return f"AzureTableMessageLog({self.location!r})"


class AzureTableOptions(StoreOptions[M], total=False):
    """The options of every way of connecting; see `AzureTableChatMessageStore`."""

    table_name: str
    timeout: float
    client_options: Mapping[str, Any] | None


class AzureTableChatMessageStore(ChatMessageStore[M]):
    """A conversation in a table of Azure Table Storage, or of Cosmos DB's API for Table.

    Exactly one of `connection_string`, `endpoint` or `account_name` with a login, and `table_service_client`
    is needed. Each of the methods whose names begin with ``from_`` is for one of these ways.

    Args:
        connection_string: as the portal shows it, with the account's key or a shared access signature, or
            ``UseDevelopmentStorage=true`` for Azurite.
        endpoint: the account's URL for tables, such as ``https://account.table.core.windows.net``.
        account_name: the account's name; without another login, azure-identity's `DefaultAzureCredential`
            signs in.
        account_key: the account's key.
        sas_token: a shared access signature.
        credential: an `AzureNamedKeyCredential`, `AzureSasCredential` or asynchronous token credential, such
            as those of `azure.identity.aio`; it stays the caller's.
        table_service_client: an `azure.data.tables.aio.TableServiceClient`; it stays the caller's.
        table_name: the table, 3 to 63 letters and digits; the first write creates it if it is missing.
        timeout: seconds that a request may take, attempts and pauses included.
        client_options: further arguments of `TableClient`.
        options: those of `ChatMessageStore`: ``thread_id``, ``tenant``, ``max_messages``, ``ttl`` and so on.

    Raises:
        ArgumentError, ArgumentTypeError: for arguments that are invalid or exclude each other.
        MissingDependencyError: when azure-data-tables is not installed; names the extra.
    """

    state_type = "azure_tables"

    def __init__(
        self,
        connection_string: str | None = None,
        *,
        endpoint: str | None = None,
        account_name: str | None = None,
        account_key: str | None = None,
        sas_token: str | None = None,
        credential: AzureNamedKeyCredential | AzureSasCredential | AsyncTokenCredential | None = None,
        table_service_client: TableServiceClient | None = None,
        table_name: str = "agentstores",
        timeout: float = 10.0,
        client_options: Mapping[str, Any] | None = None,
        **options: Unpack[StoreOptions[M]],
    ) -> None:
        wrapping = log_options(options)
        log = AzureTableMessageLog(
            connection_string,
            endpoint=endpoint,
            account_name=account_name,
            account_key=account_key,
            sas_token=sas_token,
            credential=credential,
            table_service_client=table_service_client,
            table_name=table_name,
            timeout=timeout,
            client_options=client_options,
            **wrapping,
        )
        super().__init__(log, **options)
        self._take_ownership(log)

    @classmethod
    def from_connection_string(cls, connection_string: str, **options: Unpack[AzureTableOptions[M]]) -> Self:
        """A store on the account of a connection string."""
        return cls(connection_string, **options)

    @classmethod
    def from_account_and_key(
        cls,
        account_name: str,
        account_key: str,
        endpoint: str | None = None,
        *,
        chat_table_name: str | None = None,
        **options: Unpack[AzureTableOptions[M]],
    ) -> Self:
        """A store on an account, with its key.

        Args:
            account_name: the account's name.
            account_key: its key.
            endpoint: its URL for tables; Azure's public one by default.
            chat_table_name: another name of `table_name`.
            options: see the class.
        """
        if chat_table_name is not None:
            options.setdefault("table_name", chat_table_name)
        return cls(account_name=account_name, account_key=account_key, endpoint=endpoint, **options)

    @classmethod
    def from_account_and_id(
        cls, account_name: str, endpoint: str | None = None, **options: Unpack[AzureTableOptions[M]]
    ) -> Self:
        """A store on an account, with the login that azure-identity's `DefaultAzureCredential` finds."""
        return cls(account_name=account_name, endpoint=endpoint, **options)

    @classmethod
    def from_sas_token(cls, endpoint: str, sas_token: str, **options: Unpack[AzureTableOptions[M]]) -> Self:
        """A store on an account, with a shared access signature."""
        return cls(endpoint=endpoint, sas_token=sas_token, **options)

    @classmethod
    def from_endpoint(
        cls,
        endpoint: str,
        credential: AzureNamedKeyCredential | AzureSasCredential | AsyncTokenCredential,
        **options: Unpack[AzureTableOptions[M]],
    ) -> Self:
        """A store on an account, with a credential of the caller's."""
        return cls(endpoint=endpoint, credential=credential, **options)
