"""Fixtures of the browser tests: Chromium, served sites, and pages that fail a test whose browser sees an error."""

import re
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.browser import PHONE, WAIT_MS, Watch, chromium, find_chromium, save_picture, severe_findings, watched
from tests.support.processes import CHECKOUT
from tests.support.sample_site import SiteKeys, fill, make_keys, sample_arguments, serve_site
from tests.support.served_web_tier import ServedWebTier

PICTURES = CHECKOUT / ".cache" / "browser"
"""What the page of a failed test showed."""

CheckAccessible = Callable[[Page], None]
_watches = pytest.StashKey[list[tuple[Page, Watch]]]()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for the tests of a file; it ends with them, since its event loop is of no use to other tests."""
    if find_chromium() is None:
        pytest.skip("Chromium is not installed (apt-get install chromium)")
    expect.set_options(timeout=WAIT_MS)
    with chromium() as one:
        yield one


@pytest.fixture
def site() -> Iterator[ServedWebTier]:
    """A site without API keys."""
    with serve_site() as web:
        yield web


@pytest.fixture(scope="module")
def filled_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedWebTier]:
    """A site with people, unknown people and jobs, which no test of the file changes."""
    with serve_site() as web:
        fill(web, tmp_path_factory.mktemp("photos"))
        yield web


@pytest.fixture(scope="module")
def arguments(filled_site: ServedWebTier) -> dict[str, str]:
    """A value for each argument in the address of a page of `filled_site`."""
    return sample_arguments(filled_site)


@pytest.fixture
def keys() -> SiteKeys:
    """The keys of `secured_site`."""
    return make_keys()


@pytest.fixture
def secured_site(keys: SiteKeys) -> Iterator[ServedWebTier]:
    """A site that needs one of the `keys`."""
    with serve_site(keys.store) as web:
        yield web


@pytest.fixture
def page(request: pytest.FixtureRequest, browser: Browser) -> Iterator[Page]:
    """A page of `site`, or of `secured_site` in a test that has it.

    The test fails at its end if there was an error on the console or of a script, a violation of the content security
    policy, a failed request, or a request to another host. `watch` can expect one.
    """
    with _watched_page(request, browser) as page:
        yield page


@pytest.fixture
def phone(request: pytest.FixtureRequest, browser: Browser) -> Iterator[Page]:
    """A `page` on a phone."""
    with _watched_page(request, browser, **PHONE) as page:
        yield page


@contextmanager
def _watched_page(request: pytest.FixtureRequest, browser: Browser, **options: Any) -> Iterator[Page]:
    site: ServedWebTier = request.getfixturevalue("secured_site" if "secured_site" in request.fixturenames else "site")
    with watched(browser, site.url, **options) as (page, watch):
        request.node.stash.setdefault(_watches, []).append((page, watch))
        yield page
        if problems := watch.verdict():
            path = save_picture(page, PICTURES, _file_name(request.node))
            pytest.fail("\n".join(["the browser saw errors:", *problems, f"picture: {path}"]), pytrace=False)


@pytest.fixture
def watch(request: pytest.FixtureRequest, page: Page) -> Watch:
    """What goes wrong on `page`: `watch.expect("status of 403")`."""
    watches: list[tuple[Page, Watch]] = request.node.stash[_watches]
    return next(watch for one, watch in watches if one is page)


@pytest.fixture
def check_accessible() -> CheckAccessible:
    """Fails the test if axe-core has a serious or critical finding on what a page shows now."""

    def check(page: Page) -> None:
        if findings := severe_findings(page):
            pytest.fail("\n".join([f"axe-core on {page.url}:", *findings]))

    return check


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the picture of a failed test and the lines of its browser's console to the report."""
    report = yield
    if report.when == "call" and report.failed:
        watches: list[tuple[Page, Watch]] = item.stash.get(_watches, [])
        for number, (page, watch) in enumerate(watches):
            path = save_picture(page, PICTURES, f"{_file_name(item)}{f'-{number}' if number else ''}")
            report.sections.append((f"Browser at {page.url}", "\n".join([f"picture: {path}", *watch.lines])))
    return report


def _file_name(item: pytest.Item) -> str:
    return re.sub(r"[^\w-]+", "-", f"{item.path.stem}-{item.name}")
