"""Events that repeat an earlier one refer to it, so that a tool call and its result are stored once.

AG2 sends a response with tool calls, then an event with all of its calls, then one for each call; and one
for each result, then one with all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from agent_stores.plugins.ag2.parts import EVENT, RESULT_EVENTS, TOOL_CALL, TOOL_CALLS, TOOL_RESULTS
from agent_stores.plugins.json_codec import Data
from agent_stores.plugins.json_diff import changed, difference

_REFERENCE = "$ref"
_CHANGES = "$by"
_LISTS = {TOOL_CALLS: "calls", TOOL_RESULTS: "results"}


class References:
    """The tool calls and results of the events so far, by id; events are JSON."""

    def __init__(self) -> None:
        self._known: dict[str, Data] = {}

    def shorten(self, event: Data) -> Data:
        """The event, with references in place of what earlier events have; it is one of them from now on."""
        short = event
        kind = event.get(EVENT)
        if kind == TOOL_CALL and _key(event) in self._known:
            short = {EVENT: kind, **self._refer(event)}
        elif kind in _LISTS and isinstance(parts := event.get(_LISTS[kind]), list):
            short = {**event, _LISTS[kind]: [self._refer(part) for part in parts]}
        self._add(event)
        return short

    def complete(self, event: Data) -> Data | None:
        """The event that was shortened; None when what it refers to is not there any more."""
        kind = event.get(EVENT)
        try:
            whole: Data = self._resolve(event)
            if kind in _LISTS and isinstance(parts := whole.get(_LISTS[kind]), list):
                whole = {**whole, _LISTS[kind]: [self._resolve(part) for part in parts]}
        except KeyError:
            return None
        self._add(whole)
        return whole

    def _refer(self, part: Any) -> Any:
        key = _key(part)
        earlier = None if key is None else self._known.get(key)
        if earlier is None:
            return part
        changes = difference(earlier, part)
        return {_REFERENCE: key, _CHANGES: changes} if changes else {_REFERENCE: key}

    def _resolve(self, part: Any) -> Any:
        if not isinstance(part, dict) or _REFERENCE not in part:
            return part
        return changed(self._known[part[_REFERENCE]], part.get(_CHANGES, {}))

    def _add(self, event: Data) -> None:
        for part in _parts(event):
            if (key := _key(part)) is not None:
                self._known[key] = part


def _parts(event: Data) -> Iterator[Any]:
    yield event
    calls = event.get("tool_calls")
    for group in (calls.get("calls") if isinstance(calls, dict) else None, event.get("calls")):
        yield from group if isinstance(group, list) else ()
    results = event.get("results")
    yield from results if isinstance(results, list) else ()


def _key(part: Any) -> str | None:
    if not isinstance(part, dict):
        return None
    if part.get(EVENT) == TOOL_CALL:
        return f"call:{part.get('id')}"
    return f"result:{part.get('parent_id')}" if part.get(EVENT) in RESULT_EVENTS else None
