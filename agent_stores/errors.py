"""The errors of the library, by what the caller can do next.

Every error derives from `AgentStoresError`. No message, argument or repr of an error contains a password, key
or token: servers are named by host, port and database only.
"""

from __future__ import annotations

from collections.abc import Iterable


class AgentStoresError(Exception):
    """Base class of all errors of this library."""


class ArgumentError(AgentStoresError, ValueError):
    """An argument has an invalid value; nothing was read or written."""


class ArgumentTypeError(AgentStoresError, TypeError):
    """An argument has the wrong type; nothing was read or written."""


class MissingDependencyError(AgentStoresError, ImportError):
    """An optional package is not installed; the message names the extra to install."""

    @classmethod
    def of(cls, package: str, *, extra: str, purpose: str) -> MissingDependencyError:
        """The error for a package that an extra of this library installs."""
        return cls(
            f"{purpose} needs the package {package!r}, which is not installed: "
            f"pip install 'agent-stores[{extra}]', or '.[{extra}]' in a checkout",
            name=package,
        )


class MessageFormatError(AgentStoresError, ValueError):
    """A JSON document is not a message; the error names the field and its position in the document."""


class UnsupportedVersionError(AgentStoresError):
    """A newer version wrote the data, state or schema: upgrade the library to use it."""


class StateError(AgentStoresError, ValueError):
    """A serialized state is malformed, or of another store or server."""


class StateSignatureError(StateError):
    """The signature of a serialized state is missing or does not match: do not trust the state."""


class UnansweredToolCallError(AgentStoresError):
    """There are tool calls without results, or results without calls, and `dangling_calls` is ``"raise"``.

    Attributes:
        call_ids: the ids of those calls, in order.
    """

    def __init__(self, message: str, *, call_ids: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.call_ids = call_ids


class StoreError(AgentStoresError):
    """A store operation failed."""


class StoreUnavailableError(StoreError):
    """The server cannot be reached or did not answer in time; nothing was written. Try again later."""


class OutcomeUnknownError(StoreError):
    """The connection was lost before a write was confirmed: it may or may not be stored.

    Adding the same messages again is safe: stored messages are not added twice. For other operations the
    error says whether a retry is safe.
    """


class NotReplicatedError(OutcomeUnknownError):
    """A write is not known to be on as many replicas as were asked for: a failover may lose it.

    Calling again waits for the replicas again.
    """


class StoreRejectedError(StoreError):
    """The server rejects the operation: it is read-only, full, or denies access. Nothing was written."""


class StoreClosedError(StoreError):
    """The store was closed and can no longer be used."""


class ConflictError(StoreError):
    """Another client changed the thread since the position or revision that the caller expects.

    Attributes:
        expected: the caller's expected position or revision.
        actual: the current one.
    """

    def __init__(self, message: str, *, expected: int | None = None, actual: int | None = None) -> None:
        super().__init__(message)
        self.expected = expected
        self.actual = actual


class ThreadExistsError(StoreError):
    """The thread to create already exists; nothing was written."""


class NotFoundError(StoreError, LookupError):
    """The message or thread does not exist."""


class CorruptMessageError(StoreError):
    """A stored message cannot be decoded.

    Attributes:
        thread_id: its thread.
        position: its position in the thread.
    """

    def __init__(self, message: str, *, thread_id: str = "", position: int = 0) -> None:
        super().__init__(message)
        self.thread_id = thread_id
        self.position = position


class EncryptionKeyError(StoreError):
    """A message or value is encrypted, and the key is missing or wrong; nothing was changed.

    Attributes:
        key_id: the id of the key that is needed; empty when the value should be encrypted and is not.
    """

    def __init__(self, message: str, *, key_id: str = "") -> None:
        super().__init__(message)
        self.key_id = key_id


class AttachmentError(StoreError):
    """An attachment cannot be stored or read; no message was changed."""


class MessageTooLargeError(StoreError, ValueError):
    """A message is larger than the store's limit; nothing was written.

    Attributes:
        size: the size of the message's JSON, in bytes.
        limit: the store's limit, in bytes.
    """

    def __init__(self, message: str, *, size: int = 0, limit: int = 0) -> None:
        super().__init__(message)
        self.size = size
        self.limit = limit

    @classmethod
    def of(cls, what: str, size: int, limit: int, *, form: str = "as JSON") -> MessageTooLargeError:
        """The error for a message, named by `what`, of a size in some form."""
        text = f"{what} must be at most {limit} bytes {form}, got {size}; nothing was written"
        return cls(text, size=size, limit=limit)


class AgentRunError(AgentStoresError):
    """An agent's run failed; the turn was not added to the thread."""


class ContextProviderError(AgentStoresError):
    """A required context provider failed; the error says whether the turn was added to the thread.

    A provider raises it to fail the run. Other errors of a provider are logged, and the run continues.
    """


def redact(text: str, secrets: Iterable[str]) -> str:
    """A text on one line, in which no secret shows."""
    text = " ".join(text.split())
    for secret in sorted(filter(None, secrets), key=len, reverse=True):  # one may be part of another
        text = text.replace(secret, "***")
    return text
