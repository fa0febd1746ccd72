"""Debian's Chromium under Playwright: pages that are watched for errors, and checks of accessibility."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, WebError, sync_playwright

FLAGS = (
    "--no-sandbox",  # it needs a user other than root
    "--disable-dev-shm-usage",  # containers have 64 MB there
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
)
"""Nothing leaves the machine, the camera shows a test pattern, and a page gets it without a question."""

WAIT_MS = 30_000.0
"""For one step of a test, on a busy machine."""

DESKTOP: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}}
PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2,
    "is_mobile": True,
    "has_touch": True,
}
READER: dict[str, Any] = {"locale": "en-GB", "timezone_id": "Europe/Berlin"}
"""Neither the server's zone nor the usual locale, so that a test sees who formats a time."""

_HOST = "127.0.0.1"
_SEVERE = frozenset({"serious", "critical"})
_AXE_OPTIONS = {"resultTypes": ["violations"]}


def find_chromium() -> str | None:
    """Return the path of the installed Chromium."""
    return shutil.which("chromium", path="/usr/bin:/usr/local/bin")


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run Chromium without a window, and end it on leaving; raises `FileNotFoundError` if it is not installed.

    It is for one thread. While it runs, no other code of the thread may run an event loop.
    """
    program = find_chromium()
    if program is None:
        raise FileNotFoundError("Chromium is not installed; on Debian: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Watch:
    """What goes wrong in the pages of one browser context."""

    context: BrowserContext
    lines: list[str] = field(default_factory=list)
    """Every line of the console, for the report of a failure."""
    problems: list[str] = field(default_factory=list)
    """Errors of the console (violations of the policy, too) and of scripts; requests that fail or go elsewhere."""
    expected: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Begin to watch."""
        self.context.on("console", self._said)
        self.context.on("weberror", self._raised)
        self.context.on("request", self._asked)
        self.context.on("requestfailed", self._failed)

    def expect(self, text: str) -> None:
        """Expect a problem with this text; without one the test fails."""
        self.expected.append(text)

    def verdict(self) -> list[str]:
        """Return the problems that no one expected, and a line for each expected one that did not come."""
        unexpected = [problem for problem in self.problems if not any(text in problem for text in self.expected)]
        missing = [text for text in self.expected if not any(text in problem for problem in self.problems)]
        return unexpected + [f"expected, but did not come: {text}" for text in missing]

    def _said(self, message: ConsoleMessage) -> None:
        place = message.location
        line = f"{message.type}: {message.text} ({place.get('url')}:{place.get('lineNumber')})"
        self.lines.append(line)
        if message.type == "error":
            self.problems.append(f"console {line}")

    def _raised(self, error: WebError) -> None:
        self.problems.append(f"script error: {error.error.stack or error.error}")

    def _asked(self, request: Request) -> None:
        url = urlsplit(request.url)
        if url.scheme not in {"data", "blob", "about"} and url.hostname != _HOST:
            self.problems.append(f"request to another host: {request.method} {request.url}")

    def _failed(self, request: Request) -> None:
        # A page that is left gives its requests up; a download ends a navigation in the same way.
        if request.failure != "net::ERR_ABORTED":
            self.problems.append(f"request failed: {request.method} {request.url}: {request.failure}")


@contextmanager
def watched(browser: Browser, url: str, **options: Any) -> Iterator[tuple[Page, Watch]]:
    """A page of a context of its own, with paths relative to `url`, and what goes wrong in it."""
    context = browser.new_context(base_url=url, **(DESKTOP | READER | options))
    context.set_default_timeout(WAIT_MS)
    try:
        watch = Watch(context)
        yield context.new_page(), watch
    finally:
        context.close()


def severe_findings(page: Page) -> list[str]:
    """Return the serious and critical findings of axe-core on what the page shows now, one line each."""
    settle(page)
    # `evaluate` is not bound by the page's policy, a script element would be.
    page.evaluate((resources.files("axe_playwright_python") / "axe.min.js").read_text())
    found = page.evaluate(f"axe.run(document, {json.dumps(_AXE_OPTIONS)})")
    return [
        f"{finding['id']} ({finding['impact']}): {finding['help']}: {node['html']}"
        for finding in found["violations"]
        if finding["impact"] in _SEVERE
        for node in finding["nodes"]
    ]


def settle(page: Page) -> None:
    """End the transitions that run, whose half-mixed colours have no contrast to judge."""
    page.evaluate(
        "document.getAnimations().filter(one => one.effect.getComputedTiming().endTime !== Infinity)"
        ".forEach(one => one.finish())"
    )


def save_picture(page: Page, folder: Path, name: str) -> Path:
    """Save what the page shows now, and return the file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    page.screenshot(path=path)
    return path
