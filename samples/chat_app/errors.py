"""What went wrong, in words that a person can act on: no stack traces, no secrets, no jargon."""

from __future__ import annotations

import logging
from typing import NamedTuple

from agent_stores import (
    AgentRunError,
    ConflictError,
    CorruptMessageError,
    MessageTooLargeError,
    MissingDependencyError,
    NotFoundError,
    OutcomeUnknownError,
    StoreError,
    StoreRejectedError,
    StoreUnavailableError,
    UnsupportedVersionError,
)
from agent_stores.cli.exit_codes import InputFileError

logger = logging.getLogger("chat_app")


class Problem(NamedTuple):
    """An error as it is shown.

    Attributes:
        title: what happened, in a sentence.
        advice: what it means for the conversation, and what to do.
    """

    title: str
    advice: str


_STORE: tuple[tuple[type[Exception], Problem], ...] = (
    (
        StoreUnavailableError,
        Problem(
            "The store cannot be reached.",
            "Nothing was written. Check that the server of AGENT_STORES_URL runs, then try again.",
        ),
    ),
    (
        OutcomeUnknownError,
        Problem(
            "The connection was lost while the conversation was being saved.",
            "Try again: what was saved already is not added twice.",
        ),
    ),
    (
        MessageTooLargeError,
        Problem("This message is too long for the store.", "Shorten it, or send it in parts."),
    ),
    (
        CorruptMessageError,
        Problem(
            "A stored message cannot be read.",
            "The other conversations are not affected. The application's log names the place.",
        ),
    ),
    (
        ConflictError,
        Problem("Another user or window changed this conversation.", "Look at what is new, and try again."),
    ),
    (
        NotFoundError,
        Problem(
            "This conversation is gone.",
            "It was deleted in another window, or its time ran out. Begin a new one.",
        ),
    ),
    (
        StoreRejectedError,
        Problem(
            "The store rejected this operation.",
            "It may be full or read-only, or this user lacks the permission. Nothing was written.",
        ),
    ),
    (
        StoreError,
        Problem("The store could not do what was asked.", "Try again; if it stays, look at the log."),
    ),
    (
        UnsupportedVersionError,
        Problem("This was written by a newer version of agent-stores.", "Upgrade to read it."),
    ),
)

_MODEL: dict[str, Problem] = {
    "AuthenticationError": Problem(
        "The model's service does not accept the key.", "Check OPENAI_API_KEY. Nothing was added."
    ),
    "PermissionDeniedError": Problem(
        "The key may not use this model.", "Check OPENAI_MODEL, or ask for access. Nothing was added."
    ),
    "NotFoundError": Problem(
        "The model's service does not know this model.",
        "Check OPENAI_MODEL and OPENAI_BASE_URL. Nothing was added.",
    ),
    "RateLimitError": Problem(
        "The model's service is busy, or the account's limit is reached.",
        "Wait a little and try again. Nothing was added.",
    ),
    "APITimeoutError": Problem("The model did not answer in time.", "Try again. Nothing was added."),
    "APIConnectionError": Problem(
        "The model cannot be reached.", "Check OPENAI_BASE_URL and the network. Nothing was added."
    ),
    "BadRequestError": Problem(
        "The model's service rejects this conversation.",
        "It may be too long: lower the history that is sent, in the settings. Nothing was added.",
    ),
}


def explain(error: BaseException) -> Problem:
    """What to show for an error; the error itself goes to the application's log."""
    logger.warning("%s: %s", type(error).__name__, error)
    if isinstance(error, AgentRunError):
        cause = error.__cause__
        known = next((_MODEL[kind.__name__] for kind in type(cause).__mro__ if kind.__name__ in _MODEL), None)
        return known or Problem("The model's answer broke off.", "Try again. Nothing was added.")
    if isinstance(error, MissingDependencyError):
        return Problem("A package is missing.", str(error))
    if isinstance(error, InputFileError):
        return Problem("This file cannot be imported.", f"{error}. Nothing was imported.")
    for kind, problem in _STORE:
        if isinstance(error, kind):
            return problem
    if isinstance(error, ValueError):  # ours say what was given and what is accepted
        return Problem("This is not accepted.", f"{error}")
    return Problem("Something went wrong.", "Try again; if it stays, look at the application's log.")
