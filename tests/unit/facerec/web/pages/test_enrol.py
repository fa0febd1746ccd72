"""Enrolment on the page: what a check says, and what is stored only after it."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO
from uuid import uuid4

import pytest
from werkzeug.test import TestResponse

from facerec.api_keys import Scope, issue
from facerec.gallery.people import People
from facerec.settings import Settings
from facerec.settings.tiers import UnknownSettings
from tests.fakes.api_keys import InMemoryApiKeys
from tests.fakes.drawn_faces import DrawnFace, photo
from tests.fakes.web_tier import FakeWebTier, running

ADA, GRACE, MARY = "Ada Lovelace", "Grace Hopper", "Mary Jackson"


class Desk:
    """A reader at the page."""

    def __init__(self, tier: FakeWebTier) -> None:
        self.tier = tier
        self.client = tier.app.test_client()
        self.headers = {"HX-Request": "true"}
        self.persons = People(enrolled=tier.templates, records=tier.records, photos=tier.store)

    def check(self, picture: bytes, name: str = ADA, filename: str = "a.jpg") -> TestResponse:
        """Choose a photo."""
        data = {"name": name, "file": (BytesIO(picture), filename)}
        return self.client.post("/enrol/check", data=data, headers=self.headers)

    def save(self, checked: TestResponse, name: str = ADA, **fields: object) -> TestResponse:
        """Press a button of a checked photo."""
        data = {"request_id": checked.headers["X-Request-Id"], "name": name, **fields}
        return self.client.post("/enrol/save", data=data, headers=self.headers)

    def enrolled(self, name: str, picture: bytes) -> None:
        """Enrol a photo."""
        assert state(self.save(self.check(picture, name), name)) == "saved"

    def people(self) -> dict[str, int]:
        """How many photos each person has."""
        return {person.name: person.templates for person in self.persons.persons("default")}


def state(response: TestResponse) -> str:
    """What the page shows of a photo."""
    assert response.status_code == 200, response.text
    found = re.search(r'data-state="(\w+)"', response.text)
    assert found is not None
    return found[1]


def names_in_forms(response: TestResponse, field: str) -> list[str]:
    """The values of the hidden fields of a name."""
    return re.findall(rf'name="{field}" value="([^"]*)"', response.text)


@pytest.fixture
def desk() -> Iterator[Desk]:
    """A desk of a site that keeps unknown people."""
    settings = Settings(unknown=UnknownSettings(collections=("*",)))
    with running(FakeWebTier(settings, working=True)) as tier:
        yield Desk(tier)


@pytest.mark.parametrize(
    ("faces", "expected"),
    [
        ([], "none"),
        ([ADA], "good"),
        ([ADA, GRACE], "several"),
        ([DrawnFace(ADA, side=300), DrawnFace(GRACE, side=60)], "good"),
        ([DrawnFace(ADA, side=10)], "poor"),
        ([DrawnFace(ADA, quality=0.2)], "poor"),
    ],
    ids=str,
)
def test_check_shows_what_a_photo_is_good_for_and_stores_nothing(
    desk: Desk, faces: list[str | DrawnFace], expected: str
) -> None:
    """Nor is the face of somebody who is to be enrolled an unknown person."""
    assert state(desk.check(photo(*faces))) == expected
    assert desk.people() == {}
    assert list(desk.tier.unknown.records("default")) == []


def test_photo_is_sent_once_and_enrolled_from_the_request_of_its_check(desk: Desk) -> None:
    """The person's photo is the one that was checked."""
    checked = desk.check(photo(ADA), filename="ada.jpg")
    saved = desk.save(checked)
    assert state(saved) == "saved"
    assert f"Enrolled for {ADA}" in saved.text
    (entry,) = desk.persons.person("default", ADA).entries
    assert entry.source == "ada.jpg"
    assert desk.persons.photo(entry) == photo(ADA)
    assert f"Was enrolled for {ADA} before" in desk.save(checked).text


def test_look_alike_is_named_before_anything_is_stored(desk: Desk) -> None:
    """Also if the name was changed after the check; then the photo goes to either of the two."""
    desk.enrolled(ADA, photo(ADA))
    checked = desk.check(photo(ADA, take=1), ADA)
    assert state(checked) == "good"
    warned = desk.save(checked, "Augusta King")
    assert state(warned) == "look_alike"
    assert names_in_forms(warned, "instead") == names_in_forms(warned, "confirmed") == [ADA]
    assert desk.people() == {ADA: 1}
    assert state(desk.save(checked, "Augusta King", confirmed=ADA)) == "saved"
    assert state(desk.save(desk.check(photo(ADA, take=2), GRACE), GRACE, instead=ADA)) == "saved"
    assert desk.people() == {ADA: 2, "Augusta King": 1}


def test_photo_that_is_enrolled_already_is_said_to_be(desk: Desk) -> None:
    """For this or for another name; saving it under another name is refused."""
    desk.enrolled(ADA, photo(ADA))
    assert state(desk.check(photo(ADA), "ada  LOVELACE")) == "duplicate"
    other = desk.check(photo(ADA), GRACE)
    assert state(other) == "other_name"
    assert ADA in other.text
    refused = desk.save(other, GRACE)
    assert (refused.status_code, refused.mimetype) == (422, "text/plain")
    assert ADA in refused.text
    assert desk.people() == {ADA: 1}


def test_poor_photo_is_enrolled_if_the_reader_insists(desk: Desk) -> None:
    """The reasons are shown before."""
    checked = desk.check(photo(DrawnFace(ADA, quality=0.2)))
    assert "Poor quality: blurred" in checked.text
    assert state(desk.save(checked)) == "poor"
    assert desk.people() == {}
    assert state(desk.save(checked, force="1")) == "saved"
    assert desk.people() == {ADA: 1}


def test_each_face_of_a_photo_can_be_enrolled(desk: Desk) -> None:
    """The one that the reader chooses."""
    checked = desk.check(photo(ADA, GRACE), GRACE)
    assert state(desk.save(checked, GRACE)) == "several"
    path = f"/enrol/photo/{checked.headers['X-Request-Id']}"
    chosen = desk.client.get(f"{path}?face=1&name={GRACE}")
    assert state(chosen) == "good"
    assert names_in_forms(chosen, "face") == ["1"]
    assert state(desk.save(checked, GRACE, face="1")) == "saved"
    assert state(desk.save(checked, ADA, face="0")) == "saved"
    assert desk.people() == {ADA: 1, GRACE: 1}
    found = desk.client.post("/", data={"inputFile": (BytesIO(photo(GRACE, take=1)), "b.jpg")})
    assert found.text == f"b.jpg: face detected - {GRACE}"


def test_photo_of_an_earlier_recognition_can_be_enrolled(desk: Desk) -> None:
    """The page shows it, and it is checked without an upload."""
    upload = desk.client.post("/", data={"inputFile": (BytesIO(photo(ADA, GRACE)), "a.jpg")})
    earlier = upload.headers["X-Request-Id"]
    assert f'value="{earlier}"' in desk.client.get(f"/enrol?request_id={earlier}&face=1").text
    assert desk.client.get(f"/recognise/{earlier}/photo").data == photo(ADA, GRACE)
    checked = desk.client.post("/enrol/check", data={"request_id": earlier, "face": "1", "name": GRACE})
    assert state(checked) == "good"
    assert state(desk.save(checked, GRACE, face="1")) == "saved"


@pytest.mark.parametrize(
    ("name", "shown"),
    [("", ""), (ADA.upper(), f"{ADA} is enrolled already"), (GRACE, "is a new person"), ("Unknown", "stands for no")],
)
def test_name_is_judged_while_it_is_typed(desk: Desk, name: str, shown: str) -> None:
    """An invalid one is refused with the same sentence."""
    desk.enrolled(ADA, photo(ADA))
    answer = desk.client.get("/enrol/name", query_string={"name": name})
    assert answer.status_code == 200
    assert shown in answer.text
    if name != GRACE:
        saved = desk.save(desk.check(photo(GRACE)), name)
        assert (saved.status_code == 400) == (name != ADA.upper())


def test_names_of_people_are_suggested(desk: Desk) -> None:
    """Those that contain what was typed."""
    for name in (ADA, GRACE):
        desk.enrolled(name, photo(name))
    answer = desk.client.get("/enrol/name?name=love")
    assert re.findall(r'<option value="([^"]*)"', answer.text) == [ADA]


@pytest.mark.parametrize(("body", "status"), [(b"", 400), (b"no picture", 415)])
def test_file_that_is_no_photo_is_refused_with_a_sentence(desk: Desk, body: bytes, status: int) -> None:
    """The page shows it beside the photo."""
    data = {"file": (BytesIO(body), "notes.jpg")}
    answer = desk.client.post("/enrol/check", data=data, headers={"HX-Request": "true"})
    assert (answer.status_code, answer.mimetype) == (status, "text/plain")


def test_check_that_has_expired_is_said_to_have(desk: Desk) -> None:
    """A recognition is no check."""
    upload = desk.client.post("/", data={"inputFile": (BytesIO(photo(ADA)), "a.jpg")})
    for request_id in (uuid4(), upload.headers["X-Request-Id"]):
        assert desk.client.get(f"/enrol/photo/{request_id}").status_code == 404
    assert desk.client.post("/enrol/save", data={"request_id": str(uuid4()), "name": ADA}).status_code == 404


def test_check_of_another_key_is_not_shown() -> None:
    """Nor is its photo, nor can it be saved; and enrolment needs its scope."""
    (owner, token), (other, others), (reader, readers) = (
        issue(name, [scope], now=datetime.now(UTC))
        for name, scope in (("desk", Scope.ENROL), ("gate", Scope.ENROL), ("door", Scope.RECOGNISE))
    )
    with running(FakeWebTier(keys=InMemoryApiKeys(owner, other, reader), working=True)) as tier:
        desk, stranger, visitor = Desk(tier), Desk(tier), Desk(tier)
        for one, key in ((desk, token), (stranger, others), (visitor, readers)):
            one.headers |= tier.sign_in(one.client, key)
        checked = desk.check(photo(ADA))
        assert state(checked) == "good"
        checked_id = checked.headers["X-Request-Id"]
        paths = (f"/enrol/photo/{checked_id}", f"/recognise/{checked_id}/photo")
        assert [desk.client.get(each).status_code for each in paths] == [200, 200]
        assert [stranger.client.get(each).status_code for each in paths] == [404, 404]
        assert stranger.save(checked).status_code == 404
        assert [visitor.check(photo(ADA)).status_code, visitor.client.get("/enrol").status_code] == [403, 403]
        assert desk.people() == {}
        assert state(desk.save(checked)) == "saved"
