"""What went wrong on the way to a Redis server, as the library's errors."""

from __future__ import annotations

import re
from collections.abc import Sequence

from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    ConnectionError,
    MasterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    ResponseError,
    TimeoutError,
    TryAgainError,
)

from agent_stores.errors import (
    OutcomeUnknownError,
    StoreError,
    StoreRejectedError,
    StoreUnavailableError,
    UnsupportedVersionError,
)

CONNECTION_ERRORS: tuple[type[Exception], ...] = (
    ConnectionError,
    TimeoutError,
    RedisClusterException,
    OSError,
)
"""The connection failed, or could not be made; the server may have been asked already."""

# What servers begin their errors with. A script's error repeats that of the command inside it.
_REFUSED = {
    "OOM": "the server's memory is full",
    "READONLY": "the server is a read-only replica",
    "NOPERM": "the user may not do this",
    "NOAUTH": "the server asks for a password",
    "WRONGPASS": "the user name or the password is wrong",
    "MISCONF": "the server cannot save its data",
    "NOREPLICAS": "the server has too few replicas",
}
_TRANSIENT = ("TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN", "LOADING", "BUSY")
# redis-py takes the word off where it has a class of its own.
_CLASSES: tuple[tuple[type[Exception], str], ...] = (
    (OutOfMemoryError, "OOM"),
    (ReadOnlyError, "READONLY"),
    (NoPermissionError, "NOPERM"),
    (MasterDownError, "MASTERDOWN"),
    (ClusterDownError, "CLUSTERDOWN"),
    (TryAgainError, "TRYAGAIN"),
    (BusyLoadingError, "LOADING"),
)
_NOT_PERMITTED = re.compile("ACL failure in script|The user executing the script can't")
_CODE = re.compile(rf"\b({'|'.join((*_REFUSED, *_TRANSIENT))})\b")
_VERSION = re.compile(r"AGENTVERSION (\d+)")
_DAMAGED = re.compile(r"AGENTDAMAGED (.*)")


def code_of(error: BaseException) -> str:
    """The word that says what kind of error a server's reply is; empty when it is none of those known."""
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


def is_refused(error: BaseException) -> bool:
    """Whether the server refuses what it was asked, and will again."""
    return code_of(error) in _REFUSED


def is_transient(error: BaseException) -> bool:
    """Whether the server did nothing, and asks to try again."""
    return code_of(error) in _TRANSIENT


def is_redirect(error: BaseException) -> bool:
    """Whether a node of a Cluster names another one; the base of both such errors is `AskError`."""
    return isinstance(error, AskError)


def store_error(
    error: BaseException, *, place: str, secrets: Sequence[str], may_be_written: bool = False
) -> Exception:
    """The library's error for one of redis-py or of the server; says where, and whether anything was written.

    Args:
        error: what was raised.
        place: the server, without secrets.
        secrets: text that must not show.
        may_be_written: whether an attempt may have been carried out.
    """
    detail = _text(error)
    for secret in secrets:
        detail = detail.replace(secret, "***")
    code = code_of(error)
    if may_be_written:
        return OutcomeUnknownError(
            f"the connection to {place} was lost while a write was confirmed ({detail}): it may or may not "
            "be stored"
        )
    if newer := _VERSION.search(detail):
        return UnsupportedVersionError(
            f"the thread at {place} has version {newer[1]} of the layout: a newer version of agent-stores "
            "wrote it; nothing was written"
        )
    if damaged := _DAMAGED.search(detail):
        return StoreError(
            f"the thread at {place} is damaged: {damaged[1]}; the server evicted a part of it, or somebody "
            "else changed its keys. delete_thread() removes what is left; nothing was written"
        )
    if code in _REFUSED:
        return StoreRejectedError(f"{_REFUSED[code]} at {place}: {detail}; nothing was written")
    if code in _TRANSIENT or isinstance(error, CONNECTION_ERRORS):
        return StoreUnavailableError(f"no answer from {place}: {detail}; nothing was written")
    return StoreError(f"{place} could not do what it was asked: {detail}")


def _text(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
