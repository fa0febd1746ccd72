"""One web process: its inbox thread, its application and its server, from start to drain."""

import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog

from facerec import bootstrap
from facerec.aws.sqs.queue import check_queue, made_at
from facerec.errors import FacerecError, Transient
from facerec.settings import Settings
from facerec.web.admission import Admission
from facerec.web.app import create_app
from facerec.web.auth.access import Gate
from facerec.web.auth.key_cache import KeyRing
from facerec.web.inbox import InboxThread, Waiters
from facerec.web.metrics import WebMetrics
from facerec.web.readiness import Check, Readiness
from facerec.web.recovery import Rescue
from facerec.web.server import WebServer

log = structlog.get_logger(__name__)

START_SECONDS = 30.0
"""How long a start waits for an AWS that cannot be reached yet."""

RETRY_SECONDS = 1.0


class WebProcess:
    """Everything one process runs, reading the given response queue; one of several has a `metrics_directory`."""

    def __init__(
        self,
        settings: Settings,
        listener: socket.socket,
        response_queue: str,
        metrics_directory: Path | None = None,
    ) -> None:
        metrics = WebMetrics(metrics_directory)
        metrics.places(settings.web.max_waiting)
        self._waiters = Waiters()
        self._admission = Admission(
            max_waiting=settings.web.max_waiting, wait_seconds=settings.web.wait_seconds, watch=metrics.waiting
        )
        self._inbox = InboxThread(
            bootstrap.result_inbox(settings, response_queue),
            self._waiters,
            poll_seconds=settings.queue.wait_time_seconds,
            watch=metrics,
        )
        store, queue = bootstrap.object_store(settings), bootstrap.task_queue(settings)
        self._rescue = Rescue(
            self._waiters,
            self._inbox,
            queue=queue,
            made_at=lambda: made_at(bootstrap.clients(settings), settings.request_queue),
            store=store,
            output_bucket=settings.output_bucket,
        )
        checks = resource_checks(settings) | {"inbox": self._inbox.check, "admission": self._check_admission}
        ring = KeyRing(bootstrap.api_keys(settings)) if settings.web.auth == "keys" else None
        gate = Gate(settings.web, ring)
        app = create_app(
            settings=settings,
            store=store,
            queue=queue,
            reply_to=response_queue,
            waiters=self._waiters,
            admission=self._admission,
            readiness=Readiness(checks),
            measured=metrics,
            gate=gate,
        )
        self._server = WebServer(app, settings.web, listener, preview=gate.preview, refused=metrics.refused)

    def run(self) -> None:
        """Serve until `stop`, then drain; the inbox is read to the end."""
        self._inbox.start()
        self._rescue.start()
        self._server.run(
            close=self._admission.close, waiting=lambda: self._admission.waiting, give_up=self._waiters.give_up
        )
        self._rescue.stop()
        self._inbox.stop()

    def stop(self) -> None:
        """Ask `run` to drain and return; from any thread or signal handler."""
        self._server.request_stop()

    def _check_admission(self) -> None:
        if self._admission.closed:
            raise FacerecError("this process is being stopped")


def resource_checks(settings: Settings) -> dict[str, Check]:
    """What must be there to take uploads: both buckets and the request queue."""
    store = bootstrap.object_store(settings)

    def check_store() -> None:
        # Listing nothing is cheap, and unlike a look at one object it tells a missing bucket from a missing key.
        for bucket in (settings.input_bucket, settings.output_bucket):
            store.keys(bucket, "readiness/")

    return {"store": check_store, "queue": queue_check(settings, settings.request_queue)}


def start_checks(settings: Settings) -> dict[str, Check]:
    """What must be there to start; the keys, once read, are not needed all the time."""
    checks = resource_checks(settings)
    if settings.web.auth == "keys":
        checks["keys"] = lambda: bootstrap.api_keys(settings).get("0" * 12)
    return checks


def queue_check(settings: Settings, queue: str) -> Check:
    """A look at one queue."""
    return lambda: check_queue(bootstrap.clients(settings), queue)


def await_resources(
    checks: Mapping[str, Check],
    *,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], object] = time.sleep,
) -> None:
    """Run the checks, again while AWS cannot be reached; raises the reason after 30 s, or when something is missing."""
    deadline = clock() + START_SECONDS
    told = False
    while True:
        try:
            for check in checks.values():
                check()
        except Transient as exc:
            if clock() >= deadline:
                raise
            if not told:
                log.warning("waiting_for_aws", reason=str(exc))
            told = True
            pause(RETRY_SECONDS)
        else:
            return
