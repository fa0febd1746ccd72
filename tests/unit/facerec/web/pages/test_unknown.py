"""Unknown people on the page."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from io import BytesIO
from uuid import uuid4

import pytest
from flask.testing import FlaskClient

from facerec.settings import Settings
from facerec.settings.tiers import UnknownSettings
from facerec.unknown_records import UnknownPerson, unknown_id_of
from tests.fakes.drawn_faces import photo
from tests.fakes.web_tier import FakeWebTier, running

ADA, VISITOR, COURIER = "Ada Lovelace", "a visitor", "a courier"


@pytest.fixture
def tier() -> Iterator[FakeWebTier]:
    """A site that keeps unknown people."""
    settings = Settings(unknown=UnknownSettings(collections=("*",)))
    with running(FakeWebTier(settings, working=True)) as tier:
        yield tier


@pytest.fixture
def client(tier: FakeWebTier) -> FlaskClient:
    """A reader of the site."""
    return tier.app.test_client()


def seen(client: FlaskClient, *people: str, take: int = 0) -> str:
    """Have a photo of these people recognised; returns the line of text."""
    return client.post("/", data={"inputFile": (BytesIO(photo(*people, take=take)), "door.jpg")}).text


def shown(client: FlaskClient, path: str = "/unknown") -> list[str]:
    """The ids on a page, in their order."""
    return re.findall(r'<li id="(unknown-\w+)"', client.get(path).text)


def test_unknown_people_are_listed_those_seen_last_first(tier: FakeWebTier, client: FlaskClient) -> None:
    """In parts, of which the next one can be appended; the address of one shows those before it, too."""
    now = datetime.now(UTC)
    for number in range(62):
        at = now - timedelta(minutes=(number * 7) % 62)
        record = UnknownPerson(
            unknown_id=unknown_id_of("default", uuid4(), 0),
            collection="default",
            first_seen=at,
            last_seen=at,
            last_request=uuid4(),
            expires_at=now + timedelta(days=1),
        )
        assert tier.unknown.put(record)
    everybody = sorted(tier.unknown.records("default"), key=lambda record: record.last_seen, reverse=True)
    ids = [record.unknown_id for record in everybody]
    assert shown(client) == ids[:60]
    assert shown(client, "/unknown?page=2") == ids
    more = client.get("/unknown?page=2", headers={"HX-Request": "true", "HX-Target": "more"}).text
    assert "<html" not in more
    assert re.findall(r'/unknown/([\w-]+)" autofocus', more) == [ids[60]], "the keyboard goes on there"
    assert all((each in more) == (place >= 60) for place, each in enumerate(ids))
    assert shown(client, "/unknown?page=20") == []


def test_unknown_person_is_promoted_and_recognised_by_name(client: FlaskClient) -> None:
    """An invalid name is refused, and nothing is changed."""
    assert seen(client, VISITOR).endswith("face not recognized")
    (unknown_id,) = shown(client)
    refused = client.post(f"/unknown/{unknown_id}/promote", data={"name": "Unknown"}, headers={"HX-Request": "true"})
    assert (refused.status_code, shown(client)) == (400, [unknown_id])
    promoted = client.post(f"/unknown/{unknown_id}/promote", data={"name": "Vera Rubin"})
    assert f"{unknown_id} is now Vera Rubin" in promoted.text
    assert shown(client) == []
    assert seen(client, VISITOR, take=1).endswith("Vera Rubin")
    assert client.get(f"/unknown/{unknown_id}").status_code == 404


def test_unknown_person_is_forgotten(client: FlaskClient) -> None:
    """It gets another number when it is seen again."""
    seen(client, VISITOR)
    (unknown_id,) = shown(client)
    assert "is forgotten" in client.post(f"/unknown/{unknown_id}/remove").text
    assert client.post(f"/unknown/{unknown_id}/remove", headers={"HX-Request": "true"}).status_code == 404
    assert shown(client) == []


def test_search_says_whether_a_face_was_here(client: FlaskClient) -> None:
    """It counts as no sight."""
    seen(client, VISITOR)
    (unknown_id,) = shown(client)
    found = client.post("/unknown/search", data={"file": (BytesIO(photo(VISITOR, COURIER, take=1)), "a.jpg")}).text
    assert f"/unknown/{unknown_id}" in found
    assert "Not seen before" in found
    assert shown(client) == [unknown_id]
    nobody = client.post("/unknown/search", data={"file": (BytesIO(photo()), "a.jpg")}).text
    assert "No face was found" in nobody


def test_photo_of_the_last_sight_is_shown_while_it_is_kept(tier: FakeWebTier, client: FlaskClient) -> None:
    """With the face marked; a link leads to its enrolment."""
    seen(client, ADA, VISITOR)
    _, unknown_id = shown(client)
    sight = client.get(f"/unknown/{unknown_id}/sight").text
    address = re.search(r'src="([^"]+)"', sight)
    assert address is not None
    assert client.get(address[1]).data == photo(ADA, VISITOR)
    assert re.search(r'href="/enrol\?request_id=[\w-]+&amp;face=[01]"', sight)
    for key in tier.store.keys(tier.settings.input_bucket):
        tier.store.delete(tier.settings.input_bucket, key)
    assert "no longer kept" in client.get(f"/unknown/{unknown_id}/sight").text


def test_page_says_how_unknown_people_are_switched_on() -> None:
    """For the collection of the page."""
    page = FakeWebTier().app.test_client().get("/unknown?collection=guests")
    assert page.status_code == 200
    assert "FACEREC_UNKNOWN__COLLECTIONS" in page.text
    assert "guests" in page.text
