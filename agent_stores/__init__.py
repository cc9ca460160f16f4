"""agent-stores: durable conversations for LLM agents.

One conversation, any agent framework, any database. Start with a store and `AgentThread`, or with the small
`ChatAgent`; docs/ has a page for each subject.
"""

from agent_stores._version import __version__
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
from agent_stores.log import MessageLog
from agent_stores.messages import ChatMessage
from agent_stores.protocols import ChatMessageStoreProtocol, Context, ContextProvider, MessageCodec
from agent_stores.retention import Window
from agent_stores.stores.base import ChatMessageStore, StoredMessage
from agent_stores.stores.database.store import DatabaseChatMessageStore
from agent_stores.stores.memory import InMemoryChatMessageStore, InMemoryMessageLog
from agent_stores.urls import open_log
