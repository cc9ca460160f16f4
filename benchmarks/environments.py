"""An environment for each set of packages that can live together, and a process in it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from types import TracebackType
from typing import Any

from typing_extensions import Self

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
ENVIRONMENTS = REPOSITORY / ".make" / "bench"


def make_environment(name: str) -> Path:
    """The Python of an environment, installed first if its list of packages is new or was changed."""
    listed = HERE / "peers" / f"{name}.txt"
    folder = ENVIRONMENTS / name
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = folder / "installed"
    parts = [listed.read_bytes(), sys.version.encode()]
    if name.startswith("own"):
        parts.append((REPOSITORY / "pyproject.toml").read_bytes())
    digest = hashlib.sha256(b"".join(parts)).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return python
    print(f"Installing the packages of peers/{name}.txt ...", flush=True)
    venv.create(folder, with_pip=True, clear=True)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet", "install", "-r", str(listed)]
    subprocess.run(pip, check=True, cwd=REPOSITORY)
    stamp.write_text(digest)
    return python


def versions(python: Path) -> dict[str, str]:
    """The packages of an environment and their versions."""
    script = (
        "import importlib.metadata as m, json; "
        "print(json.dumps({d.metadata['Name'].lower(): d.version for d in m.distributions()}))"
    )
    found = subprocess.run([str(python), "-c", script], check=True, capture_output=True, text=True)
    packages: dict[str, str] = json.loads(found.stdout)
    return packages


class WorkerError(RuntimeError):
    """A candidate raised an error, or its process ended."""


class WorkerProcess:
    """A process of `worker.py`; a context manager."""

    def __init__(self, python: Path, module: str, *, counting: bool = False) -> None:
        self._module = module
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            [
                str(python),
                "-W",
                "ignore",
                str(HERE / "worker.py"),
                module,
                *(["--count"] if counting else []),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "OTEL_SDK_DISABLED": "true"},
        )
        self._answer()

    def ask(self, do: str, **question: Any) -> dict[str, Any]:
        """Ask for one thing, and wait for the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **question}) + "\n")
        self._process.stdin.flush()
        answer = self._answer()
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            raise WorkerError(f"the worker of {self._module} ended:\n{self._errors.read()[-4000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer
