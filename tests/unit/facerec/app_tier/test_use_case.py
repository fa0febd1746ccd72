"""The app tier's use case with fakes: each operation, its refusals, and a second delivery."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TypeVar
from uuid import UUID, uuid4

import numpy as np
import pytest

from facerec.app_tier.use_case import AppTier
from facerec.comparison import ModelThresholds
from facerec.errors import Transient
from facerec.gallery.cache import GalleryCache
from facerec.message_base import ObjectRef
from facerec.messages import Outcome, RecognitionRequest, RecognitionResult, Refusal
from facerec.object_keys import input_key
from facerec.operations import (
    CheckEnrolment,
    Compare,
    Detect,
    Enrol,
    Operation,
    Recognise,
    Reject,
    SearchTemplate,
    Verify,
)
from tests.fakes.drawn_faces import DIMENSION, DrawnFace, DrawnFacesEngine, embedding, photo
from tests.fakes.object_store import InMemoryObjectStore
from tests.fakes.results import InMemoryQueues, InMemoryResultPublisher
from tests.fakes.templates import MODEL, OTHER_MODEL, InMemoryTemplateStore, make_template
from tests.support.tails import TAILS

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
T = TypeVar("T")
ADA, GRACE, MARY = "Ada Lovelace", "Grace Hopper", "Mary Jackson"


class World:
    """A use case with its stores, and a client's way to ask."""

    def __init__(self) -> None:
        self.store, self.templates = InMemoryObjectStore(), InMemoryTemplateStore()
        self.engine = DrawnFacesEngine()
        self.gallery = GalleryCache(self.templates, MODEL, 5, dimension=DIMENSION)
        self.queues = InMemoryQueues("responses")
        self.app_tier = AppTier(
            store=self.store,
            engine=self.engine,
            gallery=self.gallery,
            publisher=InMemoryResultPublisher(self.queues, "responses"),
            output_bucket="out",
            thresholds=ModelThresholds(TAILS["open"], 0.4, 0.01),
            templates=self.templates,
            gallery_bucket="gallery",
            min_face_pixels=40,
            min_quality=0.3,
        )

    def request(self, operation: Operation, picture: bytes = b"", **more: object) -> RecognitionRequest:
        """A request whose photo is stored."""
        request_id = uuid4()
        fields = {"collection": "staff", "submitted_at": NOW, "reply_to": "responses"} | more
        return RecognitionRequest.model_validate(
            fields
            | {"request_id": request_id, "filename": "a.jpg", "operation": operation}
            | {"input": self.stored(picture, input_key(request_id, "a.jpg"))}
        )

    def stored(self, picture: bytes, key: str = "second.jpg") -> ObjectRef:
        self.store.put("in", key, picture, "image/jpeg")
        return ObjectRef(bucket="in", key=key, size=len(picture))

    def ask(self, operation: Operation, picture: bytes = b"", **more: object) -> RecognitionResult:
        """Do one operation."""
        return self.app_tier.run(self.request(operation, picture, **more))

    def enrol(self, name: str | None, picture: bytes, **options: object) -> RecognitionResult:
        """Enrol a photo."""
        return self.ask(Enrol.model_validate({"identity": name, **options}), picture)

    def enrolled(self, name: str, take: int = 0) -> str:
        """Enrol one photo of a person; returns the id of its template."""
        (enrolment,) = self.enrol(name, photo(name, take=take)).enrolments
        assert enrolment.template_id is not None
        return enrolment.template_id


@pytest.fixture
def world() -> World:
    """A fresh world for each test."""
    return World()


def statuses(result: RecognitionResult) -> list[str]:
    """What became of each face."""
    return [each.status for each in result.enrolments]


def test_recognise_lists_the_nearest_people_whatever_their_similarity(world: World) -> None:
    """Matches are those at or above the threshold; each names its template."""
    template_id = world.enrolled(ADA)
    world.enrolled(GRACE)
    result = world.ask(Recognise(nearest=2), photo(ADA, take=1))
    assert (result.outcome, result.result, result.operation) == (Outcome.MATCH, ADA, "recognise")
    (face,) = result.faces
    assert [match.identity for match in face.matches] == [ADA]
    assert [match.identity for match in face.nearest] == [ADA, GRACE]
    assert face.nearest[0].template_id == template_id
    assert (result.width, result.height) == (640, 480)


def test_detect_compares_with_nobody(world: World) -> None:
    """Also where the person is enrolled; a picture without a face is done, too."""
    world.enrolled(ADA)
    result = world.ask(Detect(), photo(ADA, GRACE))
    assert (result.outcome, result.result, len(result.faces)) == (Outcome.DONE, "", 2)
    assert not any(face.matches or face.nearest for face in result.faces)
    assert result.faces[0].quality is not None
    assert world.ask(Detect(), photo()).faces == ()


def test_compare_takes_the_largest_face_of_the_source(world: World) -> None:
    """Each face of the target has its similarity to it."""
    source = photo(DrawnFace(GRACE, side=60), DrawnFace(ADA, side=120))
    target = world.stored(photo(GRACE, ADA, MARY, take=1, size=(800, 300)))
    result = world.ask(Compare(target=target), source)
    assert (result.outcome, result.operation) == (Outcome.DONE, "compare")
    assert [round(face.similarity or 0, 1) for face in result.faces] == [0, 0.9, 0]
    assert [face.box.x_max - face.box.x_min for face in result.source_faces] == [120, 60]
    assert (result.source_width, result.width, result.height) == (640, 800, 300)
    assert (result.threshold_source, result.identities) == ("model", 1)


def test_compare_without_a_face_has_no_similarity(world: World) -> None:
    """The fields say which photo has none."""
    result = world.ask(Compare(target=world.stored(photo(ADA))), photo())
    assert (result.outcome, result.source_faces) == (Outcome.DONE, ())
    assert [face.similarity for face in result.faces] == [None]


def test_compare_names_the_photo_that_is_none(world: World) -> None:
    """The detail is for the client."""
    result = world.ask(Compare(target=world.stored(b"text")), photo(ADA))
    assert result.outcome is Outcome.INVALID_IMAGE
    assert result.detail is not None
    assert result.detail.startswith("the second picture: ")


def test_verify_compares_each_face_with_one_template(world: World) -> None:
    """Whose template it is does not matter."""
    template_id = world.enrolled(ADA)
    result = world.ask(Verify(template_id=template_id), photo(GRACE, ADA))
    assert [round(face.similarity or 0, 2) for face in result.faces] == [0, 1]


def test_verify_compares_with_the_best_template_of_a_person(world: World) -> None:
    """The name counts in any spelling."""
    world.enrolled(ADA, take=1)
    world.enrolled(ADA, take=2)
    result = world.ask(Verify(identity="ada lovelace"), photo(ADA, take=2))
    assert result.faces[0].similarity == pytest.approx(1, abs=1e-3)
    assert result.operation == "verify"


def test_verify_finds_a_person_whom_another_worker_has_just_enrolled(world: World) -> None:
    """Although the gallery of this worker was read before."""
    world.enrolled(ADA)
    assert world.gallery.index("staff").identities == 1
    world.templates.add(make_template(7, GRACE, "staff"))
    assert world.gallery.index("staff").identities == 1
    assert world.ask(Verify(identity=GRACE), photo(ADA)).outcome is Outcome.DONE


@pytest.mark.parametrize(
    ("operation", "refusal"),
    [
        (Verify(template_id="0" * 32), Refusal.NO_SUCH_TEMPLATE),
        (SearchTemplate(template_id="0" * 32), Refusal.NO_SUCH_TEMPLATE),
        (Verify(identity="Katherine Johnson"), Refusal.NO_SUCH_PERSON),
        (Verify(identity=" "), Refusal.INVALID_NAME),
        (Verify(template_id=f"{5:032x}"), Refusal.OTHER_MODEL),
        (SearchTemplate(template_id=f"{5:032x}"), Refusal.OTHER_MODEL),
        (Verify(identity=GRACE), Refusal.OTHER_MODEL),
        (Enrol(identity="Unknown"), Refusal.INVALID_NAME),
    ],
    ids=str,
)
def test_refusal_says_what_is_wrong(world: World, operation: Operation, refusal: Refusal) -> None:
    """Grace is enrolled with another model."""
    world.enrolled(ADA)
    world.templates.add(make_template(5, GRACE, "staff", OTHER_MODEL))
    result = world.ask(operation, photo(ADA))
    assert (result.outcome, result.refusal) == (Outcome.REFUSED, refusal)
    assert result.detail


def test_search_template_leaves_itself_out(world: World) -> None:
    """Its person is found by another template."""
    first, second = world.enrolled(ADA, take=1), world.enrolled(ADA, take=2)
    world.enrolled(GRACE)
    result = world.ask(SearchTemplate(template_id=first, nearest=5))
    assert [(match.identity, match.template_id == second) for match in result.matches] == [(ADA, True), (GRACE, False)]
    assert world.engine.calls == 3, "the search needs no photo"


def test_search_template_of_a_person_with_one_finds_the_others(world: World) -> None:
    """As many as the request asks for."""
    template_id = world.enrolled(ADA)
    world.enrolled(GRACE)
    world.enrolled(MARY)
    result = world.ask(SearchTemplate(template_id=template_id, nearest=1))
    (match,) = result.matches
    assert match.identity in {GRACE, MARY}


def test_enrolled_person_is_recognised_by_the_next_request(world: World) -> None:
    """Without a wait for the gallery's next refresh; the photo is kept, the template has the request's time."""
    assert world.ask(Recognise(), photo(ADA)).outcome is Outcome.UNKNOWN
    world.enrolled(MARY)
    assert world.ask(Recognise(), photo(ADA)).outcome is Outcome.UNKNOWN
    result = world.enrol(ADA, photo(ADA), external_id="employee-7")
    (enrolment,) = result.enrolments
    assert (result.outcome, enrolment.status, enrolment.face) == (Outcome.DONE, "enrolled", 0)
    assert world.ask(Recognise(), photo(ADA, take=1)).result == ADA
    template = world.templates.template("staff", enrolment.template_id or "")
    assert template is not None
    assert (template.external_id, template.enrolled_at) == ("employee-7", NOW)
    assert template.photo is not None
    assert world.store.get("gallery", template.photo.key) == photo(ADA)


def test_redelivered_enrolment_is_no_duplicate(world: World) -> None:
    """Not after a stored result, and not after a crash between template and result; a new request is one."""
    request = world.request(Enrol(identity=ADA), photo(ADA))
    first = world.app_tier.run(request)
    assert world.app_tier.run(request, 2) == first
    for key in world.store.keys("out"):
        world.store.delete("out", key)
    again = world.app_tier.run(request, 3)
    assert (again.outcome, statuses(again)) == (Outcome.DONE, ["enrolled"])
    later = world.ask(Enrol(identity=ADA), photo(ADA), submitted_at=NOW + timedelta(seconds=1))
    assert (later.outcome, statuses(later)) == (Outcome.DONE, ["duplicate"])
    assert world.templates.count("staff") == 1


def test_photo_of_another_person_is_refused(world: World) -> None:
    """The result says whose it is."""
    world.enrolled(ADA)
    result = world.enrol(GRACE, photo(ADA))
    assert (result.outcome, result.refusal) == (Outcome.REFUSED, Refusal.NOT_ENROLLED)
    (enrolment,) = result.enrolments
    assert (enrolment.status, enrolment.enrolled_for) == ("other_name", ADA)


def test_known_spelling_of_a_name_is_kept(world: World) -> None:
    """Also that of a name which no photo was enrolled for is forgotten."""
    assert statuses(world.enrol("GRACE HOPPER", photo())) == ["no_face"]
    world.enrolled(ADA)
    assert world.enrol("ada  LOVELACE", photo(ADA, take=1)).enrolments[0].identity == ADA
    assert world.enrol("ADA LOVELACE", photo(ADA, take=2), exact_name=True).enrolments[0].identity == "ADA LOVELACE"
    assert world.enrol(GRACE, photo(GRACE)).enrolments[0].identity == GRACE


@pytest.mark.parametrize(
    ("faces", "options", "expected"),
    [
        ([], {}, ["no_face"]),
        ([ADA, GRACE], {}, ["several_faces"]),
        ([ADA, GRACE], {"faces": "only"}, ["several_faces"]),
        ([ADA, DrawnFace(GRACE, probability=0.7)], {"faces": "only", "min_probability": 0.8}, ["enrolled"]),
        ([DrawnFace(ADA, probability=0.7)], {"min_probability": 0.8}, ["no_face"]),
        ([ADA, GRACE], {"faces": "primary"}, ["enrolled"]),
        ([DrawnFace(ADA, side=250), DrawnFace(GRACE, side=100)], {}, ["enrolled"]),
        ([DrawnFace(ADA, side=30)], {}, ["too_small"]),
        ([DrawnFace(ADA, side=30)], {"force": True}, ["enrolled"]),
        ([DrawnFace(ADA, quality=0.2)], {}, ["poor_quality"]),
        ([DrawnFace(ADA, quality=0.2)], {"force": True}, ["enrolled"]),
        ([ADA, DrawnFace(GRACE, quality=0.2)], {"faces": "numbered", "number": 0}, ["enrolled"]),
        ([ADA, DrawnFace(GRACE, quality=0.2)], {"faces": "numbered", "number": 1}, ["poor_quality"]),
        ([ADA, GRACE], {"faces": "numbered", "number": 2}, ["no_face"]),
        ([ADA, GRACE, DrawnFace(MARY, quality=0.2)], {"faces": "all"}, ["enrolled", "enrolled", "poor_quality"]),
    ],
    ids=str,
)
def test_enrolment_follows_its_options(
    world: World, faces: list[str | DrawnFace], options: dict[str, object], expected: list[str]
) -> None:
    """A photo of which nothing is enrolled is refused, with the faces that were found."""
    result = world.enrol(ADA, photo(*faces), **options)
    assert statuses(result) == expected
    assert len(result.faces) == len(faces)
    assert (result.outcome is Outcome.REFUSED) == ("enrolled" not in expected)


def test_all_faces_are_people_of_their_own(world: World) -> None:
    """The first of them may have a name; each other one is named by the id of its template."""
    result = world.enrol(ADA, photo(ADA, GRACE), faces="all")
    first, second = result.enrolments
    assert (first.identity, first.face, second.face) == (ADA, 0, 1)
    assert second.identity == str(UUID(second.template_id))
    assert world.ask(Recognise(), photo(GRACE, take=1)).result == second.identity
    again = world.ask(Enrol(faces="all"), photo(ADA, GRACE), submitted_at=NOW + timedelta(seconds=1))
    assert [each.identity for each in again.enrolments] == [ADA, second.identity]
    assert statuses(again) == ["duplicate", "duplicate"]


def test_max_faces_takes_the_largest(world: World) -> None:
    """In the order of the photo."""
    faces = [DrawnFace(ADA, side=60), DrawnFace(GRACE, side=120), DrawnFace(MARY, side=90)]
    result = world.enrol(None, photo(*faces), faces="all", max_faces=2)
    assert [each.face for each in result.enrolments] == [1, 2]


def test_look_alikes_of_an_enrolment_are_named(world: World) -> None:
    """Other people at or above the threshold, not the person."""
    world.enrolled(ADA)
    (enrolment,) = world.enrol("Augusta King", photo(ADA, take=1)).enrolments
    assert [match.identity for match in enrolment.look_alikes] == [ADA]
    assert world.enrol(ADA, photo(ADA, take=2)).enrolments[0].look_alikes[0].identity == "Augusta King"


@pytest.mark.parametrize(
    ("faces", "expected"),
    [
        ([], [("no_face", None)]),
        ([ADA], [("suitable", 0)]),
        ([ADA, GRACE], [("several_faces", None), ("suitable", 0), ("suitable", 1)]),
        ([DrawnFace(ADA, side=60), DrawnFace(GRACE, side=200)], [("suitable", 1), ("suitable", 0)]),
        ([DrawnFace(ADA, side=30)], [("too_small", 0)]),
        ([DrawnFace(ADA, quality=0.2)], [("poor_quality", 0)]),
    ],
    ids=str,
)
def test_check_says_what_an_enrolment_would_do(
    world: World, faces: list[str | DrawnFace], expected: list[tuple[str, int | None]]
) -> None:
    """First by default, then with each other face; nothing is stored, and the default does the same."""
    picture = photo(*faces)
    result = world.ask(CheckEnrolment(), picture)
    assert result.outcome is Outcome.DONE
    assert [(each.status, each.face) for each in result.enrolments] == expected
    assert (world.templates.count("staff"), world.store.keys("gallery")) == (0, [])
    (done,) = world.enrol(ADA, picture).enrolments
    assert (done.status.replace("enrolled", "suitable"), done.face) == expected[0]
    assert done.detail.startswith(result.enrolments[0].detail)


def test_check_names_look_alikes_and_the_owner_of_an_enrolled_photo(world: World) -> None:
    """A face that was enrolled by its number is known again, too."""
    world.enrolled(ADA)
    (checked,) = world.ask(CheckEnrolment(), photo(ADA, take=1)).enrolments
    assert (checked.status, [match.identity for match in checked.look_alikes]) == ("suitable", [ADA])
    (checked,) = world.ask(CheckEnrolment(), photo(ADA)).enrolments
    assert (checked.status, checked.identity) == ("duplicate", ADA)
    group = photo(MARY, GRACE)
    assert statuses(world.enrol(GRACE, group, faces="numbered", number=1)) == ["enrolled"]
    assert world.ask(Recognise(), photo(GRACE, take=1)).result == GRACE
    _, *others = world.ask(CheckEnrolment(), group).enrolments
    assert [(each.status, each.identity) for each in others] == [("suitable", ""), ("duplicate", GRACE)]


def test_rejection_is_stored_once(world: World) -> None:
    """With the face's embedding; a repeated request replaces it."""
    world.enrolled(ADA)
    for _ in range(2):
        result = world.ask(Reject(identity="ada lovelace", face=1), photo(GRACE, MARY))
        assert (result.outcome, result.operation, len(result.faces)) == (Outcome.DONE, "reject", 2)
    (rejection,) = world.templates.rejections("staff")
    assert (rejection.identity, rejection.model_id, rejection.source) == (ADA, MODEL, "a.jpg")
    assert np.array_equal(rejection.embedding, embedding(MARY))
    assert set(world.gallery.rejections("staff")) == {ADA}


@pytest.mark.parametrize(
    ("name", "face", "refusal"), [(GRACE, 0, Refusal.NO_SUCH_PERSON), (ADA, 1, Refusal.NO_SUCH_FACE)]
)
def test_rejection_needs_a_person_and_a_face(world: World, name: str, face: int, refusal: Refusal) -> None:
    """Nothing is stored otherwise."""
    world.enrolled(ADA)
    result = world.ask(Reject(identity=name, face=face), photo(MARY))
    assert (result.outcome, result.refusal) == (Outcome.REFUSED, refusal)
    assert world.templates.rejections("staff") == []


def test_services_of_every_operation_are_wrapped(world: World) -> None:
    """A driver retries them."""
    wrapped: list[object] = []

    def wrap(port: T, /) -> T:
        wrapped.append(port)
        return port

    world.app_tier.with_ports(wrap)
    assert {id(world.store), id(world.gallery), id(world.templates)} < set(map(id, wrapped))


def test_gallery_that_cannot_be_refreshed_fails_no_enrolment(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The person is found after the next refresh."""
    world.enrolled(GRACE)
    world.gallery.index("staff")
    with monkeypatch.context() as patch:
        patch.setattr(world.templates, "version", _unreachable)
        assert world.enrol(ADA, photo(ADA)).outcome is Outcome.DONE
        assert world.ask(Recognise(), photo(ADA)).outcome is Outcome.UNKNOWN
    world.gallery.refresh()
    assert world.ask(Recognise(), photo(ADA)).result == ADA


def _unreachable(collection: str) -> int:
    raise Transient(f"{collection} is away")


def test_copy_by_filename_is_that_of_a_recognition(world: World) -> None:
    """Another operation on a file of this name leaves it."""
    app_tier = replace(world.app_tier, copy_by_filename=True)
    app_tier.run(world.request(Recognise(), photo(ADA)))
    app_tier.run(world.request(Detect(), photo(ADA)))
    assert world.store.get("out", "a") == b"Unknown"
