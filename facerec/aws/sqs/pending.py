"""How many messages the queues with requests and results hold."""

from facerec.aws.clients import Clients, translated
from facerec.aws.sqs.queue import SqsQueue
from facerec.errors import QueueMissing
from facerec.settings import Settings

_COUNTS = (
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesDelayed",
    "ApproximateNumberOfMessagesNotVisible",
)


class SqsPendingMessages:
    """`PendingMessages` on SQS: the request queue, the faces queue, and every response queue."""

    def __init__(self, clients: Clients, settings: Settings) -> None:
        self._sqs = clients.sqs
        self._names = (settings.request_queue, settings.faces_queue, settings.response_queue)
        self._own = f"{settings.response_queue}-"

    def counts(self) -> dict[str, int]:
        """Read the counts of each queue; one that does not exist, or has just left, holds nothing."""
        with translated("list the response queues"):
            pages = self._sqs.get_paginator("list_queues").paginate(QueueNamePrefix=self._own)
            own = [url.rsplit("/", 1)[-1] for page in pages for url in page.get("QueueUrls", [])]
        found = {}
        for name in (*self._names, *own):
            try:
                counts = SqsQueue(self._sqs, name).attributes(*_COUNTS)
            except QueueMissing:
                continue
            found[name] = sum(int(counts[each]) for each in _COUNTS)
        return found
