"""The message classes of the installed Agent Framework, whichever of its versions it is.

The betas call a message ``ChatMessage``, and from 1.0.0b260210 on it is ``Message``. Fields and kinds of
contents were added with nearly every version. Importing this raises `MissingDependencyError` when there is no
version, or one before 1.0.0b260123.
"""

from __future__ import annotations

import inspect
import sys
from importlib import import_module
from typing import Any, get_args

from agent_stores.errors import MissingDependencyError

try:
    framework: Any = import_module("agent_framework")
    MESSAGE: Any = getattr(framework, "ChatMessage", None) or framework.Message
    CONTENT: Any = framework.Content
except (ImportError, AttributeError):
    raise MissingDependencyError.of(
        "agent-framework-core", extra="agent-framework", purpose="the plug-in for Agent Framework"
    ) from None

VERSION = str(getattr(framework, "__version__", "unknown"))
"""The version's number."""

MESSAGE_FIELDS = frozenset(inspect.signature(MESSAGE).parameters)
"""What the message class takes as keywords."""

CONTENT_FIELDS = frozenset(inspect.signature(CONTENT).parameters) - {"raw_representation"}
"""What the content class takes, other than `raw_representation`."""

CONTENT_TYPES = frozenset(get_args(getattr(sys.modules[CONTENT.__module__], "ContentType", None)))
"""The kinds of contents that it knows; empty where it does not say."""

IS_BETA = "items" not in CONTENT_FIELDS
"""Whether its messages have the betas' layout."""
