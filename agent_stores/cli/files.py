"""The files that are exported to and imported from; ``-`` stands for standard output and input."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from agent_stores.errors import NotFoundError


@contextlib.contextmanager
def open_output(name: str) -> Iterator[BinaryIO]:
    """A file to write to. What was there before is replaced only when the block ends well."""
    if name == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(name)
    if path.exists() and not path.is_file():  # a pipe or a device
        with path.open("wb") as file:
            yield file
        return
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with partial.open("xb") as file:
            yield file
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def open_input(name: str) -> Iterator[tuple[BinaryIO, int | None]]:
    """A file to read from, and its size where it has one.

    Raises:
        NotFoundError: when it does not exist.
        OSError: when it cannot be opened.
    """
    if name == "-":
        yield sys.stdin.buffer, _size(sys.stdin.buffer)
        return
    try:
        file = Path(name).open("rb")  # noqa: SIM115 - only errors of opening are ours to translate
    except FileNotFoundError:
        raise NotFoundError(f"there is no file {name!r}") from None
    with file:
        yield file, _size(file)


def _size(file: BinaryIO) -> int | None:
    try:
        status = os.fstat(file.fileno())
    except OSError:  # a stand-in without a file, as tests use
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None
