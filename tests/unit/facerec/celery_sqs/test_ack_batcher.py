"""Deleting what is finished, several messages with one call."""

import threading
from typing import Any, cast

import pytest
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError
from structlog.testing import capture_logs

from facerec.celery_sqs.ack_batcher import Deletions

LONG_SECONDS = 600
"""A window that no test waits for."""


class Sqs:
    """Notes what is deleted; refuses the receipts in `refused`, or every call with `fault`."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.refused: set[str] = set()
        self.code = "ReceiptHandleIsInvalid"
        self.fault: Exception | None = None

    def delete_message_batch(self, QueueUrl: str, Entries: list[dict[str, str]]) -> dict[str, Any]:  # noqa: N803 - boto3's
        if self.fault is not None:
            raise self.fault
        self.calls.append([f"{QueueUrl} {entry['ReceiptHandle']}" for entry in Entries])
        refused = [entry["Id"] for entry in Entries if entry["ReceiptHandle"] in self.refused]
        return {"Failed": [{"Id": name, "Code": self.code, "SenderFault": True} for name in refused]}


class Settled:
    """What SQS has answered for, so far."""

    def __init__(self) -> None:
        self.receipts: list[str] = []
        self._changed = threading.Condition()

    def __call__(self, receipt: str) -> None:
        with self._changed:
            self.receipts.append(receipt)
            self._changed.notify_all()

    def wait_for(self, count: int) -> None:
        """Return when that many are settled."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.receipts) >= count, 30)


@pytest.fixture
def sqs() -> Sqs:
    """A queue's client."""
    return Sqs()


@pytest.fixture
def settled() -> Settled:
    """Whom the deletions tell."""
    return Settled()


def deletions(sqs: Sqs, settled: Settled, window_seconds: float) -> Deletions:
    """Those under test."""
    return Deletions(cast("Any", sqs), settled, window_seconds)


def test_a_lone_message_is_deleted_when_the_window_is_over(sqs: Sqs, settled: Settled) -> None:
    """Nobody has to come after it."""
    made = deletions(sqs, settled, 0.001)
    made.add("a", "queue")
    settled.wait_for(1)
    assert sqs.calls == [["queue a"]]
    made.stop()


def test_ten_messages_do_not_wait(sqs: Sqs, settled: Settled) -> None:
    """They go with one call; more would need another one anyway."""
    made = deletions(sqs, settled, LONG_SECONDS)
    for number in range(10):
        made.add(str(number), "queue")
    settled.wait_for(10)
    assert [len(call) for call in sqs.calls] == [10]
    made.stop()


def test_what_waits_is_deleted_at_the_end(sqs: Sqs, settled: Settled) -> None:
    """A worker that stops in good order leaves nothing to be delivered again; each queue has calls of its own."""
    made = deletions(sqs, settled, LONG_SECONDS)
    for receipt, queue in (("a", "one"), ("b", "two"), ("c", "one")):
        made.add(receipt, queue)
    made.stop()
    assert sqs.calls == [["one a", "one c"], ["two b"]]
    assert sorted(settled.receipts) == ["a", "b", "c"]


def test_after_the_end_messages_are_deleted_at_once(sqs: Sqs, settled: Settled) -> None:
    """The last acknowledgement may come late."""
    made = deletions(sqs, settled, LONG_SECONDS)
    made.stop()
    made.add("a", "queue")
    assert settled.receipts == ["a"]


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of no length to speak of."""
    monkeypatch.setattr("facerec.celery_sqs.ack_batcher.pause_seconds", lambda _failures, _luck: 0.001)


@pytest.mark.usefixtures("_impatient")
def test_what_is_throttled_is_tried_again_and_stays_hidden(sqs: Sqs, settled: Settled) -> None:
    """Up to eight times; AWS calls it the sender's fault."""
    sqs.refused, sqs.code = {"b"}, "RequestThrottled"
    made = deletions(sqs, settled, 0.001)
    made.add("b", "queue")
    settled.wait_for(1)
    made.stop()
    assert sqs.calls == [["queue b"]] * 8


def test_a_message_that_is_not_deleted_is_let_go_and_logged(sqs: Sqs, settled: Settled) -> None:
    """It comes back by itself, so it must not be kept hidden for ever."""
    sqs.refused = {"b"}
    made = deletions(sqs, settled, LONG_SECONDS)
    with capture_logs() as logs:
        made.add("a", "queue")
        made.add("b", "queue")
        made.stop()
    assert sorted(settled.receipts) == ["a", "b"]
    assert [(entry["event"], entry["count"]) for entry in logs] == [("messages_not_deleted", 1)]


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize(
    ("fault", "traced"),
    [
        (ClientError({"Error": {"Code": "ServiceUnavailable"}}, "DeleteMessageBatch"), False),
        (ResponseParserError("a proxy's page"), True),  # neither of botocore's two bases
    ],
)
def test_goes_on_after_a_call_that_fails(sqs: Sqs, settled: Settled, fault: Exception, traced: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """No fault ends the thread; it asks again. One that nobody foresaw is logged with its traceback."""
    sqs.fault = fault
    made = deletions(sqs, settled, 0.001)
    with capture_logs() as logs:
        made.add("a", "queue")
        settled.wait_for(1)
    assert {(entry["event"], "exc_info" in entry) for entry in logs} == {("messages_not_deleted", traced)}
    sqs.fault = None
    made.add("b", "queue")
    settled.wait_for(2)
    assert sqs.calls == [["queue b"]]
    made.stop()


def test_what_was_in_a_queue_that_is_gone_is_let_go(sqs: Sqs, settled: Settled) -> None:
    """There is nothing left to delete."""
    sqs.fault = ClientError({"Error": {"Code": "AWS.SimpleQueueService.NonExistentQueue"}}, "DeleteMessageBatch")
    made = deletions(sqs, settled, 0.001)
    made.add("a", "queue")
    settled.wait_for(1)
    made.stop()
