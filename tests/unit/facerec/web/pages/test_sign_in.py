"""Sign-in and sign-out: a key becomes a session of a browser, and the way there and back."""

import re
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from facerec.api_keys import ApiKey, Scope, Token, issue, revoked
from facerec.errors import Transient
from facerec.settings import Settings
from facerec.settings.tiers import WebSettings
from facerec.web.pages.sign_in import own_path
from tests.fakes.api_keys import InMemoryApiKeys
from tests.fakes.clock import Clock
from tests.fakes.web_tier import FakeWebTier
from tests.support.logs import capture_logs

OWN_FORM = {"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"}
FRAGMENT = {"HX-Request": "true"}


class Site:
    """A tier that asks for keys, with a key of each scope."""

    def __init__(self, **web: Any) -> None:
        issued = {scope: issue(f"key <{scope}>", [scope], now=datetime.now(UTC)) for scope in Scope}
        self.records: dict[Scope, ApiKey] = {scope: key for scope, (key, _) in issued.items()}
        self.keys: dict[Scope, Token] = {scope: token for scope, (_, token) in issued.items()}
        self.store = InMemoryApiKeys(*self.records.values())
        self.clock = Clock()
        self.tier = FakeWebTier(Settings(web=WebSettings(**web)), keys=self.store, clock=self.clock)

    def client(self) -> FlaskClient:
        """A browser."""
        return self.tier.app.test_client()

    def sign_in(self, client: FlaskClient, scope: Scope = Scope.ADMIN, following: str = "") -> TestResponse:
        """Send the form, as its page does."""
        data = {"key": f" {self.keys[scope].reveal()}\n", "next": following}
        return client.post("/sign-in", data=data, headers=OWN_FORM)


@pytest.fixture(scope="module")
def site() -> Site:
    """A site that no test ends the keys of."""
    return Site()


def test_page_leads_to_the_sign_in_and_back(site: Site) -> None:
    """The path comes back whole; the cookie is for no script, no other site and no longer than the session."""
    client = site.client()
    asked = client.get("/people?collection=staff")
    assert asked.status_code == 303
    address = urlsplit(asked.headers["Location"])
    assert (address.netloc, address.path) == ("", "/sign-in")
    assert parse_qs(address.query) == {"next": ["/people?collection=staff"]}
    form = client.get(asked.headers["Location"]).text
    assert 'value="/people?collection=staff"' in form
    assert 'autocomplete="current-password"' in form
    with capture_logs() as lines:
        response = site.sign_in(client, following="/people?collection=staff")
    assert (response.status_code, response.headers["Location"]) == (303, "/people?collection=staff")
    cookie = response.headers["Set-Cookie"]
    assert "; HttpOnly" in cookie
    assert "; SameSite=Lax" in cookie
    assert "; Max-Age=43200" in cookie
    assert "Secure" not in cookie
    assert "Domain" not in cookie
    assert client.get("/people").status_code == 200
    assert [(line["event"], line["key_id"]) for line in lines if line["event"] == "signed_in"] == [
        ("signed_in", site.keys[Scope.ADMIN].key_id)
    ]


@pytest.mark.parametrize("path", ["/people/Ada%20Lovelace", "/people/50%25%3F?collection=staff", "/people/a%2F..%2Fb"])
def test_sign_in_leads_back_to_a_page_with_a_name_in_its_address(site: Site, path: str) -> None:
    """Escaped as the browser had it."""
    client = site.client()
    form = client.get(client.get(path).headers["Location"]).text
    assert f'name="next" value="{path}"' in form
    assert site.sign_in(client, following=path).headers["Location"] == path


def test_cookie_over_https_is_secure_and_bound_to_the_host() -> None:
    """Behind a trusted proxy, which says that the browser speaks HTTPS."""
    site = Site(trusted_proxies=1)
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.7", "Origin": "https://localhost"}
    response = site.client().post("/sign-in", data={"key": site.keys[Scope.ENROL].reveal()}, headers=headers)
    cookie = response.headers["Set-Cookie"]
    assert cookie.startswith("__Host-facerec_session=")
    assert "; Secure" in cookie
    assert "; Path=/" in cookie
    assert "Domain" not in cookie


def test_each_sign_in_begins_another_session_and_ends_the_earlier_one(site: Site) -> None:
    """A token that somebody else put into the browser is of no use to them."""
    client, thief = site.client(), site.client()
    site.sign_in(client)
    first = client.get_cookie("facerec_session")
    assert first is not None
    thief.set_cookie("facerec_session", first.value)
    assert thief.get("/people").status_code == 200
    site.sign_in(client)
    second = client.get_cookie("facerec_session")
    assert second is not None
    assert second.value != first.value
    assert thief.get("/people").status_code == 303
    assert client.get("/people").status_code == 200


def test_wrong_key_is_refused_on_the_page_and_never_shown(site: Site) -> None:
    """With the sentence of the API, and the field that is wrong."""
    wrong = f"frk_{site.keys[Scope.ADMIN].key_id}_{'w' * 43}"
    for text in (wrong, "", "x" * 20_000, '"><script>alert(1)</script>'):
        with capture_logs() as lines:
            response = site.client().post("/sign-in", data={"key": text, "next": "/people"}, headers=OWN_FORM)
        assert response.status_code == 401
        assert "this API key is wrong: check that it was copied whole" in response.text
        assert 'aria-invalid="true"' in response.text
        assert not text or text not in response.text + str(lines)
        assert "Set-Cookie" not in response.headers
        assert [line["event"] for line in lines] == ["request_denied"]


def test_wrong_keys_are_limited() -> None:
    """The page says how long to wait."""
    site = Site(auth_failures="2/minute")
    responses = [site.client().post("/sign-in", data={"key": "letmein"}, headers=OWN_FORM) for _ in range(3)]
    assert [response.status_code for response in responses] == [401, 401, 429]
    assert responses[-1].headers["Retry-After"] == "30"
    assert "try again in 30 seconds" in responses[-1].text


@pytest.mark.parametrize("headers", [{"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}])
def test_other_site_cannot_sign_a_browser_in(site: Site, headers: dict[str, str]) -> None:
    """With a key of its own, so that photos would come to its collection."""
    response = site.client().post("/sign-in", data={"key": site.keys[Scope.ADMIN].reveal()}, headers=headers)
    assert response.status_code == 403
    assert "Set-Cookie" not in response.headers
    assert FakeWebTier().app.test_client().post("/sign-in", headers=headers).status_code == 403


@pytest.mark.parametrize(
    "text",
    [
        "",
        "people",
        "//evil.example",
        "/\\evil.example",
        "/\t/evil.example",
        "https://evil.example/",
        "javascript:alert(1)",
        "/a\r\nSet-Cookie: x=y",
        "/" + "x" * 3_000,
    ],
)
def test_way_back_stays_on_this_site(site: Site, text: str) -> None:
    """Any other address becomes the start."""
    assert own_path(text) == "/"
    assert site.sign_in(site.client(), following=text).headers["Location"] == "/"
    assert own_path("/people?name=A%20B&n=1#x") == "/people?name=A%20B&n=1#x"


def test_ended_session_leads_to_the_sign_in_and_says_so() -> None:
    """Also in the middle of work: a script of the page opens the sign-in, which leads back to that page."""
    site = Site()
    client = site.client()
    site.tier.sign_in(client, site.keys[Scope.ENROL])
    assert client.get("/people").status_code == 200
    site.store.put(revoked(site.records[Scope.ENROL], datetime.now(UTC)))
    site.clock.now += 30
    opened = {"HX-Current-URL": "http://localhost/people?collection=staff"}
    fragment = client.get("/people", headers=FRAGMENT | opened)
    assert fragment.status_code == 401
    address = fragment.headers["HX-Redirect"]
    assert parse_qs(urlsplit(address).query, keep_blank_values=True) == {
        "next": ["/people?collection=staff"],
        "ended": [""],
    }
    assert "Your session has ended" in client.get(address).text
    assert client.get_cookie("facerec_session") is None
    assert "Your session has ended" not in client.get("/sign-in?next=/people").text


def test_refusal_names_the_missing_scope_and_who_can_give_it(site: Site) -> None:
    """The start of a key that may not recognise is another view."""
    client = site.client()
    site.sign_in(client, Scope.ENROL)
    page = client.get("/fleet")
    assert page.status_code == 403
    assert "lacks the scope admin" in page.text
    assert "facerec keys create" in page.text
    assert "--scope admin" in page.text
    assert 'href="/people"' in page.text
    assert 'href="/fleet"' not in page.text
    start = client.get("/")
    assert (start.status_code, start.headers["Location"]) == (303, "/people")
    said = client.get("/fleet", headers=FRAGMENT)
    assert (said.status_code, said.mimetype) == (403, "text/plain")


@pytest.mark.parametrize("path", ["/", "/people", "/jobs", "/fleet"])
def test_each_link_of_a_view_opens_with_the_session(site: Site, path: str) -> None:
    """A browser cannot send the key that an API asks for."""
    client = site.client()
    site.sign_in(client)
    links = set(re.findall(r'<a [^>]*href="(/[^"]*)"', client.get(path).text))
    assert len(links) > 4
    assert {link: client.get(link, follow_redirects=True).status_code for link in links} == dict.fromkeys(links, 200)


def test_sign_out_ends_the_session_and_clears_what_the_browser_keeps(site: Site) -> None:
    """It needs the token of the page, as every change."""
    client = site.client()
    csrf = site.tier.sign_in(client, site.keys[Scope.RECOGNISE])
    page = client.get("/").text
    assert csrf["X-CSRF-Token"] in page
    assert "key &lt;recognise&gt;" in page
    assert client.post("/sign-out").status_code == 403
    copy = site.client()
    cookie = client.get_cookie("facerec_session")
    assert cookie is not None
    copy.set_cookie("facerec_session", cookie.value)
    response = client.post("/sign-out", headers=csrf | FRAGMENT)
    assert (response.status_code, response.headers["HX-Redirect"]) == (200, "/sign-in")
    assert response.headers["Clear-Site-Data"] == '"cache"'
    assert client.get_cookie("facerec_session") is None
    assert copy.get("/").status_code == 303
    assert site.client().post("/sign-out").status_code == 303


def test_outage_is_a_page_that_says_when_to_come_back() -> None:
    """Of the sessions, at the sign-in, at a page and at the sign-out."""
    site = Site()
    client = site.client()
    csrf = site.tier.sign_in(client, site.keys[Scope.ADMIN])
    assert client.get("/people").status_code == 200
    site.tier.sessions.outage = Transient("no route")
    stranger = site.client()
    stranger.set_cookie("facerec_session", "A" * 43)
    for response in (
        site.sign_in(site.client()),
        stranger.get("/people"),
        client.post("/sign-out", headers=csrf),
    ):
        assert response.status_code == 503
        assert int(response.headers["Retry-After"]) > 0
        assert response.mimetype == "text/html"
        assert "no route" not in response.text


def test_open_mode_has_no_sign_in() -> None:
    """Its address leads to the start, and no page has a sign-out."""
    client = FakeWebTier().app.test_client()
    for response in (client.get("/sign-in"), client.post("/sign-in"), client.get("/sign-in?next=/people")):
        assert (response.status_code, response.headers["Location"]) == (303, "/")
    assert "sign-out" not in client.get("/").text


def test_form_without_scripts_is_offered_only_where_it_needs_no_session(site: Site) -> None:
    """It could not send the token of the session."""
    client = site.client()
    site.sign_in(client)
    assert '<form class="photo-zone"' not in client.get("/").text
    assert '<form class="photo-zone"' in FakeWebTier().app.test_client().get("/").text
