"""From frames to messages: each is looked at by the engine, and what there is to say is spooled."""

import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import structlog

from facerec.background import BackgroundThread, OutageLog, backoff_seconds
from facerec.edge.counters import CounterName, Counters
from facerec.edge.crops import edge_faces
from facerec.edge.frame import Frame
from facerec.edge.frame_queue import FrameQueue
from facerec.edge.spool import Spool
from facerec.edge.tracking import Tracker
from facerec.edge_messages import faces_topic, no_face_result
from facerec.errors import ConfigurationError, EngineFailure, Refused, Transient
from facerec.faces_message import chosen_faces
from facerec.ports import FaceDetector
from facerec.settings.edge import EdgeSettings
from model.faces import PackedFaces
from model.header import InvalidImage

log = structlog.get_logger(__name__)

_POLL_SECONDS = 0.2
_BURST_SECONDS = 60.0
"""A burst of one fault has ended after so long without it; good frames between bad ones do not end it."""

Looking = tuple[Frame, "Future[PackedFaces]"]


class Detection:
    """One thread between the queue of frames and the spool; `start` once, `stop` once.

    `at_once` frames are with the engine at a time, so that it has work while a message is spooled; the messages are
    spooled in the order of the frames. A frame is settled when its message is on disk, or when it gets none:

    - A picture that cannot be decoded (`malformed`) or makes the engine fail twice (`failed`) is dropped, also a
      requested one: the cloud takes no other result than `No-Face` from a device.
    - A frame that need not be answered gets a message about the faces that the tracker takes for due, and none without
      them. Without a tracker each frame is answered.
    - While the disk refuses a message, a frame that must be answered waits, and so do those behind it. Any other frame
      is dropped (`failed`).

    `on_end` is called by the thread with the reason when the engine has ended for good.
    """

    def __init__(
        self,
        frames: FrameQueue,
        detector: FaceDetector,
        spool: Spool,
        counters: Counters,
        settings: EdgeSettings,
        thing: str,
        *,
        at_once: int,
        tracker: Tracker | None = None,
        on_end: Callable[[ConfigurationError], None],
        backoff: Callable[[int, float], float] = backoff_seconds,
    ) -> None:
        self._frames = frames
        self._detector = detector
        self._spool = spool
        self._counters = counters
        self._settings = settings
        self._thing = thing
        self._topic = faces_topic(thing)
        self._at_once = at_once
        self._tracker = tracker
        self._on_end = on_end
        self._backoff = backoff
        self._outage = OutageLog("spool", doing="to spool a message")
        self._faults: dict[str, float] = {}
        """When the last frame had this fault, by its event: one of a kind is logged per burst."""
        self._stop_at: float | None = None
        self._stopping = threading.Event()
        self._thread = BackgroundThread("edge-detection", lambda _: self._run())
        self.last_frame_at: float | None = None
        """When the last frame was finished, in seconds since the epoch."""

    def start(self) -> None:
        """Begin to take frames."""
        self._thread.start()

    def stop(self, grace_seconds: float) -> None:
        """Finish the frames that wait, for at most so long, and end the thread; frames that are left are not settled.

        The thread may be waiting for the engine, which answers each frame within its time limit: it is not waited for.
        """
        self._stop_at = time.monotonic() + grace_seconds
        self._stopping.set()
        self._thread.stop(grace_seconds)

    @property
    def problem(self) -> str | None:
        """Why frames are not finished, in one sentence."""
        return "the disk takes no messages" if self._outage.failures else None

    def _run(self) -> None:
        looking: deque[Looking] = deque()
        with ThreadPoolExecutor(self._at_once, "edge-engine") as pool:
            while not self._over():
                while len(looking) < self._at_once:
                    frame = self._frames.get(0 if looking or self._stopping.is_set() else _POLL_SECONDS)
                    if frame is None:
                        break
                    looking.append((frame, pool.submit(self._look, frame)))
                if looking:
                    if not self._finish(*looking.popleft()):
                        return
                elif self._stopping.is_set():
                    return

    def _over(self) -> bool:
        return self._stop_at is not None and time.monotonic() >= self._stop_at

    def _look(self, frame: Frame) -> PackedFaces:
        with structlog.contextvars.bound_contextvars(request_id=str(frame.request_id)):
            return self._detector.detect(frame.image)

    def _finish(self, frame: Frame, looked: "Future[PackedFaces]") -> bool:
        """Spool what there is to say about a frame, and settle it; returns whether to go on."""
        settle = frame.settled
        with structlog.contextvars.bound_contextvars(request_id=str(frame.request_id)):
            try:
                payload = self._message(frame, looked.result())
                if payload is not None and not self._spooled(frame, payload):
                    return False
            except ConfigurationError as exc:
                self._on_end(exc)
                return False
            except Transient:  # the engine was closed
                return False
            except InvalidImage as exc:
                settle = self._drop("malformed", "frame_malformed", frame, exc)
            except Refused as exc:
                settle = self._drop("refused", "message_too_large", frame, exc)
            except EngineFailure as exc:
                settle = self._drop("failed", "frame_failed", frame, exc)
            except Exception as exc:
                # Without this, one frame could end the component again and again.
                settle = self._drop("failed", "frame_failed", frame, exc)
                log.exception("unexpected_error")
        self.last_frame_at = time.time()
        try:
            settle()
        except Exception:
            log.exception("frame_not_settled", filename=frame.filename)
        return True

    def _message(self, frame: Frame, picture: PackedFaces) -> bytes | None:
        """The message about a frame; `None` if there is nothing to say."""
        found = len(picture.faces)
        tracker = None if frame.requested else self._tracker
        if tracker is not None:
            picture = chosen_faces(picture, tracker.due(picture.faces, frame.captured_at.timestamp()))
        payload = None
        if picture.faces:
            payload = edge_faces(
                picture,
                frame,
                thing=self._thing,
                model_id=self._detector.model_id,
                results=self._settings.results,
                quality=self._settings.jpeg_quality,
                min_quality=self._settings.min_jpeg_quality,
                max_bytes=self._settings.max_message_bytes,
            )
            self._counters.add("faces", len(picture.faces))
        elif found:
            self._counters.add("suppressed")
        else:
            self._counters.add("no_face")
            if tracker is None:
                payload = self._no_face(frame, picture)
        log.debug(
            "frame_looked_at",
            filename=frame.filename,
            faces=found,
            sent_faces=len(picture.faces),
            bytes=len(payload) if payload else 0,
            timings_ms={stage: round(ms, 1) for stage, ms in picture.timings_ms.items()},
        )
        return payload

    def _no_face(self, frame: Frame, picture: PackedFaces) -> bytes:
        result = no_face_result(
            request_id=frame.request_id,
            filename=frame.filename,
            captured_at=frame.captured_at,
            thing=self._thing,
            model_id=self._detector.model_id,
            engine=self._detector.name,
            precision=self._detector.precision,
            timings_ms=picture.timings_ms,
        )
        return result.to_json().encode("ascii")

    def _spooled(self, frame: Frame, payload: bytes) -> bool:
        """Spool a message; returns whether the frame is finished, which it is not if the disk refused until `stop`."""
        while True:
            try:
                self._spool.add(self._topic, payload)
            except Transient as exc:
                self._outage.failed(exc)
                if not frame.requested and self._tracker is not None:
                    self._counters.add("failed")
                    return True
                pause = self._backoff(self._outage.failures, random.random())  # noqa: S311 - no secret
                if self._stopping.wait(pause):
                    return False
            else:
                self._outage.succeeded()
                return True

    def _drop(self, count: CounterName, event: str, frame: Frame, reason: Exception) -> Callable[[], None]:
        """Count a frame that gets no message, and log the first of a burst; returns what settles it."""
        sentence = str(reason) or repr(reason)
        self._counters.add(count)
        now = time.monotonic()
        if now - self._faults.get(event, -math.inf) >= _BURST_SECONDS:
            log.warning(event, filename=frame.filename, reason=sentence)
        self._faults[event] = now
        return frame.settled if frame.rejected is None else partial(frame.rejected, sentence)
