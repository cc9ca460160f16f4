"""What the oldest supported version of the SDK has no counterpart for."""

from __future__ import annotations

import importlib.util

# RedisSession, EncryptedSession and compaction as they are now came after 0.3.0.
_is_old = importlib.util.find_spec("agents.memory.openai_responses_compaction_session") is None
collect_ignore = ["test_originals.py", "test_compaction.py"] if _is_old else []
