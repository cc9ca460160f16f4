"""Errors of redis-py and of servers, as the library's errors."""

from __future__ import annotations

import re
import traceback

from redis import exceptions as driver

from agent_stores.backends.redis.config import Config
from agent_stores.backends.redis.layout import unsupported_layout
from agent_stores.errors import (
    OutcomeUnknownError,
    StoreError,
    StoreRejectedError,
    StoreUnavailableError,
    redact,
)

CONNECTION_ERRORS = (driver.ConnectionError, driver.TimeoutError, driver.RedisClusterException, OSError)
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
_TRANSIENT_ERRORS = (driver.AskError, driver.ClusterError, *CONNECTION_ERRORS)
_REFUSAL = re.compile(r"AGENT(VERSION|DAMAGED) (.*)")  # of our scripts


def _classify(error: BaseException) -> tuple[type[StoreError], str]:
    """The class of the library's error for one of redis-py or a server, and what happened."""
    text = f"{type(error).__name__} {error}"
    for pattern, reason in _REJECTIONS.items():
        if re.search(pattern, text):
            return StoreRejectedError, f"{reason} at"
    if isinstance(error, _TRANSIENT_ERRORS) or _TRANSIENT.search(text):
        return StoreUnavailableError, "no answer from"
    return StoreError, "an error of"


def is_demoted(error: BaseException) -> bool:
    """Whether the server only reads, as a primary does after a failover."""
    return _READ_ONLY in _classify(error)[1]


def is_retryable(error: BaseException) -> bool:
    """Whether another attempt may succeed."""
    return _classify(error)[0] is StoreUnavailableError


def may_have_applied(error: BaseException) -> bool:
    """Whether the server may have carried out the command: the connection was lost after it was made."""
    if not isinstance(error, CONNECTION_ERRORS) or isinstance(error.__context__, driver.ReadOnlyError):
        return False  # redis-py reports a demoted primary, which rejects the write, as a lost connection
    return not is_connecting(error)


def is_connecting(error: BaseException) -> bool:
    """Whether an error was raised, or a task cancelled, while redis-py opened a connection."""
    names = [frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__)]
    is_there = any(name.startswith(("connect", "get_connection", "initialize")) for name in names)
    return is_there or (error.__cause__ is not None and is_connecting(error.__cause__))


def translate_error(error: BaseException, config: Config, *, is_unknown: bool = False) -> Exception:
    """The library's error for one of redis-py or a server; `is_unknown` if it may have been carried out."""
    detail, place = redact(str(error) or type(error).__name__, config.secrets), config.location
    if is_unknown:
        return OutcomeUnknownError(
            f"the connection to {place} was lost while a write was confirmed ({detail}): "
            "it may or may not be stored"
        )
    refusal = _REFUSAL.search(detail)
    if refusal and refusal[1] == "VERSION":
        return unsupported_layout(refusal[2].split()[0])
    if refusal:
        return StoreError(
            f"the thread at {place} is damaged: {refusal[2]}; the server evicted a part of it, or another "
            "program changed its keys. delete_thread() removes the rest; nothing was written"
        )
    kind, text = _classify(error)
    return kind(f"{text} {place}: {detail}{'' if kind is StoreError else '; nothing was written'}")
