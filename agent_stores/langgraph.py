"""A checkpointer for LangGraph over any of our stores. Needs the extra ``langgraph``."""

from agent_stores.errors import MissingDependencyError

try:
    import langgraph.checkpoint.base as _langgraph
except ImportError as error:
    raise MissingDependencyError.of(
        "langgraph-checkpoint", extra="langgraph", purpose="agent_stores.langgraph"
    ) from error

from agent_stores.plugins.langgraph.factories import (
    AsyncPostgresSaver,
    AsyncRedisSaver,
    AsyncSqliteSaver,
    InMemorySaver,
    PostgresSaver,
    RedisSaver,
    SqliteSaver,
)
from agent_stores.plugins.langgraph.saver import AgentStoresSaver

del _langgraph

__all__ = [
    "AgentStoresSaver",
    "AsyncPostgresSaver",
    "AsyncRedisSaver",
    "AsyncSqliteSaver",
    "InMemorySaver",
    "PostgresSaver",
    "RedisSaver",
    "SqliteSaver",
]
