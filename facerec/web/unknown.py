"""Unknown people in the background of a web process: alerts are sent, and what is past its time is removed."""

import json
import random
import threading
import time
from collections.abc import Callable
from datetime import timedelta

import structlog

from facerec.background import BackgroundThread, OutageLog, backoff_seconds
from facerec.callbacks import CallbackFailed, CallbackRefused, Caller, owner_secret
from facerec.errors import FacerecError
from facerec.gallery.unknown_people import Unknown
from facerec.settings import Settings
from facerec.unknown_records import ALERT_OWNER, UnknownAlert

log = structlog.get_logger(__name__)

LOOK_SECONDS = 2.0
SWEEP_SECONDS = 300.0
_CLAIM_SECONDS = 60.0
"""Longer than one call: another process tries an alert whose sender was killed."""
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 5.0, 3600.0


class UnknownThread:
    """Works in each web process; a claim in the table keeps two from sending one alert. Survives every outage.

    An alert is sent at least once. Every process sweeps; what another one has removed costs a reading.
    """

    def __init__(
        self,
        settings: Settings,
        unknown: Unknown,
        callbacks: Caller,
        *,
        look_seconds: float = LOOK_SECONDS,
        sweep_seconds: float = SWEEP_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._unknown = unknown
        self._callbacks = callbacks
        self._look_seconds = look_seconds
        self._sweep_seconds = sweep_seconds
        self._clock = clock
        self._outage = OutageLog("unknown_people")
        self._sweep_at = clock()
        self._thread = BackgroundThread("unknown-people", self._run)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stop(self) -> None:
        """Begin nothing more; a call that is cut off is repeated by another process."""
        self._thread.stop(0)

    def look(self, stopping: Callable[[], bool] = lambda: False) -> None:
        """Send the alerts that are due, and sweep if it is time to; raises `FacerecError`."""
        if self._settings.unknown.alert_url is not None:
            for alert in self._unknown.records.alerts():
                if stopping():
                    return
                if alert.due_at <= self._unknown.now():
                    self._send(alert, self._settings.unknown.alert_url)
        if self._clock() >= self._sweep_at:
            self._sweep_at = self._clock() + self._sweep_seconds
            for collection in self._unknown.enrolled.collections_with_unknown():
                self._unknown.sweep(collection)

    def _run(self, stopping: threading.Event) -> None:
        while not stopping.wait(self._look_seconds):
            try:
                self.look(stopping.is_set)
            except FacerecError as exc:
                self._outage.failed(exc)
            else:
                self._outage.succeeded()

    def _send(self, alert: UnknownAlert, url: str) -> None:
        records, now, settings = self._unknown.records, self._unknown.now(), self._settings.callbacks
        claimed = alert.later(_CLAIM_SECONDS, now, attempts=alert.attempts + 1)
        if not records.postpone_alert(alert, claimed):
            return
        problem, again = None, False
        if settings.secret is None:
            problem = "FACEREC_CALLBACKS__SECRET is not set"
        else:
            try:
                self._callbacks.send(url, _body(alert), owner_secret(settings.secret.get_secret_value(), ALERT_OWNER))
            except CallbackRefused as exc:
                problem = str(exc)
            except CallbackFailed as exc:
                problem, again = str(exc), now < alert.made_at + timedelta(hours=settings.retry_hours)
        log.info("unknown_alert", unknown_id=alert.unknown_id, about=alert.event, reason=problem, again=again)
        if again:
            jitter = random.random()  # noqa: S311 - spreads the load
            pause = backoff_seconds(
                claimed.attempts, jitter, first=_FIRST_PAUSE_SECONDS, longest=_LONGEST_PAUSE_SECONDS
            )
            records.postpone_alert(claimed, claimed.later(pause, now))
        else:
            records.remove_alert(claimed)  # a new alert that came meanwhile stays


def _body(alert: UnknownAlert) -> bytes:
    times = {"first_seen": alert.first_seen, "last_seen": alert.last_seen}
    return json.dumps(
        {
            "event": f"unknown.{alert.event}",
            "collection": alert.collection,
            "unknown_id": alert.unknown_id,
            "request_id": str(alert.request_id),
            "seen_count": alert.seen,
            **{name: at.isoformat() for name, at in times.items()},
        }
    ).encode()
