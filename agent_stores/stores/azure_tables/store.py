"""`AzureTableChatMessageStore`: a conversation in Azure Table Storage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from typing_extensions import Self, TypeVar, Unpack

from agent_stores.messages import ChatMessage
from agent_stores.store import ChatMessageStore
from agent_stores.store_options import StoreOptions

if TYPE_CHECKING:
    from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential
    from azure.core.credentials_async import AsyncTokenCredential
    from azure.data.tables.aio import TableServiceClient

M = TypeVar("M", default=ChatMessage)


class AzureTableOptions(StoreOptions[M], total=False):
    """What every way of connecting takes beside it; see `AzureTableChatMessageStore`."""

    table_name: str
    timeout: float
    client_options: Mapping[str, Any] | None


class AzureTableChatMessageStore(ChatMessageStore[M]):
    """A conversation in a table of Azure Table Storage, or of Cosmos DB's API for Table.

    Accepted is exactly one of `connection_string`, `endpoint` or `account_name` with a login, and
    `table_service_client`. The methods whose names begin with ``from_`` are one for each way.

    Args:
        connection_string: as the portal shows it, with the account's key or a shared access signature, or
            ``UseDevelopmentStorage=true`` for Azurite.
        endpoint: the account's URL for tables, as ``https://account.table.core.windows.net``.
        account_name: the account's name; where nothing else says who asks, azure-identity's
            `DefaultAzureCredential` does.
        account_key: the account's key.
        sas_token: a shared access signature.
        credential: an `AzureNamedKeyCredential`, `AzureSasCredential` or asynchronous token credential, as
            those of `azure.identity.aio`; it stays the caller's.
        table_service_client: an `azure.data.tables.aio.TableServiceClient`; it stays the caller's.
        table_name: the table, 3 to 63 letters and digits; it is made where it is missing.
        timeout: seconds that a step of an operation may take, attempts and pauses included.
        client_options: further arguments of `TableServiceClient`.
        options: those of `ChatMessageStore`: ``thread_id``, ``tenant``, ``max_messages``, ``ttl`` and so on.

    Raises:
        ArgumentError, ArgumentTypeError: for values that are not accepted.
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
        # Imported here, so that the class can be imported where azure-data-tables is not installed.
        from agent_stores.stores.azure_tables.log import AzureTableMessageLog

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
        )
        super().__init__(log, **options)
        self._own(log)

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
        **options: Unpack[AzureTableOptions[M]],
    ) -> Self:
        """A store on an account, with its key; the endpoint is Azure's public one by default."""
        return cls(account_name=account_name, account_key=account_key, endpoint=endpoint, **options)

    @classmethod
    def from_account_and_id(
        cls, account_name: str, endpoint: str | None = None, **options: Unpack[AzureTableOptions[M]]
    ) -> Self:
        """A store on an account, as whom azure-identity's `DefaultAzureCredential` finds."""
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
