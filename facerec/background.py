"""What every loop needs: stop signals, a thread that stops, the wait after failures, and one log line per outage."""

import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

import structlog

log = structlog.get_logger(__name__)


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
