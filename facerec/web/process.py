"""One web process: its inbox thread, its application and its HTTP server, from start to drain."""

import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog

from facerec import bootstrap
from facerec.access_records import AccessRecord
from facerec.aws.sqs.queue import check_queue, made_at
from facerec.background import OutageLog
from facerec.callbacks import CallbackSender
from facerec.errors import FacerecError, Transient
from facerec.gallery.unknown_people import Unknown
from facerec.settings import Settings
from facerec.web.access_log import AccessLog
from facerec.web.admission import Admission
from facerec.web.api.v1.description import DescribedApp
from facerec.web.app import create_app
from facerec.web.auth.access import AccessControl
from facerec.web.auth.credentials import Credentials
from facerec.web.erasing import ErasureThread
from facerec.web.fleet.traffic import Traffic
from facerec.web.fleet.watch import FleetWatch
from facerec.web.forms import FORM_OVERHEAD_BYTES
from facerec.web.inbox import InboxThread, Waiters
from facerec.web.jobs.feeder import JobFeeder
from facerec.web.metrics import WebMetrics
from facerec.web.readiness import Check, Readiness
from facerec.web.recovery import Recovery
from facerec.web.server import FLUSH_SECONDS, READ_FACTOR, WebServer
from facerec.web.unknown import UnknownThread

log = structlog.get_logger(__name__)

START_SECONDS = 30.0
"""How long a start waits while AWS cannot be reached."""

RETRY_SECONDS = 1.0


class WebProcess:
    """One web process on the given response queue; one of several processes has a `metrics_directory`."""

    def __init__(
        self,
        settings: Settings,
        listener: socket.socket,
        response_queue: str,
        metrics_directory: Path | None = None,
    ) -> None:
        metrics = WebMetrics(metrics_directory)
        metrics.places(settings.web.max_waiting)
        self._traffic = Traffic(metrics.upload_totals)
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
        self._recovery = Recovery(
            self._waiters,
            self._inbox,
            queue=queue,
            made_at=lambda: made_at(bootstrap.clients(settings), settings.request_queue),
            store=store,
            output_bucket=settings.output_bucket,
        )
        self._accesses = AccessLog(bootstrap.access_records(settings))
        self._erasures = ErasureThread(bootstrap.erasures(settings))
        self._jobs = JobFeeder(
            settings=settings,
            store=store,
            queue=queue,
            jobs=bootstrap.jobs(settings),
            waiters=self._waiters,
            reply_to=response_queue,
            callbacks=CallbackSender.of(settings.callbacks),
        )
        self._unknown = UnknownThread(
            settings,
            Unknown(
                enrolled=bootstrap.enrolled_people(settings),
                records=bootstrap.unknown_people(settings),
                names=bootstrap.person_records(settings),
            ),
            CallbackSender.of(settings.callbacks),
        )
        checks = resource_checks(settings) | {"inbox": self._inbox.check, "admission": self._check_admission}
        credentials = None
        if settings.web.auth == "keys":
            credentials = Credentials(settings.web, bootstrap.api_keys(settings), bootstrap.sessions(settings))
        app = make_app(
            settings,
            reply_to=response_queue,
            waiters=self._waiters,
            admission=self._admission,
            readiness=Readiness(checks),
            measured=metrics,
            traffic=self._traffic,
            credentials=credentials,
            wake_jobs=self._jobs.wake,
            on_access=self._accesses.note,
        )
        body_bytes = max(READ_FACTOR * settings.web.max_upload_bytes, settings.jobs.max_bytes + FORM_OVERHEAD_BYTES)
        self._server = WebServer(app, settings.web, listener, max_body_bytes=body_bytes)

    def run(self) -> None:
        """Serve until `stop`, then drain; the inbox is read until the drain ends."""
        self._inbox.start()
        self._recovery.start()
        self._erasures.start()
        self._jobs.start()
        self._unknown.start()
        self._traffic.start()
        self._server.run(refuse_new=self._admission.close, give_up=self._waiters.give_up)
        self._traffic.stop()
        self._unknown.stop()
        self._jobs.stop()
        self._erasures.stop()
        self._recovery.stop()
        self._inbox.stop()
        self._accesses.close(FLUSH_SECONDS)

    def stop(self) -> None:
        """Ask `run` to drain and return; from any thread or signal handler."""
        self._server.request_stop()

    def _check_admission(self) -> None:
        if self._admission.closed:
            raise FacerecError("this process is being stopped")


def make_app(
    settings: Settings,
    *,
    reply_to: str,
    waiters: Waiters,
    admission: Admission,
    readiness: Readiness,
    measured: WebMetrics,
    traffic: Traffic,
    credentials: Credentials | None,
    wake_jobs: Callable[[], None] = lambda: None,
    on_access: Callable[[AccessRecord], None] = lambda _: None,
) -> DescribedApp:
    """Make the application on the services that the settings name; nothing is connected before it is used."""
    return create_app(
        settings=settings,
        store=bootstrap.object_store(settings),
        people=bootstrap.enrolled_people(settings),
        records=bootstrap.person_records(settings),
        erasures=bootstrap.erasures(settings),
        collections=bootstrap.collections(settings),
        queue=bootstrap.task_queue(settings),
        reply_to=reply_to,
        waiters=waiters,
        admission=admission,
        readiness=readiness,
        measured=measured,
        access=AccessControl(settings.web, credentials),
        unknown=bootstrap.unknown_people(settings),
        jobs=bootstrap.jobs(settings),
        fleet=FleetWatch(
            read_depth=bootstrap.queue_depth(settings), history=bootstrap.fleet_history(settings), traffic=traffic
        ),
        wake_jobs=wake_jobs,
        on_access=on_access,
    )


def described_app(settings: Settings) -> DescribedApp:
    """Make an application for its OpenAPI document alone."""
    measured = WebMetrics()
    return make_app(
        settings,
        reply_to=settings.response_queue,
        waiters=Waiters(),
        admission=Admission(max_waiting=1, wait_seconds=1),
        readiness=Readiness({}),
        measured=measured,
        traffic=Traffic(measured.upload_totals),
        credentials=None,
    )


def resource_checks(settings: Settings) -> dict[str, Check]:
    """Return the checks of what uploads need: both buckets and the request queue."""
    store = bootstrap.object_store(settings)

    def check_store() -> None:
        # Cheap, and unlike a request for one object it distinguishes a missing bucket from a missing key.
        for bucket in (settings.input_bucket, settings.output_bucket):
            store.keys(bucket, "readiness/")

    return {"store": check_store, "queue": queue_check(settings, settings.request_queue)}


def start_checks(settings: Settings) -> dict[str, Check]:
    """Return the checks before the start: also of the API keys, which are not needed at every moment later."""
    checks = resource_checks(settings)
    if settings.web.auth == "keys":
        checks["keys"] = lambda: bootstrap.api_keys(settings).get("0" * 12)
    return checks


def queue_check(settings: Settings, queue: str) -> Check:
    """Return the check of one queue."""
    return lambda: check_queue(bootstrap.clients(settings), queue)


def await_resources(
    checks: Mapping[str, Check],
    *,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], object] = time.sleep,
) -> None:
    """Run the checks until they pass; raises the reason after 30 s without AWS, or at once if something is missing."""
    deadline = clock() + START_SECONDS
    outage = OutageLog("aws")
    while True:
        try:
            for check in checks.values():
                check()
        except Transient as exc:
            if clock() >= deadline:
                raise
            outage.failed(exc)
            pause(RETRY_SECONDS)
        else:
            outage.succeeded()
            return
