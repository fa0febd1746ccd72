"""The sender: order, acknowledgements, failures and the end."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from facerec.edge.counters import Counters
from facerec.edge.link import LinkState, ReceivedMessage
from facerec.edge.sender import Sender
from facerec.edge.spool import Spool
from facerec.errors import Refused, Transient
from tests.support.logs import capture_logs

TOPIC = "facerec/door-1/faces"
IN_FLIGHT = 4


class HeldLink:
    """A link whose acknowledgements the test gives; each publish is noted."""

    def __init__(self) -> None:
        self.connected = threading.Event()
        self.connected.set()
        self.published: list[tuple[bytes, Future[None]]] = []
        self.failed = threading.Semaphore(0)
        self._arrived = threading.Condition()

    @property
    def state(self) -> LinkState:
        """As the test says."""
        return LinkState(connected=self.connected.is_set())

    def start(self) -> None:
        """It is there already."""

    def wait_connected(self, timeout_seconds: float) -> bool:
        """Wait for the test."""
        return self.connected.wait(timeout_seconds)

    def publish(self, topic: str, payload: bytes) -> "Future[None]":
        """Note the message."""
        assert topic == TOPIC
        future: Future[None] = Future()
        if not self.connected.is_set():
            future.set_exception(Transient("there is no connection"))
            self.failed.release()
            return future
        with self._arrived:
            self.published.append((payload, future))
            self._arrived.notify_all()
        return future

    def subscribe(self, topic: str, handler: Callable[[ReceivedMessage], None]) -> None:
        """Nothing comes."""

    def close(self) -> None:
        """Nothing to close."""

    def wait_for(self, count: int) -> list[bytes]:
        """The payloads, once there are so many."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.published) >= count, 10)
            return [payload for payload, _ in self.published]

    def answer(self, number: int, failure: Exception | None = None) -> None:
        """Acknowledge a publish, by its place, or let it fail."""
        _, future = self.published[number]
        if failure is None:
            future.set_result(None)
        else:
            future.set_exception(failure)


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    """An empty spool."""
    made = Spool(tmp_path / "spool.db", 1_000_000, "normal")
    yield made
    made.close()


@pytest.fixture
def link() -> HeldLink:
    """A connected link."""
    return HeldLink()


@pytest.fixture
def counters() -> Counters:
    """All at 0."""
    return Counters()


@pytest.fixture
def sender(spool: Spool, link: HeldLink, counters: Counters) -> Iterator[Sender]:
    """A sender that has started."""
    made = Sender(spool, link, counters, in_flight=IN_FLIGHT, backoff=lambda *_: 0)
    made.start()
    yield made
    made.stop(0)


def add(spool: Spool, *payloads: bytes) -> None:
    """Spool messages."""
    for payload in payloads:
        spool.add(TOPIC, payload)


def left(spool: Spool) -> list[bytes]:
    """What is spooled."""
    return [message.payload for message in spool.oldest(100)]


def test_window_limits_what_is_sent_unacknowledged(spool: Spool, link: HeldLink, sender: Sender) -> None:
    """The next one is sent when the oldest is acknowledged; what was acknowledged leaves the spool."""
    add(spool, *(b"%d" % number for number in range(7)))
    assert link.wait_for(IN_FLIGHT) == [b"0", b"1", b"2", b"3"]
    link.answer(1)
    link.answer(0)
    assert link.wait_for(6) == [b"0", b"1", b"2", b"3", b"4", b"5"]
    for number in range(2, 6):
        link.answer(number)
    link.wait_for(7)
    link.answer(6)
    sender.stop(10)
    assert left(spool) == []


def test_sender_counts_what_was_acknowledged(spool: Spool, link: HeldLink, sender: Sender, counters: Counters) -> None:
    """Messages and their bytes."""
    add(spool, b"abc", b"de")
    link.wait_for(2)
    link.answer(0)
    link.answer(1)
    sender.stop(10)
    counts = counters.read()
    assert (counts["messages"], counts["bytes"]) == (2, 5)


def test_failed_messages_are_sent_again_from_the_oldest(spool: Spool, link: HeldLink, sender: Sender) -> None:
    """In order, without those that were acknowledged, and before newer ones."""
    add(spool, b"0", b"1", b"2", b"3", b"4")
    link.wait_for(4)
    link.answer(0)
    link.wait_for(5)
    link.answer(2)
    for number in (4, 3, 1):
        link.answer(number, Transient("the connection was lost"))
    assert link.wait_for(8)[5:] == [b"1", b"3", b"4"]
    for number in (5, 6, 7):
        link.answer(number)
    sender.stop(10)
    assert left(spool) == []


def test_sender_waits_for_the_connection(spool: Spool, link: HeldLink, sender: Sender) -> None:
    """Nothing is lost, nothing is logged by the sender, and all is sent in order when it is back."""
    link.connected.clear()
    with capture_logs() as logs:
        add(spool, b"0", b"1", b"2")
        assert link.failed.acquire(timeout=10)
        link.connected.set()
        assert link.wait_for(3) == [b"0", b"1", b"2"]
        for number in range(3):
            link.answer(number)
        sender.stop(10)
    assert [record for record in logs if record["log_level"] != "debug"] == []
    assert left(spool) == []


def test_refused_message_is_removed(spool: Spool, link: HeldLink, sender: Sender, counters: Counters) -> None:
    """It holds back no other; each refusal is counted, and logged once until a message is accepted."""
    with capture_logs() as logs:
        add(spool, b"0", b"1", b"2", b"3")
        link.wait_for(4)
        for number in (0, 1, 3):
            link.answer(number, Refused("the policy does not allow it"))
        link.answer(2)
        sender.stop(10)
    refusals = [record for record in logs if record["event"] == "message_refused"]
    assert [(record["topic"], record["reason"]) for record in refusals] == [(TOPIC, "the policy does not allow it")] * 2
    assert left(spool) == []
    assert counters.read()["refused"] == 3


def test_unexpected_error_does_not_end_the_sender(spool: Spool, link: HeldLink, sender: Sender) -> None:
    """It is logged as an error, and the message is sent again."""
    with capture_logs() as logs:
        add(spool, b"0")
        link.wait_for(1)
        link.answer(0, ValueError("a fault of the link"))
        assert link.wait_for(2) == [b"0", b"0"]
        link.answer(1)
        sender.stop(10)
    assert [record["event"] for record in logs if record["log_level"] == "error"] == ["sending_failed"]


def test_stop_sends_the_rest(spool: Spool, link: HeldLink, sender: Sender) -> None:
    """As long as acknowledgements come within the grace."""
    add(spool, *(b"%d" % number for number in range(6)))
    link.wait_for(4)
    stopping = threading.Thread(target=sender.stop, args=[30])
    stopping.start()
    for number in range(6):
        link.wait_for(number + 1)
        link.answer(number)
    stopping.join(10)
    assert not stopping.is_alive()
    assert left(spool) == []


def test_stop_leaves_in_the_spool_what_was_not_acknowledged(spool: Spool, link: HeldLink, sender: Sender) -> None:
    """It ends after its grace, and removes only what was acknowledged."""
    add(spool, b"0", b"1", b"2")
    link.wait_for(3)
    link.answer(0)
    sender.stop(0.05)
    assert left(spool) == [b"1", b"2"]


def test_stop_without_a_connection_is_quick(spool: Spool, link: HeldLink, sender: Sender) -> None:
    """There is nothing to wait for; the messages stay."""
    link.connected.clear()
    add(spool, b"0")
    sender.stop(60)
    assert left(spool) == [b"0"]


def test_spool_that_fails_is_an_outage(tmp_path: Path, link: HeldLink, counters: Counters) -> None:
    """It is logged once, and sending goes on when the disk is back."""
    folder = tmp_path / "later"
    spool = Spool(folder / "spool.db", 1_000_000, "normal")
    with capture_logs() as logs:
        tried = threading.Semaphore(0)

        def backoff(*_: float) -> float:
            tried.release()
            return 0.01

        sender = Sender(spool, link, counters, in_flight=IN_FLIGHT, backoff=backoff)
        sender.start()
        for _ in range(3):
            assert tried.acquire(timeout=10)
        folder.mkdir()
        spool.add(TOPIC, b"0")
        link.wait_for(1)
        link.answer(0)
        sender.stop(10)
    events = [record["event"] for record in logs if record["log_level"] != "debug"]
    assert events == ["spool_unreachable", "spool_reachable_again"]
    spool.close()
