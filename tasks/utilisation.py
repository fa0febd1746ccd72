"""How busy a worker is and has been: time is added up at every change, not sampled."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from facerec.messages import WorkerReport, WorkerState

_STEP_SECONDS = 1.0
"""The two clocks differ by more only if one of them was set."""


class Utilisation:
    """The tasks that a worker holds and has done since its start; safe for many threads.

    It is saturated while it works on at least as many tasks as it has `engines`. A task that waits for a service to
    come back is held but not worked on: the time of an outage does not show how fast the worker is.

    `now` is in seconds since the epoch. Durations are measured by `monotonic`: clocks are set soon after a boot.
    `reported_at - idle_since` is always the time that it has been idle.
    """

    def __init__(
        self,
        engines: int,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engines = engines
        self._now = now
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._ready_at = now()
        self._idle_since: float | None = self._ready_at
        self._held = 0
        self._waiting = 0
        self._done = 0
        self._saturated_seconds = 0.0
        self._saturated_tasks = 0
        self._counted_until = self._idle_mark = monotonic()
        self.changed = threading.Event()
        """Set whenever it becomes busy or idle; the one thread that waits for it clears it."""

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Hold one task; it is done unless the block raises, after which it is delivered again."""
        self._change(1)
        try:
            yield
        except BaseException:
            self._change(-1)
            raise
        self._change(-1, done=1)

    @contextmanager
    def pausing(self) -> Iterator[None]:
        """Count one of the held tasks as waiting."""
        self._count_waiting(1)
        try:
            yield
        finally:
            self._count_waiting(-1)

    def report(self, instance_id: str, state: WorkerState, *, interrupted: bool) -> WorkerReport:
        """The report of this moment."""
        with self._lock:
            self._count()
            now = self._now()
            if self._idle_since is not None:
                step = now - self._idle_since - (self._counted_until - self._idle_mark)
                if abs(step) > _STEP_SECONDS:  # the clock has been set meanwhile
                    self._idle_since += step
            return WorkerReport(
                instance_id=instance_id,
                state=state,
                ready_at=self._ready_at,
                reported_at=now,
                held=self._held,
                idle_since=self._idle_since,
                tasks_done=self._done,
                saturated_seconds=self._saturated_seconds,
                saturated_tasks=self._saturated_tasks,
                interrupted=interrupted,
            )

    @property
    def idle_since(self) -> float | None:
        """Since when it holds no task; `None` while it holds one."""
        with self._lock:
            return self._idle_since

    def _change(self, by: int, done: int = 0) -> None:
        with self._lock:
            self._count()
            if self._saturated:
                self._saturated_tasks += done
            self._done += done
            self._held += by
            idle = self._held == 0
            if idle is (self._idle_since is not None):
                return
            self._idle_since = self._now() if idle else None
            self._idle_mark = self._counted_until
        self.changed.set()

    def _count_waiting(self, by: int) -> None:
        with self._lock:
            self._count()
            self._waiting += by

    @property
    def _saturated(self) -> bool:
        return self._held - self._waiting >= self._engines

    def _count(self) -> None:
        then, self._counted_until = self._counted_until, self._monotonic()
        if self._saturated:
            self._saturated_seconds += self._counted_until - then
