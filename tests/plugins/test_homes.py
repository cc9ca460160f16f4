"""The modules that users import, where their framework is not installed."""

from __future__ import annotations

import subprocess
import sys

import pytest

HOMES = {
    "openai_agents": "agents",
    "langchain": "langchain_core",
    "llama_index": "llama_index",
    "agent_framework": "agent_framework",
    "agent_framework_beta": "agent_framework",
    "claude_agent": "claude_agent_sdk",
    "langgraph": "langgraph.checkpoint.base",
    "google_adk": "google.adk",
    "pydantic_ai": "pydantic_ai",
    "strands": "strands",
    "ag2": "ag2",
    "haystack": "haystack",
    "chatkit": "chatkit",
}


@pytest.mark.parametrize("home", HOMES)
def test_the_extra_is_named(home: str) -> None:
    code = (
        f"import sys; sys.modules[{HOMES[home]!r}] = None\n"
        "from agent_stores.errors import MissingDependencyError\n"
        "try:\n"
        f"    import agent_stores.{home}\n"
        "except MissingDependencyError as error:\n"
        "    print(error)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"pip install 'agent-stores[{home.replace('_', '-')}]'" in result.stdout


def test_a_home_brings_its_own_framework_only() -> None:
    code = "import sys, agent_stores.openai_agents; print([n for n in sys.modules if n in sys.argv])"
    others = ["langchain_core", "llama_index", "agent_framework"]
    result = subprocess.run([sys.executable, "-c", code, *others], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
