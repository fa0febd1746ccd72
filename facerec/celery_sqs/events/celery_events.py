"""Celery's events over SQS: `Celery(events="facerec.celery_sqs.events.celery_events:Events")`.

Celery publishes them to a topic exchange, which SQS has not, and its receiver consumes without acknowledging, which
kombu's SQS transport cannot outside a worker. Here they take no part in kombu: the dispatcher puts them into the
process's outbox, and the receiver reads their queue. So `celery -A facerec events --dump` works as well as Flower, but
only one reader at a time: SQS hands each message to one of them.
"""

import atexit
import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from celery.app.events import Events as CeleryEvents
from celery.events.dispatcher import EventDispatcher
from celery.events.event import group_from

from facerec.aws.clients import shared_clients
from facerec.aws.sqs.queue import pause_seconds
from facerec.aws.sqs.results import RECEIVE_AT_ONCE
from facerec.celery_sqs.events.batches import Arrivals, Event, parse
from facerec.celery_sqs.events.outbox import EventOutbox
from facerec.celery_sqs.events.queue import Letter, SqsEventQueue

# The stubs of Celery know almost none of what is overridden here.
_BaseEvents: Any = CeleryEvents
_BaseDispatcher: Any = EventDispatcher

log = structlog.get_logger(__name__)

_FAREWELL_SECONDS = 2.0
_GATHER_SECONDS = 0.25
"""How long the reader lets messages gather, so that a receive and a delete are for several of them."""


class Events(_BaseEvents):  # type: ignore[misc]  # untyped on purpose, see above
    """Celery's `app.events`, for an application that has our `settings`."""

    dispatcher_cls = "facerec.celery_sqs.events.celery_events:Dispatcher"
    receiver_cls = "facerec.celery_sqs.events.celery_events:Receiver"

    def __init__(self, app: Any) -> None:
        super().__init__(app)
        settings = app.settings
        self._queue: SqsEventQueue | None = None
        self.outbox = EventOutbox(
            self._send,
            window_seconds=settings.events.window_seconds,
            max_waiting=settings.events.max_waiting,
        )
        # However the process ends in good order, its last events are sent.
        atexit.register(self.outbox.close, _FAREWELL_SECONDS)

    def _send(self, body: str) -> None:
        # In the outbox's thread: to make a client takes a tenth of a second.
        if self._queue is None:
            self._queue = self.queue()
        self._queue.send(body)

    def queue(self) -> SqsEventQueue:
        """The queue, for one thread to use."""
        settings = self.app.settings
        return SqsEventQueue(shared_clients(settings), settings.events_queue)


class Dispatcher(_BaseDispatcher):  # type: ignore[misc]  # untyped on purpose, see above
    """Hands events to the process's outbox, and lasts as long: a stopping worker's tasks end after its consumer."""

    def enable(self) -> None:
        """Take events from now on."""
        self.enabled = True
        for callback in self.on_enabled:
            callback()

    def send(self, type: str, blind: bool = False, **fields: Any) -> None:  # noqa: A002, FBT001, FBT002 - Celery's signature
        """Have an event sent, if its group is wanted."""
        if not self.enabled or (self.groups and group_from(type) not in self.groups):
            return
        for option in ("utcoffset", "retry", "retry_policy", "Event"):
            fields.pop(option, None)
        event = self._prepare_event(type, fields, blind=blind)
        if type == "worker-offline":
            self.app.events.outbox.leave_behind(event)  # tasks may still end, and would bring the worker to life again
        else:
            self.app.events.outbox.put(event)

    def publish(self, type: str, fields: Event, producer: Any, blind: bool = False, **options: Any) -> None:  # noqa: A002, FBT001, FBT002 - Celery's signature
        """Have an event sent, as Celery does with those of senders of tasks."""
        del producer, options
        self.app.events.outbox.put(self._prepare_event(type, fields, blind=blind))

    def flush(self, *_groups: Any, **_options: Any) -> None:
        """Nothing waits here."""

    def extend_buffer(self, other: Any) -> None:
        """Nothing waits there, either."""

    def disable(self) -> None:
        """Go on: see the class."""

    def close(self) -> None:
        """Go on: see the class."""


class Receiver:
    """Reads the events' queue; a `handler` gets each event once, by its type or by `*`."""

    app: Any = None

    def __init__(
        self, channel: object = None, handlers: Mapping[str, Callable[[Event], None]] | None = None, **_: Any
    ) -> None:
        del channel
        self._handlers = dict(handlers or {})
        self._queue: SqsEventQueue = self.app.events.queue()
        self._name: str = self.app.settings.events_queue
        self._wait_seconds: int = self.app.settings.queue.wait_time_seconds
        self._arrivals = Arrivals(time.monotonic)
        self._stopped = threading.Event()
        self._failures = 0

    def capture(self, limit: None = None, timeout: None = None, wakeup: bool = True) -> None:  # noqa: FBT001, FBT002 - Celery's signature
        """Handle events until `stop`; an outage is waited out."""
        del limit, timeout, wakeup
        while not self._stopped.is_set():
            self._stopped.wait(self._round())

    def stop(self) -> None:
        """End `capture` after its present long poll."""
        self._stopped.set()

    def _round(self) -> float:
        """Receive, handle and delete; returns for how long to pause."""
        try:
            letters = self._queue.receive(self._wait_seconds)
            for letter in letters:
                try:
                    self._open(letter)
                except Exception as exc:  # noqa: BLE001 - anything may lie in a queue, and must not keep the others in it
                    log.warning("events_unreadable", queue=self._name, reason=str(exc) or repr(exc))
            self._queue.delete(letters)
        except Exception as exc:  # noqa: BLE001 - whatever it is, a monitor must not go blind for good
            if not self._failures:
                log.warning("events_unreadable", queue=self._name, reason=str(exc) or repr(exc))
            self._failures += 1
            return pause_seconds(self._failures, random.random())  # noqa: S311 - no secret
        if self._failures:
            log.info("events_readable_again", queue=self._name, failures=self._failures)
        self._failures = 0
        if overdue := self._arrivals.overdue():
            log.warning(
                "events_missing",
                queue=self._name,
                messages=overdue,
                hint="does another Flower, or `celery events`, read this queue? It must have one reader",
            )
        return _GATHER_SECONDS if 0 < len(letters) < RECEIVE_AT_ONCE else 0

    def _open(self, letter: Letter) -> None:
        batch = parse(letter.body)
        if not self._arrivals.is_new(batch):
            return
        if lost := self._arrivals.newly_lost(batch):
            log.warning("events_lost_by_their_sender", count=lost, source=batch.source)
        for event in batch.events:
            # When it reached SQS: what waited here for a Flower that was away is no sign of a clock that is wrong.
            event["local_received"] = letter.sent_at
            handler = self._handlers.get(event["type"]) or self._handlers.get("*")
            if handler is not None:
                handler(event)
