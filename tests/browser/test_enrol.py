"""Enrolment, "this is not X" and unknown people in a browser."""

from collections.abc import Callable

import pytest
from playwright.sync_api import FilePayload, Locator, Page, Route, expect

from facerec.client import Client
from tests.fakes.drawn_faces import DrawnFace
from tests.fakes.portraits import portrait
from tests.support.browser import Watch
from tests.support.served_web_tier import ServedWebTier

ADA, GRACE, VERA = "Ada Lovelace", "Grace Hopper", "Vera Rubin"

_PASTE = """async (bytes) => {
  const data = new DataTransfer();
  data.items.add(new File([new Uint8Array(bytes)], "pasted.jpg", { type: "image/jpeg" }));
  document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true }));
}"""

_JUDGEMENTS = "**/enrol/photo/*"
"""Photos are judged again for another name or face; a face is named in the address."""


def choose(page: Page, **pictures: bytes) -> None:
    """Choose files by their stems."""
    files: list[FilePayload] = [
        {"name": f"{stem}.jpg", "mimeType": "image/jpeg", "buffer": body} for stem, body in pictures.items()
    ]
    page.locator("input[type=file]").first.set_input_files(files)


def card(page: Page, filename: str) -> Locator:
    """What the page shows of a photo."""
    return page.locator("#enrol-photos > li").filter(has_text=filename)


def photos(site: ServedWebTier) -> dict[str, int]:
    """How many photos each person has."""
    with Client(site.url) as client:
        return {person.name: person.photos for person in client.people.list()}


@pytest.fixture
def enrolled(site: ServedWebTier) -> None:
    """Two people are enrolled already."""
    with Client(site.url) as client:
        for name in (ADA, GRACE):
            client.photos.add(name, portrait(name), filename=f"{name.split()[0].lower()}.jpg")


@pytest.mark.usefixtures("enrolled")
def test_photos_are_checked_before_they_are_enrolled(
    site: ServedWebTier, page: Page, watch: Watch, check_accessible: Callable[[Page], None]
) -> None:
    """Good ones at one click; of each other one the page says why not, and nothing is stored before a decision."""
    watch.expect("status of 415")
    page.goto("/enrol")
    check_accessible(page)
    page.get_by_label("Name").fill(VERA)
    expect(page.locator("#enrol-hint")).to_contain_text("new person")
    choose(
        page,
        vera=portrait(VERA),
        blurred=portrait(DrawnFace(VERA, side=240, quality=0.2)),
        alike=portrait(GRACE, take=1),
        group=portrait(VERA, ADA, take=2),
        landscape=portrait(),
        ada=portrait(ADA),
        notes=b"no picture",
    )
    page.evaluate(_PASTE, list(portrait(VERA, take=3)))
    expect(card(page, "vera.jpg")).to_contain_text("Good photo")
    expect(card(page, "pasted.jpg")).to_contain_text("Good photo")
    expect(card(page, "blurred.jpg")).to_contain_text("Poor quality: blurred")
    expect(card(page, "alike.jpg")).to_contain_text(f"Yes, add the photo to {GRACE}")
    assert card(page, "alike.jpg").locator(".enrol-alike img").evaluate("face => face.decode().then(() => true)")
    expect(card(page, "group.jpg")).to_contain_text("2 faces")
    expect(card(page, "landscape.jpg")).to_contain_text("no face found")
    expect(card(page, "ada.jpg")).to_contain_text(f"This photo is enrolled for {ADA}")
    expect(page.locator("#enrol-photos > li").filter(has_text="not a picture")).to_be_visible()
    expect(card(page, "vera.jpg").locator(".shot svg rect")).to_be_visible()
    check_accessible(page)
    assert photos(site) == {ADA: 1, GRACE: 1}

    page.get_by_role("button", name="Enrol all 2 good photos").click()
    expect(page.locator("#enrol-all")).to_contain_text("2 photos are enrolled")
    expect(page.locator("#enrol-hint")).to_contain_text("with 2 photos")
    card(page, "blurred.jpg").get_by_role("button", name="Enrol it anyway").click()
    expect(card(page, "blurred.jpg")).to_contain_text(f"Enrolled for {VERA}")
    card(page, "alike.jpg").get_by_role("button", name=f"Yes, add the photo to {GRACE}").click()
    expect(card(page, "alike.jpg")).to_contain_text(f"Enrolled for {GRACE}")
    group = card(page, "group.jpg")
    late: list[Route] = []
    page.route(_JUDGEMENTS, lambda route: route.continue_() if "face=" in route.request.url else late.append(route))
    with page.expect_request(_JUDGEMENTS):
        page.get_by_label("Name").fill(f"{VERA} ")
    group.get_by_role("button", name="Face 1").click()
    expect(group.get_by_role("button", name=f"Enrol for {VERA}")).to_be_visible()
    for route in late:  # the answers for the name
        with page.expect_response(route.request.url):
            route.continue_()
    group.get_by_role("button", name=f"Enrol for {VERA}").click()
    expect(group).to_contain_text(f"Enrolled for {VERA}")
    check_accessible(page)
    assert photos(site) == {ADA: 1, GRACE: 2, VERA: 4}


@pytest.mark.usefixtures("enrolled")
def test_verdicts_follow_the_name(page: Page, phone: Page, check_accessible: Callable[[Page], None]) -> None:
    """A name is needed, a wrong one is refused beside its field, and another one changes what a photo is good for."""
    page.goto("/enrol")
    choose(page, alike=portrait(GRACE, take=1))
    expect(card(page, "alike.jpg")).to_contain_text(GRACE)
    page.get_by_role("button", name="No, it is another person").click()
    expect(page.locator("#enrol-hint")).to_contain_text("Write the person's name first")
    expect(page.get_by_label("Name")).to_be_focused()
    page.get_by_label("Name").fill("Unknown")
    expect(page.locator("#enrol-hint .bad")).to_be_visible()
    page.get_by_label("Name").fill("grace hopper")
    expect(card(page, "alike.jpg")).to_contain_text("Good photo")
    page.get_by_role("button", name="Leave it out").click()
    expect(page.locator("#enrol-photos > li")).to_have_count(0)

    phone.goto(f"/enrol?name={GRACE}")
    choose(phone, grace=portrait(GRACE))
    expect(card(phone, "grace.jpg")).to_contain_text("There is nothing to do")
    check_accessible(phone)
    assert phone.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.usefixtures("enrolled")
def test_camera_takes_a_photo(page: Page) -> None:
    """Its picture is checked as any other; the browser's test pattern has no face."""
    page.goto("/enrol")
    page.locator("[data-camera]").click()
    page.locator("video").evaluate("video => video.videoWidth || new Promise(done => { video.onloadeddata = done; })")
    page.locator("[data-shoot]").click()
    expect(page.locator("#enrol-photos > li")).to_contain_text("no face found")


def test_unknown_face_of_a_recognition_is_enrolled(site: ServedWebTier, page: Page) -> None:
    """A link beside it leads to its enrolment, without another upload."""
    page.goto("/")
    choose(page, door=portrait(ADA, VERA))
    page.get_by_role("link", name="Enrol this person").nth(1).click()
    expect(card(page, "door.jpg").get_by_role("button", name="Face 2")).to_have_attribute("aria-pressed", "true")
    page.get_by_label("Name").fill(VERA)
    card(page, "door.jpg").get_by_role("button", name=f"Enrol for {VERA}").click()
    expect(card(page, "door.jpg")).to_contain_text(f"Enrolled for {VERA}")
    with Client(site.url) as client:
        assert client.recognise(portrait(VERA, take=1)).result == VERA


@pytest.mark.usefixtures("enrolled")
def test_rejection_is_honoured_until_it_is_forgotten(site: ServedWebTier, page: Page) -> None:
    """The fragments that a result and a person's page have."""
    with Client(site.url) as client:
        first = client.recognise(portrait(ADA, take=1), filename="door.jpg")
        assert first.result == ADA
        page.goto("/people")
        page.evaluate(
            """([request, name]) => htmx.ajax("POST", "/rejections",
            { target: "main", values: { request_id: request, face: 0, name } })""",
            [str(first.request_id), ADA],
        )
        expect(page.locator("main")).to_contain_text(f"this is not {ADA}")
        assert client.recognise(portrait(ADA, take=1)).result != ADA
        page.evaluate("""name => htmx.ajax("GET", `/rejections?name=${name}`, { target: "main" })""", ADA)
        page.get_by_role("button", name="Forget that door.jpg is somebody else").click()
        expect(page.locator("#rejections")).to_have_count(0)
        assert client.recognise(portrait(ADA, take=1)).result == ADA


def test_unknown_people_are_searched_named_and_forgotten(
    site: ServedWebTier, page: Page, check_accessible: Callable[[Page], None]
) -> None:
    """A named one is recognised by its name."""
    page.goto("/unknown")
    expect(page.get_by_role("heading", name="No unknown person yet")).to_be_visible()
    check_accessible(page)
    with Client(site.url) as client:
        for name in ("a courier", VERA):
            client.recognise(portrait(name), filename="door.jpg")
        page.goto("/unknown")
        cards = page.locator(".unknown-card")
        expect(cards).to_have_count(2)
        page.get_by_text("Was this face here before?").click()
        choose(page, visitor=portrait(VERA, "a guest", take=1))
        expect(page.locator("#unknown-found")).to_contain_text("Seen before:")
        expect(page.locator("#unknown-found")).to_contain_text("Not seen before")
        cards.first.get_by_text("Photo of the last sight").click()
        expect(cards.first.locator(".shot rect")).to_be_visible()
        check_accessible(page)

        cards.first.get_by_label("Who is this?").fill(VERA)
        cards.first.get_by_role("button", name="Save name").click()
        expect(cards.first).to_contain_text(f"is now {VERA}")
        page.on("dialog", lambda dialog: dialog.accept())
        cards.last.get_by_role("button", name="Forget").click()
        expect(cards.last).to_contain_text("is forgotten")
        check_accessible(page)
        assert client.recognise(portrait(VERA, take=2)).result == VERA
        assert list(client.unknown.list()) == []
