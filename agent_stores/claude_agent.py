"""A session store for the Claude Agent SDK over any of our stores. Needs the extra ``claude-agent``."""

from agent_stores.errors import MissingDependencyError

try:
    import claude_agent_sdk as _claude_agent_sdk
except ImportError as error:
    raise MissingDependencyError.of(
        "claude-agent-sdk", extra="claude-agent", purpose="agent_stores.claude_agent"
    ) from error

from agent_stores.plugins.claude_agent.codec import TranscriptEntryCodec
from agent_stores.plugins.claude_agent.session_store import AgentStoresSessionStore

del _claude_agent_sdk

__all__ = ["AgentStoresSessionStore", "TranscriptEntryCodec"]
