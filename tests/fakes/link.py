"""The link in memory, and the broker behind it."""

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Literal

from facerec.edge.connection import CLOSED, Connection, deliver
from facerec.edge.link import LinkState, ReceivedMessage
from facerec.edge_messages import faces_topic, status_topic
from facerec.errors import Refused, Transient
from facerec.settings.edge import IOT_MESSAGE_BYTES


class InMemoryBroker:
    """Takes what links publish; keeps what is sent to a device until that has acknowledged it.

    While `answering` is false, messages stay in flight: they are taken when it is set to true, in order, and fail
    when the broker stops.
    """

    def __init__(self) -> None:
        self.received: list[tuple[str, bytes]] = []
        """Topics and payloads, in order."""
        self.lock = threading.RLock()
        self.running = True
        self._answering = True
        self._links: list[InMemoryLink] = []
        self._waiting: list[tuple[str, bytes, Future[None]]] = []

    @property
    def answering(self) -> bool:
        """Whether messages are taken at once."""
        return self._answering

    @answering.setter
    def answering(self, answering: bool) -> None:
        self._answering = answering
        if answering:
            self._take_waiting()

    def send(self, topic: str, payload: bytes, qos: Literal[0, 1] = 1) -> None:
        """Send to the devices that have subscribed to the topic, as the cloud does."""
        with self.lock:
            for link in self._links:
                link.enqueue(topic, payload, qos)

    def stop(self) -> None:
        """End all connections; what is in flight fails."""
        with self.lock:
            self.running = False
            waiting, self._waiting = self._waiting, []
            for link in self._links:
                link.lost()
        for _, _, done in waiting:
            done.set_exception(Transient("the connection was lost"))

    def start(self) -> None:
        """Listen again: the links reconnect at once."""
        with self.lock:
            self.running = True
            for link in self._links:
                link.reconnect()

    def join(self, link: "InMemoryLink") -> None:
        """Know this link from now on."""
        self._links.append(link)

    def take(self, topic: str, payload: bytes) -> "Future[None]":
        """Take a message, or let it wait."""
        done: Future[None] = Future()
        with self.lock:
            self._waiting.append((topic, payload, done))
        if self._answering:
            self._take_waiting()
        return done

    def _take_waiting(self) -> None:
        with self.lock:
            waiting, self._waiting = self._waiting, []
            self.received += [(topic, payload) for topic, payload, _ in waiting]
        for _, _, done in waiting:
            done.set_result(None)


class InMemoryLink:
    """`MqttLink` without a network: handlers are called on the thread that sends."""

    def __init__(self, broker: InMemoryBroker, thing: str, *, max_message_bytes: int = IOT_MESSAGE_BYTES) -> None:
        self._broker = broker
        self._allowed = {faces_topic(thing), status_topic(thing)}
        self._max_message_bytes = max_message_bytes
        self._connection = Connection(thing=thing)
        self._handlers: dict[str, Callable[[ReceivedMessage], None]] = {}
        self._unacknowledged: dict[int, tuple[str, bytes]] = {}
        self._numbers = itertools.count()
        self._open = False
        broker.join(self)

    @property
    def state(self) -> LinkState:
        """The connection as it is now."""
        return self._connection.state

    def start(self) -> None:
        """Connect, if the broker runs."""
        self._open = True
        if self._broker.running:
            self.reconnect()
        else:
            self._connection.failed("the broker does not run")

    def wait_connected(self, timeout_seconds: float) -> bool:
        """Wait until it is connected."""
        return self._connection.wait_connected(timeout_seconds)

    def publish(self, topic: str, payload: bytes) -> "Future[None]":
        """Hand it to the broker."""
        failed: Future[None] = Future()
        if len(payload) > self._max_message_bytes:
            failed.set_exception(Refused("it is too large"))
        elif not self._open:
            failed.set_exception(CLOSED)
        elif not self._broker.running:
            failed.set_exception(Transient("the connection was lost"))
        elif topic not in self._allowed:
            failed.set_exception(Refused("the thing's policy does not allow it"))
        else:
            return self._broker.take(topic, payload)
        return failed

    def subscribe(self, topic: str, handler: Callable[[ReceivedMessage], None]) -> None:
        """Have the handler called for each message."""
        self._handlers[topic] = handler

    def close(self) -> None:
        """End the connection; its session stays."""
        self._open = False
        self._connection.closed()

    @property
    def unacknowledged(self) -> list[bytes]:
        """The payloads of the messages that the broker keeps for this device."""
        return [payload for _, payload in self._unacknowledged.values()]

    def enqueue(self, topic: str, payload: bytes, qos: Literal[0, 1]) -> None:
        """Deliver a message if the device is connected; with QoS 1, keep it until it is acknowledged."""
        if topic not in self._handlers:
            return
        if qos:
            number = next(self._numbers)
            self._unacknowledged[number] = (topic, payload)
            if self.state.connected:
                self._deliver(number)
        elif self.state.connected:
            deliver(self._handlers, ReceivedMessage(topic, payload, lambda: None))

    def lost(self) -> None:
        """Lose the connection."""
        if self._open:
            self._connection.failed("the broker ended the connection")

    def reconnect(self) -> None:
        """Connect again, and get what was not acknowledged."""
        if self._open:
            self._connection.connected()
            for number in list(self._unacknowledged):
                self._deliver(number)

    def _deliver(self, number: int) -> None:
        topic, payload = self._unacknowledged[number]

        def acknowledge() -> None:
            self._unacknowledged.pop(number, None)

        deliver(self._handlers, ReceivedMessage(topic, payload, acknowledge, 1))
