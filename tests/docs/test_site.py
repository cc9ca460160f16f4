"""`make docs` builds the site strictly, and a browser shows every page of it, as a file, without an error."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag

import pytest
from playwright.sync_api import Browser, Request, sync_playwright

from tests.app.chromium import FLAGS, NoChromiumError, find_chromium

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(600)


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


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    try:
        chromium = find_chromium()
    except NoChromiumError as error:
        pytest.skip(f"THE SITE WAS NOT OPENED IN A BROWSER: {error}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium.path, args=list(FLAGS), env={**os.environ, **chromium.environment}
        )
        yield browser
        browser.close()


LINKS = """() => ({
    links: [...document.querySelectorAll("a[href]")].map(link => link.href),
    ids: [...document.querySelectorAll("[id]")].map(element => element.id),
    width: document.documentElement.scrollWidth,
})"""


def note_failure(errors: list[str], request: Request) -> None:
    if request.failure != "net::ERR_ABORTED":  # as when the next page opens before a worker is loaded
        errors.append(f"{request.url} failed: {request.failure}")


def test_every_page_opens_and_every_link_leads_somewhere(site: Path, browser: Browser) -> None:
    """Wide and light first, then narrow and dark: no error on the console, and nothing beyond the window."""
    pages = sorted(file for file in site.rglob("*.html") if file.name != "404.html")  # which a server shows
    assert len(pages) > 40
    errors: list[str] = []
    links: dict[str, set[str]] = {}
    ids: dict[str, set[str]] = {}
    for scheme, width in (("light", 1280), ("dark", 390)):
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)  # type: ignore[arg-type]
        page = context.new_page()
        page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("requestfailed", partial(note_failure, errors))
        for file in pages:
            page.goto(file.as_uri())
            found: Any = page.evaluate(LINKS)
            if found["width"] > width:
                errors.append(f"{page.url} is {found['width']} pixels wide in a window of {width}")
            links[file.as_uri()], ids[file.as_uri()] = set(found["links"]), set(found["ids"])
        context.close()
    for source, targets in links.items():
        for target in targets:
            url, fragment = urldefrag(target)
            if not url.startswith("file:"):
                continue
            if url not in ids or (fragment and unquote(fragment) not in ids[url]):
                errors.append(f"{source}: {target} leads nowhere")
    assert not errors, "\n".join(sorted(set(errors)))


def test_the_search_finds_a_page_that_was_opened_as_a_file(site: Path, browser: Browser) -> None:
    page = browser.new_page()
    page.goto((site / "index.html").as_uri())
    page.locator(".md-search__input").press_sequentially("idempotency")
    result = page.locator(".md-search-result__link").first
    result.wait_for(timeout=60_000)
    assert ".html" in (result.get_attribute("href") or "")
    page.close()
