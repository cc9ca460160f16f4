"""Opens the logs of the conformance suite, in this process and in others, which import only what they use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agent_stores.log import MessageLog


@dataclass
class Opener:
    """Opens logs of one backend; picklable, as other processes open them, too.

    Attributes:
        make: the log's class, or a function of this module.
        arguments: the server.
        options: what all clients of it have in common.
        is_encrypted: whether the log encrypts.
        attachments: the folder of attachments, which all data parts become; None keeps them in the messages.
    """

    make: Callable[..., MessageLog]
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    is_encrypted: bool
    attachments: str | None

    def __call__(self, **options: Any) -> MessageLog:
        """Open a log."""
        if self.is_encrypted:
            from agent_stores import KeyRing

            options["encryption"] = KeyRing({"2026-11": bytes(range(32))}, "2026-11")
        if self.attachments is not None:
            from agent_stores import Attachments

            options["attachments"] = Attachments(self.attachments, over=0)
        return self.make(*self.arguments, **self.options, **options)


def open_folder(folder: str, timeout: float = 0, **options: Any) -> MessageLog:
    """A log on a folder, which needs no timeout."""
    from samples.folder_backend import FolderBackend

    return MessageLog(FolderBackend(folder), **options)
