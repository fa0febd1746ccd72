"""Who may stay connected: the server's loop on loopback, turned by hand, with a clock that stands still between."""

import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from waitress import wasyncore

from facerec.settings.tiers import WebSettings
from facerec.web.connection import REQUESTS_AT_ONCE, Connection
from facerec.web.connections import ACCEPTED_AT_ONCE, listening
from facerec.web.server import bind
from tests.support.served import read_all

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
PATIENCE_SECONDS = 30


class Server:
    """A server whose loop makes a turn when it is told to."""

    def __init__(self, listener: socket.socket, stack: ExitStack) -> None:
        self.now = 1000.0
        self.reply = b"hello"
        self.go_on = threading.Event()
        self.go_on.set()
        self._sockets: dict[int, Any] = {}
        self._stack = stack
        self.listener = listening(
            self._application,
            WebSettings(max_waiting=1, max_buffered_bytes=4_000_000),
            listener,
            self._sockets,
            preview=lambda _: None,
            refused=lambda _: None,
            clock=lambda: self.now,
        )

    def _application(self, _: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        self.go_on.wait(PATIENCE_SECONDS)
        start_response("200 OK", [("Content-Length", str(len(self.reply)))])
        return [self.reply]

    def turn(self, seconds: float = 0, *, timeout: float = 0) -> None:
        """One turn of the loop, after so many seconds of the server's clock."""
        self.now += seconds
        wasyncore.loop(timeout=timeout, use_poll=True, map=self._sockets, count=1)

    def until(self, condition: Callable[[], bool]) -> None:
        """Turn until it comes true, while the clock stands still."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            assert time.monotonic() < deadline
            self.turn(timeout=0.01)

    def connect(self, receive_buffer: int | None = None) -> tuple[socket.socket, Connection]:
        """A client, and what the server has of it."""
        client = self._stack.enter_context(socket.socket())
        if receive_buffer is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.settimeout(PATIENCE_SECONDS)
        client.connect(self.listener.socket.getsockname())
        before = set(self.listener.active_channels.values())
        self.until(lambda: len(self.listener.active_channels) > len(before))
        [connection] = set(self.listener.active_channels.values()) - before
        return client, connection

    def send(self, client: socket.socket, data: bytes) -> None:
        """Send, and have the server read all of it."""
        for start in range(0, len(data), 16_384):
            client.sendall(data[start : start + 16_384])
            self.turn()

    def stop(self) -> None:
        """End the threads and close what is left."""
        self.go_on.set()
        self.listener.task_dispatcher.shutdown(timeout=PATIENCE_SECONDS)
        wasyncore.close_all(self._sockets)


@pytest.fixture
def server() -> Iterator[Server]:
    """One server."""
    with bind("127.0.0.1", 0) as listener, ExitStack() as stack:
        one = Server(listener, stack)
        try:
            yield one
        finally:
            one.stop()


def is_open(connection: Connection) -> bool:
    """Whether the server still has it."""
    return connection in connection.server.active_channels.values()


def test_who_sends_much_at_once_may_not_sit_on_it(server: Server) -> None:
    """Ten megabytes, then a byte every ten seconds."""
    client, connection = server.connect()
    server.send(client, HEAD % 12_000_000 + bytes(10_000_000))
    seconds = 0
    while is_open(connection):
        seconds += 1
        if seconds % 10 == 0:
            server.send(client, b"a")
        server.turn(1)
    assert 10 < seconds <= 30
    assert read_all(client).startswith(b"HTTP/1.1 408 ")


def test_who_keeps_to_the_least_speed_stays(server: Server) -> None:
    """Also with pauses of nine seconds."""
    client, connection = server.connect()
    server.send(client, HEAD % 300_000)
    for second in range(120):
        if second % 9 == 0:
            server.send(client, bytes(9_500))
        server.turn(1)
    assert is_open(connection)


def test_room_for_bodies_is_not_for_those_that_have_stopped(server: Server) -> None:
    """Though nearly all of theirs has come, and much of the others' is missing."""
    client, stopped = server.connect()
    server.send(client, HEAD % 3_000_000 + bytes(2_990_000))
    for _ in range(3):
        server.turn(1)
    client, coming = server.connect()
    server.send(client, HEAD % 3_000_000 + bytes(1_600_000))
    assert stopped.refused
    assert not coming.refused


def test_of_those_that_send_the_one_that_misses_most_gives_way(server: Server) -> None:
    """In whichever order they began."""
    client, begun = server.connect()
    server.send(client, HEAD % 4_000_000 + bytes(1_000_000))
    other, nearly_there = server.connect()
    for _ in range(3):
        server.turn(1)
    server.send(client, bytes(500_000))
    server.send(other, HEAD % 3_000_000 + bytes(2_900_000))
    assert begun.refused
    assert not nearly_there.refused


def test_in_a_full_house_a_refused_body_gives_way_first(server: Server) -> None:
    """It may come as fast as it likes: nothing is lost with it."""
    server.listener.adj.connection_limit = 60
    refused = [server.connect() for _ in range(ACCEPTED_AT_ONCE)]
    slow = [server.connect() for _ in range(8)]
    for client, _ in slow:
        server.send(client, HEAD % 1_000_000 + b"a")
    for client, _ in refused:
        server.send(client, HEAD % 20_000_000 + bytes(60_000))
    server.turn(0.9)
    for client, _ in refused:
        server.send(client, bytes(60_000))
    server.turn(0.9)
    assert not any(is_open(connection) for _, connection in refused)
    assert all(is_open(connection) for _, connection in slow)


def test_a_packet_of_requests_is_few_requests(server: Server) -> None:
    """The first one is answered, then the client is told, and the connection ends."""
    client, connection = server.connect()
    server.go_on.clear()
    server.send(client, GET * 400)
    assert len(connection.requests) == 2
    server.go_on.set()
    server.until(lambda: not is_open(connection))
    said = read_all(client)
    assert said.count(b"HTTP/1.1 200 OK") == 1
    assert said.endswith(b"(too many requests at once): use an HTTP client")


def test_a_few_requests_in_a_packet_are_answered(server: Server) -> None:
    """And the connection goes on."""
    client, connection = server.connect()
    for _ in range(3):
        server.send(client, GET * (REQUESTS_AT_ONCE - 1))
        server.until(lambda: not connection.requests)
    assert is_open(connection)
    client.shutdown(socket.SHUT_WR)
    server.until(lambda: not is_open(connection))
    assert read_all(client).count(b"HTTP/1.1 200 OK") == 3 * (REQUESTS_AT_ONCE - 1)


def unread(server: Server) -> Connection:
    """A connection whose client takes no reply, with a thread that waits for it to take the first of two."""
    server.reply = bytes(40_000_000)
    client, connection = server.connect(receive_buffer=1024)
    server.send(client, GET * 2)
    server.until(lambda: connection.total_outbufs_len > connection.adj.outbuf_high_watermark)
    assert len(connection.requests) == 2
    return connection


def no_thread_works(server: Server) -> bool:
    """Whether all of them wait for requests."""
    return bool(server.listener.task_dispatcher.active_count == 0)


def test_who_takes_no_reply_is_closed(server: Server) -> None:
    """And the thread that wrote it is free."""
    connection = unread(server)
    for _ in range(5):
        server.turn(1)
    assert is_open(connection)
    for _ in range(20):
        server.turn(1)
    assert not is_open(connection)
    server.until(lambda: no_thread_works(server))


def test_in_a_full_house_who_takes_no_reply_gives_way(server: Server) -> None:
    """As soon as what it took before no longer speaks for it."""
    connection = unread(server)
    server.listener.adj.connection_limit = ACCEPTED_AT_ONCE
    for _ in range(12):
        server.turn(1)
    assert not is_open(connection)
    server.until(lambda: no_thread_works(server))


def test_who_takes_a_reply_slowly_gets_it(server: Server) -> None:
    """However large it is."""
    server.reply = bytes(5_000_000)
    client, connection = server.connect(receive_buffer=65_536)
    server.send(client, GET)
    server.until(lambda: not connection.requests)
    taken = 0
    while taken < len(server.reply):
        taken += len(client.recv(200_000))
        server.turn(1)
    assert is_open(connection)


def test_who_is_worked_for_is_neither_slow_nor_idle(server: Server) -> None:
    """However long it takes, and however full the house is; afterwards it is idle, but not at once."""
    client, connection = server.connect()
    server.go_on.clear()
    server.send(client, GET + GET[:10])
    server.listener.adj.connection_limit = ACCEPTED_AT_ONCE
    for _ in range(200):
        server.turn(1)
    server.listener.adj.connection_limit = 100
    server.go_on.set()
    server.until(lambda: not connection.requests)
    server.send(client, GET[10:])
    server.until(lambda: not connection.requests)
    for _ in range(70):
        server.turn(1)
    assert is_open(connection)
    for _ in range(10):
        server.turn(1)
    assert not is_open(connection)
    assert read_all(client).count(b"HTTP/1.1 200 OK") == 2


def test_a_connection_may_end_while_the_loop_looks_at_all(server: Server) -> None:
    """As when a client resets while a thread tells it to go on."""
    first, _, last = (server.connect()[1] for _ in range(3))
    gone = last._fileno

    def requests(_: Connection) -> list[object]:
        server.listener.active_channels.pop(gone, None)
        return []

    first.__class__ = type("Vanishing", (Connection,), {"requests": property(requests)})
    server.listener._look(server.now + 1)
    assert gone not in server.listener.active_channels


def test_a_thread_leaves_the_closing_to_the_loop(server: Server) -> None:
    """Which may be going through the connections."""
    _, connection = server.connect()
    thread = threading.Thread(target=connection.handle_close)
    thread.start()
    thread.join()
    assert is_open(connection)
    server.turn()
    assert not is_open(connection)
