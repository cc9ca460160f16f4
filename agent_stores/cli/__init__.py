"""The command line, `agent-stores`: see, move and delete stored conversations; needs the extra ``cli``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from agent_stores.cli.exit_codes import ExitCode
from agent_stores.errors import MissingDependencyError

__all__ = ["ExitCode", "main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the entry point of `agent-stores`.

    Args:
        arguments: what follows the program's name; those of this process by default.

    Returns:
        The status for the process to exit with, one of `ExitCode`.
    """
    try:
        import rich  # noqa: F401
        import typer  # noqa: F401
    except ImportError as error:
        missing = MissingDependencyError.of(error.name or "typer", extra="cli", purpose="the command line")
        print(f"agent-stores: {missing}", file=sys.stderr)
        return ExitCode.MISSING_DEPENDENCY
    from agent_stores.cli.app import run

    return run(sys.argv[1:] if arguments is None else arguments)
