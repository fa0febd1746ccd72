"""Who may stay connected: deadlines, and who goes first when connections or room for bodies run short.

Waitress closes a connection only when it is idle, and stops accepting when it has too many: whoever sends a byte now
and then stays, and keeps everybody else out. Here a request has a deadline, and a full house turns out the slowest.
"""

import heapq
import socket
import time
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import structlog
from waitress.adjustments import Adjustments
from waitress.channel import ClientDisconnected, HTTPChannel
from waitress.server import TcpWSGIServer
from waitress.task import ThreadedTaskDispatcher

from facerec.setting_groups import WebSettings
from facerec.web import replies
from facerec.web.forms import FORM_OVERHEAD_BYTES
from facerec.web.framing import Overloaded, Parser, Refusal, last_words
from facerec.web.replies import Reply
from facerec.web.screening import Preview, ScreenedTask, ask_again

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

log = structlog.get_logger(__name__)

SPARE_THREADS = 16
"""Beyond those that hold uploads: refusals and health checks are answered at once also when the house is full."""

IDLE_SECONDS = 75
"""A connection without a byte for this long, and without a request being worked on, is closed. Longer than the 60 s of
AWS's load balancers, which must be the first to close: they answer 502 where the target was."""

BODY_GRACE_SECONDS = 10
"""How long a body may take however slow it comes."""

GOOD_SPEED = 16
"""Whoever sends at this many times the least speed is never among the slowest."""

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
        channel_timeout=IDLE_SECONDS,
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
    return Listener(application, adjustments, dispatcher, settings, listener, sockets, preview, refused)


class Connection(HTTPChannel):  # type: ignore[misc] # waitress has no annotations
    """One client; `began` is when it connected, or began the request that is being read, or ended the last one."""

    task_class = ScreenedTask
    error_task_class = Refusal
    request: Parser | None
    requests: list[Parser]
    total_outbufs_len: int
    began: float
    silent = True

    def __init__(
        self, server: "Listener", sock: socket.socket, addr: tuple[str, int], *rest: Any, **options: Any
    ) -> None:
        self.began = time.monotonic()
        self.parser_class = partial(Parser, preview=server.preview, address=addr[0])
        super().__init__(server, sock, addr, *rest, **options)

    def received(self, data: bytes) -> bool:
        """Take bytes from the socket."""
        self.silent = False
        before = self.request
        going_on: bool = super().received(data)
        if self.request is None or self.request is not before:
            self.began = time.monotonic()
        self.server.weigh(self.request, len(data))
        return going_on

    def service(self) -> None:
        """Answer a request; called in a thread. What was sent after it is read, and timed, from now on."""
        super().service()
        self.began = time.monotonic()

    def overdue(self, now: float, settings: WebSettings) -> bool:
        """Whether the client is slower than the settings allow."""
        if self.requests or self.total_outbufs_len:
            return False
        age = now - self.began
        if self.request is None:
            # Between two requests waitress' time for idle connections counts.
            return self.silent and age > settings.header_seconds
        if not self.request.headers_finished:
            return age > settings.header_seconds
        return age > BODY_GRACE_SECONDS + self._body_bytes / settings.min_bytes_per_second

    def slowness(self, now: float, settings: WebSettings) -> float:
        """Seconds spent without anything to show for them; 0 while the application works for the client."""
        if self.requests:
            return 0
        return now - self.began - self._body_bytes / (GOOD_SPEED * settings.min_bytes_per_second)

    @property
    def _body_bytes(self) -> int:
        return 0 if self.request is None else int(self.request.body_bytes_received)

    def turn_out(self, reply: Reply) -> None:
        """Close, with the reply if a request had begun; to be called on the loop."""
        with self.requests_lock:
            if self.requests:
                return
            self.close_when_flushed = True
            unfinished, self.request = self.request, None
        if unfinished is not None:
            unfinished.close()
            if not self.total_outbufs_len:
                self.server.refused(reply.status)
                with suppress(ClientDisconnected):
                    self.write_soon(last_words(reply))
        # Whoever does not read is not waited for.
        self.will_close = True


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
    ) -> None:
        self.preview = preview
        self.refused = refused
        self.max_upload_bytes = settings.max_upload_bytes
        self._settings = settings
        self._bodies: WeakSet[Parser] = WeakSet()
        self._unweighed = 0
        self._turned_out = 0
        self._looked = time.monotonic()
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
        now = time.monotonic()
        if now >= self._looked + LOOK_SECONDS:
            self._look(now)
        room: int = self.adj.connection_limit - len(self._map)
        if room < ACCEPTED_AT_ONCE:
            self._make_room(now)
        return bool(self.accepting) and room > 0

    def handle_accept(self) -> None:
        """Accept whoever waits: one a turn, as waitress does, lets a crowd of attackers queue before the others."""
        for _ in range(ACCEPTED_AT_ONCE):
            connected = len(self._map)
            super().handle_accept()
            if len(self._map) == connected:
                return

    def _look(self, now: float) -> None:
        """Close who is idle or overdue; every second."""
        asleep = now - self._looked - LOOK_SECONDS
        self._looked = now
        if asleep > LOOK_SECONDS:
            # This process was, not the clients: what they sent meanwhile has not been read yet.
            for connection in self._connections():
                connection.began += asleep
        self.maintenance(time.time())
        ask_again(self._connections())
        late = [connection for connection in self._connections() if connection.overdue(now, self._settings)]
        for connection in late:
            connection.turn_out(replies.too_slow())
        if late or self._turned_out:
            log.info("connections_closed", too_slow=len(late), for_room=self._turned_out, left=len(self._map))
            self._turned_out = 0

    def weigh(self, request: Parser | None, count: int) -> None:
        """Note that `count` bytes have come, of which a request that is still being read may hold some."""
        if request is not None and request.body_rcv is not None:
            self._bodies.add(request)
        self._unweighed += count
        if self._unweighed >= min(_WEIGHED_EVERY_BYTES, self._settings.max_buffered_bytes // 8):
            self._unweighed = 0
            self._shed(time.monotonic())

    def _connections(self) -> list[Connection]:
        return [c for c in self.active_channels.values() if not (c.will_close or c.close_when_flushed)]

    def _make_room(self, now: float) -> None:
        """Turn out the slowest, but nobody in the first second."""
        slowest = self._slowest(self._connections(), now)
        for slowness, connection in slowest:
            if slowness > _FIRST_SECOND:
                connection.turn_out(replies.no_place())
                self._turned_out += 1

    def _slowest(self, connections: list[Connection], now: float) -> list[tuple[float, Connection]]:
        ranked = ((connection.slowness(now, self._settings), connection) for connection in connections)
        return heapq.nlargest(ACCEPTED_AT_ONCE, ranked, key=lambda pair: pair[0])

    def _shed(self, now: float) -> None:
        """Refuse bodies until the others fit: first whose client is slow, then of whom most is missing."""
        excess = sum(body.held_bytes for body in self._bodies) - self._settings.max_buffered_bytes
        if excess <= 0:
            return
        reading = [
            (max(0.0, connection.slowness(now, self._settings)), connection.request)
            for connection in self._connections()
            if connection.request is not None and connection.request.held_bytes > MEMORY_BYTES
        ]
        refused = 0
        for _, request in sorted(reading, key=lambda pair: (pair[0], pair[1].missing_bytes), reverse=True):
            if excess <= 0:
                break
            excess -= request.held_bytes
            request.refuse(Overloaded("no room for the body"))
            refused += 1
        if refused:
            log.warning(
                "uploads_refused", count=refused, reason="temporary files are full", settings="max_buffered_bytes"
            )
