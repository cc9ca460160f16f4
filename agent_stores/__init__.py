"""agent-stores: durable conversations for LLM agents.

One conversation, any agent framework, any database. Start with a store and `AgentThread`, or with the small
`ChatAgent`; docs/ has a page for each subject.
"""

from agent_stores._version import __version__
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
from agent_stores.context import RecallProvider, SummaryProvider
from agent_stores.errors import (
    AgentRunError,
    AgentStoresError,
    ArgumentError,
    ArgumentTypeError,
    ConflictError,
    ContextProviderError,
    CorruptMessageError,
    MessageFormatError,
    MessageTooLargeError,
    MissingDependencyError,
    NotFoundError,
    OutcomeUnknownError,
    StateError,
    StateSignatureError,
    StoreClosedError,
    StoreError,
    StoreRefusedError,
    StoreUnavailableError,
    ThreadExistsError,
    UnansweredToolCallError,
    UnsupportedVersionError,
)
from agent_stores.log import MessageLog, ThreadPage, ThreadStats
from agent_stores.messages import ChatMessage
from agent_stores.protocols import ChatMessageStoreProtocol, Context, ContextProvider, MessageCodec
from agent_stores.retention import Window
from agent_stores.search import Found, SearchableLog
from agent_stores.stores.azure_tables.store import AzureTableChatMessageStore
from agent_stores.stores.base import ChatMessageStore, FoundMessage, StoredMessage
from agent_stores.stores.database.store import DatabaseChatMessageStore
from agent_stores.stores.memory import InMemoryChatMessageStore, InMemoryMessageLog
from agent_stores.stores.redis.store import RedisChatMessageStore
from agent_stores.threads import AgentThread
from agent_stores.urls import open_log

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
    "DatabaseChatMessageStore",
    "ErrorContent",
    "Found",
    "FoundMessage",
    "InMemoryChatMessageStore",
    "InMemoryMessageLog",
    "MessageCodec",
    "MessageFormatError",
    "MessageLog",
    "MessageTooLargeError",
    "MissingDependencyError",
    "NotFoundError",
    "OpaqueContent",
    "OpenAIChatClient",
    "OutcomeUnknownError",
    "ReasoningContent",
    "RecallProvider",
    "RedisChatMessageStore",
    "SearchableLog",
    "StateError",
    "StateSignatureError",
    "StoreClosedError",
    "StoreError",
    "StoreRefusedError",
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
    "tool",
]
