"""Records of conversations, in the metadata of threads."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from pydantic import TypeAdapter
from pydantic_ai.conversation_store import ConversationRecord

from agent_stores.listing import ThreadStats
from agent_stores.plugins.pydantic_ai.parts import FRAMEWORK

BRANCHES = "#pydantic_ai/"
"""Begins the ids of the threads that hold the entries of branches that conversations left."""

_adapter = TypeAdapter(ConversationRecord)


def kept(stats: ThreadStats | None) -> dict[str, Any]:
    """What Pydantic AI keeps of a thread; empty where it saved nothing."""
    found = None if stats is None else stats.metadata.get(FRAMEWORK)
    return found if isinstance(found, dict) else {}


def record_data(record: ConversationRecord, position: int) -> dict[str, Any]:
    """A record as JSON, with the position of its head."""
    data = _adapter.dump_python(record, mode="json", exclude_none=True)
    data.pop("conversation_id", None)
    return {"position": position, "record": data}


def load_record(stats: ThreadStats) -> ConversationRecord:
    """The record of a thread, at the revision that it has now."""
    data = {"head_id": None, **kept(stats)["record"], "conversation_id": stats.thread_id}
    record = _adapter.validate_python(data)
    record.revision = revision_of(stats)
    if _is_changed(stats):
        record.updated_at = stats.updated_at or record.updated_at
    return record


def foreign_record(stats: ThreadStats) -> ConversationRecord:
    """The record of a conversation that another framework began; its head is not known here."""
    return ConversationRecord(
        conversation_id=stats.thread_id,
        head_id=None,
        revision=revision_of(stats),
        updated_at=stats.updated_at or datetime.now(timezone.utc),
    )


def revision_of(stats: ThreadStats) -> str:
    """The revision of a conversation: that of the last save, unless messages were added to it since.

    Those may be of a save that has not ended, and takes them back when it loses: their number counts, too.
    """
    unsaved = f"{stats.last_position}.{stats.messages}"
    if not kept(stats):
        return f"position-{unsaved}"
    saved = str(kept(stats)["record"]["revision"])
    return f"{saved}+{unsaved}" if _is_changed(stats) else saved


def _is_changed(stats: ThreadStats) -> bool:
    return bool(stats.last_position != kept(stats).get("position", 0))
