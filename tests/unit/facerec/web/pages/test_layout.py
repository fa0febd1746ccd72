"""The frame of the pages: texts, files, errors, policy."""

import hashlib
import re
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from facerec.api_keys import Scope, issue
from facerec.settings import Settings
from facerec.web.pages import texts
from tests.fakes.api_keys import InMemoryApiKeys
from tests.fakes.web_tier import FakeWebTier

PAGES = Path(texts.__file__).parent
VENDOR = PAGES / "static" / "vendor"
PATHS = ["/", "/people", "/jobs", "/fleet"]


@pytest.fixture
def client() -> FlaskClient:
    """A client of a tier in open mode."""
    return FakeWebTier().app.test_client()


@pytest.mark.parametrize("path", PATHS)
def test_view_has_a_title_and_a_strict_policy(client: FlaskClient, path: str) -> None:
    """No view needs inline code, inline style or another host."""
    response = client.get(path)
    assert response.status_code == 200
    assert response.mimetype == "text/html"
    assert re.search(r"<title>.+ facerec</title>", response.text)
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)|<style", response.text)
    assert not re.search(r'(?:src|href|action)="https?:', response.text)


@pytest.mark.parametrize("path", PATHS)
def test_files_of_a_view_exist_and_are_kept_by_browsers(client: FlaskClient, path: str) -> None:
    """Each address has the version of the files."""
    addresses = re.findall(r'(?:src|href)="(/assets/[^"]+)"', client.get(path).text)
    assert addresses
    for address in addresses:
        response = client.get(address)
        assert response.status_code == 200
        assert "immutable" in response.headers["Cache-Control"]
    old = re.sub(r"/assets/[0-9a-f]+/", "/assets/000000000000/", addresses[0])
    assert client.get(old).headers["Cache-Control"] == "no-store"


def test_file_outside_the_folder_is_not_served(client: FlaskClient) -> None:
    """Only what pages load."""
    assert client.get("/assets/0/../layout.py").status_code == 404
    assert client.get("/assets/0/..%2flayout.py").status_code == 404


def test_every_text_is_used_and_every_used_text_exists() -> None:
    """Texts that are made of parts are named by their beginning."""
    sources = [*PAGES.rglob("*.html"), *PAGES.glob("*.py")]
    written = "\n".join(path.read_text("utf-8") for path in sources)
    called = re.compile(r"""\b(?:t|text|markup)\(\s*["']([a-z_.]+)["']\s*(~?)""")
    used = {key for key, part in called.findall(written) if not part}
    beginnings = {key for key, part in called.findall(written) if part}
    known = texts.catalogue().keys()
    assert used <= known
    unused = {key for key in known - used if not any(key.startswith(each) for each in beginnings)}
    assert not unused


def test_text_of_two_forms_follows_the_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """One photo, several photos."""
    monkeypatch.setattr(texts, "catalogue", lambda: {"people.photos": "{n} photo | {n} photos"})
    assert [texts.text("people.photos", n=n) for n in (0, 1, 2)] == ["0 photos", "1 photo", "2 photos"]


def test_text_of_a_page_escapes_its_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers and times are elements, which the script formats for the reader."""
    monkeypatch.setattr(
        texts, "catalogue", lambda: {"people.photos": "{name} has {n} photo | {name}: {n} photos & {t}"}
    )
    time = texts.moment(datetime(2026, 12, 1, 4, 30, tzinfo=UTC))
    shown = texts.markup("people.photos", name="<b>", n=texts.Number(1200), t=time)
    assert shown == (
        '&lt;b&gt;: <data value="1200">1200</data> photos &amp; '
        '<time datetime="2026-12-01T04:30:00+00:00">2026-12-01 04:30 UTC</time>'
    )
    assert texts.markup("people.photos", name="<b>", n=texts.Number(1), t=0).startswith("&lt;b&gt; has <data")


def test_vendored_files_are_those_of_the_list() -> None:
    """A file and its row change together."""
    listed = dict(re.findall(r"\| `([^`]+)` \| `([0-9a-f]{64})` \|", (VENDOR / "VENDORED.md").read_text("utf-8")))
    found = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in VENDOR.iterdir() if p.suffix != ".md"}
    assert listed == found


def test_unknown_address_is_a_page_for_browsers_and_a_sentence_for_programs(client: FlaskClient) -> None:
    """A person gets a way back."""
    page = client.get("/nowhere", headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert (page.status_code, page.mimetype) == (404, "text/html")
    assert 'href="/"' in page.text
    assert client.get("/nowhere", headers={"Accept": "*/*"}).mimetype == "text/plain"


def test_error_of_a_fragment_is_its_sentence(client: FlaskClient) -> None:
    """A script shows it where it belongs."""
    response = client.get("/people?collection=A%20B", headers={"HX-Request": "true"})
    assert (response.status_code, response.mimetype) == (400, "text/plain")
    assert "collection" in response.text
    assert client.get("/people?collection=A%20B").mimetype == "text/html"


def test_page_of_a_refused_collection_leads_out_of_it(client: FlaskClient) -> None:
    """Otherwise each of its links would be refused, too."""
    refused = client.get("/people?collection=A%20B")
    assert refused.status_code == 400
    assert 'href="/jobs"' in refused.text
    assert "?collection=" not in refused.text
    key, token = issue("client", [Scope.ENROL], now=datetime.now(UTC), collection="staff")
    tier = FakeWebTier(keys=InMemoryApiKeys(key))
    signed_in = tier.app.test_client()
    tier.sign_in(signed_in, token)
    denied = signed_in.get("/people?collection=guests")
    assert denied.status_code == 403
    assert 'href="/people"' in denied.text
    assert "?collection=" not in denied.text


@pytest.mark.parametrize("path", ["/people/Ada/rename", "/enrol/save", "/rejections"])
def test_form_without_a_photo_is_small(client: FlaskClient, path: str) -> None:
    """Since it is read without a turn: a thousand large ones at once would fill the memory."""
    form = {"name": "Ada", "file": (BytesIO(b"x" * 1_000_000), "large.jpg")}
    assert client.post(path, data=form).status_code == 413


def test_navigation_has_unknown_people_only_where_they_are_kept(client: FlaskClient) -> None:
    """Elsewhere the view would be empty for ever."""
    assert 'href="/unknown"' not in client.get("/").text
    settings = Settings.model_validate({"unknown": {"collections": ["default"]}})
    assert 'href="/unknown"' in FakeWebTier(settings).app.test_client().get("/").text
