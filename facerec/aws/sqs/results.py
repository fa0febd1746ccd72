"""Results over SQS: the workers' sending end and the web tier's receiving end."""

import re
from collections.abc import Sequence

import structlog

from facerec.aws.clients import Clients
from facerec.aws.sqs.queue import MAX_MESSAGE_BYTES, GroupSends, QueueUrls
from facerec.errors import InvalidMessage, QueueMissing
from facerec.messages import RecognitionResult
from facerec.ports import Delivery

log = structlog.get_logger(__name__)

RECEIVE_AT_ONCE = 10
LONGEST_POLL_SECONDS = 20
"""SQS's limits of a receive and of a batch, and of a long poll."""
_HIDDEN_SECONDS = 5
"""How long a result stays hidden that was received: long enough to be deleted. Where the answer to a receive is lost on
its way, the clients of its results wait that long, not SQS's 30 s."""


class SqsResultPublisher:
    """`ResultPublisher` on SQS; answers only to the response queue and to those that web processes derive from it.

    The name of the queue comes with the request, so it is not trusted: any other name is as good as missing.
    A result beyond 256 KiB (some 250 faces) travels with its first faces only, which decide the reply; the stored
    result has them all.
    """

    def __init__(self, clients: Clients, response_queue: str) -> None:
        self._ours = re.compile(rf"{re.escape(response_queue)}(-[A-Za-z0-9_-]+)?")
        self._urls = QueueUrls(clients)
        self._sends = GroupSends(clients, self._urls)

    def publish(self, reply_to: str, result: RecognitionResult) -> None:
        """Send the result; raises `QueueMissing` when the queue is gone or not one of ours."""
        if not self._ours.fullmatch(reply_to):
            raise QueueMissing(reply_to)
        body = _fitting(result)
        try:
            self._sends.send(reply_to, body)
        except QueueMissing:
            # The remembered URL may be of a queue that was made anew since.
            self._urls.forget(reply_to)
            self._sends.send(reply_to, body)


class SqsResultInbox:
    """`ResultInbox` on SQS."""

    def __init__(self, clients: Clients, queue: str) -> None:
        self._clients = clients
        self._queue = queue
        self._urls = QueueUrls(clients)

    def receive(self, wait_seconds: float) -> Sequence[Delivery]:
        """Up to ten results; `wait_seconds` counts in whole seconds up to 20. Raises `QueueMissing`."""
        seconds = min(LONGEST_POLL_SECONDS, round(wait_seconds))
        with self._urls.calling(self._queue, "receive from") as url:
            messages = self._clients.sqs.receive_message(
                QueueUrl=url,
                MaxNumberOfMessages=RECEIVE_AT_ONCE,
                WaitTimeSeconds=seconds,
                VisibilityTimeout=_HIDDEN_SECONDS,
            ).get("Messages", [])
        deliveries: list[Delivery] = []
        unreadable: list[str] = []
        for message in messages:
            try:
                result = RecognitionResult.parse(message["Body"])
            except InvalidMessage as exc:
                log.error("result_unreadable", queue=self._queue, reason=str(exc))  # noqa: TRY400 - the reason says it all
                unreadable.append(message["ReceiptHandle"])
            else:
                deliveries.append(Delivery(result, message["ReceiptHandle"]))
        self._delete(unreadable)
        return deliveries

    def delete(self, deliveries: Sequence[Delivery]) -> None:
        """Forget deliveries; one that SQS does not delete is logged, and will come again."""
        self._delete([delivery.receipt for delivery in deliveries])

    def _delete(self, receipts: Sequence[str]) -> None:
        for start in range(0, len(receipts), RECEIVE_AT_ONCE):
            batch = receipts[start : start + RECEIVE_AT_ONCE]
            with self._urls.calling(self._queue, "delete from") as url:
                reply = self._clients.sqs.delete_message_batch(
                    QueueUrl=url,
                    Entries=[{"Id": str(i), "ReceiptHandle": receipt} for i, receipt in enumerate(batch)],
                )
            failed = reply.get("Failed", [])
            if failed:
                reasons = sorted({entry["Code"] for entry in failed})
                log.warning("results_not_deleted", queue=self._queue, count=len(failed), reasons=reasons)


def _fitting(result: RecognitionResult) -> str:
    """The result as JSON, with as many of its first faces as a message holds."""
    body = result.to_json()
    kept = len(result.faces)
    while len(body) > MAX_MESSAGE_BYTES and kept:
        kept = kept * 3 // 4
        body = result.model_copy(update={"faces": result.faces[:kept]}).to_json()
    if kept < len(result.faces):
        log.warning("result_shortened", request_id=str(result.request_id), faces=len(result.faces), sent=kept)
    return body
