"""The synchronous form of an asynchronous method, for classes that have both."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])


def blocking(
    method: Callable[..., Coroutine[Any, Any, Any]],
    overridden: F,
    thread_of: Callable[..., str] | None = None,
) -> F:
    """A method that waits for an asynchronous one, with its arguments, by the stores of its object.

    Args:
        method: the asynchronous one, whose name begins with an ``a``.
        overridden: the framework's method that it overrides, for its name and type.
        thread_of: gives the one thread that a call works on, for the arguments of the call.
    """
    name = method.__name__

    @wraps(overridden, updated=())  # without its mark of an abstract method
    def wait(self: Any, *args: Any, **kwargs: Any) -> Any:
        thread_id = None if thread_of is None else thread_of(self, *args, **kwargs)
        return self._opened.wait(getattr(self, name)(*args, **kwargs), thread_id)

    wait.__doc__ = f"See `{name}`; blocks."
    return cast("F", wait)
