"""How encrypted values are recognized, also where there is no key."""

from __future__ import annotations

import re

from agent_stores.errors import EncryptionKeyError

MARKER = "$encrypted"
"""The first field of an encrypted value."""

PREFIX = b'{"$encrypted":'
"""What an encrypted body begins with; no message does, since its first field is another one."""

_ENCRYPTED = re.compile(r'\{"\$encrypted":\d+,"key":"((?:[^"\\]|\\.)*)"')
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
