"""The use case with in-memory ports: results, their order, and errors."""

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID, uuid4

import numpy as np
import pytest
from numpy.typing import NDArray

from facerec.comparison import ModelThresholds
from facerec.errors import EngineFailure, FacerecError, ObjectMissing, QueueMissing, Refused, Transient
from facerec.message_base import ObjectRef
from facerec.messages import FaceQuality, Outcome, RecognitionRequest, RecognitionResult
from facerec.object_keys import input_key, output_key
from facerec.operations import Recognise
from facerec.recognition import Recogniser
from model.faces import Box, EmbeddedFace, ImageAnalysis, Quality
from model.header import InvalidImage
from model.matching import GalleryIndex, Match
from tests.fakes.object_store import InMemoryObjectStore
from tests.support.tails import TAILS

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
AXES = np.eye(512, dtype=np.float32)


def face(embedding: NDArray[np.float32], x: float = 0) -> EmbeddedFace:
    """A face at x with this embedding."""
    landmarks = tuple((x + i, 1.0) for i in range(5))
    return EmbeddedFace(Box(x, 0, x + 50, 50), 0.99, landmarks, embedding)


class Engine:
    """Answers with prepared analyses."""

    name, precision, model_id = "fake", "fp32", "model-1"

    def __init__(self) -> None:
        self.faces: tuple[EmbeddedFace, ...] = ()
        self.error: Exception | None = None
        self.calls = self.more_faces = 0

    def analyse(self, image: bytes) -> ImageAnalysis:
        self.calls += 1
        if self.error:
            raise self.error
        return ImageAnalysis(100, 80, self.faces, {"decode": 1.0, "detect": 2.0, "embed": 3.0}, self.more_faces)


class World:
    """Everything around one recogniser."""

    def __init__(self) -> None:
        self.store, self.engine = InMemoryObjectStore(), Engine()
        self.published: list[tuple[str, RecognitionResult]] = []
        self.refusal: FacerecError | None = None
        self.gallery = GalleryIndex(AXES[:2], ["Ada", "Grace"], ["t1", "t2"])
        self.collection_threshold: float | None = None
        self.rejected: dict[str, NDArray[np.float32]] = {}
        self.recogniser = self.make()

    def make(self, *, copy_by_filename: bool = False) -> Recogniser:
        return Recogniser(
            store=self.store,
            engine=self.engine,
            gallery=self,
            publisher=self,
            output_bucket="out",
            thresholds=ModelThresholds(TAILS["classic"], 0.5, 0.01),
            copy_by_filename=copy_by_filename,
            now=lambda: NOW,
        )

    def index(self, collection: str) -> GalleryIndex:
        return self.gallery

    def search(self, collection: str, queries: NDArray[np.float32], limit: int) -> list[list[Match]]:
        return self.gallery.search(queries, limit)

    def threshold(self, collection: str) -> float | None:
        return self.collection_threshold

    def rejections(self, collection: str) -> dict[str, NDArray[np.float32]]:
        return self.rejected

    def publish(self, reply_to: str, result: RecognitionResult) -> None:
        if self.refusal is not None:
            raise self.refusal
        # A published result can be fetched.
        assert self.store.exists("out", output_key(result.request_id, result.filename))
        self.published.append((reply_to, result))

    def request(self, filename: str = "a.jpg", threshold: float | None = None) -> RecognitionRequest:
        request_id = uuid4()
        self.store.put("in", input_key(request_id, filename), b"photo", "image/jpeg")
        return RecognitionRequest(
            request_id=request_id,
            input=ObjectRef(bucket="in", key=input_key(request_id, filename), size=5),
            filename=filename,
            threshold=threshold,
            reply_to="responses",
            submitted_at=NOW,
        )


@pytest.fixture
def world() -> World:
    """A fresh world for each test."""
    return World()


def similar(cosine: float, axis: int = 0) -> NDArray[np.float32]:
    """A unit vector with this cosine to one axis and cosine 0 to the other identities'."""
    vector: NDArray[np.float32] = cosine * AXES[axis] + np.float32(np.sqrt(1 - cosine**2)) * AXES[100]
    return vector


def test_match_is_named_stored_and_published(world: World) -> None:
    """The primary face decides; the stored result is the published one."""
    world.engine.faces = (face(similar(0.8, axis=1)), face(similar(0.9), x=60))
    request = world.request()
    result = world.recogniser.run(request)
    assert (result.outcome, result.result) == (Outcome.MATCH, "Grace")
    assert result.faces[0].matches[0].similarity == pytest.approx(0.8, abs=1e-6)
    assert result.faces[1].matches[0].identity == "Ada"
    assert {"fetch", "decode", "detect", "embed", "match"} <= set(result.timings_ms)
    assert (result.engine, result.precision, result.model_id) == ("fake", "fp32", "model-1")
    assert world.published == [("responses", result)]
    assert RecognitionResult.parse(world.store.get("out", output_key(request.request_id, "a.jpg"))) == result


def test_face_below_the_threshold_is_unknown(world: World) -> None:
    """Even if it is the nearest."""
    world.engine.faces = (face(similar(0.49)),)
    result = world.recogniser.run(world.request())
    assert (result.outcome, result.result, result.faces[0].matches) == (Outcome.UNKNOWN, "Unknown", ())


@pytest.mark.parametrize(
    ("requests", "collections", "outcome", "source"),
    [
        (0.4, 0.6, Outcome.MATCH, "request"),
        (0.6, 0.4, Outcome.UNKNOWN, "request"),
        (0.0, 0.6, Outcome.MATCH, "request"),
        (None, 0.6, Outcome.UNKNOWN, "collection"),
        (None, 0.4, Outcome.MATCH, "collection"),
        (None, None, Outcome.MATCH, "model"),
    ],
)
def test_threshold_source_is_request_then_collection_then_model(
    world: World, requests: float | None, collections: float | None, outcome: Outcome, source: str
) -> None:
    """The result names the source, and a match has its value."""
    world.engine.faces = (face(similar(0.55)),)
    world.collection_threshold = collections
    result = world.recogniser.run(world.request(threshold=requests))
    assert (result.outcome, result.threshold_source) == (outcome, source)
    applied = next(value for value in (requests, collections, 0.5) if value is not None)
    assert all(match.threshold == applied for match in result.faces[0].matches)
    assert (result.threshold, result.identities) == (applied, 2)
    assert result.false_names == (0.01 if source == "model" else None)


def test_model_threshold_follows_the_number_of_identities(world: World) -> None:
    """A match among two people is none among a thousand."""
    world.engine.faces = (face(similar(0.6)),)
    people = [str(number) for number in range(1000)]
    assert world.recogniser.run(world.request()).result == "Ada"
    world.gallery.add(np.repeat(AXES[5:6], 1000, axis=0), people, people)
    among_many = world.recogniser.run(world.request())
    assert among_many.outcome is Outcome.UNKNOWN
    expected = TAILS["classic"].similarity_at(0.01 / 1002)
    assert among_many.threshold == pytest.approx(expected.value)
    assert (among_many.identities, among_many.threshold_source) == (1002, "model")
    assert among_many.threshold_extrapolated == expected.extrapolated is False
    world.gallery.remove(people)
    assert world.recogniser.run(world.request()).result == "Ada"


def test_two_faces_of_a_photo_are_never_the_same_person(world: World) -> None:
    """The person goes to the more similar face, and the result says so; the nearest people are those of each alone."""
    world.engine.faces = (face(similar(0.8)), face(similar(0.9), x=60))
    request = world.request().model_copy(update={"operation": Recognise(nearest=1)})
    result = world.recogniser.run(request)
    assert (result.outcome, result.result) == (Outcome.UNKNOWN, "Unknown")
    first, second = result.faces
    assert [match.identity for match in second.matches] == ["Ada"]
    (left_out,) = first.left_out
    assert (left_out.identity, left_out.reason) == ("Ada", "other_face")
    assert left_out.similarity == pytest.approx(0.8, abs=1e-6)
    assert [[match.template_id for match in each.nearest] for each in result.faces] == [["t1"], ["t1"]]


def test_rejected_person_is_no_match(world: World) -> None:
    """For a face that is like the rejected one; another photo of the person is a match."""
    world.rejected = {"Ada": np.stack([similar(0.7)])}
    world.engine.faces = (face(similar(0.7)),)
    result = world.recogniser.run(world.request())
    assert (result.outcome, result.faces[0].left_out[0].reason) == (Outcome.UNKNOWN, "rejected")
    world.engine.faces = (face(similar(0.95)),)
    assert world.recogniser.run(world.request()).result == "Ada"


def test_extrapolated_threshold_is_marked(world: World) -> None:
    """From 10 000 people on, one in a hundred strangers is beyond the measurements."""
    people = [str(number) for number in range(10_000)]
    world.gallery = GalleryIndex(np.repeat(AXES[5:6, :16], 10_000, axis=0), people, people)
    world.engine.faces = (face(AXES[5, :16]),)
    result = world.recogniser.run(world.request())
    assert (result.threshold_extrapolated, result.result) == (True, "0")
    assert not world.recogniser.run(world.request(threshold=0.9)).threshold_extrapolated


def test_faces_beyond_the_limit_are_counted(world: World) -> None:
    """The result has their number."""
    world.engine.faces, world.engine.more_faces = (face(AXES[0]),), 7
    assert world.recogniser.run(world.request()).more_faces == 7


def test_result_has_the_quality_of_a_face(world: World) -> None:
    """With the reasons; it is unset if the engine does not judge it."""
    world.engine.faces = (replace(face(AXES[0]), quality=Quality(0.42, ("blurred", "tilted"))), face(AXES[1], 100))
    judged, unjudged = world.recogniser.run(world.request()).faces
    assert judged.quality == FaceQuality(score=0.42, reasons=("blurred", "tilted"))
    assert unjudged.quality is None


def test_picture_without_a_face_is_no_face(world: World) -> None:
    """It is an outcome, not an error."""
    result = world.recogniser.run(world.request())
    assert (result.outcome, result.result) == (Outcome.NO_FACE, "No-Face")
    assert (result.threshold, result.identities, result.threshold_source) == (None, None, None)


def test_empty_gallery_gives_unknown(world: World) -> None:
    """Before the first enrolment."""
    world.gallery = GalleryIndex(np.empty((0, 512), np.float32), [], [])
    world.engine.faces = (face(AXES[0]),)
    assert world.recogniser.run(world.request()).outcome is Outcome.UNKNOWN


def test_invalid_image_is_answered_with_its_reason(world: World) -> None:
    """The client reads what to send instead."""
    world.engine.error = InvalidImage("the picture is cut off; send it again")
    result = world.recogniser.run(world.request())
    assert (result.outcome, result.detail) == (Outcome.INVALID_IMAGE, "the picture is cut off; send it again")
    assert len(world.published) == 1


def test_redelivery_publishes_the_stored_result(world: World) -> None:
    """Nothing is computed twice if only the acknowledgement was lost."""
    request = world.request()
    first = world.recogniser.run(request)
    again = world.recogniser.run(request, attempt=2)
    assert again == first
    assert world.engine.calls == 1
    assert len(world.published) == 2


def test_redelivery_without_a_stored_result_computes(world: World) -> None:
    """The first worker died before it stored one."""
    assert world.recogniser.run(world.request(), attempt=3).attempt == 3
    assert world.engine.calls == 1


def test_unreadable_stored_result_is_computed_again(world: World) -> None:
    """A newer worker may have stored it."""
    request = world.request()
    world.store.put("out", output_key(request.request_id, "a.jpg"), b'{"version": 99}', "application/json")
    result = world.recogniser.run(request, attempt=2)
    assert RecognitionResult.parse(world.store.get("out", output_key(request.request_id, "a.jpg"))) == result


@pytest.mark.parametrize("error", [EngineFailure("crashed"), Transient("S3 is down")])
def test_error_publishes_nothing(world: World, error: Exception) -> None:
    """The driver chooses between retry and dead letter."""
    world.engine.error = error
    with pytest.raises(type(error)):
        world.recogniser.run(world.request())
    assert world.published == []
    assert world.store.keys("out") == []


def test_failed_store_publishes_nothing(world: World) -> None:
    """A published result can always be fetched."""
    request = world.request()
    world.store.outage = Transient("S3 is down")
    with pytest.raises(Transient):
        world.recogniser.run(request)
    assert world.published == []


def test_missing_input_raises_object_missing(world: World) -> None:
    """It has expired; a retry does not help."""
    request = world.request()
    world.store.delete("in", request.input.key)
    with pytest.raises(ObjectMissing):
        world.recogniser.run(request)


def test_missing_response_queue_keeps_the_result(world: World) -> None:
    """Its web process has left; the result can be fetched."""
    world.refusal = QueueMissing("responses")
    request = world.request()
    world.recogniser.run(request)
    assert world.store.exists("out", output_key(request.request_id, "a.jpg"))


def test_refused_result_stays_stored(world: World) -> None:
    """The queue would refuse it every time; the web tier finds it in the store."""
    world.refusal = Refused("too large")
    request = world.request()
    world.recogniser.run(request)
    assert world.store.exists("out", output_key(request.request_id, "a.jpg"))


def test_fail_answers_the_client(world: World) -> None:
    """It need not wait until the time-out."""
    result = world.recogniser.fail(world.request(), "the engine crashed on it")
    assert (result.outcome, result.result, result.detail) == (Outcome.FAILED, "", "the engine crashed on it")
    assert world.published == [("responses", result)]


def test_copy_by_filename_has_the_bare_name(world: World) -> None:
    """`FACEREC_KEY_STYLE=filename`: it lies beside the result under the request id."""
    world.engine.faces = (face(AXES[0]),)
    request = world.request("holiday.photo.jpg")
    world.make(copy_by_filename=True).run(request)
    assert world.store.get("out", "holiday.photo") == b"Ada"
    assert world.store.exists("out", f"{request.request_id}/holiday.photo.json")


def test_copy_of_a_long_name_has_a_valid_key(world: World) -> None:
    """S3 takes keys of 1 024 bytes; the client's name may be longer."""
    world.make(copy_by_filename=True).run(world.request("\N{SMILING FACE WITH SUNGLASSES}" * 300 + ".jpg"))
    assert all(len(key.encode()) <= 1024 for key in world.store.keys("out"))
    assert len(world.store.keys("out")) == 2


def test_two_uploads_of_one_name_never_mix(world: World) -> None:
    """The request id keeps them apart."""
    one, two = world.request("x.jpg"), world.request("x.jpg")
    world.engine.faces = (face(AXES[0]),)
    world.recogniser.run(one)
    world.engine.faces = (face(AXES[1]),)
    world.recogniser.run(two)

    def name(request_id: UUID) -> str:
        return RecognitionResult.parse(world.store.get("out", output_key(request_id, "x.jpg"))).result

    assert (name(one.request_id), name(two.request_id)) == ("Ada", "Grace")
