"""The form of encrypted values: a JSON document in ASCII, which every backend stores as any other body.

``{"$encrypted":1,"key":KEY ID,"check":HEX,"data":BASE64}``

``check`` is the beginning of the key's fingerprint, 8 digits. ``data`` is a nonce of 96 bits, the ciphertext
and a tag of 128 bits (AES-256-GCM, NIST SP 800-38D). Where the value belongs is not in it, but is
authenticated with it: see `place_of`.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import msgspec

from agent_stores._encrypted import MARKER
from agent_stores.backend import ThreadKey

NONCE_BYTES = 12
"""The length of a nonce."""


class Ciphertext(msgspec.Struct, frozen=True):
    """An encrypted value.

    Attributes:
        version: of this form.
        key: the id of the key.
        check: the beginning of the key's fingerprint: tells a wrong key from a damaged value.
        data: nonce, ciphertext and tag (Base64 in JSON).
    """

    version: int = msgspec.field(name=MARKER)
    key: str
    check: str
    data: bytes


_decoder = msgspec.json.Decoder(Ciphertext)


def decode_ciphertext(body: bytes) -> Ciphertext | None:
    """The ciphertext of an encrypted body; None when it is damaged."""
    try:
        return _checked(_decoder.decode(body))
    except (msgspec.DecodeError, UnicodeError):
        return None


def to_ciphertext(value: Any) -> Ciphertext | None:
    """The ciphertext of a value of metadata; None when it is not one, or is damaged."""
    try:
        return _checked(msgspec.convert(value, Ciphertext))
    except (msgspec.ValidationError, UnicodeError):
        return None


def _checked(ciphertext: Ciphertext) -> Ciphertext | None:
    return ciphertext if ciphertext.version == 1 else None


@lru_cache(maxsize=1024)
def place_of(kind: str, key: ThreadKey) -> bytes:
    """Where a value belongs, as associated data: a JSON array, which the message's id or name follows.

    Args:
        kind: ``"message"`` or ``"metadata"``.
        key: the thread.
    """
    return json.dumps([kind, *key]).encode()


def encode_name(name: str) -> bytes:
    """A message's id, or a key of metadata, as associated data."""
    return name.encode() if name.isascii() else name.encode(errors="surrogatepass")
