"""Stop signals, backoff, the outage log and the background thread."""

import signal
import threading
from collections.abc import Iterator

import pytest
import structlog
from structlog.testing import capture_logs

from facerec.background import BackgroundThread, OutageLog, backoff_seconds, on_stop_signals

STOP_SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture
def handlers() -> Iterator[None]:
    """Put the signal handlers back at the end."""
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
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
    structlog.reset_defaults()
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
