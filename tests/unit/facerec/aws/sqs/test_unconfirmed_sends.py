"""Sending to SQS through something that answers 200 for it: what is not confirmed is not taken for sent."""

from collections.abc import Callable
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders

from facerec.aws.sqs.dead_letter_queue import SqsBodySender, SqsDeadLetterQueue, SqsDeadLetters
from facerec.aws.sqs.queue import GroupSends, QueueUrls, SqsTaskTail
from facerec.celery_sqs.events.queue import SqsEventQueue
from facerec.celery_sqs.in_flight import BrokerClient
from facerec.errors import Transient

NOW = datetime(2026, 1, 2, tzinfo=UTC)


class Raw(BytesIO):
    """A body as urllib3 hands it over."""

    def stream(self, **_: Any) -> Any:
        """All of it."""
        yield self.read()


class Answers:
    """Answers every call with 200, without a socket: `body`, or that of its operation in `bodies`."""

    def __init__(self, body: bytes = b"", **bodies: bytes) -> None:
        self._body = body
        self._bodies = {"GetQueueUrl": b'{"QueueUrl": "http://sqs/queue"}'} | bodies
        self.calls: list[str] = []

    def __call__(self, request: Any, **_: Any) -> Any:
        """As botocore's hook."""
        operation = request.headers["X-Amz-Target"].decode().rsplit(".", 1)[-1]
        self.calls.append(operation)
        return AWSResponse(request.url, 200, HTTPHeaders(), Raw(self._bodies.get(operation, self._body)))


def clients(answers: Answers) -> Any:
    """Of which every call gets these answers."""
    sqs = boto3.Session("id", "secret", region_name="us-east-1").client("sqs")
    sqs.meta.events.register("before-send.sqs", answers)
    return BrokerClient(sqs)


@pytest.mark.parametrize("page", [b"", b"<html>Sign in</html>"])
@pytest.mark.parametrize(
    "send",
    [
        lambda clients: SqsDeadLetters(clients, "q").put("body", reason="r", request_id="i", failed_at=NOW),
        lambda clients: SqsBodySender(clients, "q").send("body"),
        lambda clients: SqsTaskTail(clients, "q").send("body", 0),
        lambda clients: SqsEventQueue(clients, "q").send("body"),
        lambda clients: GroupSends(clients, QueueUrls(clients)).send("q", "body"),
    ],
    ids=["dead letters", "redrive", "tail", "events", "results"],
)
def test_a_page_is_no_confirmation(send: Callable[[Any], None], page: bytes) -> None:
    """The original would be deleted, and the message lost."""
    with pytest.raises(Transient, match="has not confirmed"):
        send(clients(Answers(page)))


def test_one_fault_hides_no_other_dead_letters() -> None:
    """Every batch is tried, and the fault is told at the end."""
    answers = Answers(
        ChangeMessageVisibilityBatch=b'{"Failed": [{"Id": "0", "Code": "InternalError", "SenderFault": false}]}'
    )
    queue = SqsDeadLetterQueue(clients(answers), "q")
    with pytest.raises(Transient, match="1 messages of queue 'q' stay hidden"), queue.look():
        queue._held.update((str(number), "receipt") for number in range(21))
    assert answers.calls.count("ChangeMessageVisibilityBatch") == 3


def test_what_has_gone_need_not_be_given_back() -> None:
    """Somebody else has deleted it meanwhile, or it is visible again."""
    gone = b'{"Failed": [{"Id": "0", "Code": "ReceiptHandleIsInvalid", "SenderFault": true}]}'
    queue = SqsDeadLetterQueue(clients(Answers(ChangeMessageVisibilityBatch=gone)), "q")
    with queue.look():
        queue._held["a"] = "receipt"
