"""Errors of redis-py and of servers, as the library's errors."""

from __future__ import annotations

import re
import traceback
from collections.abc import Sequence

from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    ClusterError,
    ConnectionError,
    MasterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
    TimeoutError,
    TryAgainError,
)

from agent_stores.backends.redis.rows import unsupported_layout
from agent_stores.errors import OutcomeUnknownError, StoreError, StoreRejectedError, StoreUnavailableError

CONNECTION_ERRORS: tuple[type[Exception], ...] = (
    ConnectionError,
    TimeoutError,
    RedisClusterException,
    OSError,
)
"""The connection failed or could not be made."""

FAILURES: tuple[type[Exception], ...] = (RedisError, *CONNECTION_ERRORS)
"""All that a command may raise."""

# The first words of servers' errors. The error of a script repeats that of the command in it.
_REJECTED = {
    "OOM": "the server's memory is full",
    "READONLY": "the server is a read-only replica",
    "NOPERM": "the user does not have the permission",
    "NOAUTH": "the server asks for a password",
    "WRONGPASS": "the user name or the password is wrong",
    "MISCONF": "the server cannot save its data",
    "NOREPLICAS": "the server has too few replicas",
}
_TRANSIENT = ("TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN", "LOADING", "BUSY")
# redis-py removes the word where it has a class for the error.
_CLASSES: tuple[tuple[type[Exception], str], ...] = (
    (OutOfMemoryError, "OOM"),
    (ReadOnlyError, "READONLY"),
    (NoPermissionError, "NOPERM"),
    (MasterDownError, "MASTERDOWN"),
    (ClusterDownError, "CLUSTERDOWN"),
    (TryAgainError, "TRYAGAIN"),
    (BusyLoadingError, "LOADING"),
    # Each of redis-py's attempts was redirected, or told to try again: the slot is moving.
    (ClusterError, "TRYAGAIN"),
)
_NOT_PERMITTED = re.compile("ACL failure in script|The user executing the script can't")
_CODE = re.compile(rf"\b({'|'.join((*_REJECTED, *_TRANSIENT))})\b")
_VERSION = re.compile(r"AGENTVERSION (\S+)")
_DAMAGED = re.compile(r"AGENTDAMAGED (.*)")


def code_of(error: BaseException) -> str:
    """The word that names the kind of a server's error; empty when it is not a known one."""
    if isinstance(error, (AuthenticationError, AuthorizationError)) and not isinstance(error, ResponseError):
        return "NOAUTH" if "required" in str(error).lower() else "WRONGPASS"
    for kind, code in _CLASSES:
        if isinstance(error, kind):
            return code
    text = _text(error)
    if _NOT_PERMITTED.search(text):
        return "NOPERM"
    found = _CODE.search(text) if isinstance(error, ResponseError) else None
    return found[1] if found else ""


def is_retryable(error: BaseException) -> bool:
    """Whether another attempt may succeed; `AskError` is the base of both kinds of redirection."""
    code = code_of(error)
    return code in _TRANSIENT or (code not in _REJECTED and isinstance(error, (AskError, *CONNECTION_ERRORS)))


def may_have_applied(error: BaseException) -> bool:
    """Whether the server may have carried out the command: the connection was lost after it was made."""
    if not isinstance(error, CONNECTION_ERRORS) or isinstance(error.__context__, ReadOnlyError):
        return False  # redis-py reports a demoted primary, which rejects the write, as a lost connection
    return not is_connecting(error)


def is_connecting(error: BaseException) -> bool:
    """Whether an error was raised, or a task cancelled, while redis-py opened a connection."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__
    names = (frame.f_code.co_name for one in chain for frame, _ in traceback.walk_tb(one.__traceback__))
    return any(name.startswith(("connect", "get_connection", "initialize")) for name in names)


def translate_error(
    error: BaseException, *, place: str, secrets: Sequence[str], is_unknown: bool = False
) -> Exception:
    """The library's error for one of redis-py or of the server.

    Args:
        error: what was raised.
        place: the server, without secrets.
        secrets: texts that must not show.
        is_unknown: whether an attempt may have been carried out.
    """
    detail = _text(error)
    for secret in secrets:
        detail = detail.replace(secret, "***")
    code = code_of(error)
    if is_unknown:
        return OutcomeUnknownError(
            f"the connection to {place} was lost while a write was confirmed ({detail}): it may or may not "
            "be stored"
        )
    if found := _VERSION.search(detail):
        return unsupported_layout(found[1].encode())
    if damaged := _DAMAGED.search(detail):
        return StoreError(
            f"the thread at {place} is damaged: {damaged[1]}; the server evicted a part of it, or another "
            "program changed its keys. delete_thread() removes the rest; nothing was written"
        )
    if code in _REJECTED:
        return StoreRejectedError(f"{_REJECTED[code]} at {place}: {detail}; nothing was written")
    if is_retryable(error):
        return StoreUnavailableError(f"no answer from {place}: {detail}; nothing was written")
    return StoreError(f"{place} reported an error: {detail}")


def _text(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
