"""A storage for AG2 over any of our stores. Needs the extra ``ag2``."""

from agent_stores.errors import MissingDependencyError

try:
    import ag2.history as _ag2
except ImportError as error:
    raise MissingDependencyError.of("ag2", extra="ag2", purpose="agent_stores.ag2") from error

from agent_stores.plugins.ag2.codec import EventCodec
from agent_stores.plugins.ag2.storage import AgentStoresStorage

del _ag2

__all__ = ["AgentStoresStorage", "EventCodec"]
