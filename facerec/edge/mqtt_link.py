"""The link over the device's own connection to AWS IoT Core: MQTT 5 with mutual TLS, by AWS's own client."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import structlog
from awscrt import mqtt5  # type: ignore[import-untyped] # it ships no types
from awscrt.exceptions import AwsCrtError  # type: ignore[import-untyped] # as above

from facerec.edge.connection import CLOSED, Blame, Connection, deliver, too_large
from facerec.edge.link import LinkState, ReceivedMessage
from facerec.edge.mqtt_client import make_client
from facerec.edge.mqtt_reasons import (
    ACK_TIMEOUT,
    BLAMING_DISCONNECTS,
    ERRORS_FROM,
    HANGUPS,
    why_not_connected,
    why_refused,
)
from facerec.edge.no_delay import set_no_delay
from facerec.edge_messages import frames_topic
from facerec.errors import Refused, Transient
from facerec.settings.edge import EdgeSettings

log = structlog.get_logger(__name__)

_STOP_SECONDS = 2.0
"""The client ends at once, but not in the middle of a failed TLS handshake."""
_PACKET_OVERHEAD_BYTES = 16
"""Of a publish packet without properties, beside topic and payload; at most."""


@dataclass(eq=False, slots=True)
class _Publish:
    """A message in flight."""

    topic: str
    payload: bytes
    done: "Future[None]" = field(default_factory=Future)
    blamed: bool = False


class MqttLink:
    """A persistent session of AWS's MQTT 5 client.

    A message that is in flight when the connection is lost is sent again by the client if the broker still has the
    session; otherwise it fails with `Transient` at the reconnection. IoT Core may disconnect a device instead of
    refusing its message: the first message in flight at several such disconnects in a row fails with `Refused`, so
    that it does not block those after it.

    The session may have kept frames for a process with another source. Without a handler for them, the link ends their
    subscription and acknowledges none: they come to the next connection with that handler. Meanwhile they count for the
    receive maximum.

    The client keeps to IoT Core's limits for a connection, 512 KB and 100 messages a second. Beyond them, IoT Core
    leaves messages unanswered, and each would cost the timeout of its acknowledgement (60 s). On loopback the client
    then sends 60 messages of 7 KB a second (5300 without the limits), and one of them takes 0.4 ms one way.
    """

    def __init__(self, settings: EdgeSettings, thing: str, client_id: str, *, will_delay_seconds: int = 10) -> None:
        """`will_delay_seconds` after it was lost, the broker publishes so on the status topic, unless it is back."""
        self._settings = settings
        self._thing = thing
        self._client_id = client_id
        self._will_delay_seconds = will_delay_seconds
        self._address = f"{settings.endpoint}:{settings.port}"
        self._connection = Connection(endpoint=self._address, client_id=client_id)
        self._handlers: dict[str, Callable[[ReceivedMessage], None]] = {}
        self._frames_topic = frames_topic(thing)
        self._frames_left = False
        """Whether frames have come that nothing handles."""
        self._lock = threading.Lock()
        self._client: mqtt5.Client | None = None
        self._in_flight: dict[_Publish, None] = {}
        """In the order of sending."""
        self._blame = Blame()
        self._max_packet_bytes: int | None = None
        self._closing = False
        self._stopped = threading.Event()

    @property
    def state(self) -> LinkState:
        """The connection as it is now."""
        return self._connection.state

    def wait_connected(self, timeout_seconds: float) -> bool:
        """Wait until it is connected; returns whether it is."""
        return self._connection.wait_connected(timeout_seconds)

    def start(self) -> None:
        """Begin to connect; raises `ConfigurationError` for files that cannot be used."""
        client = make_client(
            self._settings,
            thing=self._thing,
            client_id=self._client_id,
            will_delay_seconds=self._will_delay_seconds,
            on_publish_received=self._on_message,
            on_lifecycle_connection_success=self._on_connected,
            on_lifecycle_connection_failure=self._on_failure,
            on_lifecycle_disconnection=self._on_disconnected,
            on_lifecycle_stopped=self._on_stopped,
        )
        with self._lock:
            self._client = client
        client.start()

    def publish(self, topic: str, payload: bytes) -> "Future[None]":
        """Send with QoS 1, as `Link.publish` has it."""
        publish = _Publish(topic, payload)
        publish.done.set_running_or_notify_cancel()
        if (reason := self._too_large(topic, payload)) is not None:
            publish.done.set_exception(Refused(reason))
            return publish.done
        packet = mqtt5.PublishPacket(topic=topic, payload=payload, qos=mqtt5.QoS.AT_LEAST_ONCE)
        with self._lock:
            if self._client is None or self._closing:
                publish.done.set_exception(CLOSED)
                return publish.done
            if not self._connection.state.connected:
                # The client would say so later, when the next message may already be sent over a new connection.
                publish.done.set_exception(Transient(f"{self._address} is not connected"))
                return publish.done
            self._in_flight[publish] = None
            try:
                acknowledged = self._client.publish(packet)
            except (AwsCrtError, RuntimeError, ValueError) as exc:  # it checks some fields at once
                acknowledged = Future()
                acknowledged.set_exception(exc)
        acknowledged.add_done_callback(lambda done: self._finish(publish, done))
        return publish.done

    def subscribe(self, topic: str, handler: Callable[[ReceivedMessage], None]) -> None:
        """Have the handler called for each message, as `Link.subscribe` has it; best before `start`."""
        with self._lock:
            self._handlers[topic] = handler
            client = self._client
        if client is not None:  # without a connection it fails at once, and the next connection subscribes
            self._send_subscribe(client, topic).add_done_callback(lambda done: self._subscribed(topic, done))

    def close(self) -> None:
        """Disconnect; publishes that are not acknowledged fail with `Transient`. Idempotent."""
        with self._lock:
            client, self._client = self._client, None
            self._closing = True
        if client is not None:
            self._connection.closed()
            client.stop(mqtt5.DisconnectPacket(reason_code=mqtt5.DisconnectReasonCode.NORMAL_DISCONNECTION))
            if not self._stopped.wait(_STOP_SECONDS):
                log.warning("mqtt_client_still_stopping", seconds=_STOP_SECONDS)
        with self._lock:
            left, self._in_flight = list(self._in_flight), {}
        for publish in left:
            publish.done.set_exception(CLOSED)

    def _too_large(self, topic: str, payload: bytes) -> str | None:
        if (reason := too_large(payload, self._settings)) is not None:
            return reason
        packet_bytes = len(payload) + len(topic.encode()) + _PACKET_OVERHEAD_BYTES
        if self._max_packet_bytes is not None and packet_bytes > self._max_packet_bytes:
            return f"it is larger than the packets that {self._address} takes ({self._max_packet_bytes} bytes)"
        return None

    def _finish(self, publish: _Publish, acknowledged: "Future[Any]") -> None:
        """Map the client's outcome of a message that is in flight."""
        error = acknowledged.exception()
        code = None if error is not None else acknowledged.result().puback.reason_code
        with self._lock:
            if publish not in self._in_flight:
                return  # close has failed it
            del self._in_flight[publish]
            if error is None:
                self._blame.clear()
        if error is None and code is not None and code < ERRORS_FROM:
            publish.done.set_result(None)
        elif (refusal := why_refused(error, code)) is not None:
            publish.done.set_exception(Refused(refusal))
        elif publish.blamed:
            publish.done.set_exception(
                Refused(f"{self._address} ended the connection each time; check the thing's policy and the message")
            )
        else:
            publish.done.set_exception(
                Transient(f"the message was not acknowledged ({f'reason {code}' if error is None else error})")
            )

    @staticmethod
    def _send_subscribe(client: mqtt5.Client, topic: str) -> "Future[Any]":
        subscribed: Future[Any] = client.subscribe(
            mqtt5.SubscribePacket([mqtt5.Subscription(topic, mqtt5.QoS.AT_LEAST_ONCE)])
        )
        return subscribed

    def _subscribed(self, topic: str, done: "Future[Any]") -> bool:
        """Note what became of a subscription; returns whether the connection was still there."""
        error = done.exception()
        if error is not None and getattr(error, "name", None) != ACK_TIMEOUT:
            return False
        if error is not None:
            self._connection.subscribed(topic, "no answer came")
        else:
            refused = any(code is None or code >= ERRORS_FROM for code in done.result().reason_codes)
            self._connection.subscribed(topic, "the thing's policy does not allow it" if refused else None)
        return True

    def _on_connected(self, event: mqtt5.LifecycleConnectSuccessData) -> None:
        set_no_delay(self._settings.port)
        self._max_packet_bytes = event.negotiated_settings.maximum_packet_size_to_server
        with self._lock:
            client, waiting = self._client, set(self._handlers)
            if client is None:
                return
            if self._frames_topic not in waiting:  # `subscribe` cannot come in between
                client.unsubscribe(mqtt5.UnsubscribePacket([self._frames_topic]))

        def subscribed(topic: str, done: "Future[Any]") -> None:  # all on one thread
            still_connected = self._subscribed(topic, done)
            waiting.discard(topic)
            if still_connected and not waiting:
                self._connection.connected()

        if not waiting:
            self._connection.connected()
        for topic in list(waiting):
            self._send_subscribe(client, topic).add_done_callback(partial(subscribed, topic))

    def _on_failure(self, event: mqtt5.LifecycleConnectFailureData) -> None:
        self._connection.failed(why_not_connected(event, self._settings, self._client_id))

    def _on_disconnected(self, event: mqtt5.LifecycleDisconnectData) -> None:
        code = None if event.disconnect_packet is None else event.disconnect_packet.reason_code
        name = getattr(event.exception, "name", type(event.exception).__name__)
        with self._lock:
            if self._closing:
                return
        if code == mqtt5.DisconnectReasonCode.SESSION_TAKEN_OVER:
            self._connection.ended_by_server(
                f"another client connects as {self._client_id!r}; give each process a state folder of its own"
            )
        elif code is None and name in HANGUPS:
            self._connection.ended_by_server(
                f"{self._address} has ended two connections within a minute without a reason: it restarts, or the "
                f"network fails, or another client connects as {self._client_id!r}, or the policy of the thing does "
                "not allow what it sends"
            )
        self._connection.failed(f"{self._address} ended the connection ({name if code is None else code.name})")
        if code in BLAMING_DISCONNECTS:
            self._blame_first(Blame.SAID)
        elif code is None and name in HANGUPS:
            self._blame_first(Blame.SILENT)

    def _blame_first(self, weight: int) -> None:
        """Blame the first message in flight; at the limit the client is stopped, which fails all, and started again."""
        with self._lock:
            first = next(iter(self._in_flight), None)
            if first is None or self._client is None:
                return
            first.blamed = self._blame.add(first.topic, first.payload, weight)
            if not first.blamed:
                return
            self._blame.clear()
            client = self._client
        client.stop()  # the client would send the message again with its session

    def _on_stopped(self, _event: mqtt5.LifecycleStoppedData) -> None:
        with self._lock:
            client = self._client
        if client is None:
            self._stopped.set()
        else:
            client.start()

    def _on_message(self, event: mqtt5.PublishReceivedData) -> None:
        packet = event.publish_packet
        acquire = event.acquire_publish_acknowledgement_control
        handles = [] if acquire is None else [acquire()]
        if packet.topic == self._frames_topic and packet.topic not in self._handlers:
            if not self._frames_left:
                self._frames_left = True
                log.warning("frames_left_at_broker", topic=packet.topic, effect="they come when the source is `topic`")
            return

        def acknowledge() -> None:
            with self._lock:
                client = self._client
                if client is not None and handles:
                    client.invoke_publish_acknowledgement(handles.pop())

        message = ReceivedMessage(packet.topic, packet.payload or b"", acknowledge, 1 if packet.qos else 0)
        deliver(self._handlers, message)
