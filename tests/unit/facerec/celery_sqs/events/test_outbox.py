"""The outbox: nobody waits for it, it forgets the oldest first, and goes on after every fault."""

import json
import threading

import pytest
from structlog.testing import capture_logs

from facerec.celery_sqs.events.batches import Batch, parse
from facerec.celery_sqs.events.outbox import EventOutbox
from facerec.errors import QueueMissing, Transient
from tests.fakes.event_queue import InMemoryEventQueue

LONG_SECONDS = 600


def event(number: int) -> dict[str, object]:
    """An event to be told from the others."""
    return {"type": "worker-heartbeat", "hostname": "w", "timestamp": 1.0, "clock": number, "freq": 1}


def outbox(queue: InMemoryEventQueue, window_seconds: float = 0.001, max_waiting: int = 100) -> EventOutbox:
    """One that sends to this queue, and tries again at once."""
    return EventOutbox(queue.send, window_seconds=window_seconds, max_waiting=max_waiting, backoff=lambda *_: 0.001)


@pytest.fixture
def queue() -> InMemoryEventQueue:
    """A queue of its own for each test."""
    return InMemoryEventQueue()


def batches(queue: InMemoryEventQueue, count: int = 1) -> list[Batch]:
    """What came, once so many messages did."""
    return [parse(text) for text in queue.await_sent(count)]


def clocks(found: list[Batch]) -> list[int]:
    """The numbers of the events in them."""
    return [one["clock"] for batch in found for one in batch.events]


def test_an_event_is_sent_when_the_window_is_over(queue: InMemoryEventQueue) -> None:
    """Nobody has to come after it."""
    made = outbox(queue)
    made.put(event(1))
    assert clocks(batches(queue)) == [1]
    made.put(event(2))
    found = batches(queue, 2)
    assert clocks(found) == [1, 2]
    assert [batch.sequence for batch in found] == [1, 2]
    assert len({batch.source for batch in found}) == 1


def test_the_events_of_a_window_travel_together_in_their_order(queue: InMemoryEventQueue) -> None:
    """Ten tasks cost one message; the end of the process ends the window."""
    made = outbox(queue, LONG_SECONDS)
    for number in range(50):
        made.put(event(number))
    made.close(30)
    assert clocks(batches(queue)) == list(range(50))
    assert queue.sends == 1


def test_nobody_waits_while_the_queue_hangs(queue: InMemoryEventQueue) -> None:
    """Events are taken at once, and the oldest of them forgotten, while a call hangs for ever."""
    hanging, released = threading.Event(), threading.Event()

    def hang(body: str) -> None:
        hanging.set()
        assert released.wait(30)
        queue.send(body)

    made = EventOutbox(hang, window_seconds=0.001, max_waiting=10)
    made.put(event(-1))
    assert hanging.wait(30)
    for number in range(1000):
        made.put(event(number))  # were it to wait, this test would not end
    released.set()
    made.close(30)
    found = batches(queue, 2)
    assert clocks(found) == [-1, *range(990, 1000)]
    assert found[-1].lost == 990


@pytest.mark.parametrize("fault", [Transient("away"), QueueMissing("q"), ValueError("nobody foresaw this")])
def test_waits_out_an_outage_and_says_so_once(queue: InMemoryEventQueue, fault: Exception) -> None:
    """Nothing is lost as long as it fits."""
    tried = threading.Semaphore(0)
    outage: list[Exception] = [fault]

    def send(body: str) -> None:
        tried.release()
        for exc in outage:
            raise exc
        queue.send(body)

    made = EventOutbox(send, window_seconds=0.001, max_waiting=10, backoff=lambda *_: 0.001)
    with capture_logs() as logs:
        made.put(event(1))
        for _ in range(3):
            assert tried.acquire(timeout=30)
        made.put(event(2))
        outage.clear()
        assert clocks(batches(queue, 2)) == [1, 2]
        made.close(30)
    assert [entry["event"] for entry in logs] == ["events_queue_unreachable", "events_queue_reachable_again"]


def test_the_end_does_not_wait_for_a_queue_that_is_away(queue: InMemoryEventQueue) -> None:
    """One try, and the process may go."""
    queue.outage = Transient("away")
    made = outbox(queue, LONG_SECONDS)
    made.put(event(1))
    made.close(30)
    made.put(event(2))
    made.close(30)
    assert queue.left == 0


def test_an_event_that_cannot_be_packed_counts_as_lost(queue: InMemoryEventQueue) -> None:
    """Those beside it, and all later ones, are sent."""
    endless = event(1)
    endless["args"] = endless
    made = outbox(queue, LONG_SECONDS)
    for one in (event(0), endless, event(2)):
        made.put(one)
    made.close(30)
    (found,) = batches(queue)
    assert (clocks([found]), found.lost) == ([0, 2], 1)


def test_what_is_left_behind_comes_last(queue: InMemoryEventQueue) -> None:
    """A worker's farewell, after what its last tasks said."""
    made = outbox(queue, LONG_SECONDS)
    made.put(event(1))
    made.put_last(event(99))
    made.put(event(2))
    made.close(30)
    assert clocks(batches(queue)) == [1, 2, 99]


def test_one_that_was_never_used_says_nothing(queue: InMemoryEventQueue) -> None:
    """And starts no thread."""
    made = outbox(queue)
    made.close(30)
    assert queue.left == 0
    assert made._queue._thread._thread is None


def test_threads_lose_nothing(queue: InMemoryEventQueue) -> None:
    """Each event is sent once, and each thread's in its order."""
    made = outbox(queue, max_waiting=10_000)

    def work(first: int) -> None:
        for number in range(first, first + 500):
            made.put(event(number))

    threads = [threading.Thread(target=work, args=[1000 * index]) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    made.close(30)
    found = clocks(batches(queue))
    assert sorted(found) == sorted(number for index in range(4) for number in range(1000 * index, 1000 * index + 500))
    for index in range(4):
        own = [number for number in found if number // 1000 == index]
        assert own == sorted(own)


def test_bodies_are_ascii(queue: InMemoryEventQueue) -> None:
    """SQS counts bytes, and takes few other characters."""
    made = outbox(queue)
    made.put(event(1) | {"args": "Zoë\x00.jpg"})
    made.close(30)
    (text,) = queue.await_sent(1)
    assert text.isascii()
    assert json.loads(text)["events"][0]["args"] == "Zoë\x00.jpg"
