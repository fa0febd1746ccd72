"""The estimates that the autoscaler learns from its readings, and its decisions; also used by the simulator.

The estimates end with the process. The next one learns them again within seconds: reports and launch times lie in AWS.
"""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from autoscale.observation import FleetByPhase, Instance, Observation, Reading, Unreadable
from autoscale.policy import Decision, Estimates, Hold, Policy, decide
from facerec.fleet_records import QueueDepth
from facerec.messages import WorkerReport

_BOOTS = 15
"""The estimate is the median of so many latest boots."""
_SHORT_GAP_SECONDS = 5.0
"""So long may a round take on a busy machine or with a slow AWS, also if the cooldown is shorter."""
_REPORT_LAG_SECONDS = 5.0
"""A worker's first report is read so long after it got ready, at the latest; clocks may differ by as much."""
_LEAST_SATURATED_SECONDS = 2.0
"""Throughput is measured over at least so long; the prior fills what is missing."""
_MEMORY_SATURATED_SECONDS = 120.0
"""Older measurements fade: the photos of today may be larger than yesterday's."""
_BIN_SECONDS = 3.0
"""Arrivals are counted in bins: reports and queue counts lag each other by a second or two."""
_BINS = 10
_LATEST_BINS = 3
"""A flow that fills so many bins in a row is no burst."""
_FORMER_SECONDS = 10.0
"""What a worker did before its previous reading counts as so much saturated time at most."""
_SERVICE_BOUNDS = (0.01, 10.0)
"""The measured service time stays within these multiples of the prior: a worker that was taken over may report any."""
_MOST_OF_ONE = 2.0
"""How many saturated instances the completed tasks of one worker may look like; reports lag by a second or two."""
_DEVIATIONS = 2.0
"""A flow is new when each of the latest bins is so many standard deviations above the steady one."""

_State = tuple[str | None, float, float | None, float | None, bool]


class Boots:
    """Boot times; the prior counts until one was seen, and each boot counts once.

    Only an instance that was seen before its first report counts: a worker that reports at the first look may have been
    restarted long after its boot. A time above `limit_seconds` or below 0 (clocks differ) does not count, and no time
    departs far from the readings between which the first report came.
    """

    def __init__(self, prior_seconds: float, limit_seconds: float) -> None:
        self._prior = prior_seconds
        self._limit = limit_seconds
        self._awaited: dict[tuple[str, float], float] = {}
        """When an instance was last seen before its first report."""
        self._reported: set[tuple[str, float]] = set()
        """Instances that have reported: a later reading without a usable report begins no second boot."""
        self._seen: deque[float] = deque(maxlen=_BOOTS)

    def observe(self, instances: Iterable[Instance], now: float) -> None:
        """Learn from a reading."""
        awaited, reported = {}, set()
        for instance in instances:
            if instance.instance_id is None:
                continue
            key, report = (instance.instance_id, instance.since), instance.report
            if report is None and not instance.report_unreadable and key not in self._reported:
                awaited[key] = now
                continue
            reported.add(key)
            if report is not None and key in self._awaited:
                earliest = self._awaited[key] - _REPORT_LAG_SECONDS
                ready_at = min(max(report.ready_at, earliest), now + _REPORT_LAG_SECONDS)
                if 0 <= ready_at - instance.since <= self._limit:
                    self._seen.append(ready_at - instance.since)
        self._awaited, self._reported = awaited, reported

    @property
    def seconds(self) -> float:
        """The median of the latest boots."""
        return median(self._seen) if self._seen else self._prior


class Throughput:
    """Tasks per second of a saturated instance, from the growth of the workers' own counts.

    No worker counts for more time than has passed by our clock, whatever it reports.
    """

    def __init__(self, prior_service_seconds: float) -> None:
        self._prior = prior_service_seconds
        self._last: dict[tuple[str, float], tuple[float, int]] = {}
        self._uncounted: dict[int, float] = {}
        """By number, the passed time of which no saturated time has been counted."""
        self._observed_at: float | None = None
        self._seconds = 0.0
        self._tasks = 0.0

    def observe(self, fleet: Iterable[Instance], now: float) -> None:
        """Learn from a reading."""
        passed = 0.0 if self._observed_at is None else now - self._observed_at
        self._observed_at = now
        uncounted, latest = {}, {}
        for instance in fleet:
            left = min(self._uncounted.get(instance.number, math.inf), _FORMER_SECONDS) + passed
            uncounted[instance.number], report = left, instance.report
            if report is None:
                continue
            key = (report.instance_id, report.ready_at)
            latest[key] = (report.saturated_seconds, report.saturated_tasks)
            before = self._last.get(key, (0.0, 0))
            seconds = max(0.0, report.saturated_seconds - before[0])
            tasks = max(0, report.saturated_tasks - before[1])
            used = max(seconds, tasks * _SERVICE_BOUNDS[0] * self._prior)
            share = left / used if used > left else 1.0
            uncounted[instance.number] = left - used * share
            self._seconds += seconds * share
            self._tasks += tasks * share
        self._last, self._uncounted = latest, uncounted
        if self._seconds > _MEMORY_SATURATED_SECONDS:
            fade = _MEMORY_SATURATED_SECONDS / self._seconds
            self._seconds, self._tasks = self._seconds * fade, self._tasks * fade

    @property
    def service_seconds(self) -> float:
        """An instance's time for a task."""
        missing = max(0.0, _LEAST_SATURATED_SECONDS - self._seconds)
        measured = (self._seconds + missing) / max(self._tasks + missing / self._prior, 1e-9)
        least, most = _SERVICE_BOUNDS
        return min(max(measured, least * self._prior), most * self._prior)


class Arrivals:
    """The steady flow of tasks into the queue: the growth of the queue plus what workers did meanwhile.

    One worker counts for no more tasks than an instance can do in that time, whatever it reports.
    """

    def __init__(self) -> None:
        self._last: tuple[float, int, dict[tuple[str, float], int]] | None = None
        # The first reading says nothing about the flow before it; one full bin alone may be a burst.
        self._bins = deque([0.0] * _BINS, maxlen=_BINS)

    def observe(self, depth: QueueDepth, fleet: Iterable[Instance], now: float, service_seconds: float) -> None:
        """Learn from a reading; nothing is counted until a bin is full."""
        done = {(report.instance_id, report.ready_at): report.tasks_done for report in _reports(fleet)}
        outstanding = depth.open + depth.delayed
        if self._last is None:
            self._last = (now, outstanding, done)
            return
        then, before, known = self._last
        if now - then < _BIN_SECONDS:
            return
        most = _MOST_OF_ONE * (now - then) / service_seconds
        completed = sum(min(max(0, count - known.get(key, 0)), most) for key, count in done.items())
        self._bins.append(max(0.0, (outstanding - before + completed) / (now - then)))
        self._last = (now, outstanding, done)

    @property
    def per_second(self) -> float:
        """The lesser of mean and median of the last half minute, or the least of the latest bins if clearly more.

        A burst moves only the mean, and ends before it fills the latest bins; a new flow fills them.
        """
        steady = min(sum(self._bins) / len(self._bins), median(self._bins))
        latest = list(self._bins)[-_LATEST_BINS:]
        by_chance = _DEVIATIONS * math.sqrt(steady / _BIN_SECONDS)  # of a Poisson flow's count in a bin
        return min(latest) if min(latest) > steady + by_chance else steady


class Liveness:
    """Notices by our own clock when instances and their reports change: the workers' clocks may differ from it."""

    def __init__(self, silence_seconds: float) -> None:
        # A shorter gap cannot make a worker look silent; if it counted, short outages would keep lost instances.
        self._longest_gap_seconds = silence_seconds / 4
        self._last: dict[int, tuple[_State, float]] = {}
        self._last_reading_at: float | None = None
        self.watched_since = 0.0
        """The first reading, or the first one after a long gap."""

    def observe(self, fleet: Iterable[Instance], now: float) -> dict[int, float]:
        """Take a reading; returns by number when each instance last changed."""
        if self._last_reading_at is None or now - self._last_reading_at > self._longest_gap_seconds:
            self.watched_since = now
        self._last_reading_at = now
        latest: dict[int, tuple[_State, float]] = {}
        for instance in fleet:
            # A launch, a start or a stop is a change, too: the time to the first report counts from it.
            report = instance.report
            times = (None, None) if report is None else (report.ready_at, report.reported_at)
            state: _State = (instance.instance_id, instance.since, *times, instance.report_unreadable)
            before = self._last.get(instance.number)
            latest[instance.number] = before if before is not None and before[0] == state else (state, now)
        self._last = latest
        return {number: at for number, (_, at) in latest.items()}


def _reports(fleet: Iterable[Instance]) -> list[WorkerReport]:
    return [instance.report for instance in fleet if instance.report is not None]


@dataclass(frozen=True, slots=True)
class Priors:
    """What is assumed until it was measured."""

    boot_seconds: float = 60.0
    start_seconds: float = 30.0
    service_seconds: float = 0.1


class Decider:
    """Decides round after round; `now` is in seconds since the epoch and never decreases.

    What it remembers can be lost at any time: then the fleet shrinks later. Usually `interval_seconds` pass between two
    readings.
    """

    def __init__(self, policy: Policy, priors: Priors, interval_seconds: float = 1.0) -> None:
        self.policy = policy
        # A process that was paused, or a clock that was put forward, is no time in which the fleet was watched.
        longest = min(policy.cooldown_seconds, policy.limits.silence_seconds / 4)
        self._longest_gap_seconds = max(longest, 3 * interval_seconds, _SHORT_GAP_SECONDS)
        self._boots = Boots(priors.boot_seconds, policy.limits.boot_seconds)
        self._starts = Boots(priors.start_seconds, policy.limits.boot_seconds)
        self._throughput = Throughput(priors.service_seconds)
        self._arrivals = Arrivals()
        self._liveness = Liveness(policy.limits.silence_seconds)
        self._keeps: deque[tuple[float, int]] = deque()
        """The times of the latest decisions and their `keep`."""
        self._watching_since: float | None = None
        self._observed_at: float | None = None
        self._empty_since: float | None = None
        self._started: set[str] = set()

    def observe(self, reading: Reading, now: float) -> Observation:
        """Sort the instances of a reading into phases; after a long gap the cooldown begins again."""
        if self._observed_at is not None and now - self._observed_at > self._longest_gap_seconds:
            self.restart_cooldown()
        self._observed_at = now
        fleet: FleetByPhase | Unreadable
        if isinstance(reading.fleet, Unreadable):
            fleet = reading.fleet
        else:
            changed_at = self._liveness.observe(reading.fleet, now)
            fleet = FleetByPhase.of(reading.fleet, self.policy.limits, now, self._liveness.watched_since, changed_at)
        return Observation(reading.depth, fleet, reading.no_capacity, reading.unstartable)

    def decide(self, observation: Observation, now: float) -> Decision | Hold:
        """Learn from an observation and decide."""
        depth, fleet = observation.depth, observation.fleet
        if isinstance(depth, Unreadable) or isinstance(fleet, Unreadable):
            self.restart_cooldown()
            return self.review(observation, now)
        instances = fleet.instances
        self._boots.observe((each for each in instances if each.instance_id not in self._started), now)
        self._starts.observe((each for each in instances if each.instance_id in self._started), now)
        self._throughput.observe(instances, now)
        self._arrivals.observe(depth, instances, now, self._throughput.service_seconds)
        decision = self.review(observation, now)
        if isinstance(decision, Decision):
            self._started.update(decision.start)
            self._started.difference_update(decision.terminate)
            if self._watching_since is None:
                self._watching_since = now
            self._keeps.append((now, decision.keep))
        if depth.open + depth.delayed:
            self._empty_since = None
        elif self._empty_since is None:
            self._empty_since = now
        return decision

    def restart_cooldown(self) -> None:
        """Begin the cooldown again: what was needed in a time without readings is unknown."""
        self._watching_since = self._empty_since = None
        self._keeps.clear()

    def review(self, observation: Observation, now: float) -> Decision | Hold:
        """Decide without learning."""
        return decide(observation, self.estimates(now), self.policy, now)

    def step(self, reading: Reading, now: float) -> Decision | Hold:
        """Observe and decide."""
        return self.decide(self.observe(reading, now), now)

    def estimates(self, now: float) -> Estimates:
        """Return what has been learned so far."""
        return Estimates(
            boot_seconds=self._boots.seconds,
            start_seconds=self._starts.seconds,
            service_seconds=self._throughput.service_seconds,
            arrivals_per_second=self._arrivals.per_second,
            recent_peak=self._recent_peak(now),
            empty_seconds=None if self._empty_since is None else now - self._empty_since,
            watched_seconds=0.0 if self._watching_since is None else now - self._watching_since,
        )

    def _recent_peak(self, now: float) -> int | None:
        window = self.policy.cooldown_seconds
        while self._keeps and now - self._keeps[0][0] > window:
            self._keeps.popleft()
        if self._watching_since is None or now - self._watching_since < window:
            return None
        return max((count for _, count in self._keeps), default=None)
