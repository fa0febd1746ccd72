"""People in a browser: find, rename, merge, delete."""

import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from facerec.errors import Transient
from facerec.gallery.receipt_signing import SigningKey, verified
from facerec.settings import Settings
from facerec.settings.resources import ErasureSettings
from tests.browser.conftest import CheckAccessible
from tests.fakes.portraits import portrait
from tests.support.browser import Watch
from tests.support.enrolled import enrol
from tests.support.served_web_tier import ServedWebTier, serve_web_tier

MARKUP = "<img src=x onerror=alert(1)>/Lab"


@pytest.fixture
def signing_key(tmp_path: Path) -> SigningKey:
    """The operator's key."""
    return SigningKey.create(tmp_path / "key.pem")


@pytest.fixture
def site(tmp_path: Path, signing_key: SigningKey) -> Iterator[ServedWebTier]:
    """A site that signs receipts."""
    del signing_key
    with serve_web_tier(settings=Settings(erasure=ErasureSettings(signing_key=tmp_path / "key.pem"))) as web:
        yield web


def held(store: object, method: str, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Let calls of a store's method wait for the event."""
    event, call = threading.Event(), getattr(store, method)

    def wait(*values: Any) -> Any:
        assert event.wait(60)
        return call(*values)

    monkeypatch.setattr(store, method, wait)
    return event


def test_people_are_searched_and_shown_page_by_page(
    site: ServedWebTier, page: Page, watch: Watch, check_accessible: CheckAccessible, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While many are read, the page says so, and why it cannot read them.

    The address keeps what is shown; the keyboard goes on at the first new person.
    """
    page.goto("/people")
    expect(page.get_by_role("heading", name="Nobody is enrolled here yet")).to_be_visible()
    check_accessible(page)
    enrol(site.tier, *[f"Person {number:04}" for number in range(1, 1241)], body=portrait("Ada"))
    site.tier.records.add_name("default", "Zoe")
    may_read = held(site.tier.templates, "entries", monkeypatch)
    page.reload()
    reading = page.get_by_text("The list of people is being read.")
    expect(reading).to_be_visible()
    expect(page.get_by_role("button", name="Enrol a person")).to_be_visible()
    expect(page.get_by_role("button", name="Try again")).to_be_hidden()
    check_accessible(page)
    site.tier.templates.outage = Transient("the table cannot be reached")
    may_read.set()
    expect(page.get_by_role("alert")).to_contain_text("cannot be reached right now")
    expect(reading).to_be_hidden()
    check_accessible(page)
    watch.expect("status of 503")
    watch.expect("Error Code 503 from /people")
    site.tier.templates.outage = None
    may_read.clear()
    page.get_by_role("button", name="Try again").click()
    expect(reading).to_be_visible()
    page.get_by_label("Search by name").fill("zoe")
    may_read.set()
    cards = page.locator(".person-card")
    expect(cards).to_have_count(1)
    page.get_by_label("Search by name").fill("")
    expect(cards).to_have_count(60)
    expect(page.get_by_text("1,241 people, 1,240 photos")).to_be_visible()
    check_accessible(page)
    page.get_by_role("button", name="Show more").click()
    expect(cards).to_have_count(120)
    expect(cards.nth(60)).to_be_focused()
    expect(page).to_have_url(re.compile(r"\?page=2$"))
    page.reload()
    expect(cards).to_have_count(120)
    page.get_by_label("Search by name").press_sequentially("123")
    expect(cards).to_have_count(12)
    expect(page.get_by_role("status").first).to_have_text("12 of 1,241 people, 1,240 photos")
    expect(page).to_have_url(re.compile(r"\?q=123$"))
    page.get_by_label("Search by name").fill("nobody")
    expect(page.get_by_role("heading", name="No name contains “nobody”")).to_be_visible()
    page.go_back()
    expect(cards).to_have_count(12)
    page.get_by_label("Search by name").fill("zoe")
    cards.filter(has_text="Zoe").click()
    expect(page.get_by_role("heading", name="Zoe", level=1)).to_be_visible()
    check_accessible(page)


def test_person_is_renamed_merged_and_taken_apart(
    site: ServedWebTier, page: Page, check_accessible: CheckAccessible
) -> None:
    """A refusal stands in its form; a name that is taken offers the merge."""
    enrol(site.tier, "Joan", "Jane Smith", "Jane Smith", MARKUP)
    page.goto("/people/Joan")
    page.get_by_role("button", name="Rename").click()
    name = page.get_by_label("New name")
    expect(name).to_be_focused()
    name.press("Escape")
    expect(page.get_by_role("button", name="Rename")).to_be_focused()
    page.keyboard.press("Enter")
    name.fill("Joan Smith")
    name.press("Enter")
    expect(page.get_by_role("heading", name="Joan Smith", level=1)).to_be_visible()
    expect(page).to_have_url(re.compile("/people/Joan%20Smith$"))
    expect(page).to_have_title(re.compile("^Joan Smith"))
    expect(page.locator(".notice")).to_be_focused()
    expect(page.locator(".notice")).to_have_text("Joan is called Joan Smith now.")
    check_accessible(page)
    page.get_by_role("button", name="Rename").click()
    name.fill("jane smith")
    name.press("Enter")
    page.get_by_role("button", name="Merge into Jane Smith").click()
    dialog = page.get_by_role("dialog", name="Are they one person?")
    expect(dialog.get_by_text("2 photos")).to_be_visible()
    check_accessible(page)
    dialog.get_by_role("button", name="Choose another").click()
    page.get_by_label("Who else is Joan Smith?").press_sequentially("smi")
    expect(page.locator(".merge-found li")).to_have_count(1)
    check_accessible(page)
    page.locator(".merge-found button").click()
    dialog.get_by_role("button", name="Merge into Jane Smith").click()
    expect(dialog).to_be_hidden()
    expect(page.locator(".notice")).to_contain_text("Joan Smith is part of Jane Smith now, with 1 photo.")
    expect(page).to_have_url(re.compile("/people/Jane%20Smith$"))
    expect(page.locator(".photo-card")).to_have_count(3)
    expect(page.get_by_role("button", name="Take back: Joan Smith")).to_be_visible()
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".notice")).to_contain_text("Joan Smith is separate from Jane Smith again, with 1 photo.")
    expect(page.locator(".photo-card")).to_have_count(2)
    page.get_by_role("link", name="Show Joan Smith").click()
    expect(page.locator(".photo-card")).to_have_count(1)


def test_photos_are_seen_large_and_deleted(site: ServedWebTier, page: Page, check_accessible: CheckAccessible) -> None:
    """With the keyboard; the last photo takes the person along."""
    enrol(site.tier, "Ada", "Ada", "Ada")
    page.goto("/people/Ada")
    first = page.get_by_role("button", name="Open photo 3.jpg")
    first.focus()
    page.keyboard.press("Enter")
    dialog = page.locator("#dialog")
    expect(dialog.get_by_role("heading")).to_have_text("photo 3.jpg")
    check_accessible(page)
    page.keyboard.press("ArrowRight")
    expect(dialog.get_by_role("heading")).to_have_text("photo 2.jpg")
    page.get_by_role("button", name="Next").press("Enter")
    expect(dialog.get_by_role("heading")).to_have_text("photo 1.jpg")
    expect(page.get_by_role("button", name="Next")).to_be_focused()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(first).to_be_focused()
    for left in (2, 1):
        page.locator(".photo-card").first.click()
        dialog.get_by_text("Delete this photo").click()
        dialog.get_by_role("button", name="Delete the photo").click()
        expect(page.locator(".photo-card")).to_have_count(left)
        expect(page.locator(".notice")).to_contain_text(f"The photo photo {left + 1}.jpg was deleted.")
    page.locator(".photo-card").click()
    dialog.get_by_text("Delete this photo").click()
    expect(dialog.get_by_text("This is the only photo of Ada.")).to_be_visible()
    dialog.get_by_role("button", name="Delete the photo").click()
    expect(page.get_by_role("heading", name="Deleting", level=1)).to_be_focused()


def test_person_is_deleted_and_the_receipt_proves_it(
    site: ServedWebTier, page: Page, check_accessible: CheckAccessible, signing_key: SigningKey, tmp_path: Path
) -> None:
    """The ledger follows by itself until every place has confirmed."""
    enrol(site.tier, "Ada", "Ada")
    page.goto("/people/Ada")
    page.get_by_role("button", name="Delete", exact=True).click()
    dialog = page.get_by_role("dialog", name="Delete Ada?")
    expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    expect(dialog.get_by_text("2 photos with their face data")).to_be_visible()
    check_accessible(page)
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Delete", exact=True)).to_be_focused()
    page.keyboard.press("Enter")
    dialog.get_by_role("button", name="Delete Ada").click()
    expect(page.get_by_role("heading", name="Deleting", level=1)).to_be_focused()
    subject_key = page.locator("#subject-key").inner_text()
    check_accessible(page)
    [record] = site.tier.erasures.ledger.open()
    expect(page).to_have_url(re.compile(f"/erasures/{record.erasure_id}$"))
    site.tier.erasures.now = lambda: datetime.now(UTC) + timedelta(hours=1)
    worker = site.tier.erasures.make("worker")
    while site.tier.erasures.ledger.open():
        worker.work(record.erasure_id)
    expect(page.get_by_role("heading", name="Deleted everywhere")).to_be_visible()
    expect(page.locator("#ledger[hx-trigger]")).to_have_count(0)
    with page.expect_download() as downloading:
        page.get_by_role("button", name="Download the receipt").click()
    file = tmp_path / downloading.value.suggested_filename
    downloading.value.save_as(file)
    receipt = verified(file.read_bytes(), signing_key.public_pem.encode())
    assert receipt.is_about("Ada", subject_key)
    assert not receipt.content["still_owed"]
    page.get_by_role("link", name="All deletions").click()
    expect(page.get_by_role("cell", name="Complete")).to_be_visible()
    check_accessible(page)


def test_name_with_markup_is_text_and_a_stale_page_leads_on(site: ServedWebTier, page: Page, watch: Watch) -> None:
    """A script in a name would be an error that the page sees."""
    enrol(site.tier, MARKUP, "Joan", "Jane")
    page.goto("/people")
    page.get_by_role("link", name=MARKUP).click()
    expect(page.get_by_role("heading", name=MARKUP, level=1)).to_be_visible()
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("button", name=f"Delete {MARKUP}").click()
    expect(page.get_by_text(f"prove that the receipt is about {MARKUP}.")).to_be_visible()
    page.goto("/people/Joan")
    site.tier.app.test_client().post("/people/Joan/merge", data={"into": "Jane"})
    page.get_by_role("button", name="Rename").click()
    page.get_by_label("New name").fill("Joan Smith")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", name="Joan is not here")).to_be_focused()
    page.get_by_role("link", name="Jane").click()
    expect(page.get_by_role("heading", name="Jane", level=1)).to_be_visible()
    page.get_by_role("button", name="Rename").click()
    page.get_by_label("New name").fill("Unknown")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#rename-error")).to_contain_text("stands for no person")
    watch.expect("status of 400")
    watch.expect("Error Code 400 from /people/Jane/rename")
