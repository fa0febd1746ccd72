"""The harness itself: what goes wrong in a browser is noticed."""

import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, Route

from tests.support.browser import WAIT_MS, Watch, severe_findings, watched

URL = "http://127.0.0.1:9"
"""Nothing listens there: each test answers the requests itself."""

POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'"


def _show(page: Page, body: str = "", **files: str) -> None:
    """Show a page with this body and a strict policy, whose scripts are `files`."""

    def answer(route: Route) -> None:
        name = route.request.url.rpartition("/")[2]
        if name == "refused":
            route.fulfill(status=403, body="no")
        elif name in files:
            route.fulfill(content_type="text/javascript", body=files[name])
        else:
            scripts = "".join(f'<script src="/{file}"></script>' for file in files)
            page = f'<!doctype html><html lang="en"><title>A page</title><main><h1>A page</h1>{body}</main>{scripts}'
            route.fulfill(content_type="text/html", body=page, headers={"Content-Security-Policy": POLICY})

    page.route(f"{URL}/**", answer)
    page.goto("/")


def _await_problem(page: Page, watch: Watch, text: str) -> None:
    """Wait for a problem with this text; the test fails if it does not come."""
    deadline = time.monotonic() + WAIT_MS / 1000
    while not any(text in problem for problem in watch.problems):
        assert time.monotonic() < deadline, watch.problems
        page.wait_for_timeout(20)  # Playwright's events come in while it waits


@pytest.fixture
def seen(browser: Browser) -> Iterator[tuple[Page, Watch]]:
    """A watched page of no site."""
    with watched(browser, URL) as one:
        yield one


def test_page_without_errors_has_no_problem(seen: tuple[Page, Watch]) -> None:
    """Nor do lines on the console that are no errors."""
    page, watch = seen
    _show(page, script="console.log('hello')")
    assert (watch.verdict(), len(watch.lines)) == ([], 1)


@pytest.mark.parametrize(
    ("body", "script", "problem"),
    [
        ("", "console.error('broken')", "console error: broken"),
        ("", "nothing.at.all", "script error: ReferenceError"),
        ("", "Promise.reject(new Error('late'))", "script error: Error: late"),
        ("<script>1</script>", "", "Executing inline script violates"),
        ('<p style="color: red">red</p>', "", "Applying inline style violates"),
        ('<img src="https://example.com/x.png" alt="">', "", "violates"),
        ("", "fetch('/refused')", "status of 403"),
        ("", "fetch('http://localhost:9/').catch(() => 0)", "violates"),
        ("", "location = 'http://localhost:9/away'", "request to another host: GET http://localhost:9/away"),
    ],
)
def test_error_in_the_browser_is_a_problem(seen: tuple[Page, Watch], body: str, script: str, problem: str) -> None:
    """Errors of the console and of scripts, violations of the policy, and requests to another host."""
    page, watch = seen
    _show(page, body, script=script)
    _await_problem(page, watch, problem)
    assert watch.verdict() == watch.problems


def test_expected_error_is_no_problem_but_must_come(seen: tuple[Page, Watch]) -> None:
    """A test of a refusal says which error it expects."""
    page, watch = seen
    watch.expect("status of 403")
    assert watch.verdict() == ["expected, but did not come: status of 403"]
    _show(page, script="fetch('/refused')")
    _await_problem(page, watch, "status of 403")
    assert watch.verdict() == []


def test_no_request_leaves_the_machine(seen: tuple[Page, Watch]) -> None:
    """Names of other hosts have no address."""
    page, watch = seen
    _show(page, script="location = 'http://example.com/'")
    _await_problem(page, watch, "example.com/: net::ERR_NAME_NOT_RESOLVED")


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        ('<input type="text">', "label"),
        ("<button></button>", "button-name"),
        ('<p><font color="#ddd">pale</font></p>', "color-contrast"),
    ],
)
def test_barrier_on_a_page_is_found(seen: tuple[Page, Watch], body: str, rule: str) -> None:
    """By axe-core, in spite of the page's policy."""
    page, _ = seen
    _show(page, body)
    assert [finding.split()[0] for finding in severe_findings(page)] == [rule]
