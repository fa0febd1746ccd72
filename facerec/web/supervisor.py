"""Several web processes on one socket, each with a response queue of its own, under one parent."""

import math
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from threading import Event
from typing import Protocol

import structlog

from facerec.errors import FacerecError, QueueMissing
from facerec.settings import Settings

log = structlog.get_logger(__name__)

HEARTBEAT_SECONDS = 60.0
LOOK_SECONDS = 0.5
STABLE_SECONDS = 30.0
"""A child that lived as long as this begins anew with its restarts."""

MAX_BACKOFF_SECONDS = 30.0
EXTRA_GRACE_SECONDS = 3.0
"""Beyond the drain, for the last replies and the interpreter's end; then a child is killed."""


class OwnedQueues(Protocol):
    """Where the parent makes and removes its children's response queues."""

    def create(self, owner: str) -> str:
        """Make a queue and return its name."""

    def beat(self, queue: str) -> None:
        """Tell that its owner lives."""

    def remove(self, queue: str) -> None:
        """Remove it."""

    def reap(self) -> list[str]:
        """Remove those whose owner died."""


class Child(Protocol):
    """A running process, as `subprocess.Popen` has it."""

    @property
    def pid(self) -> int:
        """Its process id."""

    def poll(self) -> int | None:
        """Its exit status, or nothing while it runs."""

    def terminate(self) -> None:
        """Ask it to drain and leave."""

    def kill(self) -> None:
        """End it at once."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; raises `subprocess.TimeoutExpired`."""


@dataclass(slots=True)
class _Slot:
    child: Child | None = None
    queue: str | None = None
    started_at: float = -math.inf
    start_at: float = -math.inf
    failures: int = 0


class WebProcesses:
    """Keeps `processes` children running, and their queues made, tagged and removed.

    `ended` gets the process id of a child that has ended by itself; its `OSError` is logged, and costs no other child.
    """

    def __init__(
        self,
        settings: Settings,
        queues: OwnedQueues,
        spawn: Callable[[str], Child],
        *,
        owner: str,
        ended: Callable[[int], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._grace_seconds = settings.web.shutdown_seconds + EXTRA_GRACE_SECONDS
        self._queues = queues
        self._spawn = spawn
        self._owner = owner
        self._clock = clock
        self._told_ended = ended
        self._slots = [_Slot() for _ in range(settings.web.processes)]
        self._beaten_at = -math.inf

    def run(self, stopping: Event) -> None:
        """Run until `stopping` is set; on return every child has ended and every queue is removed."""
        self._tolerating("reap response queues", self._queues.reap)
        try:
            while not stopping.is_set():
                self.look()
                stopping.wait(LOOK_SECONDS)
        finally:
            self._stop()

    def look(self) -> None:
        """Start what should run and does not, and tell that all is alive."""
        now = self._clock()
        for slot in self._slots:
            if slot.child is not None and (status := slot.child.poll()) is not None:
                self._ended(slot, status, now)
            if slot.child is None and now >= slot.start_at:
                self._start(slot, now)
        if now - self._beaten_at >= HEARTBEAT_SECONDS:
            self._beaten_at = now
            for slot in self._slots:
                if slot.queue is not None:
                    self._tolerating("tag a response queue", partial(self._beat, slot, slot.queue))

    def _beat(self, slot: _Slot, queue: str) -> None:
        try:
            self._queues.beat(queue)
        except QueueMissing:
            if slot.child is not None:
                # Without its queue it would let every upload wait in vain; its successor gets a new one.
                slot.child.terminate()
            raise

    def _start(self, slot: _Slot, now: float) -> None:
        try:
            slot.queue = self._queues.create(self._owner)
            slot.child = self._spawn(slot.queue)
        except (FacerecError, OSError) as exc:  # the machine may have no place for another process
            self._remove_queue(slot)
            slot.failures += 1
            slot.start_at = now + _backoff(slot.failures)
            log.error("web_process_not_started", reason=str(exc), retry_seconds=_backoff(slot.failures))  # noqa: TRY400 - the reason says it all
            return
        slot.started_at = now
        log.info("web_process_started", child=slot.child.pid, queue=slot.queue)

    def _ended(self, slot: _Slot, status: int, now: float) -> None:
        slot.failures = 1 if now - slot.started_at >= STABLE_SECONDS else slot.failures + 1
        slot.start_at = now + _backoff(slot.failures)
        if slot.child is not None:
            try:
                self._told_ended(slot.child.pid)
            except OSError as exc:
                log.warning("web_process_not_counted", child=slot.child.pid, reason=str(exc))
        log.error("web_process_ended", queue=slot.queue, status=status, restart_seconds=_backoff(slot.failures))
        slot.child = None
        self._remove_queue(slot)

    def _stop(self) -> None:
        running = [slot.child for slot in self._slots if slot.child is not None]
        for child in running:
            child.terminate()
        deadline = self._clock() + self._grace_seconds
        try:
            for child in running:
                with suppress(subprocess.TimeoutExpired):
                    child.wait(max(0.0, deadline - self._clock()))
        finally:
            # Reached early when a second signal ends the wait.
            for child in running:
                if child.poll() is None:
                    log.error("web_process_killed", child=child.pid)
                    child.kill()
                    child.wait()
            for slot in self._slots:
                self._remove_queue(slot)

    def _remove_queue(self, slot: _Slot) -> None:
        if slot.queue is not None:
            self._tolerating("remove a response queue", partial(self._queues.remove, slot.queue))
            slot.queue = None

    @staticmethod
    def _tolerating(doing: str, step: Callable[[], object]) -> None:
        """A queue that is left over costs nothing and is reaped later; the children matter more."""
        try:
            step()
        except FacerecError as exc:
            log.warning("response_queue_upkeep_failed", doing=doing, reason=str(exc))


def _backoff(failures: int) -> float:
    return float(min(MAX_BACKOFF_SECONDS, 2.0 ** min(failures - 1, 10)))
