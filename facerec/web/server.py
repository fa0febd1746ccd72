"""The production server: waitress, whose one loop reads and writes for all clients while threads only compute.

A slow client costs a socket, not a thread. Three things are added to waitress: whoever is turned away for what the head
says has his body not kept; a refused body is read to its end and thrown away, so that the client sees the refusal
instead of a reset; and a stop answers whoever still waits.
"""

import ipaddress
import resource
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from io import BytesIO
from typing import TYPE_CHECKING, Any

import structlog
from waitress import wasyncore
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.server import create_server
from waitress.task import ErrorTask
from waitress.utilities import RequestEntityTooLarge

from facerec.setting_groups import WebSettings
from facerec.web import replies
from facerec.web.forms import FORM_OVERHEAD_BYTES
from facerec.web.headers import HEADERS
from facerec.web.screening import Preview, ScreenedTask, Screening

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

log = structlog.get_logger(__name__)

SPARE_THREADS = 16
"""Beyond those that hold uploads: refusals and health checks are answered at once also when the house is full."""

IDLE_SECONDS = 60
"""A connection without a byte for this long, and without a request being worked on, is closed."""

DISCARDED_BYTES = 1_000_000_000
"""How much of a refused body is read for politeness' sake; whoever sends more is cut off."""

FLUSH_SECONDS = 2.0
"""How long the last replies may take to leave after the drain."""

_LOOP_SECONDS = 1.0
_DRAIN_LOOP_SECONDS = 0.05
_RECEIVE_BYTES = 64 * 1024
_FILES = 16_384


class WebServer:
    """Serves an application on a bound socket until it is asked to stop.

    `refused` gets the status of each request that the application does not see.
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
        self._server = create_server(
            application,
            map=self._sockets,
            sockets=[listener],
            threads=settings.max_waiting + SPARE_THREADS,
            backlog=1024,
            # Idle keep-alive connections and slow senders beside those that wait.
            connection_limit=2 * settings.max_waiting + 500,
            asyncore_use_poll=True,
            channel_timeout=IDLE_SECONDS,
            cleanup_interval=10,
            recv_bytes=_RECEIVE_BYTES,
            # Waitress refuses from this size on.
            max_request_body_size=settings.max_upload_bytes + FORM_OVERHEAD_BYTES + 1,
            max_request_header_size=FORM_OVERHEAD_BYTES,
            expose_tracebacks=False,
            ident=None,
            # Those of proxies that are not trusted, which the application ignores anyway.
            clear_untrusted_proxy_headers=settings.trusted_proxies == 0,
            log_socket_errors=False,
        )
        self._server.channel_class = _Channel
        self._server.max_upload_bytes = settings.max_upload_bytes
        self._server.refused = refused
        self._server.preview = preview

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


def on_loopback(listener: socket.socket) -> bool:
    """Whether only this machine can reach it."""
    return ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback


def _raise_file_limit() -> None:
    """Each connection takes a descriptor, and a large body another; the usual soft limit is 1 024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class _Parser(HTTPRequestParser):  # type: ignore[misc] # waitress has no annotations
    """Reads a refused body to its end, without keeping it, before the request counts as complete.

    A server that answers and closes while the client still sends makes the client's kernel drop the answer.
    """

    completed: bool
    expect_continue: bool
    _discarded: int | None = None

    def __init__(self, adj: Any, *, preview: Preview, address: str) -> None:
        super().__init__(adj)
        self.screening = Screening(preview, address)

    def received(self, data: bytes) -> int:
        if self._discarded is not None:
            return self._discard(data)
        consumed: int = super().received(data)
        if (self.completed and isinstance(self.error, RequestEntityTooLarge)) or self.screening.turns_away(self):
            self._begin_to_discard()
        return consumed

    def _begin_to_discard(self) -> None:
        if self.expect_continue:
            # The client asks before it sends: it learns the answer at once.
            self.expect_continue, self.completed = False, True
            return
        if self.content_length > DISCARDED_BYTES:
            return
        self.body_rcv.getbuf().close()
        self.body_rcv.buf = _Void()
        self._discarded = 0
        self.completed = False

    def _discard(self, data: bytes) -> int:
        consumed: int = self.body_rcv.received(data)
        self._discarded = (self._discarded or 0) + consumed
        self.completed = self.body_rcv.completed or bool(self.body_rcv.error) or self._discarded > DISCARDED_BYTES
        return consumed


class _Void:
    """A buffer that keeps nothing."""

    def append(self, data: bytes) -> None:
        """Forget it."""

    def getfile(self) -> BytesIO:
        """What was kept."""
        return BytesIO()

    def close(self) -> None:
        """There is nothing to free."""

    def __len__(self) -> int:
        return 0


class _Refusal(ErrorTask):  # type: ignore[misc] # waitress has no annotations
    """Words the errors that waitress finds itself like ours: plain text, one sentence."""

    def execute(self) -> None:
        error = self.request.error
        status = HTTPStatus(error.code)
        if status is HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            sentence = replies.too_large(self.channel.server.max_upload_bytes).text
        elif status < HTTPStatus.INTERNAL_SERVER_ERROR:
            # Without the line that it quotes, which may hold a key.
            reason = replies.one_line(error.body.partition('"')[0].strip())
            sentence = f"this is no proper HTTP request ({reason}): use an HTTP client"
        else:
            sentence = f"the request cannot be answered ({replies.one_line(error.body)})"
        log.info("request_refused", status=int(status), reason=sentence)
        self.channel.server.refused(int(status))
        body = sentence.encode()
        self.status = f"{int(status)} {status.phrase}"
        self.response_headers += [("Content-Type", "text/plain; charset=utf-8"), *HEADERS.items()]
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class _Channel(HTTPChannel):  # type: ignore[misc] # waitress has no annotations
    task_class = ScreenedTask
    error_task_class = _Refusal

    def __init__(self, server: Any, sock: socket.socket, addr: tuple[str, int], *rest: Any, **named: Any) -> None:
        self.parser_class = partial(_Parser, preview=server.preview, address=addr[0])
        super().__init__(server, sock, addr, *rest, **named)
