"""Errors of redis-py and of servers, as the library's errors."""

from __future__ import annotations

import asyncio
import re
import traceback

from redis import exceptions as driver

from agent_stores.attempts import FailedAttempt
from agent_stores.backends.redis.config import Config
from agent_stores.backends.redis.layout import unsupported_layout
from agent_stores.errors import StoreError, StoreRejectedError, StoreUnavailableError, redact

_CONNECTION_ERRORS = (
    *(driver.ConnectionError, driver.TimeoutError, driver.RedisClusterException),
    *(OSError, asyncio.TimeoutError),
)
FAILURES: tuple[type[Exception], ...] = (driver.RedisError, *_CONNECTION_ERRORS)
"""All that a command may raise."""

# redis-py's classes take the first word off a server's error; a script's error repeats that of a command.
_READ_ONLY = r"ReadOnlyError|\bREADONLY\b"
_REJECTIONS = {
    r"OutOfMemoryError|\bOOM\b": "the server's memory is full",
    _READ_ONLY: "the server is a read-only replica",
    r"NoPermission|\bNOPERM\b|ACL failure in script|The user executing the script can't": (
        "the user does not have the permission"
    ),
    r"^Auth.*required|\bNOAUTH\b": "the server asks for a password",
    r"^Auth|\bWRONGPASS\b": "the user name or the password is wrong",
    r"\bMISCONF\b": "the server cannot save its data",
    r"\bNOREPLICAS\b": "the server has too few replicas",
}
# `AskError` is the base of both kinds of redirection; a slot that moves ends with a bare `ClusterError`.
_TRANSIENT = re.compile(r"\b(MASTERDOWN|CLUSTERDOWN|LOADING|BUSY|TRYAGAIN)\b")
_TRANSIENT_ERRORS = (driver.AskError, driver.ClusterError, *_CONNECTION_ERRORS)
_CONNECTING = ("acquire", "connect", "get_connection", "initialize", "refresh")  # functions that do
_REFUSAL = re.compile(r"AGENT(VERSION|DAMAGED) (.*)")  # of our scripts


def explain(error: Exception, config: Config) -> FailedAttempt:
    """What one of `FAILURES` means."""
    detail = redact(str(error) or type(error).__name__, config.secrets)
    translated = _translate(error, detail, config.location)
    # redis-py reports a demoted primary, which rejects the write, as a lost connection.
    is_lost = isinstance(error, _CONNECTION_ERRORS) and not isinstance(
        error.__context__, driver.ReadOnlyError
    )
    return FailedAttempt(
        translated,
        detail,
        error,
        may_retry=isinstance(translated, StoreUnavailableError) or is_moved(error, config),
        may_have_applied=is_lost and not _is_connecting(error),
    )


def is_moved(error: Exception, config: Config) -> bool:
    """Whether the client has to look for the server: a primary was demoted, or a slot is elsewhere."""
    is_demoted = config.kind != "single" and re.search(_READ_ONLY, f"{type(error).__name__} {error}")
    return isinstance(error, driver.AskError) or bool(is_demoted)


def _translate(error: Exception, detail: str, place: str) -> Exception:
    text = f"{type(error).__name__} {error}"
    if refusal := _REFUSAL.search(detail):
        if refusal[1] == "VERSION":
            return unsupported_layout(refusal[2].split()[0])
        return StoreError(
            f"the thread at {place} is damaged: {refusal[2]}; the server evicted a part of it, or another "
            "program changed its keys. delete_thread() removes the rest; nothing was written"
        )
    for pattern, reason in _REJECTIONS.items():
        if re.search(pattern, text):
            return StoreRejectedError(f"{reason} at {place}: {detail}; nothing was written")
    if isinstance(error, _TRANSIENT_ERRORS) or _TRANSIENT.search(text):
        return StoreUnavailableError(f"no answer from {place}: {detail}; nothing was written")
    return StoreError(f"{place} reported an error: {detail}")


def _is_connecting(error: BaseException) -> bool:
    """Whether an error was raised, or a task cancelled, while a connection was waited for or opened."""
    names = [frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__)]
    # Before Python 3.11, a TimeoutError has no cause.
    cause = error.__cause__ or (error.__context__ if isinstance(error, asyncio.TimeoutError) else None)
    is_here = any(name.startswith(_CONNECTING) for name in names)
    return is_here or (cause is not None and _is_connecting(cause))
