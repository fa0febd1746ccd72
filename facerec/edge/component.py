"""The component on the device, from its settings: its life, its status, and changes of settings while it runs."""

import threading
import time
from dataclasses import asdict
from functools import partial
from typing import Any

import structlog

from facerec import __version__
from facerec.background import OutageLog
from facerec.edge.configuration import ConfigurationSource, configured
from facerec.edge.counters import Counters
from facerec.edge.opening import link_of
from facerec.edge.session import Engine, Lasting, OpenLink, Session
from facerec.edge.spool import Spool
from facerec.edge.state_folder import SPOOL, client_id, locked_state
from facerec.edge.status import FILE_SECONDS, State, timestamp, write_status
from facerec.errors import ConfigurationError, Transient
from facerec.settings import Settings
from facerec.settings.edge import EdgeSettings, thing_name

log = structlog.get_logger(__name__)


class Component:
    """What runs on the device; `run` once.

    `configuration` may change the settings of the edge while it runs: all parts but the engine, the spool and the
    counters are made again then. Settings that are wrong or cannot be used are logged, and the earlier ones are kept.
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
        self._session: Session

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
        self._session = self._new_session(settings)
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

    def _note_engine_end(self, reason: ConfigurationError) -> None:
        """End the process: whatever started it starts it again."""
        self._engine_failure = reason
        self._stopping.set()

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
            self._connect_again(settings)
        except ConfigurationError as exc:
            self._session.end()
            self._reject(exc)
            self._connect_again(earlier)
        else:
            log.info("configuration_changed", fields=_different(earlier.edge, settings.edge))
        self._begin()

    def _connect_again(self, settings: Settings) -> None:
        self.spool.close()
        self.spool = self._open_spool(settings.edge)
        self._session = self._new_session(settings)
        self._session.connect()

    def _new_session(self, settings: Settings) -> Session:
        lasting = Lasting(
            thing=self.thing,
            client_id=self.client_id,
            engine=self.engine,
            spool=self.spool,
            counters=self.counters,
            at_once=self.at_once,
            open_link=self.open_link,
            engine_ended=self._note_engine_end,
            status=self.status,
        )
        return Session(lasting, settings)

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
