"""What a worker does with its reports' answers, on reports in memory."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from facerec.celery_sqs.consumer_gate import Intake
from facerec.errors import ConfigurationError, FacerecError, Transient
from facerec.messages import WorkerState
from facerec.processes.addresses import poll_until
from tasks.heartbeat import Reporter, due_in
from tasks.utilisation import Occupancy
from tests.fakes.worker_reports import READY, InMemoryWorkerReports

ID = "i-1"


class Instance:
    """A worker's reporter with all that it talks to; `every_seconds` is so long that only news are reported."""

    def __init__(self, every_seconds: float = 3000, patience_seconds: float = 3000) -> None:
        self.reports = InMemoryWorkerReports()
        self.occupancy = Occupancy(engines=1)
        self.intake = Intake()
        self.interrupted = False
        self.reporter = Reporter(
            self.reports,
            ID,
            self.occupancy,
            self.intake,
            every_seconds=every_seconds,
            interrupted=lambda: self.interrupted,
            patience_seconds=patience_seconds,
        )

    @property
    def takes(self) -> bool:
        """Whether a receive may begin."""
        receiver = object()
        begun = self.intake.begin(receiver)
        self.intake.end(receiver)
        return begun

    @property
    def state(self) -> WorkerState | None:
        """What the autoscaler reads."""
        registration = self.reports.registrations().get(ID)
        return registration.report.state if registration and registration.report else None

    def tell(self) -> WorkerState | None:
        """Report twice: what the first answer leads to is in the second report."""
        self.reporter.tell()
        self.reporter.tell()
        return self.state


@pytest.fixture
def instance() -> Instance:
    """One that reports when the test says so."""
    return Instance()


@pytest.fixture
def running() -> Iterator[Instance]:
    """One whose reporter runs."""
    instance = Instance()
    instance.reporter.start()
    yield instance
    instance.reporter.stop()


def test_an_order_closes_the_intake_until_it_is_taken_back(instance: Instance) -> None:
    """An idle worker is drained at once."""
    assert instance.tell() is WorkerState.READY
    assert instance.takes
    instance.reports.order_drain(ID, 1.0)
    assert instance.tell() is WorkerState.DRAINED
    assert not instance.takes
    instance.reports.cancel_drain(ID)
    assert instance.tell() is WorkerState.READY
    assert instance.takes


def test_a_worker_drains_while_it_holds_a_task_or_may_get_one(instance: Instance) -> None:
    """A receive that was open when the order came may still bring something."""
    instance.reports.order_drain(ID, 1.0)
    assert instance.intake.begin("receiver")
    assert instance.tell() is WorkerState.DRAINING
    with instance.occupancy.holding():
        instance.intake.end("receiver")
        assert instance.tell() is WorkerState.DRAINING
    assert instance.tell() is WorkerState.DRAINED


def test_a_worker_that_loses_its_instance_drains_by_itself(instance: Instance) -> None:
    """Whatever it is asked, and even while nobody can be asked."""
    instance.reports.outage = Transient("down")
    instance.interrupted = True
    instance.reporter.tell()
    assert not instance.takes
    instance.reports.outage = None
    instance.interrupted = False  # a notice is for good
    assert instance.tell() is WorkerState.DRAINED
    report = instance.reports.registrations()[ID].report
    assert report is not None
    assert report.interrupted


def test_a_worker_that_ends_says_so(instance: Instance) -> None:
    """It takes no more tasks then; it is not drained before it has gone."""
    instance.reporter.leave()
    assert instance.tell() is WorkerState.DRAINING


@pytest.mark.parametrize("outage", [Transient("down"), ConfigurationError("no such table"), KeyError("Attributes")])
def test_an_outage_is_logged_once_and_its_end_once(instance: Instance, outage: Exception) -> None:
    """The worker goes on as it was told last; what it says then is what is true then."""
    instance.reports.order_drain(ID, 1.0)
    instance.tell()
    instance.reports.outage = outage
    with capture_logs() as logs:
        for _ in range(3):
            instance.reporter.tell()
        assert not instance.takes
        instance.reports.outage = None
        instance.reports.cancel_drain(ID)
        assert instance.tell() is WorkerState.READY
    assert [entry["event"] for entry in logs] == ["not_reported", "reporting_again", "worker_state"]
    assert logs[0]["exc_info"] is (None if isinstance(outage, FacerecError) else outage)


def test_a_fault_in_the_look_for_an_interruption_is_logged_once(instance: Instance) -> None:
    """The reports go out all the same."""
    fault = ValueError("told to fail")

    def fail() -> bool:
        raise fault

    instance.reporter._look_for_interruption = fail
    with capture_logs() as logs:
        assert instance.tell() is WorkerState.READY
    assert [(entry["event"], entry["exc_info"]) for entry in logs] == [("interruption_unknown", fault)]


def test_a_start_waits_for_the_first_answer() -> None:
    """When `start` returns the intake is as it was told; where no answer can be expected, tasks are taken."""
    for outage, ordered in ((None, True), (None, False), (ConfigurationError("no such table"), False)):
        instance = Instance()
        if ordered:
            instance.reports.order_drain(ID, 1.0)
        instance.reports.outage = outage
        instance.reporter.start()
        assert instance.takes is not ordered
        instance.reporter.stop()


@pytest.mark.parametrize("ordered", [True, False])
def test_no_task_is_taken_before_a_slow_first_answer(ordered: bool, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: FBT001 - a parameter of the test
    """Its instance may be terminated at any moment: one that was to drain and never reported counts as drained."""
    monkeypatch.setattr("tasks.heartbeat._FIRST_ANSWER_SECONDS", 0)
    instance = Instance()
    if ordered:
        instance.reports.order_drain(ID, 1.0)
    with instance.reports.hanging():
        instance.reporter.start()
        assert not instance.takes
    assert poll_until(lambda: instance.state is (WorkerState.DRAINED if ordered else WorkerState.READY), 10)
    assert poll_until(lambda: instance.takes is not ordered, 10)
    instance.reporter.stop()


def test_tasks_are_taken_when_no_answer_has_come_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker says so; an order that comes after all still holds."""
    monkeypatch.setattr("tasks.heartbeat._FIRST_ANSWER_SECONDS", 0)
    instance = Instance(patience_seconds=0.01)
    instance.reports.order_drain(ID, 1.0)
    with instance.reports.hanging(), capture_logs() as logs:
        instance.reporter.start()
        assert poll_until(lambda: instance.takes, 10)
    assert [entry["event"] for entry in logs] == ["report_pending"]
    assert poll_until(lambda: instance.state is WorkerState.DRAINED, 10)
    assert not instance.takes
    instance.reporter.stop()


def test_news_are_reported_at_once(running: Instance) -> None:
    """Busy, idle, drained: without waiting for the next regular report; at last that the worker has ended."""

    def held() -> int | None:
        report = running.reports.registrations()[ID].report
        return None if report is None else report.held

    with running.occupancy.holding():
        assert poll_until(lambda: held() == 1, 10)
        running.reports.order_drain(ID, 1.0)
    assert poll_until(lambda: held() == 0 and running.state is WorkerState.DRAINED, 10)
    running.reporter.stop()
    assert running.state is WorkerState.ENDED


def test_a_waiting_worker_learns_of_an_order_before_it_waits_again(running: Instance) -> None:
    """It need not wait for a whole further long poll; when it has just asked, it goes on at once."""
    running.reports.order_drain(ID, 1.0)
    running.reporter._every_seconds = 0.0001  # what was said is old enough to be asked again
    assert running.intake.begin("receiver")
    running.intake.end("receiver", empty=True)
    assert poll_until(lambda: running.state is WorkerState.DRAINED, 10)


@pytest.mark.parametrize("outage", [Transient("down"), KeyError("Attributes")])
def test_reporting_goes_on_after_an_outage(outage: Exception) -> None:
    """Nobody needs to be told, whatever the fault was; one at the very end is logged, too."""
    instance = Instance(every_seconds=0.01)
    instance.reports.outage = outage
    instance.reporter.start()
    assert not instance.takes
    instance.reports.outage = None
    assert poll_until(lambda: instance.takes, 10)
    assert instance.state is WorkerState.READY
    instance.reports.outage = outage
    with capture_logs() as logs:
        instance.reporter.stop()
    assert logs[-1]["event"] == "end_not_reported"


def test_when_a_report_is_due() -> None:
    """A new state at once; busy or idle after a moment, so that a trickle of tasks makes no flood; else in time."""
    busy = replace(READY, held=1, idle_since=None)
    more = replace(READY, tasks_done=9, reported_at=READY.reported_at + 1)
    drained = replace(READY, state=WorkerState.DRAINED)
    assert due_in(READY, drained, 0, 1) <= 0
    assert due_in(READY, busy, 0, 1) == pytest.approx(0.2)
    assert due_in(busy, READY, 0.3, 1) <= 0
    assert due_in(READY, replace(READY, idle_since=READY.reported_at + 0.05), 0.3, 1) <= 0  # busy in between
    assert due_in(READY, more, 0.3, 1) == pytest.approx(0.7)
    assert due_in(READY, busy, 0, 0.1) == pytest.approx(0.1)
