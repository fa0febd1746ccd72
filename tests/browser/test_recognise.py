"""Recognition on the page."""

from collections.abc import Callable

from playwright.sync_api import Page, expect


def test_page_shows_a_form_for_a_photo(page: Page, check_accessible: Callable[[Page], None]) -> None:
    """It asks for one photo."""
    page.goto("/")
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    check_accessible(page)
