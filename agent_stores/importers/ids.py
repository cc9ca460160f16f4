"""Ids for the messages of a thread that are the same whenever the thread is read.

They make migrating again safe: what is there already is known by its id. A message keeps the id that its
framework gave it. One without gets an id from what names it in the source for ever, such as the number of a
row. In a list nothing does, for lists are trimmed at their beginning: there the id comes from what is stored
and from the few elements before it, so that a "yes" differs from the "yes" before it wherever the list
begins.
"""

from __future__ import annotations

import hashlib
from collections import deque

from agent_stores.importers.source import SourceMessage

_CONTEXT = 3  # elements before one; those of a trimmed list cannot be recognized


class MessageIds:
    """Gives the messages of one thread their ids, in order; remembers some 100 bytes for each.

    Args:
        source: the layout's name.
        location: where the thread is in the source.
    """

    def __init__(self, source: str, location: str) -> None:
        self._source = source
        self._thread = _digest(source.encode(), location.encode(errors="surrogatepass"))
        self._before: deque[bytes] = deque(maxlen=_CONTEXT)
        self._seen: dict[int, int] = {}

    def next(self, stored: SourceMessage) -> str:
        """The id of the next message, which may be one that cannot be read."""
        own = _digest(stored.raw)
        name = stored.message.message_id if stored.message is not None else None
        if not name:
            context = (stored.stable_id.encode(),) if stored.stable_id is not None else tuple(self._before)
            name = f"{self._source}-{_digest(self._thread, own, *context).hex()}"
        self._before.append(own)
        key = hash(name)
        count = self._seen[key] = self._seen.get(key, 0) + 1
        if count == 1:
            return name
        # The source shows it twice, and so will the target.
        again = _digest(self._thread, name.encode(errors="surrogatepass"), str(count).encode())
        return f"{self._source}-{again.hex()}"


def _digest(*parts: bytes) -> bytes:
    digest = hashlib.blake2b(digest_size=14)
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.digest()
