"""Sending to SQS through something that answers 200 for it: what is not confirmed is not taken for sent."""

from collections.abc import Callable
from datetime import UTC, datetime
from io import BytesIO
from types import SimpleNamespace
from typing import Any, cast

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders

from facerec.aws.clients import aws_session
from facerec.aws.sqs.dead_letter_queue import SqsDeadLetterReader, SqsDeadLetterWriter
from facerec.aws.sqs.queue import SqsQueue
from facerec.aws.sqs.results import SendBatcher
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


def client(answers: Answers) -> Any:
    """A client of SQS whose calls get these answers."""
    sqs = boto3.Session("id", "secret", region_name="us-east-1").client("sqs")
    sqs.meta.events.register("before-send.sqs", answers)
    return sqs


@pytest.mark.parametrize("page", [b"", b"<html>Sign in</html>"])
@pytest.mark.parametrize(
    "send",
    [
        lambda sqs: SqsQueue(sqs, "q").send("body"),
        lambda sqs: SendBatcher(sqs).send("q", "body"),
        lambda sqs: SqsDeadLetterWriter(SqsQueue(sqs, "q")).put("body", reason="r", request_id="i", failed_at=NOW),
    ],
    ids=["send", "batch", "dead letters"],
)
def test_page_is_no_confirmation(send: Callable[[Any], None], page: bytes) -> None:
    """The original would be deleted, and the message lost."""
    with pytest.raises(Transient, match="has not confirmed"):
        send(client(Answers(page)))


def test_page_is_no_empty_receive() -> None:
    """The next receive waits, instead of following at once."""
    sqs = aws_session("us-east-1").client("sqs", aws_access_key_id="id", aws_secret_access_key="secret")
    sqs.meta.events.register("before-send.sqs", Answers(b"<html>Sign in</html>"))
    with pytest.raises(Transient, match="does a proxy answer"):
        SqsQueue(sqs, "q").receive(wait_seconds=0)


def dead_letter_queue(answers: Answers) -> SqsDeadLetterReader:
    """The reader of a dead-letter queue whose calls get these answers."""
    return SqsDeadLetterReader(cast("Any", SimpleNamespace(sqs=client(answers))), "q")


def test_fault_in_one_batch_hides_no_other_dead_letters() -> None:
    """Every batch is tried, and the fault is raised at the end."""
    answers = Answers(
        ChangeMessageVisibilityBatch=b'{"Failed": [{"Id": "0", "Code": "InternalError", "SenderFault": false}]}'
    )
    queue = dead_letter_queue(answers)
    with pytest.raises(Transient, match="3 messages of queue 'q' stay hidden"), queue.look():
        queue._held.update((str(number), "receipt") for number in range(21))
    assert answers.calls.count("ChangeMessageVisibilityBatch") == 3


def test_deleted_message_need_not_be_given_back() -> None:
    """Somebody else has deleted it meanwhile, or it is visible again."""
    gone = b'{"Failed": [{"Id": "0", "Code": "ReceiptHandleIsInvalid", "SenderFault": true}]}'
    queue = dead_letter_queue(Answers(ChangeMessageVisibilityBatch=gone))
    with queue.look():
        queue._held["a"] = "receipt"
