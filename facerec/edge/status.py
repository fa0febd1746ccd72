"""The component's state and counters: on the device's status topic, and in a file for checks on the device."""

import json
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import structlog

from facerec.background import BackgroundThread
from facerec.edge.link import Link
from facerec.edge_messages import status_topic
from facerec.errors import FacerecError, Refused

log = structlog.get_logger(__name__)

FILE_SECONDS = 30.0
"""A running component writes the file so often: an SD card lasts long at 4 MB a day."""
_OLD_SECONDS = 3 * FILE_SECONDS
_FILE = "status.json"
_POLL_SECONDS = 0.5


class State(StrEnum):
    """What the component does; the broker adds `lost` when the connection ends without a word."""

    STARTING = "starting"
    RUNNING = "running"
    DEGRADED = "degraded"
    """It runs, and an operator should look at `reasons`."""
    STOPPED = "stopped"


class StatusReport:
    """One thread that publishes what `read` returns: when it starts, on `changed`, every `every_seconds`, at `stop`.

    A status message is not spooled: an old one is of no use. One that cannot be sent is counted (`statuses_not_sent`),
    and the first that is refused is logged.
    Each is logged, too, as `edge_status`, so that a device without a connection has it in its own log.
    """

    def __init__(self, link: Link, thing: str, every_seconds: float, read: Callable[[], Mapping[str, Any]]) -> None:
        self._link = link
        self._topic = status_topic(thing)
        self._every_seconds = every_seconds
        self._read = read
        self._due = threading.Event()
        self._thread = BackgroundThread("edge-status", self._run)
        self._not_sent = 0
        self._refused = False

    def start(self) -> None:
        """Begin to publish; the first message waits for the connection."""
        self._thread.start()

    def changed(self) -> None:
        """Publish soon."""
        self._due.set()

    def stop(self, grace_seconds: float) -> None:
        """Publish once more, wait for its acknowledgement, for at most so long, and end the thread."""
        self._due.set()
        self._thread.stop()
        sent = self._publish()
        done = threading.Event()
        sent.add_done_callback(lambda _: done.set())
        done.wait(grace_seconds)

    def _run(self, stopping: threading.Event) -> None:
        while not stopping.is_set() and not self._link.wait_connected(_POLL_SECONDS):
            pass
        while not stopping.is_set():
            self._due.clear()
            self._publish()
            self._due.wait(self._every_seconds)

    def _publish(self) -> "Future[None]":
        status = {**self._read(), "statuses_not_sent": self._not_sent}
        log.info("edge_status", **status)
        sent = self._link.publish(self._topic, json.dumps(status).encode("ascii"))
        sent.add_done_callback(self._note)
        return sent

    def _note(self, sent: "Future[None]") -> None:
        failure = sent.exception()
        if failure is None:
            return
        self._not_sent += 1
        if isinstance(failure, Refused) and not self._refused:
            self._refused = True
            log.error("status_refused", topic=self._topic, reason=str(failure))


def timestamp(seconds: float | None) -> str | None:
    """A time since the epoch as the messages have it."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def write_status(folder: Path, status: dict[str, Any]) -> None:
    """Replace the file; it is not synced, since a power cut ends the component, too. Raises `OSError`."""
    new = folder / f"{_FILE}.new"
    new.write_text(json.dumps(status), encoding="utf-8")
    new.replace(folder / _FILE)


def read_status(folder: Path) -> dict[str, Any]:
    """Return the status of the component that works now; raises `FacerecError` if none does."""
    path = folder / _FILE
    try:
        age = time.time() - path.stat().st_mtime
        status: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError) as exc:
        raise FacerecError(
            f"no component has written {path}: is FACEREC_EDGE__STATE_DIR that of the component?"
        ) from exc
    if status["state"] not in {State.RUNNING, State.DEGRADED}:
        raise FacerecError(f"the component is {status['state']}, since {status['at']}")
    if age > _OLD_SECONDS:
        raise FacerecError(f"the component has not written its status since {status['at']}: it has ended, or hangs")
    return status
