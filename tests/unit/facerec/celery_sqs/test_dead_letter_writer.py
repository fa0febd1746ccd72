"""What is put into the dead-letter queue beside the event loop."""

import threading
from datetime import datetime
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from facerec.celery_sqs.dead_letter_writer import CastOff, CastOffs
from facerec.errors import ConfigurationError, QueueMissing, Transient
from tasks.metrics import WorkerMetrics


class DeadLetters:
    """Keeps what is put; raises the `faults` first, one a call."""

    def __init__(self, *faults: Exception) -> None:
        self.faults = list(faults)
        self.kept: list[tuple[str, str]] = []

    def put(self, body: str, *, reason: str, request_id: str, failed_at: datetime) -> None:
        """As the real one."""
        assert request_id
        assert failed_at.tzinfo is not None
        if self.faults:
            raise self.faults.pop(0)
        self.kept.append((body, reason))


class Ends:
    """How each ended."""

    def __init__(self) -> None:
        self.stored: list[str] = []
        self.left: list[str] = []
        self._changed = threading.Condition()

    def store(self, castoff: CastOff) -> None:
        """It is in the dead-letter queue."""
        self._note(self.stored, castoff)

    def leave(self, castoff: CastOff) -> None:
        """It is not."""
        self._note(self.left, castoff)

    def wait_for(self, count: int) -> None:
        """Return when that many have ended."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.stored) + len(self.left) >= count, 30)

    def _note(self, ends: list[str], castoff: CastOff) -> None:
        with self._changed:
            ends.append(castoff.receipt)
            self._changed.notify_all()


def made(dead_letters: DeadLetters, ends: Ends) -> CastOffs:
    """Those under test."""
    return CastOffs(cast("Any", dead_letters), stored=ends.store, left=ends.leave)


def castoff(number: int) -> CastOff:
    """A message."""
    return CastOff(f"body {number}", str(number), "queue", "no task", "request")


def pauses(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Make each pause as long."""
    monkeypatch.setattr("facerec.celery_sqs.dead_letter_writer.pause_seconds", lambda _failures, _luck: seconds)


def test_stores_in_order_and_tells() -> None:
    """Only then may the messages be deleted."""
    dead_letters, ends = DeadLetters(), Ends()
    castoffs = made(dead_letters, ends)
    assert all(castoffs.take(castoff(number)) for number in range(3))
    ends.wait_for(3)
    castoffs.stop()
    assert dead_letters.kept == [("body 0", "no task"), ("body 1", "no task"), ("body 2", "no task")]
    assert (ends.stored, ends.left) == (["0", "1", "2"], [])


def test_whoever_watches_hears_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the worker's metrics count what never became a task."""
    metrics = WorkerMetrics()
    monkeypatch.setattr("facerec.celery_sqs.dead_letter_writer.WATCHERS", {metrics.cast_off})
    ends = Ends()
    castoffs = made(DeadLetters(ConfigurationError("too large")), ends)
    assert all(castoffs.take(castoff(number)) for number in range(3))
    ends.wait_for(3)
    castoffs.stop()
    assert metrics.registry.get_sample_value("facerec_worker_tasks_total", {"outcome": "dead_lettered"}) == 2


def test_waits_for_a_queue_that_is_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so once, and goes on with the same message."""
    pauses(monkeypatch, 0.001)
    dead_letters, ends = DeadLetters(Transient("down"), QueueMissing("dlq"), Transient("down")), Ends()
    castoffs = made(dead_letters, ends)
    with capture_logs() as logs:
        castoffs.take(castoff(1))
        ends.wait_for(1)
    castoffs.stop()
    assert ends.stored == ["1"]
    assert [entry["event"] for entry in logs] == ["dead_letters_unreachable", "dead_lettered"]


def test_goes_on_after_what_nobody_foresaw(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that botocore cannot read must not leave all garbage hidden for ever."""
    pauses(monkeypatch, 0.001)
    ends = Ends()
    castoffs = made(DeadLetters(AttributeError("no dict"), UnicodeDecodeError("utf-8", b"", 0, 1, "no text")), ends)
    with capture_logs() as logs:
        castoffs.take(castoff(1))
        ends.wait_for(1)
    castoffs.stop()
    assert ends.stored == ["1"]
    assert [entry["event"] for entry in logs] == ["dead_letters_unreachable", "dead_lettered"]


def test_what_is_refused_is_left_in_its_queue() -> None:
    """It may be too large for another queue; those behind it need not wait."""
    ends = Ends()
    castoffs = made(DeadLetters(ConfigurationError("too large")), ends)
    castoffs.take(castoff(1))
    castoffs.take(castoff(2))
    ends.wait_for(2)
    castoffs.stop()
    assert (ends.left, ends.stored) == (["1"], ["2"])


def test_an_end_leaves_what_is_not_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not wait for the dead-letter queue; nothing is taken any more."""
    pauses(monkeypatch, 600)
    ends = Ends()
    castoffs = made(DeadLetters(*[Transient("down")] * 9), ends)
    castoffs.take(castoff(1))
    castoffs.take(castoff(2))
    castoffs.stop()
    assert (ends.left, ends.stored) == (["1", "2"], [])
    assert not castoffs.take(castoff(3))


def test_no_more_than_a_hundred_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of garbage does not fill the memory while there is nowhere to put it."""
    pauses(monkeypatch, 600)
    castoffs = made(DeadLetters(*[Transient("down")] * 9), Ends())
    assert [castoffs.take(castoff(number)) for number in range(101)] == [True] * 100 + [False]
    castoffs.stop()
