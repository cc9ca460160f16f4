"""How a message with attachments is recognized, also where its attachments cannot be read."""

from __future__ import annotations

import re
from typing import NamedTuple

from agent_stores.errors import AttachmentError

PREFIX = b'{"$attachments":1,'
"""What the stored body of a message with attachments begins with; no message does by itself."""

ADDRESS = re.compile(
    r"attachment:(?P<name>[0-9a-f]{64}/\d{1,15}-[0-9a-f]{8}(?:[0-9a-f]{8})?-\d{1,15})\?bytes=(?P<size>\d{1,15})"
)
"""The address of an attachment: the SHA-256 of its data, which of its files holds it, and its size."""


class KeptFile(NamedTuple):
    """A file of an attachment that could not be encrypted with another key.

    Attributes:
        thread_id: a thread that may refer to it; empty when that is not known.
        reason: why.
        is_damaged: whether its data is not that of its name.
    """

    thread_id: str
    reason: str
    is_damaged: bool


def check_inline(document: bytes | str) -> None:
    """Check that a document has its data: a log with attachments would have put it there.

    Raises:
        AttachmentError: when it has not.
    """
    start = document[: len(PREFIX)]
    if (start.encode(errors="replace") if isinstance(start, str) else start) == PREFIX:
        raise AttachmentError(
            "the message has attachments, which are stored elsewhere: give the store attachments="
        )
