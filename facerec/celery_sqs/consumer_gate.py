"""The gate before every receive: a worker pauses it to drain, and resumes it to take tasks again.

It stands before the receives, not in Celery's consumer: it holds when the consumer connects again, any thread may use
it, and no message is lost at it. A receive that was open when the gate was paused goes on until SQS answers; the
messages that it brings are worked off.
"""

import threading
from typing import Protocol
from weakref import WeakSet


class Holder(Protocol):
    """What may hold messages in flight."""

    def __len__(self) -> int:
        """How many it holds."""


class ConsumerGate:
    """Open at first; safe for many threads."""

    def __init__(self) -> None:
        # Reentrant: `leave` is called in a signal handler, which may interrupt any of these methods.
        self._changed = threading.Condition(threading.RLock())
        self._paused = False
        self._leaving = False
        self._receiving = False
        self._holders: WeakSet[Holder] = WeakSet()

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
        """Wait so long, or until the gate is paused; returns whether it is open."""
        with self._changed:
            return not self._changed.wait_for(lambda: self._paused or self._leaving, seconds)

    def wait_until_open(self, seconds: float) -> bool:
        """Wait for the gate to open, at most so long and not if the process ends; returns whether it is open."""
        with self._changed:
            self._changed.wait_for(lambda: not self._paused or self._leaving, seconds)
            return not self._paused and not self._leaving

    def begin_receive(self) -> bool:
        """Whether a receive may begin; `end_receive` must follow when its messages are held."""
        with self._changed:
            self._receiving = not self._paused and not self._leaving
            return self._receiving

    def end_receive(self) -> None:
        """SQS has answered the receive, or it has failed."""
        with self._changed:
            self._receiving = False

    @property
    def receiving(self) -> bool:
        """Whether a receive is open. It would take back at once what is made visible."""
        with self._changed:
            return self._receiving

    @property
    def quiet(self) -> bool:
        """Whether no message can come in any more, and none is in flight."""
        with self._changed:
            return self._paused and not self._receiving and not any(len(holder) for holder in self._holders)

    def watch(self, holder: Holder) -> None:
        """Count what this one holds as in flight."""
        with self._changed:
            self._holders.add(holder)
