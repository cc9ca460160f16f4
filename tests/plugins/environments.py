"""Environments for the versions of frameworks that cannot live in the one where the tests run."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / ".make" / "envs"


def environment(name: str, *requirements: str) -> Path:
    """The Python of an environment with some packages; made when it is first asked for.

    Its other packages, and this library, are those of the environment where the tests run: only what differs
    is installed, which takes seconds. It is made again when any of these change. Several processes may ask
    for it at once.
    """
    folder = FOLDER / name
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    shared = Path(sysconfig.get_path("purelib"))
    installed = sorted(path.name for path in shared.glob("*.dist-info"))
    digest = hashlib.sha256("\n".join([*requirements, sys.version, *installed]).encode()).hexdigest()
    stamp = folder / "made"
    FOLDER.mkdir(parents=True, exist_ok=True)
    with _locked(FOLDER / f"{name}.lock"):
        if not (stamp.exists() and stamp.read_text() == digest):
            venv.create(folder, with_pip=False, clear=True)
            _share(folder, shared)
            pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
            options = ["--quiet", "--no-compile", "--no-warn-conflicts"]
            done = subprocess.run([*pip, "install", *options, *requirements], capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            stamp.write_text(digest)
    return python


def _share(folder: Path, shared: Path) -> None:
    """Let an environment import this library, and packages of another one that it does not have itself."""
    own = next(folder.glob("lib/python*/site-packages"), folder / "Lib" / "site-packages")
    paths = [str(REPOSITORY), str(REPOSITORY / "providers" / "mem0")]
    (own / "shared.pth").write_text("\n".join([*paths, f"import site; site.addsitedir({str(shared)!r})"]))


def run_tests(python: Path, *arguments: str, **variables: str) -> str:
    """Run tests of this repository in an environment; returns what pytest says of them.

    Raises:
        AssertionError: when one fails.
    """
    plugins = ("anyio", "pytest_timeout", "_hypothesis_pytestplugin", "no:cacheprovider")
    options = [option for name in plugins for option in ("-p", name)]
    done = subprocess.run(
        [str(python), "-m", "pytest", "-q", *options, *arguments],
        cwd=REPOSITORY,
        # Those of other packages may be there in two versions.
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **variables},
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
