"""Several web processes under one parent, with `sleep` in the place of the web tier."""

import errno
import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

from facerec.aws.sqs.response_queues import ResponseQueues
from facerec.errors import QueueMissing, Transient
from facerec.processes.addresses import poll_until
from facerec.processes.children import Command
from facerec.settings import Settings
from facerec.settings.tiers import WebSettings
from facerec.web.supervisor import WebProcesses
from tests.support.processes import alive


class Queues:
    """`ResponseQueues` as a set of names."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.beaten: list[str] = []
        self.reaps = 0
        self.outage = False
        self._ids = itertools.count(1)

    def create(self, owner: str, queue: str | None = None) -> str:
        """Create a queue."""
        self._check()
        queue = queue or f"{owner}-{next(self._ids)}"
        self.names.add(queue)
        return queue

    def renew(self, queue: str) -> None:
        """Note the renewal."""
        self._check()
        if queue not in self.names:
            raise QueueMissing(queue)
        self.beaten.append(queue)

    def remove(self, queue: str) -> None:
        """Remove a queue."""
        self._check()
        self.names.discard(queue)

    def reap(self) -> list[str]:
        """Note the call."""
        self.reaps += 1
        self._check()
        return []

    def _check(self) -> None:
        if self.outage:
            raise Transient("no route")


class Tier:
    """Two web processes, and the parent's clock."""

    def __init__(self, forget: Callable[[int], None]) -> None:
        self.queues = Queues()
        self.now = 0.0
        self.processes = WebProcesses(
            Settings(web=WebSettings(processes=2)),
            cast("ResponseQueues", self.queues),
            lambda queue: Command(queue, ("/bin/sleep", "60"), os.environ),
            owner="me",
            forget=forget,
            clock=lambda: self.now,
        )

    @property
    def pids(self) -> dict[str, int]:
        """The process ids by the name of the queue."""
        return {child.name: child.pid for child in self.processes.children}

    def look_at(self, now: float) -> None:
        """Let the parent look at a given time."""
        self.now = now
        self.processes.look()


@contextmanager
def tier(forget: Callable[[int], None] = lambda _: None) -> Iterator[Tier]:
    """A tier whose processes end with the block."""
    made = Tier(forget)
    try:
        yield made
    finally:
        made.processes.stop()


def test_each_process_has_a_response_queue_of_its_own() -> None:
    """Results never reach another process; the renewals are well within the ten minutes of `STALE_AFTER`."""
    with tier() as two:
        for second in range(0, 181, 10):
            two.look_at(second)
        assert two.pids.keys() == two.queues.names == {"me-1", "me-2"}
        assert two.queues.beaten.count("me-1") == two.queues.beaten.count("me-2") == 3


def test_stop_ends_every_process_and_removes_every_queue() -> None:
    """At the start the queues of dead parents are reaped."""
    with tier() as two:
        two.look_at(0)
        pids = two.pids.values()
        stopping = threading.Event()
        stopping.set()
        two.processes.run(stopping)
        assert not any(map(alive, pids))
        assert (two.queues.names, two.queues.reaps) == (set(), 1)


def test_killed_process_is_replaced_and_keeps_its_queue() -> None:
    """The other process is left alone; a full disk, which prevents the count of the dead process, does not matter."""
    forgotten = []

    def full(pid: int) -> None:
        forgotten.append(pid)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with tier(full) as two:
        two.look_at(0)
        before = two.pids
        os.kill(before["me-1"], signal.SIGKILL)
        assert poll_until(lambda: two.pids["me-1"] != before["me-1"], 10)
        assert two.pids["me-2"] == before["me-2"]
        assert forgotten == [before["me-1"]]
        assert two.queues.names == {"me-1", "me-2"}


def test_processes_start_when_an_outage_of_sqs_ends() -> None:
    """No queue, no process."""
    with tier() as two:
        two.queues.outage = True
        two.look_at(0)
        two.queues.outage = False
        two.look_at(0.9)
        assert two.pids == {}
        two.look_at(1)
        assert len(two.pids) == 2


def test_outage_of_sqs_does_not_delay_the_stop() -> None:
    """The next start reaps the queues."""
    with tier() as two:
        two.look_at(0)
        pids = two.pids.values()
        two.queues.outage = True
        two.processes.stop()
        assert not any(map(alive, pids))


def test_deleted_queue_is_created_again_under_its_name() -> None:
    """Its process goes on; meanwhile it finds its results in the store."""
    with tier() as two:
        two.look_at(0)
        pids = two.pids
        two.queues.names.remove("me-1")
        two.look_at(60)
        assert two.queues.names == {"me-1", "me-2"}
        assert two.pids == pids
