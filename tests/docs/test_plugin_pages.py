"""The pages of the plug-ins: they begin with what to change, and name the versions that the tests run on."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.plugins.agent_framework.test_versions import BETAS
from tests.plugins.agent_framework.test_versions import OLDEST as OLDEST_OF_1
from tests.plugins.test_oldest_versions import ENVIRONMENTS

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "ag2": ["ag2"],
    "agent-framework": ["agent-framework-core"],
    "chatkit": ["openai-chatkit"],
    "claude-agent": ["claude-agent-sdk"],
    "google-adk": ["google-adk"],
    "haystack": ["haystack-experimental", "haystack-ai"],
    "langchain": ["langchain-core"],
    "langgraph": ["langgraph-checkpoint"],
    "llama-index": ["llama-index-core"],
    "openai-agents": ["openai-agents"],
    "pydantic-ai": ["pydantic-ai-slim"],
    "strands": ["strands-agents"],
}
"""What each plug-in stands on, by the name of its extra; the first one is what the extra installs."""
OLDEST = dict(
    requirement.split("==")
    for requirement in (*OLDEST_OF_1, *(one for group in ENVIRONMENTS.values() for one in group))
    if "==" in requirement
)
PAGES = sorted((ROOT / "docs").glob("plugins-*.md"))
SAMPLES = [
    *("ag2_stream", "agent_framework_beta_thread", "agent_framework_history", "agent_framework_workflow"),
    *("chatkit_server", "claude_agent_sessions", "google_adk_sessions", "haystack_history"),
    *("langchain_history", "langgraph_saver", "llama_index_memory", "openai_agents_session"),
    *("pydantic_ai_conversation", "strands_session"),
]


def numbers(text: str) -> list[int]:
    """A version, to compare it."""
    return [int(one) for one in re.findall(r"\d+", text)]


def is_of(named: str, exact: str) -> bool:
    """Whether a version that a page names, maybe without its last part, is this one."""
    return numbers(exact)[: len(numbers(named))] == numbers(named)


def named_versions(extra: str) -> list[str]:
    """The versions that a page says it was tested with."""
    text = (ROOT / "docs" / f"plugins-{extra}.md").read_text()
    (sentence,) = re.findall(r"^(?:.* )?Tested with (.*)$", text, re.MULTILINE)
    return re.findall(r"(?<![\d.])\d+\.\d+(?:\.\d+(?:b\d+)?)?", sentence)


def test_every_page_is_here() -> None:
    assert {page.stem.removeprefix("plugins-") for page in PAGES} == {*PACKAGES, "agent-framework-beta"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_begins_with_what_to_change(page: Path) -> None:
    first, *_ = re.findall(r"^## (.*)$", page.read_text(), re.MULTILINE)
    assert first == "What to change"


@pytest.mark.parametrize("extra", PACKAGES)
def test_the_versions_of_a_page_are_those_of_the_tests(extra: str) -> None:
    named = dict.fromkeys(named_versions(extra))
    packages = PACKAGES[extra] + (["langgraph"] if extra == "langgraph" else [])
    for package in packages:
        newest = version(package)
        if package in OLDEST:
            found = [one for one in named if is_of(one, OLDEST[package])]
            assert found, f"{package} {OLDEST[package]} is tested, and not named"
            del named[found[0]]
            if is_of(OLDEST[package], newest):
                continue
        # A newer one than the page knows of may be installed.
        found = [
            one
            for one in named
            if numbers(one)[0] == numbers(newest)[0] and not numbers(one) > numbers(newest)
        ]
        assert found, f"{package} {newest} is tested, and not named"
        del named[found[-1]]
    assert not named, "no test runs on these"


def test_the_versions_of_the_betas() -> None:
    assert named_versions("agent-framework-beta") == list(BETAS.values())


@pytest.mark.parametrize("extra", PACKAGES)
def test_an_extra_installs_the_oldest_tested_version_or_a_newer_one(extra: str) -> None:
    text = (ROOT / "pyproject.toml").read_text()
    (line,) = re.findall(rf"^{extra} = \[(.*)\]$", text, re.MULTILINE)
    package = PACKAGES[extra][0]
    (lowest,) = re.findall(rf'"{package}>=([\d.]+)', line)
    assert is_of(lowest, OLDEST[package])


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_has_at_most_40_lines(name: str) -> None:
    assert len((ROOT / "samples" / f"{name}.py").read_text().splitlines()) <= 40
