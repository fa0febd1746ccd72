"""Celery's events over SQS: `Celery(events="facerec.celery_sqs.events.celery_events:Events")`.

Celery publishes events to a topic exchange, which SQS lacks. Its receiver consumes without acknowledging, which kombu's
SQS transport cannot do outside a worker. So these events bypass kombu: the dispatcher puts them into the process's
outbox, and the receiver reads their queue. `celery -A facerec events --dump` works, too, but not at the same time as
Flower: SQS delivers each message to one reader.
"""

import atexit
import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import structlog
from celery.app.events import Events as CeleryEvents
from celery.events.dispatcher import EventDispatcher
from celery.events.event import group_from

from facerec.aws.clients import shared_clients
from facerec.aws.sqs.queue import BATCH, SqsQueue
from facerec.background import OutageLog, backoff_seconds
from facerec.celery_sqs.events.batches import BatchTracker, Event, parse
from facerec.celery_sqs.events.outbox import EventOutbox
from facerec.errors import Transient

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import MessageTypeDef

# The stubs of Celery know almost none of what is overridden here.
_BaseEvents: Any = CeleryEvents
_BaseDispatcher: Any = EventDispatcher

log = structlog.get_logger(__name__)

_CLOSE_SECONDS = 2.0
_GATHER_SECONDS = 0.25
"""The wait between two receives, so that one receive and one delete serve several messages."""


class Events(_BaseEvents):  # type: ignore[misc]  # untyped on purpose, see above
    """Celery's `app.events`, for an application that has our `settings`."""

    dispatcher_cls = "facerec.celery_sqs.events.celery_events:Dispatcher"
    receiver_cls = "facerec.celery_sqs.events.celery_events:Receiver"

    def __init__(self, app: Any) -> None:
        super().__init__(app)
        settings = app.settings
        self._queue: SqsQueue | None = None
        self.outbox = EventOutbox(
            self._send,
            window_seconds=settings.events.window_seconds,
            max_waiting=settings.events.max_waiting,
        )
        # A process that ends normally sends its last events.
        atexit.register(self.outbox.close, _CLOSE_SECONDS)

    def _send(self, body: str) -> None:
        # Made here, in the outbox's thread, because it takes a tenth of a second.
        if self._queue is None:
            self._queue = self.queue()
        self._queue.send(body)

    def queue(self) -> SqsQueue:
        """The queue of events."""
        settings = self.app.settings
        return SqsQueue(shared_clients(settings).sqs, settings.events_queue)


class Dispatcher(_BaseDispatcher):  # type: ignore[misc]  # untyped on purpose, see above
    """Puts events into the process's outbox. It stays enabled: a stopping worker's tasks end after its consumer."""

    def enable(self) -> None:
        """Take events from now on."""
        self.enabled = True
        for callback in self.on_enabled:
            callback()

    def send(self, type: str, blind: bool = False, **fields: Any) -> None:  # noqa: A002, FBT001, FBT002 - Celery's signature
        """Put an event into the outbox, if its group is enabled."""
        if not self.enabled or (self.groups and group_from(type) not in self.groups):
            return
        for option in ("utcoffset", "retry", "retry_policy", "Event"):
            fields.pop(option, None)
        event = self._prepare_event(type, fields, blind=blind)
        if type == "worker-offline":
            # Last, because the next event of a task that still runs would make the worker online again in Flower.
            self.app.events.outbox.put_last(event)
        else:
            self.app.events.outbox.put(event)

    def publish(self, type: str, fields: Event, producer: Any, blind: bool = False, **options: Any) -> None:  # noqa: A002, FBT001, FBT002 - Celery's signature
        """Put an event of a sender of tasks into the outbox."""
        del producer, options
        self.app.events.outbox.put(self._prepare_event(type, fields, blind=blind))

    def flush(self, *_groups: Any, **_options: Any) -> None:
        """Do nothing: the outbox keeps the events that wait."""

    def extend_buffer(self, other: Any) -> None:
        """Do nothing, as above."""

    def disable(self) -> None:
        """Stay enabled: see the class."""

    def close(self) -> None:
        """Stay enabled: see the class."""


class Receiver:
    """Reads the events' queue, and calls the handler of each event's type, or the one of `*`, once for each event."""

    app: Any = None

    def __init__(
        self, channel: object = None, handlers: Mapping[str, Callable[[Event], None]] | None = None, **_: Any
    ) -> None:
        del channel
        self._handlers = dict(handlers or {})
        self._queue: SqsQueue = self.app.events.queue()
        self._wait_seconds: int = self.app.settings.queue.wait_time_seconds
        self._arrivals = BatchTracker(time.monotonic)
        self._stopped = threading.Event()
        self._outage = OutageLog("events_queue")

    def capture(self, limit: None = None, timeout: None = None, wakeup: bool = True) -> None:  # noqa: FBT001, FBT002 - Celery's signature
        """Handle events until `stop`, also after an outage."""
        del limit, timeout, wakeup
        while not self._stopped.is_set():
            self._stopped.wait(self._round())

    def stop(self) -> None:
        """End `capture` after its present long poll."""
        self._stopped.set()

    def _round(self) -> float:
        """Receive, handle and delete; returns the wait before the next round."""
        try:
            messages = self._queue.receive(wait_seconds=self._wait_seconds, attributes=["SentTimestamp"])
            for message in messages:
                try:
                    self._handle(message)
                except Exception as exc:  # noqa: BLE001 - one message must not keep the others in the queue
                    log.warning("event_batch_unreadable", reason=str(exc) or repr(exc))
            if failed := self._queue.delete_batch([message["ReceiptHandle"] for message in messages]):
                raise Transient(f"{len(failed)} messages were not deleted: {failed[0].code}")  # noqa: TRY301 - as any failure
        except Exception as exc:  # noqa: BLE001 - whatever it is, the monitor must go on
            self._outage.failed(exc)
            return backoff_seconds(self._outage.failures, random.random())  # noqa: S311 - no secret
        self._outage.succeeded()
        if overdue := self._arrivals.overdue():
            log.warning(
                "events_missing",
                queue=self._queue.name,
                messages=overdue,
                hint="does another Flower, or `celery events`, read this queue? It must have one reader",
            )
        return _GATHER_SECONDS if 0 < len(messages) < BATCH else 0

    def _handle(self, message: "MessageTypeDef") -> None:
        batch = parse(message["Body"])
        if not self._arrivals.is_new(batch):
            return
        if lost := self._arrivals.newly_lost(batch):
            log.warning("events_lost_by_their_sender", count=lost, source=batch.source)
        sent_at = int(message["Attributes"]["SentTimestamp"]) / 1000
        for event in batch.events:
            # SQS's time. After an outage of Flower the time of reading would look like a wrong clock of the worker.
            event["local_received"] = sent_at
            handler = self._handlers.get(event["type"]) or self._handlers.get("*")
            if handler is not None:
                handler(event)
