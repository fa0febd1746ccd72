"""Devices of AWS IoT: their certificates in a folder, and an MQTT 5 client that is no code of ours."""

from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from awscrt import mqtt5  # type: ignore[import-untyped] # it ships no types
from awsiot import mqtt5_client_builder  # type: ignore[import-untyped] # as above

_SECONDS = 20.0
"""Far more than anything takes."""


class Refused(Exception):
    """The broker refuses the connection."""


class Device:
    """A connected device."""

    def __init__(self, client: mqtt5.Client) -> None:
        self._client = client

    def publish(self, topic: str, payload: bytes | str) -> str:
        """Publish at QoS 1; returns the reason in the broker's acknowledgement."""
        packet = mqtt5.PublishPacket(topic=topic, payload=payload, qos=mqtt5.QoS.AT_LEAST_ONCE)
        found: Any = self._client.publish(packet).result(_SECONDS)
        return str(found.puback.reason_code.name)

    def subscribe(self, topic: str) -> str:
        """Subscribe at QoS 1; returns the reason in the broker's acknowledgement."""
        wanted = mqtt5.Subscription(topic_filter=topic, qos=mqtt5.QoS.AT_LEAST_ONCE)
        found = self._client.subscribe(mqtt5.SubscribePacket(subscriptions=[wanted])).result(_SECONDS)
        return str(found.reason_codes[0].name)


@contextmanager
def connected(
    port: int, *, ca: Path, client_id: str, certificate: Path | None = None, key: Path | None = None
) -> Iterator[Device]:
    """A device that is connected within the block; raises `Refused`."""
    opened: Future[None] = Future()
    stopped: Future[None] = Future()

    def succeeded(_: mqtt5.LifecycleConnectSuccessData) -> None:
        if not opened.done():
            opened.set_result(None)

    def failed(event: mqtt5.LifecycleConnectFailureData) -> None:
        if not opened.done():
            opened.set_exception(Refused(str(event.exception)))

    options: dict[str, Any] = {
        "endpoint": "127.0.0.1",
        "port": port,
        "ca_filepath": str(ca),
        "client_id": client_id,
        "on_lifecycle_connection_success": succeeded,
        "on_lifecycle_connection_failure": failed,
        "on_lifecycle_stopped": lambda _: stopped.set_result(None),
    }
    if certificate is None or key is None:
        client = mqtt5_client_builder.new_default_builder(**options)
    else:
        client = mqtt5_client_builder.mtls_from_path(str(certificate), str(key), **options)
    client.start()
    try:
        opened.result(_SECONDS)
        yield Device(client)
    finally:
        client.stop()
        stopped.result(_SECONDS)
