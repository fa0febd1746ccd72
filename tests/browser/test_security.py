"""What a hostile page, name or file can do to the pages: nothing."""

import re
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Dialog, Page, Response

from facerec.client import ApiError, Client
from tests.fakes.drawn_faces import DrawnFace, photo, with_faces
from tests.fakes.web_tier import FakeWebTier
from tests.support.page_routes import page_answers, page_paths, page_routes
from tests.support.sample_site import fill, sample_arguments
from tests.support.served_web_tier import ServedWebTier

MARKUP = (
    "<img src=x onerror=alert(1)>",
    '"><script>alert(2)</script>',
    "{{7*7}}${7*7}<%=7*7%>",
    "javascript:alert(3)",
    "' autofocus onfocus=alert(4) x='",
    "</title><svg onload=alert(5)>",
    """'"><img src=x onerror=alert(6)>{{7*7}}${7*7}""",
)
"""Names of people and of files: every one is a valid name."""

INJECTED = "[onerror], [onload], [onfocus], [src='x'], [href^='javascript:' i], script:not([src]), svg[onload]"

HTML = b"<!doctype html><script>alert('photo')</script>"


class _HostilePage(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        """Answer with an empty page that may do everything."""
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>hostile</title><body>")

    def log_message(self, *_: object) -> None:
        """Stay quiet."""


@pytest.fixture(scope="module")
def hostile_port() -> Iterator[int]:
    """The port of a web server with hostile pages."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _HostilePage)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(params=["127.0.0.1", "localhost"])
def hostile(request: pytest.FixtureRequest, browser: Browser, hostile_port: int) -> Iterator[Page]:
    """A hostile page: on another port of this host, to which the browser sends cookies, and on another host."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"http://{request.param}:{hostile_port}/")
    yield page
    context.close()


def state(tier: FakeWebTier) -> object:
    """What a request could change."""
    templates = {
        template.template_id: template.identity
        for kept in tier.templates._templates.values()
        for template in kept.values()
    }
    records = [str(vars(tier.records)[name]) for name in ("_names", "_merges")]
    jobs = [(job.job_id, job.status, job.cancel_requested) for job in tier.jobs.every()]
    return set(tier.store._objects), templates, records, jobs, list(tier.unknown.records("default"))


def test_markup_in_names_is_shown_as_text(site: ServedWebTier, page: Page, tmp_path: Path) -> None:
    """On every page, in names of people, of files and of jobs: it becomes no element, and no script runs."""
    dialogs: list[str] = []

    def dismiss(dialog: Dialog) -> None:
        dialogs.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", dismiss)
    with Client(site.url) as client:
        for number, text in enumerate(MARKUP):
            client.photos.add(text, photo(f"person {number}"), filename=f"{text}.jpg")
            client.photos.add(f"{text} 2", photo(f"person {number}", take=1), filename=f"{text}.jpg")
            client.recognise(photo(f"visitor {number}"), filename=f"{text}.jpg")
    fill(site, tmp_path)
    name = MARKUP[-1]
    for path in page_paths(site, sample_arguments(site, name, filename=f"{name}.jpg")).values():
        page.goto(path)
        assert page.locator(INJECTED).count() == 0, path
        assert "49$" not in page.content(), path
        assert dialogs == [], path


def test_page_of_another_origin_changes_nothing(
    filled_site: ServedWebTier, arguments: dict[str, str], hostile: Page
) -> None:
    """By a form, by a script that does not read the answer, or by one with the headers of our scripts."""
    targets = [
        (f"{filled_site.url}{route.path}", method)
        for route in page_routes(filled_site.tier.app, arguments)
        for method in route.unsafe
    ]
    answers: Counter[tuple[str, str, int]] = Counter()

    def count(response: Response) -> None:
        answers[response.url, response.request.method, response.status] += 1

    hostile.context.on("response", count)
    before = state(filled_site.tier)
    for url, method in targets:
        hostile.evaluate(_FETCHES, [url, method])
        if method == "POST":
            hostile.evaluate(_FORM, url)
    assert state(filled_site.tier) == before
    posts = {(url, method, 403): 2 for url, method in targets if method == "POST"}
    assert {each: number for each, number in answers.items() if each[1] not in {"OPTIONS", "GET"}} == posts


_FETCHES = """async ([url, method]) => {
  const body = new FormData();
  for (const name of ["name", "into", "person", "collection"]) body.append(name, "Hacked");
  for (const mode of ["no-cors", "cors"]) {
    const headers = mode === "cors" ? { "X-CSRF-Token": "", "HX-Request": "true" } : {};
    await fetch(url, { method, mode, headers, body, credentials: "include" }).catch(() => null);
  }
}"""

_FORM = """async (url) => {
  const frame = document.body.appendChild(document.createElement("iframe"));
  frame.name = "target";
  const form = document.body.appendChild(document.createElement("form"));
  Object.assign(form, { method: "post", action: url, target: "target", enctype: "multipart/form-data" });
  form.append(Object.assign(document.createElement("input"), { name: "name", value: "Hacked" }));
  const loaded = new Promise((done) => { frame.onload = done; });
  form.submit();
  await loaded;
  frame.remove();
  form.remove();
}"""


_FRAME = "(url) => { document.body.appendChild(document.createElement('iframe')).src = url; }"


def test_opening_a_page_changes_nothing(filled_site: ServedWebTier, arguments: dict[str, str]) -> None:
    """Since every page of the web can have a browser open an address."""
    before = state(filled_site.tier)
    page_answers(filled_site, arguments)
    assert state(filled_site.tier) == before


def test_page_cannot_be_framed(filled_site: ServedWebTier, arguments: dict[str, str], hostile: Page) -> None:
    """A reader who is made to click cannot click on us."""
    paths = page_paths(filled_site, arguments)
    assert paths
    for path in paths.values():
        with hostile.expect_event("requestfailed") as failed:
            hostile.evaluate(_FRAME, f"{filled_site.url}{path}")
        assert (failed.value.url, failed.value.failure) == (f"{filled_site.url}{path}", "net::ERR_BLOCKED_BY_RESPONSE")


def test_every_page_has_the_headers_that_browsers_obey(filled_site: ServedWebTier, arguments: dict[str, str]) -> None:
    """Also files and photos that pages show."""
    for route, answer in page_answers(filled_site, arguments):
        path, headers = route.path, answer.headers
        policy = dict(part.strip().partition(" ")[::2] for part in headers["Content-Security-Policy"].split(";"))
        assert policy["default-src"] == policy["frame-ancestors"] == "'none'", path
        assert not re.search("unsafe|http|\\*", headers["Content-Security-Policy"]), path
        assert headers["X-Frame-Options"] == "DENY", path
        assert headers["X-Content-Type-Options"] == "nosniff", path
        assert headers["Referrer-Policy"] == "same-origin", path
        assert headers["Cross-Origin-Opener-Policy"] == headers["Cross-Origin-Resource-Policy"] == "same-origin", path
        assert re.search("no-store|private", headers["Cache-Control"]), path
        assert "microphone=()" in headers["Permissions-Policy"], path
        assert "Access-Control-Allow-Origin" not in headers, path
        if "text/html" in headers["Content-Type"]:
            assert policy["script-src"] == policy["style-src"] == policy["form-action"] == "'self'", path
            assert policy["base-uri"] == "'none'", path


def test_photo_is_never_a_page(site: ServedWebTier, tmp_path: Path) -> None:
    """A picture with HTML behind its pixels is served as a picture; HTML and SVG under a picture's name are refused."""
    fill(site, tmp_path)
    with Client(site.url) as client:
        for body in (HTML, b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"):
            with pytest.raises(ApiError, match="JPEG"):
                client.photos.add("Eve", body, filename="eve.jpg")
        picture = BytesIO()
        Image.new("RGB", (200, 200)).save(picture, "JPEG", comment=HTML)
        client.photos.add("Eve", with_faces(picture.getvalue() + HTML, [DrawnFace("Eve")]), filename="eve.html")
    files = {
        route.path: answer.headers
        for route, answer in page_answers(site, sample_arguments(site, "Eve"))
        if not answer.headers["Content-Type"].startswith("text/html")
    }
    for path, headers in files.items():
        assert re.match(r"(image/(jpeg|png|webp)|application/(json|jsonl|pdf)|text/csv)\b", headers["Content-Type"])
        assert headers["X-Content-Type-Options"] == "nosniff", path
