"""The waits of a process's uploads, and the thread that reads its response queue and ends them."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol
from uuid import UUID

import structlog

from facerec.background import BackgroundThread, OutageLog, backoff_seconds
from facerec.errors import FacerecError
from facerec.messages import RecognitionRequest, RecognitionResult
from facerec.ports import ResultInbox

log = structlog.get_logger(__name__)

SILENCE_SECONDS = 30.0
"""Longer than an empty long poll with its time-outs: a reader without an answer for longer is stuck."""


class Waiter:
    """One upload's wait for its result, begun at `since`; `request` is set just before its task is sent."""

    def __init__(self, request_id: UUID, since: float) -> None:
        self.request_id = request_id
        self.request: RecognitionRequest | None = None
        self.looked_up_at = since
        """When its result was last looked up in the store."""
        self._result: RecognitionResult | None = None
        self._done = threading.Event()

    def wait(self, timeout_seconds: float) -> RecognitionResult | None:
        """Return the result, or None after the time-out or after `Waiters.give_up`."""
        self._done.wait(timeout_seconds)
        return self._result

    def end(self, result: RecognitionResult | None) -> None:
        """End the wait."""
        self._result = result
        self._done.set()


class Waiters:
    """The waits of one process, by request id; safe for many threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waiters: dict[UUID, Waiter] = {}
        self._listeners: dict[UUID, Callable[[RecognitionResult], None]] = {}
        self._lock = threading.Lock()
        self._given_up = False

    @property
    def count(self) -> int:
        """How many wait."""
        return len(self._waiters)

    def sent(self) -> list[Waiter]:
        """Return the waits whose task has been sent, or is just being sent."""
        with self._lock:
            return [waiter for waiter in self._waiters.values() if waiter.request is not None]

    @property
    def given_up(self) -> bool:
        """Whether every wait has been ended because the process stops."""
        return self._given_up

    @contextmanager
    def expecting(self, request_id: UUID) -> Iterator[Waiter]:
        """Register a wait within the block. Enter it before the task is sent, so that no result comes too early."""
        waiter = Waiter(request_id, self._clock())
        with self._lock:
            self._waiters[request_id] = waiter
            if self._given_up:
                waiter.end(None)
        try:
            yield waiter
        finally:
            with self._lock:
                del self._waiters[request_id]

    def listen(self, request_id: UUID, listener: Callable[[RecognitionResult], None]) -> None:
        """Have the result of a request handed to a function, which must be quick, until `unlisten`: no upload waits."""
        with self._lock:
            self._listeners[request_id] = listener

    def unlisten(self, request_id: UUID) -> None:
        """Forget the listener of a request."""
        with self._lock:
            self._listeners.pop(request_id, None)

    def resolve(self, result: RecognitionResult) -> bool:
        """Hand a result to the upload that waits for it, or to its listener; returns whether there is one."""
        with self._lock:
            waiter = self._waiters.get(result.request_id)
            listener = self._listeners.get(result.request_id)
        if waiter is not None:
            waiter.end(result)
        elif listener is not None:
            listener(result)
        return waiter is not None or listener is not None

    def give_up(self) -> None:
        """End every wait, present and future, without a result."""
        with self._lock:
            self._given_up = True
            waiters = list(self._waiters.values())
        for waiter in waiters:
            waiter.end(None)


class InboxWatch(Protocol):
    """Counts what the inbox reads; it must be quick, and must not raise."""

    def count_results(self, *, awaited: int, unexpected: int, at: float) -> None:
        """Count the results of an answer, with a waiter and without one; `at` is in seconds since the epoch."""

    def count_failure(self) -> None:
        """Count a read that failed."""


class InboxThread:
    """Long-polls one response queue and resolves waiters; survives every outage.

    Every received result is deleted, also one without a waiter: it stays in the store. `stop` lets a running long poll
    end in the background. A result that this poll still receives is delivered again, or found in the store.
    """

    def __init__(
        self,
        inbox: ResultInbox,
        waiters: Waiters,
        *,
        poll_seconds: float,
        backoff: Callable[[int], float] = lambda failures: backoff_seconds(failures, random.random(), first=0.2),  # noqa: S311 - spreads the load
        clock: Callable[[], float] = time.monotonic,
        watch: InboxWatch | None = None,
    ) -> None:
        self._inbox = inbox
        self._waiters = waiters
        self._poll_seconds = poll_seconds
        self._backoff = backoff
        self._clock = clock
        self._watch = watch
        self._problem: str | None = "has not read anything yet"
        self._read_at = clock()
        self._outages_ended = 0
        self._outage = OutageLog("response_queue")
        self._thread = BackgroundThread("inbox", self._run)

    def start(self) -> None:
        """Begin to read."""
        self._read_at = self._clock()
        self._problem = None
        self._thread.start()

    def stop(self, timeout_seconds: float = 0.0) -> bool:
        """Begin no further poll; returns whether the thread has ended within the time-out."""
        return self._thread.stop(timeout_seconds)

    @property
    def outages_ended(self) -> int:
        """How many outages have ended; results sent during one may be lost."""
        return self._outages_ended

    def check(self) -> None:
        """Raise `FacerecError` with the reason if the queue cannot be read."""
        if self._problem is not None:
            raise FacerecError(self._problem)
        silent = self._clock() - self._read_at
        if silent > SILENCE_SECONDS:
            raise FacerecError(f"the response queue has not answered for {silent:.0f} s")

    def _run(self, stopping: threading.Event) -> None:
        while not stopping.is_set():
            try:
                self._read()
            except Exception as exc:  # without this thread no upload would get its result
                self._outage.failed(exc)
                self._problem = str(exc) or type(exc).__name__
                if not isinstance(exc, FacerecError):
                    log.exception("inbox_fault")
                if self._watch is not None:
                    self._watch.count_failure()
                stopping.wait(self._backoff(self._outage.failures))
            else:
                self._outages_ended += self._outage.failures > 0
                self._outage.succeeded()
                self._problem = None
                self._read_at = self._clock()

    def _read(self) -> None:
        deliveries = self._inbox.receive(self._poll_seconds)
        unexpected = [d for d in deliveries if not self._waiters.resolve(d.result)]
        for delivery in unexpected:
            log.debug("result_unexpected", request_id=str(delivery.result.request_id))
        if self._watch is not None:
            self._watch.count_results(
                awaited=len(deliveries) - len(unexpected), unexpected=len(unexpected), at=time.time()
            )
        if deliveries:
            self._inbox.delete(deliveries)
