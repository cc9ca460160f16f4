"""Each sample, run as it is shipped."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import agent_stores
from tests.servers.postgres import PostgresServer

SAMPLES = Path(__file__).parents[2] / "samples"
PACKAGE = str(Path(agent_stores.__file__).parents[1])
EXPECTED = {
    "serialize_thread.py": ["Nice to meet you, Alice!", '"store":', "agent: Your name is Alice."],
    "custom_store.py": ["is a store: True", "agent: Your name is Alice."],
    "database_store.py": ["sqlite:///chat.db", "assistant: 330 metres.", "'And the Colosseum?'"],
}


def run(sample: str, folder: Path, **variables: str) -> str:
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("OPENAI_") and name != "DATABASE_URL"
    }
    result = subprocess.run(
        [sys.executable, "-W", "error", str(SAMPLES / sample)],
        env={**clean, "PYTHONPATH": PACKAGE, "TMPDIR": str(folder), **variables},
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.stderr == ""
    assert result.returncode == 0
    return result.stdout


def test_every_sample_is_tested() -> None:
    assert {file.name for file in SAMPLES.glob("*.py")} == set(EXPECTED)


@pytest.mark.parametrize("sample", sorted(EXPECTED))
def test_sample(sample: str, tmp_path: Path) -> None:
    output = run(sample, tmp_path)
    for part in EXPECTED[sample]:
        assert part in output
    assert list(tmp_path.iterdir()) == []


def test_the_database_sample_on_a_server(postgres_server: PostgresServer, tmp_path: Path) -> None:
    output = run("database_store.py", tmp_path, DATABASE_URL=postgres_server.create_database("sample"))
    assert f"stored in postgresql://127.0.0.1:{postgres_server.port}/" in output
    assert "planted-" not in output
