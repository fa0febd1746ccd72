"""Flower as an application of ours: each part that knows no SQS has a counterpart here; nothing of Flower is patched.

- `Events` reads with Celery's `app.events.Receiver`, which is ours, where Flower takes Celery's own;
- `Inspected` stands for the inspector, which would ask workers by a broadcast;
- the handlers below take the place of Flower's: two of them need the broker, which Flower makes by the scheme of a URL,
  and `/metrics`, which Flower shows to everybody, asks for the password, too.

All remote control is off (`read_only`): Flower hides its buttons and answers its calls with 403.
"""

from typing import Any

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


class QueueEvents(Events):  # type: ignore[misc]  # Flower has no types
    """Flower's thread of events."""

    def run(self) -> None:
        """Read for ever; an outage is waited out."""
        self.receiver = self.capp.events.Receiver(handlers={"*": self.on_event})
        self.receiver.capture()


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
