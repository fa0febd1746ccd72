"""Frames over MQTT; the contract tests of the link show what a broker does."""

import base64
import json
import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Literal

import pytest

from facerec.edge.counters import Counters
from facerec.edge.frame import FrameLimits
from facerec.edge.frame_queue import FrameQueue
from facerec.edge.sources.topic import TopicSource
from tests.fakes.link import InMemoryBroker, InMemoryLink
from tests.support.logs import capture_logs
from tests.support.pictures import PORTRAIT

PICTURE = PORTRAIT.read_bytes()
NOW = datetime(2026, 11, 30, 21, 15, tzinfo=UTC)


class Run:
    """A running source of the topic `clients/door`, on a link to a broker in memory."""

    def __init__(self) -> None:
        self.broker = InMemoryBroker()
        self.link = InMemoryLink(self.broker, "door")
        self.counters = Counters()
        self.queue = FrameQueue(4, self.counters)
        source = TopicSource(self.link, "door", self.counters, FrameLimits(max_bytes=100_000), now=lambda: NOW)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=source.run, args=(self.queue, self._stopping))
        self._thread.start()
        assert source.subscribed.wait(30)
        self.link.start()

    def send(self, payload: bytes, qos: Literal[0, 1] = 1) -> None:
        """Have a client send a message; it has been delivered on return."""
        self.broker.send("clients/door", payload, qos)

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(30)
        assert not self._thread.is_alive()


@pytest.fixture
def run() -> Iterator[Run]:
    """A source that takes pictures of up to 100 kB, before a queue of 4 frames."""
    running = Run()
    yield running
    running.stop()


def payload(name: str = "a.jpg", image: bytes = PICTURE, request_id: uuid.UUID | None = None) -> bytes:
    """A message as clients send it."""
    encoded = base64.b64encode(image).decode()
    return json.dumps({"request_id": str(request_id or uuid.uuid4()), "filename": name, "encoded": encoded}).encode()


def test_message_becomes_a_frame_and_is_acknowledged_when_it_is_settled(run: Run) -> None:
    """Not before: it comes again if the process is killed."""
    request_id = uuid.uuid4()
    run.send(payload("a.jpg", request_id=request_id))
    frame = run.queue.get(0)
    assert frame is not None
    assert (frame.request_id, frame.filename, frame.image, frame.captured_at) == (request_id, "a.jpg", PICTURE, NOW)
    assert frame.requested
    assert len(run.link.unacknowledged) == 1
    frame.settled()
    assert run.link.unacknowledged == []


def test_message_that_comes_again_while_its_frame_waits_brings_no_second_frame(run: Run) -> None:
    """As after a reconnection; sent once more later, the same request is a frame again."""
    again = payload(request_id=uuid.uuid4())
    run.send(again)
    run.broker.stop()
    run.broker.start()
    frame = run.queue.get(0)
    assert frame is not None
    assert run.queue.get(0) is None
    frame.settled()
    assert run.link.unacknowledged == []
    run.send(again)
    assert run.queue.get(0) is not None


def test_burst_without_qos_drops_the_oldest_frames_and_none_with_qos(run: Run) -> None:
    """What the sender relies on stays."""
    run.send(payload("kept.jpg"))
    for number in range(6):
        run.send(payload(f"{number}.jpg"), qos=0)
    names = []
    while frame := run.queue.get(0):
        names.append(frame.filename)
    assert names == ["kept.jpg", "3.jpg", "4.jpg", "5.jpg"]
    assert run.counters.read()["dropped"] == 3
    assert len(run.link.unacknowledged) == 1


MALFORMED = {
    "no JSON": (b"\xff\xfe", "message"),
    "empty": (b"", "message"),
    "a list": (b"[]", "message"),
    "no id": (b'{"filename": "a.jpg", "encoded": ""}', "message"),
    "no UUID": (b'{"request_id": "7", "filename": "a.jpg", "encoded": ""}', "message"),
    "deep": (b"[" * 100_000, "message"),
    "no base64": (payload().replace(b'"encoded": "', b'"encoded": "!'), "base64"),
    "cut base64": (payload().replace(b'"encoded": "/', b'"encoded": "'), "base64"),
    "no bytes": (payload(image=b""), "picture"),
    "no picture": (payload(image=b"hello"), "picture"),
    "a GIF": (payload(image=b"GIF89a" + bytes(50)), "picture"),
    "too large": (payload(image=PICTURE + bytes(40_000)), "picture"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_message_is_acknowledged_and_counted(run: Run, case: str) -> None:
    """It would come again for ever; the next message is a frame all the same."""
    content, kind = MALFORMED[case]
    with capture_logs() as logs:
        run.send(content)
    assert run.link.unacknowledged == []
    assert run.counters.read()["malformed"] == 1
    assert [(entry["event"], entry["kind"]) for entry in logs] == [("frame_malformed", kind)]
    assert run.queue.get(0) is None
    run.send(payload())
    assert run.queue.get(0) is not None


def test_malformed_messages_are_logged_once_for_each_kind(run: Run) -> None:
    """A client in a loop must not fill the log."""
    with capture_logs() as logs:
        for _ in range(3):
            for content, _kind in MALFORMED.values():
                run.send(content)
    assert sorted(entry["kind"] for entry in logs) == ["base64", "message", "picture"]
    assert run.counters.read()["malformed"] == 3 * len(MALFORMED)


def test_stopped_source_leaves_messages_unacknowledged(run: Run) -> None:
    """They come again after the restart."""
    run.stop()
    run.send(payload())
    assert run.queue.get(0) is None
    assert len(run.link.unacknowledged) == 1
