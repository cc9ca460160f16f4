"""`KeyRing`: the keys that encrypt and decrypt, by id."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from agent_stores.backend import ThreadKey
from agent_stores.encryption.ciphers import Ciphers, Keys
from agent_stores.errors import ArgumentTypeError


class KeyRing(Keys):
    """Keys of AES-256-GCM, by id: the current one encrypts, and all of them decrypt.

    Nonces are random, of 96 bits: a key may encrypt at most 2**32 values (NIST SP 800-38D, section 8.3), so
    change the current key, and run `rekey`, before that. Keys show in no state, error or repr.

    Args:
        keys: 32 random bytes for each id, such as ``os.urandom(32)``; ids are stored with every value.
        current: the id of the key that encrypts.
        allow_plaintext: whether values that are not encrypted are read. False, once `rekey` has encrypted
            everything, also rejects what someone else wrote to the database.

    Raises:
        ArgumentError, ArgumentTypeError: for keys of another length or type, or an unknown current id.
        MissingDependencyError: when `cryptography` is not installed; names the extra.
    """

    def __init__(self, keys: Mapping[str, bytes], current: str, *, allow_plaintext: bool = True) -> None:
        if not isinstance(keys, Mapping):
            raise ArgumentTypeError(f"keys must be a mapping, got {type(keys).__name__}")
        if not isinstance(current, str):
            raise ArgumentTypeError(f"current must be a str, got {type(current).__name__}")
        self.ciphers = Ciphers(keys, current)
        self.current = current
        self.allow_plaintext = allow_plaintext

    def cached(self, key: ThreadKey) -> Ciphers:
        """See `Keys.cached`."""
        return self.ciphers

    async def for_writing(self, key: ThreadKey) -> Ciphers:
        """See `Keys.for_writing`."""
        return self.ciphers

    async def for_reading(self, key: ThreadKey, key_ids: Collection[str]) -> Ciphers:
        """See `Keys.for_reading`."""
        return self.ciphers

    def __repr__(self) -> str:
        return f"KeyRing({', '.join(map(repr, self.ciphers.ids))}, current={self.current!r})"
