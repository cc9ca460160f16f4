"""Environments for the versions of frameworks that cannot live in the one where the tests run."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / ".make" / "envs"
COMMON = (
    f"-e{REPOSITORY}[database,redis,testing]",
    "pytest-timeout>=2.3",
    "hypothesis>=6.115",
    "blockbuster>=1.5",
)


def environment(name: str, *requirements: str) -> Path:
    """The Python of an environment with this library and some packages; made when it is first asked for.

    It is made again when the packages, this library's own requirements or the version of Python change.
    Several processes may ask for it at once.
    """
    folder = FOLDER / name
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    parts = [*COMMON, *requirements, sys.version, (REPOSITORY / "pyproject.toml").read_text()]
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    stamp = folder / "made"
    FOLDER.mkdir(parents=True, exist_ok=True)
    with _locked(FOLDER / f"{name}.lock"):
        if not (stamp.exists() and stamp.read_text() == digest):
            venv.create(folder, with_pip=False, clear=True)
            pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
            packages = ["install", "--quiet", "--no-compile", *COMMON, *requirements]
            done = subprocess.run([*pip, *packages], capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            stamp.write_text(digest)
    return python


def run_tests(python: Path, *arguments: str, **variables: str) -> str:
    """Run tests of this repository in an environment; returns what pytest says of them.

    Raises:
        AssertionError: when one fails.
    """
    command = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(
        command,
        cwd=REPOSITORY,
        # Compiled files are kept with the environment: the next run there need not compile the frameworks.
        env={**os.environ, "PYTHONPYCACHEPREFIX": str(python.parents[1] / "compiled"), **variables},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-5_000:]
    return done.stdout


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        if os.name == "nt":
            yield
            return
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX)
        yield
