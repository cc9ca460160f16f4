"""Home of the plug-in for Microsoft Agent Framework 1.x: docs/plugins-agent-framework.md.

Needs ``agent-stores[agent-framework]``. The betas have `agent_stores.agent_framework_beta`.
"""

from agent_stores.errors import MissingDependencyError

try:
    from agent_framework import HistoryProvider as _HistoryProvider  # noqa: F401 - looked for only
except ImportError:
    raise MissingDependencyError.of(
        "agent-framework-core>=1.0,<2", extra="agent-framework", purpose="agent_stores.agent_framework"
    ) from None

from agent_stores.plugins.agent_framework.codec import AgentFrameworkCodec
from agent_stores.plugins.agent_framework.context import ContextProviderAdapter
from agent_stores.plugins.agent_framework.history import AgentStoresHistoryProvider

__all__ = ["AgentFrameworkCodec", "AgentStoresHistoryProvider", "ContextProviderAdapter"]
