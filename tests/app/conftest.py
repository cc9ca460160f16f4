"""The application's server, its model and its memory, and a browser."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from agent_stores.testing.model_server import ModelServer
from tests.app.chromium import FLAGS, NoChromiumError, find_chromium
from tests.app.identity_provider import IdentityProvider
from tests.app.server import AppServer
from tests.app.window import Window
from tests.servers.mem0_platform import Mem0Platform
from tests.servers.ports import PortLease


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium with a profile of its own.

    Not for the whole session: while Playwright is there, no other event loop can run on its thread.
    """
    try:
        chromium = find_chromium()
    except NoChromiumError as error:
        pytest.skip(f"THE BROWSER TESTS DID NOT RUN: {error}. Set CHROMIUM, or install chromium.")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=chromium.path,
            args=list(FLAGS),
            env={**os.environ, **chromium.environment},
        )
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def pictures() -> Path:
    """Where screenshots are kept; the test run says so."""
    folder = Path(os.environ.get("CHAT_APP_PICTURES") or tempfile.mkdtemp(prefix="chat-app-pictures-"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def model() -> Iterator[ModelServer]:
    """The model, slow enough to be seen streaming."""
    with ModelServer(chunk_delay=0.02) as server:
        yield server


@pytest.fixture(scope="session")
def app_server(tmp_path_factory: pytest.TempPathFactory, model: ModelServer) -> Iterator[AppServer]:
    """The application on an SQLite file."""
    yield from _served(tmp_path_factory.mktemp("app"), model)


@pytest.fixture
def platform() -> Iterator[Mem0Platform]:
    """mem0's platform."""
    with Mem0Platform() as server:
        yield server


@pytest.fixture
def app_with_memory(tmp_path: Path, model: ModelServer, platform: Mem0Platform) -> Iterator[AppServer]:
    """The application with mem0."""
    yield from _served(tmp_path, model, MEM0_API_KEY=platform.api_key, MEM0_HOST=platform.host)


@pytest.fixture
def identity_provider() -> Iterator[IdentityProvider]:
    """Says who a person is."""
    with IdentityProvider() as provider:
        yield provider


@pytest.fixture
def app_with_sign_in(
    tmp_path: Path, model: ModelServer, identity_provider: IdentityProvider
) -> Iterator[AppServer]:
    """The application with OpenID Connect."""
    yield from _served(tmp_path, model, identity_provider, CHAT_APP_SIGN_IN="oidc")


def _served(
    folder: Path, model: ModelServer, provider: IdentityProvider | None = None, **environment: str
) -> Iterator[AppServer]:
    lease = PortLease()
    if provider is not None:
        provider.write_secrets(folder, f"http://localhost:{lease.port}")
    service = {"OPENAI_BASE_URL": model.base_url, "OPENAI_API_KEY": model.api_key}
    with AppServer(folder, lease.port, OPENAI_MODEL="test-model", **service, **environment) as server:
        yield server
    lease.release()


@pytest.fixture
def window(
    browser: Browser,
    app_server: AppServer,
    pictures: Path,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> Iterator[Callable[..., Window]]:
    """Makes windows, each of a browser profile of its own."""
    windows: list[Window] = []

    def make(
        width: int = 1280, height: int = 800, scheme: Any = "light", server: AppServer = app_server
    ) -> Window:
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        windows.append(Window(context.new_page(), server.url, pictures))
        return windows[-1]

    yield make
    for number, made in enumerate(windows):
        made.page.screenshot(path=pictures / f"end-of-{request.node.name}-{number}.png")
        made.page.context.close()
    with capsys.disabled():
        print(f"\nscreenshots of {request.node.name}: {pictures}")
    away = [url for made in windows for url in made.failed if not url.startswith("http://localhost:")]
    assert not away, f"the page asked other places than its own: {away}"
    assert "Traceback" not in app_server.log
