"""Recognition on the page."""

import json
from base64 import b64encode
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from facerec.app_tier.use_case import AppTier
from facerec.client import Client
from facerec.errors import Transient
from facerec.messages import RecognitionRequest
from tests.fakes.drawn_faces import DrawnFace, photo, with_faces
from tests.fakes.portraits import portrait
from tests.fakes.web_tier import FakeWebTier
from tests.support.browser import Watch
from tests.support.served_web_tier import ServedWebTier

CheckAccessible = Callable[[Page], None]
DROP = """([name, type, bytes]) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([Uint8Array.from(atob(bytes), (c) => c.charCodeAt(0))], name, { type }));
  for (const kind of ["dragenter", "dragover", "drop"]) {
    document.body.dispatchEvent(new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer: transfer }));
  }
}"""
COPY = """async (bytes) => {
  const blob = new Blob([Uint8Array.from(atob(bytes), (c) => c.charCodeAt(0))], { type: "image/png" });
  await navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]);
}"""


def know(site: ServedWebTier, *names: str) -> None:
    """Enrol people."""
    with Client(site.url) as client:
        for name in names:
            client.photos.add(name, portrait(name, take=1), filename="enrolled.jpg")


def choose(page: Page, **photos: bytes) -> None:
    """Choose files, named by their keyword and type."""
    types = {"txt": "text/plain", "png": "image/png"}
    files: list[Any] = [
        {
            "name": name.replace("_", "."),
            "mimeType": types.get(name.rpartition("_")[2], "image/jpeg"),
            "buffer": body,
        }
        for name, body in photos.items()
    ]
    page.get_by_label("Choose photos").set_input_files(files)


def card(page: Page, name: str) -> Locator:
    """The card of a photo."""
    return page.locator("#photos > li", has=page.get_by_role("heading", name=name, exact=True))


class Halted:
    """The worker of a site, which has stopped."""

    def __init__(self, tier: FakeWebTier) -> None:
        assert tier.app_tier is not None
        self.tier = tier
        self.worker: AppTier = tier.app_tier
        tier.app_tier = None

    def work(self, request: RecognitionRequest) -> None:
        """Do one task."""
        self.tier.gallery.refresh()
        self.worker.run(request)

    def go_on(self) -> None:
        """Work again."""
        self.tier.app_tier = self.worker


def test_photos_of_all_kinds_get_their_results(
    site: ServedWebTier, page: Page, watch: Watch, check_accessible: CheckAccessible
) -> None:
    """A known face, a stranger, no face, a file that is no photo, and a damaged one."""
    know(site, "Ada")
    page.goto("/")
    expect(page.get_by_role("heading", level=1)).to_have_text("Who is this?")
    check_accessible(page)

    watch.expect("status of 415")
    choose(
        page,
        two_jpg=portrait("Ada", DrawnFace("a stranger", side=160, quality=0.4), take=2),
        none_jpg=portrait(),
        notes_txt=b"hello",
        damaged_jpg=b"\xff\xd8 no picture",
    )
    two = card(page, "two.jpg")
    expect(two.get_by_role("listitem")).to_have_count(2)
    expect(two.get_by_role("listitem", name="Face 1: Ada")).to_contain_text("Similarity 0.90, threshold 0.40")
    expect(two.get_by_role("listitem", name="Face 2: Nobody we know")).to_contain_text("Quality 40%: blurred")
    expect(two).to_contain_text("two.jpg: face detected - Ada")
    expect(two.locator(".picture svg")).to_have_attribute("aria-label", "2 faces, drawn on the photo")
    expect(card(page, "none.jpg")).to_contain_text("No face was found")
    expect(card(page, "notes.txt").get_by_role("alert")).to_contain_text("the file is not a picture that can be read")
    expect(card(page, "damaged.jpg").get_by_role("alert")).to_contain_text("the picture is cut off or damaged")
    expect(card(page, "notes.txt").get_by_role("button", name="Try again")).to_be_hidden()
    expect(page.get_by_text("4 of 4 photos done")).to_be_visible()
    check_accessible(page)

    _check_that_faces_light_up(page, two)
    two.get_by_role("button", name="This is not Ada").click()
    expect(two.get_by_role("button", name="This is not Ada")).to_have_count(0)
    assert [entry.identity for entry in site.tier.templates.rejection_entries("default")] == ["Ada"]
    with page.expect_download() as download:
        two.get_by_role("link", name="Download as JSON").click()
    assert download.value.suggested_filename == "two.json"
    assert json.loads(download.value.path().read_text())["result"] == "Ada"

    card(page, "none.jpg").get_by_role("button", name="Remove").click()
    expect(card(page, "none.jpg")).to_have_count(0)
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#photos > li")).to_have_count(0)
    expect(page.get_by_label("Choose photos")).to_be_focused()


def _check_that_faces_light_up(page: Page, two: Locator) -> None:
    """A face in the list and its box, by mouse and by keyboard, in both directions."""
    boxes = two.locator(".picture g[data-face]")
    stranger = two.get_by_role("button", name="Nobody we know")
    two.get_by_role("button", name="1 Ada").focus()
    expect(two.locator(".picture g.lit .who")).to_have_text("Ada")
    page.keyboard.press("Tab")
    expect(two.get_by_role("button", name="This is not Ada")).to_be_focused()
    page.keyboard.press("Tab")
    expect(stranger).to_be_focused()
    expect(two.locator(".picture g.lit")).to_have_attribute("data-face", "1")
    two.locator('.picture g[data-face="0"] .box').hover()
    expect(two.locator("li.lit")).to_have_attribute("aria-label", "Face 1: Ada")
    two.locator('.picture g[data-face="1"] .box').click()
    expect(stranger).to_be_focused()
    expect(boxes).to_have_count(2)


def test_photos_wait_for_their_turn_and_say_what_they_wait_for(site: ServedWebTier, page: Page) -> None:
    """Three are in work at a time; a cancelled one makes room."""
    halted = Halted(site.tier)
    page.clock.install()
    page.goto("/")
    choose(page, **{f"{number}_jpg": portrait() for number in range(5)})
    requests = site.tier.tasks.await_count(3)
    expect(page.get_by_text("Waits for its turn")).to_have_count(2)
    expect(card(page, "0.jpg")).to_contain_text("Waiting for")
    expect(card(page, "0.jpg").get_by_role("progressbar")).to_be_visible()
    page.clock.fast_forward(20_000)
    expect(card(page, "0.jpg")).to_contain_text("A worker is starting")
    assert len(site.tier.tasks.requests) == 3

    card(page, "0.jpg").get_by_role("button", name="Cancel").click()
    expect(card(page, "0.jpg")).to_contain_text("Cancelled")
    site.tier.tasks.await_count(4)
    halted.go_on()
    for request in site.tier.tasks.await_count(4):
        halted.work(request)
    expect(page.get_by_text("5 of 5 photos done")).to_be_visible()
    expect(page.locator("#news")).to_contain_text(".jpg: no face found")
    assert {request.filename for request in requests} == {"0.jpg", "1.jpg", "2.jpg"}

    card(page, "0.jpg").get_by_role("button", name="Try again").click()
    expect(card(page, "0.jpg")).to_contain_text("No face was found")


def test_late_result_is_fetched_when_it_is_there(site: ServedWebTier, page: Page) -> None:
    """The wait of the server is over, not that of the page."""
    halted = Halted(site.tier)
    page.clock.install()
    page.goto("/")
    choose(page, late_jpg=portrait())
    [request] = site.tier.tasks.await_count(1)
    site.tier.waiters.give_up()
    expect(card(page, "late.jpg")).to_contain_text("The result is late")
    with page.expect_response(lambda response: response.status == 202):
        page.clock.run_for(3_100)
    halted.work(request)
    with page.expect_response(lambda response: response.status == 200):
        page.clock.run_for(3_100)
    expect(card(page, "late.jpg")).to_contain_text("No face was found")


def test_refusal_is_retried_when_the_server_says_so(
    site: ServedWebTier, page: Page, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that cannot be reached is for the reader to try again."""

    def unreachable(*_: object) -> None:
        raise Transient("down")

    watch.expect("status of 503")
    page.clock.install()
    page.goto("/")
    with monkeypatch.context() as outage:
        outage.setattr(site.tier.store, "put", unreachable)
        choose(page, photo_jpg=portrait())
        expect(card(page, "photo.jpg")).to_contain_text("Next try in 5 s (1 of 3)")
    page.clock.run_for(5_100)
    expect(card(page, "photo.jpg")).to_contain_text("No face was found")

    watch.expect("ERR_FAILED")
    page.route("**/recognise", lambda route: route.abort())
    choose(page, other_jpg=portrait())
    expect(card(page, "other.jpg").get_by_role("alert")).to_contain_text("The server cannot be reached")
    page.unroute("**/recognise")
    card(page, "other.jpg").get_by_role("button", name="Try again").click()
    expect(card(page, "other.jpg")).to_contain_text("No face was found")


def test_photo_can_be_dropped_pasted_and_taken(
    site: ServedWebTier, page: Page, check_accessible: CheckAccessible
) -> None:
    """Anywhere on the page, from the clipboard, and with the camera, which stops then."""
    know(site, "Ada")
    page.goto("/")
    page.evaluate(DROP, ["dropped.jpg", "image/jpeg", b64encode(portrait("Ada", take=2)).decode()])
    expect(card(page, "dropped.jpg").get_by_role("listitem", name="Face 1: Ada")).to_be_visible()

    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate(COPY, b64encode(photo(form="PNG")).decode())
    page.keyboard.press("Control+V")
    expect(card(page, "image.png")).to_contain_text("No face was found")

    page.get_by_role("button", name="Use the camera").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    video = page.locator("dialog video")
    stream = video.evaluate_handle("(video) => video.srcObject")
    expect(video).to_have_js_property("readyState", 4)
    check_accessible(page)
    dialog.get_by_role("button", name="Take photo").click()
    expect(dialog).to_be_hidden()
    expect(video).to_have_js_property("readyState", 0)
    assert stream.evaluate("(stream) => stream.getTracks().map((track) => track.readyState)") == ["ended"]
    taken = page.locator("#photos > li", has=page.get_by_role("heading", name="camera-"))
    expect(taken).to_contain_text("No face was found")


@pytest.mark.parametrize("form", ["JPEG", "WEBP"])
def test_boxes_of_a_turned_photo_lie_on_its_faces(site: ServedWebTier, page: Page, form: str) -> None:
    """The coordinates are those of the upright picture, which the page shows."""
    know(site, "Ada")
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the upright picture is the stored one turned clockwise
    stored = BytesIO()
    Image.new("RGB", (480, 320)).save(stored, form, exif=exif)
    page.goto("/")
    body = with_faces(stored.getvalue(), [DrawnFace("Ada", take=2)])
    files: list[Any] = [{"name": "turned", "mimeType": f"image/{form.lower()}", "buffer": body}]
    page.get_by_label("Choose photos").set_input_files(files)
    expect(card(page, "turned").get_by_role("listitem", name="Face 1: Ada")).to_be_visible()
    image, drawing = card(page, "turned").locator("img"), card(page, "turned").locator(".picture svg")
    expect(image).to_have_js_property("naturalWidth", 320)
    assert drawing.get_attribute("viewBox") == "0 0 320 480"
    assert image.bounding_box() == drawing.bounding_box()


def test_photo_that_the_browser_cannot_show_gets_its_result(site: ServedWebTier, page: Page) -> None:
    """Its drawing stands alone."""
    know(site, "Ada")
    stored = BytesIO()
    Image.new("RGB", (400, 300)).save(stored, "PNG")
    page.goto("/")
    choose(page, odd_png=with_faces(stored.getvalue()[:40], [DrawnFace("Ada", take=2)]))
    odd = card(page, "odd.png")
    expect(odd.get_by_role("listitem", name="Face 1: Ada")).to_be_visible()
    expect(odd.locator("img")).to_be_hidden()
    expect(odd.locator(".picture svg .box")).to_be_visible()


def test_many_photos_are_sent_to_the_jobs(phone: Page) -> None:
    """From fifty on; on a phone, photos can also come from its camera app."""
    phone.goto("/")
    expect(phone.get_by_text("Take a photo", exact=True)).to_be_visible()
    files: list[Any] = [{"name": f"{n}.txt", "mimeType": "text/plain", "buffer": b"x"} for n in range(50)]
    phone.get_by_label("Choose photos").set_input_files(files)
    expect(phone.get_by_role("link", name="Go to jobs")).to_be_hidden()
    phone.get_by_label("Choose photos").set_input_files(files[:1])
    expect(phone.get_by_role("link", name="Go to jobs")).to_be_visible()
