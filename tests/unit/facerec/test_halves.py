"""The use case in two halves with in-memory ports: their results are those of the whole one."""

from io import BytesIO
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from PIL import Image

from facerec.answering import Answering, StageTimer
from facerec.errors import EngineFailure, InvalidMessage, ObjectMissing, OtherModel, Transient
from facerec.message_base import ObjectRef
from facerec.messages import FacesMessage, Forwarded, Outcome, RecognitionResult, Refusal
from facerec.object_keys import faces_key, input_key
from facerec.operations import Compare, Detect, Enrol, Operation, Recognise, Reject, SearchTemplate, Verify
from tests.support.halves import SIDE, World, photo


@pytest.fixture
def world() -> World:
    """A fresh world for each test."""
    return World()


@pytest.mark.parametrize(("width", "value"), [(10, 8), (10, 7), (30, 200), (100, 77)])
def test_halves_answer_as_the_whole_use_case(world: World, width: int, value: int) -> None:
    """Names, similarities, boxes, quality, threshold; only the times differ, and all stages are there."""
    request = world.request(photo(width, value))
    expected = world.whole.run(request)
    assert world.detection.run(request) == Forwarded(width // 10)
    assert world.published == [expected]
    result = world.recognition.run(world.sent())
    assert result.model_copy(update={"timings_ms": expected.timings_ms}) == expected
    assert set(result.timings_ms) >= set(expected.timings_ms) | {"wait"}
    assert result.timings_ms["wait"] == 0.75
    assert world.published == [expected, result]


@pytest.mark.parametrize("content", [photo(5), b"no picture"])
def test_photo_without_a_face_is_answered_at_once(world: World, content: bytes) -> None:
    """Nothing goes onward, and the result is the whole use case's."""
    request = world.request(content)
    result, expected = world.detection.run(request), world.whole.run(request)
    assert isinstance(result, RecognitionResult)
    assert result.outcome in {Outcome.NO_FACE, Outcome.INVALID_IMAGE}
    assert result.model_copy(update={"timings_ms": expected.timings_ms}) == expected
    assert world.queues.size("faces") == 0
    assert world.published == [result, expected]


def test_detection_answers_what_needs_no_embedding(world: World) -> None:
    """Nothing goes onward; the primary face is the first."""
    request = world.request(photo(30)).model_copy(update={"operation": Detect()})
    result = world.detection.run(request)
    assert isinstance(result, RecognitionResult)
    assert (result.outcome, result.operation, len(result.faces)) == (Outcome.DONE, "detect", 3)
    recognised = world.whole.run(world.request(photo(30)))
    assert [face.box for face in result.faces] == [face.box for face in recognised.faces]
    assert (result.width, result.height) == (recognised.width, recognised.height)
    assert world.queues.size("faces") == 0


@pytest.mark.parametrize(
    "operation",
    [
        Compare(target=ObjectRef(bucket="in", key="b.jpg", size=1)),
        Verify(identity="Ada"),
        SearchTemplate(template_id="0" * 32),
        Enrol(identity="Ada"),
        Reject(identity="Ada"),
    ],
    ids=lambda operation: operation.kind,
)
def test_functions_refuse_other_operations(world: World, operation: Operation) -> None:
    """At once, with a sentence for the client: the photo is not even read."""
    result = world.detection.run(world.request(b"").model_copy(update={"operation": operation}))
    assert isinstance(result, RecognitionResult)
    assert (result.outcome, result.refusal) == (Outcome.REFUSED, Refusal.UNSUPPORTED)
    assert result.detail == "the functions recognise and detect faces only: an app tier of workers does this, too"
    assert world.published == [result]


def test_functions_list_the_nearest_people(world: World) -> None:
    """As a worker does."""
    request = world.request(photo(10, 0)).model_copy(update={"operation": Recognise(nearest=2)})
    world.detection.run(request)
    result = world.recognition.run(world.sent())
    assert [match.identity for match in result.faces[0].nearest] == ["Ada", "Grace"]


def test_crops_of_a_portrait_are_in_the_message(world: World) -> None:
    """One put and one get less for each photo."""
    world.detection.run(world.request(photo(10)))
    message = world.sent()
    assert message.crops is not None
    assert len(world.store.keys("in")) == 1


def test_crops_of_a_group_are_in_an_object(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the message would be too large; it is gone with the input."""
    world = World(max_message_bytes=16_384)
    noise = np.random.default_rng(1).integers(0, 256, (10, 100, 3), dtype=np.uint8)
    stream = BytesIO()
    Image.fromarray(noise).save(stream, "PNG")
    request = world.request(stream.getvalue())
    monkeypatch.setattr(world.model, "crop", lambda image, _face: np.resize(image, (SIDE, SIDE, 3)))
    world.detection.run(request)
    message = world.sent()
    assert message.crops is None
    assert message.crops_object is not None
    assert (message.crops_object.bucket, message.crops_object.key) == ("in", faces_key(request.request_id, "a.jpg"))
    assert message.crops_object.size == len(world.store.get("in", message.crops_object.key))
    assert len(message.to_json()) <= 16_384
    result, expected = world.recognition.run(message), world.whole.run(request)
    assert len(result.faces) == 10
    assert result.model_copy(update={"timings_ms": expected.timings_ms}) == expected


def test_crowd_is_cut_to_the_faces_of_a_message() -> None:
    """As a result on the response queue; the number of the others is known."""
    world = World(max_message_bytes=16_384)
    world.detection.run(world.request(photo(200)))
    result = world.recognition.run(world.sent())
    assert (len(result.faces), result.more_faces) == (16, 4)


def test_upload_is_never_overwritten_by_its_faces() -> None:
    """Whatever its name."""
    request_id = uuid4()
    assert faces_key(request_id, "a.faces") not in {input_key(request_id, name) for name in ("a", "a.faces", "a.jpg")}


def forwarded(world: World) -> FacesMessage:
    """The message about a photo of two faces."""
    world.detection.run(world.request(photo(20, 8)))
    return world.sent()


def test_faces_of_another_model_are_not_compared(world: World) -> None:
    """While models are exchanged, both are in flight."""
    message = forwarded(world).model_copy(update={"model_id": "older"})
    with pytest.raises(OtherModel, match="older"):
        world.recognition.run(message)
    assert world.published == []
    assert world.store.keys("out") == []


@pytest.mark.parametrize(("bucket", "key"), [("out", None), ("in", "somebody-elses.jpg")])
def test_crops_are_read_from_their_place_only(world: World, bucket: str, key: str | None) -> None:
    """A forged message reads no other object."""
    message = forwarded(world)
    own = key or faces_key(message.request.request_id, message.request.filename)
    world.store.put(bucket, own, b"secret", "text/plain")
    stored = ObjectRef(bucket=bucket, key=own, size=6)
    with pytest.raises(InvalidMessage, match="not in bucket 'in'"):
        world.recognition.run(message.model_copy(update={"crops": None, "crops_object": stored}))


def test_expired_crops_are_missing() -> None:
    """A retry does not help."""
    world = World(max_message_bytes=2_000)
    message = forwarded(world)
    assert message.crops_object is not None
    world.store.delete("in", message.crops_object.key)
    with pytest.raises(ObjectMissing):
        world.recognition.run(message)


def test_redelivered_faces_publish_the_stored_result(world: World) -> None:
    """Even if the model has been replaced since."""
    message = forwarded(world)
    first = world.recognition.run(message)
    again = world.recognition.run(message.model_copy(update={"model_id": "older"}), attempt=2)
    assert again == first
    assert world.published == [first, first]


def test_redelivered_photo_that_is_answered_goes_nowhere(world: World) -> None:
    """The recognition was quicker than the acknowledgement of the detection."""
    request = world.request(photo(20, 8))
    world.detection.run(request)
    result = world.recognition.run(world.sent())
    assert world.detection.run(request, attempt=2) == result
    assert world.queues.size("faces") == 0


def test_redelivered_photo_without_a_result_is_detected_again(world: World) -> None:
    """The first function ended before it sent the faces."""
    assert world.detection.run(world.request(photo(20)), attempt=3) == Forwarded(2)
    assert world.sent().model_id == world.model.model_id


@pytest.mark.parametrize("error", [EngineFailure("crashed"), Transient("closing")])
def test_error_of_the_detection_sends_nothing(world: World, error: Exception) -> None:
    """The driver chooses between retry and dead letter."""
    world.model.error = error
    with pytest.raises(type(error)):
        world.detection.run(world.request(photo(20)))
    assert world.queues.size("faces") == 0
    assert world.published == []


def test_each_half_can_answer_a_failure(world: World) -> None:
    """With the model of the half; a stored result is kept."""
    request = world.request(photo(20))
    halves: list[Answering] = [world.detection, world.recognition]
    for half in halves:
        result = half.fail(request, "it crashed", 2, retryable=True)
        assert (result.outcome, result.detail, result.retryable) == (Outcome.FAILED, "it crashed", True)
        assert result.model_id == world.model.model_id
    first, second = world.published
    assert first == second


def test_services_of_each_half_are_wrapped(world: World) -> None:
    """So that each call is tried again; engines are not services."""
    wrapped: list[object] = []

    def wrap(port: Any) -> Any:
        wrapped.append(port)
        return port

    for half in (world.detection, world.recognition):
        assert half.with_ports(wrap) == half
    recognition = [world.store, world, world, world.recognition.devices]
    assert wrapped == [world.store, world, world.detection.faces, *recognition]


def test_timer_of_a_delivery_has_its_own_stages_only(world: World) -> None:
    """Its log line is about this delivery; the result is about both."""
    first, second = StageTimer(), StageTimer()
    world.detection.run(world.request(photo(20)), 1, first)
    result = world.recognition.run(world.sent(), 1, second)
    assert set(first.timings_ms) == {"fetch", "engine", "wait", "decode", "detect", "send"}
    assert set(second.timings_ms) == {"engine", "wait", "embed", "match", "store", "publish"}
    assert set(result.timings_ms) == {"fetch", "engine", "wait", "decode", "detect", "embed", "match"}
