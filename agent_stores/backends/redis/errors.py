"""Errors of redis-py and of servers, as the library's errors."""

from __future__ import annotations

import asyncio
import re
import traceback

from redis import exceptions as driver

from agent_stores.backends.redis.config import Config
from agent_stores.backends.redis.layout import unsupported_layout
from agent_stores.errors import StoreError, StoreRejectedError, StoreUnavailableError

CONNECTION_ERRORS = (
    *(driver.ConnectionError, driver.TimeoutError, driver.RedisClusterException),
    *(OSError, asyncio.TimeoutError),
)
"""The connection failed or could not be made."""

FAILURES: tuple[type[Exception], ...] = (driver.RedisError, *CONNECTION_ERRORS)
"""All that a command may raise."""

# redis-py's classes take the first word off a server's error; a script's error repeats that of a command.
_READ_ONLY = "the server is a read-only replica"
_REJECTIONS = {
    r"OutOfMemoryError|\bOOM\b": "the server's memory is full",
    r"ReadOnlyError|\bREADONLY\b": _READ_ONLY,
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
_TRANSIENT_ERRORS = (driver.AskError, driver.ClusterError, driver.MasterDownError, *CONNECTION_ERRORS)
_CONNECTING = ("acquire", "connect", "get_connection", "initialize", "refresh")  # functions that do
_REFUSAL = re.compile(r"AGENT(VERSION|DAMAGED) (.*)")  # of our scripts


def _rejection(error: BaseException) -> str | None:
    """Why the server rejects a command, and would again; None for another error."""
    if isinstance(error, driver.ResponseError) or str(type(error).__name__).startswith("Auth"):
        text = f"{type(error).__name__} {error}"
        for pattern, reason in _REJECTIONS.items():
            if re.search(pattern, text):
                return reason
    return None


def is_demoted(error: BaseException) -> bool:
    """Whether the server only reads, as a primary does after a failover."""
    return _rejection(error) == _READ_ONLY


def is_retryable(error: BaseException) -> bool:
    """Whether another attempt may succeed."""
    if _rejection(error) is not None:
        return False
    is_reply = isinstance(error, driver.ResponseError)
    return isinstance(error, _TRANSIENT_ERRORS) or (is_reply and _TRANSIENT.search(str(error)) is not None)


def may_have_applied(error: BaseException) -> bool:
    """Whether the server may have carried out the command: the connection was lost after it was made."""
    if not isinstance(error, CONNECTION_ERRORS) or isinstance(error.__context__, driver.ReadOnlyError):
        return False  # redis-py reports a demoted primary, which rejects the write, as a lost connection
    return not is_connecting(error)


def is_connecting(error: BaseException) -> bool:
    """Whether an error was raised, or a task cancelled, while a connection was waited for or opened."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__
    names = (frame.f_code.co_name for one in chain for frame, _ in traceback.walk_tb(one.__traceback__))
    return any(name.startswith(_CONNECTING) for name in names)


def describe(error: BaseException, config: Config) -> str:
    """What an error says, on one line and without secrets."""
    return config.hide_secrets(" ".join(str(error).split()) or type(error).__name__)


def translate_error(error: BaseException, config: Config) -> Exception:
    """The library's error for one of redis-py or a server."""
    detail, place = describe(error, config), config.place
    refusal, rejection = _REFUSAL.search(detail), _rejection(error)
    if refusal and refusal[1] == "VERSION":
        return unsupported_layout(refusal[2].split()[0])
    if refusal:
        return StoreError(
            f"the thread at {place} is damaged: {refusal[2]}; the server evicted a part of it, or another "
            "program changed its keys. delete_thread() removes the rest; nothing was written"
        )
    if rejection:
        return StoreRejectedError(f"{rejection} at {place}: {detail}; nothing was written")
    if is_retryable(error):
        return StoreUnavailableError(f"no answer from {place}: {detail}; nothing was written")
    return StoreError(f"{place} reported an error: {detail}")
