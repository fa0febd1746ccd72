"""What the autoscaler learns from observation to observation: how fast instances boot and work, and how much comes in.

Lost with the process and learned again within seconds: what it is learned from (reports, launch times) lies in AWS.
"""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from autoscale.observation import Instance, QueueDepth

_BOOTS = 15
"""The latest boots whose median is the estimate."""
_LEAST_SATURATED_SECONDS = 2.0
"""Throughput is measured over at least so long; below, the prior counts for the rest of it."""
_MEMORY_SATURATED_SECONDS = 120.0
"""Older measurements fade: the photos of today may be larger than yesterday's."""
_BIN_SECONDS = 3.0
"""Arrivals are counted in bins: long enough for reports and queue counts, which lag each other by a second or two."""
_BINS = 10
_LATEST_BINS = 3
"""A flow that is seen in so many bins one after the other is no burst."""
_DEVIATIONS = 2.0
"""So many standard deviations above the steady flow are no chance, in each of the latest bins."""


@dataclass(frozen=True, slots=True)
class Estimates:
    """Seconds and rates that the policy reckons with."""

    boot_seconds: float
    """From a launch to the worker's first report."""
    start_seconds: float
    """The same for a stopped instance that is started."""
    service_seconds: float
    """One instance's time for one task while it is saturated: the inverse of its throughput."""
    arrivals_per_second: float = 0.0
    """The steady flow of tasks; a burst is not one."""
    recent_peak: int | None = None
    """The most instances that were needed in the last cooldown; absent until it has been watched for so long."""
    empty_seconds: float | None = None
    """For how long readings have found no work, up to the one before this; absent when that one found some."""


class Boots:
    """Boot times seen; each boot counts once, the prior counts while there is none.

    Only what has been waited for is a boot: the worker of an instance that reports already may have been restarted long
    after its instance came up. What took longer than `limit_seconds` was replaced, and a negative time tells of clocks
    that differ.
    """

    def __init__(self, prior_seconds: float, limit_seconds: float) -> None:
        self._prior = prior_seconds
        self._limit = limit_seconds
        self._awaited: set[tuple[str, float]] = set()
        self._seen: deque[float] = deque(maxlen=_BOOTS)

    def observe(self, instances: Iterable[Instance]) -> None:
        """Take a reading in."""
        awaited = set()
        for instance in instances:
            if instance.instance_id is None:
                continue
            key = (instance.instance_id, instance.since)
            if instance.worker is None:
                awaited.add(key)
            elif key in self._awaited:
                seconds = instance.worker.ready_at - instance.since
                if 0 <= seconds <= self._limit:
                    self._seen.append(seconds)
        self._awaited = awaited

    @property
    def seconds(self) -> float:
        """The median of what was seen lately."""
        return median(self._seen) if self._seen else self._prior


class Throughput:
    """Tasks per second of a saturated instance, from the growth of the workers' own counts."""

    def __init__(self, prior_service_seconds: float) -> None:
        self._prior = prior_service_seconds
        self._last: dict[tuple[str, float], tuple[float, int]] = {}
        self._seconds = 0.0
        self._tasks = 0.0

    def observe(self, fleet: tuple[Instance, ...]) -> None:
        """Take in the fleet's reports."""
        latest = {}
        for instance in fleet:
            report = instance.worker
            if report is None:
                continue
            key = (report.instance_id, report.ready_at)
            latest[key] = (report.saturated_seconds, report.saturated_tasks)
            seconds, tasks = self._last.get(key, (0.0, 0))
            self._seconds += report.saturated_seconds - seconds
            self._tasks += report.saturated_tasks - tasks
        self._last = latest
        if self._seconds > _MEMORY_SATURATED_SECONDS:
            fade = _MEMORY_SATURATED_SECONDS / self._seconds
            self._seconds, self._tasks = self._seconds * fade, self._tasks * fade

    @property
    def service_seconds(self) -> float:
        """An instance's time for a task."""
        missing = max(0.0, _LEAST_SATURATED_SECONDS - self._seconds)
        return (self._seconds + missing) / max(self._tasks + missing / self._prior, 1e-9)


class Arrivals:
    """The steady flow of tasks into the queue: what it grew by, and what workers did meanwhile."""

    def __init__(self) -> None:
        self._last: tuple[float, int, dict[tuple[str, float], int]] | None = None
        # Before the first look there was no flow, as far as is known: what is seen in one bin alone may be a burst.
        self._bins = deque([0.0] * _BINS, maxlen=_BINS)

    def observe(self, depth: QueueDepth, fleet: tuple[Instance, ...], now: float) -> None:
        """Take in queue and reports; nothing is counted until a bin is full."""
        done = {(r.instance_id, r.ready_at): r.tasks_done for r in (i.worker for i in fleet) if r is not None}
        outstanding = depth.open + depth.delayed
        if self._last is None:
            self._last = (now, outstanding, done)
            return
        then, before, known = self._last
        if now - then < _BIN_SECONDS:
            return
        completed = sum(count - known.get(key, 0) for key, count in done.items())
        self._bins.append(max(0.0, (outstanding - before + completed) / (now - then)))
        self._last = (now, outstanding, done)

    @property
    def per_second(self) -> float:
        """The lesser of mean and median of the last half minute; the least of the latest bins if that is clearly more.

        A burst moves the mean alone, and is over before it has filled the latest bins; a flow that begins fills them.
        """
        steady = min(sum(self._bins) / len(self._bins), median(self._bins))
        latest = list(self._bins)[-_LATEST_BINS:]
        by_chance = _DEVIATIONS * math.sqrt(steady / _BIN_SECONDS)  # of a Poisson flow's count in a bin
        return min(latest) if len(latest) == _LATEST_BINS and min(latest) > steady + by_chance else steady
