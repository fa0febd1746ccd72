"""A web tier on fakes behind its real server, on loopback."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from facerec.ports import ApiKeys
from facerec.settings import Settings
from facerec.settings.tiers import WebSettings
from facerec.web.server import WebServer, address_of, bind
from tests.fakes.web_tier import FakeWebTier, picture, running

TLS = ssl.create_default_context()
"""Shared, because making one takes longer than an upload; it is not used, since the tests speak plain HTTP."""


@dataclass
class ServedWebTier:
    """A web tier on a port."""

    tier: FakeWebTier
    server: WebServer
    url: str
    address: tuple[str, int]
    thread: threading.Thread

    def upload(self, body: bytes | None = None, filename: str = "image_01.jpg") -> httpx.Response:
        """Send one picture on a connection of its own."""
        with httpx.Client(verify=TLS, timeout=60) as client:
            return client.post(self.url, files={"inputFile": (filename, picture() if body is None else body)})

    def get(self, path: str) -> httpx.Response:
        """Ask on a connection of its own."""
        with httpx.Client(verify=TLS, timeout=60) as client:
            return client.get(f"{self.url}{path}")

    def connect(self) -> socket.socket:
        """A bare connection."""
        return socket.create_connection(self.address, timeout=30)

    def stop(self) -> None:
        """Stop, and wait for the end."""
        self.server.request_stop()
        self.thread.join(30)
        assert not self.thread.is_alive()


@contextmanager
def serve_web_tier(
    answer: Callable[..., Any] | None = None,
    keys: ApiKeys | None = None,
    *,
    settings: Settings | None = None,
    working: bool = False,
    **web: Any,
) -> Iterator[ServedWebTier]:
    """A served web tier, stopped on leaving; `working` is as in `FakeWebTier`.

    `web` are settings of the web tier, unless all `settings` are given.
    """
    tier = FakeWebTier(settings or Settings(web=WebSettings(**web)), answer, keys=keys, working=working)
    with running(tier), bind("127.0.0.1", 0) as listener:
        server = WebServer(tier.app, tier.settings.web, listener)
        thread = threading.Thread(
            target=lambda: server.run(refuse_new=tier.admission.close, give_up=tier.waiters.give_up)
        )
        thread.start()
        web_tier = ServedWebTier(tier, server, address_of(listener), listener.getsockname()[:2], thread)
        try:
            yield web_tier
        finally:
            web_tier.stop()


def read_all(connection: socket.socket) -> bytes:
    """Read until the server closes."""
    said = b""
    while chunk := connection.recv(65_536):
        said += chunk
    return said
