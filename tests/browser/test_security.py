"""What a hostile page, name or file can do to the pages: nothing."""

import re
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import pytest
from PIL import Image
from playwright.sync_api import Browser, Dialog, Page

from facerec.api_keys import Scope
from facerec.client import ApiError, Client
from tests.fakes.drawn_faces import DrawnFace, photo, with_faces
from tests.fakes.web_tier import FakeWebTier
from tests.support.page_routes import page_answers, page_paths, page_routes
from tests.support.sample_site import SiteKeys, fill, sample_arguments, sign_in
from tests.support.served_web_tier import ServedWebTier

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

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
def hostile_url(request: pytest.FixtureRequest, hostile_port: int) -> str:
    """A hostile page: on another port of this host, to which the browser sends our cookies, and on another host."""
    return f"http://{request.param}:{hostile_port}/"


@pytest.fixture
def tab(browser: Browser) -> Iterator[Page]:
    """A page of a browser in which any error may happen."""
    context = browser.new_context()
    yield context.new_page()
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
    unknown = list(tier.unknown.records("default"))
    return set(tier.store._objects), templates, records, jobs, unknown, set(tier.sessions._sessions)


def count_answers(tier: FakeWebTier, monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, int]]:
    """Count the answers to requests that change something, by path and status."""
    answers: Counter[tuple[str, int]] = Counter()
    application = tier.app.wsgi_app

    def counting(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        def start(status: str, *rest: Any) -> Any:
            if environ["REQUEST_METHOD"] not in {"GET", "HEAD", "OPTIONS"}:
                answers[environ["PATH_INFO"], int(status.split(maxsplit=1)[0])] += 1
            return start_response(status, *rest)

        return application(environ, start)

    monkeypatch.setattr(tier.app, "wsgi_app", counting)
    return answers


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


@pytest.mark.parametrize("secured", [False, True], ids=["open", "signed in"])
def test_page_of_another_origin_changes_nothing(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    arguments: dict[str, str],
    tab: Page,
    hostile_url: str,
    *,
    secured: bool,
) -> None:
    """By a form, by a script that does not read the answer, or by one with the headers of our scripts."""
    site: ServedWebTier = request.getfixturevalue("secured_site" if secured else "filled_site")
    if secured:
        sign_in(tab, site.url, request.getfixturevalue("keys").texts[Scope.ADMIN])
    tab.goto(hostile_url)
    targets = [route for route in page_routes(site.tier.app, arguments) if route.unsafe]
    answers = count_answers(site.tier, monkeypatch)
    before = state(site.tier)
    for route in targets:
        url = f"{site.url}{route.path}"
        for method in route.unsafe:
            tab.evaluate(_FETCHES, [url, method])
        if "POST" in route.unsafe:
            tab.evaluate(_FORM, url)
    assert state(site.tier) == before
    # Scripts with other methods, or with headers of ours, may not even ask.
    assert answers == {(unquote(route.path), 403): 2 for route in targets if "POST" in route.unsafe}


_FETCHES = """async ([url, method]) => {
  const body = new FormData();
  for (const name of ["name", "into", "person", "collection"]) body.append(name, "Hacked");
  for (const mode of ["no-cors", "cors"]) {
    const headers = mode === "cors" ? { "X-CSRF-Token": "", "HX-Request": "true" } : {};
    await fetch(url, { method, mode, headers, body, credentials: "include" }).catch(() => null);
  }
}"""

_FORM = """async (url) => {
  const frame = document.body.appendChild(Object.assign(document.createElement("iframe"), { name: "target" }));
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


def test_page_cannot_be_framed(
    filled_site: ServedWebTier, arguments: dict[str, str], tab: Page, hostile_url: str
) -> None:
    """A reader who is made to click cannot click on us."""
    paths = page_paths(filled_site, arguments)
    assert paths
    tab.goto(hostile_url)
    for path in paths.values():
        with tab.expect_event("requestfailed") as failed:
            tab.evaluate(_FRAME, f"{filled_site.url}{path}")
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
        assert not re.search("html|svg|xml|script", headers["Content-Type"]), path
        assert headers["X-Content-Type-Options"] == "nosniff", path


def test_change_needs_the_token_of_the_session(
    secured_site: ServedWebTier, keys: SiteKeys, arguments: dict[str, str], tab: Page
) -> None:
    """Even from our own address: without it nothing is changed, with it every route can be used."""
    sign_in(tab, secured_site.url, keys.texts[Scope.ADMIN])
    targets = {route.path: route for route in page_routes(secured_site.tier.app, arguments) if route.unsafe}
    before = state(secured_site.tier)
    for headers in ({}, {"X-CSRF-Token": ""}, {"X-CSRF-Token": "A" * 43}):
        answers = {path: tab.evaluate(_POST, [path, headers]) for path in targets if not path.startswith("/sign-in")}
        assert answers == dict.fromkeys(answers, 403)
    assert state(secured_site.tier) == before
    token = tab.locator("meta[name=csrf-token]").get_attribute("content")
    used = [tab.evaluate(_POST, [path, {"X-CSRF-Token": token}]) for path in answers if path != "/sign-out"]
    assert not {401, 403, 500} & set(used)
    assert tab.evaluate(_POST, ["/sign-out", {"X-CSRF-Token": token}]) == 200
    assert not secured_site.tier.sessions._sessions


_POST = """([path, headers]) => fetch(path, { method: "POST", headers, body: new FormData() })
  .then((response) => response.status)"""


def test_cookie_of_the_session_is_out_of_reach(secured_site: ServedWebTier, keys: SiteKeys, page: Page) -> None:
    """Of scripts, of requests from other sites, and of a later day; the key itself is kept nowhere."""
    sign_in(page, secured_site.url, keys.texts[Scope.ADMIN])
    [cookie] = page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"], cookie["domain"]) == (True, "Lax", "/", "127.0.0.1")
    assert cookie["expires"] - time.time() < timedelta(hours=12).total_seconds() + 60
    assert page.evaluate("document.cookie") == ""
    kept = page.content() + page.url + page.evaluate("JSON.stringify([localStorage, sessionStorage, window.name])")
    assert cookie["value"] not in kept
    assert keys.texts[Scope.ADMIN].rpartition("_")[2] not in kept + cookie["value"]


def test_sign_in_ends_the_session_that_another_has_put_into_the_browser(
    secured_site: ServedWebTier, keys: SiteKeys, tab: Page
) -> None:
    """Otherwise its owner could use the pages as the person who signs in."""
    sign_in(tab, secured_site.url, keys.texts[Scope.RECOGNISE])
    [planted] = tab.context.cookies()
    sign_in(tab, secured_site.url, keys.texts[Scope.ADMIN])
    [cookie] = tab.context.cookies()
    assert cookie["value"] != planted["value"]
    tab.context.clear_cookies()
    tab.context.add_cookies([{"name": planted["name"], "value": planted["value"], "url": secured_site.url}])
    tab.goto(f"{secured_site.url}/people")
    assert urlsplit(tab.url).path == "/sign-in"


ELSEWHERE = (
    "https://evil.example/",
    "//evil.example/",
    "/\\evil.example/",
    "\\\\evil.example",
    "/\t/evil.example",
    "javascript:alert(1)",
    "http:evil.example",
    "/people\r\nLocation: https://evil.example/",
)


def test_sign_in_leads_to_our_own_pages_only(secured_site: ServedWebTier, keys: SiteKeys, tab: Page) -> None:
    """Whatever the address of the sign-in says."""
    asked: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("dialog", lambda dialog: asked.append(f"dialog {dialog.message}"))
    for following in ELSEWHERE:
        sign_in(tab, secured_site.url, keys.texts[Scope.ADMIN], following=following)
        assert tab.url == f"{secured_site.url}/", following
    assert all(url.startswith(f"{secured_site.url}/") for url in asked), asked
