"""Errors of redis-py and of servers, as the library's errors."""

from __future__ import annotations

import re
import traceback

from redis import exceptions as driver

from agent_stores.backends.redis.config import Config
from agent_stores.backends.redis.rows import unsupported_layout
from agent_stores.errors import OutcomeUnknownError, StoreError, StoreRejectedError, StoreUnavailableError

CONNECTION_ERRORS = (driver.ConnectionError, driver.TimeoutError, driver.RedisClusterException, OSError)
"""The connection failed or could not be made."""

FAILURES: tuple[type[Exception], ...] = (driver.RedisError, *CONNECTION_ERRORS)
"""All that a command may raise."""

# The first word of a server's error; what it means for a user, or nothing where another attempt may succeed;
# and redis-py's class for it, which removes the word. A script's error repeats that of the command in it.
_CODES: dict[str, tuple[str | None, type[Exception] | tuple[type[Exception], ...]]] = {
    "OOM": ("the server's memory is full", driver.OutOfMemoryError),
    "READONLY": ("the server is a read-only replica", driver.ReadOnlyError),
    "NOPERM": ("the user does not have the permission", driver.NoPermissionError),
    "NOAUTH": ("the server asks for a password", ()),
    "WRONGPASS": ("the user name or the password is wrong", ()),
    "MISCONF": ("the server cannot save its data", ()),
    "NOREPLICAS": ("the server has too few replicas", ()),
    "MASTERDOWN": (None, driver.MasterDownError),
    "CLUSTERDOWN": (None, driver.ClusterDownError),
    "LOADING": (None, driver.BusyLoadingError),
    "BUSY": (None, ()),
    # Or each of redis-py's attempts was redirected: the slot is moving. Last, as the base of other classes.
    "TRYAGAIN": (None, (driver.TryAgainError, driver.ClusterError)),
}
_NOT_PERMITTED = re.compile("ACL failure in script|The user executing the script can't")
_CODE = re.compile(rf"\b({'|'.join(_CODES)})\b")
_REFUSAL = re.compile(r"AGENT(VERSION|DAMAGED) (.*)")  # of our scripts


def code_of(error: BaseException) -> str:
    """The word that names the kind of a server's error; empty when it is not a known one."""
    is_reply = isinstance(error, driver.ResponseError)
    if isinstance(error, (driver.AuthenticationError, driver.AuthorizationError)) and not is_reply:
        return "NOAUTH" if "required" in str(error).lower() else "WRONGPASS"
    for code, (_, kinds) in _CODES.items():
        if isinstance(error, kinds):
            return code
    if _NOT_PERMITTED.search(str(error)):
        return "NOPERM"
    found = _CODE.search(str(error)) if is_reply else None
    return found[1] if found else ""


def is_retryable(error: BaseException) -> bool:
    """Whether another attempt may succeed; `AskError` is the base of both kinds of redirection."""
    reason = _CODES.get(code_of(error))
    return isinstance(error, (driver.AskError, *CONNECTION_ERRORS)) if reason is None else reason[0] is None


def may_have_applied(error: BaseException) -> bool:
    """Whether the server may have carried out the command: the connection was lost after it was made."""
    if not isinstance(error, CONNECTION_ERRORS) or isinstance(error.__context__, driver.ReadOnlyError):
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


def translate_error(error: BaseException, config: Config, *, is_unknown: bool = False) -> Exception:
    """The library's error for one of redis-py or a server; `is_unknown` if it may have been carried out."""
    detail, place = config.hide_secrets(" ".join(str(error).split()) or type(error).__name__), config.place
    if is_unknown:
        return lost_outcome(config, f" ({detail})")
    refusal, rejection = _REFUSAL.search(detail), _CODES.get(code_of(error), (None,))[0]
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


def lost_outcome(config: Config, detail: str = "") -> OutcomeUnknownError:
    """The error for a write without a reply."""
    return OutcomeUnknownError(
        f"the connection to {config.place} was lost while a write was confirmed{detail}: it may or may not "
        "be stored"
    )
