"""A session manager for Strands Agents over any of our stores. Needs the extra ``strands``."""

from agent_stores.errors import MissingDependencyError

try:
    import strands.session as _strands
except ImportError as error:
    raise MissingDependencyError.of(
        "strands-agents", extra="strands", purpose="agent_stores.strands"
    ) from error

from agent_stores.plugins.strands.codec import StrandsMessageCodec
from agent_stores.plugins.strands.session_manager import AgentStoresSessionManager

del _strands

__all__ = ["AgentStoresSessionManager", "StrandsMessageCodec"]
