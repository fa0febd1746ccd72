"""People and photos over our own API, with the app tier's own use case behind it."""

from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any, get_args
from uuid import UUID

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from facerec.api_answers import REFUSAL_STATUS
from facerec.api_keys import Scope, issue
from facerec.errors import Transient
from facerec.gallery.enrolment import EnrolmentStatus
from facerec.gallery.receipt_signing import SigningKey, verified
from facerec.messages import Refusal
from facerec.ports import CollectionRecord
from facerec.settings import Settings
from facerec.settings.resources import ErasureSettings
from facerec.web.api.v1.photos import Status
from tests.fakes.api_keys import InMemoryApiKeys
from tests.fakes.drawn_faces import DrawnFace, photo
from tests.fakes.templates import make_template
from tests.fakes.web_tier import FakeWebTier, running

ABSENT = UUID(int=7)


@pytest.fixture
def tier() -> Iterator[FakeWebTier]:
    """An open web tier with a worker."""
    with running(FakeWebTier(working=True)) as started:
        yield started


@pytest.fixture
def client(tier: FakeWebTier) -> FlaskClient:
    """Its client."""
    return tier.app.test_client()


def send(client: FlaskClient, path: str, body: bytes, **options: Any) -> TestResponse:
    """Send a photo."""
    return client.post(f"/api/v1/{path}", data={"file": (BytesIO(body), "photo.jpg")}, **options)


def answer(response: TestResponse, status: int = 200) -> Any:
    """The JSON of a response, whose status is checked."""
    assert response.status_code == status, response.text
    return response.json


def enrol(client: FlaskClient, name: str, body: bytes) -> Any:
    """Enrol a photo."""
    return answer(send(client, f"people/{name}/photos", body), 201)


def names(client: FlaskClient, query: str = "") -> list[str]:
    """The people of a page."""
    return [each["name"] for each in answer(client.get(f"/api/v1/people{query}"))["people"]]


def test_enrolled_person_is_recognised_and_can_be_seen(client: FlaskClient) -> None:
    """With the photo as it was sent."""
    body = photo("Jane")
    enrolled = enrol(client, "Jane Smith", body)
    assert (enrolled["status"], enrolled["name"], enrolled["look_alikes"]) == ("enrolled", "Jane Smith", [])
    assert enrolled["quality"]["score"] == 0.95
    found = answer(send(client, "recognise", photo("Jane", take=1)))
    assert (found["result"], found["threshold_source"]) == ("Jane Smith", "model")
    person = answer(client.get("/api/v1/people/jane%20smith"))
    assert (person["name"], person["photos"]) == ("Jane Smith", 1)
    [listed] = answer(client.get("/api/v1/people/Jane%20Smith/photos"))["photos"]
    assert (listed["id"], listed["filename"], listed["kept"]) == (enrolled["id"], "photo.jpg", True)
    for written in (enrolled["id"], UUID(enrolled["id"]).hex):
        kept = client.get(f"/api/v1/photos/{written}")
        assert (kept.data, kept.content_type) == (body, "image/jpeg")


def test_enrolment_says_what_became_of_the_photo(client: FlaskClient) -> None:
    """By status, in words, and for programs."""
    enrol(client, "Jane", photo("Jane"))
    poor = photo(DrawnFace("Bob", quality=0.2))
    cases = [
        (send(client, "people/JANE/photos", photo("Jane")), 200, "duplicate"),
        (send(client, "people/Bob/photos", photo("Jane")), 409, "other_name"),
        (send(client, "people/Bob/photos", photo()), 422, "no_face"),
        (send(client, "people/Bob/photos", photo("Bob", "Eve")), 422, "several_faces"),
        (send(client, "people/Bob/photos", poor), 422, "poor_quality"),
        (send(client, "people/Bob/photos?faces=primary", photo("Bob", "Eve")), 201, "enrolled"),
        (send(client, "people/Bob/photos?force=true", poor), 201, "enrolled"),
    ]
    for response, status, word in cases:
        found = answer(response, status)
        assert found["status"] == word
        assert found["detail"]
        assert ("message" in found) == (status >= 400)
    other = answer(cases[1][0], 409)
    assert (other["name"], other["enrolled_for"]) == ("Bob", "Jane")
    assert answer(cases[4][0], 422)["quality"]["reasons"] == ["blurred"]


def test_look_alike_is_named_at_enrolment(client: FlaskClient) -> None:
    """It may be the same person under two names."""
    enrol(client, "Jane", photo("Jane"))
    assert [each["identity"] for each in enrol(client, "Joan", photo("Jane", take=1))["look_alikes"]] == ["Jane"]


def test_every_status_of_an_enrolment_and_refusal_is_described() -> None:
    """The web tier cannot import the enumeration, which needs numpy."""
    assert set(get_args(Status)) == {str(status) for status in EnrolmentStatus}
    assert REFUSAL_STATUS.keys() == set(Refusal)


def test_pages_list_everybody_once(client: FlaskClient) -> None:
    """Also if somebody is removed between two pages."""
    for name in ("Ada", "Bob", "Cyd", "Dan"):
        answer(client.post("/api/v1/people", json={"name": name}), 201)
    first = answer(client.get("/api/v1/people?limit=2"))
    answer(client.delete("/api/v1/people/Bob"), 202)
    second = answer(client.get(f"/api/v1/people?limit=2&cursor={first['next']}"))
    assert [each["name"] for each in first["people"] + second["people"]] == ["Ada", "Bob", "Cyd", "Dan"]
    assert second["next"] is None


def test_pages_of_photos_list_each_once(client: FlaskClient) -> None:
    """In the order of their ids."""
    ids = {enrol(client, "Jane", photo("Jane", take=take))["id"] for take in range(3)}
    first = answer(client.get("/api/v1/people/Jane/photos?limit=2"))
    second = answer(client.get(f"/api/v1/people/Jane/photos?cursor={first['next']}"))
    assert {each["id"] for each in first["photos"] + second["photos"]} == ids
    assert (len(first["photos"]), len(second["photos"]), second["next"]) == (2, 1, None)


def test_people_are_renamed_merged_and_unmerged(client: FlaskClient) -> None:
    """A name that is taken is refused, with the advice to merge."""
    enrol(client, "Jane", photo("Jane"))
    enrol(client, "Joan", photo("Jane", take=1))
    assert answer(client.patch("/api/v1/people/Jane", json={"name": "Jane Smith"}))["name"] == "Jane Smith"
    assert "merge" in answer(client.patch("/api/v1/people/Joan", json={"name": "Jane Smith"}), 409)["message"]
    merged = answer(client.post("/api/v1/people/Joan/merge", json={"into": "Jane Smith"}))
    assert (merged["photos"], names(client)) == (1, ["Jane Smith"])
    assert answer(client.post("/api/v1/people/Joan/unmerge"))["merge_id"] == merged["merge_id"]
    assert names(client) == ["Jane Smith", "Joan"]
    answer(client.post("/api/v1/people/Joan/unmerge"), 404)


def test_removed_photo_and_person_are_erased(client: FlaskClient, tier: FakeWebTier) -> None:
    """At once from the gallery; a ledger says what else is owed."""
    enrolled = enrol(client, "Jane", photo("Jane"))
    enrol(client, "Jane", photo("Jane", take=1))
    answer(client.delete(f"/api/v1/photos/{enrolled['id']}"), 202)
    answer(client.get(f"/api/v1/photos/{enrolled['id']}"), 404)
    assert answer(client.get("/api/v1/people/Jane"))["photos"] == 1
    response = client.delete("/api/v1/people/Jane")
    begun = answer(response, 202)
    answer(client.delete("/api/v1/people/Jane"), 404)
    assert not tier.store.keys(tier.settings.gallery_bucket)
    ledger = client.get(response.headers["Location"])
    assert answer(ledger)["erasure_id"] == begun["erasure_id"]
    assert {place["state"] for place in answer(ledger)["places"]} >= {"confirmed"}
    assert "Jane" not in ledger.text
    answer(client.get(f"/api/v1/erasures/{ABSENT}"), 404)


def test_erasure_has_a_signed_receipt(tmp_path: Path) -> None:
    """If the operator has set a key; it says what is still owed, too."""
    key = SigningKey.create(tmp_path / "key.pem")
    signing = Settings(erasure=ErasureSettings(signing_key=tmp_path / "key.pem"))
    for settings, status in ((signing, 200), (Settings(), 404)):
        tier = FakeWebTier(settings)
        tier.templates.add(make_template(1, "Jane"))
        client = tier.app.test_client()
        begun = answer(client.delete("/api/v1/people/Jane"), 202)
        receipt = client.get(f"/api/v1/erasures/{begun['erasure_id']}/receipt")
        assert receipt.status_code == status
        answer(client.get(f"/api/v1/erasures/{ABSENT}/receipt"), 404)
        if status == 200:
            found = verified(receipt.get_data(), key.public_pem.encode())
            assert found.is_about("Jane", begun["subject_key"])
            assert found.content["still_owed"]


@pytest.mark.parametrize("content", [None, b"no key"])
def test_receipt_without_a_usable_key_is_unavailable(tmp_path: Path, content: bytes | None) -> None:
    """Where the operator has set a file that is missing or has no key; its path stays in the log."""
    file = tmp_path / "key.pem"
    if content is not None:
        file.write_bytes(content)
    tier = FakeWebTier(Settings(erasure=ErasureSettings(signing_key=file)))
    tier.templates.add(make_template(1, "Jane"))
    client = tier.app.test_client()
    begun = answer(client.delete("/api/v1/people/Jane"), 202)
    response = client.get(f"/api/v1/erasures/{begun['erasure_id']}/receipt")
    assert str(tmp_path) not in answer(response, 503)["message"]
    assert response.headers["Retry-After"]


def test_rejected_face_does_not_get_the_name_again(client: FlaskClient) -> None:
    """Neither that of a photo nor that of an earlier request."""
    enrol(client, "Jane", photo("Jane"))
    found = answer(send(client, "recognise", photo("Jane", take=1)))
    assert found["result"] == "Jane"
    rejected = answer(client.post("/api/v1/people/Jane/not", json={"request_id": found["request_id"]}))
    assert (rejected["name"], rejected["face"]) == ("Jane", 0)
    assert answer(send(client, "recognise", photo("Jane", take=1)))["result"] == "Unknown"
    assert answer(send(client, "recognise", photo("Jane")))["result"] == "Jane"
    answer(send(client, "people/Jane/not?face=1", photo("Jane", take=2)), 422)
    answer(send(client, "people/Jane/not", photo("Jane", take=2)))
    assert answer(send(client, "recognise", photo("Jane", take=2)))["result"] == "Unknown"


def test_name_with_slashes_is_a_name(client: FlaskClient) -> None:
    """Escaped or not."""
    enrol(client, "R%2FD//Lab", photo("Jane"))
    assert answer(client.get("/api/v1/people/R/D%2F%2FLab"))["name"] == "R/D//Lab"
    # The routes below a person are no people.
    for part in ("photos", "merge", "unmerge", "not"):
        answer(client.patch(f"/api/v1/people/R/{part}", json={"name": "B"}), 405)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "hint"),
    [
        ("GET", "people/Nobody", None, 404, "Nobody"),
        ("GET", "people/Nobody/photos", None, 404, "Nobody"),
        ("GET", "people?limit=0", None, 400, "limit"),
        ("GET", "people?limit=1001", None, 400, "limit"),
        ("GET", "people?cursor=_", None, 400, "cursor"),
        ("GET", "people?page=2", None, 400, "page"),
        ("GET", "photos/first", None, 404, "first"),
        ("DELETE", f"photos/{ABSENT}", None, 404, "no photo"),
        ("POST", "people", {}, 400, "name"),
        ("POST", "people", {"name": 7}, 400, "name"),
        ("POST", "people", {"name": "Unknown"}, 400, "stands for no person"),
        ("POST", "people", {"name": "A", "age": 7}, 400, "age"),
        ("POST", "people/Nobody/merge", {"into": "A"}, 404, "Nobody"),
        ("PATCH", "people/Nobody", {"name": "A"}, 404, "Nobody"),
        ("POST", "people/A/not", {"request_id": str(ABSENT)}, 404, "no request"),
        ("POST", "people/A/not", {"request_id": "first"}, 404, "no request"),
        ("POST", "people/A/not", {}, 400, "photo"),
        ("PUT", "people/A", None, 405, "PUT"),
    ],
)
def test_wrong_request_is_an_error_with_a_code(
    client: FlaskClient, method: str, path: str, body: dict[str, Any] | None, status: int, hint: str
) -> None:
    """Of one form, and its message names what is wrong."""
    found = answer(client.open(f"/api/v1/{path}", method=method, json=body), status)
    assert found.keys() == {"message", "code"}
    assert hint in found["message"]


def test_deeply_nested_json_is_an_error(client: FlaskClient) -> None:
    """Not a fault of the server."""
    nested = b"[" * 100_000
    answer(client.post("/api/v1/people", data=nested, content_type="application/json"), 400)


def test_unreachable_store_is_503_with_the_time_to_wait(client: FlaskClient, tier: FakeWebTier) -> None:
    """And names no server."""
    tier.templates.outage = Transient("dynamodb.example.org refused")
    response = client.get("/api/v1/people")
    assert "example" not in answer(response, 503)["message"]
    assert int(response.headers["Retry-After"]) > 0


def test_people_need_the_scope_enrol_and_their_own_collection() -> None:
    """A key sees nobody of another collection."""
    keys = {
        name: issue(name, [scope], now=datetime.now(UTC), collection=collection)
        for name, scope, collection in [
            ("staff", Scope.ENROL, "staff"),
            ("guests", Scope.ENROL, "guests"),
            ("door", Scope.RECOGNISE, "staff"),
        ]
    }
    with running(FakeWebTier(working=True, keys=InMemoryApiKeys(*(key for key, _ in keys.values())))) as tier:
        client = tier.app.test_client()
        own = {name: {"x-api-key": token.reveal()} for name, (_, token) in keys.items()}
        enrolled = answer(send(client, "people/Jane/photos", photo("Jane"), headers=own["staff"]), 201)
        answer(client.get("/api/v1/people", headers=own["door"]), 403)
        answer(send(client, "people/Jane/photos", photo("Jane"), headers=own["door"]), 403)
        assert answer(client.get("/api/v1/people", headers=own["guests"]))["people"] == []
        answer(client.get(f"/api/v1/photos/{enrolled['id']}", headers=own["guests"]), 404)
        answer(client.get("/api/v1/people?collection=staff", headers=own["guests"]), 403)
        answer(client.get(f"/api/v1/results/{enrolled['request_id']}", headers=own["guests"]), 404)
        answer(send(client, "recognise", photo("Jane"), headers=own["staff"]), 403)
        found = answer(send(client, "recognise", photo("Jane"), headers=own["door"]))
        assert found["result"] == "Jane"
        other = {"request_id": found["request_id"]}
        answer(client.post("/api/v1/people/Jane/not", json=other, headers=own["staff"]), 404)


def test_collection_is_used_by_the_key_that_created_it() -> None:
    """Over Rekognition's API; people, photos, erasures and jobs of it are the key's, and no other key's."""
    keys = [issue(name, [Scope.ENROL, Scope.RECOGNISE], now=datetime.now(UTC)) for name in ("owner", "other")]
    with running(FakeWebTier(working=True, keys=InMemoryApiKeys(*(key for key, _ in keys)))) as tier:
        client = tier.app.test_client()
        owner, other = ({"x-api-key": token.reveal()} for _, token in keys)
        tier.collections.create(CollectionRecord("friends", keys[0][0].key_id, datetime.now(UTC)))
        enrolled = answer(send(client, "people/Jane/photos?collection=friends", photo("Jane"), headers=owner), 201)
        found = answer(send(client, "recognise?collection=friends", photo("Jane"), headers=owner))
        assert found["result"] == "Jane"
        picture = f"/api/v1/photos/{enrolled['id']}?collection=friends"
        assert client.get(picture, headers=owner).status_code == 200
        answer(send(client, "jobs?collection=friends", photo("Jane"), headers=owner), 202)
        begun = answer(client.delete("/api/v1/people/Jane?collection=friends", headers=owner), 202)
        erasure = f"/api/v1/erasures/{begun['erasure_id']}"
        assert answer(client.get(erasure, headers=owner))["collection"] == "friends"
        answer(client.get(erasure, headers=other), 404)
        for path in ("/api/v1/people?collection=friends", picture):
            answer(client.get(path, headers=other), 403)
        for path in ("recognise", "jobs", "people/Jane/photos"):
            answer(send(client, f"{path}?collection=friends", photo("Jane"), headers=other), 403)


def test_photo_to_enrol_may_be_base64(client: FlaskClient) -> None:
    """As in every request with a photo."""
    body = {"photo": b64encode(photo("Jane")).decode(), "filename": "jane.jpg"}
    assert answer(client.post("/api/v1/people/Jane/photos", json=body), 201)["name"] == "Jane"
