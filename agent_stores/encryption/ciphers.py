"""`Ciphers`: keys of AES-256-GCM by id, ready for use. `Keys`: what gives a thread its ciphers."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from abc import ABC, abstractmethod
from binascii import b2a_base64
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from agent_stores._encrypted import PREFIX
from agent_stores.backend import Row, ThreadKey
from agent_stores.encryption.ciphertext import NONCE_BYTES, Ciphertext, encode_name
from agent_stores.errors import ArgumentError, ArgumentTypeError, EncryptionKeyError, MissingDependencyError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
"""The length of a key."""

_LONGEST_ID = 100


class _Data(msgspec.Struct, gc=False):
    """Of a `Ciphertext`, what decryption with a known key needs."""

    data: bytes


_decode_all = msgspec.json.Decoder(list[_Data]).decode


class Ciphers:
    """Keys by id: the current one encrypts, and all of them decrypt.

    Args:
        keys: 32 bytes for each id.
        current: the id of the key that encrypts; None for keys that only decrypt.

    Raises:
        ArgumentError, ArgumentTypeError: for keys of another length or type, or an unknown current id.
        MissingDependencyError: when `cryptography` is not installed; names the extra.
    """

    def __init__(self, keys: Mapping[str, bytes], current: str | None) -> None:
        try:
            from cryptography.exceptions import InvalidTag
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError:
            raise MissingDependencyError.of(
                "cryptography", extra="encryption", purpose="encryption"
            ) from None
        self._damaged = (InvalidTag, ValueError)
        self._by_id: dict[str, tuple[AESGCM, str]] = {}
        for key_id, key in keys.items():
            check_key(key_id, key)
            check = hmac.new(key, b"agent-stores key check", hashlib.sha256).hexdigest()[:8]
            self._by_id[key_id] = (AESGCM(key), check)
        if current is not None and current not in self._by_id:
            raise ArgumentError(f"current must be the id of one of the keys, got {current!r}")
        self.current = current
        self._head = b""  # what every body begins with that the current key encrypted
        if current is not None:
            cipher, check = self._by_id[current]
            self._encrypt, self._decrypt = cipher.encrypt, cipher.decrypt
            self._head = b'%b1,"key":%b,"check":"%b","data":"' % (
                PREFIX,
                json.dumps(current).encode(),
                check.encode(),
            )

    @property
    def ids(self) -> list[str]:
        """The ids of the keys."""
        return list(self._by_id)

    def encrypted(self, body: bytes) -> bool:
        """Whether the current key encrypted a body."""
        return bool(self._head) and body.startswith(self._head)

    def has(self, key_ids: Collection[str]) -> bool:
        """Whether all keys of these ids are among them."""
        return all(key_id in self._by_id for key_id in key_ids)

    def including(self, other: Ciphers) -> Ciphers:
        """These, and the keys of others to decrypt with."""
        both = Ciphers.__new__(Ciphers)
        both.__dict__.update(self.__dict__, _by_id={**other._by_id, **self._by_id})
        return both

    def encrypt_all(self, place: bytes, named: Iterable[tuple[str, bytes]]) -> list[bytes]:
        """Encrypt values with the current key, as JSON documents.

        Args:
            place: where they belong (`place_of`); only there they can be decrypted.
            named: of each value its name, a message's id or a key of metadata, and the value.
        """
        head, encrypt, encoded = self._head, self._encrypt, []
        for name, plain in named:
            nonce = os.urandom(NONCE_BYTES)
            data = nonce + encrypt(nonce, plain, place + encode_name(name))
            encoded.append(b'%b%b"}' % (head, b2a_base64(data, newline=False)))
        return encoded

    def decrypt_rows(self, place: bytes, rows: Sequence[Row]) -> list[Row] | None:
        """The rows decrypted, when the current key encrypted all of them and none is damaged; else None.

        Which key a row names is not looked at: the wrong one does not decrypt it.
        """
        decrypt = self._decrypt
        try:
            # All at once: half the time of one by one.
            values = _decode_all(b"[%b]" % b",".join([row.body for row in rows]))
            return [
                replace(
                    row,
                    body=decrypt(
                        (data := value.data)[:NONCE_BYTES],
                        data[NONCE_BYTES:],
                        place + row.message_id.encode(),
                    ),
                )
                for row, value in zip(rows, values, strict=True)
            ]
        except (*self._damaged, msgspec.DecodeError):  # or an id with unpaired surrogates
            return None

    def decrypt(self, ciphertext: Ciphertext, associated: bytes) -> bytes | None:
        """The value of a ciphertext; None when it is damaged, or belongs elsewhere.

        Raises:
            EncryptionKeyError: when its key is not among these, or another key has the id.
        """
        self.check(ciphertext)
        cipher, _ = self._by_id[ciphertext.key]
        nonce, data = ciphertext.data[:NONCE_BYTES], ciphertext.data[NONCE_BYTES:]
        try:
            return cipher.decrypt(nonce, data, associated)
        except self._damaged:
            return None

    def check(self, ciphertext: Ciphertext) -> None:
        """Check that these have the key of a ciphertext.

        Raises:
            EncryptionKeyError: when it is not among these, or another key has the id.
        """
        found = self._by_id.get(ciphertext.key)
        if found is None:
            raise EncryptionKeyError(
                f"a value is encrypted with the key {ciphertext.key!r}, which is not among the keys "
                f"{', '.join(map(repr, self._by_id)) or 'that there are'}",
                key_id=ciphertext.key,
            )
        if found[1] != ciphertext.check:
            raise EncryptionKeyError(
                f"a value is encrypted with another key of the id {ciphertext.key!r} than the one given",
                key_id=ciphertext.key,
            )


def check_key(key_id: str, key: bytes) -> None:
    """Check a key and its id.

    Raises:
        ArgumentError, ArgumentTypeError: when they cannot be used.
    """
    if not isinstance(key_id, str) or not isinstance(key, bytes):
        raise ArgumentTypeError(
            f"keys must map str to bytes, got {type(key_id).__name__} to {type(key).__name__}"
        )
    if not 0 < len(key_id) <= _LONGEST_ID or not key_id.isascii():
        raise ArgumentError(f"key ids must be 1 to {_LONGEST_ID} ASCII characters, got {key_id!r}")
    if len(key) != KEY_BYTES:
        raise ArgumentError(f"key {key_id!r} must have {KEY_BYTES} bytes, got {len(key)}")


class Keys(ABC):
    """The keys of a log: `KeyRing` holds them itself, `DataKeys` has them wrapped by a key service.

    Attributes:
        allow_plaintext: whether values that are not encrypted are read.
    """

    allow_plaintext: bool
    supports_inline = True
    """Whether keys are at hand without waiting; see `agent_stores.backend.Backend`."""
    loop_independent = True
    """Whether keys may be asked for from any event loop."""

    @abstractmethod
    def cached(self, key: ThreadKey) -> Ciphers | None:
        """The ciphers of a thread that encrypt now, when they are at hand."""

    @abstractmethod
    async def for_writing(self, key: ThreadKey) -> Ciphers:
        """The ciphers of a thread that is about to be written.

        Raises:
            EncryptionKeyError: when its key was destroyed.
        """

    @abstractmethod
    async def for_reading(self, key: ThreadKey, key_ids: Collection[str]) -> Ciphers:
        """The ciphers of a thread that decrypt what was encrypted with keys of these ids.

        Raises:
            EncryptionKeyError: when one of them was destroyed.
        """
