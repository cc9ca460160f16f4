"""`KeyRing`: the keys that encrypt and decrypt, by id."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from agent_stores.encryption.envelope import Envelope
from agent_stores.errors import ArgumentError, ArgumentTypeError, EncryptionKeyError, MissingDependencyError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_KEY_BYTES = 32
_NONCE_BYTES = 12
_LONGEST_ID = 100


class KeyRing:
    """Keys of AES-256-GCM, by id: the current one encrypts, and all of them decrypt.

    Nonces are random, of 96 bits: a key may encrypt at most 2**32 values (NIST SP 800-38D, section 8.3), so
    change the current key, and run `rekey`, before that. Keys show in no state, error or repr.

    Args:
        keys: 32 random bytes for each id, such as ``os.urandom(32)``; ids are stored with every value.
        current: the id of the key that encrypts.
        allow_plaintext: whether values that are not encrypted are read. False, once `rekey` has encrypted
            everything, also rejects messages that someone else wrote to the database.

    Raises:
        ArgumentError, ArgumentTypeError: for keys of another length or type, or an unknown current id.
        MissingDependencyError: when `cryptography` is not installed; names the extra.
    """

    def __init__(self, keys: Mapping[str, bytes], current: str, *, allow_plaintext: bool = True) -> None:
        if not isinstance(keys, Mapping):
            raise ArgumentTypeError(f"keys must be a mapping, got {type(keys).__name__}")
        try:
            from cryptography.exceptions import InvalidTag
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError:
            raise MissingDependencyError.of(
                "cryptography", extra="encryption", purpose="encryption"
            ) from None
        self._invalid_tag = InvalidTag
        self._ciphers: dict[str, tuple[AESGCM, str]] = {}
        for key_id, key in keys.items():
            if not isinstance(key_id, str) or not isinstance(key, bytes):
                raise ArgumentTypeError("keys must map ids of type str to keys of type bytes")
            if not 0 < len(key_id) <= _LONGEST_ID or not key_id.isascii():
                raise ArgumentError(f"key ids must be 1 to {_LONGEST_ID} ASCII characters, got {key_id!r}")
            if len(key) != _KEY_BYTES:
                raise ArgumentError(f"key {key_id!r} must have {_KEY_BYTES} bytes, got {len(key)}")
            check = hmac.new(key, b"agent-stores key check", hashlib.sha256).hexdigest()[:8]
            self._ciphers[key_id] = (AESGCM(key), check)
        if current not in self._ciphers:
            raise ArgumentError(f"current must be the id of one of the keys, got {current!r}")
        self.current = current
        self.allow_plaintext = allow_plaintext

    def encrypt(self, plain: bytes, associated: bytes, message_id: str = "") -> Envelope:
        """Encrypt a value with the current key.

        Args:
            plain: the value.
            associated: where it belongs; only there it can be decrypted.
            message_id: the message's id, kept in the clear.
        """
        cipher, check = self._ciphers[self.current]
        nonce = os.urandom(_NONCE_BYTES)
        data = nonce + cipher.encrypt(nonce, plain, associated)
        return Envelope(1, self.current, check, message_id.encode(errors="surrogatepass"), data)

    def decrypt(self, envelope: Envelope, associated: bytes) -> bytes | None:
        """The value of an envelope; None when it is damaged, or belongs elsewhere.

        Raises:
            EncryptionKeyError: when its key is not in the ring, or another key has the id.
        """
        found = self._ciphers.get(envelope.key)
        if found is None:
            raise EncryptionKeyError(
                f"a value is encrypted with the key {envelope.key!r}, which is not among the keys "
                f"{', '.join(map(repr, self._ciphers))}",
                key_id=envelope.key,
            )
        cipher, check = found
        if check != envelope.check:
            raise EncryptionKeyError(
                f"a value is encrypted with another key of the id {envelope.key!r} than the one given",
                key_id=envelope.key,
            )
        try:
            return cipher.decrypt(envelope.data[:_NONCE_BYTES], envelope.data[_NONCE_BYTES:], associated)
        except (self._invalid_tag, ValueError):
            return None

    def is_current(self, envelope: Envelope) -> bool:
        """Whether the current key encrypted it."""
        return envelope.key == self.current

    def __repr__(self) -> str:
        return f"KeyRing({', '.join(map(repr, self._ciphers))}, current={self.current!r})"
