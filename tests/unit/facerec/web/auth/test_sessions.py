"""Sessions in the auth hook: pages take a session and no key, APIs take a key and no session."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from facerec.api_keys import ApiKey, Scope, Token, issue, revoked, rotated
from facerec.errors import Transient
from facerec.session_records import csrf_token_of
from facerec.settings import Settings
from facerec.settings.tiers import WebSettings
from facerec.web.auth.access import AccessControl, client_name, install_access_control, is_page, needs, presented_key
from facerec.web.auth.collections import own_collection
from facerec.web.auth.credentials import Credentials
from facerec.web.auth.denials import Denial
from facerec.web.auth.sessions import csrf_token
from tests.fakes.api_keys import InMemoryApiKeys
from tests.fakes.clock import Clock
from tests.fakes.web_tier import FakeWebTier
from tests.support.logs import capture_logs

START = datetime(2026, 3, 1, tzinfo=UTC)
ELSEWHERE = {"Origin": "https://evil.example"}
UNKNOWN = "A" * 43


@dataclass
class Pages:
    """An app with two pages and a view of an API, behind the access control of a tier that asks for keys."""

    web: WebSettings = field(default_factory=WebSettings)
    clock: Clock = field(default_factory=Clock)
    keys: InMemoryApiKeys = field(default_factory=InMemoryApiKeys)
    open_to_all: bool = False

    def __post_init__(self) -> None:
        """Make the tier and the app."""
        keys = None if self.open_to_all else self.keys
        self.tier = FakeWebTier(Settings(web=self.web), keys=keys, clock=self.clock, now=self.now)
        self.app = make_app(self.tier)

    def now(self) -> datetime:
        """The time of day, which follows the clock."""
        return START + timedelta(seconds=self.clock.now - 1_000)

    def another_process(self) -> Flask:
        """An app of another process on the same stores."""
        tier = FakeWebTier(Settings(web=self.web), keys=self.keys, clock=self.clock, now=self.now)
        credentials = Credentials(self.web, self.keys, self.tier.sessions, clock=self.clock, now=self.now)
        tier.access = AccessControl(self.web, credentials, clock=self.clock)
        return make_app(tier)

    def change(self, token: Token, step: Callable[[ApiKey], ApiKey]) -> None:
        """Store a changed key."""
        key = self.keys.get(token.key_id)
        assert key is not None
        self.keys.put(step(key))

    def add_key(self, *scopes: Scope, **options: Any) -> Token:
        """A new key."""
        key, token = issue("desk", scopes or (Scope.ENROL,), now=self.now(), **options)
        self.keys.put(key)
        return token

    def signed_in(self, key: Token | None = None) -> tuple[FlaskClient, dict[str, str]]:
        """A client with a session, and the headers of its changes."""
        client = self.app.test_client()
        return client, self.tier.sign_in(client, key or self.add_key())


def make_app(tier: FakeWebTier) -> Flask:
    """The app; a denial is its reason."""
    app = Flask("test")

    def denied(denial: Denial) -> Any:
        return app.response_class(f"{'page' if is_page() else 'api'} {denial.reason}", denial.status)

    install_access_control(app, tier.access, denied)

    @app.get("/people")
    @app.post("/people")
    @needs(Scope.ENROL, page=True)
    def people() -> dict[str, str]:
        return {"client": client_name(), "collection": own_collection(presented_key()), "csrf": csrf_token()}

    @app.get("/fleet")
    @needs(Scope.ADMIN, page=True)
    def fleet() -> str:
        return "fleet"

    @app.get("/api/v1/people")
    @app.post("/api/v1/people")
    @needs(Scope.ENROL)
    def people_api() -> str:
        return "api"

    return app


@pytest.fixture
def pages() -> Pages:
    """The default settings."""
    return Pages()


def said(response: TestResponse) -> tuple[int, str]:
    """Status and text."""
    return response.status_code, response.text


def test_page_takes_a_session_and_no_key(pages: Pages) -> None:
    """A page acts as the key; a key in a header does not open it, and a session does not open an API."""
    token = pages.add_key(collection="staff")
    header = {"x-api-key": token.reveal()}
    stranger = pages.app.test_client()
    assert said(stranger.get("/people", headers=header)) == (401, "page no_session")
    assert said(stranger.get("/api/v1/people", headers=header)) == (200, "api")
    client, sent = pages.signed_in(token)
    assert client.get("/people").json == {
        "client": token.key_id,
        "collection": "staff",
        "csrf": sent["X-CSRF-Token"],
    }
    assert said(client.get("/api/v1/people")) == (401, "api no_key")
    assert said(client.post("/api/v1/people", headers=sent)) == (401, "api no_key")


def test_page_needs_the_scope_of_its_view(pages: Pages) -> None:
    """The log names the key."""
    client, _ = pages.signed_in()
    with capture_logs() as lines:
        assert said(client.get("/fleet")) == (403, "page scope")
    (line,) = lines
    assert (line["event"], line["reason"]) == ("request_denied", "scope")
    admin, _ = pages.signed_in(pages.add_key(Scope.ADMIN))
    assert said(admin.get("/fleet")) == (200, "fleet")


def test_change_of_a_page_needs_the_token_of_the_session(pages: Pages) -> None:
    """That of another session, or of an earlier one of the same key, does not count; reading needs none."""
    key = pages.add_key()
    client, sent = pages.signed_in(key)
    _, others = pages.signed_in(key)
    assert client.post("/people", headers=sent).status_code == 200
    for headers in ({}, others, {"X-CSRF-Token": ""}, {"X-CSRF-Token": "é"}):
        assert said(client.post("/people", headers=headers)) == (403, "page csrf_token")
    assert client.get("/people").status_code == 200


@pytest.mark.parametrize("site", [ELSEWHERE, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}])
def test_change_of_a_page_from_another_site_is_403(pages: Pages, site: dict[str, str]) -> None:
    """Also with the token, and in open mode, where there is none."""
    client, sent = pages.signed_in()
    assert said(client.post("/people", headers=sent | site)) == (403, "page foreign_page")
    own = {"Origin": "http://localhost"}
    assert client.post("/people", headers=sent | own).status_code == 200
    everyone = Pages(open_to_all=True).app.test_client()
    assert said(everyone.post("/people", headers=site)) == (403, "page foreign_page")
    assert everyone.post("/people", headers=own).json == {
        "client": "127.0.0.1",
        "collection": "default",
        "csrf": "",
    }


def test_session_ends_after_its_hours() -> None:
    """Also if it is in use all the time."""
    pages = Pages(WebSettings(session_hours=1))
    client, _ = pages.signed_in()
    for _ in range(59):
        pages.clock.now += 60
        assert client.get("/people").status_code == 200
    pages.clock.now += 60
    assert said(client.get("/people")) == (401, "page expired_key")


def test_session_ends_with_its_key(pages: Pages) -> None:
    """Within the half minute that a key is kept, and at once when its time is over; an ended session is no guess."""
    revoked_key, rotated_key, rotated_twice = [pages.add_key() for _ in range(3)]
    clients = [pages.signed_in(token)[0] for token in (revoked_key, rotated_key, rotated_twice)]
    pages.change(revoked_key, lambda key: revoked(key, pages.now()))
    for token in (rotated_key, rotated_twice, rotated_twice):
        pages.change(token, lambda key: rotated(key, now=pages.now(), grace=timedelta())[0])
    pages.clock.now += 30
    for client in clients:
        assert {client.get("/people").status_code for _ in range(40)} == {401}
    expiring, _ = pages.signed_in(pages.add_key(expires_in=timedelta(minutes=5)))
    pages.clock.now += 299
    assert expiring.get("/people").status_code == 200
    pages.clock.now += 1
    assert said(expiring.get("/people")) == (401, "page expired_key")


def test_sign_out_ends_a_session_here_at_once_and_elsewhere_within_seconds(pages: Pages) -> None:
    """Another process keeps what it has read for ten seconds; the other sessions of the key go on."""
    key = pages.add_key()
    client, _ = pages.signed_in(key)
    neighbour, _ = pages.signed_in(key)
    other = pages.another_process().test_client()
    cookie = client.get_cookie("facerec_session")
    credentials = pages.tier.access.credentials
    assert cookie is not None
    assert credentials is not None
    other.set_cookie("facerec_session", cookie.value)
    assert client.get("/people").status_code == other.get("/people").status_code == 200
    credentials.sign_out(cookie.value)
    assert client.get("/people").status_code == 401
    assert neighbour.get("/people").status_code == 200
    pages.clock.now += 10
    assert other.get("/people").status_code == 401


def test_page_with_many_pictures_costs_one_reading(pages: Pages) -> None:
    """Of the session and of the key."""
    client, _ = pages.signed_in()
    pages.keys.reads.clear()
    for _ in range(50):
        assert client.get("/people").status_code == 200
    assert len(pages.tier.sessions.reads) == 1
    assert pages.keys.reads == []
    pages.clock.now += 10
    client.get("/people")
    assert len(pages.tier.sessions.reads) == 2


def test_guesses_of_sessions_count_as_wrong_keys() -> None:
    """And keep no session out that this process knows."""
    pages = Pages(WebSettings(auth_failures="5/minute"))
    client, _ = pages.signed_in()
    assert client.get("/people").status_code == 200
    statuses = []
    for number in range(10):
        guesser = pages.app.test_client()
        guesser.set_cookie("facerec_session", f"{number:043}")
        statuses.append(guesser.get("/people").status_code)
    assert statuses == [401] * 5 + [429] * 5
    assert len(pages.tier.sessions.reads) == 6
    assert client.get("/people").status_code == 200
    credentials = pages.tier.access.credentials
    assert credentials is not None
    refused = credentials.sign_in(pages.add_key().reveal(), "127.0.0.1")
    assert isinstance(refused, Denial)
    assert refused.status is HTTPStatus.TOO_MANY_REQUESTS


def test_wrong_keys_at_the_sign_in_count_and_an_expired_one_does_not(pages: Pages) -> None:
    """As they do in a header, with the same sentences."""
    pages = Pages(WebSettings(auth_failures="3/minute"))
    credentials = pages.tier.access.credentials
    assert credentials is not None
    old = pages.add_key(expires_in=timedelta(minutes=1))
    pages.clock.now += 60

    def sentence(text: str) -> str:
        denial = credentials.sign_in(text, "192.0.2.7")
        assert isinstance(denial, Denial)
        return denial.sentence

    for _ in range(5):
        assert sentence(old.reveal()) == "this API key has expired: ask the operator for another"
    for text in ("letmein", f"frk_{'0' * 12}_{UNKNOWN}", f"frk_{old.key_id}_{UNKNOWN}"):
        assert sentence(text) == "this API key is wrong: check that it was copied whole"
    assert sentence("letmein").startswith("too many wrong or unknown API keys")


def test_signing_key_cannot_sign_in(pages: Pages) -> None:
    """The refusal says why, by its id alone, too: which half of the pair a person enters is not known."""
    credentials = pages.tier.access.credentials
    assert credentials is not None
    key, token = issue("aws", [Scope.ADMIN], now=START, signing=True)
    pages.keys.put(key)
    for text in (token.reveal(), key.key_id):
        denial = credentials.sign_in(text, "192.0.2.7")
        assert isinstance(denial, Denial)
        assert "signs the requests of AWS clients" in denial.sentence


def test_sessions_work_through_an_outage_and_others_get_503(pages: Pages) -> None:
    """As keys do."""
    client, _ = pages.signed_in()
    assert client.get("/people").status_code == 200
    pages.tier.sessions.outage = Transient("no route")
    pages.clock.now += 60
    assert client.get("/people").status_code == 200
    stranger = pages.app.test_client()
    stranger.set_cookie("facerec_session", UNKNOWN)
    assert said(stranger.get("/people")) == (503, "page keys_unreadable")
    credentials = pages.tier.access.credentials
    assert credentials is not None
    refused = credentials.sign_in(pages.add_key().reveal(), "192.0.2.7")
    assert isinstance(refused, Denial)
    assert refused.status is HTTPStatus.SERVICE_UNAVAILABLE


def test_pages_count_in_the_rate_of_their_key() -> None:
    """Together with its requests of the API."""
    pages = Pages(WebSettings(rate_limit="3/minute"))
    key = pages.add_key()
    client, _ = pages.signed_in(key)
    assert client.get("/api/v1/people", headers={"x-api-key": key.reveal()}).status_code == 200
    assert [client.get("/people").status_code for _ in range(3)] == [200, 200, 429]


def test_cookie_over_https_is_the_one_that_is_bound_to_this_host(pages: Pages) -> None:
    """There the plain one does not count, which a neighbour below the same domain could set."""
    client, _ = pages.signed_in()
    cookie = client.get_cookie("facerec_session")
    assert cookie is not None
    assert said(client.get("/people", base_url="https://localhost")) == (401, "page no_session")
    client.set_cookie("__Host-facerec_session", cookie.value, secure=True)
    csrf = {"X-CSRF-Token": csrf_token_of(cookie.value)}
    assert client.post("/people", base_url="https://localhost", headers=csrf).status_code == 200


def test_unknown_path_is_a_page_to_a_browser(pages: Pages) -> None:
    """And an API to programs."""
    client, _ = pages.signed_in()
    opened = {"Accept": "text/html,*/*;q=0.8"}
    assert client.get("/nowhere", headers=opened).status_code == 404
    assert said(pages.app.test_client().get("/nowhere", headers=opened)) == (401, "page no_session")
    assert said(client.get("/nowhere")) == (401, "api no_key")
    assert said(client.get("/api/v1/nowhere", headers=opened)) == (401, "api no_key")
