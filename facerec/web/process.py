"""One web process: its inbox thread, its application and its HTTP server, from start to drain.

The server is waitress, unchanged. A proxy in front (`deploy/nginx`) handles slow and hostile clients.
"""

import ctypes
import queue
import resource
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
import waitress
from waitress import wasyncore

from facerec import bootstrap
from facerec.access_records import AccessRecord
from facerec.aws.sqs.queue import check_queue, made_at
from facerec.background import OutageLog
from facerec.callbacks import CallbackSender
from facerec.errors import FacerecError, Transient
from facerec.gallery.unknown_people import Unknown
from facerec.settings import Settings
from facerec.settings.tiers import WebSettings
from facerec.web.access_log import AccessLog
from facerec.web.admission import Admission, all_places
from facerec.web.api.v1.description import DescribedApp
from facerec.web.app import create_app
from facerec.web.auth.access import AccessControl
from facerec.web.auth.key_cache import KeyCache
from facerec.web.erasing import ErasureThread
from facerec.web.forms import FORM_OVERHEAD_BYTES
from facerec.web.inbox import InboxThread, Waiters
from facerec.web.jobs.feeder import JobFeeder
from facerec.web.metrics import WebMetrics
from facerec.web.readiness import Check, Readiness
from facerec.web.recovery import Recovery
from facerec.web.unknown import UnknownThread

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

log = structlog.get_logger(__name__)

START_SECONDS = 30.0
"""How long a start waits while AWS cannot be reached."""

RETRY_SECONDS = 1.0

SPARE_THREADS = 16
"""Threads in addition to one for each waiting upload: for refusals, results and health checks."""

HEADER_BYTES = 16 * 1024
RECEIVE_BYTES = 64 * 1024

READ_FACTOR = 3
"""Bodies up to this many times the limit are read: two photos in base64 have 2.7 times as many bytes.

A client of one photo that is too large then gets a 413 and not a reset.
"""

FLUSH_SECONDS = 2.0
"""The time for the last replies after the drain."""

SWITCH_SECONDS = 0.0005
"""With Python's 5 ms the HTTP loop would wait too long for hundreds of threads."""

LARGE_BLOCK_BYTES = 1_000_000

_POLL_SECONDS = 0.05
_FILES = 16_384
_M_MMAP_THRESHOLD = -3  # malloc.h


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
        keys = KeyCache(bootstrap.api_keys(settings)) if settings.web.auth == "keys" else None
        app = make_app(
            settings,
            reply_to=response_queue,
            waiters=self._waiters,
            admission=self._admission,
            readiness=Readiness(checks),
            measured=metrics,
            keys=keys,
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
        self._server.run(refuse_new=self._admission.close, give_up=self._waiters.give_up)
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
    keys: KeyCache | None,
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
        access=AccessControl(settings.web, keys),
        unknown=bootstrap.unknown_people(settings),
        jobs=bootstrap.jobs(settings),
        wake_jobs=wake_jobs,
        on_access=on_access,
    )


def described_app(settings: Settings) -> DescribedApp:
    """Make an application for its OpenAPI document alone."""
    return make_app(
        settings,
        reply_to=settings.response_queue,
        waiters=Waiters(),
        admission=Admission(max_waiting=1, wait_seconds=1),
        readiness=Readiness({}),
        measured=WebMetrics(),
        keys=None,
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


class WebServer:
    """Serves an application on a bound socket until `request_stop`."""

    def __init__(
        self,
        application: "WSGIApplication",
        settings: WebSettings,
        listener: socket.socket,
        *,
        max_body_bytes: int | None = None,
    ) -> None:
        self._shutdown_seconds = settings.shutdown_seconds
        self._stop: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._sockets: dict[int, Any] = {}
        _raise_file_limit()
        return_large_blocks()
        self._server = waitress.create_server(
            application,
            map=self._sockets,
            sockets=[listener],
            threads=all_places(settings.max_waiting) + SPARE_THREADS,
            backlog=1024,
            # About twice as many as waiting uploads, for idle keep-alive connections.
            connection_limit=2 * settings.max_waiting + 500,
            asyncore_use_poll=True,
            recv_bytes=RECEIVE_BYTES,
            max_request_header_size=HEADER_BYTES,
            max_request_body_size=max_body_bytes or READ_FACTOR * settings.max_upload_bytes,
            ident=None,
            # Without trusted proxies the application ignores these headers anyway.
            clear_untrusted_proxy_headers=settings.trusted_proxies == 0,
            log_socket_errors=False,
        )

    def request_stop(self) -> None:
        """Ask `run` to drain and return; safe in any thread and in a signal handler."""
        self._stop.put(None)

    def run(self, *, refuse_new: Callable[[], None], give_up: Callable[[], None]) -> None:
        """Serve until `request_stop`, then drain and return.

        `refuse_new` makes the application refuse every further upload. The drain ends when every reply is sent, or
        after `shutdown_seconds`. Then `give_up` ends the remaining waits, and their replies are sent, too.
        """
        sys.setswitchinterval(SWITCH_SECONDS)
        loop = threading.Thread(target=self._server.run, name="http", daemon=True)
        loop.start()
        self._stop.get()
        refuse_new()
        log.info("stopping", connections=len(self._server.active_channels))
        self._await_replies(self._shutdown_seconds)
        give_up()
        self._await_replies(FLUSH_SECONDS)
        self._server.task_dispatcher.shutdown(timeout=1)
        # The loop itself must close the sockets; then it ends.
        self._server.trigger.pull_trigger(lambda: wasyncore.close_all(self._sockets))
        loop.join(FLUSH_SECONDS)
        log.info("stopped")

    def _await_replies(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self._busy() and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)

    def _busy(self) -> bool:
        """Whether a request is being read or answered."""
        channels = list(self._server.active_channels.values())
        return any(channel.request or channel.requests or channel.total_outbufs_len for channel in channels)


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket; raises `OSError` if the address is taken or is not one of this machine."""
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    # "::" is every address, also of IPv4.
    dual = family == socket.AF_INET6 and address[0] == "::" and socket.has_dualstack_ipv6()
    return socket.create_server(address[:2], family=family, backlog=1024, dualstack_ipv6=dual)


def address_of(listener: socket.socket) -> str:
    """Return the socket's address as a URL."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _raise_file_limit() -> None:
    """Allow more descriptors: a connection takes one, a large body another, and the usual soft limit is 1 024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def return_large_blocks() -> None:
    """Let the C library give a freed block of over 1 MB back to the system at once, if it is glibc.

    Otherwise it keeps the memory of large uploads for each of the many threads.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)
