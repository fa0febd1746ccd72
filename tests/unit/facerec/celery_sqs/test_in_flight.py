"""Messages in flight, against an SQS that only takes notes."""

import threading
from collections.abc import Iterator
from datetime import datetime
from typing import Any, cast
from unittest.mock import Mock

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from botocore.parsers import ResponseParserError

from facerec.aws.sqs.queue import SqsQueue
from facerec.celery_sqs import in_flight
from facerec.celery_sqs.in_flight import InFlightMessage, InFlightMessages, redelivery_seconds
from facerec.errors import ConfigurationError, QueueMissing, Transient
from facerec.processes.addresses import poll_until
from tests.support.logs import capture_logs

TIMEOUT_SECONDS = 3000
"""So long that the thread extends nothing by itself."""


class Sqs:
    """Notes calls by queue and receipts; refuses the receipts in `refused`, or every call with `fault`."""

    def __init__(self) -> None:
        self.deletes: list[tuple[str, list[str]]] = []
        self.changes: list[tuple[str, list[str], int]] = []
        self.refused: set[str] = set()
        self.code = "ReceiptHandleIsInvalid"
        self.fault: Exception | None = None
        self.called = threading.Event()

    def get_queue_url(self, QueueName: str) -> dict[str, str]:  # noqa: N803 - boto3's
        return {"QueueUrl": QueueName}

    def delete_message_batch(self, QueueUrl: str, Entries: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803 - boto3's
        self.deletes.append((QueueUrl, [entry["ReceiptHandle"] for entry in Entries]))
        return self._reply(Entries)

    def change_message_visibility_batch(self, QueueUrl: str, Entries: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803 - boto3's
        receipts = [entry["ReceiptHandle"] for entry in Entries]
        self.changes.append((QueueUrl, receipts, Entries[0]["VisibilityTimeout"]))
        return self._reply(Entries)

    def _reply(self, entries: list[dict[str, Any]]) -> dict[str, Any]:
        self.called.set()
        if self.fault is not None:
            raise self.fault
        refused = [entry["Id"] for entry in entries if entry["ReceiptHandle"] in self.refused]
        return {"Failed": [{"Id": name, "Code": self.code, "SenderFault": True} for name in refused]}


class DeadLetterWriter:
    """Keeps what is put; raises the `faults` first, one a call."""

    def __init__(self) -> None:
        self.faults: list[Exception] = []
        self.kept: list[tuple[str, str, str]] = []

    def put(self, body: str, *, reason: str, request_id: str, failed_at: datetime) -> None:
        """As the real one."""
        assert failed_at.tzinfo is not None
        if self.faults:
            raise self.faults.pop(0)
        self.kept.append((body, reason, request_id))


class Consumer:
    """Messages in flight with all that they talk to."""

    def __init__(self, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self.sqs = Sqs()
        self.queue = SqsQueue(cast("Any", self.sqs), "queue")
        self.dead_letters = DeadLetterWriter()
        self.other_dead_letters = DeadLetterWriter()
        self.counted = 0
        self.messages = InFlightMessages(
            {"queue": self.dead_letters, "other": self.other_dead_letters},
            visibility_timeout_seconds=cast("int", timeout_seconds),
            max_receives=4,
            dead_lettered=self._count,
        )

    def hold(self, *receipts: str, queue: SqsQueue | None = None, receives: int = 1) -> None:
        """Receive these."""
        for receipt in receipts:
            self.messages.add(InFlightMessage(receipt, queue or self.queue, f"body {receipt}", receives))

    def settled(self) -> bool:
        """Wait until nothing is held."""
        return poll_until(lambda: len(self.messages) == 0, 30)

    def _count(self) -> None:
        self.counted += 1


@pytest.fixture
def consumer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Consumer]:
    """One whose acks wait for a tenth message, or for the end."""
    monkeypatch.setattr(in_flight, "_ACK_WINDOW_SECONDS", 600)
    consumer = Consumer()
    yield consumer
    consumer.messages.stop()


@pytest.fixture
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waits to speak of."""
    monkeypatch.setattr("facerec.background.backoff_seconds", lambda *_: 0.001)
    monkeypatch.setattr(in_flight, "_ACK_WINDOW_SECONDS", 0.001)


@pytest.fixture
def hasty(_hasty: None) -> Iterator[Consumer]:
    """One that acknowledges and tries again at once."""
    consumer = Consumer()
    consumer.messages._acks._backoff = lambda *_: 0.001
    for letters in consumer.messages._letters.values():
        letters._backoff = lambda *_: 0.001
    yield consumer
    consumer.messages.stop()


@pytest.mark.parametrize(("receives", "longest"), [(1, 5), (2, 15), (3, 45), (4, 120), (30, 120)])
def test_redelivery_waits_grow_and_spread(receives: int, longest: int) -> None:
    """From half the wait to the whole, so that tasks that failed together do not come back together."""
    assert redelivery_seconds(receives, 0) == longest
    assert redelivery_seconds(receives, 1) == round(longest / 2)


def test_extension_covers_all_messages(consumer: Consumer) -> None:
    """By the whole timeout, ten messages in a call; released messages are left alone."""
    consumer.hold(*[f"{number:02}" for number in range(24)])
    consumer.messages.release("23")
    consumer.messages.extend()
    assert [(len(receipts), seconds) for _, receipts, seconds in consumer.sqs.changes] == [
        (10, TIMEOUT_SECONDS),
        (10, TIMEOUT_SECONDS),
        (3, TIMEOUT_SECONDS),
    ]


def test_extension_runs_from_the_first_message_on() -> None:
    """Until it is stopped."""
    consumer = Consumer(timeout_seconds=0.03)
    consumer.hold("a")
    assert consumer.sqs.called.wait(5)
    consumer.messages.stop()


def test_extension_that_could_not_start_starts_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process may have as many threads as it is allowed, for a moment."""
    consumer = Consumer(timeout_seconds=0.03)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", Mock(side_effect=RuntimeError("can't start new thread")))
        with pytest.raises(RuntimeError):
            consumer.hold("a")
    assert len(consumer.messages) == 0
    consumer.hold("b")
    assert consumer.sqs.called.wait(10)
    consumer.messages.stop()


def test_extension_releases_messages_with_an_invalid_receipt(consumer: Consumer) -> None:
    """Another consumer has them by now."""
    consumer.sqs.refused = {"a"}
    consumer.hold("a", "b")
    consumer.messages.extend()
    consumer.messages.extend()
    assert [receipts for _, receipts, _ in consumer.sqs.changes] == [["a", "b"], ["b"]]


def test_extension_keeps_throttled_messages(consumer: Consumer) -> None:
    """AWS calls it the sender's fault; the next extension covers them."""
    consumer.sqs.refused, consumer.sqs.code = {"a"}, "RequestThrottled"
    consumer.hold("a")
    consumer.messages.extend()
    assert len(consumer.messages) == 1


@pytest.mark.parametrize(
    "fault", [EndpointConnectionError(endpoint_url="http://nowhere"), ResponseParserError("a page"), KeyError("Failed")]
)
def test_extension_outage_is_logged_and_survived(consumer: Consumer, fault: Exception) -> None:
    """The next extension covers the message."""
    consumer.sqs.fault = fault
    consumer.hold("a")
    with capture_logs() as logs:
        consumer.messages.extend()
    assert [entry["event"] for entry in logs] == ["visibility_not_extended"]
    consumer.sqs.fault = None
    consumer.messages.extend()
    assert len(consumer.sqs.changes) == 2


def test_lone_ack_is_sent_when_the_window_is_over(hasty: Consumer) -> None:
    """No other message has to come after it."""
    hasty.hold("a")
    hasty.messages.ack("a")
    assert hasty.settled()
    assert hasty.sqs.deletes == [("queue", ["a"])]


def test_ten_acks_do_not_wait(consumer: Consumer) -> None:
    """They fill one call."""
    receipts = [str(number) for number in range(10)]
    consumer.hold(*receipts)
    for receipt in receipts:
        consumer.messages.ack(receipt)
    assert consumer.settled()
    assert consumer.sqs.deletes == [("queue", receipts)]


def test_stop_deletes_what_is_finished(consumer: Consumer) -> None:
    """A worker that stops in good order leaves no finished task to be delivered again."""
    consumer.hold("a", "c")
    consumer.hold("b", queue=SqsQueue(cast("Any", consumer.sqs), "other"))
    for receipt in "abc":
        consumer.messages.ack(receipt)
    consumer.messages.stop()
    assert consumer.sqs.deletes == [("queue", ["a", "c"]), ("other", ["b"])]
    assert consumer.sqs.changes == []


def test_stop_gives_back_what_is_not_finished(consumer: Consumer) -> None:
    """Another worker takes over without delay; a late ack changes nothing."""
    consumer.hold("a", "b")
    consumer.messages.stop()
    assert consumer.sqs.changes == [("queue", ["a", "b"], 0)]
    assert len(consumer.messages) == 0
    consumer.messages.ack("a")
    assert consumer.sqs.deletes == []


def test_ack_that_is_throttled_is_tried_again(hasty: Consumer) -> None:
    """The message stays hidden meanwhile."""
    hasty.sqs.refused, hasty.sqs.code = {"b"}, "RequestThrottled"
    hasty.hold("a", "b")
    hasty.messages.ack("a")
    hasty.messages.ack("b")
    assert poll_until(lambda: len(hasty.sqs.deletes) > 3, 30)
    assert len(hasty.messages) == 1
    hasty.sqs.refused = set()
    assert hasty.settled()


def test_ack_that_is_refused_is_released_and_logged(consumer: Consumer) -> None:
    """The message comes back by itself, so it must not stay hidden for ever."""
    consumer.sqs.refused = {"b"}
    consumer.hold("a", "b")
    with capture_logs() as logs:
        consumer.messages.ack("a")
        consumer.messages.ack("b")
        consumer.messages.stop()
    assert [(entry["event"], entry["count"]) for entry in logs] == [("messages_not_deleted", 1)]


@pytest.mark.parametrize(
    "fault",
    [
        ClientError(
            {"Error": {"Code": "ServiceUnavailable"}, "ResponseMetadata": cast("Any", {"HTTPStatusCode": 503})},
            "Delete",
        ),
        ResponseParserError("a page"),
        KeyError("Failed"),
    ],
)
def test_ack_outage_is_logged_once_and_survived(hasty: Consumer, fault: Exception) -> None:
    """No fault ends the thread."""
    hasty.sqs.fault = fault
    with capture_logs() as logs:
        hasty.hold("a")
        hasty.messages.ack("a")
        assert poll_until(lambda: len(hasty.sqs.deletes) > 2, 30)
        hasty.sqs.fault = None
        assert hasty.settled()
        assert poll_until(lambda: len(logs) > 1, 30)
    assert [entry["event"] for entry in logs] == ["acks_unreachable", "acks_reachable_again"]


def test_ack_in_a_queue_that_is_gone_is_released(hasty: Consumer) -> None:
    """There is nothing left to delete."""
    hasty.sqs.fault = ClientError({"Error": {"Code": "AWS.SimpleQueueService.NonExistentQueue"}}, "DeleteMessageBatch")
    hasty.hold("a")
    hasty.messages.ack("a")
    assert hasty.settled()


def test_rejected_message_comes_back_later(consumer: Consumer) -> None:
    """After a wait that grows with its deliveries; it is not held any more."""
    consumer.hold("a", receives=3)
    consumer.messages.reject("a", "request")
    ((_, receipts, seconds),) = consumer.sqs.changes
    assert receipts == ["a"]
    assert 22 <= seconds <= 45
    assert len(consumer.messages) == 0


def test_message_rejected_for_the_last_time_is_a_dead_letter(consumer: Consumer) -> None:
    """SQS would move it, too, but without a reason."""
    consumer.hold("a", receives=4)
    consumer.messages.reject("a", "request")
    consumer.messages.stop()
    ((body, reason, request_id),) = consumer.dead_letters.kept
    assert (body, request_id) == ("body a", "request")
    assert "last delivery" in reason
    assert consumer.sqs.deletes == [("queue", ["a"])]


def test_message_that_cannot_be_given_back_is_not_held(consumer: Consumer) -> None:
    """It comes back by itself when its visibility timeout is over."""
    consumer.sqs.fault = ResponseParserError("a page")
    consumer.hold("a")
    with capture_logs() as logs:
        consumer.messages.requeue("a", 0)
    assert len(consumer.messages) == 0
    assert [entry["event"] for entry in logs] == ["messages_not_given_back"]


def test_dead_letters_are_stored_in_order_then_deleted_and_counted(hasty: Consumer) -> None:
    """The worker's metrics count what never became a task."""
    hasty.hold("0", "1", "2")
    for receipt in "012":
        hasty.messages.dead_letter(receipt, "no task", "")
    assert hasty.settled()
    assert hasty.dead_letters.kept == [(f"body {number}", "no task", "") for number in range(3)]
    assert sorted(receipt for _, receipts in hasty.sqs.deletes for receipt in receipts) == ["0", "1", "2"]
    assert hasty.counted == 3


@pytest.mark.parametrize("fault", [Transient("down"), QueueMissing("dlq"), AttributeError("no dict")])
def test_dead_letter_outage_is_logged_once_and_survived(hasty: Consumer, fault: Exception) -> None:
    """The same message is tried again."""
    hasty.dead_letters.faults = [fault] * 3
    hasty.hold("1")
    with capture_logs() as logs:
        hasty.messages.dead_letter("1", "no task", "")
        assert hasty.settled()
        assert poll_until(lambda: len(logs) > 2, 30)
    assert [entry["event"] for entry in logs] == [
        "dead_letter_queue_unreachable",
        "dead_lettered",
        "dead_letter_queue_reachable_again",
    ]


def test_dead_letters_of_each_queue_go_to_its_own_dead_letter_queue(hasty: Consumer) -> None:
    """An outage of one of them does not keep those of the other."""
    hasty.dead_letters.faults = [Transient("down")] * 1_000_000
    hasty.hold("1")
    hasty.hold("2", queue=SqsQueue(cast("Any", hasty.sqs), "other"))
    hasty.messages.dead_letter("1", "no task", "")
    assert poll_until(lambda: len(hasty.dead_letters.faults) < 1_000_000, 30)
    hasty.messages.dead_letter("2", "no faces", "")
    assert poll_until(lambda: hasty.counted == 1, 30)
    assert hasty.other_dead_letters.kept == [("body 2", "no faces", "")]
    hasty.dead_letters.faults.clear()
    assert hasty.settled()
    assert hasty.dead_letters.kept == [("body 1", "no task", "")]


def test_dead_letter_that_is_refused_is_released(hasty: Consumer) -> None:
    """It may be too large for another queue; those behind it need not wait."""
    hasty.dead_letters.faults = [ConfigurationError("too large")]
    hasty.hold("1", "2")
    hasty.messages.dead_letter("1", "no task", "")
    hasty.messages.dead_letter("2", "no task", "")
    assert hasty.settled()
    assert [body for body, _, _ in hasty.dead_letters.kept] == ["body 2"]
    assert hasty.counted == 1


def test_stop_releases_dead_letters_that_cannot_be_stored(consumer: Consumer) -> None:
    """It does not wait for the dead-letter queue."""
    consumer.dead_letters.faults = [Transient("down")] * 9
    consumer.hold("1", "2")
    consumer.messages.dead_letter("1", "no task", "")
    consumer.messages.dead_letter("2", "no task", "")
    consumer.messages.stop()
    assert len(consumer.messages) == 0
    assert (consumer.sqs.deletes, consumer.sqs.changes) == ([], [])


def test_no_more_than_a_hundred_dead_letters_wait(consumer: Consumer) -> None:
    """A flood of garbage does not fill the memory during an outage; the oldest are left in their queue."""
    consumer.dead_letters.faults = [Transient("down")] * 9
    consumer.hold("first")
    consumer.messages.dead_letter("first", "no task", "")
    assert poll_until(lambda: len(consumer.dead_letters.faults) < 9, 30)
    receipts = [str(number) for number in range(101)]
    consumer.hold(*receipts)
    for receipt in receipts:
        consumer.messages.dead_letter(receipt, "no task", "")
    assert len(consumer.messages) == 101
