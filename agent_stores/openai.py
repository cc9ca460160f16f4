"""Home of what talks to OpenAI's API; the ``openai`` package itself comes with ``agent-stores[openai]``."""

from agent_stores.agent.openai_client import OpenAIChatClient
from agent_stores.agent.openai_format import from_openai_message, to_openai_messages

__all__ = ["OpenAIChatClient", "from_openai_message", "to_openai_messages"]
