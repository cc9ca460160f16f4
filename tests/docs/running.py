"""Runs the Python blocks of pages."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

_BLOCK = re.compile(r"^( *)```python\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)


def blocks_of(page: Path) -> list[str]:
    """The Python blocks of a page, without the indentation of tabs."""
    found = _BLOCK.findall(page.read_text())
    return ["\n".join(line[len(indent) :] for line in code.splitlines()) for indent, code in found]


def run_block(code: str, name: str, names: dict[str, Any]) -> Coroutine[Any, Any, None] | None:
    """Run a block in a namespace; returns the coroutine of one that awaits."""
    compiled = compile(code, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    if compiled.co_flags & inspect.CO_COROUTINE:
        coroutine: Coroutine[Any, Any, None] = eval(compiled, names)
        return coroutine
    exec(compiled, names)
    return None
