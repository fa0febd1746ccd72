"""Faces from devices on the faces queue: told apart, checked, recognised, answered where they are to be answered."""

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from facerec.answering import StageTimer
from facerec.delivery.driver import DeliveryRecord, TaskDelivery, TaskDriver
from facerec.delivery.retry import RetryBudget
from facerec.device_faces import DeviceFaces, decode_faces, faces_request_id, jpeg_faces
from facerec.edge_messages import EdgeFaces, result_id, results_topic
from facerec.errors import ConfigurationError, InvalidMessage, OtherModel, Refused, Transient
from facerec.messages import FacesMessage, Outcome, RecognitionResult
from facerec.object_keys import output_key
from tests.fakes.dead_letters import InMemoryDeadLetterQueue
from tests.support.halves import NOW, SIDE, World, photo
from tests.support.logs import capture_logs

Json = dict[str, Any]

RESPONSES = "responses"
FRAME_ID = uuid4()


def crop(value: int = 8, side: int = SIDE, format_name: str = "JPEG") -> str:
    """A crop of one grey value, which decides what is seen in it."""
    stream = BytesIO()
    Image.new("RGB", (side, side), (value, value, value)).save(stream, format_name)
    return base64.b64encode(stream.getvalue()).decode()


BARE: Json = {
    "request_id": str(FRAME_ID),
    "filename": "door 1.jpg",
    "face_index": 0,
    "box": {"x_min": 1.0, "y_min": 2.0, "x_max": 30.5, "y_max": 40.0},
    "encoded": crop(),
    "captured_at": "2026-11-01T11:59:00Z",
    "thing": "door-1",
}
"""The fields of the wire contract alone, about a face of Ada."""
OTHER: Json = {
    "face_index": 1,
    "box": {"x_min": 50.0, "y_min": 2.0, "x_max": 60.0, "y_max": 12.0},
    "encoded": crop(204),
    "probability": 0.8,
    "landmarks": [[51.0, 3.0]] * 5,
    "factors": [[0.5, "blurred"]],
}
FULL: Json = BARE | {
    "version": 1,
    "model_id": "fake-1",
    "width": 100,
    "height": 80,
    "other_faces": [OTHER],
    "more_faces": 2,
    "results": True,
    "timings_ms": {"detect": 12.5},
}


@pytest.fixture
def world() -> World:
    """A fresh world for each test, where the device listens."""
    world = World()
    world.queues.create(results_topic("door-1"))
    return world


def decoded(message: Json, now: datetime = NOW) -> DeviceFaces:
    """A device's message as the use case gets it."""
    request, faces = decode_faces(json.dumps(message), response_queue=RESPONSES, now=now)
    assert isinstance(faces, DeviceFaces)
    assert faces.request == request
    return faces


def recognised(world: World, message: Json, attempt: int = 1) -> RecognitionResult:
    """The result of a device's message."""
    return world.recognition.run(decoded(message), attempt)


def to_device(world: World) -> list[RecognitionResult]:
    """What the device has got."""
    topic = results_topic("door-1")
    received = world.queues.receive(topic, 0)
    for _, receipt in received:
        world.queues.delete(topic, receipt)
    return [RecognitionResult.parse(body) for body, _ in received]


def test_bare_message_is_recognised_and_answered(world: World) -> None:
    """As the contract has it: stored under its id and published, with the device and the time of the frame."""
    result = recognised(world, BARE)
    assert (result.request_id, result.result, result.filename) == (FRAME_ID, "Ada", "door 1.jpg")
    assert (result.thing, result.captured_at, result.frame_id) == ("door-1", NOW - timedelta(minutes=1), None)
    assert (result.collection, len(result.faces), result.model_id) == ("default", 1, "fake-1")
    assert result.faces[0].box.x_max == 30.5
    assert world.published == [result]
    stored = world.store.get("out", output_key(FRAME_ID, "door 1.jpg"))
    assert RecognitionResult.parse(stored) == result
    assert to_device(world) == []


def test_full_message_has_all_faces_of_the_frame(world: World) -> None:
    """The primary one decides; the stages of device and cloud are in the result."""
    result = recognised(world, FULL)
    assert (result.result, result.outcome, result.more_faces) == ("Ada", Outcome.MATCH, 2)
    primary, other = result.faces
    assert primary.box.x_max == 30.5
    assert (other.probability, other.landmarks, other.matches) == (0.8, ((51.0, 3.0),) * 5, ())
    assert other.quality is not None
    assert "blurred" in other.quality.reasons
    assert set(result.timings_ms) == {"detect", "engine", "wait", "decode", "embed", "match"}


def test_result_goes_to_the_device_that_asks_for_it(world: World) -> None:
    """After it was stored and published."""
    timer = StageTimer()
    work = decoded(FULL)
    result = world.recognition.run(work, 1, timer)
    assert to_device(world) == [result]
    assert list(timer.timings_ms)[-2:] == ["store", "publish"]


def test_device_that_cannot_be_reached_is_tried_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message is delivered again; then the stored result is published again, also to the device."""

    def unreachable(thing: str, result: RecognitionResult) -> None:
        raise Transient("no connection")

    with monkeypatch.context() as patch:
        patch.setattr(world.recognition.devices, "publish", unreachable)
        with pytest.raises(Transient):
            recognised(world, FULL)
    first = RecognitionResult.parse(world.store.get("out", output_key(FRAME_ID, "door 1.jpg")))
    assert recognised(world, FULL, attempt=2) == first
    assert to_device(world) == [first]


@pytest.mark.parametrize("error", [Refused("too large"), ConfigurationError("not allowed")])
def test_refused_device_result_is_logged_once_and_harms_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """The result is stored and on the response queue."""

    def refuse(thing: str, result: RecognitionResult) -> None:
        raise error

    monkeypatch.setattr(world.recognition.devices, "publish", refuse)
    with capture_logs() as logs:
        result = recognised(world, FULL)
    assert world.published == [result]
    (line,) = [line for line in logs if line["event"] == "device_result_refused"]
    assert (line["thing"], line["reason"]) == ("door-1", str(error))


def test_failure_is_told_to_the_device_too(world: World) -> None:
    """With the sentence for the client."""
    work = decoded(FULL)
    failed = world.recognition.fail(work.request, "it crashed", 4, retryable=True)
    assert (failed.outcome, failed.thing, failed.captured_at) == (Outcome.FAILED, "door-1", work.request.captured_at)
    assert to_device(world) == [failed]


def test_device_gets_no_result_that_is_not_its_own(world: World) -> None:
    """It chooses its request ids, so it may take one of an upload, or of another device."""
    upload = world.whole.run(world.request(photo(10, 8)))
    forged = FULL | {"request_id": str(upload.request_id), "filename": upload.filename}
    world.recognition.fail(decoded(forged).request, "its crop cannot be used", 1)
    (answer,) = to_device(world)
    assert (answer.outcome, answer.result) == (Outcome.FAILED, "")
    other = recognised(world, FULL | {"thing": "door-2", "results": False})
    answer = recognised(world, FULL | {"encoded": crop(204)}, attempt=2)
    assert (other.result, answer.result, answer.thing) == ("Ada", "Unknown", "door-1")


def test_each_face_sent_alone_has_a_result_of_its_own(world: World) -> None:
    """A device may send one message per face: none replaces the primary face's, and a repeated one changes nothing."""
    primary = recognised(world, BARE)
    other = recognised(world, BARE | {"face_index": 2, "encoded": crop(204)})
    assert (primary.result, other.result) == ("Ada", "Unknown")
    assert (other.request_id, other.frame_id) == (result_id(FRAME_ID, 2), FRAME_ID)
    stored = {key.split("/", 1)[0] for key in world.store.keys("out")}
    assert stored == {str(FRAME_ID), str(other.request_id)}
    assert recognised(world, BARE | {"face_index": 2}, attempt=2) == other


def test_lossless_faces_are_told_from_those_of_a_device(world: World) -> None:
    """Both come through the same queue."""
    sent = world.request(photo(20, 8))
    world.detection.run(sent)
    message = world.sent()
    request, work = decode_faces(message.to_json(), response_queue=RESPONSES, now=NOW)
    assert (request, work) == (sent, message)
    assert faces_request_id(message.to_json()) == str(sent.request_id)


def test_device_cannot_pass_for_the_detection(world: World) -> None:
    """Which may choose the collection and the response queue: the IoT rule adds `thing` to whatever a device sends."""
    world.detection.run(world.request(photo(20, 8)))
    forged = json.loads(world.sent().to_json()) | {"thing": "door-1"}
    with pytest.raises(InvalidMessage, match="unreadable EdgeFaces"):
        decode_faces(json.dumps(forged), response_queue=RESPONSES, now=NOW)
    request = decoded(BARE | {"collection": "staff", "reply_to": "another", "threshold": 0.0}).request
    assert (request.collection, request.reply_to, request.threshold) == ("default", RESPONSES, None)


@pytest.mark.parametrize(
    ("captured_at", "submitted_at"),
    [
        ("2026-11-01T11:59:00Z", datetime(2026, 11, 1, 11, 59, tzinfo=UTC)),
        ("2026-11-01T13:59:00+02:00", datetime(2026, 11, 1, 11, 59, tzinfo=UTC)),
        ("2031-01-01T00:00:00Z", NOW),
        ("0001-01-01T00:00:00+14:00", datetime.fromisoformat("0001-01-01T00:00:00+14:00")),
        ("9999-12-31T23:59:59-12:00", NOW),
    ],
)
def test_wrong_clock_of_a_device_refuses_nothing(world: World, captured_at: str, submitted_at: datetime) -> None:
    """A frame of the future was submitted now; the result has the device's own time."""
    message = BARE | {"captured_at": captured_at}
    assert decoded(message).request.submitted_at == submitted_at
    assert recognised(world, message).captured_at == datetime.fromisoformat(captured_at)


@pytest.mark.parametrize("captured_at", ["1970-01-01T00:00:00Z", "2026-10-31T12:00:00Z", "9999-12-31T23:59:59Z"])
def test_frame_says_nothing_about_the_wait_for_workers(world: World, captured_at: str) -> None:
    """It may have waited on a device without a network, whose clock may be wrong: an operator would add workers."""
    records: list[DeliveryRecord] = []
    driver = TaskDriver(
        world.recognition,
        lambda body: decode_faces(body, response_queue=RESPONSES, now=NOW),
        InMemoryDeadLetterQueue(),
        None,
        lambda: RetryBudget(0, lambda _: False),
        max_receives=3,
        on_end=records.append,
    )
    body = json.dumps(BARE | {"captured_at": captured_at})
    with capture_logs() as logs:
        driver.handle(TaskDelivery(body, body, str(FRAME_ID), 1))
    assert [(record.outcome, record.queued_seconds) for record in records] == [(Outcome.MATCH, None)]
    (line,) = logs
    assert "queued_ms" not in line
    assert set(line["timings_ms"]) >= {"engine", "match", "store", "publish"}


def test_faces_of_another_model_are_not_embedded(world: World) -> None:
    """A device is updated after the cloud, or before it."""
    with pytest.raises(OtherModel, match="older"):
        recognised(world, FULL | {"model_id": "older"})
    assert world.published == []


NO_BASE64 = "no base64!"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"encoded": NO_BASE64}, "crop of face 0 is not base64"),
        ({"encoded": ""}, "crop of face 0 .*empty"),
        ({"encoded": crop(side=SIDE - 1)}, f"159 by 159 pixels, not a JPEG of {SIDE} by {SIDE}"),
        ({"encoded": crop(format_name="PNG")}, "a PNG of 160 by 160"),
        ({"encoded": crop()[:400]}, "cut off or damaged"),
        ({"other_faces": [OTHER | {"encoded": NO_BASE64}]}, "crop of face 1 is not base64"),
        ({"other_faces": [OTHER | {"encoded": crop(side=9)}]}, "crop of face 1 .*9 by 9"),
        ({"other_faces": [OTHER] * 100}, "101 faces, and at most 100"),
        ({"box": BARE["box"] | {"x_min": 100.0, "x_max": 120.0}}, "box of face 0 is not within the frame of 100 by 80"),
        ({"box": BARE["box"] | {"x_min": 31.0}}, "box of face 0"),
        ({"landmarks": [[1.0, 1.0]] * 4}, "4 landmarks instead of 5"),
    ],
)
def test_faces_that_cannot_be_used_are_an_invalid_message(world: World, changes: Json, reason: str) -> None:
    """With a reason that names the face; the device is answered that it failed, by the driver."""
    with pytest.raises(InvalidMessage, match=reason):
        recognised(world, FULL | changes)
    assert world.published == []


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"request_id": "1"}, "request_id"),
        ({"face_index": -1}, "face_index"),
        ({"box": None}, "box"),
        ({"box": BARE["box"] | {"x_min": float("nan")}}, "x_min"),
        ({"captured_at": "2026-11-01T11:59:00"}, "captured_at"),
        ({"thing": "../door"}, "thing"),
        ({"thing": "a/b"}, "thing"),
        ({"thing": ""}, "thing"),
        ({"width": 0}, "width"),
        ({"height": 1 << 40}, "height"),
        ({"more_faces": 10**300}, "more_faces"),
        ({"other_faces": [{}]}, "other_faces"),
        ({"probability": 1.5}, "probability"),
        ({"landmarks": [[1.0, 1.0]] * 6}, "landmarks"),
        ({"factors": [[0.5, "x" * 101]]}, "factors"),
        ({"timings_ms": {"detect": float("inf")}}, "timings_ms"),
        ({"timings_ms": {str(number): 1.0 for number in range(21)}}, "timings_ms"),
        ({"factors": [[0.5, "\ud800"]]}, "factors"),
        ({"version": 99}, "version"),
        ({"results": "perhaps"}, "results"),
    ],
)
def test_nonsense_of_a_device_is_an_invalid_message(changes: Json, field: str) -> None:
    """It has a reason for the dead-letter queue."""
    with pytest.raises(InvalidMessage, match=rf"unreadable EdgeFaces: .*{field}"):
        decoded(FULL | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"other_faces": [{}] * 30_000},
        {"landmarks": [1] * 60_000},
        {"timings_ms": {"x" * 100_000: "y"}},
        {"timings_ms": {"x" * 101: 1.0}},
        {"model_id": "x" * 100_000},
        {"width": "9" * 100_000},
    ],
)
def test_reason_is_short_whatever_a_device_sends(changes: Json) -> None:
    """It is logged, and kept with the dead letter."""
    with pytest.raises(InvalidMessage) as refused:
        decoded(FULL | changes)
    assert len(str(refused.value)) < 3000


@pytest.mark.parametrize("body", ["", "{", "[]", "7", "null", '"text"', "[" * 100_000, "{}", '{"request": 1}'])
def test_body_of_no_form_is_an_invalid_message(body: str) -> None:
    """Anybody with access to the queue may have sent it."""
    with pytest.raises(InvalidMessage, match=r"JSON|unreadable FacesMessage"):
        decode_faces(body, response_queue=RESPONSES, now=NOW)
    assert faces_request_id(body) == ""


def test_edges_of_the_frame_cut_the_box() -> None:
    """Boxes and landmarks of results lie within the picture."""
    message = FULL | {"box": {"x_min": -5.0, "y_min": 70.0, "x_max": 30.0, "y_max": 95.0}, "landmarks": [[-1, 99]] * 5}
    face = jpeg_faces(EdgeFaces.parse(message), max_faces=5).faces[0]
    assert (face.box.x_min, face.box.y_min, face.box.x_max, face.box.y_max) == (0, 70, 30, 80)
    assert face.landmarks == ((0.0, 80.0),) * 5


def test_request_id_of_a_device_is_that_of_its_result() -> None:
    """For log lines and dead letters."""
    assert faces_request_id(json.dumps(BARE)) == str(FRAME_ID)
    other = BARE | {"face_index": 3}
    assert faces_request_id(json.dumps(other)) == str(decoded(other).request.request_id)


@pytest.mark.parametrize("number", ["1e999", "-Infinity", "NaN", "9" * 5000])
def test_number_that_python_cannot_hold_gives_no_request_id(number: str) -> None:
    """An error here would fail the whole batch of a function, again and again."""
    body = json.dumps(BARE | {"face_index": 123}).replace("123", number)
    assert faces_request_id(body) == ""
    with pytest.raises(InvalidMessage):
        decode_faces(body, response_queue=RESPONSES, now=NOW)


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
anything = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner))


@given(st.sampled_from(sorted(FULL)), anything)
def test_any_value_of_any_field_is_used_or_refused(field: str, value: object) -> None:
    """Nothing else happens, so a message of a device cannot stop what reads it."""
    body = json.dumps(FULL | {field: value})
    faces_request_id(body)
    try:
        request, work = decode_faces(body, response_queue=RESPONSES, now=NOW)
        assert isinstance(work, DeviceFaces)
        jpeg_faces(work.message, max_faces=5)
    except InvalidMessage:
        return
    assert isinstance(request.request_id, UUID)
    assert request.submitted_at <= NOW


@given(st.binary(max_size=200), st.sampled_from([lambda plain: plain, base64.b64encode]))
def test_any_crop_is_an_invalid_message(content: bytes, encode: Callable[[bytes], bytes]) -> None:
    """Which the embedder's child finds."""
    with pytest.raises(InvalidMessage):
        recognised(World(), BARE | {"encoded": encode(content).decode("latin-1")})


@given(st.sampled_from(sorted(BARE)))
def test_every_field_of_the_contract_is_needed(field: str) -> None:
    """But the thing, without which it is no message of a device."""
    message = {name: value for name, value in BARE.items() if name != field}
    with pytest.raises(InvalidMessage, match=field if field != "thing" else FacesMessage.__name__):
        decoded(message)
