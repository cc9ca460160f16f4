"""A session service for Google ADK over any of our stores. Needs the extra ``google-adk``."""

from agent_stores.errors import MissingDependencyError

try:
    import google.adk as _google_adk
except ImportError as error:
    raise MissingDependencyError.of(
        "google-adk", extra="google-adk", purpose="agent_stores.google_adk"
    ) from error

from agent_stores.plugins.google_adk.codec import EventCodec
from agent_stores.plugins.google_adk.factories import (
    DatabaseSessionService,
    InMemorySessionService,
    SqliteSessionService,
)
from agent_stores.plugins.google_adk.service import AgentStoresSessionService

del _google_adk

__all__ = [
    "AgentStoresSessionService",
    "DatabaseSessionService",
    "EventCodec",
    "InMemorySessionService",
    "SqliteSessionService",
]
