"""The layers of the library, read from its imports: nothing lower imports anything higher."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import agent_stores

PACKAGE = Path(agent_stores.__file__).parent

FOUNDATION = {
    "_attached",
    "_checks",
    "_concurrency",
    "_encrypted",
    "_json",
    "_recent",
    "_version",
    "append_plan",
    "attempts",
    "backend",
    "capabilities",
    "connection_pool",
    "errors",
    "inline",
    "lineage",
    "listing",
    "search",
    "thread_updates",
    "thread_pool",
    "wrapped_backend",
    "writer_queue",
}
BACKENDS = {"backends"}
ENCRYPTION = {"encryption"}
ATTACHMENTS = {"attachments"}
MESSAGES = {
    "_part_checks",
    "content_base",
    "contents",
    "message_format",
    "messages",
    "protocols",
    "tokens",
}
LOG = {
    "committer",
    "forking",
    "log",
    "operations",
    "sealing",
}
STORE = {
    "failed_calls",
    "message_rows",
    "retention",
    "states",
    "store",
    "store_base",
    "store_options",
    "store_settings",
    "watching",
    "window",
}
ALLOWED = [
    (FOUNDATION, FOUNDATION),
    (BACKENDS, FOUNDATION | BACKENDS),
    (ENCRYPTION, FOUNDATION | ENCRYPTION),
    (ATTACHMENTS, FOUNDATION | ATTACHMENTS),
    (LOG, FOUNDATION | ENCRYPTION | ATTACHMENTS | LOG),
    (MESSAGES, FOUNDATION | MESSAGES),
    (STORE, FOUNDATION | ENCRYPTION | ATTACHMENTS | LOG | MESSAGES | STORE),
]
"""Modules and packages of a layer, and those that they may import. All others may import anything."""


def module_name(file: Path) -> str:
    """The dotted name of a module's file, without `agent_stores`; empty for the package itself."""
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {module_name(file): file for file in PACKAGE.rglob("*.py")}


def is_type_checking(node: ast.stmt) -> bool:
    """Whether a statement is ``if TYPE_CHECKING:``."""
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def statements(body: list[ast.stmt], *, functions: bool) -> Iterator[ast.stmt]:
    """The statements that run; those of functions, too, if asked for."""
    for node in body:
        if is_type_checking(node):
            continue
        yield node
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not functions:
            continue
        for part in ("body", "orelse", "finalbody"):
            yield from statements(getattr(node, part, []), functions=functions)
        for handler in getattr(node, "handlers", []):
            yield from statements(handler.body, functions=functions)


@cache
def imports(name: str, *, functions: bool) -> frozenset[str]:
    """The modules of the library that a module imports."""
    found = set()
    tree = ast.parse(MODULES[name].read_text())
    for node in statements(tree.body, functions=functions):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} has a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for imported in names:
            parts = imported.split(".")
            if parts[0] == "agent_stores":
                candidates = (".".join(parts[1:end]) for end in range(len(parts), 0, -1))
                found.add(next(candidate for candidate in candidates if candidate in MODULES))
    return frozenset(found)


def top(name: str) -> str:
    """The module or package directly below `agent_stores`."""
    return name.partition(".")[0]


def test_every_module_of_a_layer_exists() -> None:
    named = {name for layer, _ in ALLOWED for name in layer}
    assert named <= set(map(top, MODULES))


@pytest.mark.parametrize("name", sorted(MODULES))
def test_nothing_lower_imports_anything_higher(name: str) -> None:
    for layer, allowed in ALLOWED:
        if top(name) in layer:
            higher = {imported for imported in imports(name, functions=True) if top(imported) not in allowed}
            assert not higher


@pytest.mark.parametrize("name", sorted(name for name in MODULES if name.startswith("backends.")))
def test_no_backend_imports_another(name: str) -> None:
    own = name.split(".")[1]
    others = {i for i in imports(name, functions=True) if top(i) == "backends" and i.split(".")[1:2] != [own]}
    assert not others


def test_no_import_is_circular() -> None:
    finished: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name in finished:
            return
        for imported in sorted(imports(name, functions=False)):
            visit(imported, (*path, name))
        finished.add(name)

    for name in sorted(MODULES):
        visit(name, ())


def test_nothing_waits_by_wait_for() -> None:
    """Before Python 3.12 it may lose a cancellation: `agent_stores.attempts.time_limit` does not."""
    calls = [
        f"{path.name}:{node.lineno}"
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "asyncio.wait_for"
    ]
    assert calls == []
