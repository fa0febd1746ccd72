"""The queue of events: from every process of the tiers to the one Flower."""

from collections.abc import Sequence
from dataclasses import dataclass

from facerec.aws.clients import Clients
from facerec.aws.sqs.queue import QueueUrls, check_taken
from facerec.aws.sqs.results import RECEIVE_AT_ONCE
from facerec.errors import Transient


@dataclass(frozen=True, slots=True)
class Letter:
    """A message as it was received; `sent_at` by SQS's clock, in seconds since the epoch."""

    body: str
    receipt: str
    sent_at: float


class SqsEventQueue:
    """Sends and receives event batches; raises `QueueMissing` and as `translated`."""

    def __init__(self, clients: Clients, queue: str) -> None:
        self._clients = clients
        self._queue = queue
        self._urls = QueueUrls(clients)

    def send(self, body: str) -> None:
        """Put one message, up to 256 KiB."""
        with self._urls.calling(self._queue, "send to") as url:
            reply = self._clients.sqs.send_message(QueueUrl=url, MessageBody=body)
        check_taken(self._queue, reply)

    def receive(self, wait_seconds: int) -> Sequence[Letter]:
        """Up to ten messages; whoever has used them deletes them, or they come again."""
        with self._urls.calling(self._queue, "receive from") as url:
            messages = self._clients.sqs.receive_message(
                QueueUrl=url,
                MaxNumberOfMessages=RECEIVE_AT_ONCE,
                WaitTimeSeconds=wait_seconds,
                AttributeNames=["SentTimestamp"],
            ).get("Messages", [])
        return [
            Letter(message["Body"], message["ReceiptHandle"], int(message["Attributes"]["SentTimestamp"]) / 1000)
            for message in messages
        ]

    def delete(self, letters: Sequence[Letter]) -> None:
        """Forget up to ten messages; raises `Transient` where SQS keeps one."""
        if not letters:
            return
        with self._urls.calling(self._queue, "delete from") as url:
            reply = self._clients.sqs.delete_message_batch(
                QueueUrl=url,
                Entries=[{"Id": str(i), "ReceiptHandle": letter.receipt} for i, letter in enumerate(letters)],
            )
        if failed := reply.get("Failed", []):
            raise Transient(f"queue {self._queue!r} kept {len(failed)} messages: {failed[0]['Code']}")
