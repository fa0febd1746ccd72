"""The production server: waitress, whose one loop reads and writes for all clients while threads only compute.

A slow client costs a socket, not a thread. Added to waitress are bounds for bad clients (`connections`, `framing`), and
a stop that answers whoever still waits.
"""

import ctypes
import resource
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import structlog
from waitress import wasyncore

from facerec.settings.tiers import WebSettings
from facerec.web.connections import listening
from facerec.web.screening import Preview

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

log = structlog.get_logger(__name__)

FLUSH_SECONDS = 2.0
"""How long the last replies may take to leave after the drain."""

SWITCH_SECONDS = 0.0005
"""Among hundreds of threads that all want to compute, the loop must not wait Python's 5 ms for each."""

MANY_SOCKETS = 200

GATHERING_SECONDS = 0.003
"""How long the loop waits for more events when it has many connections to look at."""

_LOOP_SECONDS = 1.0
_DRAIN_LOOP_SECONDS = 0.05
_FILES = 16_384
_M_MMAP_THRESHOLD = -3
_LARGE_BLOCK_BYTES = 1_000_000


class WebServer:
    """Serves an application on a bound socket until it is asked to stop.

    `preview` is asked about the head of each request; `refused` gets the status of each that the application does not
    see.
    """

    def __init__(
        self,
        application: "WSGIApplication",
        settings: WebSettings,
        listener: socket.socket,
        *,
        preview: Preview,
        refused: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._settings = settings
        self._sockets: dict[int, Any] = {}
        self._stopping = threading.Event()
        _raise_file_limit()
        _return_large_blocks()
        self._server = listening(application, settings, listener, self._sockets, preview=preview, refused=refused)

    def request_stop(self) -> None:
        """Ask `run` to drain and return; may be called from any thread and from a signal handler."""
        self._stopping.set()
        with suppress(OSError):  # it has stopped already
            self._server.pull_trigger()

    def run(self, *, close: Callable[[], None], waiting: Callable[[], int], give_up: Callable[[], None]) -> None:
        """Serve until `request_stop`, then drain and return.

        Draining: `close` makes the application refuse new uploads, which get their refusal on the still open socket;
        as soon as `waiting` is 0 and every reply has left, or after `shutdown_seconds`, `give_up` ends the waits that
        are left, and their replies leave too.
        """
        sys.setswitchinterval(SWITCH_SECONDS)
        while not self._stopping.is_set():
            self._turn(_LOOP_SECONDS)
        close()
        log.info("stopping", waiting=waiting())
        self._turn_while(lambda: waiting() > 0 or self._busy(), self._settings.shutdown_seconds)
        give_up()
        self._turn_while(lambda: waiting() > 0 or self._busy(), FLUSH_SECONDS)
        self._server.task_dispatcher.shutdown(timeout=1)
        wasyncore.close_all(self._sockets)
        log.info("stopped")

    def _turn(self, seconds: float) -> None:
        if len(self._sockets) > MANY_SOCKETS:
            # A turn looks at every connection: events that come one by one are gathered, as network cards do.
            time.sleep(GATHERING_SECONDS)
        wasyncore.loop(timeout=seconds, use_poll=True, map=self._sockets, count=1)

    def _turn_while(self, condition: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while condition() and time.monotonic() < deadline:
            self._turn(_DRAIN_LOOP_SECONDS)

    def _busy(self) -> bool:
        """Whether a request is being read or worked on, or a reply being sent."""
        channels = list(self._server.active_channels.values())
        return any(channel.request or channel.requests or channel.total_outbufs_len for channel in channels)


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; raises `OSError` when the address is taken or not ours."""
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    # "::" is every address, as "0.0.0.0" is every one of IPv4.
    dual = family == socket.AF_INET6 and address[0] == "::" and socket.has_dualstack_ipv6()
    return socket.create_server(address[:2], family=family, backlog=1024, dualstack_ipv6=dual)


def address_of(listener: socket.socket) -> str:
    """The socket's address as a URL."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _raise_file_limit() -> None:
    """Each connection takes a descriptor, and a large body another; the usual soft limit is 1 024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _return_large_blocks() -> None:
    """Have glibc give a large upload's memory back at once, instead of keeping it for each thread's next one.

    By itself it raises the size from which on it does so up to 32 MB (mallopt(3), M_MMAP_THRESHOLD).
    """
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK_BYTES)
