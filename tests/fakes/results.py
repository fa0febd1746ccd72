"""Response queues and the faces queue in memory, held to the same contract as those on SQS."""

import itertools
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from facerec.aws.sqs.results import fitting
from facerec.edge_messages import results_topic
from facerec.errors import FacerecError, InvalidMessage, QueueMissing, Refused
from facerec.messages import FacesMessage, RecognitionResult
from facerec.ports import ResultDelivery
from facerec.settings.edge import IOT_MESSAGE_BYTES
from facerec.settings.resources import SQS_MESSAGE_BYTES

RECEIVE_AT_ONCE = 10
LONGEST_QUEUE_NAME = 80
LONGEST_TOPIC = 256


@dataclass
class _Message:
    body: str
    receipts: set[str] = field(default_factory=set)
    visible_at: float = 0.0


class InMemoryQueues:
    """Named queues of messages; a received message stays hidden for `visibility_seconds` unless it is deleted."""

    def __init__(self, *names: str, visibility_seconds: float = 30.0) -> None:
        self._queues: dict[str, list[_Message]] = {name: [] for name in names}
        self._visibility_seconds = visibility_seconds
        self._changed = threading.Condition()
        self._receipts = itertools.count(1)

    def create(self, queue: str) -> None:
        """Make a queue."""
        with self._changed:
            self._queues[queue] = []

    def remove(self, queue: str) -> None:
        """Remove a queue with its messages; a waiting receive ends with an error."""
        with self._changed:
            del self._queues[queue]
            self._changed.notify_all()

    def size(self, queue: str) -> int:
        """How many messages are not deleted."""
        with self._changed:
            return len(self._messages(queue))

    def send(self, queue: str, body: str) -> None:
        """Add a message; raises `QueueMissing`."""
        with self._changed:
            self._messages(queue).append(_Message(body))
            self._changed.notify_all()

    def receive(self, queue: str, wait_seconds: float) -> list[tuple[str, str]]:
        """Up to ten visible messages as (body, receipt), or none after the wait; raises `QueueMissing`."""
        deadline = time.monotonic() + wait_seconds
        with self._changed:
            while not (found := self._take(queue)):
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    break
                self._changed.wait(min(remaining, self._until_visible(queue)))
            return found

    def delete(self, queue: str, receipt: str) -> None:
        """Delete the message of a receipt; an unknown receipt is no error."""
        with self._changed:
            kept = [message for message in self._messages(queue) if receipt not in message.receipts]
            self._queues[queue] = kept

    def _messages(self, queue: str) -> list[_Message]:
        if queue not in self._queues:
            raise QueueMissing(queue)
        return self._queues[queue]

    def _take(self, queue: str) -> list[tuple[str, str]]:
        now = time.monotonic()
        visible = [message for message in self._messages(queue) if message.visible_at <= now][:RECEIVE_AT_ONCE]
        taken = []
        for message in visible:
            receipt = f"receipt-{next(self._receipts)}"
            message.receipts.add(receipt)
            message.visible_at = now + self._visibility_seconds
            taken.append((message.body, receipt))
        return taken

    def _until_visible(self, queue: str) -> float:
        hidden = [message.visible_at for message in self._messages(queue)]
        return max(0.001, min(hidden) - time.monotonic()) if hidden else threading.TIMEOUT_MAX


class InMemoryResultPublisher:
    """`ResultPublisher` to queues in memory, for the queue `response_queue` and those whose names derive from it."""

    def __init__(self, queues: InMemoryQueues, response_queue: str) -> None:
        self._queues = queues
        self._response_queue = response_queue

    def publish(self, reply_to: str, result: RecognitionResult) -> None:
        """Send the result; raises `QueueMissing`."""
        allowed = re.fullmatch(rf"{re.escape(self._response_queue)}(-[A-Za-z0-9_-]+)?", reply_to)
        if not allowed or len(reply_to) > LONGEST_QUEUE_NAME:
            raise QueueMissing(reply_to)
        self._queues.send(reply_to, result.to_json())


class InMemoryDeviceResults:
    """`DeviceResults` to queues in memory, by topic; a topic without a queue has no subscriber."""

    def __init__(self, queues: InMemoryQueues) -> None:
        self._queues = queues

    def publish(self, thing: str, result: RecognitionResult) -> None:
        """Send the result, shortened as the real one is; raises `Refused` for a name that makes no topic."""
        topic = results_topic(thing)
        if set("+#") & set(topic) or len(topic.encode()) > LONGEST_TOPIC:
            raise Refused(f"{topic!r} is no topic")
        try:
            self._queues.send(topic, fitting(result, IOT_MESSAGE_BYTES))
        except QueueMissing:
            return


class InMemoryFacesPublisher:
    """`FacesPublisher` to a queue in memory."""

    def __init__(self, queues: InMemoryQueues, queue: str) -> None:
        self._queues = queues
        self._queue = queue

    def publish(self, message: FacesMessage) -> None:
        """Send the faces; raises `QueueMissing`, and `Refused` for a message that SQS would not take."""
        body = message.to_json()
        if len(body) > SQS_MESSAGE_BYTES:
            raise Refused(f"the message has {len(body)} bytes")
        self._queues.send(self._queue, body)


class InMemoryResultInbox:
    """`ResultInbox` on a queue in memory. While `outage` is set every call raises it."""

    def __init__(self, queues: InMemoryQueues, queue: str) -> None:
        self._queues = queues
        self._queue = queue
        self.outage: FacerecError | None = None

    def receive(self, wait_seconds: float) -> Sequence[ResultDelivery]:
        """Up to ten results; drops what is unreadable."""
        if self.outage is not None:
            raise self.outage
        deliveries = []
        for body, receipt in self._queues.receive(self._queue, wait_seconds):
            try:
                deliveries.append(ResultDelivery(RecognitionResult.parse(body), receipt))
            except InvalidMessage:
                self._queues.delete(self._queue, receipt)
        return deliveries

    def delete(self, deliveries: Sequence[ResultDelivery]) -> None:
        """Forget deliveries."""
        if self.outage is not None:
            raise self.outage
        for delivery in deliveries:
            self._queues.delete(self._queue, delivery.receipt)
