"""A camera's frames: video files and a stream on loopback as OpenCV plays them. No V4L2 device is tried here."""

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

from facerec.edge.counters import Counters
from facerec.edge.frame import Frame
from facerec.edge.frame_queue import FrameQueue
from facerec.edge.sources.camera import CameraSource
from model.header import read_header
from tests.support.logs import capture_logs
from tests.support.pictures import PORTRAIT

FAST = 500.0
"""Frames per second of a video that need not be watched."""


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """The portrait, with even sides."""
    picture = cv2.imread(str(PORTRAIT))
    assert picture is not None
    return np.ascontiguousarray(picture[:400, :320])


@pytest.fixture
def video(tmp_path: Path, pixels: np.ndarray) -> Callable[..., Path]:
    """Writes a video whose frames differ: each is a little darker than the one before."""

    def write(name: str, codec: str, frames: int, fps: float = FAST) -> Path:
        path = tmp_path / name
        height, width = pixels.shape[:2]
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, (width, height))
        assert writer.isOpened()
        for number in range(frames):
            writer.write(cv2.convertScaleAbs(pixels, alpha=1 - number / 100))
        writer.release()
        return path

    return write


class Run:
    """A running source, and the queue that it fills."""

    def __init__(
        self, camera: str, max_frames_per_second: float = 1_000_000, *, max_frames: int = 1000, **named: object
    ) -> None:
        self.counters = Counters()
        self.queue = FrameQueue(max_frames, self.counters)
        self._failures = threading.Semaphore(0)
        self.source = CameraSource(
            camera,
            max_frames_per_second,
            self.counters,
            backoff=self._failed,
            **named,  # type: ignore[arg-type]
        )
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self.source.run, args=(self.queue, self._stopping))
        self._thread.start()

    def _failed(self, _failures: int, _jitter: float) -> float:
        self._failures.release()
        return 0.01

    def wait_for_failures(self, count: int) -> None:
        """Return after so many more failures of the camera."""
        for _ in range(count):
            assert self._failures.acquire(timeout=30)

    def next(self) -> Frame:
        """The next frame, which must come."""
        frame = self.queue.get(30)
        assert frame is not None
        return frame

    def rest(self) -> list[Frame]:
        """All frames of a video, when it has ended."""
        self._thread.join(30)
        assert not self._thread.is_alive()
        frames = []
        while frame := self.queue.get(0):
            frames.append(frame)
        return frames

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(30)
        assert not self._thread.is_alive()


@pytest.fixture
def start() -> Iterator[Callable[..., Run]]:
    """Starts sources; all are stopped at the end."""
    runs: list[Run] = []

    def start(*args: object, **named: object) -> Run:
        runs.append(Run(*args, **named))  # type: ignore[arg-type]
        return runs[-1]

    yield start
    for run in runs:
        run.stop()


def brightness(frame: Frame) -> float:
    """By which the frames of `video` are told apart."""
    decoded = cv2.imdecode(np.frombuffer(frame.image, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert decoded is not None
    return float(decoded.mean())


@pytest.mark.parametrize(("name", "codec"), [("video.avi", "MJPG"), ("video.mp4", "mp4v")])
def test_video_gives_its_frames_in_order_as_jpeg(
    start: Callable[..., Run], video: Callable[..., Path], name: str, codec: str
) -> None:
    """None of them is requested; the source ends with the video."""
    moment = datetime(2026, 11, 30, 21, 15, 0, 123_456, UTC)
    with capture_logs() as logs:
        frames = start(str(video(name, codec, 12)), now=lambda: moment).rest()
    assert len(frames) == 12
    lights = [brightness(frame) for frame in frames]
    assert lights == sorted(lights, reverse=True)
    assert len({frame.request_id for frame in frames}) == 12
    first = frames[0]
    header = read_header(first.image)
    assert (header.format, header.width, header.height) == ("JPEG", 320, 400)
    assert (first.filename, first.captured_at) == ("camera-20261130T211500.123.jpg", moment)
    assert not first.requested
    assert [entry["event"] for entry in logs] == ["video_ended"]


def test_motion_jpeg_is_passed_on_as_the_camera_made_it(start: Callable[..., Run], video: Callable[..., Path]) -> None:
    """Its bytes are in the file; nothing is lost by encoding it again."""
    path = video("video.avi", "MJPG", 3)
    content = path.read_bytes()
    for frame in start(str(path)).rest():
        assert frame.image in content
        assert frame.image.endswith(b"\xff\xd9")


def test_video_is_played_at_its_own_rate(start: Callable[..., Run], video: Callable[..., Path]) -> None:
    """A quarter of a second at 20 frames a second."""
    began = time.monotonic()
    assert len(start(str(video("video.avi", "MJPG", 5, fps=20.0))).rest()) == 5
    assert time.monotonic() - began >= 0.25


def test_frames_beyond_the_limit_are_counted_and_not_brought(
    start: Callable[..., Run], video: Callable[..., Path]
) -> None:
    """0.4 seconds at 10 of 100 frames a second."""
    run = start(str(video("video.avi", "MJPG", 40, fps=100.0)), 10)
    brought = len(run.rest())
    counts = run.counters.read()
    assert counts["frames"] == brought
    assert brought + counts["rate_limited"] == 40
    assert 4 <= brought <= 10


def test_frames_for_which_there_is_no_room_are_counted_and_not_brought(
    start: Callable[..., Run], video: Callable[..., Path]
) -> None:
    """They are not decoded for nothing; the queue logs no burst, because a camera is often faster than a detector."""
    with capture_logs() as logs:
        run = start(str(video("video.avi", "MJPG", 12)), max_frames=2)
        frames = run.rest()
    assert len(frames) == 2
    counts = run.counters.read()
    assert (counts["frames"], counts["dropped"]) == (12, 10)
    assert [entry["event"] for entry in logs] == ["video_ended"]


class Camera:
    """A network camera: motion JPEG over HTTP, `frames` of them for each connection."""

    def __init__(self, port: int, frames: int) -> None:
        image = PORTRAIT.read_bytes()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(image)}\r\n\r\n".encode()
                for _ in range(frames):
                    self.wfile.write(head + image + b"\r\n")

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(30)


def test_camera_that_is_lost_is_opened_again_and_the_outage_logged_once(start: Callable[..., Run]) -> None:
    """A network camera that is switched off and on; its JPEG is passed on as it is."""
    camera = Camera(0, frames=3)
    with capture_logs() as logs:
        run = start(f"http://user:secret@127.0.0.1:{camera.port}/video?token=secret")
        assert [run.next().image for _ in range(3)] == [PORTRAIT.read_bytes()] * 3
        camera.close()
        while run.source.problem != "the camera cannot be opened":
            run.wait_for_failures(1)
        seen = len(logs)
        run.wait_for_failures(3)
        assert len(logs) == seen
        while run.queue.get(0):
            pass
        camera = Camera(camera.port, frames=3)
        run.next()
        run.stop()
    camera.close()
    assert {entry["event"] for entry in logs} == {"camera_unreachable", "camera_reachable_again"}
    assert {entry["camera"] for entry in logs} == {f"http://127.0.0.1:{camera.port}/video"}


def test_missing_camera_is_a_problem_and_not_the_end(start: Callable[..., Run], video: Callable[..., Path]) -> None:
    """Frames come as soon as there is one; here, a file that appears."""
    path = video("other.avi", "MJPG", 3)
    run = start(str(path.with_name("video.avi")))
    run.wait_for_failures(2)
    path.rename(path.with_name("video.avi"))
    assert len(run.rest()) == 3
    assert run.source.problem is None


@pytest.mark.parametrize("camera", ["99", "/dev/video99", "rtsp://127.0.0.1:1/none"])
def test_device_that_does_not_exist_is_a_problem(start: Callable[..., Run], camera: str) -> None:
    """By its number, its device file, and its URL."""
    run = start(camera)
    run.wait_for_failures(2)
    assert run.source.problem == "the camera cannot be opened"
