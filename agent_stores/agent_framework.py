"""Home of the plug-in for Microsoft Agent Framework 1.x: docs/plugins-agent-framework.md.

Needs ``agent-stores[agent-framework]``. The betas have `agent_stores.agent_framework_beta`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from agent_stores.errors import MissingDependencyError

try:
    from agent_framework import HistoryProvider as _HistoryProvider  # noqa: F401 - looked for only
except ImportError:
    raise MissingDependencyError.of(
        "agent-framework-core>=1.0,<2", extra="agent-framework", purpose="agent_stores.agent_framework"
    ) from None

from agent_stores.plugins.agent_framework.codec import AgentFrameworkCodec
from agent_stores.plugins.agent_framework.context import ContextProviderAdapter
from agent_stores.plugins.agent_framework.history import AgentStoresHistoryProvider, RedisHistoryProvider

if TYPE_CHECKING:
    from agent_stores.plugins.agent_framework.checkpoints import AgentStoresCheckpointStorage
    from agent_stores.plugins.agent_framework.sessions import AgentStoresSessionStore

__all__ = [
    "AgentFrameworkCodec",
    "AgentStoresCheckpointStorage",
    "AgentStoresHistoryProvider",
    "AgentStoresSessionStore",
    "ContextProviderAdapter",
    "RedisHistoryProvider",
]

# Sessions exist in the newest versions only, where the framework warns that they are experimental; workflows
# take long to import.
_LAZY = {"AgentStoresCheckpointStorage": "checkpoints", "AgentStoresSessionStore": "sessions"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = import_module(f"agent_stores.plugins.agent_framework.{_LAZY[name]}")
    except ImportError:
        raise MissingDependencyError.of(
            "agent-framework-core>=1.23,<2", extra="agent-framework", purpose=f"{__name__}.{name}"
        ) from None
    return getattr(module, name)
