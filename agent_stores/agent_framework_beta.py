"""Home of the plug-in for Microsoft Agent Framework's betas that have message stores.

Needs ``agent-stores[agent-framework-beta]``: 1.0.0b260123 to 1.0.0b260210; see
docs/plugins-agent-framework-beta.md.
"""

from agent_stores.errors import MissingDependencyError

try:
    from agent_framework import ChatMessageStoreProtocol as _StoreProtocol  # type: ignore # noqa: F401
    from agent_framework import Content as _Content  # noqa: F401 - looked for only
except ImportError:
    raise MissingDependencyError.of(
        "agent-framework-core>=1.0.0b260123,<=1.0.0b260210",
        extra="agent-framework-beta",
        purpose="agent_stores.agent_framework_beta",
    ) from None

from agent_stores.plugins.agent_framework.codec import AgentFrameworkCodec
from agent_stores.plugins.agent_framework_beta.context import ContextProviderAdapter
from agent_stores.plugins.agent_framework_beta.store import (
    ChatMessageStoreAdapter,
    ChatMessageStoreFactory,
    RedisChatMessageStore,
)

__all__ = [
    "AgentFrameworkCodec",
    "ChatMessageStoreAdapter",
    "ChatMessageStoreFactory",
    "ContextProviderAdapter",
    "RedisChatMessageStore",
]
