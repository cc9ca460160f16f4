"""`KeyService`: what wraps data keys. `LocalKeyService` wraps them with the keys of a `KeyRing`."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Mapping
from typing import Protocol, runtime_checkable

from agent_stores.encryption.ciphertext import decode_ciphertext
from agent_stores.encryption.key_ring import KeyRing
from agent_stores.errors import ArgumentTypeError, EncryptionKeyError


@runtime_checkable
class KeyService(Protocol):
    """A service that keeps master keys: it encrypts (wraps) data keys, and never gives a master key away.

    Both methods may be coroutines. Functions that block run on a thread of their own.
    """

    def wrap(self, data_key: bytes, context: Mapping[str, str]) -> bytes | Awaitable[bytes]:
        """Encrypt a data key.

        Args:
            data_key: 32 bytes.
            context: where the key belongs (``key``, ``thread``, and ``tenant`` where there is one);
                the service authenticates it with the key, as AWS KMS does with an encryption context.
        """
        ...

    def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> bytes | Awaitable[bytes]:
        """The data key that `wrap` encrypted in the same context.

        Raises:
            Exception: when the master key is missing, the context differs, or access is denied.
        """
        ...


class LocalKeyService:
    """Wraps data keys with the keys of a `KeyRing`: for development, tests, and keys from a mounted secret.

    Args:
        keys: the master keys; a new current key wraps new data keys, and `DataKeys.rewrap` the others.
    """

    def __init__(self, keys: KeyRing) -> None:
        if not isinstance(keys, KeyRing):
            raise ArgumentTypeError(f"keys must be a KeyRing, got {type(keys).__name__}")
        self._ciphers = keys.ciphers

    async def wrap(self, data_key: bytes, context: Mapping[str, str]) -> bytes:
        """See `KeyService.wrap`."""
        return self._ciphers.encrypt_all(_place(context), [("", data_key)])[0]

    async def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        """See `KeyService.unwrap`.

        Raises:
            EncryptionKeyError: when the master key is missing or wrong, or the wrapped key was changed.
        """
        ciphertext = decode_ciphertext(wrapped)
        data_key = None if ciphertext is None else self._ciphers.decrypt(ciphertext, _place(context))
        if data_key is None:
            raise EncryptionKeyError(
                f"the data key {context['key']!r} was changed or moved", key_id=context["key"]
            )
        return data_key


def _place(context: Mapping[str, str]) -> bytes:
    return json.dumps(["data key", sorted(context.items())]).encode()
