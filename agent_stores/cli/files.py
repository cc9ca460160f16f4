"""The files that are exported to and imported from; ``-`` stands for standard output and input."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal

from agent_stores.errors import AgentStoresError, ArgumentError, NotFoundError


class OutputFileError(AgentStoresError, OSError):
    """A file cannot be written to."""


@contextlib.contextmanager
def open_output(name: str) -> Iterator[BinaryIO]:
    """A file to write to. What was there before is replaced only when the block ends well.

    Raises:
        OutputFileError: when it cannot be opened.
    """
    if name == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(name)
    if path.exists() and not path.is_file():  # a pipe or a device
        with _open(path, "wb", name) as file:
            yield file
        return
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with _open(partial, "xb", name) as file:
            yield file
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _open(path: Path, mode: Literal["wb", "xb"], name: str) -> BinaryIO:
    try:
        return path.open(mode)
    except OSError as error:
        raise OutputFileError(f"the file {name!r} cannot be written: {error.strerror}") from None


@contextlib.contextmanager
def open_input(name: str) -> Iterator[tuple[BinaryIO, int | None]]:
    """A file to read from, and its size where it has one.

    Raises:
        NotFoundError: when it does not exist.
        ArgumentError: when it cannot be read.
    """
    if name == "-":
        yield sys.stdin.buffer, _size(sys.stdin.buffer)
        return
    try:
        file = Path(name).open("rb")  # noqa: SIM115 - only errors of opening are ours to translate
    except FileNotFoundError:
        raise NotFoundError(f"no such file: {name!r}") from None
    except OSError as error:
        raise ArgumentError(f"the file {name!r} cannot be read: {error.strerror}") from None
    with file:
        yield file, _size(file)


def _size(file: BinaryIO) -> int | None:
    try:
        status = os.fstat(file.fileno())
    except OSError:  # a stand-in without a file, as tests use
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None
