"""Sessions for the OpenAI Agents SDK over any of our stores. Needs the extra ``openai-agents``."""

from typing import TYPE_CHECKING, Any

from agent_stores.errors import MissingDependencyError

try:
    import agents.memory as _agents
except ImportError as error:
    raise MissingDependencyError.of(
        "openai-agents", extra="openai-agents", purpose="agent_stores.openai_agents"
    ) from error

from agent_stores.plugins.openai_agents.codec import ResponsesItemCodec
from agent_stores.plugins.openai_agents.factories import RedisSession, SQLAlchemySession, SQLiteSession
from agent_stores.plugins.openai_agents.session import AgentStoresSession

if TYPE_CHECKING:
    from agent_stores.plugins.openai_agents.encrypted import EncryptedSession

del _agents

__all__ = [
    "AgentStoresSession",
    "EncryptedSession",
    "RedisSession",
    "ResponsesItemCodec",
    "SQLAlchemySession",
    "SQLiteSession",
]


def __getattr__(name: str) -> Any:
    """`EncryptedSession` needs the package ``cryptography``, and is imported when it is asked for."""
    if name != "EncryptedSession":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from agent_stores.plugins.openai_agents.encrypted import EncryptedSession
    except ImportError as error:
        raise MissingDependencyError(
            "EncryptedSession needs the package 'cryptography', which is not installed: "
            "pip install 'openai-agents[encrypt]'",
            name="cryptography",
        ) from error
    return EncryptedSession
