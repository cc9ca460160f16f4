"""The wheel as users install it: what is in it, what it needs, and a part of the tests against it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = (
    "unit/test_agent_providers.py",
    "unit/test_messages.py",
    "unit/test_retention.py",
    "unit/test_threads.py",
)


def run(*command: object, cwd: Path, **environment: str) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MEM0_"))}
    result = subprocess.run(
        list(map(str, command)), cwd=cwd, env={**clean, **environment}, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT, cwd=folder)
    (built,) = folder.glob("agent_stores-*.whl")
    return built


def test_what_is_in_it(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"agent_stores", "agent_stores_mem0"}
    assert names >= {f"{top}/py.typed" for top in tops}
    assert "agent_stores/mem0.py" in names


@pytest.mark.timeout(600)
def test_it_works_where_nothing_else_is_installed(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
    run(*pip, "--no-compile", f"{wheel}[testing]", "hypothesis", "blockbuster", cwd=tmp_path)
    code = (
        "from agent_stores.mem0 import Mem0Provider as one\n"
        "from agent_stores_mem0 import Mem0Provider as other\n"
        "from agent_stores import MissingDependencyError, RecallProvider, SummaryProvider\n"
        "import agent_stores, sys\n"
        "assert one is other and 'mem0' not in sys.modules\n"
        "try:\n"
        "    one(api_key='k', user_id='u')\n"
        "except MissingDependencyError as error:\n"
        "    print(error)\n"
        "print(agent_stores.__file__)"
    )
    told, file = run(python, "-W", "error", "-c", code, cwd=tmp_path).splitlines()
    assert "pip install 'agent-stores[mem0]'" in told
    assert Path(file).is_relative_to(tmp_path / "venv")
    for name in ("conftest.py", "plugins/judges.py", "servers", *TESTS):
        target = tmp_path / "tests" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / "tests" / name).is_dir() else shutil.copy
        copy(ROOT / "tests" / name, target)
    run(
        python,
        "-m",
        "pytest",
        "-q",
        "-W",
        "error",
        "--import-mode=importlib",
        "tests",
        cwd=tmp_path,
        PYTHONPATH=str(tmp_path),
    )
