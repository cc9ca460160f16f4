"""Where the log meets encryption and attachments: rows are sealed before an operation."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from agent_stores._encrypted import MARKER
from agent_stores.backend import Backend, Row, Thread, ThreadKey
from agent_stores.errors import ArgumentTypeError, EncryptionKeyError

if TYPE_CHECKING:
    from agent_stores.attachments import Attachments
    from agent_stores.encryption import KeyRing


def wrap_backend(backend: Backend, keys: KeyRing | None, attachments: Attachments | None) -> Backend:
    """A backend that encrypts, and stores large data elsewhere, as far as asked for.

    Raises:
        ArgumentTypeError: when `keys` is not a `KeyRing`, or `attachments` not `Attachments`.
    """
    encrypted = encrypt_backend(backend, keys)
    if attachments is None:
        return encrypted
    from agent_stores.attachments import Attachments
    from agent_stores.attachments.backend import AttachedBackend

    if not isinstance(attachments, Attachments):
        raise ArgumentTypeError(f"attachments must be Attachments or None, got {type(attachments).__name__}")
    encrypt = None if keys is None else partial(encrypt_backend, keys=keys)
    return AttachedBackend(encrypted, attachments, encrypt)


def encrypt_backend(backend: Backend, keys: KeyRing | None) -> Backend:
    """A backend that encrypts what it stores in another one; that one itself without keys.

    Raises:
        ArgumentTypeError: when `keys` is not a `KeyRing`.
    """
    if keys is None:
        return backend
    from agent_stores.encryption.backend import encrypted
    from agent_stores.encryption.key_ring import KeyRing

    if not isinstance(keys, KeyRing):
        raise ArgumentTypeError(f"encryption must be a KeyRing or None, got {type(keys).__name__}")
    return encrypted(backend, keys)


async def seal_rows(backend: Backend, key: ThreadKey, rows: Sequence[Row]) -> Sequence[Row]:
    """The rows as the backend stores them, with the sizes that they have there.

    Raises:
        MessageTooLargeError: when one is too large for the server.
    """
    seal: Any = getattr(backend, "seal", None)
    sealed: Sequence[Row] = rows if seal is None or not rows else await seal(key, rows)
    return sealed


def check_metadata(key: ThreadKey, thread: Thread) -> None:
    """Check that a thread's metadata could be decrypted.

    Raises:
        EncryptionKeyError: when a value could not; names the key.
    """
    for name, value in thread.metadata.items():
        if type(value) is dict and MARKER in value:
            key_id = str(value.get("key", ""))
            raise EncryptionKeyError(
                f"metadata {name!r} of thread {key.thread_id!r} is encrypted with the key {key_id!r}, and "
                "cannot be decrypted: give the log encryption= with that key",
                key_id=key_id,
            )
