"""Sends a process's events in the background: `put` never waits, and raises no error of the queue."""

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from facerec.background import BackgroundQueue, backoff_seconds
from facerec.celery_sqs.events.batches import Event, body, packed
from facerec.errors import Refused

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Part:
    """The events of one message; its number stays the same when they are sent again."""

    sequence: int
    events: str


class EventOutbox:
    """Sends the events of each `window_seconds` in one message; keeps at most `max_waiting`, the newest.

    `send` gets the bodies of messages, in a background thread. While it raises, the thread tries again. Safe for many
    threads.
    """

    def __init__(
        self,
        send: Callable[[str], None],
        *,
        window_seconds: float,
        max_waiting: int,
        backoff: Callable[[int, float], float] = backoff_seconds,
    ) -> None:
        self._send = send
        self._source = secrets.token_hex(8)
        self._sequence = 0
        self._dropped = self._unpacked = 0
        self._last: Event | None = None
        self._queue = BackgroundQueue[Event | _Part](
            "events_queue",
            self._send_all,
            window_seconds=window_seconds,
            full=max_waiting + 1,
            max_waiting=max_waiting,
            dropped=self._drop,
            backoff=backoff,
        )

    def put(self, event: Event) -> None:
        """Send the event soon; after `close` it is ignored. The caller must not change it any more."""
        self._queue.put(event)

    def put_last(self, event: Event) -> None:
        """Send the event when the outbox is closed, after all others."""
        self._last = event

    def close(self, timeout_seconds: float) -> None:
        """Send the waiting events, until a send fails or the time is over; idempotent."""
        if self._last is not None:
            self._queue.put(self._last)
        self._queue.stop(timeout_seconds)

    def _drop(self, _event: object) -> None:
        self._dropped += 1

    def _lose(self) -> None:
        self._unpacked += 1

    def _send_all(self, waiting: list[Event | _Part]) -> None:
        if not isinstance(waiting[0], _Part):
            events = [item for item in waiting if not isinstance(item, _Part)]
            waiting[:] = [self._part(part) for part in packed(events, self._lose)]
        while waiting and isinstance(part := waiting[0], _Part):
            try:
                self._send(body(self._source, part.sequence, self._dropped + self._unpacked, part.events))
            except Refused as exc:  # it would keep all later ones back
                self._unpacked += len(json.loads(part.events))
                log.warning("events_refused", reason=str(exc))
            del waiting[0]

    def _part(self, events: str) -> _Part:
        self._sequence += 1
        return _Part(self._sequence, events)
