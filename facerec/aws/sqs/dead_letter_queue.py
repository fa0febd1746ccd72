"""The reading end of the dead-letter queue on SQS: looked at without taking anything away."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from facerec.aws.clients import THROTTLING, Clients
from facerec.aws.sqs.queue import QueueUrls, SqsClients, check_taken, missing
from facerec.dead_letters import DeadLetter
from facerec.errors import FacerecError, Transient
from facerec.text import one_line

_LONGEST_REASON = 1000


class SqsDeadLetters:
    """Puts aside what no retry helps; the body stays as it came, so that SQS can move it back to be tried again."""

    def __init__(self, clients: SqsClients, queue: str) -> None:
        self._clients = clients
        self._queue = queue
        self._urls = QueueUrls(clients)

    def put(self, body: str, *, reason: str, request_id: str, failed_at: datetime) -> None:
        """Store the body with message attributes `reason`, `request_id` and `failed_at`; raises `QueueMissing`."""
        attributes = {"reason": reason[:_LONGEST_REASON], "request_id": request_id, "failed_at": failed_at.isoformat()}
        with self._urls.calling(self._queue, "write to") as url:
            reply = self._clients.sqs.send_message(
                QueueUrl=url,
                MessageBody=body,
                MessageAttributes={
                    # SQS refuses an empty value.
                    name: {"DataType": "String", "StringValue": one_line(value) or "unknown"}
                    for name, value in attributes.items()
                },
            )
        check_taken(self._queue, reply)


if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import MessageTypeDef

HOLD_SECONDS = 300
"""How long what was looked at stays hidden when the look ends without giving it back, as by SIGKILL."""
_AT_ONCE = 10
_EMPTY_LOOKS = 3
"""A queue may answer an empty receive while it counts messages; that often it is believed."""


class SqsDeadLetterQueue:
    """`DeadLetterQueue` on SQS; for one look at a time.

    `poll_seconds` above 0 makes SQS ask all of its servers, where it would ask some.
    """

    def __init__(self, clients: Clients, queue: str, *, poll_seconds: int = 1) -> None:
        self._sqs = clients.sqs
        self._queue = queue
        self._poll_seconds = poll_seconds
        self._urls = QueueUrls(clients)
        self._held: dict[str, str] = {}

    def count(self) -> int:
        """About how many messages there are, hidden ones included."""
        return sum(self._counts())

    @contextmanager
    def look(self, limit: int | None = None) -> Iterator[Iterator[DeadLetter]]:
        """Receive each message once, and give all of them back on leaving, also on Ctrl-C."""
        try:
            yield self._letters(limit)
        finally:
            receipts = list(self._held.values())
            self._held.clear()
            self._give_back(receipts)

    def remove(self, letter: DeadLetter) -> None:
        """Delete one message."""
        with missing(self._queue, "delete from"):
            self._sqs.delete_message(QueueUrl=self._urls.url(self._queue), ReceiptHandle=letter.receipt)
        self._held.pop(letter.message_id, None)

    def purge(self) -> None:
        """Delete every message; SQS takes up to a minute, and refuses a second time within it."""
        with missing(self._queue, "purge"):
            self._sqs.purge_queue(QueueUrl=self._urls.url(self._queue))

    def _letters(self, limit: int | None) -> Iterator[DeadLetter]:
        seen: set[str] = set()
        empty = 0
        while (limit is None or len(seen) < limit) and empty < _EMPTY_LOOKS:
            messages = self._receive(_AT_ONCE if limit is None else min(_AT_ONCE, limit - len(seen)))
            # A receipt is good until the next receive of its message.
            self._held.update((message["MessageId"], message["ReceiptHandle"]) for message in messages)
            new = [message for message in messages if message["MessageId"] not in seen]
            seen.update(message["MessageId"] for message in new)
            yield from map(_letter, new)
            if messages and not new:
                return  # the first ones have become visible again: everything has been seen
            if not messages and not self._counts()[0]:
                return
            empty = 0 if messages else empty + 1

    def _receive(self, count: int) -> "list[MessageTypeDef]":
        with missing(self._queue, "receive from"):
            return self._sqs.receive_message(
                QueueUrl=self._urls.url(self._queue),
                MaxNumberOfMessages=count,
                VisibilityTimeout=HOLD_SECONDS,
                WaitTimeSeconds=self._poll_seconds,
                MessageAttributeNames=["All"],
                MessageSystemAttributeNames=["ApproximateReceiveCount", "SentTimestamp"],
            ).get("Messages", [])

    def _counts(self) -> tuple[int, int]:
        with missing(self._queue, "look at"):
            read = self._sqs.get_queue_attributes(
                QueueUrl=self._urls.url(self._queue),
                AttributeNames=["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"],
            )["Attributes"]
        return int(read["ApproximateNumberOfMessages"]), int(read["ApproximateNumberOfMessagesNotVisible"])

    def _give_back(self, receipts: list[str]) -> None:
        """As many as possible; raises the first fault at the end."""
        faults: list[FacerecError] = []
        for start in range(0, len(receipts), _AT_ONCE):
            try:
                self._show(receipts[start : start + _AT_ONCE])
            except FacerecError as exc:
                faults.append(exc)
        if faults:
            raise faults[0]

    def _show(self, receipts: list[str]) -> None:
        with missing(self._queue, "give back to"):
            reply = self._sqs.change_message_visibility_batch(
                QueueUrl=self._urls.url(self._queue),
                Entries=[
                    {"Id": str(index), "ReceiptHandle": receipt, "VisibilityTimeout": 0}
                    for index, receipt in enumerate(receipts)
                ],
            )
        # The sender's fault is a receipt that is no good any more: the message is visible already, or gone.
        kept = [
            entry["Code"]
            for entry in reply.get("Failed", [])
            if not entry["SenderFault"] or entry["Code"] in THROTTLING
        ]
        if kept:
            raise Transient(
                f"{len(kept)} messages of queue {self._queue!r} stay hidden for up to {HOLD_SECONDS} s: {kept[0]}"
            )


class SqsBodySender:
    """Sends messages as they were to one queue."""

    def __init__(self, clients: Clients, queue: str) -> None:
        self._sqs = clients.sqs
        self._queue = queue
        self._urls = QueueUrls(clients)

    def send(self, body: str) -> None:
        """Return when SQS has the message; raises `QueueMissing`."""
        with missing(self._queue, "send to"):
            reply = self._sqs.send_message(QueueUrl=self._urls.url(self._queue), MessageBody=body)
        check_taken(self._queue, reply)


def _letter(message: "MessageTypeDef") -> DeadLetter:
    system: Mapping[Any, str] = message.get("Attributes", {})
    return DeadLetter(
        message_id=message["MessageId"],
        body=message["Body"],
        sent_at=datetime.fromtimestamp(int(system["SentTimestamp"]) / 1000, UTC),
        receives=int(system["ApproximateReceiveCount"]),
        receipt=message["ReceiptHandle"],
        attributes={name: value.get("StringValue", "") for name, value in message.get("MessageAttributes", {}).items()},
    )
