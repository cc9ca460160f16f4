"""The exit statuses of the command line."""

from __future__ import annotations

from enum import IntEnum

from agent_stores.errors import (
    AgentStoresError,
    ArgumentError,
    ArgumentTypeError,
    MissingDependencyError,
    NotFoundError,
)


class ExitCode(IntEnum):
    """The exit statuses; scripts may rely on them."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    BAD_INPUT = 4
    MISSING_DEPENDENCY = 5
    INTERRUPTED = 130


MEANINGS: dict[ExitCode, str] = {
    ExitCode.OK: "done",
    ExitCode.FAILED: "the store, the model or the output failed",
    ExitCode.USAGE: "an argument is missing or invalid",
    ExitCode.NOT_FOUND: "a thread, the SQLite file or a file to read does not exist",
    ExitCode.BAD_INPUT: "the file to import is malformed, or a part of a migration or of rekey was left out",
    ExitCode.MISSING_DEPENDENCY: "an optional package is not installed",
    ExitCode.INTERRUPTED: "interrupted, or not confirmed",
}


class InputFileError(AgentStoresError, ValueError):
    """A file to import is malformed or incomplete.

    Attributes:
        line: the number of the line, from 1 up; 0 when it is not about one line.
    """

    def __init__(self, message: str, *, line: int = 0) -> None:
        super().__init__(message)
        self.line = line


def exit_code(error: AgentStoresError) -> ExitCode:
    """The exit status of an error."""
    if isinstance(error, InputFileError):
        return ExitCode.BAD_INPUT
    if isinstance(error, MissingDependencyError):
        return ExitCode.MISSING_DEPENDENCY
    if isinstance(error, NotFoundError):
        return ExitCode.NOT_FOUND
    if isinstance(error, (ArgumentError, ArgumentTypeError)):
        return ExitCode.USAGE
    return ExitCode.FAILED
