"""Every view for everyone: keyboard, screen reader, small and enlarged screens, dark colours, less motion."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import pairwise
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.browser import severe_findings, watched
from tests.support.page_routes import page_paths
from tests.support.served_web_tier import ServedWebTier

MOST_STOPS = 400
"""More than any view has."""

_STOPS = """() => {
  const stops = "a[href], button, input, select, textarea, summary, [tabindex='0'], [contenteditable='true']";
  const isChosen = (one) =>
    one.type !== "radio" || one.checked || !document.querySelector(`[name='${one.name}']:checked`);
  return [...document.querySelectorAll(stops)]
    .filter((one) => !one.disabled && one.tabIndex >= 0 && one.checkVisibility({ visibilityProperty: true }))
    .filter(isChosen).map((one) => one.outerHTML.slice(0, 160));
}"""
"""What the Tab key should reach, in the order of the document."""

_FOCUSED = """() => {
  const one = document.activeElement;
  if (!one || one === document.body) return null;
  const shown = () => {
    document.getAnimations().forEach((each) => each.finish());
    return [one, one.parentElement, ...(one.labels ?? [])].map((each) => {
      const style = getComputedStyle(each);
      const outline = style.outlineStyle === "none" ? "" : `${style.outlineWidth} ${style.outlineColor}`;
      return [outline, style.boxShadow, style.borderColor, style.backgroundColor, style.textDecoration].join();
    }).join();
  };
  const focused = shown(), box = one.getBoundingClientRect();
  one.blur();
  const seen = focused !== shown();
  one.focus();
  return { html: one.outerHTML.slice(0, 160), seen, inside: box.bottom > 0 && box.top < innerHeight };
}"""
"""What has the focus, whether one sees that, and whether it is on the screen."""

_TOO_WIDE = """() => {
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= width) return [];
  return [...document.body.querySelectorAll("*")].filter((one) => one.getBoundingClientRect().right > width + 1)
    .map((one) => one.outerHTML.slice(0, 160)).slice(0, 5);
}"""

_MOVING = """() => [...document.querySelectorAll("*")].filter((one) => {
  const style = getComputedStyle(one);
  const lasts = (durations) => durations.split(", ").some((each) => parseFloat(each) > 0.01);
  return (style.animationName !== "none" && lasts(style.animationDuration)) || lasts(style.transitionDuration);
}).map((one) => one.outerHTML.slice(0, 160)).slice(0, 5)"""


@pytest.fixture(scope="module")
def paths(filled_site: ServedWebTier, arguments: dict[str, str]) -> list[str]:
    """The addresses of all pages."""
    return list(page_paths(filled_site, arguments).values())


@pytest.fixture
def open_page(browser: Browser, filled_site: ServedWebTier) -> Iterator[Callable[..., Page]]:
    """Opens pages of the site with options of the browser; an error in one of them fails the test."""
    problems: list[str] = []
    with ExitStack() as stack:

        def open_one(**options: Any) -> Page:
            page, watch = stack.enter_context(watched(browser, filled_site.url, **options))
            stack.callback(lambda: problems.extend(watch.verdict()))
            return page

        yield open_one
    assert problems == []


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_view_has_no_barrier(open_page: Callable[..., Page], paths: list[str], colours: str) -> None:
    """Contrast and everything else that axe-core finds, in each set of colours."""
    page = open_page(color_scheme=colours)
    for path in paths:
        page.goto(path)
        assert severe_findings(page) == [], path


def test_view_has_a_language_a_title_and_headings_in_order(open_page: Callable[..., Page], paths: list[str]) -> None:
    """By them, users of a screen reader find the way; each page has another title."""
    page = open_page()
    titles = []
    for path in paths:
        page.goto(path)
        titles.append(page.title())
        assert page.locator("html").get_attribute("lang") == "en"
        levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map((one) => +one.tagName[1])")
        assert levels.count(1) == 1, path
        assert all(lower <= upper + 1 for upper, lower in pairwise(levels)), (path, levels)
        assert page.locator("nav a[aria-current=page]").count() == 1, path
    assert len(set(titles)) == len(paths), titles


def test_view_is_used_with_the_tab_key(open_page: Callable[..., Page], paths: list[str]) -> None:
    """It reaches everything in the order of the document, and one sees where it is."""
    page = open_page(reduced_motion="reduce")
    for path in paths:
        page.goto(path)
        expected = page.evaluate(_STOPS)
        reached: list[str] = []
        for _ in range(MOST_STOPS):
            page.keyboard.press("Tab")
            stop = page.evaluate(_FOCUSED)
            if stop is None or (reached and stop["html"] == reached[0]):
                break
            assert stop["seen"], (path, "one does not see the focus", stop["html"])
            assert stop["inside"], (path, "the focus is not on the screen", stop["html"])
            reached.append(stop["html"])
        assert reached == expected, path


def test_first_stop_skips_the_navigation(open_page: Callable[..., Page]) -> None:
    """A link that is shown when it has the focus."""
    page = open_page()
    page.goto("/")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getBoundingClientRect().left >= 0")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.tagName") == "MAIN"


@pytest.mark.parametrize(
    ("width", "height", "scale"), [(320, 640, 1), (640, 400, 2)], ids=["320 pixels wide", "200 % zoom"]
)
def test_view_does_not_scroll_sideways(
    open_page: Callable[..., Page], paths: list[str], width: int, height: int, scale: int
) -> None:
    """A browser that zooms shows a smaller window with larger pixels."""
    page = open_page(viewport={"width": width, "height": height}, device_scale_factor=scale)
    for path in paths:
        page.goto(path)
        assert page.evaluate(_TOO_WIDE) == [], path


def test_view_does_not_move_for_readers_who_asked_for_less_motion(
    open_page: Callable[..., Page], paths: list[str]
) -> None:
    """No animation and no transition."""
    page = open_page(reduced_motion="reduce")
    for path in paths:
        page.goto(path)
        assert page.evaluate(_MOVING) == [], path


_OPENERS = """() => {
  const seen = new Set();
  return [...document.querySelectorAll("[aria-haspopup=dialog]")].map((one, place) => [one, place])
    .filter(([one]) => one.checkVisibility({ visibilityProperty: true }) && !seen.has(one.className))
    .map(([one, place]) => seen.add(one.className) && place);
}"""
"""The places of the buttons that open a dialog, of several alike the first."""

_INSIDE = "document.activeElement.closest('dialog[open]') !== null || document.activeElement === document.body"
"""Between the last and the first stop the focus is in the browser's own bar."""


def test_dialog_keeps_the_focus_and_gives_it_back(open_page: Callable[..., Page], paths: list[str]) -> None:
    """By the keyboard alone: Tab stays inside, Escape closes, and the button that opened it has the focus again."""
    page = open_page(permissions=["camera"])
    opened = 0
    for path in paths:
        page.goto(path)
        for place in page.evaluate(_OPENERS):
            page.goto(path)
            button = page.locator("[aria-haspopup=dialog]").nth(place)
            button.press("Enter")
            dialog = page.locator("dialog[open]")
            expect(dialog).to_be_visible()
            assert dialog.evaluate("(one) => (one.ariaLabel ?? one.getAttribute('aria-labelledby')) !== null"), path
            for _ in range(dialog.locator("a, button, input, select, textarea").count() + 2):
                assert page.evaluate(_INSIDE), (path, place)
                page.keyboard.press("Tab")
            page.keyboard.press("Escape")
            expect(dialog).to_have_count(0)
            expect(button).to_be_focused()
            opened += 1
    assert opened
