"""Flower on our queues. Each part of Flower that does not know SQS is replaced through its own hooks, not patched.

- `QueueEvents` reads with our `app.events.Receiver`; Flower uses Celery's own.
- `Inspected` replaces the inspector, which would send a broadcast to workers.
- Three handlers replace Flower's: two need the broker, which Flower makes from the scheme of a URL. The third is
  `/metrics`, which Flower shows without a password.

Without a password, it serves this machine alone: no page of another site, and no other host name (`denied`).

All remote control is off (`read_only`): Flower hides its buttons and answers its calls with 403.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any

import structlog
import tornado.web
from celery import states
from celery.events.state import State
from flower.api.tasks import GetQueueLengths
from flower.app import Flower
from flower.events import Events
from flower.inspector import Inspector
from flower.urls import settings as flower_settings
from flower.views.broker import BrokerView
from flower.views.monitor import Metrics
from tornado.httputil import HTTPServerRequest
from tornado.ioloop import IOLoop

from facerec.aws.clients import Clients, shared_clients
from facerec.aws.sqs.queue import SqsQueue
from facerec.aws.sqs.response_queues import ResponseQueues
from facerec.celery import FacerecCelery
from facerec.errors import FacerecError
from facerec.host_check import LOOPBACK_NAMES, addressed_host, is_cross_site, is_served
from facerec.messages import FACES_TASK_NAME, TASK_NAME
from facerec.settings import Settings

log = structlog.get_logger(__name__)
_COUNTS = {
    "messages_ready": "ApproximateNumberOfMessages",
    "messages_unacknowledged": "ApproximateNumberOfMessagesNotVisible",
    "messages_delayed": "ApproximateNumberOfMessagesDelayed",
}
_READERS = 4


class SqsBroker:
    """Flower's broker: the counts of the queues, which SQS gives approximately."""

    def __init__(self, clients: Clients, settings: Settings) -> None:
        self._clients = clients
        self._settings = settings
        self._queues: dict[str, SqsQueue] = {}
        self._pool = ThreadPoolExecutor(_READERS, "queues")

    async def queues(self, names: Iterable[str]) -> list[dict[str, Any]]:
        """Return a row for each queue of the system, not of `names`; an unreadable one has `error` and no counts."""
        del names
        settings = self._settings
        of_workers = [name for queues in settings.worker_queues.items() for name in queues]
        found = [*of_workers, settings.response_queue, settings.events_queue]
        run = IOLoop.current().run_in_executor
        unreadable: list[dict[str, Any]] = []
        try:
            found[-1:-1] = await run(self._pool, self._owned_response_queues)
        except FacerecError as exc:
            unreadable.append(_unreadable(f"{settings.response_queue}-*", exc))
        pending = [run(self._pool, self._row, name) for name in found]
        return [*[await row for row in pending], *unreadable]

    def _owned_response_queues(self) -> list[str]:
        return ResponseQueues(self._clients, self._settings.response_queue, retention_seconds=0).names()

    def _row(self, name: str) -> dict[str, Any]:
        try:
            queue = self._queues.setdefault(name, SqsQueue(self._clients.sqs, name))
            attributes = queue.attributes(*_COUNTS.values())
            counts = {column: int(attributes[attribute]) for column, attribute in _COUNTS.items()}
        except FacerecError as exc:
            return _unreadable(name, exc)
        return {"name": name, "messages": sum(counts.values()), **counts}


def _unreadable(name: str, exc: Exception) -> dict[str, Any]:
    """A row whose counts are unknown, not 0."""
    return {"name": name, "messages": None, "error": str(exc)}


class Inspected:
    """Replaces Flower's `Inspector`: it makes the same dictionaries from the events."""

    inspect_methods: tuple[str, ...] = Inspector.inspect_methods

    def __init__(self, state: Callable[[], State], queues: Iterable[str], broker: str) -> None:
        self._state = state
        self._queues = list(queues)
        self._broker = broker

    def inspect(self, workername: str | None = None) -> "asyncio.Future[None]":
        """Ask no worker; done at once."""
        del workername
        done: asyncio.Future[None] = asyncio.get_event_loop().create_future()
        done.set_result(None)
        return done

    @property
    def workers(self) -> dict[str, dict[str, Any]]:
        """By worker, the answers that the worker itself would give."""
        state: Any = self._state()
        tasks: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
        for task in list(state.tasks.data.values()):
            if task.worker is not None:
                tasks[task.worker.hostname, task.state].append(_task_row(task))
        return {
            name: self._worker(worker)
            | {"active": tasks[name, states.STARTED], "reserved": tasks[name, states.RECEIVED]}
            for name, worker in list(state.workers.data.items())
        }

    def _worker(self, worker: Any) -> dict[str, Any]:
        queue = dict.fromkeys(("alias", "queue_arguments", "binding_arguments", "exchange"))
        return {
            "stats": {
                "pid": worker.pid,
                "total": {TASK_NAME: worker.processed or 0},
                "broker": {"transport": "sqs", "hostname": self._broker},
                "clock": worker.clock,
                "pool": {
                    "online": worker.alive,
                    "heartbeat_every": f"{worker.freq} s",
                    "load_average": worker.loadavg,
                    "software": f"{worker.sw_ident} {worker.sw_ver} on {worker.sw_sys}",
                },
            },
            "active_queues": [
                queue
                | {"name": name, "routing_key": name}
                | {"durable": True, "exclusive": False, "no_ack": False, "auto_delete": False}
                for name in self._queues
            ],
            "registered": [TASK_NAME, FACES_TASK_NAME],
            "scheduled": [],
            "revoked": [],
            "conf": {},
            "timestamp": max(worker.heartbeats, default=None),
        }


def _task_row(task: Any) -> dict[str, Any]:
    return {
        "id": task.uuid,
        "name": task.name,
        "args": task.args,
        "kwargs": task.kwargs,
        "time_start": task.started,
        "acknowledged": False,
        "worker_pid": None,
        "hostname": task.worker.hostname,
    }


class QueueEvents(Events):  # type: ignore[misc]  # Flower has no types
    """Flower's thread of events."""

    def run(self) -> None:
        """Read for ever, also after an outage."""
        self.receiver = self.capp.events.Receiver(handlers={"*": self.on_event})
        self.receiver.capture()

    def save_state(self) -> None:
        """Write the database; a failure is logged, and the next call tries again."""
        try:
            super().save_state()
        except Exception as exc:  # noqa: BLE001 - no failure may prevent the end of Flower
            log.warning("tasks_not_saved", database=self.db, reason=str(exc))


def denied(request: HTTPServerRequest, own_host: str) -> HTTPStatus | None:
    """Return the status of a request that a Flower without a password denies, and None for any other.

    It listens on `own_host`, a loopback address. A page of another site may only show a link to it.
    """
    headers, names = request.headers, (*LOOPBACK_NAMES, own_host.lower())
    name = addressed_host(headers.get("Host"), request.uri or "/")
    if name is None or not is_served(name, names):
        return HTTPStatus.MISDIRECTED_REQUEST
    # A link opens a document of its own; a frame in the foreign page does not.
    if request.method == "GET" and headers.get("Sec-Fetch-Dest") == "document":
        return None
    cross_site = is_cross_site(
        host=headers.get("Host"), origin=headers.get("Origin"), fetch_site=headers.get("Sec-Fetch-Site")
    )
    return HTTPStatus.FORBIDDEN if cross_site else None


class FlowerApplication(Flower):  # type: ignore[misc]  # Flower has no types
    """Flower on our queues; `options` are Flower's own."""

    def __init__(self, settings: Settings, options: Any) -> None:
        capp = FacerecCelery("facerec")
        capp.settings = settings
        # Flower would import the application's tasks, and with them the engine, which it never calls.
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
        self.inspector = Inspected(lambda: events.state, settings.worker_queues, self.broker_uri)
        self.broker = SqsBroker(shared_clients(settings), settings)
        self.add_handlers(
            r".*", [(r"/broker", _Broker), (r"/api/queues/length", _QueueLengths), (r"/metrics", _PrivateMetrics)]
        )

    def find_handler(self, request: HTTPServerRequest, **kwargs: Any) -> Any:
        """Return what answers the request; Tornado calls this for each."""
        status = denied(request, self.options.address) if not self.options.basic_auth else None
        if status is None:
            return super().find_handler(request, **kwargs)
        return self.get_handler_delegate(request, tornado.web.ErrorHandler, {"status_code": status.value})

    def purge_offline_worker_metrics(self) -> None:
        """Update the metrics; Flower calls this before it shows them.

        Flower decides by events which workers are online, but a killed worker sends no event. It also counts each
        sender of tasks as a worker that has ended. Here a worker is online if `/workers` shows it as online.
        """
        state = self.events.state
        online = state.metrics.worker_online
        shown = {name for (name,) in list(online._metrics)}  # noqa: SLF001 - the only way to read the labels
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
        # The page has no column for an error.
        for row in values.get("queues", ()):
            if "error" in row:
                row["name"] += f": {row['error']}"
        super().render(template, **values)


class _QueueLengths(GetQueueLengths):  # type: ignore[misc]  # Flower has no types
    get_broker = _Broker.get_broker


class _PrivateMetrics(Metrics):  # type: ignore[misc]  # Flower has no types
    get = tornado.web.authenticated(Metrics.get)
