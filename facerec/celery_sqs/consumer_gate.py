"""The gate before every receive: a worker pauses it to drain, and resumes it to take tasks again.

It is checked before each receive, not in Celery's consumer: it stays paused when the consumer connects again, any
thread may use it, and no message is lost. A receive that was open when the gate was paused goes on until SQS answers.
The worker processes the messages that it brings, or gives them back at once (`facerec.celery_sqs.open_receives`).
"""

import threading
from collections.abc import Sized
from weakref import WeakSet


class ConsumerGate:
    """Open at first; safe for many threads."""

    def __init__(self) -> None:
        # Reentrant: `leave` is called in a signal handler, which may interrupt any of these methods.
        self._changed = threading.Condition(threading.RLock())
        self._paused = False
        self._leaving = False
        self._receiving: set[str] = set()
        self._in_flight: WeakSet[Sized] = WeakSet()

    def pause(self) -> None:
        """Begin no more receives."""
        with self._changed:
            self._paused = True
            self._changed.notify_all()

    def resume(self) -> None:
        """Take messages again."""
        with self._changed:
            self._paused = False
            self._changed.notify_all()

    def leave(self) -> None:
        """Begin no more receives, and end every wait: the process ends. May be called in a signal handler."""
        with self._changed:
            self._leaving = True
            self._changed.notify_all()

    def wait_while_open(self, seconds: float) -> bool:
        """Wait for the time, or until the gate is paused; returns whether it is open."""
        with self._changed:
            return not self._changed.wait_for(lambda: self._paused or self._leaving, seconds)

    def wait_until_open(self, seconds: float) -> bool:
        """Wait until the gate is open, the time is over or the process ends; returns whether it is open."""
        with self._changed:
            self._changed.wait_for(lambda: not self._paused or self._leaving, seconds)
            return not self._paused and not self._leaving

    def begin_receive(self, queue: str) -> bool:
        """Whether a receive may begin; `end_receive` must follow when its messages count as in flight."""
        with self._changed:
            if self._paused or self._leaving:
                return False
            self._receiving.add(queue)
            return True

    def end_receive(self, queue: str) -> None:
        """Note that SQS has answered the receive, or that it has failed."""
        with self._changed:
            self._receiving.discard(queue)

    @property
    def receiving(self) -> bool:
        """Whether a receive is open. It would take back at once a message that is made visible."""
        with self._changed:
            return bool(self._receiving)

    @property
    def quiet(self) -> bool:
        """Whether no message is in flight, and none can come in."""
        with self._changed:
            return self._paused and not self._receiving and not any(len(messages) for messages in self._in_flight)

    def watch(self, messages: Sized) -> None:
        """Take into account these messages, which are in flight."""
        with self._changed:
            self._in_flight.add(messages)
