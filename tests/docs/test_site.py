"""`make docs` builds the site strictly, and a browser shows it without an error."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    result = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


def test_every_page_is_built(site: Path) -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        assert (site / page.relative_to(ROOT / "docs").with_suffix(".html")).is_file()


def test_nothing_is_fetched_from_another_host(site: Path) -> None:
    loaded = re.compile(
        r'<(?:script|img|iframe)[^>]* src="?(https?:)|<link[^>]*stylesheet[^>]*href="?(https?:)'
    )
    for page in site.rglob("*.html"):
        assert not loaded.search(page.read_text()), page.name


def test_the_reference_names_what_is_public(site: Path) -> None:
    import agent_stores

    text = "".join(page.read_text() for page in (site / "reference").glob("*.html"))
    missing = [
        name
        for name in agent_stores.__all__
        if name not in ("__version__", "AnyContent") and f'.{name}"' not in text
    ]
    assert not missing
