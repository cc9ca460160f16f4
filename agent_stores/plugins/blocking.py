"""The synchronous form of an asynchronous method, for classes that have both."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])


def blocking(method: Callable[..., Coroutine[Any, Any, Any]], overridden: F) -> F:
    """A method that waits for an asynchronous one, with its arguments, by the stores of its object.

    Args:
        method: the asynchronous one, whose name begins with an ``a``.
        overridden: the framework's method that it overrides, for its name and type.
    """

    @wraps(overridden)
    def wait(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self._opened.wait(method(self, *args, **kwargs))

    wait.__doc__ = f"See `{method.__name__}`; blocks."
    return cast("F", wait)
