"""agent-stores: durable conversations for LLM agents.

One conversation, any agent framework, any database. Start with a store and `AgentThread`, or with the small
`ChatAgent`; docs/ has a page for each subject.
"""

import importlib
from typing import TYPE_CHECKING, Any

from agent_stores._version import __version__
from agent_stores.backend import Backend
from agent_stores.capabilities import SearchHit
from agent_stores.contents import (
    AnyContent,
    ApprovalRequestContent,
    ApprovalResponseContent,
    Content,
    DataContent,
    ErrorContent,
    OpaqueContent,
    ReasoningContent,
    TextContent,
    ToolCallContent,
    ToolResultContent,
    UriContent,
    UsageContent,
)
from agent_stores.errors import (
    AgentRunError,
    AgentStoresError,
    ArgumentError,
    ArgumentTypeError,
    ConflictError,
    ContextProviderError,
    CorruptMessageError,
    EncryptionKeyError,
    MessageFormatError,
    MessageTooLargeError,
    MissingDependencyError,
    NotFoundError,
    NotReplicatedError,
    OutcomeUnknownError,
    StateError,
    StateSignatureError,
    StoreClosedError,
    StoreError,
    StoreRejectedError,
    StoreUnavailableError,
    ThreadExistsError,
    UnansweredToolCallError,
    UnsupportedVersionError,
)
from agent_stores.listing import ThreadPage, ThreadStats
from agent_stores.log import MessageLog
from agent_stores.memory import InMemoryChatMessageStore, InMemoryMessageLog
from agent_stores.messages import ChatMessage
from agent_stores.protocols import ChatMessageStoreProtocol, Context, ContextProvider, MessageCodec
from agent_stores.retention import Window
from agent_stores.store import ChatMessageStore, SearchResult, StoredMessage
from agent_stores.urls import open_log

if TYPE_CHECKING:
    from agent_stores.agent import (
        AgentResponse,
        AgentUpdate,
        ChatAgent,
        ChatClient,
        ChatResponse,
        ChatUpdate,
        OpenAIChatClient,
        Tool,
        tool,
    )
    from agent_stores.azure import AzureTableChatMessageStore
    from agent_stores.context import RecallProvider, SummaryProvider
    from agent_stores.database import DatabaseChatMessageStore
    from agent_stores.dynamodb import DynamoDBChatMessageStore
    from agent_stores.encryption import DataKeys, KeyRing, KeyService, LocalKeyService, rekey
    from agent_stores.redis import RedisChatMessageStore
    from agent_stores.threads import AgentThread

__all__ = [
    "AgentResponse",
    "AgentRunError",
    "AgentStoresError",
    "AgentThread",
    "AgentUpdate",
    "AnyContent",
    "ApprovalRequestContent",
    "ApprovalResponseContent",
    "ArgumentError",
    "ArgumentTypeError",
    "AzureTableChatMessageStore",
    "Backend",
    "ChatAgent",
    "ChatClient",
    "ChatMessage",
    "ChatMessageStore",
    "ChatMessageStoreProtocol",
    "ChatResponse",
    "ChatUpdate",
    "ConflictError",
    "Content",
    "Context",
    "ContextProvider",
    "ContextProviderError",
    "CorruptMessageError",
    "DataContent",
    "DataKeys",
    "DatabaseChatMessageStore",
    "DynamoDBChatMessageStore",
    "EncryptionKeyError",
    "ErrorContent",
    "InMemoryChatMessageStore",
    "InMemoryMessageLog",
    "KeyRing",
    "KeyService",
    "LocalKeyService",
    "MessageCodec",
    "MessageFormatError",
    "MessageLog",
    "MessageTooLargeError",
    "MissingDependencyError",
    "NotFoundError",
    "NotReplicatedError",
    "OpaqueContent",
    "OpenAIChatClient",
    "OutcomeUnknownError",
    "ReasoningContent",
    "RecallProvider",
    "RedisChatMessageStore",
    "SearchHit",
    "SearchResult",
    "StateError",
    "StateSignatureError",
    "StoreClosedError",
    "StoreError",
    "StoreRejectedError",
    "StoreUnavailableError",
    "StoredMessage",
    "SummaryProvider",
    "TextContent",
    "ThreadExistsError",
    "ThreadPage",
    "ThreadStats",
    "Tool",
    "ToolCallContent",
    "ToolResultContent",
    "UnansweredToolCallError",
    "UnsupportedVersionError",
    "UriContent",
    "UsageContent",
    "Window",
    "__version__",
    "open_log",
    "rekey",
    "tool",
]

# Imported when they are first used: agents and backends would triple the time of `import agent_stores`.
_LAZY = {
    "AgentResponse": "agent_stores.agent",
    "AgentUpdate": "agent_stores.agent",
    "ChatAgent": "agent_stores.agent",
    "ChatClient": "agent_stores.agent",
    "ChatResponse": "agent_stores.agent",
    "ChatUpdate": "agent_stores.agent",
    "OpenAIChatClient": "agent_stores.agent",
    "Tool": "agent_stores.agent",
    "tool": "agent_stores.agent",
    "AzureTableChatMessageStore": "agent_stores.azure",
    "RecallProvider": "agent_stores.context",
    "SummaryProvider": "agent_stores.context",
    "DatabaseChatMessageStore": "agent_stores.database",
    "DynamoDBChatMessageStore": "agent_stores.dynamodb",
    "DataKeys": "agent_stores.encryption",
    "KeyRing": "agent_stores.encryption",
    "KeyService": "agent_stores.encryption",
    "LocalKeyService": "agent_stores.encryption",
    "rekey": "agent_stores.encryption",
    "RedisChatMessageStore": "agent_stores.redis",
    "AgentThread": "agent_stores.threads",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'agent_stores' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_LAZY[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
