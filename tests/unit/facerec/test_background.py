"""Stop signals, backoff, the outage log and the background thread."""

import signal
import threading
from collections.abc import Iterator

import pytest

from facerec.background import BackgroundQueue, BackgroundThread, OutageLog, backoff_seconds, on_stop_signals
from tests.support.logs import capture_logs

STOP_SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture
def handlers() -> Iterator[None]:
    """Put the signal handlers back at the end; the test run itself may ignore SIGHUP (`nohup`)."""
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", STOP_SIGNALS)
@pytest.mark.usefixtures("handlers")
def test_second_stop_signal_ends_the_process_at_once(number: signal.Signals) -> None:
    """The first one asks for the orderly end."""
    stopped = threading.Event()
    on_stop_signals(stopped.set)
    signal.raise_signal(number)
    assert stopped.is_set()
    with pytest.raises(SystemExit, match="asked twice"):
        signal.raise_signal(number)


@pytest.mark.usefixtures("handlers")
def test_later_stop_signals_call_what_was_asked_for() -> None:
    """As in a local system, whose end must not be interrupted."""
    calls: list[str] = []
    on_stop_signals(lambda: calls.append("first"), second=lambda: calls.append("later"))
    for number in STOP_SIGNALS:
        signal.raise_signal(number)
    assert calls == ["first", "later", "later"]


@pytest.mark.usefixtures("handlers")
def test_ignored_hangup_stays_ignored() -> None:
    """As after `nohup`."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    on_stop_signals(lambda: None)
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


@pytest.mark.parametrize(("failures", "seconds"), [(1, 0.5), (2, 1), (5, 8), (6, 10), (1000, 10)])
def test_backoff_doubles_up_to_the_longest_wait(failures: int, seconds: float) -> None:
    """Without jitter."""
    assert backoff_seconds(failures, 0) == seconds


def test_jitter_takes_off_up_to_half() -> None:
    """So that callers that failed together spread."""
    assert backoff_seconds(1, 1, first=2, longest=60) == 1
    assert backoff_seconds(9, 1, first=2, longest=60) == 30


def test_outage_is_logged_once_and_so_is_its_end() -> None:
    """With the reason, the number of failures and the bound fields."""
    with capture_logs() as logs:
        outage = OutageLog("store", bucket="b")
        outage.succeeded()
        outage.failed(TimeoutError())
        outage.failed("refused")
        outage.succeeded()
        outage.succeeded()
    assert logs == [
        {"event": "store_unreachable", "log_level": "warning", "bucket": "b", "reason": "TimeoutError()"},
        {"event": "store_reachable_again", "log_level": "info", "bucket": "b", "failures": 2},
    ]


def test_background_thread_starts_again_after_a_stop() -> None:
    """It sets the event and joins."""
    runs = []

    def work(stopping: threading.Event) -> None:
        runs.append(threading.current_thread().name)
        stopping.wait()

    thread = BackgroundThread("worker", work)
    assert thread.stop()
    for _ in range(2):
        thread.start()
        thread.start()
        assert thread.stop()
    assert runs == ["worker", "worker"]


def test_stop_says_that_the_thread_still_runs() -> None:
    """After the timeout, so that the caller can log it."""
    release = threading.Event()

    def work(_stopping: threading.Event) -> None:
        release.wait()

    thread = BackgroundThread("busy", work)
    thread.start()
    assert not thread.stop(0.01)
    release.set()
    assert thread.stop()


class Work:
    """Notes the batches; fails as long as there are `faults`."""

    def __init__(self, *faults: Exception) -> None:
        self.faults = list(faults)
        self.done: list[int] = []
        self.batches: list[list[int]] = []
        self._changed = threading.Condition()

    def __call__(self, batch: list[int]) -> None:
        with self._changed:
            self.batches.append(list(batch))
            self._changed.notify_all()
            while batch:
                if self.faults and batch[0] != 0:
                    raise self.faults.pop(0)
                self.done.append(batch.pop(0))

    def wait_for(self, count: int) -> None:
        """Return when so many batches have begun."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.batches) >= count, 30)


def test_queue_hands_over_a_full_batch_at_once() -> None:
    """The others wait for the end of their window, or for the stop."""
    work = Work()
    queue = BackgroundQueue("things", work, window_seconds=600, full=3)
    for number in range(3):
        assert queue.put(number)
    work.wait_for(1)
    assert queue.put(3)
    assert queue.stop() == []
    assert work.batches == [[0, 1, 2], [3]]
    assert not queue.put(4)


def test_queue_tries_again_what_failed_and_logs_it_once() -> None:
    """What was finished before the failure is not done twice."""
    work = Work(ValueError("down"), KeyError("down"))
    queue = BackgroundQueue("things", work, window_seconds=600, full=3, backoff=lambda *_: 0.001)
    with capture_logs() as logs:
        for number in range(3):
            queue.put(number)
        work.wait_for(3)
        assert queue.stop() == []
    assert work.batches == [[0, 1, 2], [1, 2], [1, 2]]
    assert work.done == [0, 1, 2]
    assert [entry["event"] for entry in logs] == ["things_unreachable", "things_reachable_again"]


def test_stopped_queue_tries_once_more_and_returns_what_is_left() -> None:
    """It does not wait for the backoff."""
    work = Work(*[ValueError("down")] * 9)
    queue = BackgroundQueue("things", work, backoff=lambda *_: 600)
    queue.put(1)
    work.wait_for(1)
    queue.put(2)
    assert queue.stop() == [1, 2]
    assert len(work.batches) == 2


def test_full_queue_drops_the_oldest() -> None:
    """Of those that wait, not of those that are being worked on."""
    dropped: list[int] = []
    queue = BackgroundQueue("things", Work(), window_seconds=600, full=9, max_waiting=2, dropped=dropped.append)
    for number in range(4):
        queue.put(number)
    assert dropped == [0, 1]
    assert queue.stop() == []


def test_unused_queue_stops_without_a_thread() -> None:
    """It has nothing to do."""
    assert BackgroundQueue("things", Work()).stop() == []
