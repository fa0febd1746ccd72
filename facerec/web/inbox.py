"""Who waits for which result, and the one thread of a process that reads its response queue."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol
from uuid import UUID

import structlog

from facerec.errors import FacerecError
from facerec.messages import RecognitionRequest, RecognitionResult
from facerec.ports import ResultInbox

log = structlog.get_logger(__name__)

FIRST_BACKOFF_SECONDS = 0.2
MAX_BACKOFF_SECONDS = 10.0
SILENCE_SECONDS = 30.0
"""Three empty long polls at their longest: a reader that has been silent for longer is stuck."""


class Waiter:
    """One upload's wait for its result, begun at `since`; `request` is set when its task is about to be sent."""

    def __init__(self, request_id: UUID, since: float) -> None:
        self.request_id = request_id
        self.since = since
        self.request: RecognitionRequest | None = None
        self.sought_at = since
        """When the store was last asked for its result; not yet, at the beginning."""
        self._result: RecognitionResult | None = None
        self._done = threading.Event()

    def wait(self, timeout_seconds: float) -> RecognitionResult | None:
        """The result, or nothing after the time-out or when the process gives up waiting."""
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
        self._lock = threading.Lock()
        self._given_up = False

    @property
    def count(self) -> int:
        """How many wait."""
        return len(self._waiters)

    def sent(self) -> list[Waiter]:
        """Those whose task has been sent, or is just being sent."""
        with self._lock:
            return [waiter for waiter in self._waiters.values() if waiter.request is not None]

    @property
    def given_up(self) -> bool:
        """Whether nobody waits any more, because the process stops."""
        return self._given_up

    @contextmanager
    def expecting(self, request_id: UUID) -> Iterator[Waiter]:
        """Register a wait, before its task is sent, so that no result can come too early; forgotten on leaving."""
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

    def resolve(self, result: RecognitionResult) -> bool:
        """Hand a result to whoever waits for it; whether anybody does."""
        with self._lock:
            waiter = self._waiters.get(result.request_id)
        if waiter is None:
            return False
        waiter.end(result)
        return True

    def give_up(self) -> None:
        """End every wait, present and future, without a result."""
        with self._lock:
            self._given_up = True
            waiters = list(self._waiters.values())
        for waiter in waiters:
            waiter.end(None)


def backoff_seconds(failures: int, fraction: Callable[[], float] = random.random) -> float:
    """Doubling from 0.2 s up to 10 s, of which half is chance, so that many processes do not return at once."""
    longest = min(MAX_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2.0 ** min(failures - 1, 10))
    return longest * (0.5 + fraction() / 2)


class InboxWatch(Protocol):
    """Is told what the inbox does; it must be quick, and must not raise."""

    def read(self, *, awaited: int, unexpected: int, at: float) -> None:
        """The queue has answered, at a time in seconds since the epoch, with results that had a waiter or none."""

    def failed(self) -> None:
        """The queue could not be read."""


class _Nobody:
    def read(self, *, awaited: int, unexpected: int, at: float) -> None:
        """Forget it."""

    def failed(self) -> None:
        """Forget it."""


NOBODY: InboxWatch = _Nobody()
"""Nobody listens."""


class InboxThread:
    """Long-polls one response queue and resolves waiters; survives every outage, and tells of each once.

    Everything received is deleted, also results that nobody waits for: the stored result stays. `stop` lets a running
    long poll end by itself, in the background: whatever it still receives is delivered again or lies in the store.
    """

    def __init__(
        self,
        inbox: ResultInbox,
        waiters: Waiters,
        *,
        poll_seconds: float,
        backoff: Callable[[int], float] = backoff_seconds,
        clock: Callable[[], float] = time.monotonic,
        watch: InboxWatch = NOBODY,
    ) -> None:
        self._inbox = inbox
        self._waiters = waiters
        self._poll_seconds = poll_seconds
        self._backoff = backoff
        self._clock = clock
        self._watch = watch
        self._stopping = threading.Event()
        self._problem: str | None = "has not read anything yet"
        self._heard_at = clock()
        self._recoveries = 0
        self._thread = threading.Thread(target=self._run, name="inbox", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._heard_at = self._clock()
        self._problem = None
        self._thread.start()

    def stop(self, timeout_seconds: float = 0.0) -> bool:
        """Begin no further poll; whether the thread has ended within the time-out."""
        self._stopping.set()
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    @property
    def recoveries(self) -> int:
        """How many outages have ended: what was sent meanwhile may be lost."""
        return self._recoveries

    def check(self) -> None:
        """Raise `FacerecError` with the reason when results do not come in."""
        if self._problem is not None:
            raise FacerecError(self._problem)
        if not self._thread.is_alive():
            raise FacerecError("the inbox thread has ended")
        silent = self._clock() - self._heard_at
        if silent > SILENCE_SECONDS:
            raise FacerecError(f"the response queue has not answered for {silent:.0f} s")

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            try:
                self._read()
            except Exception as exc:  # noqa: BLE001 - without this thread every upload would wait in vain
                failures += 1
                self._failed(exc, failures)
                self._stopping.wait(self._backoff(failures))
            else:
                if failures:
                    log.info("inbox_recovered", failures=failures)
                    self._recoveries += 1
                failures = 0
                self._problem = None
                self._heard_at = self._clock()

    def _read(self) -> None:
        deliveries = self._inbox.receive(self._poll_seconds)
        unexpected = [d for d in deliveries if not self._waiters.resolve(d.result)]
        for delivery in unexpected:
            log.debug("result_unexpected", request_id=str(delivery.result.request_id))
        self._watch.read(awaited=len(deliveries) - len(unexpected), unexpected=len(unexpected), at=time.time())
        if deliveries:
            self._inbox.delete(deliveries)

    def _failed(self, exc: Exception, failures: int) -> None:
        self._watch.failed()
        self._problem = str(exc) or type(exc).__name__
        if failures == 1:
            ours = isinstance(exc, FacerecError)
            log.error("inbox_unreachable", reason=self._problem, exc_info=None if ours else exc)
