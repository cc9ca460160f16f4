"""`ChatAgent` and what belongs to it: enough to hold a conversation, stream it and call Python functions."""

from agent_stores.agent.agent import AgentInput, ChatAgent, StoreFactory
from agent_stores.agent.chat_client import ChatClient, ChatResponse, ChatUpdate
from agent_stores.agent.openai_client import OpenAIChatClient
from agent_stores.agent.openai_format import from_openai_message, to_openai_messages
from agent_stores.agent.providers import AggregateContextProvider
from agent_stores.agent.responses import AgentResponse, AgentUpdate
from agent_stores.agent.tools import Tool, ToolInput, tool

__all__ = [
    "AgentInput",
    "AgentResponse",
    "AgentUpdate",
    "AggregateContextProvider",
    "ChatAgent",
    "ChatClient",
    "ChatResponse",
    "ChatUpdate",
    "OpenAIChatClient",
    "StoreFactory",
    "Tool",
    "ToolInput",
    "from_openai_message",
    "to_openai_messages",
    "tool",
]
