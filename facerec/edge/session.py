"""The parts of the component that are made again when its settings change, their order at start and at stop."""

import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from facerec.background import BackgroundThread, backoff_seconds
from facerec.edge.counters import Counters
from facerec.edge.detection import Detection
from facerec.edge.frame_queue import FrameQueue
from facerec.edge.link import Link, ReceivedMessage
from facerec.edge.opening import check_key, source_of
from facerec.edge.sender import Sender
from facerec.edge.sources.topic import TopicSource
from facerec.edge.spool import Spool
from facerec.edge.status import StatusReport
from facerec.edge.tracking import Tracker
from facerec.edge_messages import results_topic
from facerec.errors import ConfigurationError, InvalidMessage
from facerec.messages import RecognitionResult
from facerec.ports import FaceDetector
from facerec.settings import Settings
from facerec.settings.edge import EdgeSettings

log = structlog.get_logger(__name__)

_CAMERA_FRAMES = 2
"""Frames of a camera that wait: more would only be older when they are looked at."""
_SOURCE_SECONDS = 1.0
_FRAMES_SECONDS = 5.0
_SENDING_SECONDS = 2.0
_STATUS_SECONDS = 1.0
"""How long each part may take to finish at the end: a nucleus kills the component after some 20 s."""


class Engine(FaceDetector, Protocol):
    """A detector that is started and closed, as `SupervisedDetector`."""

    def start(self) -> None:
        """Load; raises `ConfigurationError`."""

    def close(self, *, finish: bool = True) -> None:
        """End; without `finish` also in the middle of a frame."""


OpenLink = Callable[[EdgeSettings, str, str], Link]
"""From the settings, the thing and the client id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lasting:
    """What a change of the settings leaves as it is, but for the spool, whose limits may change."""

    thing: str
    client_id: str
    engine: Engine
    spool: Spool
    counters: Counters
    at_once: int
    """Frames that are with the engine at a time."""
    open_link: OpenLink
    engine_ended: Callable[[ConfigurationError], None]
    status: Callable[[], Mapping[str, Any]]


class Session:
    """The parts that are made again for other settings; `connect`, `begin` and `end` are called once, in order."""

    def __init__(self, lasting: Lasting, settings: Settings) -> None:
        edge, thing, counters = settings.edge, lasting.thing, lasting.counters
        self.settings = settings
        self.link = lasting.open_link(edge, thing, lasting.client_id)
        waiting = min(edge.queue_frames, _CAMERA_FRAMES) if edge.source == "camera" else edge.queue_frames
        self.frames = FrameQueue(waiting, counters)
        self.source = source_of(settings, thing, self.link, counters)
        self.detection = Detection(
            self.frames,
            lasting.engine,
            lasting.spool,
            counters,
            edge,
            thing,
            at_once=lasting.at_once,
            tracker=Tracker(edge.resend_seconds) if edge.tracking else None,
            on_end=lasting.engine_ended,
        )
        self.sender = Sender(lasting.spool, self.link, counters, in_flight=edge.in_flight)
        self.status = StatusReport(self.link, thing, edge.status_seconds, lasting.status)
        self._bringing = BackgroundThread("edge-source", self._bring)
        if edge.results:
            self.link.subscribe(results_topic(thing), _log_result)

    def connect(self) -> None:
        """Send what is spooled, and the status; raises `ConfigurationError`."""
        check_key(self.settings.edge)
        if isinstance(self.source, TopicSource):
            # Frames that wait at the broker come with the connection: their topic must have its handler by then.
            self._bringing.start()
            self.source.subscribed.wait(_SOURCE_SECONDS)
        self.link.start()
        self.sender.start()
        self.status.start()

    def begin(self) -> None:
        """Take frames."""
        self.detection.start()
        self._bringing.start()

    def _bring(self, stopping: threading.Event) -> None:
        failures = 0
        while not stopping.is_set():
            try:
                self.source.run(self.frames, stopping)
            except Exception:
                # A source handles its own faults; a defect must not leave a component without frames.
                failures += 1
                log.exception("source_failed", source=self.settings.edge.source)
                stopping.wait(backoff_seconds(failures, random.random()))  # noqa: S311 - no secret
            else:
                return

    def end(self) -> None:
        """Finish what can be finished soon; the rest stays in the spool, or comes again from its source."""
        if not self._bringing.stop(_SOURCE_SECONDS):
            log.warning("source_still_stopping", source=self.settings.edge.source)
        self.detection.stop(_FRAMES_SECONDS)
        self.frames.close()
        self.sender.stop(_SENDING_SECONDS)
        self.status.stop(_STATUS_SECONDS)
        self.link.close()


def _log_result(message: ReceivedMessage) -> None:
    """Log what the cloud has recognised."""
    try:
        result = RecognitionResult.parse(message.payload)
    except InvalidMessage as exc:
        log.warning("edge_result_unreadable", reason=str(exc))
    else:
        log.info("edge_result", request_id=str(result.request_id), filename=result.filename, result=result.result)
    message.acknowledge()
