"""The queue of events in memory."""

import itertools
import threading
from collections.abc import Sequence
from typing import Any

from facerec.aws.sqs.queue import FailedEntry
from facerec.errors import FacerecError


class InMemoryEventQueue:
    """`SqsQueue` without SQS: a received message stays hidden until it is deleted.

    While `outage` is set every call raises it. `sent_at` dates what is sent.
    """

    name = "events"

    def __init__(self) -> None:
        self.outage: FacerecError | None = None
        self.sent_at = 1_000.0
        self.sends = 0
        self._visible: list[Any] = []
        self._hidden: dict[str, Any] = {}
        self._numbers = itertools.count()
        self._changed = threading.Condition()

    def send(self, body: str) -> None:
        """Put one message."""
        self._check()
        with self._changed:
            self.sends += 1
            self._visible.append(
                {
                    "Body": body,
                    "ReceiptHandle": str(next(self._numbers)),
                    "Attributes": {"SentTimestamp": str(round(self.sent_at * 1000))},
                }
            )
            self._changed.notify_all()

    def receive(self, *, wait_seconds: int, attributes: Sequence[Any] = ()) -> list[Any]:
        """Up to ten messages, once there is one or the time is over."""
        assert list(attributes) == ["SentTimestamp"]
        self._check()
        with self._changed:
            self._changed.wait_for(lambda: self._visible, wait_seconds)
            taken, self._visible = self._visible[:10], self._visible[10:]
            self._hidden |= {message["ReceiptHandle"]: message for message in taken}
            return taken

    def delete_batch(self, receipts: Sequence[str]) -> list[FailedEntry]:
        """Delete messages."""
        self._check()
        with self._changed:
            for receipt in receipts:
                del self._hidden[receipt]
        return []

    @property
    def left(self) -> int:
        """How many messages there are, hidden or not."""
        return len(self._visible) + len(self._hidden)

    def await_sent(self, count: int) -> list[str]:
        """The bodies that are visible, once there are so many."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self._visible) >= count, 30)
            return [message["Body"] for message in self._visible]

    def _check(self) -> None:
        if self.outage is not None:
            raise self.outage
