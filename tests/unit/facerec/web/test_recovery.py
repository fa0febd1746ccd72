"""What a web process does for its waits when a queue was lost."""

import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime

import pytest
from structlog.testing import capture_logs

from facerec.errors import FacerecError, QueueMissing, Transient
from facerec.messages import ObjectRef, RecognitionRequest
from facerec.object_keys import output_key
from facerec.web.inbox import InboxThread, Waiter, Waiters
from facerec.web.recovery import LOOK_SECONDS, LOOKED_FOR_AT_ONCE, SELDOM_SECONDS, Rescue
from tests.fakes.object_store import InMemoryObjectStore
from tests.fakes.results import InMemoryQueues, InMemoryResultInbox
from tests.fakes.task_queue import InMemoryTaskQueue
from tests.fakes.web_tier import result_for


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
        self.rescue = Rescue(
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
        self.rescue.look()


@pytest.fixture
def tier() -> Tier:
    """A tier that has looked at its queue once."""
    tier = Tier()
    with tier.waiting():
        tier.rescue.look()
    return tier


def test_tasks_of_a_queue_that_was_made_anew_are_sent_again(tier: Tier) -> None:
    """Once each, the same ones, and not those that nobody waits for any more."""
    with tier.waiting() as first, tier.waiting() as second, tier.waiters.expecting(uuid.uuid4()):
        tier.look()
        assert tier.tasks.requests == []
        tier.made_at = "2"
        tier.look()
        assert tier.tasks.requests == [first.request, second.request]
        tier.look()
        assert len(tier.tasks.requests) == 2


def test_a_queue_that_was_missing_was_made_anew(tier: Tier) -> None:
    """Also within the second that tells queues apart; nothing is sent before it is back, and all is told once."""
    with capture_logs() as logs, tier.waiting() as waiter:
        tier.made_at = QueueMissing("q")
        tier.look()
        tier.look()
        assert tier.tasks.requests == []
        tier.made_at = "1"
        tier.look()
        assert tier.tasks.requests == [waiter.request]
    assert [line["event"] for line in logs] == ["request_queue_missing", "request_queue_made_anew", "task_sent_again"]


def test_a_send_that_fails_is_tried_again(tier: Tier) -> None:
    """At the next look, and the log has one line for all of them."""
    with capture_logs() as logs, tier.waiting() as waiter:
        tier.made_at, tier.tasks.outage = "2", Transient("no")
        tier.look()
        tier.look()
        tier.tasks.outage = None
        tier.look()
        assert tier.tasks.requests == [waiter.request]
    assert [line["event"] for line in logs].count("rescue_hindered") == 1


def test_an_outage_is_no_new_queue(tier: Tier) -> None:
    """Nothing is lost when SQS cannot be reached."""
    with tier.waiting():
        tier.made_at = Transient("no")
        tier.look()
        tier.made_at = "1"
        tier.look()
    assert tier.tasks.requests == []


def test_nobody_looks_while_nobody_waits(tier: Tier) -> None:
    """Each look is a paid call."""
    tier.made_at = Transient("would be told")
    with capture_logs() as logs:
        tier.look()
    assert logs == []


def test_results_are_fetched_after_an_outage_of_the_inbox(tier: Tier) -> None:
    """Whoever waits, at once: their messages may be lost."""
    with tier.waiting() as waiter:
        tier.finish(waiter)
        tier.look(after=0.1)
        assert waiter.wait(0) is None
        tier.inbox._recoveries += 1
        tier.look(after=0.1)
        result = waiter.wait(0)
        assert result is not None
        assert result.result == "Jane"


def test_results_are_fetched_while_the_inbox_does_not_work(tier: Tier) -> None:
    """Its queue may not come back at all."""
    with tier.waiting() as waiter:
        tier.finish(waiter)
        tier.inbox_problem = "there is no queue"
        tier.look()
        assert waiter.wait(0) is not None


def test_a_lost_message_costs_seconds(tier: Tier) -> None:
    """Without any sign of a loss a result is looked for as well, but seldom; one that is not there yet is no error."""
    with capture_logs() as logs, tier.waiting() as waiter:
        tier.look(after=SELDOM_SECONDS)
        tier.finish(waiter)
        tier.look(after=SELDOM_SECONDS - 1)
        assert waiter.wait(0) is None
        tier.look(after=1)
        assert waiter.wait(0) is not None
    assert [line["event"] for line in logs] == ["result_found_in_the_store"]


def test_many_waits_are_looked_for_in_turns(tier: Tier) -> None:
    """One look has its limit; the next one goes on where it ended."""
    with ExitStack() as all_of_them:
        waiters = [all_of_them.enter_context(tier.waiting()) for _ in range(LOOKED_FOR_AT_ONCE + 5)]
        for waiter in waiters:
            tier.finish(waiter)
        tier.inbox._recoveries += 1
        tier.look(after=0)
        assert sum(waiter.wait(0) is not None for waiter in waiters) == LOOKED_FOR_AT_ONCE
        tier.look(after=0)
        assert all(waiter.wait(0) is not None for waiter in waiters)


def test_an_unreachable_store_hinders_nothing_else(tier: Tier) -> None:
    """Tasks are sent again all the same."""
    with tier.waiting() as waiter:
        tier.made_at, tier.store.outage = "2", Transient("no")
        tier.look(after=SELDOM_SECONDS)
        assert tier.tasks.requests == [waiter.request]
        tier.store.outage = None
        tier.finish(waiter)
        tier.look(after=SELDOM_SECONDS)
        assert waiter.wait(0) is not None
