"""CompreFace's calls about subjects and faces, through the application on fakes."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from flask.testing import FlaskClient

from facerec.api_keys import Scope, issue
from facerec.errors import Transient
from tests.fakes.api_keys import InMemoryApiKeys
from tests.fakes.templates import make_template
from tests.fakes.web_tier import FakeWebTier, picture

API = "/api/v1/recognition"


def image_id(number: int) -> str:
    """The id of the face `make_template(number)` in CompreFace's form."""
    return str(UUID(f"{number:032x}"))


def enrol(tier: FakeWebTier, number: int, name: str, collection: str = "default") -> None:
    """Enrol `make_template(number)`, with its photo."""
    template = make_template(number, name, collection)
    assert template.photo is not None
    photo = template.photo.model_copy(update={"bucket": tier.settings.gallery_bucket})
    tier.store.put(photo.bucket, photo.key, picture("PNG"), "image/png")
    tier.templates.add(replace(template, photo=photo))


def photos(tier: FakeWebTier) -> int:
    """How many photos are kept."""
    return len(tier.store.keys(tier.settings.gallery_bucket))


@pytest.fixture
def tier() -> FakeWebTier:
    """A web tier with two photos of Ada and one of Jane, which no worker answers."""
    tier = FakeWebTier()
    for number, name in ((1, "Ada Lovelace"), (2, "Ada Lovelace"), (3, "Jane")):
        enrol(tier, number, name)
    return tier


@pytest.fixture
def client(tier: FakeWebTier) -> FlaskClient:
    """Its client."""
    return tier.app.test_client()


def names(client: FlaskClient) -> Any:
    """The subjects that are listed."""
    return client.get(f"{API}/subjects").get_json()["subjects"]


def error(response: Any) -> tuple[int, int]:
    """Status and code of an error, which has a sentence."""
    assert response.get_json()["message"]
    return response.status_code, response.get_json()["code"]


def test_subject_without_a_face_is_listed(client: FlaskClient) -> None:
    """Until it is removed; a face comes later or never."""
    added = client.post(f"{API}/subjects", json={"subject": " Grace  Hopper "})
    assert (added.status_code, added.get_json()) == (201, {"subject": "Grace Hopper"})
    assert names(client) == ["Ada Lovelace", "Grace Hopper", "Jane"]
    assert client.delete(f"{API}/subjects/grace hopper").get_json() == {"subject": "Grace Hopper"}
    assert names(client) == ["Ada Lovelace", "Jane"]


@pytest.mark.parametrize("name", ["Jane", "jane", "Grace"])
def test_existing_subject_is_not_added_twice(client: FlaskClient, name: str) -> None:
    """With a face or without, in any case: code 43."""
    client.post(f"{API}/subjects", json={"subject": "Grace"})
    assert error(client.post(f"{API}/subjects", json={"subject": name})) == (400, 43)


@pytest.mark.parametrize("body", [b"", b"no JSON", b"[]", b"{}", b'{"subject": 1}', b'{"subject": ""}', b"[" * 100_000])
def test_subject_needs_a_name(client: FlaskClient, body: bytes) -> None:
    """Wrong bodies get a sentence, not a fault."""
    response = client.post(f"{API}/subjects", data=body, content_type="application/json")
    assert response.status_code == 400
    assert response.get_json()["message"]


def test_reserved_word_is_no_subject(client: FlaskClient) -> None:
    """An answer uses it for nobody."""
    assert error(client.post(f"{API}/subjects", json={"subject": "Unknown"})) == (400, 26)


def test_subject_is_renamed_with_its_faces(tier: FakeWebTier, client: FlaskClient) -> None:
    """The SDK sends the old name twice, and does not escape a slash in it."""
    reply = client.put(f"{API}/subjects/Jane", json={"subject": "A/B C", "api_endpoint": "Jane"})
    assert (reply.status_code, reply.get_json()) == (200, {"updated": True})
    assert names(client) == ["A/B C", "Ada Lovelace"]
    assert client.put(f"{API}/subjects/A/B%20C", json={"subject": "Jane"}).get_json() == {"updated": True}
    assert set(tier.templates.owners("default").values()) == {"Ada Lovelace", "Jane"}


def test_subject_renamed_to_an_existing_name_is_merged(tier: FakeWebTier, client: FlaskClient) -> None:
    """The faces go to the other; the merge can be taken back with `facerec people unmerge`."""
    assert client.put(f"{API}/subjects/jane", json={"subject": "ada lovelace"}).get_json() == {"updated": True}
    assert set(tier.templates.owners("default").values()) == {"Ada Lovelace"}
    assert [record.source for record in tier.records.merges("default")] == ["Jane"]


def test_subject_without_a_face_is_renamed(client: FlaskClient) -> None:
    """Its name is all it has."""
    client.post(f"{API}/subjects", json={"subject": "Grace"})
    assert client.put(f"{API}/subjects/Grace", json={"subject": "Grace Hopper"}).get_json() == {"updated": True}
    assert names(client) == ["Ada Lovelace", "Grace Hopper", "Jane"]


@pytest.mark.parametrize("new", ["", "Jane"])
def test_rename_to_nothing_new_changes_nothing(client: FlaskClient, new: str) -> None:
    """CompreFace answers `false`."""
    assert client.put(f"{API}/subjects/Jane", json={"subject": new}).get_json() == {"updated": False}


def test_unknown_subject_is_404(client: FlaskClient) -> None:
    """Code 42."""
    assert error(client.put(f"{API}/subjects/Nobody", json={"subject": "Somebody"})) == (404, 42)
    assert error(client.delete(f"{API}/subjects/Nobody")) == (404, 42)


def test_removed_subject_takes_its_faces_and_photos_along(tier: FakeWebTier, client: FlaskClient) -> None:
    """The others stay."""
    assert client.delete(f"{API}/subjects/Ada%20Lovelace").get_json() == {"subject": "Ada Lovelace"}
    assert list(tier.templates.owners("default").values()) == ["Jane"]
    assert photos(tier) == 1


def test_all_subjects_are_removed(tier: FakeWebTier, client: FlaskClient) -> None:
    """Also those without a face; the reply has their number."""
    client.post(f"{API}/subjects", json={"subject": "Grace"})
    assert client.delete(f"{API}/subjects").get_json() == {"deleted": 3}
    assert names(client) == []
    assert photos(tier) == 0


def test_removals_are_erasures(tier: FakeWebTier, client: FlaskClient) -> None:
    """The ledger has each, with who asked for it."""
    client.delete(f"{API}/subjects/Jane")
    client.delete(f"{API}/faces/{image_id(1)}")
    records = tier.erasures.ledger.open()
    assert [record.names for record in records] == [("Jane",), ()]
    assert {record.by for record in records} == {"127.0.0.1"}


def test_face_that_is_added_after_a_removal_of_all_stays(tier: FakeWebTier, client: FlaskClient) -> None:
    """Also while the ledger of many faces is still worked off."""
    for number in range(10, 240):
        enrol(tier, number, f"Person {number % 50}")
    assert client.delete(f"{API}/subjects").get_json() == {"deleted": 52}
    assert (names(client), photos(tier)) == ([], 0)
    enrol(tier, 10, "Ada Lovelace")
    tier.erasures.make("another").work_due()
    assert (names(client), photos(tier)) == (["Ada Lovelace"], 1)


def test_faces_are_listed_by_page(client: FlaskClient) -> None:
    """Every face once; `page_size` is the requested one."""
    pages = [client.get(f"{API}/faces?page={page}&size=2").get_json() for page in range(3)]
    assert [face for page in pages for face in page["faces"]] == [
        {"image_id": image_id(1), "subject": "Ada Lovelace"},
        {"image_id": image_id(2), "subject": "Ada Lovelace"},
        {"image_id": image_id(3), "subject": "Jane"},
    ]
    assert {key: pages[1][key] for key in pages[1] if key != "faces"} == {
        "page_number": 1,
        "page_size": 2,
        "total_pages": 2,
        "total_elements": 3,
    }


def test_huge_page_is_empty(client: FlaskClient) -> None:
    """It costs nothing, whatever its number."""
    reply = client.get(f"{API}/faces?page={10**40}&size={10**40}")
    assert reply.status_code == 200
    assert reply.get_json()["faces"] == []
    assert reply.get_json()["total_elements"] == 3


@pytest.mark.parametrize("query", ["page=-1", "size=0", "page=one", "size=1.5"])
def test_wrong_page_is_refused(client: FlaskClient, query: str) -> None:
    """With a sentence that says what a page is."""
    assert error(client.get(f"{API}/faces?{query}")) == (400, 26)


def test_faces_of_one_subject_are_listed(client: FlaskClient) -> None:
    """A newer parameter of CompreFace; an unknown subject has none."""
    found = client.get(f"{API}/faces?subject=ada%20lovelace&size=1&page=1").get_json()
    assert found["faces"] == [{"image_id": image_id(2), "subject": "Ada Lovelace"}]
    assert found["total_elements"] == 2
    assert client.get(f"{API}/faces?subject=Nobody").get_json()["faces"] == []


def test_photo_is_shown(tier: FakeWebTier, client: FlaskClient) -> None:
    """As it was enrolled, with the type that its header has."""
    for identifier in (image_id(1), image_id(1).replace("-", ""), image_id(1).upper()):
        reply = client.get(f"{API}/faces/{identifier}/img")
        assert (reply.status_code, reply.content_type) == (200, "image/png")
        assert reply.data == picture("PNG")
        assert reply.headers["X-Content-Type-Options"] == "nosniff"


def test_photo_that_was_not_kept_is_404(tier: FakeWebTier, client: FlaskClient) -> None:
    """Imported without it, or lost: code 11."""
    tier.templates.add(replace(make_template(4), photo=None))
    tier.templates.add(make_template(5))
    for number in (4, 5):
        assert error(client.get(f"{API}/faces/{image_id(number)}/img")) == (404, 11)


def test_face_is_removed_by_its_id(tier: FakeWebTier, client: FlaskClient) -> None:
    """The reply says whose it was; then it is unknown."""
    removed = client.delete(f"{API}/faces/{image_id(1)}")
    assert (removed.status_code, removed.get_json()) == (200, {"image_id": image_id(1), "subject": "Ada Lovelace"})
    assert error(client.delete(f"{API}/faces/{image_id(1)}")) == (404, 44)
    assert photos(tier) == 2


@pytest.mark.parametrize("unknown", [image_id(9), "not-an-id", "0" * 33, "{" + image_id(1) + "}"])
def test_unknown_face_is_404(client: FlaskClient, unknown: str) -> None:
    """Code 44, for removing, showing and verifying."""
    assert error(client.delete(f"{API}/faces/{unknown}")) == (404, 44)
    assert error(client.get(f"{API}/faces/{unknown}/img")) == (404, 44)
    assert error(client.post(f"{API}/faces/{unknown}/verify")) == (404, 44)


def test_listed_faces_are_removed(tier: FakeWebTier, client: FlaskClient) -> None:
    """The reply lists those that there were."""
    listed = [image_id(3), image_id(9), "not-an-id", 7, image_id(1), image_id(3)]
    assert client.post(f"{API}/faces/delete", json=listed).get_json() == [
        {"image_id": image_id(1), "subject": "Ada Lovelace"},
        {"image_id": image_id(3), "subject": "Jane"},
    ]
    assert list(tier.templates.owners("default")) == [f"{2:032x}"]
    assert error(client.post(f"{API}/faces/delete", json={"ids": []})) == (400, 0)


def test_all_faces_of_a_subject_are_removed_with_it(client: FlaskClient) -> None:
    """As CompreFace does it; a subject that there is not has none."""
    assert client.delete(f"{API}/faces?subject=Ada%20Lovelace").get_json() == {"deleted": 2}
    assert client.delete(f"{API}/faces?subject=Ada%20Lovelace").get_json() == {"deleted": 0}
    assert names(client) == ["Jane"]


@pytest.mark.parametrize("query", ["", "?subject="])
def test_faces_of_everybody_are_removed_without_a_subject(client: FlaskClient, query: str) -> None:
    """As CompreFace does it."""
    assert client.delete(f"{API}/faces{query}").get_json() == {"deleted": 3}
    assert names(client) == []


def test_outage_is_503(tier: FakeWebTier, client: FlaskClient) -> None:
    """With the time after which to try again."""
    tier.templates.outage = Transient("no DynamoDB")
    reply = client.get(f"{API}/subjects")
    assert error(reply) == (503, 0)
    assert int(reply.headers["Retry-After"]) > 0


@pytest.fixture
def keyed() -> tuple[FakeWebTier, dict[str, dict[str, str]]]:
    """A web tier that asks for keys, and the headers of some: of two collections, and with one scope each."""
    now, store, headers = datetime.now(UTC), InMemoryApiKeys(), {}
    for name, scopes, collection in (
        ("staff", [Scope.RECOGNISE, Scope.ENROL], "staff"),
        ("guests", [Scope.RECOGNISE, Scope.ENROL], "guests"),
        ("kiosk", [Scope.RECOGNISE], "staff"),
        ("importer", [Scope.ENROL], "staff"),
    ):
        key, token = issue(name, scopes, now=now, collection=collection)
        store.put(key)
        headers[name] = {"x-api-key": token.reveal()}
    tier = FakeWebTier(keys=store)
    enrol(tier, 1, "Ada", "staff")
    return tier, headers


def test_collection_is_the_keys(keyed: tuple[FakeWebTier, dict[str, dict[str, str]]]) -> None:
    """Another key neither lists, shows, changes nor removes its people."""
    tier, headers = keyed
    client, guests = tier.app.test_client(), headers["guests"]
    assert client.get(f"{API}/subjects", headers=headers["staff"]).get_json() == {"subjects": ["Ada"]}
    assert client.get(f"{API}/subjects", headers=guests).get_json() == {"subjects": []}
    assert client.get(f"{API}/faces", headers=guests).get_json()["total_elements"] == 0
    assert error(client.get(f"{API}/faces/{image_id(1)}/img", headers=guests)) == (404, 44)
    assert error(client.delete(f"{API}/faces/{image_id(1)}", headers=guests)) == (404, 44)
    assert error(client.put(f"{API}/subjects/Ada", json={"subject": "Eve"}, headers=guests)) == (404, 42)
    assert client.delete(f"{API}/subjects", headers=guests).get_json() == {"deleted": 0}
    assert client.get(f"{API}/faces/{image_id(1)}/img", headers=headers["staff"]).status_code == 200


def test_missing_key_has_the_code_of_compreface(keyed: tuple[FakeWebTier, dict[str, dict[str, str]]]) -> None:
    """20, with its status; a wrong key has code 10."""
    client = keyed[0].app.test_client()
    for method, path in (
        ("GET", "recognition/subjects"),
        ("POST", "detection/detect"),
        ("POST", "verification/verify"),
    ):
        assert error(client.open(f"/api/v1/{path}", method=method)) == (400, 20)
    assert error(client.get(f"{API}/subjects", headers={"x-api-key": "wrong"})) == (401, 10)


@pytest.mark.parametrize(
    ("method", "path", "holder", "status"),
    [
        ("GET", "subjects", "kiosk", 200),
        ("GET", "faces", "kiosk", 200),
        ("POST", "subjects", "kiosk", 403),
        ("PUT", "subjects/Ada", "kiosk", 403),
        ("DELETE", "subjects/Ada", "kiosk", 403),
        ("DELETE", "subjects", "kiosk", 403),
        ("POST", "faces?subject=Ada", "kiosk", 403),
        ("DELETE", "faces", "kiosk", 403),
        ("POST", "faces/delete", "kiosk", 403),
        ("GET", f"faces/{image_id(1)}/img", "kiosk", 403),
        ("GET", f"faces/{image_id(1)}/img", "importer", 200),
        ("POST", "recognize", "importer", 403),
        ("POST", f"faces/{image_id(1)}/verify", "importer", 403),
    ],
)
def test_scope_decides(
    keyed: tuple[FakeWebTier, dict[str, dict[str, str]]], method: str, path: str, holder: str, status: int
) -> None:
    """`recognise` asks about photos and lists; `enrol` changes people and reads their photos."""
    tier, headers = keyed
    reply = tier.app.test_client().open(f"{API}/{path}", method=method, headers=headers[holder])
    assert reply.status_code == status
