"""The message classes of the installed Agent Framework, whichever of its versions it is."""

from __future__ import annotations

import inspect
import sys
from functools import cached_property, lru_cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any, get_args

from agent_stores.errors import MissingDependencyError

try:  # now, as this reads files, which would block an event loop later
    _VERSION = version("agent-framework-core")
except PackageNotFoundError:
    _VERSION = "unknown"


class Installed:
    """The names of a version that messages are made of.

    The betas call a message ``ChatMessage``, and from 1.0.0b260210 on it is ``Message``. Fields and kinds of
    contents were added with nearly every version.

    Raises:
        MissingDependencyError: when there is none, or one before 1.0.0b260123.
    """

    def __init__(self) -> None:
        try:
            self.module = import_module("agent_framework")
            self.message: Any = getattr(self.module, "ChatMessage", None) or self.module.Message
            self.content: Any = self.module.Content
        except (ImportError, AttributeError):
            raise MissingDependencyError.of(
                "agent-framework-core", extra="agent-framework", purpose="the plug-in for Agent Framework"
            ) from None

    @property
    def version(self) -> str:
        """The version's number."""
        return _VERSION

    @property
    def is_beta(self) -> bool:
        """Whether its messages have the betas' layout."""
        return "items" not in self.content_fields

    @cached_property
    def message_fields(self) -> frozenset[str]:
        """What the message class takes as keywords."""
        return frozenset(inspect.signature(self.message).parameters)

    @cached_property
    def content_fields(self) -> frozenset[str]:
        """What the content class takes, other than `raw_representation`."""
        return frozenset(inspect.signature(self.content).parameters) - {"raw_representation"}

    @cached_property
    def content_types(self) -> frozenset[str]:
        """The kinds of contents that it knows; empty where it does not say."""
        known = getattr(sys.modules[self.content.__module__], "ContentType", None)
        return frozenset(get_args(known))


@lru_cache(maxsize=1)
def installed() -> Installed:
    """The installed version's, looked up once."""
    return Installed()
