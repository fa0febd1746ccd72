"""One suite for the link between device and cloud: in memory, over MQTT with a real broker, over Greengrass IPC."""

import queue
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from facerec.edge.ipc_link import IpcLink
from facerec.edge.link import Link, ReceivedMessage
from facerec.edge.mqtt_link import MqttLink
from facerec.edge_messages import faces_topic, frames_topic, results_topic, status_topic
from facerec.errors import Refused, Transient
from facerec.processes.addresses import poll_until
from facerec.settings.edge import IOT_MESSAGE_BYTES, EdgeSettings
from tests.fakes.link import InMemoryBroker, InMemoryLink
from tests.support.ipc import running_nucleus
from tests.support.logs import capture_logs
from tests.support.mosquitto import CLOUD, Mosquitto, find_mosquitto

THING = "camera-1"
FACES = faces_topic(THING)
SECONDS = 20


@dataclass(frozen=True)
class Way:
    """A link that has not started, and what is at its other end."""

    link: Link
    next_received: Callable[[], tuple[str, bytes]]
    """The next message of `FACES` that the cloud gets."""
    send: Callable[[str, bytes], None]
    """Sends to the device, and returns when the broker has it."""
    stop: Callable[[], None]
    start: Callable[[], None]
    keeps_messages: bool = True
    """Whether the broker keeps a message for a device until that has acknowledged it."""


def memory() -> Iterator[Way]:
    """The fake."""
    broker = InMemoryBroker()
    received = iter(broker.received)
    yield Way(
        InMemoryLink(broker, THING),
        lambda: next(received),
        broker.send,
        broker.stop,
        broker.start,
    )


def mqtt(folder: Path) -> Iterator[Way]:
    """The device's own connection, to mosquitto; another link stands for the cloud."""
    received: queue.Queue[tuple[str, bytes]] = queue.Queue()

    def receive(message: ReceivedMessage) -> None:
        received.put((message.topic, message.payload))
        message.acknowledge()

    with Mosquitto(folder) as broker:
        link = MqttLink(broker.settings(THING), THING, f"{THING}-1")
        cloud = MqttLink(broker.settings(CLOUD), CLOUD, f"{CLOUD}-1")

        def start() -> None:
            broker.start()
            assert cloud.wait_connected(SECONDS)

        cloud.subscribe(FACES, receive)
        cloud.start()
        try:
            assert cloud.wait_connected(SECONDS)
            yield Way(
                link,
                lambda: received.get(timeout=SECONDS),
                lambda topic, payload: cloud.publish(topic, payload).result(SECONDS),
                broker.stop,
                start,
            )
        finally:
            cloud.close()
            link.close()


def nucleus(folder: Path) -> Iterator[Way]:
    """Greengrass IPC, to our server in place of the nucleus."""
    with running_nucleus(folder, THING) as found:
        link = IpcLink(EdgeSettings(), THING)

        def send(topic: str, payload: bytes) -> None:
            (found.server.publish_local if topic == frames_topic(THING) else found.cloud.send)(topic, payload)

        try:
            yield Way(
                link,
                lambda: found.cloud.received.get(timeout=SECONDS),
                send,
                found.server.stop,
                found.server.start,
                keeps_messages=False,
            )
        finally:
            link.close()


@pytest.fixture(
    params=[
        "memory",
        "nucleus",
        pytest.param("mqtt", marks=pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed")),
    ]
)
def way(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Way]:
    """Each implementation."""
    if request.param == "memory":
        yield from memory()
    elif request.param == "nucleus":
        yield from nucleus(tmp_path)
    else:
        yield from mqtt(tmp_path)


def started(way: Way) -> Link:
    """The link, connected."""
    way.link.start()
    assert way.link.wait_connected(SECONDS)
    return way.link


def restart(way: Way) -> None:
    """End the connection, and wait until the link has another."""
    way.stop()
    assert poll_until(lambda: not way.link.state.connected, SECONDS)
    way.start()
    assert way.link.wait_connected(SECONDS)


def subscribed(way: Way, topic: str) -> "queue.Queue[ReceivedMessage]":
    """What the link receives of the topic."""
    messages: queue.Queue[ReceivedMessage] = queue.Queue()
    way.link.subscribe(topic, messages.put)
    return messages


def test_publish_is_acknowledged_and_delivered(way: Way) -> None:
    """QoS 1."""
    link = started(way)
    link.publish(FACES, b"a face").result(SECONDS)
    assert way.next_received() == (FACES, b"a face")
    assert link.state.connected
    assert link.state.problem is None


def test_publishes_are_delivered_in_the_order_of_sending(way: Way) -> None:
    """Also many that are in flight together."""
    link = started(way)
    payloads = [b"%d" % number for number in range(40)]
    for sent in [link.publish(FACES, payload) for payload in payloads]:
        sent.result(SECONDS)
    assert [way.next_received()[1] for _ in payloads] == payloads


@pytest.mark.parametrize("topic", [faces_topic("camera-2"), results_topic(THING)])
def test_forbidden_topic_is_refused_and_others_are_not(way: Way, topic: str) -> None:
    """A thing publishes on its own topics alone."""
    link = started(way)
    refused, taken = link.publish(topic, b"forged"), link.publish(FACES, b"a face")
    with pytest.raises(Refused, match="policy"):
        refused.result(SECONDS)
    taken.result(SECONDS)


def test_oversize_message_is_refused_without_touching_the_connection(way: Way) -> None:
    """The largest message is taken."""
    link = started(way)
    assert isinstance(link.publish(FACES, bytes(IOT_MESSAGE_BYTES + 1)).exception(0), Refused)
    link.publish(FACES, bytes(IOT_MESSAGE_BYTES)).result(SECONDS)
    assert link.state.reconnections == 0


def test_publish_fails_at_once_before_the_start_and_after_the_close(way: Way) -> None:
    """Nothing is queued; closing twice is harmless."""
    assert not way.link.state.connected
    assert isinstance(way.link.publish(FACES, b"early").exception(SECONDS), Transient)
    link = started(way)
    link.close()
    link.close()
    assert not link.state.connected
    assert isinstance(link.publish(FACES, b"late").exception(SECONDS), Transient)


def test_publish_fails_while_the_broker_is_away_and_succeeds_afterwards(way: Way) -> None:
    """The outage is logged once, and so is its end."""
    link = started(way)
    with capture_logs() as logs:
        way.stop()
        assert poll_until(lambda: not link.state.connected, SECONDS)
        assert isinstance(link.publish(FACES, b"lost").exception(SECONDS), Transient)
        way.start()
        assert link.wait_connected(SECONDS)
    link.publish(FACES, b"a face").result(SECONDS)
    assert way.next_received() == (FACES, b"a face")
    assert link.state.reconnections == 1
    assert [log["event"] for log in logs if log.get("client_id") != f"{CLOUD}-1"].count("iot_core_reachable_again") == 1


@pytest.mark.parametrize("topic", [frames_topic(THING), results_topic(THING)])
def test_subscription_holds_over_a_restart_of_the_broker(way: Way, topic: str) -> None:
    """Each message comes once, if it is acknowledged."""
    messages = subscribed(way, topic)
    link = started(way)
    for payload in (b"before", b"after"):
        way.send(topic, payload)
        message = messages.get(timeout=SECONDS)
        assert (message.topic, message.payload) == (topic, payload)
        message.acknowledge()
        message.acknowledge()
        restart(way)
    link.publish(status_topic(THING), b"{}").result(SECONDS)  # the broker has worked off all before it
    assert messages.empty()


def test_unacknowledged_message_comes_again_after_a_reconnection(way: Way) -> None:
    """An acknowledgement for the old connection is harmless. The nucleus keeps no messages for a component."""
    messages = subscribed(way, frames_topic(THING))
    link = started(way)
    way.send(frames_topic(THING), b"a frame")
    first = messages.get(timeout=SECONDS)
    assert first.qos == way.keeps_messages
    restart(way)
    if way.keeps_messages:
        again = messages.get(timeout=SECONDS)
        assert again.payload == first.payload == b"a frame"
        again.acknowledge()
    first.acknowledge()
    link.publish(FACES, b"a face").result(SECONDS)
    assert messages.empty()


def test_handler_that_fails_is_logged_and_gets_the_next_message(way: Way) -> None:
    """Its message does not come again."""
    received: queue.Queue[bytes] = queue.Queue()

    def handle(message: ReceivedMessage) -> None:
        received.put(message.payload)
        message_number = int(message.payload)
        message.acknowledge()
        received.put(b"%d" % message_number)

    way.link.subscribe(frames_topic(THING), handle)
    started(way)
    with capture_logs() as logs:
        for payload in (b"no number", b"7"):
            way.send(frames_topic(THING), payload)
        assert [received.get(timeout=SECONDS) for _ in range(3)] == [b"no number", b"7", b"7"]
    assert [log["event"] for log in logs].count("edge_message_failed") == 1
