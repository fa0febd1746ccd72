"""The dead-letter queue, as the worker itself writes to it: with the reason, which SQS's own redrive cannot know."""

from datetime import datetime

from facerec.aws.queue_urls import QueueUrls, SqsClients, check_taken
from facerec.keys import is_text

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
                    name: {"DataType": "String", "StringValue": _sendable(value) or "unknown"}
                    for name, value in attributes.items()
                },
            )
        check_taken(self._queue, reply)


def _sendable(value: str) -> str:
    """The text without what SQS refuses in attributes; a reason may quote what somebody else has written."""
    return "".join(character if is_text(character) else " " for character in value)
