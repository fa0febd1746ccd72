"""The outbox: `put` never waits, the oldest events are dropped first, and every fault is survived."""

import json
import threading

import pytest

from facerec.celery_sqs.events.batches import EventBatch, parse
from facerec.celery_sqs.events.outbox import EventOutbox
from facerec.errors import QueueMissing, Refused, Transient
from tests.fakes.event_queue import InMemoryEventQueue
from tests.support.logs import capture_logs

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


def batches(queue: InMemoryEventQueue, count: int = 1) -> list[EventBatch]:
    """What came, once so many messages did."""
    return [parse(text) for text in queue.await_sent(count)]


def clocks(found: list[EventBatch]) -> list[int]:
    """The numbers of the events in them."""
    return [one["clock"] for batch in found for one in batch.events]


def test_event_is_sent_at_the_end_of_the_window(queue: InMemoryEventQueue) -> None:
    """No other event has to come after it."""
    made = outbox(queue)
    made.put(event(1))
    assert clocks(batches(queue)) == [1]
    made.put(event(2))
    found = batches(queue, 2)
    assert clocks(found) == [1, 2]
    assert [batch.sequence for batch in found] == [1, 2]
    assert len({batch.source for batch in found}) == 1


def test_events_of_a_window_are_one_message_in_order(queue: InMemoryEventQueue) -> None:
    """The end of the process ends the window."""
    made = outbox(queue, LONG_SECONDS)
    for number in range(50):
        made.put(event(number))
    made.close(30)
    assert clocks(batches(queue)) == list(range(50))
    assert queue.sends == 1


def test_put_does_not_wait_while_the_queue_hangs(queue: InMemoryEventQueue) -> None:
    """Events are taken at once, and the oldest of them dropped."""
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


@pytest.mark.parametrize("fault", [Transient("away"), QueueMissing("q"), ValueError("an unknown fault")])
def test_outbox_goes_on_after_an_outage_and_logs_it_once(queue: InMemoryEventQueue, fault: Exception) -> None:
    """Nothing is lost within the limit."""
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


def test_refused_events_keep_no_others_back(queue: InMemoryEventQueue) -> None:
    """Their number travels with the next ones."""
    refused = threading.Event()

    def send(body: str) -> None:
        if not refused.is_set():
            refused.set()
            raise Refused("too large")
        queue.send(body)

    made = EventOutbox(send, window_seconds=0.001, max_waiting=10)
    with capture_logs() as logs:
        made.put(event(1))
        assert refused.wait(30)
        made.put(event(2))
        made.close(30)
    (batch,) = batches(queue)
    assert ([event["clock"] for event in batch.events], batch.lost) == ([2], 1)
    assert [line["event"] for line in logs] == ["events_refused"]


def test_close_does_not_wait_for_an_unreachable_queue(queue: InMemoryEventQueue) -> None:
    """It tries once."""
    queue.outage = Transient("away")
    made = outbox(queue, LONG_SECONDS)
    made.put(event(1))
    made.close(30)
    made.put(event(2))
    made.close(30)
    assert queue.left == 0


def test_event_that_cannot_be_packed_counts_as_lost(queue: InMemoryEventQueue) -> None:
    """All others are sent."""
    endless = event(1)
    endless["args"] = endless
    made = outbox(queue, LONG_SECONDS)
    for one in (event(0), endless, event(2)):
        made.put(one)
    made.close(30)
    (found,) = batches(queue)
    assert (clocks([found]), found.lost) == ([0, 2], 1)


def test_last_event_comes_last(queue: InMemoryEventQueue) -> None:
    """A worker's offline event follows those of its last tasks."""
    made = outbox(queue, LONG_SECONDS)
    made.put(event(1))
    made.put_last(event(99))
    made.put(event(2))
    made.close(30)
    assert clocks(batches(queue)) == [1, 2, 99]


def test_unused_outbox_sends_nothing(queue: InMemoryEventQueue) -> None:
    """And starts no thread."""
    made = outbox(queue)
    made.close(30)
    assert queue.left == 0
    assert made._queue._thread._thread is None


def test_events_of_many_threads_are_all_sent(queue: InMemoryEventQueue) -> None:
    """Once, and each thread's in its order."""
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
    """SQS counts bytes, and allows few other characters."""
    made = outbox(queue)
    made.put(event(1) | {"args": "Zoë\x00.jpg"})
    made.close(30)
    (text,) = queue.await_sent(1)
    assert text.isascii()
    assert json.loads(text)["events"][0]["args"] == "Zoë\x00.jpg"
