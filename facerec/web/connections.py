"""Who may stay connected: deadlines, and who goes first when connections or room for bodies run short.

Waitress closes a connection only when it is idle, and stops accepting when it has too many: whoever sends a byte now
and then stays, and keeps everybody else out. Here a request has a deadline, and a full house turns out the slowest.
"""

import heapq
import math
import socket
import threading
import time
import weakref
from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING, Any

import structlog
from waitress.adjustments import Adjustments
from waitress.server import TcpWSGIServer
from waitress.task import ThreadedTaskDispatcher

from facerec.settings.tiers import WebSettings
from facerec.web import replies
from facerec.web.connection import Connection
from facerec.web.forms import FORM_OVERHEAD_BYTES
from facerec.web.framing import Overloaded, Parser
from facerec.web.screening import Preview, ask_again

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

log = structlog.get_logger(__name__)

SPARE_THREADS = 16
"""Beyond those that hold uploads: refusals and health checks are answered at once also when the house is full."""

MEMORY_BYTES = 256 * 1024
"""Bodies up to this size stay in memory, larger ones go to a temporary file."""

HEADER_BYTES = 16 * 1024
"""What the head of a request may have: parsing it takes the loop some milliseconds."""

LOOK_SECONDS = 1.0
"""How often the deadlines are looked at."""

ACCEPTED_AT_ONCE = 32
"""Connections taken in one turn of the loop, and places freed when there are none left."""

_FIRST_SECOND = 1.0
_RECEIVE_BYTES = 64 * 1024
_WEIGHED_EVERY_BYTES = 16_000_000


def listening(
    application: "WSGIApplication",
    settings: WebSettings,
    listener: socket.socket,
    sockets: MutableMapping[int, Any],
    *,
    preview: Preview,
    refused: Callable[[int], None],
    clock: Callable[[], float] = time.monotonic,
) -> "Listener":
    """A server on a bound socket that adds its connections to `sockets`, for waitress' loop.

    `preview` and `refused` as `WebServer` has them.
    """
    adjustments = Adjustments(
        sockets=[listener],
        threads=settings.max_waiting + SPARE_THREADS,
        backlog=1024,
        # Idle keep-alive connections and slow senders beside those that wait.
        connection_limit=2 * settings.max_waiting + 500,
        asyncore_use_poll=True,
        recv_bytes=_RECEIVE_BYTES,
        inbuf_overflow=MEMORY_BYTES,
        # Waitress refuses from this size on.
        max_request_body_size=settings.max_upload_bytes + FORM_OVERHEAD_BYTES + 1,
        max_request_header_size=HEADER_BYTES,
        expose_tracebacks=False,
        ident=None,
        # Those of proxies that are not trusted, which the application ignores anyway.
        clear_untrusted_proxy_headers=settings.trusted_proxies == 0,
        log_socket_errors=False,
    )
    dispatcher = ThreadedTaskDispatcher()
    dispatcher.set_thread_count(adjustments.threads)
    return Listener(application, adjustments, dispatcher, settings, listener, sockets, preview, refused, clock)


class Listener(TcpWSGIServer):  # type: ignore[misc] # waitress has no annotations
    """Accepts connections and looks after them; all but the application runs on one loop."""

    channel_class = Connection

    def __init__(
        self,
        application: "WSGIApplication",
        adjustments: Adjustments,
        dispatcher: ThreadedTaskDispatcher,
        settings: WebSettings,
        listener: socket.socket,
        sockets: MutableMapping[int, Any],
        preview: Preview,
        refused: Callable[[int], None],
        clock: Callable[[], float],
    ) -> None:
        self.preview = preview
        self.refused = refused
        self.clock = clock
        self.settings = settings
        self.max_upload_bytes = settings.max_upload_bytes
        self._loop = threading.get_ident()
        # No `WeakSet`: that one loses its members in whichever thread is the last to hold them, also while one looks.
        self._bodies: dict[int, weakref.ref[Parser]] = {}
        self._unweighed = 0
        self._turned_out = 0
        self._looked = clock()
        super().__init__(
            application,
            sockets,
            _sock=listener,
            dispatcher=dispatcher,
            adj=adjustments,
            sockinfo=(listener.family, listener.type, listener.proto, listener.getsockname()),
            bind_socket=False,
        )

    def readable(self) -> bool:
        """Look after the connections; whether another one may be accepted."""
        self._loop = threading.get_ident()
        now = self.clock()
        if now >= self._looked + LOOK_SECONDS:
            self._look(now)
        if self._room < ACCEPTED_AT_ONCE:
            self._make_room(now)
        return bool(self.accepting) and self._room > 0

    def on_loop(self) -> bool:
        """Whether the caller is the thread that serves the sockets."""
        return threading.get_ident() == self._loop

    def handle_accept(self) -> None:
        """Accept whoever waits: one a turn, as waitress does, lets a crowd of attackers queue before the others."""
        for _ in range(ACCEPTED_AT_ONCE):
            connected = len(self._map)
            super().handle_accept()
            if len(self._map) == connected:
                return

    def weigh(self, request: Parser | None, count: int) -> None:
        """Note that `count` bytes have come, of which a request that is still being read may hold some."""
        if request is not None and request.body_rcv is not None:
            self._bodies[id(request)] = weakref.ref(request)
        self._unweighed += count
        if self._unweighed >= min(_WEIGHED_EVERY_BYTES, self.settings.max_buffered_bytes // 8):
            self._unweighed = 0
            self._shed(self.clock())

    @property
    def _room(self) -> int:
        return int(self.adj.connection_limit) - len(self._map)

    def _connections(self) -> list[Connection]:
        # A copy, as closing one takes it away.
        return list(self.active_channels.values())

    def _look(self, now: float) -> None:
        """Close who is idle or overdue; every second."""
        asleep = now - self._looked - LOOK_SECONDS
        self._looked = now
        connections = self._connections()
        if asleep > LOOK_SECONDS:
            # This process was, not the clients: what they sent meanwhile has not been read yet.
            for connection in connections:
                connection.excuse(asleep)
        ask_again(connections)
        late = [connection for connection in connections if connection.overdue(now)]
        for connection in late:
            connection.turn_out(replies.too_slow())
        for connection in connections:
            if connection.idle(now):
                connection.handle_close()
        if late or self._turned_out:
            log.info("connections_closed", too_slow=len(late), for_room=self._turned_out, left=len(self._map))
            self._turned_out = 0

    def _make_room(self, now: float) -> None:
        """Turn out those whose body is refused, then the slowest, but nobody in the first second."""
        ranked = ((connection.refused, connection.slowness(now), connection) for connection in self._connections())
        slow = (rank for rank in ranked if rank[1] > _FIRST_SECOND)
        for _, _, connection in heapq.nlargest(ACCEPTED_AT_ONCE, slow, key=lambda rank: rank[:2]):
            connection.turn_out(replies.no_place())
            self._turned_out += 1

    def _shed(self, now: float) -> None:
        """Refuse bodies until the others fit: first those that come slowly or no longer, then those that miss most."""
        held = {key: body for key, reference in self._bodies.items() if (body := reference()) is not None}
        self._bodies = {key: weakref.ref(body) for key, body in held.items()}
        excess = sum(body.held_bytes for body in held.values()) - self.settings.max_buffered_bytes
        if excess <= 0:
            return
        reading = [
            # Whole seconds: what is missing decides between two that both send.
            (math.floor(connection.slowness(now)), connection.request.missing_bytes, connection.request)
            for connection in self._connections()
            if connection.request is not None and connection.request.held_bytes > MEMORY_BYTES
        ]
        refused = 0
        for _, _, request in sorted(reading, key=lambda rank: rank[:2], reverse=True):
            if excess <= 0:
                break
            excess -= request.held_bytes
            request.refuse(Overloaded("no room for the body"))
            refused += 1
        if refused:
            log.warning(
                "uploads_refused", count=refused, reason="temporary files are full", settings="max_buffered_bytes"
            )
