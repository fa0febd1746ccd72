"""SQS queues by name: their URLs, and the errors of calls to them."""

from contextlib import AbstractContextManager

from facerec.aws.clients import Clients, translated
from facerec.errors import QueueMissing


class QueueUrls:
    """The URLs of queues by name, asked for once; safe for many threads (a lost race asks twice)."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._urls: dict[str, str] = {}

    def url(self, queue: str) -> str:
        """The queue's URL; raises `QueueMissing`."""
        known = self._urls.get(queue)
        if known is None:
            with missing(queue, "look up"):
                known = self._clients.sqs.get_queue_url(QueueName=queue)["QueueUrl"]
            self._urls[queue] = known
        return known

    def forget(self, queue: str) -> None:
        """Ask again the next time: the queue is gone, or was made anew."""
        self._urls.pop(queue, None)


def missing(queue: str, doing: str) -> AbstractContextManager[None]:
    """Translate SQS's errors; a queue that does not exist becomes `QueueMissing`."""
    return translated(
        f"{doing} queue {queue!r}",
        QueueDoesNotExist=lambda: QueueMissing(queue),
        AWS_SimpleQueueService_NonExistentQueue=lambda: QueueMissing(queue),
    )


def check_queue(clients: Clients, queue: str) -> None:
    """Return if the queue exists and can be reached; raises `QueueMissing`, `Transient` or `ConfigurationError`."""
    QueueUrls(clients).url(queue)
