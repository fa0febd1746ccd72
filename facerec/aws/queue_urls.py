"""SQS queues by name: their URLs, and the errors of calls to them."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from facerec.aws.clients import translated
from facerec.errors import QueueMissing, Transient

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

QUEUE_MISSING = frozenset({"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"})
"""SQS's error codes for it, in its query and its JSON protocol."""


class SqsClients(Protocol):
    """What of `Clients` is needed here."""

    @property
    def sqs(self) -> "SQSClient":
        """SQS."""


class QueueUrls:
    """The URLs of queues by name, asked for once; safe for many threads (a lost race asks twice)."""

    def __init__(self, clients: SqsClients) -> None:
        self._clients = clients
        self._urls: dict[str, str] = {}

    def url(self, queue: str) -> str:
        """The queue's URL; raises `QueueMissing`."""
        known = self._urls.get(queue)
        if known is None:
            with missing(queue, "look up"):
                known = url_in(queue, self._clients.sqs.get_queue_url(QueueName=queue))
            self._urls[queue] = known
        return known

    @contextmanager
    def calling(self, queue: str, doing: str) -> Iterator[str]:
        """Translate the errors of a call to the queue's URL; one that is gone is asked for anew the next time."""
        try:
            url = self.url(queue)
            with missing(queue, doing):
                yield url
        except QueueMissing:
            self.forget(queue)
            raise

    def forget(self, queue: str) -> None:
        """Ask again the next time: the queue is gone, or was made anew."""
        self._urls.pop(queue, None)


def missing(queue: str, doing: str) -> AbstractContextManager[None]:
    """Translate SQS's errors; a queue that does not exist becomes `QueueMissing`."""
    return translated(
        f"{doing} queue {queue!r}",
        **{code.replace(".", "_"): lambda: QueueMissing(queue) for code in QUEUE_MISSING},
    )


def url_in(queue: str, reply: Mapping[str, Any]) -> str:
    """The queue's URL in an answer; raises `Transient` where there is none, as in a proxy's page with status 200."""
    url: str | None = reply.get("QueueUrl")
    if not url:
        raise Transient(f"the URL of queue {queue!r} is not in the answer; does a proxy answer for SQS?")
    return url


def check_taken(queue: str, reply: Mapping[str, Any]) -> None:
    """Raise `Transient` unless SQS has answered that it has the message: a proxy's page, with 200, says nothing."""
    if not reply.get("MessageId"):
        raise Transient(f"queue {queue!r} has not confirmed a message; does a proxy answer for SQS?")


def check_queue(clients: SqsClients, queue: str) -> None:
    """Return if the queue exists and can be reached; raises `QueueMissing`, `Transient` or `ConfigurationError`."""
    QueueUrls(clients).url(queue)
