"""Free ports of the loopback interface, and waiting for what answers there."""

import http.client
import socket
import time
from collections.abc import Callable
from urllib.parse import urlsplit

LOOPBACK = "127.0.0.1"
_POLL_SECONDS = 0.05


def free_port(preferred: int = 0) -> int:
    """The preferred port if it is free, or any free one, which the kernel gives to no other process for a minute.

    A server that sets SO_REUSEADDR, as all of ours do, can still listen on it.
    """
    for port in dict.fromkeys((preferred, 0)):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            # Closed connections of a server that has just ended do not hinder the next server.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            found: int = probe.getsockname()[1]
            if port == 0:
                _reserve(probe)
            return found
    raise OSError("no port is free on the loopback interface")


def _reserve(bound: socket.socket) -> None:
    """Leave a connection in TIME_WAIT at the socket's port: the kernel gives the port to nothing else meanwhile.

    Without it, an outgoing connection of any process takes the port before the server starts. The method is that of
    https://github.com/Yelp/ephemeral-port-reserve.
    """
    bound.listen(1)
    with socket.create_connection(bound.getsockname()) as client:
        accepted, _ = bound.accept()
        accepted.close()  # the side that closes first is the one in TIME_WAIT
        client.recv(1)


def answers_ok(url: str, timeout_seconds: float = 2.0) -> bool:
    """Whether a GET of the URL answers 200 in time."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or LOOPBACK, parts.port, timeout=timeout_seconds)
    try:
        connection.request("GET", parts.path or "/")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def accepts(port: int, timeout_seconds: float = 2.0) -> bool:
    """Whether something listens on the port of loopback."""
    try:
        socket.create_connection((LOOPBACK, port), timeout_seconds).close()
    except OSError:
        return False
    return True


def poll_until(condition: Callable[[], bool], timeout_seconds: float) -> bool:
    """Try the condition every 50 ms until it is true; returns False when the time is over."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True
