"""Whether a class of ours is made with the arguments of the framework's own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

_VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def check_arguments(
    theirs: Callable[..., Any], ours: Callable[..., Any], names: Mapping[str, str] | None = None
) -> None:
    """Every argument of theirs is one of ours, by its place and by its name, and ours needs no other.

    Args:
        theirs, ours: the two classes, or methods that make them.
        names: those of our arguments at the places of theirs, where they have another name.
    """
    parameters = [one for one in inspect.signature(theirs).parameters.values() if one.kind not in _VARIABLE]
    named = {one.name: one.name for one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY}
    placed = [one.name for one in parameters if one.name not in named]
    signature = inspect.signature(ours)
    bound = signature.bind(*placed, **named).arguments
    assert bound == {(names or {}).get(name, name): name for name in [*placed, *named]}
    by_name = signature.bind(**{one.name: one.name for one in parameters}).arguments
    assert by_name == {one.name: one.name for one in parameters}
    signature.bind(**{one.name: 0 for one in parameters if one.default is one.empty})
