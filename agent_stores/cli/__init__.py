"""The command line, `agent-stores`: list, export, migrate, delete conversations; needs the extra ``cli``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from agent_stores._version import __version__
from agent_stores.cli.exit_codes import ExitCode
from agent_stores.cli.summary import summary
from agent_stores.errors import MissingDependencyError

__all__ = ["ExitCode", "main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the entry point of `agent-stores`. ``--help`` and ``--version`` need no extra.

    Args:
        arguments: the arguments after the program's name; by default those of this process.

    Returns:
        The exit status of the process, one of `ExitCode`.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        import rich  # noqa: F401
        import typer  # noqa: F401
    except ImportError as error:
        if words in ([], ["-h"], ["--help"]):
            print(summary())
            return ExitCode.OK if words else ExitCode.USAGE
        if words == ["--version"]:
            print(__version__)
            return ExitCode.OK
        missing = MissingDependencyError.of(error.name or "typer", extra="cli", purpose="the command line")
        print(f"agent-stores: {missing}", file=sys.stderr)
        return ExitCode.MISSING_DEPENDENCY
    from agent_stores.cli.app import run

    return run(words)
