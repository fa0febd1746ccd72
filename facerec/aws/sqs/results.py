"""Results over SQS, from where they are made to the web tier, and the sending end of the faces queue."""

import re
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from facerec.aws.clients import Clients
from facerec.aws.sqs.queue import BATCH, SqsQueue
from facerec.background import BackgroundQueue
from facerec.errors import InvalidMessage, QueueMissing, Refused
from facerec.messages import FacesMessage, RecognitionResult
from facerec.ports import ResultDelivery
from facerec.settings.resources import SQS_MESSAGE_BYTES

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

log = structlog.get_logger(__name__)

LONGEST_POLL_SECONDS = 20
"""SQS's limit."""
_LONGEST_QUEUE_NAME = 80
"""SQS's limit."""
_HIDDEN_SECONDS = 5
"""How long a received result stays hidden: long enough to be deleted. If the answer to a receive is lost on its way,
the clients wait that long for the next one, not SQS's 30 s."""


class SqsResultPublisher:
    """`ResultPublisher` on SQS; answers only to the response queue and to those that web processes derive from it.

    The name of the queue comes with the request, so it is not trusted: any other name is as good as missing.
    A result of more than `max_bytes` (by default some 250 faces) travels with its first faces only, which decide the
    reply; the stored result has them all.
    """

    def __init__(self, clients: Clients, response_queue: str, *, max_bytes: int = SQS_MESSAGE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._allowed = re.compile(rf"{re.escape(response_queue)}(-[A-Za-z0-9_-]+)?")
        self._batcher = SendBatcher(clients.sqs)

    def publish(self, reply_to: str, result: RecognitionResult) -> None:
        """Send the result; raises `QueueMissing` when the queue is gone or not one of ours, and `Refused`."""
        if len(reply_to) > _LONGEST_QUEUE_NAME or not self._allowed.fullmatch(reply_to):
            raise QueueMissing(reply_to)
        self._batcher.send(reply_to, fitting(result, self._max_bytes))


class SqsFacesPublisher:
    """`FacesPublisher` on SQS."""

    def __init__(self, clients: Clients, faces_queue: str) -> None:
        self._queue = faces_queue
        self._batcher = SendBatcher(clients.sqs)

    def publish(self, message: FacesMessage) -> None:
        """Send the faces; raises as `SqsQueue`."""
        self._batcher.send(self._queue, message.to_json())


@dataclass(eq=False, slots=True)
class _OutgoingMessage:
    queue: str
    body: str
    sent: "Future[None]" = field(default_factory=Future)


class SendBatcher:
    """Sends to queues by name; what comes during a call goes together with the next call. Safe for many threads."""

    def __init__(self, sqs: "SQSClient") -> None:
        self._sqs = sqs
        self._queues: dict[str, SqsQueue] = {}
        self._messages = BackgroundQueue("results", self._send_all)

    def send(self, queue: str, body: str) -> None:
        """Return when SQS has taken the message (ASCII); raises as `SqsQueue`."""
        message = _OutgoingMessage(queue, body)
        self._messages.put(message)
        message.sent.result()

    def _send_all(self, messages: list[_OutgoingMessage]) -> None:
        for name in dict.fromkeys(message.queue for message in messages):
            batch: list[_OutgoingMessage] = []
            size = 0
            for message in [message for message in messages if message.queue == name]:
                if len(batch) == BATCH or size + len(message.body) > SQS_MESSAGE_BYTES:
                    self._send(name, batch)
                    batch, size = [], 0
                batch.append(message)
                size += len(message.body)
            self._send(name, batch)

    def _send(self, name: str, batch: Sequence[_OutgoingMessage]) -> None:
        queue = self._queues.setdefault(name, SqsQueue(self._sqs, name))
        errors: Sequence[BaseException | None]
        try:
            errors = queue.send_batch([message.body for message in batch])
        except Exception as exc:  # noqa: BLE001 - it is raised in the threads that wait for this call
            if isinstance(exc, Refused) and len(batch) > 1:
                for message in batch:  # one of them, or their sum, is the cause
                    self._send(name, [message])
                return
            errors = [exc] * len(batch)
            if isinstance(exc, QueueMissing):
                del self._queues[name]  # names come from clients: they must not pile up
        for message, error in zip(batch, errors, strict=True):
            if error is None:
                message.sent.set_result(None)
            else:
                message.sent.set_exception(error)


class SqsResultInbox:
    """`ResultInbox` on SQS."""

    def __init__(self, clients: Clients, queue: str) -> None:
        self._queue = SqsQueue(clients.sqs, queue)

    def receive(self, wait_seconds: float) -> Sequence[ResultDelivery]:
        """Up to ten results; `wait_seconds` counts in whole seconds up to 20. Raises `QueueMissing`."""
        seconds = min(LONGEST_POLL_SECONDS, round(wait_seconds))
        deliveries: list[ResultDelivery] = []
        unreadable: list[str] = []
        for message in self._queue.receive(wait_seconds=seconds, hidden_seconds=_HIDDEN_SECONDS):
            try:
                deliveries.append(ResultDelivery(RecognitionResult.parse(message["Body"]), message["ReceiptHandle"]))
            except InvalidMessage as exc:
                log.error("result_unreadable", queue=self._queue.name, reason=str(exc))  # noqa: TRY400 - the reason says it all
                unreadable.append(message["ReceiptHandle"])
        self._delete(unreadable)
        return deliveries

    def delete(self, deliveries: Sequence[ResultDelivery]) -> None:
        """Delete results; one that SQS does not delete is logged, and will be delivered again."""
        self._delete([delivery.receipt for delivery in deliveries])

    def _delete(self, receipts: Sequence[str]) -> None:
        if failed := self._queue.delete_batch(receipts):
            reasons = sorted({failure.code for failure in failed})
            log.warning("results_not_deleted", queue=self._queue.name, count=len(failed), reasons=reasons)


def fitting(result: RecognitionResult, max_bytes: int) -> str:
    """The result as JSON, with as many of its first faces as a message holds, and without other lists if need be."""
    body = result.to_json()
    if len(body) <= max_bytes:
        return body
    kept = len(result.faces)
    sent = result.model_copy(update={"shortened": True})
    while len(body) > max_bytes and kept:
        kept = kept * 3 // 4
        more_faces = result.more_faces + len(result.faces) - kept
        sent = sent.model_copy(update={"faces": result.faces[:kept], "more_faces": more_faces})
        body = sent.to_json()
    if len(body) > max_bytes:
        body = sent.model_copy(update={"source_faces": (), "matches": (), "enrolments": ()}).to_json()
    if len(body) <= max_bytes:
        log.warning("result_shortened", request_id=str(result.request_id), faces=len(result.faces), sent=kept)
    return body
