"""How encrypted values are recognized, also where there is no key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from agent_stores.errors import EncryptionKeyError

MARKER = "$encrypted"
"""The first field of an encrypted value."""

PREFIX = b'{"$encrypted":'
"""What an encrypted body begins with; no message does, since its first field is another one."""

UNREADABLE = 0
"""The marker of metadata that no key makes readable: ``{"$encrypted":0,"stored":VALUE,"why":REASON}``.

Decryption puts it in the place of such a value, so that a later write stores the value as it was. It is never
stored.
"""

_ENCRYPTED = re.compile(r'\{"\$encrypted":\d+,"key":"((?:[^"\\]|\\.)*)"')
_CHECK = re.compile(rb'\{"\$encrypted":\d+,"key":"(?:[^"\\]|\\.)*","check":"([0-9a-f]{8})"')
_LONGEST = 1000  # characters before the end of a key id


def check_plain(document: bytes | str) -> None:
    """Check that a document is not encrypted: a log that has the key would have decrypted it.

    Raises:
        EncryptionKeyError: when it is; names the key. It is never taken for a damaged message.
    """
    start = document[:_LONGEST]
    if found := _ENCRYPTED.match(start if isinstance(start, str) else start.decode(errors="replace")):
        raise EncryptionKeyError(
            f"the message is encrypted with the key {found[1]!r}: give the store encryption= with that key",
            key_id=found[1],
        )


def key_check(document: bytes) -> str:
    """The beginning of the fingerprint of the key that encrypted a document; empty when none did."""
    found = _CHECK.match(document[:_LONGEST])
    return found[1].decode() if found else ""


def is_marked(value: Any) -> bool:
    """Whether a value of metadata is encrypted, or `UNREADABLE`."""
    return type(value) is dict and MARKER in value


def check_keys(metadata: Mapping[str, Any]) -> None:
    """Check that no value of metadata is encrypted with a key that the log does not have.

    Without that check a log with a wrong key, or none, would write over what it cannot read.

    Raises:
        EncryptionKeyError: when one is; names the key.
    """
    for name, value in metadata.items():
        if is_marked(value) and value[MARKER] != UNREADABLE:
            key_id = str(value.get("key", ""))
            raise EncryptionKeyError(
                f"metadata {name!r} is encrypted with the key {key_id!r}, and cannot be decrypted: "
                "give the log encryption= with that key",
                key_id=key_id,
            )
