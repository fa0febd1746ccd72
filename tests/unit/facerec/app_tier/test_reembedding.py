"""A worker adds templates of another model from kept photos: which face, and what stands in the way."""

from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

import numpy as np
import pytest

from facerec.app_tier.use_case import AppTier
from facerec.comparison import ModelThresholds
from facerec.delivery.driver import decode_request
from facerec.errors import InvalidMessage
from facerec.gallery.cache import GalleryCache
from facerec.gallery.removal import thumbnail_key
from facerec.message_base import ObjectRef
from facerec.messages import OPERATION_VERSION, Outcome, RecognitionRequest, RecognitionResult, Refusal
from facerec.operations import Detect, Enrol, Reembed
from facerec.ports import FaceEngine, Template, TemplateEntry
from model.faces import ImageAnalysis
from tests.fakes.drawn_faces import DIMENSION, DrawnFace, DrawnFacesEngine, embedding, photo
from tests.fakes.object_store import InMemoryObjectStore
from tests.fakes.results import InMemoryQueues, InMemoryResultPublisher
from tests.fakes.templates import MODEL, InMemoryTemplateStore
from tests.support.tails import TAILS

NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)
NEW = "open-128-0123456789abcdef"
ADA, GRACE, MARY = "Ada Lovelace", "Grace Hopper", "Mary Jackson"


class NewEngine(DrawnFacesEngine):
    """The other model: it finds the faces in the reverse order, and mirrors the embeddings."""

    model_id = NEW
    most = 10

    def analyse(self, image: bytes) -> ImageAnalysis:
        """Find no more than `most` faces."""
        seen = super().analyse(image)
        faces = [replace(face, embedding=face.embedding[::-1].copy()) for face in reversed(seen.faces)]
        return replace(seen, faces=tuple(faces[: self.most]))


class World:
    """A use case with both engines, as a migration has them."""

    def __init__(self) -> None:
        self.store, self.templates, self.new = InMemoryObjectStore(), InMemoryTemplateStore(), NewEngine()
        self.app_tier = AppTier(
            store=self.store,
            engine=DrawnFacesEngine(),
            gallery=GalleryCache(self.templates, MODEL, 5, dimension=DIMENSION),
            publisher=InMemoryResultPublisher(InMemoryQueues("responses"), "responses"),
            output_bucket="out",
            thresholds=ModelThresholds(TAILS["open"], 0.4, 0.01),
            templates=self.templates,
            gallery_bucket="gallery",
            min_face_pixels=40,
            others=self,
        )

    def engine(self, model_id: str) -> FaceEngine | None:
        """`OtherEngines`."""
        return self.new if model_id == NEW else None

    def enrol(self, picture: bytes, operation: Enrol) -> list[TemplateEntry]:
        """Enrol with the present model."""
        self.store.put("in", "a.jpg", picture, "image/jpeg")
        stored = ObjectRef(bucket="in", key="a.jpg", size=len(picture))
        request = RecognitionRequest(
            request_id=uuid4(), input=stored, filename="a.jpg", operation=operation, submitted_at=NOW
        )
        result = self.app_tier.run(request)
        return list(self.templates.find("default", [each.template_id or "" for each in result.enrolments]).values())

    def reembed(self, entry: TemplateEntry, model_id: str = NEW, **changes: object) -> RecognitionResult:
        """Ask for the template of the other model."""
        return self.app_tier.run(request_for(entry, model_id, **changes))


def request_for(entry: TemplateEntry, model_id: str = NEW, **changes: object) -> RecognitionRequest:
    """The request of a migration."""
    return RecognitionRequest.model_validate(
        {
            "version": OPERATION_VERSION,
            "request_id": uuid4(),
            "input": entry.photo,
            "filename": entry.source,
            "operation": Reembed(template_id=entry.template_id, model_id=model_id),
            "submitted_at": NOW,
        }
        | changes
    )


def test_twin_has_the_same_person_photo_and_date() -> None:
    """A second request finds it."""
    world = World()
    (old,) = world.enrol(photo(ADA), Enrol(identity=ADA, external_id="x1"))
    result = world.reembed(old)
    assert (result.outcome, result.enrolments[0].status, result.result) == (Outcome.DONE, "rebuilt", "")
    twin = world.templates.template("default", result.enrolments[0].template_id or "")
    assert twin is not None
    assert (twin.identity, twin.source, twin.enrolled_at, twin.external_id) == (ADA, "a.jpg", NOW, "x1")
    assert twin.photo is not None
    assert world.store.get("gallery", twin.photo.key) == photo(ADA)
    thumbnails = [thumbnail_key("default", each) for each in (old.template_id, twin.template_id)]
    assert world.store.get("gallery", thumbnails[0]) == world.store.get("gallery", thumbnails[1])
    np.testing.assert_allclose(twin.embedding, embedding(ADA)[::-1])
    again = world.reembed(old)
    assert (again.enrolments[0].status, again.enrolments[0].template_id) == ("present", twin.template_id)
    assert world.templates.count("default") == 2


def test_face_of_several_is_the_one_that_is_enrolled() -> None:
    """Found by the embedding of the template's own model, in whatever order the other model sees the faces."""
    world = World()
    entries = world.enrol(photo(ADA, GRACE, MARY), Enrol(faces="all"))
    assert len(entries) == 3
    for old in entries:
        twin_id = world.reembed(old).enrolments[0].template_id or ""
        twin, own = world.templates.template("default", twin_id), world.templates.template("default", old.template_id)
        assert twin is not None
        assert own is not None
        assert (twin.identity, own.identity) == (old.identity, old.identity)
        np.testing.assert_allclose(twin.embedding, own.embedding[::-1])


def test_face_is_not_replaced_by_its_neighbour() -> None:
    """The other model does not find the enrolled face, but two others."""
    world = World()
    (old,) = world.enrol(photo(DrawnFace(ADA, side=200), GRACE, MARY), Enrol(identity=ADA))
    world.new.most = 2
    result = world.reembed(old)
    assert (result.outcome, result.refusal, result.enrolments[0].status) == (
        Outcome.REFUSED,
        Refusal.NOT_ENROLLED,
        "no_face",
    )
    assert world.templates.count("default") == 1


def test_photo_that_cannot_be_used_is_reported() -> None:
    """No face, and no photo any more."""
    world = World()
    (old,) = world.enrol(photo(ADA), Enrol(identity=ADA))
    world.new.most = 0
    assert world.reembed(old).enrolments[0].status == "no_face"
    assert old.photo is not None
    world.store.delete(old.photo.bucket, old.photo.key)
    assert world.reembed(old).enrolments[0].status == "no_photo"


def test_person_who_is_removed_meanwhile_does_not_return() -> None:
    """The new template goes with its photo."""
    world = World()
    (old,) = world.enrol(photo(ADA), Enrol(identity=ADA))
    add = world.templates.add

    def removed_before(template: Template) -> None:
        world.templates.remove("default", [old.template_id])
        add(template)

    world.templates.add = removed_before  # type: ignore[method-assign]
    assert world.reembed(old).enrolments[0].status == "no_photo"
    assert world.templates.count("default") == 0
    assert old.photo is not None
    assert world.store.keys("gallery") == [old.photo.key, thumbnail_key("default", old.template_id)]


def test_only_the_photo_of_the_template_is_read_and_only_a_model_of_the_migration_is_opened() -> None:
    """A forged message gets nothing."""
    world = World()
    (ada,) = world.enrol(photo(ADA), Enrol(identity=ADA))
    (grace,) = world.enrol(photo(GRACE), Enrol(identity=GRACE))
    assert world.reembed(ada, input=grace.photo).refusal is Refusal.NO_SUCH_TEMPLATE
    assert world.reembed(ada, model_id="other-1").refusal is Refusal.OTHER_MODEL


def test_gallery_bucket_is_read_for_this_operation_alone() -> None:
    """And by workers alone."""
    world = World()
    (old,) = world.enrol(photo(ADA), Enrol(identity=ADA))
    request = request_for(old)
    assert decode_request(request.to_json(), "in", "gallery") == request
    for refused in (request.model_copy(update={"operation": Detect()}), request_for(old, input=_in("in"))):
        with pytest.raises(InvalidMessage, match="is in bucket"):
            decode_request(refused.to_json(), "in", "gallery")
    with pytest.raises(InvalidMessage, match="not in 'in'"):
        decode_request(request.to_json(), "in")
    with pytest.raises(InvalidMessage, match="model_id"):
        decode_request(request.to_json().replace(NEW, "../secret"), "in", "gallery")


def _in(bucket: str) -> ObjectRef:
    return ObjectRef(bucket=bucket, key="a.jpg", size=1)
