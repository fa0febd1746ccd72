"""Unknown people over our own API, with the app tier's own use case behind it, and the alerts about them."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any

import pytest
from flask.testing import FlaskClient

from facerec.callbacks import CallbackFailed, owner_secret
from facerec.gallery.unknown_people import Unknown
from facerec.settings import Settings
from facerec.settings.tiers import CallbackSettings, UnknownSettings
from facerec.unknown_records import ALERT_OWNER
from facerec.web.unknown import UnknownThread
from tests.fakes.drawn_faces import photo
from tests.fakes.web_tier import FakeWebTier, running

SECRET = "0123456789abcdef"
URL = "https://example.com/alerts"


@pytest.fixture
def tier() -> Iterator[FakeWebTier]:
    """An open web tier with a worker that keeps the unknown people of the default collection."""
    settings = Settings(
        unknown=UnknownSettings(collections=("default",), alert_url=URL),
        callbacks=CallbackSettings(secret=SECRET),
    )
    with running(FakeWebTier(settings, working=True)) as started:
        yield started


@pytest.fixture
def client(tier: FakeWebTier) -> FlaskClient:
    """Its client."""
    return tier.app.test_client()


def ask(client: FlaskClient, path: str, body: bytes, status: int = 200) -> Any:
    """Send a photo, and return the answer, whose status is checked."""
    response = client.post(f"/api/v1/{path}", data={"file": (BytesIO(body), "photo.jpg")})
    assert response.status_code == status, response.text
    return response.json


def unknown_id(client: FlaskClient, body: bytes) -> str:
    """Recognise a photo, and return the id of its primary face."""
    return str(ask(client, "recognise", body)["faces"][0]["unknown"]["unknown_id"])


def test_stranger_is_searched_and_promoted(client: FlaskClient) -> None:
    """A search answers whether the face was here before; the promoted person has its name at once."""
    (nobody,) = ask(client, "unknown/search", photo("Ada"))["faces"]
    assert nobody["unknown"] is None
    first = unknown_id(client, photo("Ada"))
    (found,) = ask(client, "unknown/search", photo("Ada", take=1))["faces"]
    assert (found["unknown"]["unknown_id"], found["unknown"]["seen_count"]) == (first, 1)
    assert found["unknown"]["similarity"] > 0.8

    promoted = client.post(f"/api/v1/unknown/{first}/promote", json={"person": "Ada Lovelace"})
    assert (promoted.status_code, promoted.json) == (200, {"name": "Ada Lovelace", "photos": 1})
    assert ask(client, "recognise", photo("Ada", take=2))["result"] == "Ada Lovelace"
    assert client.get(f"/api/v1/unknown/{first}").status_code == 404


def test_unknown_people_are_listed_shown_and_removed(client: FlaskClient) -> None:
    """In pages, without a client being able to name the collection that holds their faces."""
    ids = sorted(unknown_id(client, photo(name)) for name in ("Ada", "Grace", "Mary"))
    page: Any = client.get("/api/v1/unknown?limit=2").json
    assert [each["unknown_id"] for each in page["unknown"]] == ids[:2]
    rest: Any = client.get(f"/api/v1/unknown?cursor={page['next']}").json
    assert ([each["unknown_id"] for each in rest["unknown"]], rest["next"]) == (ids[2:], None)
    shown: Any = client.get(f"/api/v1/unknown/{ids[0]}").json
    assert (shown["faces"], shown["seen_count"], shown["aliases"]) == (1, 1, [])

    assert client.delete(f"/api/v1/unknown/{ids[0]}").json == {"faces": 1}
    assert client.delete(f"/api/v1/unknown/{ids[0]}").status_code == 404
    assert client.get("/api/v1/people?collection=default!unknown").status_code == 400
    assert client.get("/api/v1/people").json == {"people": [], "next": None}


def test_search_where_unknown_people_are_not_kept_says_so(client: FlaskClient) -> None:
    """The feature is opt-in for each collection."""
    assert "not kept" in ask(client, "unknown/search?collection=staff", photo("Ada"), 409)["message"]
    assert ask(client, "recognise?collection=staff", photo("Ada"))["faces"][0]["unknown"] is None


def test_alert_is_sent_once_and_again_after_a_failure(tier: FakeWebTier, client: FlaskClient) -> None:
    """Signed, by one of two web processes; a failed one is tried later."""
    now = datetime.now(UTC) + timedelta(seconds=1)
    people = Unknown(enrolled=tier.templates, records=tier.unknown, names=tier.records, now=lambda: now)
    processes = [UnknownThread(tier.settings, people, tier.callbacks) for _ in range(2)]
    first = unknown_id(client, photo("Ada"))
    tier.callbacks.failure = CallbackFailed("example.com does not answer")
    for process in processes:
        process.look()
    assert tier.callbacks.sent == []
    tier.callbacks.failure = None
    now += timedelta(minutes=5)
    for process in processes:
        process.look()
    ((url, body, secret),) = tier.callbacks.sent
    assert (url, secret) == (URL, owner_secret(SECRET, ALERT_OWNER))
    sent = json.loads(body)
    assert (sent["event"], sent["unknown_id"], sent["collection"]) == ("unknown.new", first, "default")
    assert tier.unknown.alerts() == []


def test_web_process_removes_what_is_past_its_time(tier: FakeWebTier, client: FlaskClient) -> None:
    """Also after the feature was switched off."""
    unknown_id(client, photo("Ada"))
    later = datetime.now(UTC) + timedelta(days=31)
    people = Unknown(enrolled=tier.templates, records=tier.unknown, names=tier.records, now=lambda: later)
    assert tier.templates.collections_with_unknown() == ["default"]
    UnknownThread(Settings(), people, tier.callbacks).look()
    assert tier.templates.collections_with_unknown() == []
    assert list(tier.unknown.records("default")) == []
