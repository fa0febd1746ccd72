"""SQS queues by name: their URLs, and the errors of calls to them."""

import json
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from facerec.aws.clients import THROTTLING, Clients, translated
from facerec.errors import ConfigurationError, FacerecError, QueueMissing, Throttled, Transient
from facerec.settings import Settings

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


def made_at(clients: Clients, queue: str) -> str:
    """When the queue was made, in SQS's own words; another moment is another queue. Raises `QueueMissing`."""
    with missing(queue, "look at"):
        url = clients.sqs.get_queue_url(QueueName=queue)["QueueUrl"]
        read = clients.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["CreatedTimestamp"])
    return read["Attributes"]["CreatedTimestamp"]


def queue_differences(clients: SqsClients, settings: Settings) -> list[str]:
    """A sentence for each attribute of the request queue that differs; raises `QueueMissing` and as `translated`."""
    queue, wanted = settings.request_queue, settings.queue
    url = QueueUrls(clients).url(queue)
    with missing(queue, "read the attributes of"):
        attributes = clients.sqs.get_queue_attributes(
            QueueUrl=url, AttributeNames=["VisibilityTimeout", "RedrivePolicy"]
        )["Attributes"]
    found = []
    timeout = attributes.get("VisibilityTimeout")
    if timeout != str(wanted.visibility_timeout_seconds):
        found.append(
            f"its visibility timeout is {timeout} s, not FACEREC_QUEUE__VISIBILITY_TIMEOUT_SECONDS "
            f"({wanted.visibility_timeout_seconds}), which workers ask for"
        )
    policy = json.loads(attributes.get("RedrivePolicy") or "{}")
    if not policy:
        found.append("it has no redrive policy: a task that ends every worker would be delivered for ever")
    else:
        target, receives = policy["deadLetterTargetArn"].rsplit(":", 1)[-1], int(policy["maxReceiveCount"])
        if target != settings.dead_letter_queue:
            found.append(f"its dead letters go to {target!r}, not to {settings.dead_letter_queue!r}")
        if receives != wanted.max_receives:
            found.append(f"it delivers {receives} times, not FACEREC_QUEUE__MAX_RECEIVES ({wanted.max_receives}) times")
    return found


_LONGEST_PAUSE_SECONDS = 10.0
_FIRST_REDELIVERY_SECONDS = 5
_LONGEST_REDELIVERY_SECONDS = 120


def redelivery_seconds(receives: int, luck: float) -> int:
    """The pause before a task that failed for a passing reason is delivered again: 5, 15, 45 … 120 s, less up to half.

    `receives` counts its deliveries from 1; `luck`, from 0 to 1, spreads tasks that failed together. With the default
    of four deliveries a fault may last about a minute before the task is left to the dead-letter queue.
    """
    longest: int = min(_FIRST_REDELIVERY_SECONDS * 3 ** (receives - 1), _LONGEST_REDELIVERY_SECONDS)
    return round(longest * (1 - luck / 2))


def pause_seconds(failures: int, luck: float) -> float:
    """The pause after a number of failed receives in a row: 0.5, 1, 2 … 10 s, less up to half by `luck` from 0 to 1."""
    doublings = min(failures - 1, 10)
    return float(min(0.5 * 2**doublings, _LONGEST_PAUSE_SECONDS) * (1 - luck / 2))


class SqsTaskTail:
    """Sends the messages of tasks again, as they are given."""

    def __init__(self, clients: SqsClients, queue: str) -> None:
        self._clients = clients
        self._queue = queue
        self._urls = QueueUrls(clients)

    def send(self, body: str, delay_seconds: int) -> None:
        """Return when SQS has taken the message, which is delivered after the delay (up to 900 s).

        Raises `QueueMissing`, `Transient` or `ConfigurationError`.
        """
        with self._urls.calling(self._queue, "send a task to") as url:
            reply = self._clients.sqs.send_message(QueueUrl=url, MessageBody=body, DelaySeconds=delay_seconds)
        check_taken(self._queue, reply)


MAX_MESSAGE_BYTES = 256 * 1024
"""What every SQS queue takes, as one message or as a batch; only queues made after August 2025 take 1 MiB."""
_BATCH = 10
"""SQS takes this many messages in one call."""


@dataclass(eq=False, slots=True)
class _Message:
    body: str
    sent: "Future[None]" = field(default_factory=Future)


@dataclass(eq=False, slots=True)
class _Line:
    """The messages for one queue; whose turn it is sends for all who wait. `senders` counts those in `send`."""

    turn: threading.Lock = field(default_factory=threading.Lock)
    waiting: "deque[_Message]" = field(default_factory=deque)
    senders: int = 0


class GroupSends:
    """Sends to queues by name; a message that comes alone goes at once, those that come meanwhile go together."""

    def __init__(self, clients: Clients, urls: QueueUrls) -> None:
        self._clients = clients
        self._urls = urls
        self._lines: dict[str, _Line] = {}
        self._lock = threading.Lock()

    def send(self, queue: str, body: str) -> None:
        """Return when SQS has taken the message (ASCII, up to 256 KiB); raises `QueueMissing` and as `translated`."""
        message = _Message(body)
        with self._lock:
            line = self._lines.setdefault(queue, _Line())
            line.waiting.append(message)
            line.senders += 1
        try:
            with line.turn:
                while not message.sent.done():
                    self._send(queue, self._next(line))
        finally:
            with self._lock:
                line.senders -= 1
                if not line.senders:
                    del self._lines[queue]  # names come from clients: none may be kept for ever
        message.sent.result()

    def _next(self, line: _Line) -> list[_Message]:
        with self._lock:
            batch = [line.waiting.popleft()]
            room = MAX_MESSAGE_BYTES - len(batch[0].body)
            while line.waiting and len(batch) < _BATCH and len(line.waiting[0].body) <= room:
                batch.append(line.waiting.popleft())
                room -= len(batch[-1].body)
        return batch

    def _send(self, queue: str, batch: list[_Message]) -> None:
        """Send a batch and settle each of its messages."""
        try:
            url = self._urls.url(queue)
            with missing(queue, "send to"):
                reply = self._clients.sqs.send_message_batch(
                    QueueUrl=url,
                    Entries=[{"Id": str(index), "MessageBody": message.body} for index, message in enumerate(batch)],
                )
        except BaseException as exc:  # noqa: BLE001 - whatever it is belongs to everyone who waits for this call
            for message in batch:
                message.sent.set_exception(exc)
            return
        sent = {int(entry["Id"]) for entry in reply.get("Successful", [])}
        refused = {int(entry["Id"]): entry for entry in reply.get("Failed", [])}
        for index, message in enumerate(batch):
            if index in sent:
                message.sent.set_result(None)
                continue
            if index not in refused:
                message.sent.set_exception(Transient(f"queue {queue!r} has not confirmed a message"))
                continue
            sentence = f"could not send to queue {queue!r}: {refused[index]['Code']}"
            # AWS counts some throttling as the sender's fault.
            error: type[FacerecError] = ConfigurationError if refused[index]["SenderFault"] else Transient
            error = Throttled if refused[index]["Code"] in THROTTLING else error
            message.sent.set_exception(error(sentence))
