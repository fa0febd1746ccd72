"""A worker's heartbeat, on reports in memory."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from facerec.celery_sqs.consumer_gate import ConsumerGate
from facerec.errors import ConfigurationError, Transient
from facerec.messages import WorkerState
from facerec.processes.addresses import poll_until
from tasks.heartbeat import WorkerHeartbeat, due_in
from tasks.utilisation import Utilisation
from tests.fakes.worker_reports import READY, InMemoryWorkerReports
from tests.support.logs import capture_logs

ID = "i-1"


class Instance:
    """A worker's heartbeat with all that it talks to; `every_seconds` is so long that only changes are reported."""

    def __init__(self, every_seconds: float = 3000, first_answer_seconds: float = 3000) -> None:
        self.reports = InMemoryWorkerReports()
        self.utilisation = Utilisation(engines=1)
        self.gate = ConsumerGate()
        self.interrupted = False
        self.heartbeat = WorkerHeartbeat(
            self.reports,
            ID,
            self.utilisation,
            self.gate,
            every_seconds=every_seconds,
            interrupted=lambda: self.interrupted,
            first_answer_seconds=first_answer_seconds,
        )

    @property
    def takes(self) -> bool:
        """Whether a receive may begin."""
        begun = self.gate.begin_receive("queue")
        self.gate.end_receive("queue")
        return begun

    @property
    def state(self) -> WorkerState | None:
        """What the autoscaler reads."""
        record = self.reports.records([ID]).get(ID)
        return record.report.state if record and record.report else None

    def beat_twice(self) -> WorkerState | None:
        """Report twice: what the first answer leads to is in the second report."""
        self.heartbeat.beat()
        self.heartbeat.beat()
        return self.state


@pytest.fixture
def instance() -> Instance:
    """One that reports when the test says so."""
    return Instance()


@pytest.fixture
def running() -> Iterator[Instance]:
    """One whose heartbeat runs."""
    instance = Instance()
    instance.heartbeat.start()
    yield instance
    instance.heartbeat.stop()


def test_order_to_drain_pauses_the_gate_until_it_is_withdrawn(instance: Instance) -> None:
    """An idle worker is drained at once."""
    assert instance.beat_twice() is WorkerState.READY
    assert instance.takes
    instance.reports.order_drain(ID, 1.0)
    assert instance.beat_twice() is WorkerState.DRAINED
    assert not instance.takes
    instance.reports.cancel_drain(ID)
    assert instance.beat_twice() is WorkerState.READY
    assert instance.takes


def test_worker_is_draining_while_it_holds_a_task_or_may_get_one(instance: Instance) -> None:
    """A receive that was open when the order came may still bring something."""
    instance.reports.order_drain(ID, 1.0)
    assert instance.gate.begin_receive("queue")
    assert instance.beat_twice() is WorkerState.DRAINING
    with instance.utilisation.hold():
        instance.gate.end_receive("queue")
        assert instance.beat_twice() is WorkerState.DRAINING
    assert instance.beat_twice() is WorkerState.DRAINED


def test_worker_that_loses_its_instance_drains_without_an_order(instance: Instance) -> None:
    """Whatever its orders are, and also while the table is out of reach."""
    instance.reports.outage = Transient("down")
    instance.interrupted = True
    instance.heartbeat.beat()
    assert not instance.takes
    instance.reports.outage = None
    instance.interrupted = False  # a notice is never withdrawn
    assert instance.beat_twice() is WorkerState.DRAINED
    report = instance.reports.records([ID])[ID].report
    assert report is not None
    assert report.interrupted


def test_ending_worker_reports_that_it_drains(instance: Instance) -> None:
    """It is not drained before it has ended."""
    instance.heartbeat.leave()
    assert instance.beat_twice() is WorkerState.DRAINING


@pytest.mark.parametrize("outage", [Transient("down"), ConfigurationError("no such table"), KeyError("Attributes")])
def test_outage_is_logged_once_and_its_end_once(instance: Instance, outage: Exception) -> None:
    """The worker keeps its last orders; the first report after the outage is up to date."""
    instance.reports.order_drain(ID, 1.0)
    instance.beat_twice()
    instance.reports.outage = outage
    with capture_logs() as logs:
        for _ in range(3):
            instance.heartbeat.beat()
        assert not instance.takes
        instance.reports.outage = None
        instance.reports.cancel_drain(ID)
        assert instance.beat_twice() is WorkerState.READY
    events = [entry["event"] for entry in logs]
    assert events == ["fleet_table_unreachable", "fleet_table_reachable_again", "worker_state"]


def test_start_waits_for_the_first_answer() -> None:
    """When `start` returns the gate is as ordered; if no answer can be expected, tasks are taken."""
    for outage, ordered in ((None, True), (None, False), (ConfigurationError("no such table"), False)):
        instance = Instance()
        if ordered:
            instance.reports.order_drain(ID, 1.0)
        instance.reports.outage = outage
        instance.heartbeat.start()
        assert instance.takes is not ordered
        instance.heartbeat.stop()


@pytest.mark.parametrize("ordered", [True, False])
def test_no_task_is_taken_before_a_slow_first_answer(ordered: bool, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: FBT001 - a parameter of the test
    """Its instance may be terminated at any moment: one that was to drain and never reported counts as drained."""
    monkeypatch.setattr("tasks.heartbeat._START_SECONDS", 0)
    instance = Instance()
    if ordered:
        instance.reports.order_drain(ID, 1.0)
    with instance.reports.hanging():
        instance.heartbeat.start()
        assert not instance.takes
    assert poll_until(lambda: instance.state is (WorkerState.DRAINED if ordered else WorkerState.READY), 10)
    assert poll_until(lambda: instance.takes is not ordered, 10)
    instance.heartbeat.stop()


def test_tasks_are_taken_when_no_answer_comes_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker logs it; an order that comes later still holds."""
    monkeypatch.setattr("tasks.heartbeat._START_SECONDS", 0)
    instance = Instance(first_answer_seconds=0.01)
    instance.reports.order_drain(ID, 1.0)
    with instance.reports.hanging(), capture_logs() as logs:
        instance.heartbeat.start()
        assert poll_until(lambda: instance.takes, 10)
    assert [entry["event"] for entry in logs] == ["report_pending"]
    assert poll_until(lambda: instance.state is WorkerState.DRAINED, 10)
    assert not instance.takes
    instance.heartbeat.stop()


def test_change_of_state_is_reported_at_once(running: Instance) -> None:
    """Busy, idle, drained: without waiting for the next regular report; at last that the worker has ended."""

    def held() -> int | None:
        report = running.reports.records([ID])[ID].report
        return None if report is None else report.held

    with running.utilisation.hold():
        assert poll_until(lambda: held() == 1, 10)
        running.reports.order_drain(ID, 1.0)
    assert poll_until(lambda: held() == 0 and running.state is WorkerState.DRAINED, 10)
    running.heartbeat.stop()
    assert running.state is WorkerState.ENDED


@pytest.mark.parametrize("outage", [Transient("down"), KeyError("Attributes")])
def test_heartbeat_goes_on_after_an_outage(outage: Exception) -> None:
    """Whatever the fault was; one at the very end is logged, too."""
    instance = Instance(every_seconds=0.01)
    instance.reports.outage = outage
    instance.heartbeat.start()
    assert not instance.takes
    instance.reports.outage = None
    assert poll_until(lambda: instance.takes, 10)
    assert instance.state is WorkerState.READY
    instance.reports.outage = outage
    with capture_logs() as logs:
        instance.heartbeat.stop()
    assert logs[-1]["event"] == "end_not_reported"


def test_report_is_due_at_once_soon_or_in_time() -> None:
    """A new state at once; busy or idle after a moment, so that a trickle of tasks makes no flood."""
    busy = replace(READY, held=1, idle_since=None)
    more = replace(READY, tasks_done=9, reported_at=READY.reported_at + 1)
    drained = replace(READY, state=WorkerState.DRAINED)
    assert due_in(READY, drained, 0, 1) <= 0
    assert due_in(READY, busy, 0, 1) == pytest.approx(0.2)
    assert due_in(busy, READY, 0.3, 1) <= 0
    assert due_in(READY, replace(READY, idle_since=READY.reported_at + 0.05), 0.3, 1) <= 0  # busy in between
    assert due_in(READY, more, 0.3, 1) == pytest.approx(0.7)
    assert due_in(READY, busy, 0, 0.1) == pytest.approx(0.1)
