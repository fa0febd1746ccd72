"""What a web process does for its waiting uploads when a queue was lost."""

import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime

import pytest

from facerec.errors import FacerecError, QueueMissing, Refused, Transient
from facerec.message_base import ObjectRef
from facerec.messages import RecognitionRequest
from facerec.object_keys import output_key
from facerec.web.inbox import InboxThread, Waiter, Waiters
from facerec.web.recovery import LOOK_SECONDS, RESULTS_PER_LOOK, SELDOM_SECONDS, Recovery
from tests.fakes.object_store import InMemoryObjectStore
from tests.fakes.results import InMemoryQueues, InMemoryResultInbox
from tests.fakes.task_queue import InMemoryTaskQueue
from tests.fakes.web_tier import result_for
from tests.support.logs import capture_logs


class Tier:
    """A web process's waits, and an AWS that loses queues."""

    def __init__(self) -> None:
        self.now = 100.0
        self.waiters = Waiters(lambda: self.now)
        self.tasks = InMemoryTaskQueue()
        self.store = InMemoryObjectStore()
        self.made_at: str | FacerecError = "1"
        self.inbox = InboxThread(
            InMemoryResultInbox(InMemoryQueues("q"), "q"), self.waiters, poll_seconds=0, clock=lambda: self.now
        )
        self.inbox.check = self._check  # type: ignore[method-assign]  # as if its thread ran
        self.inbox_problem: str | None = None
        self.recovery = Recovery(
            self.waiters,
            self.inbox,
            queue=self.tasks,
            made_at=self._made_at,
            store=self.store,
            output_bucket="out",
            clock=lambda: self.now,
        )

    def _check(self) -> None:
        if self.inbox_problem is not None:
            raise FacerecError(self.inbox_problem)

    def _made_at(self) -> str:
        if isinstance(self.made_at, FacerecError):
            raise self.made_at
        return self.made_at

    @contextmanager
    def waiting(self) -> Iterator[Waiter]:
        """An upload whose task has been sent."""
        request_id = uuid.uuid4()
        with self.waiters.expecting(request_id) as waiter:
            waiter.request = RecognitionRequest(
                request_id=request_id,
                input=ObjectRef(bucket="in", key="k", size=1),
                filename="a.jpg",
                submitted_at=datetime.now(UTC),
            )
            yield waiter

    def finish(self, waiter: Waiter) -> None:
        """Store its result, whose message gets lost."""
        assert waiter.request is not None
        key = output_key(waiter.request_id, waiter.request.filename)
        self.store.put("out", key, result_for(waiter.request, "Jane").to_json().encode(), "application/json")

    def look(self, *, after: float = LOOK_SECONDS) -> None:
        """Let time pass, and look."""
        self.now += after
        self.recovery.look()


@pytest.fixture
def tier() -> Tier:
    """A tier that has looked at its queue once."""
    tier = Tier()
    with tier.waiting():
        tier.recovery.look()
    return tier


def test_recovery_sends_the_tasks_of_a_recreated_queue_again(tier: Tier) -> None:
    """Once each, and only those of uploads that still wait."""
    with tier.waiting() as first, tier.waiting() as second, tier.waiters.expecting(uuid.uuid4()):
        tier.look()
        assert tier.tasks.requests == []
        tier.made_at = "2"
        tier.look()
        assert tier.tasks.requests == [first.request, second.request]
        tier.look()
        assert len(tier.tasks.requests) == 2


def test_recovery_takes_a_queue_that_was_missing_for_a_recreated_one(tier: Tier) -> None:
    """Its creation time may be the same; nothing is sent before it is back, and each event is logged once."""
    with capture_logs() as logs, tier.waiting() as waiter:
        tier.made_at = QueueMissing("q")
        tier.look()
        tier.look()
        assert tier.tasks.requests == []
        tier.made_at = "1"
        tier.look()
        assert tier.tasks.requests == [waiter.request]
    assert [line["event"] for line in logs] == ["request_queue_missing", "request_queue_recreated", "task_sent_again"]


def test_recovery_tries_a_failed_send_again(tier: Tier) -> None:
    """At the next look, and the log has one line for all of them."""
    with capture_logs() as logs, tier.waiting() as waiter:
        tier.made_at, tier.tasks.outage = "2", Transient("no")
        tier.look()
        tier.look()
        tier.tasks.outage = None
        tier.look()
        assert tier.tasks.requests == [waiter.request]
    assert [line["event"] for line in logs].count("recovery_unreachable") == 1


def test_recovery_goes_on_after_a_task_that_sqs_refuses(tier: Tier) -> None:
    """As one that is longer than the new queue allows: the tasks of the other uploads are sent."""

    def refuse_first(request: RecognitionRequest) -> None:
        if request == first.request:
            raise Refused("too long")

    tier.tasks.worker = refuse_first
    with capture_logs() as logs, tier.waiting() as first, tier.waiting():
        tier.made_at = "2"
        tier.look()
        tier.look()
    assert [line["event"] for line in logs] == ["request_queue_recreated", "task_refused", "task_sent_again"]


def test_recovery_does_not_take_an_outage_for_a_recreated_queue(tier: Tier) -> None:
    """Nothing is lost when SQS cannot be reached."""
    with tier.waiting():
        tier.made_at = Transient("no")
        tier.look()
        tier.made_at = "1"
        tier.look()
    assert tier.tasks.requests == []


def test_recovery_makes_no_calls_while_no_upload_waits(tier: Tier) -> None:
    """Each look is a paid call."""
    tier.made_at = Transient("would be told")
    with capture_logs() as logs:
        tier.look()
    assert logs == []


def test_recovery_looks_up_results_after_an_outage_of_the_inbox(tier: Tier) -> None:
    """At once, for every waiting upload: their messages may be lost."""
    with tier.waiting() as waiter:
        tier.finish(waiter)
        tier.look(after=0.1)
        assert waiter.wait(0) is None
        tier.inbox._outages_ended += 1
        tier.look(after=0.1)
        result = waiter.wait(0)
        assert result is not None
        assert result.result == "Jane"


def test_recovery_looks_up_results_while_the_inbox_does_not_work(tier: Tier) -> None:
    """Its queue may not come back at all."""
    with tier.waiting() as waiter:
        tier.finish(waiter)
        tier.inbox_problem = "there is no queue"
        tier.look()
        assert waiter.wait(0) is not None


def test_recovery_finds_the_result_of_a_lost_message(tier: Tier) -> None:
    """Without a sign of a loss results are looked up seldom; a result that is not there yet is no error."""
    with capture_logs() as logs, tier.waiting() as waiter:
        tier.look(after=SELDOM_SECONDS)
        tier.finish(waiter)
        tier.look(after=SELDOM_SECONDS - 1)
        assert waiter.wait(0) is None
        tier.look(after=1)
        assert waiter.wait(0) is not None
    assert [line["event"] for line in logs] == ["result_found_in_the_store"]


def test_recovery_looks_up_many_results_in_turns(tier: Tier) -> None:
    """One look is limited; the next one goes on where it ended."""
    with ExitStack() as all_of_them:
        waiters = [all_of_them.enter_context(tier.waiting()) for _ in range(RESULTS_PER_LOOK + 5)]
        for waiter in waiters:
            tier.finish(waiter)
        tier.inbox._outages_ended += 1
        tier.look(after=0)
        assert sum(waiter.wait(0) is not None for waiter in waiters) == RESULTS_PER_LOOK
        tier.look(after=0)
        assert all(waiter.wait(0) is not None for waiter in waiters)


def test_recovery_sends_tasks_while_the_store_is_unreachable(tier: Tier) -> None:
    """A failed step does not stop the others."""
    with tier.waiting() as waiter:
        tier.made_at, tier.store.outage = "2", Transient("no")
        tier.look(after=SELDOM_SECONDS)
        assert tier.tasks.requests == [waiter.request]
        tier.store.outage = None
        tier.finish(waiter)
        tier.look(after=SELDOM_SECONDS)
        assert waiter.wait(0) is not None
