"""A browser window on the chat application, driven as a person would."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Locator, Page, expect

PATIENCE = 90_000  # milliseconds


class Window:
    """A window.

    Args:
        page: Playwright's page.
        url: the address of the application.
        pictures: where screenshots are put.
    """

    def __init__(self, page: Page, url: str, pictures: Path) -> None:
        self.page = page
        self._url = url
        self._pictures = pictures
        page.set_default_timeout(PATIENCE)
        self.failed: list[str] = []
        page.on("requestfailed", lambda request: self.failed.append(request.url))

    @property
    def sidebar(self) -> Locator:
        """The side bar."""
        return self.page.get_by_test_id("stSidebar")

    @property
    def entries(self) -> Locator:
        """The conversations in the side bar."""
        return self.page.locator(".st-key-threads button")

    @property
    def composer(self) -> Locator:
        """The field for the next message."""
        return self.page.get_by_test_id("stChatInputTextArea")

    @property
    def turns(self) -> Locator:
        """The messages of the conversation, an answer with its tools being one."""
        return self.page.get_by_test_id("stChatMessage")

    def open(self, query: str = "") -> None:
        """Load the page anew."""
        self.page.goto(f"{self._url}/{query}")

    def sign_in(self, name: str, query: str = "") -> None:
        """Load the page anew, and sign in."""
        self.open(query)
        self.page.get_by_label("Your name").fill(name)
        self.page.get_by_role("button", name="Continue").click()
        expect(self.sidebar.get_by_text(name, exact=True)).to_be_visible(timeout=PATIENCE)

    def begin(self) -> None:
        """Begin a conversation."""
        self.sidebar.get_by_role("button", name="New conversation").first.click()
        self.sees("Everything that is said here is kept")
        expect(self.turns).to_have_count(0, timeout=PATIENCE)  # Streamlit removes the old ones a little later

    def say(self, text: str) -> None:
        """Send a message."""
        expect(self.composer).to_be_enabled(timeout=PATIENCE)
        self.composer.fill(text)
        self.composer.press("Enter")

    def ask(self, text: str, answer: str) -> None:
        """Send a message, and wait until the answer is there and kept."""
        before = self.turns.count()
        self.say(text)
        expect(self.turns).to_have_count(before + 2, timeout=PATIENCE)
        expect(self.turns.last).to_contain_text(answer, timeout=PATIENCE)
        expect(self.page.locator(".st-key-stop")).to_have_count(0, timeout=PATIENCE)
        expect(self.composer).to_be_enabled(timeout=PATIENCE)

    def stop(self) -> None:
        """Stop the answer, by the application's button; Streamlit has one, too, when a run takes long."""
        button = self.page.get_by_role("button", name="Stop")
        button.and_(self.page.get_by_test_id("stBaseButton-secondary")).click()

    def sees(self, text: str) -> None:
        """Wait for a text."""
        expect(self.page.get_by_text(text).first).to_be_visible(timeout=PATIENCE)

    def settled(self) -> None:
        """Wait until the page is drawn: what is clicked meanwhile may be replaced."""
        app = self.page.get_by_test_id("stApp")
        expect(app).to_have_attribute("data-test-script-state", "notRunning", timeout=PATIENCE)

    def menu(self, name: str) -> None:
        """Open, or close, ``settings`` or ``actions``."""
        self.page.locator(f"[class*=st-key-{name}-] button:visible").first.click()

    def picture(self, name: str) -> None:
        """Take a screenshot, with what moves at rest."""
        self.page.wait_for_timeout(100)
        self.page.screenshot(path=self._pictures / f"{name}.png", animations="disabled")
