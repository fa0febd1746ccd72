"""The device's connection to AWS IoT Core, as a protocol: of its own (`mqtt_link`), or the nucleus' (`ipc_link`).

`tests/fakes/link.py` has the in-memory twin; the same contract tests run against all three.
"""

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True, slots=True)
class ReceivedMessage:
    """A message of a subscribed topic."""

    topic: str
    payload: bytes
    acknowledge: Callable[[], None]
    """Call it, from any thread, when the message need not come again; harmless when called twice.

    A QoS 1 message that was not acknowledged comes again after a reconnection, from IoT Core also after half a minute,
    and holds back later ones beyond the limit of unacknowledged messages. Without QoS 1, and over IPC, it does nothing.
    """
    qos: Literal[0, 1] = 0
    """1 if it comes again until it is acknowledged."""


@dataclass(frozen=True, slots=True)
class LinkState:
    """What is known of the connection, for the status message."""

    connected: bool
    problem: str | None = None
    """Why it is not connected, or what an operator must see, such as another client with the same id; one sentence."""
    reconnections: int = 0


class Link(Protocol):
    """Safe for many threads. It connects and reconnects by itself; each outage and refused subscription is logged once.

    What becomes of a message is for its sender to log.
    """

    @property
    def state(self) -> LinkState:
        """The connection as it is now."""

    def start(self) -> None:
        """Begin to connect, and return at once; raises `ConfigurationError` for files that cannot be used."""

    def wait_connected(self, timeout_seconds: float) -> bool:
        """Wait until it is connected and has subscribed; returns whether it is."""

    def publish(self, topic: str, payload: bytes) -> "Future[None]":
        """Send with QoS 1; the future is done when the message was acknowledged, in the order of sending.

        It fails with `Transient` if the message must be sent again (no connection, throttled, lost with the connection)
        and with `Refused` if it is never taken (too large, a topic that the policy does not allow); the reasons of
        equal refusals are equal. Nothing is queued without a connection: the spool keeps what is to be sent. What was
        in flight when the connection was lost may stay so until the next connection tells what became of it.
        """

    def subscribe(self, topic: str, handler: Callable[[ReceivedMessage], None]) -> None:
        """Have the handler called for each message of this one topic; before `start`, so that none is missed.

        The handler is called on one thread of the link, and must return soon. What it raises is logged, and that
        message is acknowledged.
        """

    def close(self) -> None:
        """Disconnect; publishes that are not acknowledged fail with `Transient`. Idempotent."""
