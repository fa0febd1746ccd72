"""Each message of a batch is processed, or reported once; nothing of it affects its neighbours."""

import threading
from typing import Any
from uuid import UUID

import pytest

from facerec.celery_sqs.received_task import task_id
from facerec.delivery.stale_tasks import Requeued
from facerec.errors import ConfigurationError, EngineFailure, Transient
from facerec.serverless.batch import Messages
from facerec.serverless.invocation import Invocation
from tests.fakes.functions import Context, DetectionTier, InvokingQueue, request_for, sqs_record
from tests.support.logs import capture_logs


class World:
    """A detection function between fakes."""

    def __init__(self) -> None:
        self.tier, self.queue = DetectionTier(), InvokingQueue()
        self.messages = Messages(self.queue, task_id, self.tier.driver, max_receives=4, jitter=lambda: 0)

    def invoke(self, *records: Any, seconds: float = 15) -> list[str]:
        """Returns the message ids that were reported as failed."""
        self.invocation = Invocation(Context(seconds))
        response = self.messages.answer({"Records": list(records)}, self.invocation)
        return [failure["itemIdentifier"] for failure in response["batchItemFailures"]]

    def photo(self, number: int, filename: str = "jane.jpg", attempt: int = 1) -> dict[str, Any]:
        """The record of a request."""
        return sqs_record(number, request_for(filename, UUID(int=number)), attempt)


@pytest.fixture
def world() -> World:
    """One of its own for each test."""
    return World()


def test_batch_is_processed_and_nothing_is_reported(world: World) -> None:
    """Each delivery has the attempt that SQS counts."""
    assert world.invoke(*(world.photo(number, attempt=number % 3 + 1) for number in range(10))) == []
    seen = {request.request_id.int: attempt for request, attempt in world.tier.half.seen}
    assert seen == {number: number % 3 + 1 for number in range(10)}
    assert [record.outcome for record in world.invocation.records] == ["forwarded"] * 10
    assert world.queue.waits == {}


def test_batch_is_processed_at_once(world: World) -> None:
    """The reads of the store overlap: every photo is held until all have come."""
    together = threading.Barrier(10, timeout=10)
    run = world.tier.half.run
    world.tier.half.run = lambda *args: (together.wait(), run(*args))[1]  # type: ignore[method-assign]
    assert world.invoke(*map(world.photo, range(10))) == []


@pytest.mark.parametrize(("attempt", "wait"), [(1, 5), (2, 15), (3, 45)])
def test_failed_message_is_reported_and_comes_back_soon(world: World, attempt: int, wait: int) -> None:
    """Its neighbours are deleted; the queue's own timeout would hide it for 90 s."""
    world.tier.half.raised["down"] = ConfigurationError("no access")
    assert world.invoke(world.photo(1), world.photo(2, "down.jpg", attempt), world.photo(3)) == ["message-2"]
    assert world.queue.waits == {"receipt-2": wait}


def test_culprit_is_dead_lettered_and_not_reported(world: World) -> None:
    """One picture of ten makes the engine fail: it has a reason, its client an answer, and nine are processed."""
    world.tier.half.raised["poison"] = EngineFailure("the engine crashed on this picture, again when it was alone")
    assert world.invoke(*(world.photo(number, "poison.jpg" if number == 4 else "a.jpg") for number in range(10))) == []
    (reason,) = world.tier.reasons()
    assert "crashed" in reason
    assert len(world.tier.half.failed) == 1
    assert [record.outcome for record in world.invocation.records].count("forwarded") == 9


@pytest.mark.parametrize("body", ["", "no json", "{}", '{"Records": [{"eventSource": "aws:s3"}]}', "e30="])
def test_message_that_is_no_task_is_dead_lettered(world: World, body: str) -> None:
    """With the reason."""
    assert world.invoke(sqs_record(1, body), world.photo(2)) == []
    (reason,) = world.tier.reasons()
    assert "not a task" in reason


@pytest.mark.parametrize(
    "change",
    [
        {"body": None},
        {"body": 5},
        {"eventSource": "aws:sns"},
        {"attributes": None},
        {"attributes": {"ApproximateReceiveCount": "many"}},
    ],
)
def test_unreadable_record_is_reported_and_fails_no_other(world: World, change: dict[str, Any]) -> None:
    """SQS moves it to the dead-letter queue after its last delivery."""
    with capture_logs() as logs:
        assert world.invoke(sqs_record(1, "") | change, world.photo(2)) == ["message-1"]
    assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == ["record_unreadable"]
    assert len(world.tier.half.seen) == 1


def test_record_without_an_id_fails_the_batch(world: World) -> None:
    """An empty identifier makes Lambda keep all of its messages: nothing is lost."""
    record = world.photo(1, "down.jpg")
    del record["messageId"]
    world.tier.half.raised["down"] = ConfigurationError("no access")
    assert world.invoke(record, world.photo(2)) == [""]


def test_unfinished_message_is_reported_before_the_time_is_over(world: World) -> None:
    """It comes back at once, and its neighbour is deleted."""
    with capture_logs() as logs:
        assert world.invoke(world.photo(1, "hold.jpg"), world.photo(2), seconds=1.6) == ["message-1"]
    world.tier.half.held.set()
    assert world.queue.waits == {"receipt-1": 1}
    assert world.invocation.unfinished == 1
    (line,) = [entry for entry in logs if entry["event"] == "delivery_unfinished"]
    assert (line["request_id"], line["attempt"]) == (str(UUID(int=1)), 1)


def test_unfinished_message_of_the_last_delivery_is_dead_lettered(world: World) -> None:
    """SQS would move it without a reason, and its client would wait in vain."""
    assert world.invoke(world.photo(1, "hold.jpg", attempt=4), seconds=1.6) == []
    world.tier.half.held.set()
    (reason,) = world.tier.reasons()
    assert "time limit of the function" in reason
    assert len(world.tier.half.failed) == 1


def test_unfinished_message_cannot_fail_after_its_invocation(world: World) -> None:
    """A frozen process continues after the engine's time limit; the photo is not to blame, and is delivered again."""
    world.tier.half.raised["hold"] = EngineFailure("the engine exceeded 5 s on this picture, again when it was alone")
    assert world.invoke(world.photo(1, "hold.jpg"), seconds=1.6) == ["message-1"]
    world.invocation.end()
    world.tier.half.held.set()
    for thread in threading.enumerate():
        if thread.name == "delivery":
            thread.join(10)
    assert [record.outcome for record in world.invocation.records] == ["redelivered"]
    assert (world.tier.reasons(), world.tier.half.failed) == ([], [])


def test_outage_ends_with_the_time_of_the_invocation(world: World) -> None:
    """A retry that waits does not hold up the report."""
    world.tier.half.raised["down"] = Transient("down")
    world.tier.half.with_ports = lambda wrap: wrap(world.tier.half)  # type: ignore[method-assign]
    assert world.invoke(world.photo(1, "down.jpg"), world.photo(2), seconds=2) == ["message-1"]
    assert world.queue.waits["receipt-1"] in {1, 5}


def test_message_in_two_records_is_reported_once(world: World) -> None:
    """SQS may deliver a message twice."""
    world.tier.half.raised["down"] = ConfigurationError("no access")
    first = world.photo(1, "down.jpg")
    assert world.invoke(first, first | {"receiptHandle": "receipt-2"}) == ["message-1"]


def test_requeued_message_is_deleted(world: World) -> None:
    """It was sent again, behind the others."""
    world.tier.half.raised["late"] = Requeued("its client has gone")
    assert world.invoke(world.photo(1, "late.jpg")) == []


def test_unexpected_error_is_logged_with_its_traceback(world: World) -> None:
    """And the message comes back."""
    world.tier.half.raised["bug"] = RuntimeError("a bug")
    with capture_logs() as logs:
        assert world.invoke(world.photo(1, "bug.jpg")) == ["message-1"]
    (line,) = [entry for entry in logs if entry["event"] == "delivery_failed"]
    assert str(line["exc_info"]) == "a bug"


def test_message_is_reported_if_its_wait_cannot_be_set(world: World) -> None:
    """It comes back after the queue's visibility timeout."""
    world.tier.half.raised["down"], world.queue.outage = ConfigurationError("no access"), Transient("throttled")
    assert world.invoke(world.photo(1, "down.jpg")) == ["message-1"]
