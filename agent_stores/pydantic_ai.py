"""A conversation store for Pydantic AI over any of our stores. Needs the extra ``pydantic-ai``."""

from agent_stores.errors import MissingDependencyError

try:
    import pydantic_ai.conversation_store as _pydantic_ai
except ImportError as error:
    raise MissingDependencyError.of(
        "pydantic-ai-slim", extra="pydantic-ai", purpose="agent_stores.pydantic_ai"
    ) from error

from agent_stores.plugins.pydantic_ai.codec import ModelMessageCodec
from agent_stores.plugins.pydantic_ai.store import AgentStoresConversationStore

del _pydantic_ai

__all__ = ["AgentStoresConversationStore", "ModelMessageCodec"]
