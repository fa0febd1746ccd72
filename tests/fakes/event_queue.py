"""The queue of events in memory."""

import itertools
import threading
from collections.abc import Sequence

from facerec.celery_sqs.events.queue import Letter
from facerec.errors import FacerecError


class InMemoryEventQueue:
    """`SqsEventQueue` without SQS: what was received stays hidden until it is deleted.

    While `outage` is set every call raises it. `sent_at` dates what is sent.
    """

    def __init__(self) -> None:
        self.outage: FacerecError | None = None
        self.sent_at = 1_000.0
        self.sends = 0
        self._visible: list[Letter] = []
        self._hidden: dict[str, Letter] = {}
        self._numbers = itertools.count()
        self._changed = threading.Condition()

    def send(self, body: str) -> None:
        """Put one message."""
        self._check()
        with self._changed:
            self.sends += 1
            self._visible.append(Letter(body, str(next(self._numbers)), self.sent_at))
            self._changed.notify_all()

    def receive(self, wait_seconds: int) -> Sequence[Letter]:
        """Up to ten messages, once there is one or the time is over."""
        self._check()
        with self._changed:
            self._changed.wait_for(lambda: self._visible, wait_seconds)
            taken, self._visible = self._visible[:10], self._visible[10:]
            self._hidden |= {letter.receipt: letter for letter in taken}
            return taken

    def delete(self, letters: Sequence[Letter]) -> None:
        """Forget messages."""
        self._check()
        with self._changed:
            for letter in letters:
                del self._hidden[letter.receipt]

    @property
    def left(self) -> int:
        """How many messages there are, hidden or not."""
        return len(self._visible) + len(self._hidden)

    def await_sent(self, count: int) -> list[Letter]:
        """What is visible, once so many are."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self._visible) >= count, 30)
            return list(self._visible)

    def _check(self) -> None:
        if self.outage is not None:
            raise self.outage
