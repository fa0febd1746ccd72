"""The cloud's end of a device's messages, over a real broker."""

import json
import threading
from typing import Any

from awscrt import mqtt5  # type: ignore[import-untyped] # it ships no types

from facerec.edge.link import ReceivedMessage
from facerec.edge.mqtt_link import MqttLink
from facerec.edge_messages import faces_topic, status_topic
from tests.support.mosquitto import CLOUD, Mosquitto

_SECONDS = 60


class DeviceCloud:
    """What the cloud receives of one device, by a link that may use every topic."""

    def __init__(self, broker: Mosquitto, thing: str) -> None:
        self._link = MqttLink(broker.settings(CLOUD), CLOUD, f"{CLOUD}-1")
        self._arrived = threading.Condition()
        self.messages: list[dict[str, Any]] = []
        self.statuses: list[dict[str, Any]] = []
        self._link.subscribe(faces_topic(thing), lambda message: self._keep(self.messages, message))
        self._link.subscribe(status_topic(thing), lambda message: self._keep(self.statuses, message))
        self._link.start()
        assert self._link.wait_connected(_SECONDS)

    def _keep(self, kept: list[dict[str, Any]], message: ReceivedMessage) -> None:
        with self._arrived:
            kept.append(json.loads(message.payload))
            self._arrived.notify_all()
        message.acknowledge()

    def wait_for_names(self, *names: str) -> None:
        """Wait until there is a message about each of these files."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: set(names) <= {each["filename"] for each in self.messages}, _SECONDS)

    def wait_for_status(self, state: str) -> dict[str, Any]:
        """Wait until a status has this state; returns the last one."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: any(each["state"] == state for each in self.statuses), _SECONDS)
            return next(each for each in reversed(self.statuses) if each["state"] == state)

    def publish(self, topic: str, payload: str) -> None:
        """Send to the device."""
        self._link.publish(topic, payload.encode()).result(_SECONDS)

    def publish_once(self, topic: str, payload: str) -> None:
        """Send to the device with QoS 0, which our own link never does."""
        client = self._link._client
        assert client is not None
        client.publish(mqtt5.PublishPacket(topic=topic, payload=payload, qos=mqtt5.QoS.AT_MOST_ONCE)).result(_SECONDS)

    def close(self) -> None:
        """Disconnect."""
        self._link.close()
