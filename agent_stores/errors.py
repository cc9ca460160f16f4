"""The errors of the library, told apart by what the caller can do next.

Every error derives from `AgentStoresError`. No message, argument or repr of an error holds a password, key
or token: places are named by host, port and database only.
"""

from __future__ import annotations


class AgentStoresError(Exception):
    """Base of every error that this library raises."""


class ArgumentError(AgentStoresError, ValueError):
    """An argument has a value that is not accepted; nothing was read or written."""


class ArgumentTypeError(AgentStoresError, TypeError):
    """An argument has a type that is not accepted; nothing was read or written."""


class MissingDependencyError(AgentStoresError, ImportError):
    """An optional package is not installed; the message names the extra to install."""

    @classmethod
    def of(cls, package: str, *, extra: str, purpose: str) -> MissingDependencyError:
        """The error for a package that an extra of ours brings, worded once for all of them."""
        return cls(
            f"{purpose} needs the package {package!r}, which is not installed: "
            f"pip install 'agent-stores[{extra}]'",
            name=package,
        )


class MessageFormatError(AgentStoresError, ValueError):
    """A message document is malformed; the message names the field and the position in the document."""


class UnsupportedVersionError(AgentStoresError):
    """Data, a state or a schema was written by a newer version: upgrade the library to use it."""


class StateError(AgentStoresError, ValueError):
    """A serialized state is not valid here: another store's, another server's, or malformed."""


class StateSignatureError(StateError):
    """A serialized state's signature is missing or does not match: do not trust the state."""


class UnansweredToolCallError(AgentStoresError):
    """Tool calls without results, or results without calls, under the policy ``"raise"``.

    Attributes:
        call_ids: the ids of the calls concerned, in order.
    """

    def __init__(self, message: str, *, call_ids: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.call_ids = call_ids


class StoreError(AgentStoresError):
    """A store could not do what was asked."""


class StoreUnavailableError(StoreError):
    """The server cannot be reached or did not answer in time; nothing was written. Try again later."""


class OutcomeUnknownError(StoreError):
    """The connection was lost while a write was being confirmed: it may or may not be stored.

    Adding the same messages again is safe: what is stored already is not added twice. The other operations
    say in the message whether calling again is.
    """


class NotReplicatedError(OutcomeUnknownError):
    """A write is not known to be on as many replicas as were asked for: a failover may lose it.

    Calling again waits for the replicas again.
    """


class StoreRejectedError(StoreError):
    """The server refuses the operation: read-only, full, or not permitted. Nothing was written."""


class StoreClosedError(StoreError):
    """The store was closed by `aclose`, and cannot be used any more."""


class ConflictError(StoreError):
    """Somebody else wrote to the thread since the position that the caller expected.

    Attributes:
        expected: the position that the caller gave.
        actual: the position of the thread's last message now.
    """

    def __init__(self, message: str, *, expected: int | None = None, actual: int | None = None) -> None:
        super().__init__(message)
        self.expected = expected
        self.actual = actual


class ThreadExistsError(StoreError):
    """The thread to be created exists already; nothing was written."""


class NotFoundError(StoreError, LookupError):
    """The message or thread that was named does not exist."""


class CorruptMessageError(StoreError):
    """A stored message cannot be read.

    Attributes:
        thread_id: the thread that holds it.
        position: its position in the thread.
    """

    def __init__(self, message: str, *, thread_id: str = "", position: int = 0) -> None:
        super().__init__(message)
        self.thread_id = thread_id
        self.position = position


class MessageTooLargeError(StoreError, ValueError):
    """A message is larger than the store can hold; nothing was written.

    Attributes:
        size: the message's size in bytes.
        limit: the store's limit in bytes.
    """

    def __init__(self, message: str, *, size: int = 0, limit: int = 0) -> None:
        super().__init__(message)
        self.size = size
        self.limit = limit


class AgentRunError(AgentStoresError):
    """An agent's run failed; nothing of the turn was added to the thread."""


class ContextProviderError(AgentStoresError):
    """A context provider that is not to be left out failed; the message says what became of the turn.

    A provider raises it to fail the run. Any other error of a provider is logged, and the run goes on.
    """
