"""Chat stores and memory for LlamaIndex over any of our stores. Needs the extra ``llama-index``."""

from agent_stores.errors import MissingDependencyError

try:
    import llama_index.core as _llama_index
except ImportError as error:
    raise MissingDependencyError.of(
        "llama-index-core", extra="llama-index", purpose="agent_stores.llama_index"
    ) from error

from agent_stores.plugins.llama_index.chat_store import AgentStoresChatStore
from agent_stores.plugins.llama_index.codec import LlamaIndexCodec
from agent_stores.plugins.llama_index.db_store import AgentStoresDBChatStore
from agent_stores.plugins.llama_index.factories import (
    AzureChatStore,
    RedisChatStore,
    SimpleChatStore,
    SQLAlchemyChatStore,
)
from agent_stores.plugins.llama_index.memory import AgentStoresMemory

del _llama_index

__all__ = [
    "AgentStoresChatStore",
    "AgentStoresDBChatStore",
    "AgentStoresMemory",
    "AzureChatStore",
    "LlamaIndexCodec",
    "RedisChatStore",
    "SQLAlchemyChatStore",
    "SimpleChatStore",
]
