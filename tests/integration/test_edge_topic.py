"""Frames over MQTT with a real broker: clients are held back, and what is not finished comes again."""

import base64
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from facerec.edge.counters import Counters
from facerec.edge.frame import Frame, FrameLimits
from facerec.edge.frame_queue import FrameQueue
from facerec.edge.mqtt_link import MqttLink
from facerec.edge.sources.topic import TopicSource
from facerec.edge_messages import FrameMessage, frames_topic, status_topic
from facerec.processes.addresses import poll_until
from tests.support.device_cloud import DeviceCloud
from tests.support.mosquitto import Mosquitto, find_mosquitto
from tests.support.pictures import encoded, portrait

pytestmark = pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed")

THING = "door-1"
SECONDS = 30
ROOM = 4
PICTURE = base64.b64encode(encoded(portrait().resize((40, 60)), "JPEG")).decode("ascii")


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    """A broker that runs."""
    with Mosquitto(tmp_path) as running:
        yield running


@pytest.fixture
def cloud(broker: Mosquitto) -> Iterator[DeviceCloud]:
    """What sends to the device."""
    made = DeviceCloud(broker, THING)
    yield made
    made.close()


class Run:
    """A device with room for a few frames, connected with its persistent session."""

    def __init__(self, broker: Mosquitto) -> None:
        self.counters = Counters()
        self.queue = FrameQueue(ROOM, self.counters)
        self._link = MqttLink(broker.settings(THING, queue_frames=ROOM), THING, f"{THING}-1")
        source = TopicSource(self._link, THING, self.counters, FrameLimits())
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=source.run, args=(self.queue, self._stopping))
        self._thread.start()
        assert source.subscribed.wait(SECONDS)
        self._link.start()
        assert self._link.wait_connected(SECONDS)

    def next(self) -> Frame:
        """The next frame, which must come."""
        frame = self.queue.get(SECONDS)
        assert frame is not None
        return frame

    def flush(self) -> None:
        """Return when the broker has what was sent so far."""
        self._link.publish(status_topic(THING), b"{}").result(SECONDS)

    def close(self) -> None:
        """End it; frames that are not settled are not acknowledged."""
        self._stopping.set()
        self._thread.join(SECONDS)
        self._link.close()


@pytest.fixture
def start(broker: Mosquitto) -> Iterator[Callable[[], Run]]:
    """Starts the device; all are closed at the end."""
    runs: list[Run] = []

    def start() -> Run:
        runs.append(Run(broker))
        return runs[-1]

    yield start
    for run in runs:
        run.close()


def message(name: str) -> str:
    """A frame as a client sends it."""
    return FrameMessage(request_id=uuid.uuid4(), filename=name, encoded=PICTURE).to_json()


def send(cloud: DeviceCloud, name: str) -> None:
    """Send a frame with QoS 1; the broker has it on return."""
    cloud.publish(frames_topic(THING), message(name))


def test_frames_with_qos_are_held_back_by_the_broker_and_none_is_dropped(
    start: Callable[[], Run], cloud: DeviceCloud
) -> None:
    """However many are sent at once, the device gets no more than it has room for; and all of them in order."""
    run = start()
    names = [f"{number}.jpg" for number in range(5 * ROOM)]
    for name in names:
        send(cloud, name)
    taken = []
    for _ in names:
        frame = run.next()
        taken.append(frame.filename)
        frame.settled()
    assert taken == names
    assert run.counters.read()["dropped"] == 0


def test_burst_without_qos_drops_the_oldest_frames_and_none_with_qos(
    start: Callable[[], Run], cloud: DeviceCloud
) -> None:
    """The broker does not hold it back."""
    run = start()
    send(cloud, "kept.jpg")
    for number in range(10):
        cloud.publish_once(frames_topic(THING), message(f"{number}.jpg"))
    assert poll_until(lambda: run.counters.read()["dropped"] == 7, SECONDS)
    assert [run.next().filename for _ in range(ROOM)] == ["kept.jpg", "7.jpg", "8.jpg", "9.jpg"]
    assert run.counters.read()["frames"] == 11


def test_frames_that_were_not_settled_come_again_to_the_next_process(
    start: Callable[[], Run], cloud: DeviceCloud
) -> None:
    """With their request ids; those that were settled do not."""
    run = start()
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        send(cloud, name)
    first, second, third = run.next(), run.next(), run.next()
    second.settled()
    run.flush()
    run.close()
    send(cloud, "d.jpg")
    again = start()
    frames = [again.next() for _ in range(3)]
    assert [frame.filename for frame in frames] == ["a.jpg", "c.jpg", "d.jpg"]
    assert [frame.request_id for frame in frames[:2]] == [first.request_id, third.request_id]
