"""Writes the screenshots of the documentation to docs/images, or to the folder of the first argument.

The chat application runs as `make app` runs it, with the local test model, and the site as `make docs` builds
it. The pictures are the same in each run, but for the time of day.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from playwright.sync_api import Browser, sync_playwright  # noqa: E402

from agent_stores.testing.model_server import ModelServer  # noqa: E402
from agent_stores.testing.scripted_model import RULES, Prompt, Reply  # noqa: E402
from tests.app.chromium import FLAGS, find_chromium  # noqa: E402
from tests.app.server import AppServer  # noqa: E402
from tests.app.window import Window  # noqa: E402
from tests.servers.ports import PortLease  # noqa: E402

PLAN = """\
1. **Saturday**: the Opera House, then Akershus fortress.
2. **Sunday**: the Fram museum.

| day | hours |
|---|---|
| Saturday | 6 |
| Sunday | 4 |"""


def plan(prompt: Prompt) -> Reply | None:
    """A rule of the test model."""
    return Reply(PLAN) if prompt.question.startswith("Plan a weekend") else None


SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


def application(browser: Browser, folder: Path) -> None:
    """A conversation in the chat application, in both colour schemes."""
    lease = PortLease()
    with (
        tempfile.TemporaryDirectory(prefix="agent-stores-") as name,
        ModelServer(rules=[plan, *RULES]) as model,
    ):
        service = {"OPENAI_BASE_URL": model.base_url, "OPENAI_API_KEY": model.api_key}
        link = Path(tempfile.gettempdir()) / "chats"  # a path that reads well on the picture
        link.unlink(missing_ok=True)
        link.symlink_to(name)
        with AppServer(link, lease.port, OPENAI_MODEL="test-model", **service) as server:
            for scheme, user in zip(SCHEMES, ("Alice", "Bob"), strict=True):
                context = browser.new_context(viewport={"width": 1280, "height": 820}, color_scheme=scheme)
                window = Window(context.new_page(), server.url, folder)
                window.sign_in(user)
                window.begin()
                window.ask(f"Hello, my name is {user}", f"Nice to meet you, {user}!")
                window.ask("Plan a weekend in Oslo", "Fram museum")
                window.ask("What time is it in UTC?", "The tool says")
                window.settled()
                window.picture("chat-app" if scheme == "light" else f"chat-app-{scheme}")
                context.close()
        link.unlink()
    lease.release()


def site(browser: Browser, folder: Path) -> None:
    """The first page of the documentation, wide and narrow, in both colour schemes."""
    with tempfile.TemporaryDirectory() as name:
        build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", name]
        subprocess.run(build, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, check=True)
        for scheme, width in product(SCHEMES, (1280, 420)):
            context = browser.new_context(viewport={"width": width, "height": 820}, color_scheme=scheme)
            page = context.new_page()
            page.goto((Path(name) / "index.html").as_uri())
            page.screenshot(path=folder / f"site-{scheme}-{width}.png")
            context.close()


def main() -> None:
    """Take all pictures."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images"
    folder.mkdir(parents=True, exist_ok=True)
    chromium = find_chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium.path, args=list(FLAGS), env={**os.environ, **chromium.environment}
        )
        application(browser, folder)
        site(browser, folder)
        browser.close()


if __name__ == "__main__":
    main()
