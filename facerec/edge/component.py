"""The component on the device, from its settings: the parts, their order at start and at stop, and live changes."""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any, Protocol

import structlog

from facerec import __version__
from facerec.background import BackgroundThread, OutageLog, backoff_seconds
from facerec.edge.configuration import ConfigurationSource, configured
from facerec.edge.counters import Counters
from facerec.edge.detection import Detection
from facerec.edge.frame_queue import FrameQueue
from facerec.edge.link import Link, ReceivedMessage
from facerec.edge.opening import check_key, link_of, source_of
from facerec.edge.sender import Sender
from facerec.edge.sources.topic import TopicSource
from facerec.edge.spool import Spool
from facerec.edge.state_folder import SPOOL, client_id, locked_state
from facerec.edge.status import FILE_SECONDS, State, StatusReport, timestamp, write_status
from facerec.edge.tracking import Tracker
from facerec.edge_messages import results_topic
from facerec.errors import ConfigurationError, InvalidMessage, Transient
from facerec.messages import RecognitionResult
from facerec.ports import FaceDetector
from facerec.settings import Settings
from facerec.settings.edge import EdgeSettings, thing_name

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


class _Session:
    """The parts that are made anew when the settings change; `connect`, `begin` and `end` are called once, in order."""

    def __init__(self, component: "Component", settings: Settings) -> None:
        edge, thing, counters = settings.edge, component.thing, component.counters
        self.settings = settings
        self.link = component.open_link(edge, thing, component.client_id)
        waiting = min(edge.queue_frames, _CAMERA_FRAMES) if edge.source == "camera" else edge.queue_frames
        self.frames = FrameQueue(waiting, counters)
        self.source = source_of(settings, thing, self.link, counters)
        self.detection = Detection(
            self.frames,
            component.engine,
            component.spool,
            counters,
            edge,
            thing,
            at_once=component.at_once,
            tracker=Tracker(edge.resend_seconds) if edge.tracking else None,
            on_end=component.engine_ended,
        )
        self.sender = Sender(component.spool, self.link, counters, in_flight=edge.in_flight)
        self.status = StatusReport(self.link, thing, edge.status_seconds, component.status)
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


class Component:
    """What runs on the device; `run` once.

    `configuration` may change the settings of the edge while it runs: all parts but the engine, the spool and the
    counters are made anew then. Settings that are wrong or cannot be used are logged, and the earlier ones are kept.
    """

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        configuration: ConfigurationSource,
        *,
        open_link: OpenLink | None = None,
        at_once: int = 3,
        poll_seconds: float = 1.0,
    ) -> None:
        self.settings = settings
        self.engine = engine
        self.at_once = at_once
        self.open_link = open_link or link_of
        self.thing = thing_name(settings.edge)
        self.counters = Counters()
        self._configuration = configuration
        self._poll_seconds = poll_seconds
        self._started = time.monotonic()
        self._stopping = threading.Event()
        self._state = State.STARTING
        self._loaded = False
        self._engine_failure: ConfigurationError | None = None
        self._rejected: str | None = None
        self._unreadable = OutageLog("configuration")
        self._unwritable = OutageLog("state_folder")
        self._status_due = 0.0
        self.client_id: str
        self.spool: Spool
        self._session: _Session

    def run(self, stopping: threading.Event) -> None:
        """Work until the event is set; raises `ConfigurationError` if it cannot start, or if the engine has ended."""
        folder = self.settings.edge.state_dir
        with locked_state(folder):
            self._stopping = stopping
            self.client_id = client_id(folder, self.thing)
            fields = self._configuration.changes()
            settings = self.settings if fields is None else configured(self.settings, fields)
            self.spool = self._open_spool(settings.edge)
            try:
                self._serve(settings)
            finally:
                self.spool.close()

    def engine_ended(self, reason: ConfigurationError) -> None:
        """End the process: whatever started it starts it again."""
        self._engine_failure = reason
        self._stopping.set()

    def status(self) -> dict[str, Any]:
        """Return the content of a status message."""
        session = self._session
        link, edge = session.link.state, session.settings.edge
        reasons = [
            reason
            for reason in (
                self._engine_failure and str(self._engine_failure),
                self._rejected,
                link.problem,
                session.source.problem,
                session.detection.problem,
                "the spool is full: the oldest messages give way to new ones" if self.spool.full else None,
            )
            if reason
        ]
        state = State.DEGRADED if self._state is State.RUNNING and reasons else self._state
        return {
            "state": state,
            "reasons": reasons,
            "thing": self.thing,
            "at": timestamp(time.time()),
            "version": __version__,
            "client_id": self.client_id,
            "model_id": self.engine.model_id if self._loaded else None,
            "engine": self.engine.name if self._loaded else None,
            "precision": self.engine.precision if self._loaded else None,
            "uptime_seconds": round(time.monotonic() - self._started, 1),
            "last_frame_at": timestamp(session.detection.last_frame_at),
            "counters": self.counters.read(),
            "spool": {
                "messages": self.spool.depth,
                "bytes": self.spool.size_bytes,
                "max_bytes": edge.spool_max_bytes,
                "dropped": self.spool.dropped,
            },
            "link": {"kind": edge.link, **asdict(link)},
            "source": {"kind": edge.source, "problem": session.source.problem},
        }

    def _serve(self, settings: Settings) -> None:
        self._session = _Session(self, settings)
        try:
            self._session.connect()
            self.engine.start()
            self._begin()
            log.info("edge_ready", thing=self.thing, client_id=self.client_id, model_id=self.engine.model_id)
            while not self._stopping.wait(self._poll_seconds):
                self._look_for_changes()
                if time.monotonic() >= self._status_due:
                    self._write_status()
            if self._engine_failure is not None:
                raise self._engine_failure
        except ConfigurationError as exc:
            self._engine_failure = exc
            raise
        finally:
            self._state = State.STOPPED
            self._session.end()
            # The detection had its time: a frame that still is at work hangs, and a nucleus would kill the component.
            self.engine.close(finish=False)
            self._write_status()
            log.info("edge_stopped", spooled=self.spool.depth)

    def _begin(self) -> None:
        self._loaded, self._state = True, State.RUNNING
        self._session.begin()
        self._session.status.changed()
        self._write_status()

    def _write_status(self) -> None:
        self._status_due = time.monotonic() + FILE_SECONDS
        try:
            write_status(self.settings.edge.state_dir, self.status())
        except OSError as exc:
            self._unwritable.failed(exc)
        else:
            self._unwritable.succeeded()

    def _look_for_changes(self) -> None:
        try:
            fields = self._configuration.changes()
        except Transient as exc:
            self._unreadable.failed(exc)
            return
        self._unreadable.succeeded()
        if fields is None:
            return
        try:
            settings = configured(self.settings, fields)
        except ConfigurationError as exc:
            self._reject(exc)
            return
        self._rejected = None
        if settings != self._session.settings:
            self._change(settings)

    def _change(self, settings: Settings) -> None:
        earlier = self._session.settings
        self._state = State.STARTING
        self._session.end()
        try:
            self._connect_anew(settings)
        except ConfigurationError as exc:
            self._session.end()
            self._reject(exc)
            self._connect_anew(earlier)
        else:
            log.info("configuration_changed", fields=_different(earlier.edge, settings.edge))
        self._begin()

    def _connect_anew(self, settings: Settings) -> None:
        self.spool.close()
        self.spool = self._open_spool(settings.edge)
        self._session = _Session(self, settings)
        self._session.connect()

    def _reject(self, reason: ConfigurationError) -> None:
        self._rejected = str(reason)
        log.error("configuration_rejected", reason=str(reason), effect="the earlier one is kept")

    def _open_spool(self, edge: EdgeSettings) -> Spool:
        return Spool(
            edge.state_dir / SPOOL,
            edge.spool_max_bytes,
            edge.spool_sync,
            on_dropped=partial(self.counters.add, "spool_dropped"),
        )


def _different(earlier: EdgeSettings, later: EdgeSettings) -> list[str]:
    return [name for name in EdgeSettings.model_fields if getattr(earlier, name) != getattr(later, name)]


def _log_result(message: ReceivedMessage) -> None:
    """Log what the cloud has recognised."""
    try:
        result = RecognitionResult.parse(message.payload)
    except InvalidMessage as exc:
        log.warning("edge_result_unreadable", reason=str(exc))
    else:
        log.info("edge_result", request_id=str(result.request_id), filename=result.filename, result=result.result)
    message.acknowledge()
