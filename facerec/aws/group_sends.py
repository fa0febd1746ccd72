"""Sends the messages of many threads, those that wait at the same time with one call."""

import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field

from facerec.aws.clients import THROTTLING, Clients
from facerec.aws.queue_urls import QueueUrls, missing
from facerec.errors import ConfigurationError, FacerecError, Throttled, Transient

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
