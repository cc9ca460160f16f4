"""The Python code of the pages: all of it compiles and its names exist, and whole programs run as printed."""

from __future__ import annotations

import ast
import asyncio
import importlib
from pathlib import Path

import pytest

from agent_stores.testing.local_model import local_model
from tests.docs.running import blocks_of, run_block

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
# These run alone, one page after the other from its first block to its last, on SQLite and in memory.
PROGRAMS = [
    "README.md",
    "docs/getting-started.md",
    "docs/index.md",
    "docs/logging.md",
    "docs/stores.md",
    "docs/write-a-plugin.md",
    "docs/write-a-provider.md",
]


def parsed(code: str) -> ast.AST:
    tree: ast.AST = compile(
        code, "page", "exec", flags=ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True
    )
    return tree


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_code_compiles_and_its_names_exist(page: Path) -> None:
    for code in blocks_of(page):
        for node in ast.walk(parsed(code)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("agent_stores"):
                if node.module == "agent_stores.agent_framework_beta":
                    continue  # its framework cannot be in one environment with 1.x; it has tests of its own
                module = importlib.import_module(node.module or "")
                found = [alias.name for alias in node.names if alias.name != "*"]
                missing = [name for name in found if not hasattr(module, name)]
                assert not missing, f"{page.name}: {node.module} has no {missing}"


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_run_as_printed(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for variable in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_MODEL"):
        monkeypatch.delenv(variable, raising=False)
    names: dict[str, object] = {"__name__": "page"}
    with local_model():
        for code in blocks_of(ROOT / name):
            if (coroutine := run_block(code, name, names)) is not None:
                asyncio.run(coroutine)
