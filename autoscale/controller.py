"""The autoscaler's mind: what it learns, and what it decides; the same for the real fleet and for the simulator."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace

from autoscale.estimates import Arrivals, Boots, Estimates, Throughput
from autoscale.observation import Instance, Observation, Unreadable
from autoscale.policy import Decision, Hold, Policy, decide

_Said = tuple[str | None, float, float | None, float | None]


class Hearing:
    """Notices reports by their change, as a waiter notices the renewals of a lease.

    Until it has listened for a while nobody is silent: what was said before the first reading may be of any age.
    """

    def __init__(self) -> None:
        self._last: dict[int, tuple[_Said, float]] = {}

    def listen(self, fleet: Iterable[Instance], now: float) -> dict[int, float]:
        """Take a reading in; returns when what is said of each instance last changed, by number.

        To listen to one reading twice changes nothing.
        """
        latest: dict[int, tuple[_Said, float]] = {}
        for instance in fleet:
            report = instance.worker
            # A launch, a start or a stop is news, too: from then on the time to the first report counts.
            told = (None, None) if report is None else (report.ready_at, report.reported_at)
            said: _Said = (instance.instance_id, instance.since, *told)
            before = self._last.get(instance.number)
            latest[instance.number] = before if before is not None and before[0] == said else (said, now)
        self._last = latest
        return {number: at for number, (_, at) in latest.items()}


@dataclass(frozen=True, slots=True)
class Priors:
    """What is assumed until it has been seen."""

    boot_seconds: float = 60.0
    start_seconds: float = 30.0
    service_seconds: float = 0.1


class Controller:
    """Decides again and again; what it remembers can be lost at any time, at the cost of a slower way down."""

    def __init__(self, policy: Policy, priors: Priors) -> None:
        self.policy = policy
        self._boots = Boots(priors.boot_seconds, policy.limits.boot_seconds)
        self._starts = Boots(priors.start_seconds, policy.limits.boot_seconds)
        self._throughput = Throughput(priors.service_seconds)
        self._arrivals = Arrivals()
        self._needed: deque[tuple[float, int]] = deque()
        self._watching_since: float | None = None
        self._empty_since: float | None = None
        self._started: set[str] = set()
        self._hearing = Hearing()
        self._last_seen: float | None = None
        self._seen_since = 0.0

    def step(self, observation: Observation, now: float) -> Decision | Hold:
        """Learn from an observation and decide; `now` is in seconds since the epoch and never goes back."""
        observation = self.heard(observation, now)
        depth, fleet = observation.depth, observation.fleet
        if isinstance(depth, Unreadable) or isinstance(fleet, Unreadable):
            # What was needed meanwhile is not known: the cooldown begins anew.
            self._watching_since = self._empty_since = None
            self._needed.clear()
            return decide(observation, self.estimates(now), self.policy, now)
        self._boots.observe(one for one in fleet if one.instance_id not in self._started)
        self._starts.observe(one for one in fleet if one.instance_id in self._started)
        self._throughput.observe(fleet)
        self._arrivals.observe(depth, fleet, now)
        decision = decide(observation, self.estimates(now), self.policy, now)
        if isinstance(decision, Decision):
            self._started.update(decision.start)
            self._started.difference_update(decision.terminate)
            if self._watching_since is None:
                self._watching_since = now
            self._needed.append((now, decision.keep))
        if depth.open + depth.delayed:
            self._empty_since = None
        elif self._empty_since is None:
            self._empty_since = now
        return decision

    def heard(self, observation: Observation, now: float) -> Observation:
        """The observation with what is known of the workers' silence; to ask twice at one time changes nothing."""
        if isinstance(observation.fleet, Unreadable):
            return observation
        heard_at = self._hearing.listen(observation.fleet, now)
        return replace(observation, watched_since=self._watched_since(now), heard_at=heard_at)

    def review(self, observation: Observation, now: float) -> Decision | Hold:
        """Decide on a second look, from which nothing else is learned than who has been heard."""
        return decide(self.heard(observation, now), self.estimates(now), self.policy, now)

    def estimates(self, now: float) -> Estimates:
        """What has been learned so far."""
        return Estimates(
            boot_seconds=self._boots.seconds,
            start_seconds=self._starts.seconds,
            service_seconds=self._throughput.service_seconds,
            arrivals_per_second=self._arrivals.per_second,
            recent_peak=self._recent_peak(now),
            empty_seconds=None if self._empty_since is None else now - self._empty_since,
        )

    def _watched_since(self, now: float) -> float:
        """Since when there has been no long gap between two readings, this one included."""
        # Gaps that cannot make a report look silent do not count, or short outages would keep lost instances for ever.
        if self._last_seen is None or now - self._last_seen > self.policy.limits.silence_seconds / 4:
            self._seen_since = now
        self._last_seen = now
        return self._seen_since

    def _recent_peak(self, now: float) -> int | None:
        window = self.policy.cooldown_seconds
        while self._needed and now - self._needed[0][0] > window:
            self._needed.popleft()
        if self._watching_since is None or now - self._watching_since < window:
            return None
        return max((count for _, count in self._needed), default=None)
