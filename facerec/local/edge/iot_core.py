"""The local nucleus' own connection to AWS IoT Core, or to its emulator: MQTT 5 with the certificate of the device."""

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import structlog
from awscrt import mqtt5  # type: ignore[import-untyped] # it ships no types
from awsiot import mqtt5_client_builder  # type: ignore[import-untyped] # as above

from facerec.errors import FacerecError, Transient
from facerec.provision.edge.thing_folder import ThingFolder
from facerec.settings import ENV_PREFIX

log = structlog.get_logger(__name__)

_STOP_SECONDS = 2.0
_ERRORS_FROM = 0x80
"""Reason codes of MQTT 5 from here on are refusals."""
_Handler = Callable[[str, bytes], None]


class NoIotCore:
    """`IotCore` of a nucleus that has no certificate: nothing can be sent, and nothing comes."""

    def publish(self, topic: str, payload: bytes) -> "Future[None]":
        """Fail."""
        del payload
        done: Future[None] = Future()
        done.set_exception(Transient(f"the nucleus has no connection, so nothing is sent to {topic}"))
        return done

    def subscribe(self, topic: str, handler: _Handler) -> None:
        """Do nothing."""


class DeviceIotCore:
    """`IotCore` with the files of `facerec edge provision THING --greengrass`; the client id is the thing's name."""

    def __init__(self, thing: str, folder: Path) -> None:
        variables = ThingFolder(folder).settings()
        values = {name.removeprefix(f"{ENV_PREFIX}EDGE__"): value for name, value in variables.items()}
        self._handlers: dict[str, _Handler] = {}
        self._client = mqtt5_client_builder.mtls_from_path(
            values["CERTIFICATE_FILE"],
            values["KEY_FILE"],
            endpoint=values["ENDPOINT"],
            port=int(values["PORT"]),
            ca_filepath=values.get("CA_FILE"),
            client_id=thing,
            min_reconnect_delay_ms=500,
            max_reconnect_delay_ms=5000,
            enable_metrics_collection=False,
            on_publish_received=self._on_message,
            on_lifecycle_connection_success=self._on_connected,
            on_lifecycle_connection_failure=lambda event: log.warning("nucleus_unconnected", why=repr(event.exception)),
            on_lifecycle_stopped=lambda _: self._stopped.set_result(None),
        )
        self._stopped: Future[None] = Future()

    def start(self) -> None:
        """Begin to connect."""
        self._client.start()

    def stop(self) -> None:
        """Disconnect."""
        self._client.stop()
        try:
            self._stopped.result(_STOP_SECONDS)
        except TimeoutError:
            log.warning("nucleus_still_connected", seconds=_STOP_SECONDS)

    def publish(self, topic: str, payload: bytes) -> "Future[None]":
        """Send with QoS 1; without a connection it waits for the next one, as in the nucleus' spool."""
        done: Future[None] = Future()
        packet = mqtt5.PublishPacket(topic=topic, payload=payload, qos=mqtt5.QoS.AT_LEAST_ONCE)

        def finish(acknowledged: "Future[Any]") -> None:
            error = acknowledged.exception()
            code = 0 if error is not None else acknowledged.result().puback.reason_code
            if error is None and code >= _ERRORS_FROM:
                error = FacerecError(f"IoT Core refuses a message to {topic} (reason {code})")
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)

        self._client.publish(packet).add_done_callback(finish)
        return done

    def subscribe(self, topic: str, handler: _Handler) -> None:
        """Have the handler called for each message, from now on and after each reconnection."""
        self._handlers[topic] = handler
        self._subscribe(topic)

    def _subscribe(self, topic: str) -> None:
        self._client.subscribe(mqtt5.SubscribePacket([mqtt5.Subscription(topic, mqtt5.QoS.AT_LEAST_ONCE)]))

    def _on_connected(self, _: Any) -> None:
        log.info("nucleus_connected")
        for topic in list(self._handlers):
            self._subscribe(topic)

    def _on_message(self, event: Any) -> None:
        packet = event.publish_packet
        handler = self._handlers.get(packet.topic)
        if handler is not None:
            handler(packet.topic, packet.payload or b"")
