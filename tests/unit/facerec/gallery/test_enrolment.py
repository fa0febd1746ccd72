"""Enrolment with in-memory ports: the outcome for each photo, and the order of writes."""

import json
from dataclasses import asdict, replace
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from facerec.comparison import ModelThresholds
from facerec.errors import AlreadyEnrolled, Transient
from facerec.gallery.cache import GalleryCache
from facerec.gallery.enrolment import MAX_PHOTO_BYTES, Enroller, EnrolmentStatus, WhichFace, store_template, template_id
from facerec.gallery.look_alikes import LookAlikes
from facerec.gallery.names import InvalidName, valid_collection
from facerec.gallery.removal import photo_key, remove_templates, thumbnail_key
from model.faces import Box, EmbeddedFace, ImageAnalysis, Quality
from model.header import InvalidImage
from tests.fakes.object_store import InMemoryObjectStore
from tests.fakes.templates import MODEL, OTHER_MODEL, InMemoryTemplateStore, make_template, make_threshold
from tests.support.logs import capture_logs
from tests.support.tails import TAILS

BUCKET = "gallery"
NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
AXES = np.eye(512, dtype=np.float32)


def picture(colour: str, form: str = "JPEG") -> bytes:
    """A small picture; another colour makes another file."""
    file = BytesIO()
    Image.new("RGB", (8, 8), colour).save(file, form)
    return file.getvalue()


def face(
    size: float = 100, height: float | None = None, *, axis: int = 0, quality: Quality | None = None
) -> EmbeddedFace:
    """A face of this size."""
    return EmbeddedFace(Box(5, 5, 5 + size, 5 + (height or size)), 0.99, (), AXES[axis], quality)


class Desk:
    """An enroller with its ports; `faces` are what the engine finds next."""

    def __init__(self, templates: InMemoryTemplateStore | None = None) -> None:
        self.templates = templates or InMemoryTemplateStore()
        self.photos = InMemoryObjectStore()
        self.faces: tuple[EmbeddedFace, ...] = (face(),)
        self.refusal: InvalidImage | None = None
        self.enroller = Enroller(
            analyse=self._analyse,
            templates=self.templates,
            photos=self.photos,
            gallery_bucket=BUCKET,
            model_id=MODEL,
            min_face_pixels=40,
            min_quality=0.5,
            now=lambda: NOW,
        )

    def _analyse(self, photo: bytes) -> ImageAnalysis:
        if self.refusal is not None:
            raise self.refusal
        return ImageAnalysis(640, 480, self.faces, {})


@pytest.fixture
def desk() -> Desk:
    """A desk with an empty gallery."""
    return Desk()


def test_photo_of_one_face_is_enrolled(desk: Desk) -> None:
    """The template has the person, the model and the key of the stored photo."""
    photo = picture("red", "PNG")
    report = desk.enroller.enrol("Ada Lovelace", "C:\\me\\ada 1.png", photo, "staff")
    (template,) = desk.templates.templates("staff")
    assert (report.status, report.file, report.identity) == (EnrolmentStatus.ENROLLED, "ada 1.png", "Ada Lovelace")
    assert report.template_id == template.template_id == template_id("staff", MODEL, photo)
    assert report.box == face().box
    assert (template.identity, template.model_id, template.source) == ("Ada Lovelace", MODEL, "ada 1.png")
    assert (template.probability, template.enrolled_at) == (0.99, NOW)
    assert template.embedding is AXES[0] or (template.embedding == AXES[0]).all()
    assert template.photo is not None
    assert template.photo.key == f"staff/{template.template_id}/ada 1.png"
    assert template.photo.size == len(photo)
    assert desk.photos.get(template.photo.bucket, template.photo.key) == photo
    assert desk.photos.content_type(template.photo.bucket, template.photo.key) == "image/png"


@pytest.mark.parametrize(
    ("faces", "status", "says"),
    [
        ((), EnrolmentStatus.NO_FACE, "no face found"),
        ((face(), face(60), face(50)), EnrolmentStatus.SEVERAL_FACES, "3 faces found, and none has 4 times the area"),
        ((face(39),), EnrolmentStatus.TOO_SMALL, "39 pixels, at least 40"),
        ((face(100, height=20),), EnrolmentStatus.TOO_SMALL, "20 pixels, at least 40"),
    ],
)
def test_photo_without_one_large_face_is_refused(
    desk: Desk, faces: tuple[EmbeddedFace, ...], status: EnrolmentStatus, says: str
) -> None:
    """The report says why and what to do, and nothing is stored."""
    desk.faces = faces
    report = desk.enroller.enrol("Ada", "ada.jpg", picture("red"))
    assert report.status is status
    assert report.status.failed
    assert says in report.detail
    assert report.template_id is None
    assert stored(desk) == ([], [])


def test_photo_with_a_dominant_face_is_enrolled(desk: Desk) -> None:
    """The report has the face and all others."""
    desk.faces = (face(49, axis=1), face(100), face(50, axis=2))
    report = desk.enroller.enrol("Ada", "ada.jpg", picture("red"))
    assert report.status is EnrolmentStatus.ENROLLED
    assert "the largest of 3 faces" in report.detail
    assert report.box == face(100).box
    assert report.faces == (face(49).box, face(100).box, face(50).box)
    (template,) = desk.templates.templates("default")
    assert (template.embedding == AXES[0]).all()


def test_face_less_than_four_times_the_next_is_not_dominant(desk: Desk) -> None:
    """The report has the boxes of both."""
    desk.faces = (face(100), face(51, axis=1))
    report = desk.enroller.enrol("Ada", "ada.jpg", picture("red"))
    assert report.status is EnrolmentStatus.SEVERAL_FACES
    assert report.faces == (face(100).box, face(51).box)
    assert "primary" in report.detail
    assert stored(desk) == ([], [])


def test_primary_face_is_enrolled_on_request(desk: Desk) -> None:
    """Also when another face is larger."""
    desk.faces = (face(60, axis=1), face(70))
    report = desk.enroller.enrol("Ada", "ada.jpg", picture("red"), which=WhichFace.PRIMARY)
    assert report.status is EnrolmentStatus.ENROLLED
    assert "the primary one of 2 faces" in report.detail
    (template,) = desk.templates.templates("default")
    assert (template.embedding == AXES[1]).all()
    desk.faces = (face(30), face(100))
    small = desk.enroller.enrol("Ada", "ada.jpg", picture("blue"), which=WhichFace.PRIMARY)
    assert small.status is EnrolmentStatus.TOO_SMALL


def test_face_of_poor_quality_is_refused_with_the_reasons(desk: Desk) -> None:
    """Face of poor quality is refused with the reasons."""
    desk.faces = (face(quality=Quality(0.49, ("blurred", "too dark"))),)
    report = desk.enroller.enrol("Ada", "ada.jpg", picture("red"))
    assert (report.status, report.status.failed) == (EnrolmentStatus.POOR_QUALITY, True)
    assert report.detail == "quality 0.49 (blurred, too dark), at least 0.5 is needed: take a better photo"
    assert report.quality == Quality(0.49, ("blurred", "too dark"))
    assert stored(desk) == ([], [])


def test_enrolment_report_has_the_quality(desk: Desk) -> None:
    """In the sentence and as a value."""
    desk.faces = (face(quality=Quality(0.5, ("tilted",))),)
    report = desk.enroller.enrol("Ada", "ada.jpg", picture("red"))
    assert report.status is EnrolmentStatus.ENROLLED
    assert "quality 0.50 (tilted)" in report.detail
    assert json.loads(json.dumps(asdict(report)))["quality"] == {"score": 0.5, "reasons": ["tilted"]}


def test_face_of_a_low_probability_is_refused(desk: Desk) -> None:
    """It may be none."""
    desk.enroller = replace(desk.enroller, min_probability=0.5)
    desk.faces = (replace(face(), probability=0.47),)
    report = desk.enroller.enrol("Ada", "ada.jpg", picture("red"))
    assert report.status is EnrolmentStatus.POOR_QUALITY
    assert report.detail == "hardly a face to the detector: 0.47, at least 0.5 is needed: take a better photo"
    assert stored(desk) == ([], [])


@pytest.mark.parametrize(
    ("poor", "says"),
    [
        (face(39), "forced: the face measures 39 pixels, at least 40 are needed"),
        (replace(face(), probability=0.3), "forced: hardly a face to the detector: 0.30, at least 0.5 is needed"),
        (face(quality=Quality(0.2, ("blurred",))), "forced: quality 0.20 (blurred), at least 0.5 is needed"),
    ],
)
def test_force_enrols_a_poor_face_and_says_so(desk: Desk, poor: EmbeddedFace, says: str) -> None:
    """The template keeps what an audit needs."""
    desk.enroller = replace(desk.enroller, min_probability=0.5)
    desk.faces = (poor,)
    assert desk.enroller.enrol("Ada", "ada.jpg", picture("red")).status.failed
    report = desk.enroller.enrol("Ada", "ada.jpg", picture("red"), force=True)
    assert report.status is EnrolmentStatus.ENROLLED
    assert says in report.detail
    (template,) = desk.templates.templates("default")
    assert template.probability == poor.probability
    assert template.quality == (None if poor.quality is None else poor.quality.score)


def test_force_does_not_choose_among_faces(desk: Desk) -> None:
    """Whose face it is, nobody but a person can say."""
    desk.faces = (face(100), face(51, axis=1))
    report = desk.enroller.enrol("Ada", "ada.jpg", picture("red"), force=True)
    assert report.status is EnrolmentStatus.SEVERAL_FACES
    desk.faces = ()
    assert desk.enroller.enrol("Ada", "ada.jpg", picture("red"), force=True).status is EnrolmentStatus.NO_FACE


def looking(desk: Desk) -> Enroller:
    """The desk's enroller, which looks for look-alikes."""
    gallery = GalleryCache(desk.templates, MODEL, 3600, dimension=512)
    return replace(desk.enroller, look_alikes=LookAlikes(gallery, ModelThresholds(TAILS["classic"], 0.5, 0.01)))


def like(cosine: float) -> EmbeddedFace:
    """A face with this similarity to the first axis."""
    embedding = cosine * AXES[0] + np.float32(np.sqrt(1 - cosine**2)) * AXES[1]
    return replace(face(), embedding=embedding.astype(np.float32))


def test_look_alikes_of_other_people_are_named(desk: Desk) -> None:
    """Those who were enrolled before and in this run; the photo is enrolled nevertheless."""
    desk.enroller.enrol("Jane Smith", "jane.jpg", picture("red"))
    enroller = looking(desk)
    desk.faces = (like(0.81),)
    report = enroller.enrol("Ada", "ada.jpg", picture("blue"))
    assert report.status is EnrolmentStatus.ENROLLED
    assert "also matches Jane Smith 0.81" in report.detail
    assert [match.identity for match in report.look_alikes] == ["Jane Smith"]
    assert json.loads(json.dumps(asdict(report)))["look_alikes"][0]["similarity"] == pytest.approx(0.81, abs=1e-3)
    desk.faces = (like(0.8),)
    third = enroller.enrol("June", "june.jpg", picture("green"))
    assert "also matches Ada 1.00, Jane Smith 0.80" in third.detail
    assert [match.identity for match in enroller.enrol("June", "june.jpg", picture("green")).look_alikes] == [
        "Ada",
        "Jane Smith",
    ]


def test_person_is_no_look_alike_of_itself(desk: Desk) -> None:
    """Nor are people below the threshold, which is the collection's own if it has one."""
    desk.enroller.enrol("Ada", "1.jpg", picture("red"))
    desk.faces = (like(0.6),)
    assert looking(desk).enrol("ADA", "2.jpg", picture("blue")).look_alikes == ()
    desk.templates.set_threshold("default", MODEL, make_threshold(0.7))
    assert looking(desk).enrol("Jane", "3.jpg", picture("green")).look_alikes[0].identity == "Ada"
    desk.templates.set_threshold("default", MODEL, make_threshold(0.65))
    desk.templates.remove("default", [template_id("default", MODEL, picture("blue"))])
    assert looking(desk).enrol("June", "4.jpg", picture("pink")).look_alikes[0].identity == "Jane"


def test_file_that_is_no_picture_is_refused(desk: Desk) -> None:
    """With the engine's sentence."""
    desk.refusal = InvalidImage("the file is empty: send a JPEG")
    report = desk.enroller.enrol("Ada", "ada.txt", b"")
    assert (report.status, report.detail) == (EnrolmentStatus.INVALID_IMAGE, "the file is empty: send a JPEG")
    assert stored(desk) == ([], [])


def test_file_that_is_too_large_is_refused(desk: Desk) -> None:
    """Without being analysed."""
    desk.refusal = InvalidImage("looked at")
    report = desk.enroller.enrol("Ada", "ada.jpg", bytes(MAX_PHOTO_BYTES + 1))
    assert report.status is EnrolmentStatus.INVALID_IMAGE
    assert "100 MB" in report.detail


def test_same_photo_again_is_a_duplicate(desk: Desk) -> None:
    """Under any spelling of the name."""
    first = desk.enroller.enrol("Ada Lovelace", "ada.jpg", picture("red"))
    again = desk.enroller.enrol("ADA  lovelace", "ada.jpg", picture("red"))
    assert (again.status, again.status.failed) == (EnrolmentStatus.DUPLICATE, False)
    assert (again.identity, again.template_id) == ("Ada Lovelace", first.template_id)


def test_photo_of_another_person_is_refused(desk: Desk) -> None:
    """The report names the owner; gallery and photo stay as they were."""
    desk.enroller.enrol("Ada", "ada.jpg", picture("red"))
    report = desk.enroller.enrol("Grace", "grace.jpg", picture("red"))
    assert (report.status, report.status.failed) == (EnrolmentStatus.OTHER_NAME, True)
    assert (report.identity, report.enrolled_for) == ("Grace", "Ada")
    assert "'Ada'" in report.detail
    (template,) = desk.templates.templates("default")
    assert report.template_id == template.template_id
    assert template.identity == "Ada"
    assert template.photo is not None
    assert desk.photos.get(template.photo.bucket, template.photo.key) == picture("red")


def test_person_keeps_the_first_spelling_of_the_name(desk: Desk) -> None:
    """Also that of an earlier process; `exact_name` makes another person of it."""
    desk.enroller.enrol("Ada Lovelace", "1.jpg", picture("red"))
    later = Desk(desk.templates)
    joined = later.enroller.enrol("ada\u00a0\u200dLOVELACE.", "2.jpg", picture("blue"))
    assert (joined.status, joined.identity) == (EnrolmentStatus.ENROLLED, "Ada Lovelace")
    assert "spelled 'Ada Lovelace'" in joined.detail
    assert later.enroller.enrol("ada lovelace", "3.jpg", picture("green"), exact_name=True).identity == "ada lovelace"
    assert (
        later.enroller.enrol("Ada\u200d Lovelace", "4.jpg", picture("pink"), exact_name=True).identity == "Ada Lovelace"
    )
    assert set(desk.templates.owners("default").values()) == {"Ada Lovelace", "ada lovelace"}
    assert later.enroller.enrol("ada lovelace", "5.jpg", picture("white"), "staff").identity == "ada lovelace"


def test_photo_may_be_in_two_collections(desk: Desk) -> None:
    """Photo may be in two collections."""
    reports = [desk.enroller.enrol("Ada", "ada.jpg", picture("red"), name) for name in ("staff", "guests")]
    assert [report.status for report in reports] == [EnrolmentStatus.ENROLLED] * 2
    assert desk.templates.collections() == ["guests", "staff"]


def test_photo_is_not_stored_while_the_table_is_away(desk: Desk) -> None:
    """The next try completes it."""
    desk.templates.outage = Transient("the table is away")
    with pytest.raises(Transient):
        desk.enroller.enrol("Ada", "ada.jpg", picture("red"))
    assert desk.photos.keys(BUCKET) == []
    desk.templates.outage = None
    assert desk.enroller.enrol("Ada", "ada.jpg", picture("red")).status is EnrolmentStatus.ENROLLED
    assert len(desk.photos.keys(BUCKET)) == 1


def test_failed_photo_leaves_no_template(desk: Desk) -> None:
    """Failed photo leaves no template."""
    desk.photos.outage = Transient("the bucket is away")
    with pytest.raises(Transient):
        desk.enroller.enrol("Ada", "ada.jpg", picture("red"))
    assert list(desk.templates.templates("default")) == []


def test_thumbnail_of_the_chosen_face_is_stored_beside_the_photo(desk: Desk) -> None:
    """The engine makes it; of a photo that is enrolled already nothing is stored."""
    desk.faces = (replace(face(49, axis=1), thumbnail=b"another"), replace(face(100), thumbnail=b"small"))
    report = desk.enroller.enrol("Ada", "ada.jpg", picture("red"))
    key = thumbnail_key("default", str(report.template_id))
    assert desk.photos.get(BUCKET, key) == b"small"
    assert desk.photos.content_type(BUCKET, key) == "image/jpeg"
    desk.enroller.enrol("Ada", "again.jpg", picture("red"))
    assert len(desk.photos.keys(BUCKET)) == 2
    assert remove_templates(desk.templates, desk.photos, BUCKET, "default", [str(report.template_id)]) == 1
    assert stored(desk) == ([], [])


def test_failed_thumbnail_does_not_fail_the_enrolment(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is logged; the photo and the template are stored."""
    desk.faces = (replace(face(), thumbnail=b"small"),)
    put = desk.photos.put

    def without_thumbnails(bucket: str, key: str, body: bytes, content_type: str) -> None:
        if body == b"small":
            raise Transient("the bucket is away")
        put(bucket, key, body, content_type)

    monkeypatch.setattr(desk.photos, "put", without_thumbnails)
    with capture_logs() as logs:
        report = desk.enroller.enrol("Ada", "ada.jpg", picture("red"))
    assert report.status is EnrolmentStatus.ENROLLED
    assert stored(desk) == ([report.template_id], [photo_key("default", str(report.template_id), "ada.jpg")])
    assert [(line["event"], line["template_id"]) for line in logs] == [("thumbnail_not_stored", report.template_id)]


def test_removal_deletes_the_photos(desk: Desk) -> None:
    """Those of the removed templates, also under a duplicate's file name, and no others."""
    desk.enroller.enrol("Ada", "ada.jpg", picture("red"))
    desk.enroller.enrol("Ada", "the same under another name.jpg", picture("red"))
    kept = desk.enroller.enrol("Ada", "ada.jpg", picture("blue"))
    doomed = [t.template_id for t in desk.templates.templates("default") if t.template_id != kept.template_id]
    assert remove_templates(desk.templates, desk.photos, BUCKET, "default", doomed) == 1
    assert stored(desk) == ([kept.template_id], [photo_key("default", str(kept.template_id), "ada.jpg")])


def test_interrupted_removal_can_be_repeated(desk: Desk) -> None:
    """The template is listed until its photo is gone."""
    report = desk.enroller.enrol("Ada", "ada.jpg", picture("red"))
    desk.templates.outage = Transient("the table is away")
    with pytest.raises(Transient):
        remove_templates(desk.templates, desk.photos, BUCKET, "default", [str(report.template_id)])
    desk.templates.outage = None
    assert remove_templates(desk.templates, desk.photos, BUCKET, "default", [str(report.template_id)]) == 1
    assert stored(desk) == ([], [])


@pytest.mark.parametrize("embedding", [np.zeros(512), np.full(512, np.nan), np.full(512, np.inf), AXES[0] * 2])
def test_face_without_a_usable_embedding_is_not_enrolled(desk: Desk, embedding: Any) -> None:
    """Every reader would leave it out. Neither template nor photo is stored."""
    desk.faces = (replace(face(), embedding=np.asarray(embedding, dtype=np.float32)),)
    report = desk.enroller.enrol("Ada", "ada.jpg", picture("red"))
    assert report.status is EnrolmentStatus.INVALID_IMAGE
    assert "no usable embedding" in report.detail
    assert list(desk.templates.templates("default")) == []
    assert desk.photos.keys(BUCKET) == []


def test_template_stored_twice_is_refused(desk: Desk) -> None:
    """Template stored twice is refused."""
    store_template(desk.templates, desk.photos, replace(make_template(1), photo=None), None)
    with pytest.raises(AlreadyEnrolled):
        store_template(desk.templates, desk.photos, replace(make_template(1), photo=None), None)


@pytest.mark.parametrize("name", ["", "Ada\nLovelace", "Unknown\u200d"])
def test_invalid_name_is_refused_before_any_other_work(desk: Desk, name: str) -> None:
    """No photo is looked at, and nothing is stored."""
    desk.refusal = InvalidImage("looked at")
    with pytest.raises(InvalidName):
        desk.enroller.enrol(name, "ada.jpg", picture("red"))
    assert stored(desk) == ([], [])


@pytest.mark.parametrize("name", ["", "#collections", "a/b", "ä", "x" * 65, "a\n"])
def test_collection_names_are_restricted(desk: Desk, name: str) -> None:
    """They are parts of keys, and one partition of the table is ours."""
    with pytest.raises(InvalidName, match="no name for a collection"):
        valid_collection(name)
    with pytest.raises(InvalidName):
        desk.enroller.enrol("Ada", "ada.jpg", picture("red"), name)


@given(st.tuples(st.text(), st.text(), st.binary()), st.tuples(st.text(), st.text(), st.binary()))
def test_template_id_depends_on_collection_model_and_photo(
    one: tuple[str, str, bytes], other: tuple[str, str, bytes]
) -> None:
    """And on nothing else."""
    assert (template_id(*one) == template_id(*other)) == (one == other)


def test_template_id_is_stable() -> None:
    """A change would let every photo be enrolled twice."""
    assert template_id("default", MODEL, b"photo") == "99eb5bbeab5d8b7685fd6859ac53fc33"
    assert template_id("default", MODEL, b"photo") != template_id("default", OTHER_MODEL, b"photo")


def stored(desk: Desk) -> tuple[list[str], list[str]]:
    """The ids of all templates and the keys of all photos."""
    return [template.template_id for template in desk.templates.templates("default")], desk.photos.keys(BUCKET)
