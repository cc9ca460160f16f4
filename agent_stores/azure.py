"""The Azure Tables store: Azure Table Storage and Cosmos DB's API for Table. Needs the extra ``azure``."""

from agent_stores.stores.azure_tables.log import AzureTableMessageLog
from agent_stores.stores.azure_tables.store import AzureTableChatMessageStore

__all__ = ["AzureTableChatMessageStore", "AzureTableMessageLog"]
