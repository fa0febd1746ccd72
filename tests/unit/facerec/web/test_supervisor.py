"""Several web processes: each with a queue of its own, for as long as it lives."""

import errno
import itertools
import os
import subprocess
import threading
from collections.abc import Callable

from facerec.errors import QueueMissing, Transient
from facerec.settings import Settings
from facerec.settings.tiers import WebSettings
from facerec.web.supervisor import WebProcesses


class Queues:
    """Owned queues as a set of names."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.beaten: list[str] = []
        self.reaps = 0
        self.outage = False
        self._ids = itertools.count(1)

    def create(self, owner: str) -> str:
        """Make one."""
        self._check()
        queue = f"{owner}-{next(self._ids)}"
        self.names.add(queue)
        return queue

    def beat(self, queue: str) -> None:
        """Note it."""
        self._check()
        if queue not in self.names:
            raise QueueMissing(queue)
        self.beaten.append(queue)

    def remove(self, queue: str) -> None:
        """Remove one; one that is not there is no error."""
        self._check()
        self.names.discard(queue)

    def reap(self) -> list[str]:
        """Note it."""
        self.reaps += 1
        self._check()
        return []

    def _check(self) -> None:
        if self.outage:
            raise Transient("no route")


class Child:
    """A process that does what it is told; a stubborn one ends only when it is killed."""

    pids = itertools.count(100)

    def __init__(self, queue: str, *, stubborn: bool = False) -> None:
        self.queue = queue
        self.pid = next(self.pids)
        self.status: int | None = None
        self.terminated = False
        self._stubborn = stubborn

    def poll(self) -> int | None:
        """Its status."""
        return self.status

    def terminate(self) -> None:
        """Drain."""
        self.terminated = True
        if not self._stubborn:
            self.status = 0

    def kill(self) -> None:
        """End."""
        self.status = -9

    def wait(self, timeout: float | None = None) -> int:
        """Its status, now or never."""
        if self.status is None:
            raise subprocess.TimeoutExpired("child", timeout or 0)
        return self.status


class House:
    """Two processes with a clock in hand."""

    def __init__(self, *, stubborn: bool = False, ended: Callable[[int], None] = lambda _: None) -> None:
        self.queues = Queues()
        self.children: list[Child] = []
        self.now = 0.0
        self.stubborn = stubborn
        self.crowded = False
        self.processes = WebProcesses(
            Settings(web=WebSettings(processes=2)),
            self.queues,
            self._spawn,
            owner="me",
            ended=ended,
            clock=lambda: self.now,
        )

    def _spawn(self, queue: str) -> Child:
        if self.crowded:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        self.children.append(Child(queue, stubborn=self.stubborn))
        return self.children[-1]

    def look_at(self, now: float) -> None:
        """Let it look at a given time."""
        self.now = now
        self.processes.look()

    def stop(self) -> None:
        """Run with the stop already asked for."""
        stopping = threading.Event()
        stopping.set()
        self.processes.run(stopping)


def test_each_process_has_a_queue_of_its_own() -> None:
    """Results never reach another process."""
    house = House()
    house.look_at(0)
    assert {child.queue for child in house.children} == house.queues.names == {"me-1", "me-2"}


def test_a_clean_stop_leaves_no_queue_behind() -> None:
    """Every child was asked, and has ended."""
    house = House()
    house.look_at(0)
    house.stop()
    assert house.queues.names == set()
    assert all(child.terminated and child.status == 0 for child in house.children)
    assert house.queues.reaps == 1


def test_a_child_that_does_not_leave_is_killed() -> None:
    """And its queue is removed all the same."""
    house = House(stubborn=True)
    house.look_at(0)
    house.stop()
    assert [child.status for child in house.children] == [-9, -9]
    assert house.queues.names == set()


def test_a_child_that_dies_is_replaced_with_a_new_queue() -> None:
    """After a moment, and the old queue is gone; the other child is left alone."""
    house = House()
    house.look_at(0)
    house.children[0].status = -9
    house.look_at(100)
    assert house.queues.names == {"me-2"}
    house.look_at(101)
    assert house.queues.names == {"me-2", "me-3"}
    assert [child.status for child in house.children] == [-9, None, None]


def test_a_full_disk_does_not_end_the_other_child() -> None:
    """What the dead one has counted cannot be written down; it is replaced all the same."""

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    house = House(ended=full)
    house.look_at(0)
    house.children[0].status = -9
    house.look_at(100)
    house.look_at(101)
    assert [(child.status, child.terminated) for child in house.children] == [(-9, False), (None, False), (None, False)]
    assert house.queues.names == {"me-2", "me-3"}


def test_a_machine_that_takes_no_other_process_is_waited_for() -> None:
    """The one that runs serves on, and no queue is left without a process."""
    house = House()
    house.look_at(0)
    house.crowded = True
    house.children[0].status = -9
    house.look_at(100)
    house.look_at(101)
    assert house.queues.names == {"me-2"}
    house.crowded = False
    house.look_at(110)
    assert [child.status for child in house.children] == [-9, None, None]
    assert [child.terminated for child in house.children] == [False, False, False]


def test_a_child_that_dies_again_and_again_is_started_less_and_less_often() -> None:
    """A broken installation does not keep the machine busy."""
    house = House()
    house.look_at(0)
    for second in range(1, 121):
        for child in house.children:
            if child.queue != "me-2":
                child.status = 1
        house.look_at(second)
    assert len(house.children) == 2 + 7  # after 1, 2, 4, 8, 16, 30 and 30 seconds
    assert house.children[1].status is None


def test_a_child_that_lived_long_starts_again_at_once() -> None:
    """One crash a day is no reason for patience."""
    house = House()
    house.look_at(0)
    for day in range(1, 5):
        house.children[-1].status = 1
        house.look_at(day * 86_400)
        house.look_at(day * 86_400 + 1)
    assert len(house.children) == 2 + 4


def test_an_outage_at_the_start_is_waited_for() -> None:
    """No queue, no child; both come when AWS does."""
    house = House()
    house.queues.outage = True
    house.look_at(0)
    assert house.children == []
    house.queues.outage = False
    house.look_at(1)
    assert len(house.children) == 2


def test_an_outage_at_the_end_does_not_keep_the_process() -> None:
    """The queues that are left are reaped by the next start."""
    house = House()
    house.look_at(0)
    house.queues.outage = True
    house.stop()
    assert all(child.status == 0 for child in house.children)


def test_a_process_whose_queue_is_gone_is_replaced() -> None:
    """Somebody deleted it: uploads would wait in vain."""
    house = House()
    house.look_at(0)
    house.queues.names.remove("me-1")
    house.look_at(60)
    assert [child.terminated for child in house.children] == [True, False]
    house.look_at(61)
    house.look_at(120)
    assert [child.queue for child in house.children] == ["me-1", "me-2", "me-3"]
    assert house.queues.names == {"me-2", "me-3"}


def test_the_queues_are_told_alive_every_minute() -> None:
    """Well within the ten minutes after which they would be reaped."""
    house = House()
    for second in range(0, 181, 10):
        house.look_at(second)
    assert house.queues.beaten.count("me-1") == house.queues.beaten.count("me-2") == 4
