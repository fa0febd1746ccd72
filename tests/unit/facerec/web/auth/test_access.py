"""The auth hook: keys, scopes, limits, host names and sites, through the application on fakes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, cached_property
from io import BytesIO
from typing import Any
from uuid import uuid4

import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st
from structlog.contextvars import get_contextvars, merge_contextvars
from werkzeug.test import TestResponse

from facerec.api_keys import ApiKey, Scope, Token, issue, revoked, rotated
from facerec.errors import Transient
from facerec.observability.logs import TRACEBACKS
from facerec.settings import Settings
from facerec.settings.tiers import WebSettings
from facerec.web.auth.access import install_access_control
from tests.fakes.api_keys import InMemoryApiKeys
from tests.fakes.clock import Clock
from tests.fakes.web_tier import FakeWebTier, answers, picture, running
from tests.support.logs import capture_logs

NOBODYS = f"frk_{'0' * 12}_{'A' * 43}"
RESULT = f"/api/v1/results/{uuid4()}"


def make_key(*scopes: Scope, expires_in: timedelta | None = None) -> tuple[ApiKey, Token]:
    """A key made an hour ago."""
    return issue(
        "kiosk", scopes or [Scope.RECOGNISE], now=datetime.now(UTC) - timedelta(hours=1), expires_in=expires_in
    )


@dataclass
class KeyedTier:
    """A running web tier that asks for keys, and one key that it knows."""

    tier: FakeWebTier
    keys: InMemoryApiKeys
    clock: Clock
    key: ApiKey
    token: Token

    @cached_property
    def client(self) -> FlaskClient:
        """A client."""
        return self.tier.app.test_client()

    def post(self, key: str | None = None, **options: Any) -> TestResponse:
        """Upload a picture, with a key or without."""
        headers = {} if key is None else {"x-api-key": key}
        data = {"inputFile": (BytesIO(picture()), "a.jpg")}
        return self.client.post("/", data=data, headers=headers | options.pop("headers", {}), **options)


def keyed_tier(**web: Any) -> KeyedTier:
    """Make a tier whose worker knows Jane; its inbox is not read yet."""
    clock = Clock()
    key, token = make_key()
    keys = InMemoryApiKeys(key)
    settings = Settings(web=WebSettings(**web))
    return KeyedTier(FakeWebTier(settings, answers("Jane"), keys=keys, clock=clock), keys, clock, key, token)


@pytest.fixture
def keyed() -> Iterator[KeyedTier]:
    """A tier with the default settings."""
    tier = keyed_tier()
    with running(tier.tier):
        yield tier


def opened(**web: Any) -> FlaskClient:
    """A client of a web tier that serves everyone."""
    return FakeWebTier(Settings(web=WebSettings(**web)), clock=Clock()).app.test_client()


@pytest.mark.parametrize("header", ["x-api-key", "X-API-KEY", "Authorization"])
def test_request_with_a_key_is_served(keyed: KeyedTier, header: str) -> None:
    """In CompreFace's header or as a bearer token, whatever the case."""
    value = keyed.token.reveal() if header != "Authorization" else f"bEARER  {keyed.token.reveal()}"
    response = keyed.post(headers={header: value})
    assert (response.status_code, response.text) == (200, "a.jpg: face detected - Jane")
    result = keyed.client.get(f"/api/v1/results/{response.headers['X-Request-Id']}", headers={header: value})
    assert result.status_code == 200


def test_request_without_a_key_is_401(keyed: KeyedTier) -> None:
    """The reply says what is needed, in plain text or in CompreFace's JSON."""
    plain, api = keyed.post(), keyed.client.get(RESULT)
    for response in (plain, api):
        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"] == 'Bearer realm="facerec"'
    assert plain.content_type == "text/plain; charset=utf-8"
    assert "x-api-key" in plain.text
    assert api.json == {"message": plain.text, "code": 20}
    assert not keyed.tier.tasks.requests
    assert keyed.tier.admission.waiting == 0


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_needs_no_key(keyed: KeyedTier, path: str) -> None:
    """Also with a wrong key."""
    for headers in ({}, {"x-api-key": NOBODYS}):
        assert keyed.client.get(path, headers=headers).status_code == 200


def test_readiness_hides_its_reasons_when_keys_are_needed(keyed: KeyedTier) -> None:
    """The reasons have names of buckets and addresses; each is logged once."""

    def missing() -> None:
        raise Transient("cannot reach http://10.0.0.1/bucket")

    keyed.tier.checks |= {"store": missing, "inbox": lambda: None}
    app = keyed.tier._app()
    with capture_logs() as lines:
        responses = [app.test_client().get("/readyz") for _ in range(2)]
    assert [response.status_code for response in responses] == [503, 503]
    assert responses[0].json == {"status": "unready", "checks": {"inbox": "ok", "store": "failed"}}
    assert [(line["check"], line["reason"]) for line in lines if line["event"] == "check_failed"] == [
        ("store", "cannot reach http://10.0.0.1/bucket")
    ]


def test_wrong_expired_and_revoked_keys_are_401(keyed: KeyedTier) -> None:
    """Only a client with the right secret reads why."""
    expired, old = make_key(expires_in=timedelta(minutes=1))
    ended, gone = make_key()
    keyed.keys.put(expired)
    keyed.keys.put(ended)
    keyed.keys.put(revoked(ended, datetime.now(UTC)))
    said = {
        name: keyed.post(key)
        for name, key in {
            "nobody": NOBODYS,
            "secret": f"frk_{keyed.key.key_id}_{'A' * 43}",
            "nonsense": "letmein",
            "twice": f"{keyed.token.reveal()}, {keyed.token.reveal()}",
            "expired": old.reveal(),
            "revoked": gone.reveal(),
        }.items()
    }
    assert {response.status_code for response in said.values()} == {401}
    assert all("WWW-Authenticate" in response.headers for response in said.values())
    assert {said[name].text for name in ("nobody", "secret", "nonsense", "twice")} == {
        "this API key is wrong: check that it was copied whole"
    }
    assert "expired" in said["expired"].text
    assert "revoked" in said["revoked"].text
    assert keyed.client.get(RESULT, headers={"x-api-key": NOBODYS}).get_json()["code"] == 10


def test_key_allows_what_its_scope_names(keyed: KeyedTier) -> None:
    """And `admin` everything."""
    enrol, enroller = make_key(Scope.ENROL)
    admin, boss = make_key(Scope.ADMIN)
    keyed.keys.put(enrol)
    keyed.keys.put(admin)
    refused = keyed.post(enroller.reveal())
    assert refused.status_code == 403
    assert "recognise" in refused.text
    assert keyed.post(boss.reveal()).status_code == 200


def test_route_without_a_mark_needs_admin(keyed: KeyedTier) -> None:
    """A forgotten view is closed, not open."""
    app = Flask("test")
    install_access_control(app, keyed.tier.access, lambda denial: app.response_class(denial.sentence, denial.status))

    @app.get("/metrics")
    def forgotten() -> str:
        return "secret"

    admin, boss = make_key(Scope.ADMIN)
    keyed.keys.put(admin)
    keys = [None, keyed.token.reveal(), boss.reveal()]
    replies = [app.test_client().get("/metrics", headers={"x-api-key": key} if key else {}) for key in keys]
    assert [reply.status_code for reply in replies] == [401, 403, 200]


def test_unknown_route_needs_any_valid_key(keyed: KeyedTier) -> None:
    """Unknown route needs any valid key."""
    assert keyed.client.get("/nowhere").status_code == 401
    assert keyed.client.get("/nowhere", headers={"x-api-key": keyed.token.reveal()}).status_code == 404


def test_known_keys_work_through_an_outage_and_others_get_503(keyed: KeyedTier) -> None:
    """With the time to try again."""
    assert keyed.post(keyed.token.reveal()).status_code == 200
    other, token = make_key()
    keyed.keys.put(other)
    keyed.keys.outage = Transient("no route")
    keyed.clock.now += 60
    assert keyed.post(keyed.token.reveal()).status_code == 200
    refused = keyed.post(token.reveal())
    assert refused.status_code == 503
    assert int(refused.headers["Retry-After"]) > 0
    assert "no route" not in refused.text


def test_rate_limit_holds_for_each_key() -> None:
    """The refusal says when to try again."""
    busy = keyed_tier(rate_limit="3/minute")
    other, token = make_key()
    busy.keys.put(other)
    with running(busy.tier):
        statuses = [busy.post(busy.token.reveal()) for _ in range(4)]
        assert [response.status_code for response in statuses] == [200, 200, 200, 429]
        assert statuses[-1].headers["Retry-After"] == "20"
        assert "20 seconds" in statuses[-1].text
        assert busy.post(token.reveal()).status_code == 200
        busy.clock.now += 20
        assert busy.post(busy.token.reveal()).status_code == 200
        assert {busy.client.get("/healthz").status_code for _ in range(20)} == {200}


def test_rate_limit_holds_for_each_address_in_open_mode() -> None:
    """An IPv6 client has its whole network; health has none."""
    client = opened(rate_limit="2/minute")

    def status(address: str, path: str = RESULT) -> int:
        return client.get(path, environ_overrides={"REMOTE_ADDR": address}).status_code

    assert [status("203.0.113.7") for _ in range(3)] == [404, 404, 429]
    assert status("203.0.113.8") == 404
    assert [status(f"2001:db8::{number}") for number in range(1, 4)] == [404, 404, 429]
    assert status("203.0.113.7", "/readyz") == 503  # the inbox is not read in this test


def test_wrong_keys_are_limited_and_cost_no_readings() -> None:
    """A key in use goes on working from the same address."""
    attacked = keyed_tier(auth_failures="5/minute")
    with running(attacked.tier):
        assert attacked.post(attacked.token.reveal()).status_code == 200
        replies = [attacked.post(f"frk_{number:012x}_{'A' * 43}") for number in range(50)]
        assert [reply.status_code for reply in replies] == [401] * 5 + [429] * 45
        assert replies[-1].headers["Retry-After"] == "12"
        assert len(attacked.keys.reads) == 6
        assert attacked.post(f"frk_{attacked.key.key_id}_{'A' * 43}").status_code == 429
        assert attacked.post(attacked.token.reveal()).status_code == 200
        elsewhere = attacked.post(NOBODYS, environ_overrides={"REMOTE_ADDR": "203.0.113.9"})
        assert elsewhere.status_code == 401
        assert attacked.post().status_code == 401  # a missing key is no guess


def test_expired_key_does_not_count_as_a_wrong_one() -> None:
    """A forgotten client with an old key does not block its address."""
    shared = keyed_tier(auth_failures="3/minute")
    expired, old = make_key(expires_in=timedelta(minutes=1))
    other, token = make_key()
    shared.keys.put(expired)
    shared.keys.put(other)
    with running(shared.tier):
        assert {shared.post(old.reveal()).status_code for _ in range(10)} == {401}
        assert shared.post(token.reveal()).status_code == 200


def test_rotated_secret_works_within_seconds(keyed: KeyedTier) -> None:
    """Another secret makes the cache read the key again, at most every 2 s."""
    assert keyed.post(keyed.token.reveal()).status_code == 200
    changed, token = rotated(keyed.key, now=datetime.now(UTC), grace=timedelta(hours=1))
    keyed.keys.put(changed)
    keyed.clock.now += 2
    assert keyed.post(token.reveal()).status_code == 200
    assert keyed.post(keyed.token.reveal()).status_code == 200
    reads = len(keyed.keys.reads)
    for _ in range(10):
        keyed.clock.now += 0.5
        keyed.post(f"frk_{keyed.key.key_id}_{'A' * 43}")
    assert len(keyed.keys.reads) - reads <= 3


def test_forwarded_address_counts_only_with_trusted_proxies() -> None:
    """Forwarded address counts only with trusted proxies."""

    def statuses(proxies: int, forwarded: list[str]) -> list[int]:
        client = opened(rate_limit="2/minute", trusted_proxies=proxies)
        return [client.get(RESULT, headers={"X-Forwarded-For": one}).status_code for one in forwarded]

    several = [f"198.51.100.{number}" for number in range(3)]
    assert statuses(0, several) == [404, 404, 429]
    assert statuses(1, several) == [404, 404, 404]
    # What the client itself has put in front of the proxy's word is not believed.
    assert statuses(1, [f"{one}, 203.0.113.7" for one in several]) == [404, 404, 429]
    assert statuses(2, [f"{one}, 203.0.113.7" for one in several]) == [404, 404, 404]


def test_every_response_has_the_security_headers(keyed: KeyedTier) -> None:
    """No other origin is allowed."""
    for response in (
        keyed.client.get("/"),
        keyed.post(),
        keyed.client.get(RESULT),
        keyed.client.get("/healthz"),
    ):
        headers = response.headers
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Referrer-Policy"] == "same-origin"
        assert headers["Cache-Control"] == "no-store"
        assert headers["Cross-Origin-Opener-Policy"] == headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "camera=()" in headers["Permissions-Policy"]
        assert not {name for name in headers.keys() if name.startswith("Access-Control") or name == "Server"}  # noqa: SIM118 - these are pairs
        assert "Strict-Transport-Security" not in headers


def test_strict_transport_security_needs_a_trusted_proxy() -> None:
    """Strict transport security needs a trusted proxy."""
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.7"}
    assert "Strict-Transport-Security" not in opened().get("/", headers=headers).headers
    assert (
        opened(trusted_proxies=1).get("/", headers=headers).headers["Strict-Transport-Security"] == "max-age=31536000"
    )


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "localhost.", "127.0.0.1:8000", "[::1]:8000", ""])
def test_open_server_on_loopback_answers_to_its_own_names(host: str) -> None:
    """With any port, and without a name, as HTTP/1.0 allows and no browser does."""
    assert opened().get(RESULT, headers={"Host": host}).status_code == 404
    assert opened(host="127.0.0.2").get(RESULT, headers={"Host": "127.0.0.2:8000"}).status_code == 404


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "127.0.0.2", "[::2]:8000"]
)
def test_open_server_on_loopback_refuses_other_names(host: str) -> None:
    """A foreign page may make its own name point here (DNS rebinding)."""
    response = opened().get(RESULT, headers={"Host": host})
    assert response.status_code == 421
    assert "FACEREC_WEB__ALLOWED_HOSTS" in response.get_json()["message"]


@pytest.mark.parametrize("host", ["evil.example, faces.internal", "evil@faces.internal", "faces.internal:65536", "["])
def test_request_that_names_no_single_host_is_400(host: str) -> None:
    """On every route and with any setting; the server hands on two `Host` lines as one value with a comma."""
    clients = [opened(allowed_hosts=(".internal",)), opened(trusted_proxies=1), opened()]
    for path in (RESULT, "/", "/healthz", "/nowhere"):
        for client in clients:
            response = client.get(path, headers={"Host": host, "X-Forwarded-Host": "faces.internal"})
            assert response.status_code == 400
            assert "one Host header" in response.text


def test_request_that_names_no_single_host_is_400_also_with_a_key() -> None:
    """It is denied before its key is checked."""
    keyed = keyed_tier(allowed_hosts=(".internal",))
    response = keyed.post(keyed.token.reveal(), headers={"Host": "evil.example, faces.internal"})
    assert response.status_code == 400
    assert not keyed.keys.reads


def test_forwarded_host_never_counts() -> None:
    """Also behind a trusted proxy, which passes the true name in `Host`."""
    client = opened(allowed_hosts=("faces.example",), trusted_proxies=1)
    forwarded = {"X-Forwarded-Host": "faces.example", "Forwarded": "host=faces.example", "X-Forwarded-For": "192.0.2.7"}
    assert client.get(RESULT, headers={"Host": "evil.example"} | forwarded).status_code == 421


def test_allowed_hosts_are_answered() -> None:
    """One by one, or all below one; on other addresses any name is answered by default."""

    def status(name: str, **web: Any) -> int:
        return opened(**web).get(RESULT, headers={"Host": name}).status_code

    allowed = ("Faces.example", ".internal")
    assert status("faces.example", allowed_hosts=allowed) == 404
    assert status("a.b.internal:80", allowed_hosts=allowed) == 404
    assert status("localhost", allowed_hosts=allowed) == 421
    assert status("any.example", host="0.0.0.0") == 404  # noqa: S104 - nothing is bound
    assert status("any.example", trusted_proxies=1) == 404


@pytest.mark.parametrize(
    ("site", "status"), [(None, 400), ("same-origin", 400), ("none", 400), ("cross-site", 403), ("same-site", 403)]
)
def test_upload_from_a_page_of_another_site_is_403(site: str | None, status: int) -> None:
    """Browsers send `Sec-Fetch-Site`, programs do not."""
    headers = {} if site is None else {"Sec-Fetch-Site": site}
    assert opened().post("/", headers=headers).status_code == status
    assert opened().get(RESULT, headers=headers).status_code == 404


@pytest.mark.parametrize(
    ("origin", "site", "status"),
    [
        ("http://192.0.2.7:8000", None, 400),
        ("HTTP://192.0.2.7:8000", None, 400),
        ("http://192.0.2.7", None, 403),
        ("http://192.0.2.7:8001", None, 403),
        ("http://evil.example", None, 403),
        ("null", None, 403),
        ("http://evil.example, http://192.0.2.7:8000", None, 403),
        ("http://evil.example@192.0.2.7:8000", None, 403),
        ("evil://192.0.2.7:8000", None, 403),
        ("192.0.2.7:8000", None, 403),
        ("http://evil.example", "same-origin", 400),
        ("http://192.0.2.7:8000", "cross-site", 403),
        ("http://192.0.2.7:8000", "cross-site, same-origin", 403),
    ],
)
def test_upload_over_plain_http_is_judged_by_its_origin(origin: str, site: str | None, status: int) -> None:
    """There browsers do not send `Sec-Fetch-Site`."""
    client = opened(host="0.0.0.0")  # noqa: S104 - nothing is bound
    headers = {"Host": "192.0.2.7:8000", "Origin": origin} | ({} if site is None else {"Sec-Fetch-Site": site})
    assert client.post("/", headers=headers).status_code == status
    assert client.get(RESULT, headers=headers).status_code == 404


HEADER_TEXT = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"), max_size=80)
CREDENTIALS = (
    HEADER_TEXT | st.builds("Bearer {}".format, HEADER_TEXT) | st.builds("frk_{}_{}".format, HEADER_TEXT, HEADER_TEXT)
)


@cache
def strict_client() -> FlaskClient:
    """A client for all examples of a property."""
    return keyed_tier(auth_failures="", trusted_proxies=1, allowed_hosts=("localhost",)).client


@given(
    st.dictionaries(
        st.sampled_from(
            ["X-Api-Key", "Authorization", "X-Forwarded-For", "X-Forwarded-Proto", "Host", "Sec-Fetch-Site"]
        ),
        CREDENTIALS,
    )
)
def test_no_header_gives_access_or_makes_a_fault(headers: Mapping[str, str]) -> None:
    """No header gives access or makes a fault."""
    response = strict_client().post("/", headers=dict(headers))
    assert response.status_code in {400, 401, 421}


def test_log_has_the_key_id_and_never_the_key(keyed: KeyedTier) -> None:
    """Wherever a client puts it, in the right header or a wrong one."""
    good, wrong = keyed.token.reveal(), f"frk_{keyed.key.key_id}_{'w' * 43}"
    with capture_logs(processors=[merge_contextvars]) as lines:
        for text in (good, wrong, NOBODYS):
            for header in ("x-api-key", "Authorization", "Cookie", "X-Forwarded-For", "Sec-Fetch-Site", "Referer"):
                for value in (text, f"Bearer {text}", f"Basic {text}", f"{text}, {text}"):
                    keyed.post(headers={header: value})
            keyed.client.get(f"/nowhere?api_key={text}", headers={"x-api-key": good})
    assert {line["key_id"] for line in lines if line["event"] == "upload"} == {keyed.key.key_id}
    denied = [line for line in lines if line["event"] == "request_denied"]
    assert {line["reason"] for line in denied} == {"no_key", "wrong_key"}
    assert {line.get("key_id") for line in denied if line["reason"] == "wrong_key"} == {None, keyed.key.key_id}
    assert not any(secret in str(lines) for secret in ("frk_", keyed.token.secret, "w" * 43, "A" * 43))


def test_key_id_is_not_bound_after_the_request(keyed: KeyedTier) -> None:
    """Threads serve one request after the other."""
    keyed.post(keyed.token.reveal())
    assert "key_id" not in get_contextvars()


def test_traceback_shows_no_local_variables() -> None:
    """They hold keys, pictures and embeddings."""

    def fail() -> None:
        secret = "correct horse"
        raise KeyError(len(secret))

    with pytest.raises(KeyError) as caught:
        fail()
    shown = TRACEBACKS(None, "error", {"exc_info": caught.value})
    assert "KeyError" in str(shown)
    assert "correct horse" not in str(shown)
