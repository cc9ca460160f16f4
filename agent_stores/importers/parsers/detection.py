"""Detects the library that wrote a Redis list from its elements, where the key is ambiguous."""

from __future__ import annotations

import json
from typing import Any


def is_langchain(raw: bytes) -> bool:
    """Whether an element is a message of LangChain."""
    data = _object(raw)
    return isinstance(data.get("type"), str) and isinstance(data.get("data", data.get("text")), (dict, str))


def is_llama_index(raw: bytes) -> bool:
    """Whether an element is a message of LlamaIndex."""
    data = _object(raw)
    return (
        isinstance(data.get("role"), str) and ("blocks" in data or "content" in data) and "type" not in data
    )


def _object(raw: bytes) -> dict[str, Any]:
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}
