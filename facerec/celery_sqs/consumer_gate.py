"""Whether this process takes messages from its queue: the valve that lets a worker drain, and take tasks again.

It stands before every receive, not in Celery's consumer: it holds when the consumer connects
anew, it may be turned from any thread, and nothing is lost at it. A receive that was open when it was closed is a long
poll that SQS may answer until its end; what it brings is worked off like any other task. For a worker to drain soon,
whoever turns the valve is consulted after each receive that brought nothing, before the next one begins.

A task that waits for a service to come back does so here (`rest`): a worker that takes no more is to be rid of it soon.
"""

import threading
import time
from collections.abc import Callable
from weakref import WeakSet

from facerec.celery_sqs.visibility import VisibilityKeeper

_LONGEST_REST_SECONDS = 0.25


class Intake:
    """Open at first; safe for many threads."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        # Reentrant: `leave` is called in a signal handler, which may interrupt any of these methods.
        self._lock = threading.Condition(threading.RLock())
        self._consult: Callable[[], bool] = lambda: False
        self._rests_until = 0.0
        self._closed = False
        self._leaving = False
        self._receivers: set[object] = set()
        self._keepers: WeakSet[VisibilityKeeper] = WeakSet()

    def close(self) -> None:
        """Begin no more receives."""
        with self._lock:
            self._closed = True
            self._lock.notify_all()

    def open(self) -> None:
        """Take messages again."""
        with self._lock:
            self._closed = False

    def leave(self) -> None:
        """The process is to end: no more receives begin, and nobody rests. May be called in a signal handler."""
        with self._lock:
            self._leaving = True
            self._lock.notify_all()

    def rest(self, seconds: float) -> bool:
        """Wait so long; returns whether messages are taken, and at once when they are not any more."""
        with self._lock:
            return not self._lock.wait_for(lambda: self._closed or self._leaving, seconds)

    def consult(self, adviser: Callable[[], bool]) -> None:
        """Ask this one after each empty receive; where it says yes the next waits for `go_on`, but not for long."""
        self._consult = adviser

    def go_on(self) -> None:
        """Who was consulted has made up its mind."""
        with self._lock:
            self._rests_until = 0.0

    @property
    def quiet(self) -> bool:
        """Whether no message can come in any more, and none is held that SQS has not been told the end of."""
        with self._lock:
            return self._closed and not self._receivers and not any(keeper.holds for keeper in self._keepers)

    def begin(self, receiver: object) -> bool:
        """Whether this receiver may ask for messages; it must `end` then, once it has noted what came."""
        with self._lock:
            if self._closed or self._leaving or self._monotonic() < self._rests_until:
                return False
            self._receivers.add(receiver)
            return True

    def receives(self, receiver: object) -> bool:
        """Whether a receive of this one's is open, which would take back at once what is given back."""
        with self._lock:
            return receiver in self._receivers

    def end(self, receiver: object, *, empty: bool = False) -> None:
        """The receive has been answered, or given up; one that has not begun is no error."""
        with self._lock:
            self._receivers.discard(receiver)
            if empty:
                self._rests_until = self._monotonic() + _LONGEST_REST_SECONDS
        if empty and not self._consult():
            self.go_on()

    def watch(self, keeper: VisibilityKeeper) -> None:
        """What this one keeps hidden is held."""
        with self._lock:
            self._keepers.add(keeper)


INTAKE = Intake()
"""That of this process: kombu makes the channels itself, so it cannot be handed to them."""
