"""A store for ChatKit servers over any of our stores. Needs the extra ``chatkit``."""

from agent_stores.errors import MissingDependencyError

try:
    import chatkit.store as _chatkit
except ImportError as error:
    raise MissingDependencyError.of(
        "openai-chatkit", extra="chatkit", purpose="agent_stores.chatkit"
    ) from error

from agent_stores.plugins.chatkit.codec import ThreadItemCodec
from agent_stores.plugins.chatkit.store import AgentStoresChatKitStore

del _chatkit

__all__ = ["AgentStoresChatKitStore", "ThreadItemCodec"]
