"""The HTTP server of a web process: waitress, unchanged, with our limits and a drain.

A proxy in front (`deploy/nginx`) handles slow and hostile clients.
"""

import ctypes
import queue
import resource
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import structlog
import waitress
from waitress import wasyncore

from facerec.settings.tiers import WebSettings
from facerec.web.admission import all_places

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

log = structlog.get_logger(__name__)

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
