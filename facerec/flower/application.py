"""Flower as an application of ours: each part that knows no SQS has a counterpart here; nothing of Flower is patched.

- `Events` reads with Celery's `app.events.Receiver`, which is ours, where Flower takes Celery's own;
- `Inspected` stands for the inspector, which would ask workers by a broadcast;
- the handlers below take the place of Flower's: two of them need the broker, which Flower makes by the scheme of a URL,
  and `/metrics`, which Flower shows to everybody, asks for the password, too.

All remote control is off (`read_only`): Flower hides its buttons and answers its calls with 403.
"""

import time
from typing import Any

import structlog
import tornado.web
from flower.api.tasks import GetQueueLengths
from flower.app import Flower
from flower.events import Events
from flower.urls import settings as flower_settings
from flower.views.broker import BrokerView
from flower.views.monitor import Metrics
from tornado.ioloop import IOLoop

from facerec.aws.clients import shared_clients
from facerec.celery import FacerecCelery
from facerec.flower.queues import SqsBroker
from facerec.flower.workers import Inspected
from facerec.settings import Settings

log = structlog.get_logger(__name__)


class QueueEvents(Events):  # type: ignore[misc]  # Flower has no types
    """Flower's thread of events."""

    def run(self) -> None:
        """Read for ever; an outage is waited out."""
        self.receiver = self.capp.events.Receiver(handlers={"*": self.on_event})
        self.receiver.capture()

    def save_state(self) -> None:
        """Write the database, now and then and at the end; what fails is logged, and tried again the next time."""
        try:
            super().save_state()
        except Exception as exc:  # noqa: BLE001 - whatever it is, it must not keep Flower from its end
            log.warning("tasks_not_saved", database=self.db, reason=str(exc))


class FlowerApplication(Flower):  # type: ignore[misc]  # Flower has no types
    """Flower on our queues; `options` are Flower's own."""

    def __init__(self, settings: Settings, options: Any) -> None:
        capp = FacerecCelery("facerec")
        capp.settings = settings
        # Flower imports what the application includes: the tasks, and with them the engine, which it never calls.
        capp.conf.include = ()
        io_loop = IOLoop.current()
        events = QueueEvents(
            capp,
            io_loop=io_loop,
            db=options.db,
            persistent=options.persistent,
            state_save_interval=options.state_save_interval,
            enable_events=False,  # that would be a broadcast
            max_workers_in_memory=options.max_workers,
            max_tasks_in_memory=options.max_tasks,
        )
        super().__init__(options=options, capp=capp, events=events, io_loop=io_loop, **flower_settings)
        self.broker_uri = settings.endpoint_url or f"SQS in {settings.aws.region}"
        self.inspector = Inspected(lambda: events.state, settings.request_queue, self.broker_uri)
        self.broker = SqsBroker(shared_clients(settings), settings)
        self.add_handlers(
            r".*", [(r"/broker", _Broker), (r"/api/queues/length", _QueueLengths), (r"/metrics", _PrivateMetrics)]
        )

    def purge_offline_worker_metrics(self) -> None:
        """Bring the metrics up to date; Flower does it before it shows them.

        It sets who is online by events alone, which a worker that was killed does not send, and takes whoever sends
        tasks for a worker that has gone. So both are done here: a worker is online while `/workers` says so.
        """
        state = self.events.state
        online = state.metrics.worker_online
        shown = {name for (name,) in list(online._metrics)}  # noqa: SLF001 - there is no other way to ask for labels
        gone = set()
        for name in shown | set(state.workers):
            worker = state.workers.get(name)
            if name in shown:
                online.labels(name).set(worker is not None and worker.alive)
            if worker is None or self._is_forgotten(worker):
                gone.add(name)
        state.metrics.remove_workers(gone)

    def _is_forgotten(self, worker: Any) -> bool:
        seen = max(worker.heartbeats, default=0) or getattr(worker, "timestamp", 0)
        return not worker.alive and time.time() - seen >= self.options.purge_offline_workers


class _Broker(BrokerView):  # type: ignore[misc]  # Flower has no types
    def get_broker(self) -> SqsBroker:
        broker: SqsBroker = self.application.broker
        return broker

    def render(self, template: str, **values: Any) -> None:
        # The page has no place for what is wrong with a queue but beside its name.
        for row in values.get("queues", ()):
            if "error" in row:
                row["name"] += f": {row['error']}"
        super().render(template, **values)


class _QueueLengths(GetQueueLengths):  # type: ignore[misc]  # Flower has no types
    get_broker = _Broker.get_broker


class _PrivateMetrics(Metrics):  # type: ignore[misc]  # Flower has no types
    get = tornado.web.authenticated(Metrics.get)
