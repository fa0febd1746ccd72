"""Sending the messages of many threads together."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, cast

import pytest
from botocore.exceptions import ClientError

from facerec.aws.sqs.results import SendBatcher
from facerec.errors import ConfigurationError, QueueMissing, Refused, Throttled, Transient
from facerec.settings.resources import SQS_MESSAGE_BYTES


class Sqs:
    """Notes what is sent; a call waits until `open` is set. `failing` maps a body to the entry that refuses it."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.called = threading.Semaphore(0)
        self.open = threading.Event()
        self.failing: dict[str, dict[str, Any]] = {}
        self.error: Exception | None = None
        self.refuses: Callable[[list[str]], str | None] = lambda _: None

    def get_queue_url(self, QueueName: str) -> dict[str, str]:  # noqa: N803 - boto3's
        return {"QueueUrl": f"http://{QueueName}"}

    def send_message_batch(self, QueueUrl: str, Entries: list[dict[str, str]]) -> dict[str, Any]:  # noqa: N803 - boto3's
        self.calls.append([entry["MessageBody"] for entry in Entries])
        self.called.release()
        assert self.open.wait(30)
        if self.error is not None:
            raise self.error
        if code := self.refuses(self.calls[-1]):
            answer: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": 400}}
            raise ClientError(answer, "SendMessageBatch")
        refused = [entry for entry in Entries if entry["MessageBody"] in self.failing]
        return {
            "Successful": [{"Id": entry["Id"], "MessageId": entry["Id"]} for entry in Entries if entry not in refused],
            "Failed": [{"Id": entry["Id"], **self.failing[entry["MessageBody"]]} for entry in refused],
        }


@pytest.fixture
def sqs() -> Sqs:
    """A queue's client that answers."""
    made = Sqs()
    made.open.set()
    return made


@pytest.fixture
def sends(sqs: Sqs) -> SendBatcher:
    """Those under test."""
    return SendBatcher(cast("Any", sqs))


def meanwhile(sqs: Sqs, sends: SendBatcher, bodies: list[str], then: Callable[[], None]) -> "list[Future[None]]":
    """Send `bodies` while a first message is on its way; returns how each of them ended."""
    sqs.open.clear()
    with ThreadPoolExecutor(len(bodies) + 1) as pool:
        pool.submit(sends.send, "queue", "first")
        assert sqs.called.acquire(timeout=30)
        ended = [pool.submit(sends.send, "queue", body) for body in bodies]
        while len(sends._messages._waiting) < len(bodies):
            threading.Event().wait(0.001)
        then()
        sqs.open.set()
    return ended


def test_lone_message_goes_at_once(sqs: Sqs, sends: SendBatcher) -> None:
    """An idle system answers without delay."""
    sends.send("queue", "a")
    assert sqs.calls == [["a"]]


def test_messages_during_a_call_go_together(sqs: Sqs, sends: SendBatcher) -> None:
    """Ten at most, and every sender returns."""
    bodies = [f"{number:02}" for number in range(12)]
    ended = meanwhile(sqs, sends, bodies, then=lambda: None)
    assert [one.result() for one in ended] == [None] * 12
    assert [len(call) for call in sqs.calls] == [1, 10, 2]
    assert sorted(body for call in sqs.calls for body in call) == [*bodies, "first"]


def test_batch_keeps_the_limit_of_bytes(sqs: Sqs, sends: SendBatcher) -> None:
    """Three large results do not go as one message too large."""
    meanwhile(sqs, sends, ["a" * (SQS_MESSAGE_BYTES // 2)] * 3, then=lambda: None)
    assert [len(call) for call in sqs.calls] == [1, 2, 1]


@pytest.mark.parametrize(
    ("code", "sender_fault", "error"),
    [
        ("InvalidMessageContents", True, Refused),
        ("InvalidParameterValue", True, Refused),
        ("AccessDenied", True, ConfigurationError),
        ("InternalError", False, Transient),
        ("RequestThrottled", True, Throttled),  # nothing that an operator must change
    ],
)
def test_refused_message_fails_alone(
    sqs: Sqs, sends: SendBatcher, code: str, *, sender_fault: bool, error: type[Exception]
) -> None:
    """Its neighbours are sent."""
    sqs.failing = {"bad": {"Code": code, "SenderFault": sender_fault}}
    good, bad = meanwhile(sqs, sends, ["good", "bad"], then=lambda: None)
    assert good.exception() is None
    assert isinstance(bad.exception(), error)


@pytest.mark.parametrize("code", ["AWS.SimpleQueueService.BatchRequestTooLong", "InvalidMessageContents"])
def test_refused_batch_is_sent_one_by_one(sqs: Sqs, sends: SendBatcher, code: str) -> None:
    """SQS may refuse a whole batch for the sum of its sizes, or for one of its messages."""
    sqs.refuses = lambda bodies: code if len(bodies) > 1 or bodies == ["bad"] else None
    good, bad, other = meanwhile(sqs, sends, ["good", "bad", "other"], then=lambda: None)
    assert good.exception() is None
    assert other.exception() is None
    assert isinstance(bad.exception(), Refused)


def test_failed_call_fails_all_in_it(sqs: Sqs, sends: SendBatcher) -> None:
    """No message counts as sent that was not."""

    def lose_the_queue() -> None:
        sqs.error = ClientError({"Error": {"Code": "QueueDoesNotExist"}}, "SendMessageBatch")

    ended = meanwhile(sqs, sends, ["a", "b"], then=lose_the_queue)
    assert all(isinstance(one.exception(), QueueMissing) for one in ended)
    assert sends._queues == {}  # their names come from clients
