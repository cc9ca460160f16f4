"""Taking over conversations that other libraries stored: `agent-stores migrate`, and the same from Python."""

from agent_stores.importers.migrate import MigrationOptions, Progress, migrate
from agent_stores.importers.registry import open_source
from agent_stores.importers.report import MigrationReport, Problem
from agent_stores.importers.source import Source, SourceError, SourceMessage, SourceThread, UnreadableError
from agent_stores.importers.thread_id_map import ThreadIdMap, read_id_map

__all__ = [
    "MigrationOptions",
    "MigrationReport",
    "Problem",
    "Progress",
    "Source",
    "SourceError",
    "SourceMessage",
    "SourceThread",
    "ThreadIdMap",
    "UnreadableError",
    "migrate",
    "open_source",
    "read_id_map",
]
