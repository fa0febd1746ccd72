"""The pictures of a camera as frames, by OpenCV: a V4L2 device, a network stream, or a video file."""

import os
import random
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import cv2
import structlog

from facerec.background import OutageLog, backoff_seconds
from facerec.edge.counters import Counters
from facerec.edge.frame import Frame, FrameSink
from model.header import JPEG_START

log = structlog.get_logger(__name__)

JPEG_QUALITY = 95
"""Of frames that do not come as JPEG: the crops of faces are of this quality, too."""
_TIMEOUT_MS = 5_000
"""Of a network stream: to connect, and between two frames."""
_USUAL_FPS = 25.0
"""Of a video file that does not say it."""
_BURST = 2.0
_JPEG_END = b"\xff\xd9"
_MJPEG = cv2.VideoWriter.fourcc(*"MJPG")


class RateLimit:
    """A token bucket of two frames: a camera at about the limit loses none because one came a little early."""

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        self._tokens = _BURST
        self._at: float | None = None

    def allows(self, now: float) -> bool:
        """Return whether a frame of this time, in seconds by a monotonic clock, is within the limit."""
        if self._at is not None:
            self._tokens = min(_BURST, self._tokens + (now - self._at) * self._per_second)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class CameraSource:
    """A `FrameSource` of a camera: its number, its device file, the URL of a stream (RTSP, HTTP), or a video file.

    The frames are JPEG and not requested: without a face, none needs an answer. Motion JPEG is passed on as the camera
    made it; everything else is encoded with `JPEG_QUALITY`. A camera that can send motion JPEG is asked to. Frames
    beyond `max_frames_per_second` (`rate_limited`), and those for which the sink has no room (`dropped`), are taken
    from the camera and not decoded. So the sink should be small: a new frame is worth more than one that has waited.

    A camera that is lost is opened again, with backoff; the outage is logged once, and `problem` says it. A video file
    is played once at its own rate, and `run` returns at its end.
    """

    def __init__(
        self,
        camera: str,
        max_frames_per_second: float,
        counters: Counters,
        *,
        backoff: Callable[[int, float], float] = backoff_seconds,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._camera = camera
        self._limit = RateLimit(max_frames_per_second)
        self._counters = counters
        self._backoff = backoff
        self._now = now
        self._outage = OutageLog("camera", camera=without_secrets(camera))
        self._problem: str | None = None

    @property
    def problem(self) -> str | None:
        """Why the camera gives no frames."""
        return self._problem

    def run(self, sink: FrameSink, stopping: threading.Event) -> None:
        """Bring frames until the event is set, or a video file has been played."""
        # Their lines on stderr would repeat with each attempt; the outage is logged here.
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        while not stopping.is_set():
            capture = _open(self._camera)
            try:
                frames = self._play(capture, sink, stopping) if capture.isOpened() else None
            finally:
                capture.release()
            if stopping.is_set():
                return
            if frames and Path(self._camera).is_file():
                log.info("video_ended", camera=self._camera, frames=frames)
                return
            self._problem = "the camera cannot be opened" if frames is None else "the camera gives no more frames"
            self._outage.failed(self._problem)
            stopping.wait(self._backoff(self._outage.failures, random.random()))  # noqa: S311 - no secret

    def _play(self, capture: cv2.VideoCapture, sink: FrameSink, stopping: threading.Event) -> int:
        """Bring frames until there are no more; returns how many there were."""
        compressed = _gives_jpeg(capture)
        fps = capture.get(cv2.CAP_PROP_FPS) or _USUAL_FPS
        seconds_per_frame = 1 / fps if Path(self._camera).is_file() else 0.0
        started = time.monotonic()
        frames = 0
        while not stopping.is_set() and capture.grab():
            frames += 1
            self._problem = None
            self._outage.succeeded()
            captured_at = self._now()
            if not self._limit.allows(time.monotonic()):
                self._counters.add("rate_limited")
            elif not sink.wait_for_room(0):
                self._counters.add("frames")
                self._counters.add("dropped")
            elif (image := _jpeg(capture, compressed=compressed)) is None:
                self._counters.add("malformed")
            else:
                name = f"camera-{captured_at:%Y%m%dT%H%M%S}.{captured_at.microsecond // 1000:03}.jpg"
                sink.put(Frame(uuid4(), name, image, captured_at, requested=False))
            if seconds_per_frame:
                stopping.wait(max(0.0, started + frames * seconds_per_frame - time.monotonic()))
        return frames


def without_secrets(camera: str) -> str:
    """Return a camera as it may be logged: the URL without password and query, or its scheme if it is no valid URL."""
    if "://" not in camera:
        return camera
    try:
        parts = urlsplit(camera)
    except ValueError:  # the reason would hold a part of it
        return f"{camera.partition('://')[0]}://…"
    return parts._replace(netloc=parts.netloc.rsplit("@", 1)[-1], query="", fragment="").geturl()


def _open(camera: str) -> cv2.VideoCapture:
    if not camera.isdecimal() and not camera.startswith("/dev/"):
        timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _TIMEOUT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, _TIMEOUT_MS]
        return cv2.VideoCapture(camera, cv2.CAP_FFMPEG, timeouts)
    try:
        capture = cv2.VideoCapture(int(camera) if camera.isdecimal() else camera, cv2.CAP_V4L2)
    except cv2.error:  # no such number
        return cv2.VideoCapture()
    if capture.isOpened():
        capture.set(cv2.CAP_PROP_FOURCC, _MJPEG)
    return capture


def _gives_jpeg(capture: cv2.VideoCapture) -> bool:
    """Have motion JPEG handed over as it is, if the camera sends it; returns whether it will be."""
    if int(capture.get(cv2.CAP_PROP_FOURCC)) != _MJPEG:
        return False
    if capture.getBackendName() == "V4L2":
        return bool(capture.set(cv2.CAP_PROP_CONVERT_RGB, 0))
    return bool(capture.set(cv2.CAP_PROP_FORMAT, -1))


def _jpeg(capture: cv2.VideoCapture, *, compressed: bool) -> bytes | None:
    """Return the frame that was grabbed last; None if it is damaged."""
    try:
        taken, pixels = capture.retrieve()
        if not taken:
            return None
        if not compressed:
            return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
    except cv2.error:
        return None
    data = pixels.tobytes()
    end = data.rfind(_JPEG_END)  # a driver's buffer may be longer than the picture
    return data[: end + len(_JPEG_END)] if data.startswith(JPEG_START) and end > 0 else None
