"""Chat message histories for LangChain over any of our stores. Needs the extra ``langchain``."""

from agent_stores.errors import MissingDependencyError

try:
    import langchain_core as _langchain
except ImportError as error:
    raise MissingDependencyError.of(
        "langchain-core", extra="langchain", purpose="agent_stores.langchain"
    ) from error

from agent_stores.plugins.langchain.codec import LangChainCodec
from agent_stores.plugins.langchain.factories import RedisChatMessageHistory, SQLChatMessageHistory
from agent_stores.plugins.langchain.history import AgentStoresChatMessageHistory

del _langchain

__all__ = [
    "AgentStoresChatMessageHistory",
    "LangChainCodec",
    "RedisChatMessageHistory",
    "SQLChatMessageHistory",
]
