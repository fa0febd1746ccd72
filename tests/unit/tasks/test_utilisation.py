"""What a worker says of its own business, with clocks that the test sets."""

from contextlib import AbstractContextManager

import pytest

from facerec.messages import WorkerReport, WorkerState
from tasks.utilisation import Utilisation

START = 1_700_000_000.0


class Day:
    """A utilisation whose two clocks start at different times and go together."""

    def __init__(self, engines: int) -> None:
        self.seconds = 0.0
        self.set_by = 0.0
        self.utilisation = Utilisation(
            engines, now=lambda: START + self.set_by + self.seconds, monotonic=lambda: 77 + self.seconds
        )
        self._tasks: list[AbstractContextManager[None]] = []

    def at(self, seconds: float) -> "Day":
        """Let time pass until then."""
        self.seconds = seconds
        return self

    def take(self) -> None:
        """Begin a task."""
        self._tasks.append(self.utilisation.hold())
        self._tasks[-1].__enter__()

    def finish(self) -> None:
        """End the oldest task."""
        self._tasks.pop(0).__exit__(None, None, None)

    def fail(self) -> None:
        """End the oldest task with an exception."""
        fault = ValueError("told to fail")
        assert not self._tasks.pop(0).__exit__(ValueError, fault, None)

    def report(self) -> WorkerReport:
        """What it says now."""
        return self.utilisation.report("i-1", WorkerState.READY, interrupted=False)


def test_new_worker_is_idle_since_it_is_ready() -> None:
    """It has done nothing."""
    day = Day(engines=2)
    assert day.at(5).report() == WorkerReport(
        instance_id="i-1",
        state=WorkerState.READY,
        ready_at=START,
        reported_at=START + 5,
        held=0,
        idle_since=START,
        tasks_done=0,
        saturated_seconds=0.0,
        saturated_tasks=0,
    )


def test_worker_is_idle_from_the_end_of_its_last_task() -> None:
    """Not while it holds one."""
    day = Day(engines=1)
    day.at(1).take()
    day.at(2).take()
    day.at(3).finish()
    assert (day.report().held, day.report().idle_since) == (1, None)
    day.at(4).finish()
    assert (day.at(9).report().idle_since, day.utilisation.idle_since) == (START + 4, START + 4)


@pytest.mark.parametrize("set_by", [3600.0, -3600.0])
def test_set_clock_does_not_change_the_idle_time(set_by: float) -> None:
    """As at a boot: ten seconds are ten seconds by either clock."""
    day = Day(engines=1)
    day.at(1).take()
    day.at(5).finish()
    day.set_by = set_by
    for _ in range(2):
        said = day.at(15).report()
        assert (said.reported_at, said.idle_since) == (START + set_by + 15, START + set_by + 5)


def test_saturated_time_is_added_up_exactly() -> None:
    """While at least as many tasks are held as there are engines, up to the moment of the report."""
    day = Day(engines=2)
    day.at(1).take()
    day.at(2).take()  # saturated from here
    day.at(5).take()
    assert day.at(6).report().saturated_seconds == pytest.approx(4)
    day.at(7).finish()
    day.at(8).finish()  # to here
    day.at(10).take()  # and again from here
    assert day.at(10.5).report().saturated_seconds == pytest.approx(6.5)
    day.at(11).finish()
    day.at(20).finish()
    last = day.at(30).report()
    assert last.saturated_seconds == pytest.approx(7)
    assert (last.saturated_tasks, last.tasks_done) == (3, 4)


def test_failed_task_is_not_done() -> None:
    """It is delivered again, and counted when it succeeds."""
    day = Day(engines=1)
    day.take()
    day.fail()
    assert (day.report().held, day.report().tasks_done, day.report().saturated_tasks) == (0, 0, 0)


def test_change_between_busy_and_idle_sets_the_event() -> None:
    """Further tasks of a busy worker do not."""
    day = Day(engines=1)
    turned = day.utilisation.changed
    for change, told in ((day.take, True), (day.take, False), (day.finish, False), (day.finish, True)):
        turned.clear()
        change()
        assert turned.is_set() is told


def test_waiting_task_is_held_but_not_worked_on() -> None:
    """An outage is no measure of the worker's speed: only the last second was work."""
    day = Day(engines=1)
    day.at(1).take()
    with day.utilisation.pausing():
        day.at(600)
        assert (day.report().held, day.report().idle_since, day.report().saturated_seconds) == (1, None, 0)
    day.at(601).finish()
    assert (day.report().tasks_done, day.report().saturated_tasks, day.report().saturated_seconds) == (1, 1, 1)
