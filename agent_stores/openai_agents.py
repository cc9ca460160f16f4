"""Sessions for the OpenAI Agents SDK over any of our stores. Needs the extra ``openai-agents``."""

from agent_stores.errors import MissingDependencyError

try:
    import agents.memory as _agents
except ImportError as error:
    raise MissingDependencyError.of(
        "openai-agents", extra="openai-agents", purpose="agent_stores.openai_agents"
    ) from error

from agent_stores.plugins.openai_agents.codec import ResponsesItemCodec
from agent_stores.plugins.openai_agents.session import AgentStoresSession

del _agents

__all__ = ["AgentStoresSession", "ResponsesItemCodec"]
