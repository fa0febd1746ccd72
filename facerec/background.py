"""What every loop needs: stop signals, a thread, a queue before it, backoff, and one log line per outage."""

import random
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable
from types import FrameType
from typing import Generic, TypeVar

import structlog

log = structlog.get_logger(__name__)

T = TypeVar("T")


def _leave() -> None:
    sys.exit("stopped at once, as asked twice")


def on_stop_signals(stop: Callable[[], None], *, second: Callable[[], None] = _leave) -> None:
    """Call `stop` at the first SIGINT, SIGTERM or SIGHUP, and `second` at each later one; only in the main thread.

    By default the second one ends the process at once. A SIGHUP that is ignored (`nohup`) stays ignored.
    """
    stopping = False

    def handle(_number: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        if stopping:
            second()
        else:
            stopping = True
            stop()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handle)


def backoff_seconds(failures: int, jitter: float, *, first: float = 0.5, longest: float = 10.0) -> float:
    """Return the wait after `failures` failures in a row (1 or more), exponential with jitter.

    It is `first` seconds, then twice as long each time, up to `longest`. `jitter`, from 0 to 1, takes off up to half:
    callers that failed together do not try again together.
    """
    doublings = min(failures - 1, 30)
    return float(min(first * 2**doublings, longest) * (1 - jitter / 2))


class OutageLog:
    """Logs the start of an outage once, and its end once; for one thread at a time.

    The events are `<subject>_unreachable` (warning, with the reason) and `<subject>_reachable_again` (info, with the
    number of failures). `fields` are bound to both.
    """

    def __init__(self, subject: str, **fields: object) -> None:
        self._subject = subject
        self._log = log.bind(**fields)
        self.failures = 0
        """How many attempts have failed in a row; 0 while the service answers."""

    def failed(self, reason: BaseException | str) -> None:
        """Count a failed attempt; the first one in a row is logged."""
        self.failures += 1
        if self.failures == 1:
            self._log.warning(f"{self._subject}_unreachable", reason=str(reason) or repr(reason))

    def succeeded(self) -> None:
        """End the outage, if there is one."""
        if self.failures:
            self._log.info(f"{self._subject}_reachable_again", failures=self.failures)
        self.failures = 0


class BackgroundThread:
    """A daemon thread that runs `work` with an event; `work` returns soon after the event is set.

    `start` may be called several times by one thread, `stop` several times by any thread.
    """

    def __init__(self, name: str, work: Callable[[threading.Event], None]) -> None:
        self._name = name
        self._work = work
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread if it does not run."""
        if self._thread is None:
            self._stopping.clear()
            thread = threading.Thread(target=self._work, args=(self._stopping,), name=self._name, daemon=True)
            thread.start()
            self._thread = thread

    def stop(self, timeout_seconds: float | None = None) -> bool:
        """Set the event and wait for the thread; returns whether it has ended."""
        self._stopping.set()
        thread = self._thread
        if thread is None:
            return True
        thread.join(timeout_seconds)
        if thread.is_alive():
            return False
        self._thread = None
        return True


class BackgroundQueue(Generic[T]):
    """Hands items in batches to `work`, in a background thread that starts with the first item; safe for many threads.

    A batch is what has come `window_seconds` after its first item, or as soon as `full` items wait. `work` removes from
    the list that it gets what it has finished. It may raise: what is left in the list is tried again after a backoff,
    before anything else. An outage is logged as by `OutageLog(subject)`. Beyond `max_waiting` items the oldest is
    dropped, and handed to `dropped`.
    """

    def __init__(
        self,
        subject: str,
        work: Callable[[list[T]], None],
        *,
        window_seconds: float = 0.0,
        full: int = 1,
        max_waiting: int | None = None,
        dropped: Callable[[T], None] = lambda _: None,
        backoff: Callable[[int, float], float] = backoff_seconds,
    ) -> None:
        self._work = work
        self._window_seconds = window_seconds
        self._full = full
        self._max_waiting = max_waiting
        self._dropped = dropped
        self._backoff = backoff
        self._outage = OutageLog(subject)
        self._waiting: deque[T] = deque()
        self._left: list[T] = []
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = BackgroundThread(subject, self._run)

    def put(self, item: T) -> bool:
        """Have the item worked on soon; returns whether it was taken, which it is not after `stop`."""
        with self._changed:
            if self._stopped:
                return False
            self._waiting.append(item)
            if len(self._waiting) - 1 == self._max_waiting:
                self._dropped(self._waiting.popleft())
            self._thread.start()
            if len(self._waiting) in {1, self._full}:
                self._changed.notify_all()
            return True

    def stop(self, timeout_seconds: float | None = None) -> list[T]:
        """Work on what waits as long as that succeeds; returns what is left over."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.stop(timeout_seconds)
        with self._changed:
            return [*self._left, *self._waiting]

    def _run(self, _stopping: threading.Event) -> None:
        while batch := self._next_batch():
            while True:
                last = self._stopped
                try:
                    self._work(batch)
                except Exception as exc:  # noqa: BLE001 - whatever it is, it must not end the thread
                    self._outage.failed(exc)
                else:
                    self._outage.succeeded()
                    break
                with self._changed:
                    if last:
                        self._left = batch
                        return
                    pause = self._backoff(self._outage.failures, random.random())  # noqa: S311 - no secret
                    self._changed.wait_for(lambda: self._stopped, pause)

    def _next_batch(self) -> list[T]:
        """The items of the next window; none when there will be no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._stopped)
            self._changed.wait_for(lambda: len(self._waiting) >= self._full or self._stopped, self._window_seconds)
            batch = list(self._waiting)
            self._waiting.clear()
            return batch
