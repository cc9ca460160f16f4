"""The plug-ins on the oldest versions of their frameworks that are supported."""

from __future__ import annotations

import pytest

from tests.plugins.environments import environment, run_tests

REQUIREMENTS = (
    "openai-agents==0.3.0",
    "langchain-core==0.3.0",
    "langchain-openai==0.2.0",
    "langgraph<0.3",
    "llama-index-core==0.12.37",
)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("framework", ["openai_agents", "langchain", "llama_index"])
def test_on_the_oldest_version(framework: str) -> None:
    python = environment("oldest", *REQUIREMENTS)
    # Those versions warn of what newer versions of their own requirements have deprecated.
    said = run_tests(python, "--confcutdir=tests/plugins", "-W", "ignore", f"tests/plugins/{framework}")
    assert " passed" in said
    assert "skipped" not in said
