"""The plug-ins on the oldest versions of their frameworks that are supported."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.plugins.environments import environment, run_tests

ENVIRONMENTS = {
    "oldest": (
        "openai-agents==0.3.0",
        "langchain-core==0.3.0",
        "langchain-openai==0.2.0",
        "langgraph<0.3",
        "llama-index-core==0.12.37",
        "azure-data-tables>=12.5",
        "aiohttp>=3.9",
    ),
    "oldest-more": (  # openai-chatkit needs a newer openai-agents
        "claude-agent-sdk==0.1.66",
        "strands-agents==1.50.0",
        "ag2==1.2.0",
        "haystack-ai==2.31.0",
        "haystack-experimental==0.16.0",
        "openai-chatkit==1.6.0",
    ),
    "oldest-stores": (  # langgraph-checkpoint needs a newer langchain-core
        "langgraph-checkpoint==4.3.0",
        "langgraph>=1.2",
        "langgraph-checkpoint-conformance>=0.0.2",
        "langgraph-checkpoint-sqlite>=3.1",
        "langgraph-checkpoint-postgres>=3.1",
        "psycopg[binary]>=3.2",
        "pydantic-ai-slim==2.68.0",
        "google-adk==2.13.0",
        "aiosqlite>=0.20",
    ),
}
FRAMEWORKS = {
    "openai_agents": "oldest",
    "langchain": "oldest",
    "llama_index": "oldest",
    "claude_agent": "oldest-more",
    "strands": "oldest-more",
    "ag2": "oldest-more",
    "haystack": "oldest-more",
    "chatkit": "oldest-more",
    "langgraph": "oldest-stores",
    "pydantic_ai": "oldest-stores",
    "google_adk": "oldest-stores",
}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_on_the_oldest_version(framework: str, record_property: Callable[[str, object], None]) -> None:
    name = FRAMEWORKS[framework]
    python = environment(name, *ENVIRONMENTS[name])
    # Those versions warn of what newer versions of their own requirements have deprecated.
    alone = ("--confcutdir=tests/plugins", "-p", "tests.plugins.unguarded", "-W", "ignore")
    said = run_tests(python, *alone, f"tests/plugins/{framework}")
    assert " passed" in said
    assert "skipped" not in said
    record_property("judge", f"{framework}, oldest version: {said.splitlines()[-1].strip()}")
