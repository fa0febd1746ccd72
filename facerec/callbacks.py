"""Signed messages to the web servers of clients, which cannot be used to reach this network's own addresses.

The body is signed together with the time: `X-Facerec-Signature: v1=<hex>` is HMAC-SHA256 over the timestamp, a dot and
the body. The address is checked at the connection, on the very IP address that is connected to: neither a name that
resolves differently the second time (DNS rebinding) nor a number in another notation passes. Redirects are not
followed. A receiver may get a message more than once.
"""

import hashlib
import hmac
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlsplit

from facerec import __version__
from facerec.errors import FacerecError, Transient
from facerec.settings.tiers import CallbackSettings

SIGNATURE_HEADER, TIMESTAMP_HEADER = "X-Facerec-Signature", "X-Facerec-Timestamp"
CONNECT_SECONDS = 5.0
"""For each step of the connection and of the answer."""
LONGEST_SECONDS = 15.0
"""For the whole call: a receiver that sends a byte now and then would outlast every single step."""
MAX_URL = 2048
_SUCCESS, _REDIRECT = 2, 3
"""The first digit of a status."""
_PORTS = {"http": 80, "https": 443}
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
"""All IPv6 addresses that are assigned; outside are site-local ones and IPv4 addresses in other notations."""
_PROTOCOLS = ipaddress.ip_network("192.0.0.0/24")
"""IETF protocol assignments (RFC 6890), of which older Pythons know a part alone; a cloud has its metadata there."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str, int], Iterable[str]]


class CallbackRefused(FacerecError):
    """The address may not be called, now or later."""


class CallbackFailed(Transient):
    """The receiver did not take the message; it may take it later."""


@dataclass(frozen=True, slots=True)
class Target:
    """The parts of a checked URL."""

    scheme: str
    host: str
    """In ASCII."""
    port: int
    path: str
    """With the query."""


def parse_target(url: str) -> Target:
    """Check the form of a URL; raises `CallbackRefused`. Its host is resolved only when it is called."""
    if len(url) > MAX_URL or not url.isprintable() or any(c.isspace() for c in url):
        raise CallbackRefused(f"a callback's URL has up to {MAX_URL} characters without blanks")
    try:
        parts = urlsplit(url)
        port = parts.port
        host = (parts.hostname or "").encode("idna").decode()
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        path.encode("ascii")
    except ValueError as exc:
        raise CallbackRefused("the callback's URL cannot be read: write it like https://example.com/path") from exc
    if parts.scheme not in _PORTS or not host:
        raise CallbackRefused("a callback's URL begins with https:// or http:// and a host")
    if "@" in parts.netloc:
        raise CallbackRefused("a callback's URL has no user name and no password: its messages are signed")
    return Target(parts.scheme, host, port or _PORTS[parts.scheme], path)


def owner_secret(master: str, owner: str) -> str:
    """Return the secret of one client, made of the operator's: no client can sign for another."""
    return hmac.new(master.encode(), f"facerec-callbacks:{owner}".encode(), hashlib.sha256).hexdigest()


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """Return the value of the signature's header."""
    return "v1=" + hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def is_public(address: Address) -> bool:
    """Whether an address is one of the public internet; so must be the IPv4 address within an IPv6 one."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
        if address.teredo is not None or address not in _GLOBAL_UNICAST:
            return False
    return address.is_global and not address.is_multicast and address not in _PROTOCOLS


def resolved(host: str, port: int) -> list[str]:
    """Return the addresses of a host, by the system's resolver."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


class Caller(Protocol):
    """What sends callbacks: `CallbackSender`, and a fake in tests."""

    def send(self, url: str, body: bytes, secret: str) -> None:
        """Send JSON once; raises `CallbackRefused` and `CallbackFailed`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackSender:
    """`Caller` over HTTP; safe for many threads. `networks` may be called although they are private."""

    networks: tuple[Network, ...] = ()
    resolve: Resolve = resolved
    now: Callable[[], float] = time.time
    tls: ssl.SSLContext = field(default_factory=ssl.create_default_context)

    @classmethod
    def of(cls, settings: CallbackSettings) -> "CallbackSender":
        """Make a sender from the settings."""
        return cls(networks=tuple(ipaddress.ip_network(network) for network in settings.private_networks))

    def send(self, url: str, body: bytes, secret: str) -> None:
        """Send JSON once, and return when the receiver has answered with a status of 200 to 299.

        Raises `CallbackRefused` and `CallbackFailed`; the text names no address that the client did not name.
        """
        target = parse_target(url)
        address = self._address(target)
        timestamp = str(int(self.now()))
        sent = {
            "Content-Type": "application/json",
            "User-Agent": f"facerec/{__version__}",
            TIMESTAMP_HEADER: timestamp,
            SIGNATURE_HEADER: signature(secret, timestamp, body),
        }
        connection = _connection(target, address, self.tls)
        overdue = threading.Timer(LONGEST_SECONDS, _cut, [connection])
        overdue.daemon = True
        overdue.start()
        try:
            connection.request("POST", target.path, body, sent)
            # The body is not read: it may be endless, and `http.client` takes chunks of a negative length.
            answer = connection.getresponse()
        except (OSError, http.client.HTTPException) as exc:
            raise CallbackFailed(f"{target.host} does not answer: {type(exc).__name__}") from exc
        finally:
            overdue.cancel()
            connection.close()
        if answer.status // 100 != _SUCCESS:
            hint = ", and redirects are not followed" if answer.status // 100 == _REDIRECT else ""
            raise CallbackFailed(f"{target.host} answered with status {answer.status}{hint}")

    def _address(self, target: Target) -> str:
        """Return an address of the host that may be called; raises `CallbackRefused` if there is none."""
        try:
            found = list(self.resolve(target.host, target.port))
        except (OSError, UnicodeError) as exc:
            raise CallbackFailed(f"the name {target.host} cannot be resolved") from exc
        for text in found:
            address = ipaddress.ip_address(text.partition("%")[0])
            if is_public(address) or any(address in network for network in self.networks):
                return text
        raise CallbackRefused(
            f"{target.host} is no public address: its operator can allow its network with "
            "FACEREC_CALLBACKS__PRIVATE_NETWORKS"
        )


def _cut(connection: http.client.HTTPConnection) -> None:
    """End a call from another thread: its next step fails."""
    if (sock := connection.sock) is not None:
        try:
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it has just ended


def _connection(target: Target, address: str, tls: ssl.SSLContext) -> http.client.HTTPConnection:
    """Return a connection for this host's name that goes to the checked address."""

    def connect(_: tuple[str, int], timeout: float | None, source: tuple[str, int] | None = None) -> socket.socket:
        return socket.create_connection((address, target.port), timeout, source)

    connection: http.client.HTTPConnection
    if target.scheme == "https":
        connection = http.client.HTTPSConnection(target.host, target.port, timeout=CONNECT_SECONDS, context=tls)
    else:
        connection = http.client.HTTPConnection(target.host, target.port, timeout=CONNECT_SECONDS)
    connection._create_connection = connect  # type: ignore[attr-defined] # noqa: SLF001 - the seam of the standard library
    return connection
