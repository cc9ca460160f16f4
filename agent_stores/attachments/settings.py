"""`Attachments`: where large data is stored, and from which size on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from agent_stores._checks import check_limit, check_seconds
from agent_stores.errors import ArgumentError, ArgumentTypeError, AttachmentError, MissingDependencyError

_DAY = 86_400.0


class Attachments:
    """Where the data of messages is stored that is larger than a size: any file system of `fsspec`.

    Data parts (`DataContent`) above the size are stored once for each tenant, by their SHA-256; the message
    keeps their address, size and type. Data comes first, then the message. Data that no message refers to is
    removed by `purge_expired`, after `grace`; `erase` removes it at once.

    Args:
        location: a URL such as ``s3://bucket/prefix``, a folder, or a path in `filesystem`.
        over: the largest data, in bytes, that stays in the message.
        lazy: whether reads leave data where it is: a `UriContent` stands for it, which
            `agent_stores.load_attachment` takes. Otherwise reads return the data inline.
        grace: seconds before data that nothing refers to is removed; longer than any write takes.
        filesystem: a file system of the caller's, in place of the URL's.
        storage_options: the file system's options, such as credentials.

    Raises:
        ArgumentError, ArgumentTypeError: for an invalid value.
        AttachmentError: when there is no such file system.
        MissingDependencyError: when `fsspec`, or the file system's package, is not installed.
    """

    def __init__(
        self,
        location: str | os.PathLike[str],
        *,
        over: int = 64_000,
        lazy: bool = False,
        grace: float | timedelta = _DAY,
        filesystem: Any = None,
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        try:
            import fsspec
        except ImportError:
            raise MissingDependencyError.of("fsspec", extra="attachments", purpose="attachments") from None
        if not isinstance(location, (str, os.PathLike)):
            raise ArgumentTypeError(f"location must be a str or a path, got {type(location).__name__}")
        if not isinstance(lazy, bool):
            raise ArgumentTypeError(f"lazy must be a bool, got {type(lazy).__name__}")
        largest, seconds = check_limit("over", over), check_seconds("grace", grace, zero=False)
        if largest is None or seconds is None:
            raise ArgumentTypeError("over and grace must not be None")
        self.over = largest
        self.lazy = lazy
        self.grace = seconds
        path = os.fspath(location)
        if filesystem is None:
            options = {**(storage_options or {}), "use_listings_cache": False}
            try:
                filesystem, path = fsspec.core.url_to_fs(path, **options)
            except ImportError as error:
                raise MissingDependencyError(
                    f"attachments at {_scheme(path)} need a package: {error}"
                ) from None
            except Exception as error:
                raise AttachmentError(
                    f"{_scheme(path)} cannot be opened for attachments: {type(error).__name__}"
                ) from None
        elif storage_options is not None:
            raise ArgumentError("filesystem and storage_options must not be given together")
        self.filesystem = filesystem
        self.path = path.rstrip("/")

    def __repr__(self) -> str:
        kind = type(self.filesystem).__name__
        return f"Attachments({kind}, over={self.over}, lazy={self.lazy})"


def _scheme(path: str) -> str:
    """What may be shown of a URL, which may hold a password."""
    return f"{path.partition('://')[0]}://" if "://" in path else repr(path)
