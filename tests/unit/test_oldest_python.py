"""Code that Python 3.10 cannot compile or import is found without having that Python.

Covers: the grammar of 3.10 (such as `except*`), names of the standard library that are newer, and named
tuples that are generic. Code under `if sys.version_info ...` is left out.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
FILES = sorted(
    path for folder in ("agent_stores", "providers") for path in (REPOSITORY / folder).rglob("*.py")
)
NEWER = {
    "asyncio": {"timeout", "timeout_at", "TaskGroup", "Runner", "Barrier"},
    "datetime": {"UTC"},
    "enum": {"StrEnum", "ReprEnum", "verify"},
    "typing": set(
        [
            "Self",
            "assert_never",
            "assert_type",
            "reveal_type",
            "Never",
            "NotRequired",
            "Required",
            "LiteralString",
            "Unpack",
            "TypeVarTuple",
            "dataclass_transform",
            "override",
            "TypeAliasType",
        ]
    ),
}
MODULES = {"tomllib", "wsgiref.types"}


def traps(source: str) -> list[str]:
    tree = ast.parse(source, feature_version=(3, 10))
    named_tuples: set[str] = set()
    found: list[str] = []

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "version_info" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            found.extend(alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            newer = NEWER.get(node.module, set())
            found.extend(f"{node.module}.{alias.name}" for alias in node.names if alias.name in newer)
            if node.module in MODULES:
                found.append(node.module)
            if node.module == "typing":
                named_tuples.update(a.asname or a.name for a in node.names if a.name == "NamedTuple")
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.attr in NEWER.get(node.value.id, set()):
                found.append(ast.unparse(node))
        elif isinstance(node, ast.ClassDef):
            bases = {ast.unparse(base) for base in node.bases}
            if len(bases) > 1 and bases & (named_tuples | {"typing.NamedTuple"}):
                found.append(f"class {node.name}, a generic NamedTuple")
        elif type(node).__name__ == "TryStar":
            found.append("except*")
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(tree)
    return found


def test_the_library_runs_on_the_oldest_python() -> None:
    assert len(FILES) > 100
    found = {str(path.relative_to(REPOSITORY)): traps(path.read_text(encoding="utf-8")) for path in FILES}
    assert not {name: each for name, each in found.items() if each}


@pytest.mark.parametrize(
    "source",
    [
        "from typing import NamedTuple\nclass Pair(NamedTuple, Generic[T]): pass",
        "from typing import Self",
        "import tomllib",
        "from datetime import UTC",
        "async def go():\n    async with asyncio.timeout(1): pass",
    ],
)
def test_what_is_newer_is_found(source: str) -> None:
    assert traps(source)
    indented = "\n".join("    " + line for line in source.splitlines())
    assert not traps(f"if sys.version_info >= (3, 11):\n{indented}")
