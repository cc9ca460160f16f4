"""What a framework's message has beyond a `ChatMessage`: kept beside it, under the framework's name.

A codec puts what it can into the neutral fields, so that every other plug-in reads it, and the rest into
``additional_properties[framework]`` of the message or part that it belongs to. A part of which nothing has a
neutral form becomes an `OpaqueContent` of type ``"<framework>.<kind>"``. So a message comes back to its own
framework exactly, also where the neutral form says less; docs/message-format.md names the keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from agent_stores.contents import Content
from agent_stores.messages import ChatMessage

FrameworkData: TypeAlias = Mapping[str, Any]


def framework_data(part: ChatMessage | Content, framework: str) -> FrameworkData:
    """What a framework left with a message or part; empty where there is nothing, or nothing of its own."""
    found = part.additional_properties.get(framework)
    return found if isinstance(found, Mapping) else {}


def with_framework_data(properties: Mapping[str, Any], framework: str, rest: FrameworkData) -> dict[str, Any]:
    """Additional properties, with what a framework leaves; nothing is added for an empty rest."""
    return {**properties, framework: dict(rest)} if rest else dict(properties)


def without_framework_data(properties: Mapping[str, Any], framework: str) -> dict[str, Any]:
    """Additional properties as the framework gave them: without what its codec added."""
    return {name: value for name, value in properties.items() if name != framework}
