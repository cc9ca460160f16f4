"""docs/command-line.md names every option of every command, and no other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import typer

from agent_stores.cli.app import app
from agent_stores.cli.exit_codes import MEANINGS

PAGE = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text()
ROW = re.compile(r"^\| (`-.*?) \| (.*?) \| .* \|$", re.MULTILINE)


def documented() -> set[tuple[str, str]]:
    """Pairs of a command and an option, as the table of options has them."""
    commands = set(group().commands)
    pairs = set()
    for options, where in ROW.findall(PAGE):
        named = set(re.findall(r"`([\w-]+)`", where))
        found = commands - named if where.startswith("all but") else named
        pairs |= {(command, option) for command in found for option in re.findall(r"`(--?[\w-]+)", options)}
    return pairs


def group() -> Any:
    return typer.main.get_command(app)


def test_every_option_is_in_the_table() -> None:
    existing = {
        (name, option)
        for name, command in group().commands.items()
        for parameter in command.params
        if parameter.param_type_name == "option" and parameter.name != "help"
        for option in (*parameter.opts, *parameter.secondary_opts)
    }
    assert len(existing) > 40
    assert documented() == existing


def test_every_command_and_exit_status_is_on_the_page() -> None:
    for name in group().commands:
        assert re.search(rf"^agent-stores {name}\b", PAGE, re.MULTILINE), name
    for code, meaning in MEANINGS.items():
        assert f"| {int(code)} | {meaning} |" in PAGE
