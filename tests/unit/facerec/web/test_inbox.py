"""Results reach the uploads that wait for them, whatever happens to the queue."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest

from facerec.errors import FacerecError, QueueMissing, Transient
from facerec.messages import Outcome, RecognitionResult
from facerec.ports import ResultDelivery
from facerec.web.inbox import InboxThread, Waiters
from tests.fakes.results import InMemoryQueues, InMemoryResultInbox
from tests.support.logs import capture_logs

QUEUE = "facerec-resp-queue"


def result_of(request_id: UUID) -> RecognitionResult:
    """Some result."""
    return RecognitionResult(
        request_id=request_id, result="Jane", filename="a.jpg", outcome=Outcome.MATCH, completed_at=datetime.now(UTC)
    )


class Scripted:
    """An inbox that raises the given exceptions, one per receive, and then behaves like the one in memory."""

    def __init__(self, queues: InMemoryQueues, *failures: Exception) -> None:
        self._inbox = InMemoryResultInbox(queues, QUEUE)
        self._failures = list(failures)
        self.received = threading.Event()

    def receive(self, wait_seconds: float) -> Sequence[ResultDelivery]:
        """Fail or receive."""
        if self._failures:
            raise self._failures.pop(0)
        self.received.set()
        return self._inbox.receive(wait_seconds)

    def delete(self, deliveries: Sequence[ResultDelivery]) -> None:
        """Forget deliveries."""
        self._inbox.delete(deliveries)


@contextmanager
def reading(
    inbox: Scripted | InMemoryResultInbox, waiters: Waiters, backoff: Callable[[int], float] = lambda _: 0.0
) -> Iterator[InboxThread]:
    """An inbox thread, ended on leaving."""
    thread = InboxThread(inbox, waiters, poll_seconds=0.02, backoff=backoff)
    thread.start()
    try:
        yield thread
    finally:
        assert thread.stop(5)


def test_a_result_reaches_the_one_who_waits_for_it() -> None:
    """And no other."""
    queues, waiters, wanted, other = InMemoryQueues(QUEUE), Waiters(), uuid4(), uuid4()
    with (
        reading(InMemoryResultInbox(queues, QUEUE), waiters),
        waiters.expecting(wanted) as waiter,
        waiters.expecting(other) as stranger,
    ):
        queues.send(QUEUE, result_of(wanted).to_json())
        result = waiter.wait(5)
        assert result is not None
        assert result.request_id == wanted
        assert stranger.wait(0) is None
    assert waiters.count == 0


def test_inbox_deletes_results_without_a_waiter() -> None:
    """Late and duplicate results do not pile up: their stored twins stay."""
    queues, waiters, request_id = InMemoryQueues(QUEUE), Waiters(), uuid4()
    queues.send(QUEUE, result_of(uuid4()).to_json())
    with reading(InMemoryResultInbox(queues, QUEUE), waiters), waiters.expecting(request_id) as waiter:
        for _ in range(2):
            queues.send(QUEUE, result_of(request_id).to_json())
        assert waiter.wait(5) is not None
        with waiters.expecting(uuid4()) as last:
            queues.send(QUEUE, result_of(last.request_id).to_json())
            assert last.wait(5) is not None
    assert queues.size(QUEUE) == 0


@pytest.mark.parametrize("failure", [Transient("no route"), QueueMissing(QUEUE), ValueError("a bug")])
def test_inbox_survives_an_outage_and_logs_it_once(failure: Exception) -> None:
    """The log has one line for its beginning and one for its end."""
    queues, waiters, request_id = InMemoryQueues(QUEUE), Waiters(), uuid4()
    inbox = Scripted(queues, *[failure] * 5)
    with capture_logs() as logs, reading(inbox, waiters), waiters.expecting(request_id) as waiter:
        queues.send(QUEUE, result_of(request_id).to_json())
        assert waiter.wait(5) is not None
    events = [line["event"] for line in logs if line["event"] != "inbox_fault"]
    assert events == ["response_queue_unreachable", "response_queue_reachable_again"]


def test_inbox_check_fails_during_an_outage() -> None:
    """Readiness names the reason."""
    queues = InMemoryQueues(QUEUE)
    inbox = InMemoryResultInbox(queues, QUEUE)
    inbox.outage = Transient("the queue cannot be reached")
    failed, go_on = threading.Event(), threading.Event()

    def backoff(failures: int) -> float:
        failed.set()
        assert go_on.wait(5)
        return 0.0

    waiters = Waiters()
    with reading(inbox, waiters, backoff) as thread:
        assert failed.wait(5)
        with pytest.raises(FacerecError, match="the queue cannot be reached"):
            thread.check()
        inbox.outage = None
        go_on.set()
        with waiters.expecting(uuid4()) as waiter, waiters.expecting(uuid4()) as next_one:
            for expected in (waiter, next_one):
                queues.send(QUEUE, result_of(expected.request_id).to_json())
                assert expected.wait(5) is not None
        thread.check()


def test_inbox_check_fails_when_the_reader_is_stuck() -> None:
    """The queue has not even sent an empty reply for long."""
    now = [0.0]
    release = threading.Event()

    class Stuck:
        def receive(self, wait_seconds: float) -> Sequence[ResultDelivery]:
            release.wait(10)
            return ()

        def delete(self, deliveries: Sequence[ResultDelivery]) -> None:
            raise NotImplementedError

    thread = InboxThread(Stuck(), Waiters(), poll_seconds=10, clock=lambda: now[0])
    with pytest.raises(FacerecError, match="not read"):
        thread.check()
    thread.start()
    thread.check()
    now[0] += 60
    with pytest.raises(FacerecError, match="60 s"):
        thread.check()
    release.set()
    assert thread.stop(5)


def test_inbox_stop_does_not_wait_for_the_backoff() -> None:
    """Also in the middle of an outage."""
    inbox = InMemoryResultInbox(InMemoryQueues(QUEUE), QUEUE)
    inbox.outage = Transient("no route")
    failed = threading.Event()

    def backoff(failures: int) -> float:
        failed.set()
        return 3600.0

    thread = InboxThread(inbox, Waiters(), poll_seconds=0.02, backoff=backoff)
    thread.start()
    assert failed.wait(5)
    assert thread.stop(5)


def test_waiters_give_up_ends_every_wait() -> None:
    """Also one that begins later."""
    waiters = Waiters()
    with waiters.expecting(uuid4()) as waiter:
        waiters.give_up()
        assert waiter.wait(5) is None
    with waiters.expecting(uuid4()) as waiter:
        assert waiter.wait(5) is None
    assert waiters.given_up
