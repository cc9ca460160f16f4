"""Taking over conversations that other libraries stored: `agent-stores migrate`, and the same from Python."""

from agent_stores.importers.catalogue import open_source
from agent_stores.importers.migrate import Options, Progress, migrate
from agent_stores.importers.report import MigrationReport, Problem
from agent_stores.importers.source import Source, SourceError, SourceMessage, SourceThread, UnreadableError
from agent_stores.importers.thread_names import ThreadNames, read_names

__all__ = [
    "MigrationReport",
    "Options",
    "Problem",
    "Progress",
    "Source",
    "SourceError",
    "SourceMessage",
    "SourceThread",
    "ThreadNames",
    "UnreadableError",
    "migrate",
    "open_source",
    "read_names",
]
