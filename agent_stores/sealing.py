"""Where the log meets encryption: rows are sealed before an operation, metadata is checked after a read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from agent_stores._encrypted import MARKER, UNREADABLE, check_keys, is_marked
from agent_stores.backend import Backend, Row, Thread, ThreadKey
from agent_stores.errors import ArgumentTypeError, CorruptMessageError, EncryptionKeyError

if TYPE_CHECKING:
    from agent_stores.encryption import Keys


def encrypt_backend(backend: Backend, keys: Keys | None) -> Backend:
    """A backend that encrypts what it stores in another one; that one itself without keys.

    Raises:
        ArgumentTypeError: when `keys` is neither a `KeyRing` nor `DataKeys`.
    """
    if keys is None:
        return backend
    from agent_stores.encryption.backend import encrypted
    from agent_stores.encryption.ciphers import Keys

    if not isinstance(keys, Keys):
        raise ArgumentTypeError(f"encryption must be a KeyRing, DataKeys or None, got {type(keys).__name__}")
    return encrypted(backend, keys)


async def seal_rows(backend: Backend, key: ThreadKey, rows: Sequence[Row]) -> Sequence[Row]:
    """The rows as the backend stores them, with the sizes that they have there.

    Raises:
        MessageTooLargeError: when one is too large for the server.
        EncryptionKeyError: when the keys are not those of the thread.
    """
    seal: Any = getattr(backend, "seal", None)
    if seal is None:
        return rows
    if not rows:
        await check_thread(backend, key)
        return rows
    sealed: Sequence[Row] = await seal(key, rows)
    return sealed


async def check_thread(backend: Backend, key: ThreadKey) -> None:
    """Check, before rows are removed, that the log's keys are those of the thread.

    Raises:
        EncryptionKeyError: when they are not: what cannot be read is not removed.
    """
    check: Any = getattr(backend, "check_thread", None)
    if check is not None:
        await check(key)


def check_metadata(key: ThreadKey, thread: Thread) -> None:
    """Check that a thread's metadata could be read.

    Raises:
        EncryptionKeyError: when a value is encrypted with a key that the log does not have, or is not
            encrypted and must be.
        CorruptMessageError: when one is damaged.
    """
    check_keys(thread.metadata)
    for name, value in thread.metadata.items():
        if not is_marked(value) or value[MARKER] != UNREADABLE:
            continue
        text = f"metadata {name!r} of thread {key.thread_id!r} is"
        if value["why"] == "damaged":
            raise CorruptMessageError(f"{text} encrypted, and was changed or moved", thread_id=key.thread_id)
        raise EncryptionKeyError(f"{text} not encrypted, and allow_plaintext is False")
