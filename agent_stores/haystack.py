"""A chat message store for Haystack over any of our stores. Needs the extra ``haystack``."""

from agent_stores.errors import MissingDependencyError

try:
    import haystack.dataclasses as _haystack
except ImportError as error:
    raise MissingDependencyError.of(
        "haystack-experimental", extra="haystack", purpose="agent_stores.haystack"
    ) from error

from agent_stores.plugins.haystack.codec import HaystackMessageCodec
from agent_stores.plugins.haystack.message_store import AgentStoresChatMessageStore

del _haystack

__all__ = ["AgentStoresChatMessageStore", "HaystackMessageCodec"]
