"""The code of docs/backends.md runs as it is printed."""

from __future__ import annotations

import ast
import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from agent_stores import capabilities
from agent_stores.backend import Backend

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "backends.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)


def test_the_first_block_and_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first, _, clock = BLOCKS
    code = f"{first}\nfrom agent_stores.testing.conformance import *\n{clock}\nawait target.advance(60)\n"
    compiled = compile(code, "docs/backends.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    names: dict[str, object] = {"__name__": "docs"}

    async def run() -> None:
        work = eval(compiled, names)
        await work

    asyncio.run(run())
    assert (tmp_path / "conversations").is_dir()


def test_the_suite_in_five_lines(tmp_path: Path) -> None:
    (tmp_path / "test_my_backend.py").write_text(BLOCKS[1])
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    lines = [line for line in BLOCKS[1].splitlines() if line and not line.startswith("#")]
    assert len([line for line in lines if "folder_backend" not in line]) == 5
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "TestOrder or TestListing"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    assert re.search(r"\d\d passed", result.stdout)


def test_the_tables_name_every_method_and_capability() -> None:
    for name in ("load", "rows", "find", "commit", "threads", "aclose"):
        assert hasattr(Backend, name)
        assert f"| `{name}(" in TEXT
    members = vars(capabilities).items()
    protocols = {name for name, value in members if getattr(value, "_is_runtime_protocol", False)}
    assert len(protocols) == 6
    for name in protocols:
        assert f"| `{name}` |" in TEXT
