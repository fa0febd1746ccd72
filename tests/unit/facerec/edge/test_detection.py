"""From frames to spooled messages."""

import json
import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from facerec.edge import detection as module
from facerec.edge.counters import Counters
from facerec.edge.detection import Detection
from facerec.edge.frame import Frame
from facerec.edge.frame_queue import FrameQueue
from facerec.edge.spool import Spool
from facerec.edge.tracking import Tracker
from facerec.edge_messages import EdgeFaces, faces_topic
from facerec.errors import ConfigurationError
from facerec.messages import Outcome, RecognitionResult
from facerec.settings.edge import EdgeSettings
from tests.fakes.detector import CULPRIT, DEADLY, HELD, INVALID, NOISY, FakeDetector
from tests.support.logs import capture_logs

THING = "door-1"
SECONDS = 20


class Device:
    """A detection with what is around it."""

    def __init__(self, folder: Path, tracker: Tracker | None = None, **settings: Any) -> None:
        self.folder = folder
        self.detector = FakeDetector()
        self.counters = Counters()
        self.frames = FrameQueue(100, self.counters)
        self.spool = Spool(folder / "spool.db", 1_000_000, "normal")
        self.ended: list[ConfigurationError] = []
        self.settled: list[str] = []
        self._settled = threading.Condition()
        self.tried = threading.Semaphore(0)
        self.detection = Detection(
            self.frames,
            self.detector,
            self.spool,
            self.counters,
            EdgeSettings(**settings),
            THING,
            at_once=2,
            tracker=tracker,
            on_end=self._end,
            backoff=self._backoff,
        )

    def put(self, name: str, image: bytes, *, requested: bool = True) -> Frame:
        """Bring a frame."""

        def settle() -> None:
            with self._settled:
                self.settled.append(name)
                self._settled.notify_all()

        frame = Frame(uuid.uuid4(), name, image, datetime.now(UTC), requested=requested, settled=settle)
        self.frames.put(frame)
        return frame

    def wait_for_settled(self, count: int) -> list[str]:
        """The names of the settled frames, once there are so many."""
        with self._settled:
            assert self._settled.wait_for(lambda: len(self.settled) >= count, SECONDS)
            return list(self.settled)

    def messages(self) -> list[dict[str, Any]]:
        """What was spooled."""
        spooled = self.spool.oldest(100)
        assert {message.topic for message in spooled} <= {faces_topic(THING)}
        return [json.loads(message.payload) for message in spooled]

    def close(self) -> None:
        """End what still runs."""
        self.detector.close()
        self.detection.stop(SECONDS)
        self.spool.close()

    def _end(self, reason: ConfigurationError) -> None:
        self.ended.append(reason)
        with self._settled:
            self._settled.notify_all()

    def wait_for_end(self) -> None:
        """Wait until the detection has said that the engine ended."""
        with self._settled:
            assert self._settled.wait_for(lambda: bool(self.ended), SECONDS)

    def _backoff(self, *_: float) -> float:
        self.tried.release()
        return 0.01


Open = Callable[..., Device]


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Open]:
    """Opens a device whose detection runs."""
    opened: list[Device] = []

    def open_device(**options: Any) -> Device:
        made = Device(tmp_path, **options)
        opened.append(made)
        made.detection.start()
        return made

    yield open_device
    for each in opened:
        each.close()


def test_frame_with_faces_becomes_one_message(device: Open) -> None:
    """The primary face and the others; the frame is settled after its message was spooled."""
    at = device(results=True)
    frame = at.put("a.jpg", b"2")
    at.wait_for_settled(1)
    (message,) = at.messages()
    faces = EdgeFaces.parse(json.dumps(message))
    assert (faces.request_id, faces.filename, faces.thing) == (frame.request_id, "a.jpg", THING)
    assert (faces.model_id, faces.results, len(faces.other_faces)) == ("fake-model", True, 1)
    assert faces.timings_ms["detect"] == 2.0
    assert at.counters.read()["faces"] == 2


def test_requested_frame_without_a_face_is_answered(device: Open) -> None:
    """With the final result, which says by what it was found."""
    at = device()
    frame = at.put("a.jpg", b"0")
    at.wait_for_settled(1)
    (message,) = at.messages()
    result = RecognitionResult.parse(json.dumps(message))
    assert (result.request_id, result.result, result.outcome) == (frame.request_id, "No-Face", Outcome.NO_FACE)
    assert (result.model_id, result.engine, result.precision) == ("fake-model", "fake", "fp32")
    assert at.counters.read()["no_face"] == 1


def test_messages_are_spooled_in_the_order_of_frames(device: Open) -> None:
    """Also of those that the engine finishes in another order."""
    at = device()
    at.put("0.jpg", HELD)
    for number in range(1, 6):
        at.put(f"{number}.jpg", b"1")
    at.detector.release.set()
    names = [f"{number}.jpg" for number in range(6)]
    assert at.wait_for_settled(6) == names
    assert [message["filename"] for message in at.messages()] == names


def test_frames_without_an_answer_are_settled_and_counted(device: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """No message about a picture that is none or makes the engine fail; one line per burst and kind."""
    at = device()
    with capture_logs() as logs:
        for number, image in enumerate([INVALID, INVALID, CULPRIT, CULPRIT, b"1", INVALID]):
            at.put(f"{number}.jpg", image)
        at.wait_for_settled(6)
        monkeypatch.setattr(module, "_BURST_SECONDS", 0)  # as if a minute had passed
        at.put("6.jpg", INVALID)
        at.wait_for_settled(7)
    assert [message["filename"] for message in at.messages()] == ["4.jpg"]
    counts = at.counters.read()
    assert (counts["malformed"], counts["failed"]) == (4, 2)
    warnings = [(record["event"], record["filename"]) for record in logs if record["log_level"] == "warning"]
    assert warnings == [("frame_malformed", "0.jpg"), ("frame_failed", "2.jpg"), ("frame_malformed", "6.jpg")]


def test_frame_without_an_answer_is_rejected_if_its_source_keeps_such_frames(device: Open) -> None:
    """With the reason, and not settled: a folder moves the file away instead of removing it."""
    at = device()
    rejected: list[str] = []
    at.frames.put(
        Frame(uuid.uuid4(), "cut.jpg", INVALID, datetime.now(UTC), settled=pytest.fail, rejected=rejected.append)
    )
    at.put("next.jpg", b"1")
    assert at.wait_for_settled(1) == ["next.jpg"]
    assert len(rejected) == 1


def test_camera_sends_who_stays_once(device: Open) -> None:
    """With a tracker, and nothing without a face."""
    at = device(tracker=Tracker(30))
    for number, image in enumerate([b"0", b"1", b"1", b"1"]):
        at.put(f"{number}.jpg", image, requested=False)
    at.wait_for_settled(4)
    assert [message["filename"] for message in at.messages()] == ["1.jpg"]
    counts = at.counters.read()
    assert (counts["no_face"], counts["suppressed"], counts["faces"]) == (1, 2, 1)


def test_camera_sends_the_new_face_alone(device: Open) -> None:
    """Beside one that was sent before, which is counted."""
    at = device(tracker=Tracker(30))
    at.put("0.jpg", b"1", requested=False)
    at.put("1.jpg", b"2", requested=False)
    at.wait_for_settled(2)
    second = EdgeFaces.parse(json.dumps(at.messages()[1]))
    assert (second.box.x_min, second.face_index, second.other_faces, second.more_faces) == (100.0, 0, (), 1)


def test_camera_without_tracking_is_answered_each_time(device: Open) -> None:
    """As if each frame were requested."""
    at = device(tracking=False)
    for number, image in enumerate([b"0", b"1", b"1"]):
        at.put(f"{number}.jpg", image, requested=False)
    at.wait_for_settled(3)
    assert [message["filename"] for message in at.messages()] == ["0.jpg", "1.jpg", "2.jpg"]


def test_message_that_cannot_fit_is_refused(device: Open) -> None:
    """The frame is settled: it would not fit the next time."""
    at = device(max_message_bytes=2000, jpeg_quality=100, min_jpeg_quality=100)
    with capture_logs() as logs:
        at.put("a.jpg", NOISY)
        at.wait_for_settled(1)
    assert at.messages() == []
    assert at.counters.read()["refused"] == 1
    assert [record["event"] for record in logs if record["log_level"] == "warning"] == ["message_too_large"]


def test_frame_waits_while_the_disk_refuses(tmp_path: Path) -> None:
    """It is settled when its message is on disk; frames that need no answer are dropped meanwhile."""
    gone = tmp_path / "gone"
    at = Device(gone, tracker=Tracker(30))
    at.detection.start()
    with capture_logs() as logs:
        at.put("camera.jpg", b"1", requested=False)
        at.put("asked.jpg", b"1")
        for _ in range(3):
            assert at.tried.acquire(timeout=SECONDS)
        assert at.settled == ["camera.jpg"]
        assert at.detection.problem is not None
        gone.mkdir()
        assert at.wait_for_settled(2) == ["camera.jpg", "asked.jpg"]
    assert [message["filename"] for message in at.messages()] == ["asked.jpg"]
    assert at.counters.read()["failed"] == 1
    events = [record["event"] for record in logs if record["log_level"] != "debug"]
    assert events == ["spool_unreachable", "spool_reachable_again"]
    assert at.detection.problem is None
    at.close()


def test_stop_finishes_what_waits(device: Open) -> None:
    """All frames of the queue, within the grace."""
    at = device()
    for number in range(10):
        at.put(f"{number}.jpg", b"0")
    at.detection.stop(SECONDS)
    assert len(at.settled) == len(at.messages()) == 10


def test_stop_leaves_unfinished_frames_unsettled(device: Open) -> None:
    """They come again from their source."""
    at = device()
    at.put("held.jpg", HELD)
    at.put("behind.jpg", b"0")
    at.detection.stop(0.1)
    at.detector.close()
    assert at.settled == []
    assert at.messages() == []


def test_end_of_the_engine_is_told(device: Open) -> None:
    """Its frame is not settled: it comes again after the restart."""
    at = device()
    at.put("a.jpg", DEADLY)
    at.wait_for_end()
    assert [str(reason) for reason in at.ended] == ["the engine does not start again"]
    assert at.settled == []


def test_fault_of_a_source_does_not_end_the_detection(device: Open) -> None:
    """It is logged, and the next frame is looked at."""
    at = device()

    def fail() -> None:
        raise RuntimeError("a fault of the source")

    with capture_logs() as logs:
        at.frames.put(Frame(uuid.uuid4(), "a.jpg", b"0", datetime.now(UTC), settled=fail))
        at.put("b.jpg", b"0")
        at.wait_for_settled(1)
    assert [record["event"] for record in logs if record["log_level"] == "error"] == ["frame_not_settled"]
