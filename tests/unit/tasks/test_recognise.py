"""How a task that failed ends in Celery and in Flower."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from celery.concurrency.thread import TaskPool
from celery.exceptions import Reject

from facerec.delivery.driver import DeliveryRecord
from facerec.errors import Transient
from facerec.messages import Outcome, RecognitionResult
from tasks.recognise import DeadLettered, Request, recognise


class Eventer:
    """Keeps the events for Flower."""

    enabled = True

    def __init__(self, happened: list[str]) -> None:
        self._happened = happened

    def send(self, type: str, **fields: Any) -> None:  # noqa: A002 - Celery's name
        """Keep an event."""
        self._happened.append(f"{type} {fields['exception']}" if "exception" in fields else type)


def request_of(happened: list[str]) -> Any:
    """A task's request, which keeps what happens to its message."""
    return Request(
        SimpleNamespace(delivery_info={}, properties={}),
        on_ack=lambda *_: happened.append("deleted"),
        on_reject=lambda *_: happened.append("given back"),
        eventer=Eventer(happened),
        app=recognise.app,
        task=recognise,
        headers={"id": "u", "task": recognise.name},
        body=([], {}, {}),
        decoded=True,
    )


def ended(exc: BaseException) -> list[str]:
    """What happens when the task ends with this exception, in order."""
    happened: list[str] = []
    request_of(happened).on_failure(SimpleNamespace(exception=exc, traceback="…", exc_info=None), return_ok=True)
    return happened


def test_dead_lettered_task_is_deleted_and_shown_as_failed() -> None:
    """Flower shows the reason."""
    assert ended(DeadLettered("no request")) == ["deleted", "task-failed DeadLettered('no request')"]


@pytest.mark.parametrize("exc", [Transient("away"), RuntimeError("a bug")])
def test_redelivered_task_is_shown_as_retried(exc: Exception) -> None:
    """The event comes last, so Flower keeps showing this state."""
    assert ended(exc) == ["given back", "task-rejected", f"task-retried {exc!r}"]


def test_out_of_memory_gives_the_message_back() -> None:
    """Celery alone would neither delete the message nor give it back."""
    assert ended(MemoryError())[:2] == ["given back", "task-rejected"]


def test_rejected_task_is_no_failure() -> None:
    """Celery settles the message itself."""
    assert ended(Reject("interrupted", requeue=True)) == ["given back", "task-rejected"]


def test_cold_shutdown_lets_the_task_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an error in the signal handler; a task that waits for an outage to end gives its message back."""
    happened: list[str] = []
    monkeypatch.setattr(recognise, "worker", SimpleNamespace(leave=lambda: happened.append("left")))
    request = request_of(happened)
    request.time_start = 1.0
    request.cancel(TaskPool(1), emit_retry=False)
    assert happened == ["left"]


@pytest.mark.parametrize(("operation", "shown"), [("recognise", "match"), ("enrol", "enrol: match")])
def test_return_value_says_what_was_done(monkeypatch: pytest.MonkeyPatch, operation: str, shown: str) -> None:
    """Flower shows it."""
    record = DeliveryRecord(1, Outcome.MATCH)
    record.result = RecognitionResult(
        request_id=uuid4(),
        result="",
        filename="a.jpg",
        outcome=Outcome.MATCH,
        operation=operation,
        completed_at=datetime.now(UTC),
    )
    monkeypatch.setattr(recognise, "worker", SimpleNamespace(handle=lambda _: record))
    message = {"Body": "{}", "Attributes": {"ApproximateReceiveCount": "1"}}
    recognise.push_request(properties={"delivery_info": {"argument": {}, "sqs_message": message}})
    try:
        assert recognise.run() == shown
    finally:
        recognise.pop_request()
