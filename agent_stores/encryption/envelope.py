"""The form of encrypted values: a JSON document in ASCII, which every backend stores as any other body.

``{"$encrypted":1,"key":KEY ID,"check":HEX,"id":BASE64,"data":BASE64}``

``check`` is the beginning of the key's fingerprint, 8 digits; ``id`` is the message's id.

``data`` is a nonce of 96 bits, the ciphertext and a tag of 128 bits (AES-256-GCM, NIST SP 800-38D). Values of
metadata have no ``id``.
"""

from __future__ import annotations

from typing import Any

import msgspec

from agent_stores._encrypted import MARKER


class Envelope(msgspec.Struct, frozen=True, omit_defaults=True):
    """An encrypted value.

    Attributes:
        version: of this form.
        key: the id of the key.
        check: the beginning of the key's fingerprint: tells a wrong key from a damaged value.
        id: the message's id in UTF-8, unpaired surrogates included; empty for metadata.
        data: nonce, ciphertext and tag (Base64 in JSON).
    """

    version: int = msgspec.field(name=MARKER)
    key: str
    check: str
    id: bytes = b""
    data: bytes = b""


_decoder = msgspec.json.Decoder(Envelope)


def decode_envelope(body: bytes) -> Envelope | None:
    """The envelope of an encrypted body; None when it is damaged."""
    try:
        envelope = _decoder.decode(body)
        envelope.id.decode(errors="surrogatepass")
    except (msgspec.DecodeError, UnicodeError):
        return None
    return envelope


def envelope_of(value: Any) -> Envelope | None:
    """The envelope of a value of metadata; None when it is not encrypted."""
    if type(value) is not dict or MARKER not in value:
        return None
    try:
        return msgspec.convert(value, Envelope)
    except msgspec.ValidationError:
        return None
