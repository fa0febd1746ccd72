"""Sends a process's events beside its work: who hands one over never waits, and no fault of the queue is theirs."""

import random
import secrets
import threading
from collections import deque
from collections.abc import Callable

import structlog

from facerec.aws.sqs.queue import pause_seconds
from facerec.celery_sqs.events.batches import Event, body, packed

log = structlog.get_logger(__name__)


class EventOutbox:
    """Keeps at most `max_waiting` events, the newest, and sends what came within `window_seconds` with one message.

    `send` gets the bodies of messages, in a thread that begins with the first event. While it raises, the thread tries
    again after pauses that grow to ten seconds. Safe for many threads.
    """

    def __init__(
        self,
        send: Callable[[str], None],
        *,
        window_seconds: float,
        max_waiting: int,
        pause: Callable[[int, float], float] = pause_seconds,
    ) -> None:
        self._send = send
        self._window_seconds = window_seconds
        self._max_waiting = max_waiting
        self._pause = pause
        self._source = secrets.token_hex(8)
        self._sequence = 0
        self._waiting: deque[Event] = deque()
        self._farewell: Event | None = None
        self._lost = 0
        self._failures = 0
        self._changed = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None

    def put(self, event: Event) -> None:
        """Have it sent soon; after `close` it is passed over. Belongs to the outbox from now on."""
        with self._changed:
            if self._closed:
                return
            if len(self._waiting) >= self._max_waiting:
                self._waiting.popleft()
                self._lost += 1
            self._waiting.append(event)
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="events", daemon=True)
                thread.start()  # where that fails the next one is tried
                self._thread = thread
            elif len(self._waiting) == 1:
                self._changed.notify()

    def leave_behind(self, event: Event) -> None:
        """Send this one last, when the outbox is closed."""
        self._farewell = event

    def close(self, timeout_seconds: float) -> None:
        """Send what waits, as long as that goes well and no longer than this; idempotent."""
        with self._changed:
            if self._thread is None or self._closed:
                self._closed = True
                return
            if self._farewell is not None:
                self._waiting.append(self._farewell)
            self._closed = True
            self._changed.notify()
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        while events := self._taken():
            for part in packed(events, self._lose):
                if not self._deliver(part):
                    return

    def _lose(self) -> None:
        with self._changed:
            self._lost += 1

    def _taken(self) -> list[Event]:
        """The events of the next window; none when there will be no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            self._changed.wait_for(lambda: self._closed, self._window_seconds)
            events = list(self._waiting)
            self._waiting.clear()
            return events

    def _deliver(self, events: str) -> bool:
        """Send a message, however often that takes; whether it was sent before the end."""
        self._sequence += 1
        while True:
            with self._changed:
                lost, last = self._lost, self._closed
            try:
                self._send(body(self._source, self._sequence, lost, events))
            except Exception as exc:  # noqa: BLE001 - whatever it is, it must not end the sending of all later ones
                if not self._failures:
                    log.warning("events_not_sent", reason=str(exc) or repr(exc))
                self._failures += 1
                if last:
                    return False
                with self._changed:
                    self._changed.wait_for(
                        lambda: self._closed,
                        self._pause(self._failures, random.random()),  # noqa: S311 - no secret
                    )
            else:
                if self._failures:
                    log.info("events_sent_again", failures=self._failures, lost=lost)
                self._failures = 0
                return True
