"""The scalers of a simulation: our autoscaler and three published rules."""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from autoscale.decider import Decider, Priors
from autoscale.observation import Reading
from autoscale.policy import Decision, Policy
from autoscale.simulator.fleet import SimulatedFleet
from autoscale.simulator.workers import Queue, Schedule

Loop = tuple[float, Callable[[], None]]
"""A call and its interval in seconds."""


@dataclass(frozen=True, slots=True)
class World:
    """What a scaler reads and changes."""

    events: Schedule
    queue: Queue
    fleet: SimulatedFleet


class Scaler(Protocol):
    """Sizes the fleet."""

    @property
    def desired(self) -> int:
        """How many instances it wants at the moment."""

    def loops(self) -> Sequence[Loop]:
        """Return its calls and their intervals; each begins at a random moment."""


class Ours:
    """The production autoscaler, once a second; its readings lag as in production."""

    def __init__(self, world: World, policy: Policy, priors: Priors) -> None:
        self.decider = Decider(policy, priors)
        self.desired = 0
        self._world = world

    def loops(self) -> Sequence[Loop]:
        """Return the round and the reconciler's interval."""
        return [(1.0, self._step)]

    def _step(self) -> None:
        fleet = self._world.fleet
        decision = self.decider.step(Reading(self._world.queue.counts, fleet.observe()), self._world.events.now)
        if not isinstance(decision, Decision):
            return
        self.desired = decision.needed
        fleet.resume(decision.resume)
        fleet.start(decision.start)
        fleet.launch(decision.launch)
        fleet.drain(decision.drain)
        fleet.stop(decision.stop)
        fleet.terminate(decision.terminate)


class Naive:
    """One instance for each visible message up to the cap, checked every two seconds; idle instances end.

    An instance ends when the longest possible long poll is empty: 20 s, WaitTimeSeconds of
    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ReceiveMessage.html . With shorter polls
    the fleet would end in every short pause of the load.
    """

    def __init__(self, world: World, interval_seconds: float = 2.0, idle_seconds: float = 20.0) -> None:
        self.desired = 0
        self._world = world
        self._interval_seconds, self._idle_seconds = interval_seconds, idle_seconds

    def loops(self) -> Sequence[Loop]:
        """Return the check of queue and idle instances."""
        return [(self._interval_seconds, self._step)]

    def _step(self) -> None:
        fleet, now = self._world.fleet, self._world.events.now
        for machine in fleet.not_draining:
            if machine.idle_since is not None and now - machine.idle_since >= self._idle_seconds:
                fleet.retire(machine)
        self.desired = min(max(self._world.queue.counts.visible, fleet.active), fleet.max_instances)
        if self.desired > len(fleet.not_draining):
            fleet.resize(self.desired)


class Keda:
    """Replicas of a ScaledObject with minReplicaCount 0."""

    polling_seconds = 30.0
    cooldown_seconds = 300.0
    sync_seconds = 15.0
    stabilisation_seconds = 300.0
    queue_length = 5
    tolerance = 0.1

    def __init__(self, world: World) -> None:
        self.desired = 0
        self._world = world
        self._last_active_at = 0.0
        self._recommended: deque[tuple[float, int]] = deque()
        self._added: deque[tuple[float, int]] = deque()

    def loops(self) -> Sequence[Loop]:
        """Return the polls of KEDA's operator, and the rounds of the autoscaler."""
        return [(self.polling_seconds, self._poll), (self.sync_seconds, self._sync)]

    def _poll(self) -> None:
        """0 ↔ 1."""
        now = self._world.events.now
        if self._world.queue.counts.open > 0:
            self._last_active_at = now
            self.desired = max(1, self.desired)
        elif now - self._last_active_at >= self.cooldown_seconds:
            self.desired = 0
        self._world.fleet.resize(self.desired)

    def _sync(self) -> None:
        """1 ↔ N."""
        if self.desired == 0:  # the autoscaler is off
            return
        recommended = self.recommendation(self._world.queue.counts.open, self.desired)
        self.desired = self.stabilise(recommended, self._world.events.now)
        self._world.fleet.resize(self.desired)

    def recommendation(self, messages: int, replicas: int) -> int:
        """Return the replicas for an average of `queue_length` messages."""
        if abs(messages / (self.queue_length * replicas) - 1) <= self.tolerance:
            return replicas
        return min(max(1, math.ceil(messages / self.queue_length)), self._world.fleet.max_instances)

    def stabilise(self, recommended: int, now: float) -> int:
        """Return the recommendation within the bounds of the scaling behaviour."""
        self._recommended.append((now, recommended))
        while now - self._recommended[0][0] > self.stabilisation_seconds:
            self._recommended.popleft()
        while self._added and now - self._added[0][0] >= self.sync_seconds:
            self._added.popleft()
        if recommended > self.desired:
            before = self.desired - sum(count for _, count in self._added)
            allowed = min(recommended, max(2 * before, before + 4))
            self._added.append((now, max(0, allowed - self.desired)))
            return max(allowed, self.desired)
        return min(self.desired, max(count for _, count in self._recommended))


class TargetTracking:
    """A scaling group with one policy."""

    period_seconds = 60.0
    high_datapoints = 3
    low_datapoints = 15
    low_share = 0.9
    warm_up_seconds = 300.0
    min_instances = 1

    def __init__(self, world: World, acceptable_backlog: float) -> None:
        self.desired = self.min_instances
        self._world = world
        self._target = acceptable_backlog
        self._metric: deque[float] = deque(maxlen=self.low_datapoints)
        self._grew_at = -math.inf
        world.fleet.resize(self.desired)

    def loops(self) -> Sequence[Loop]:
        """Return the metric's alarms, and the group's replacement of missing instances."""
        return [(self.period_seconds, self._step), (5.0, self._keep)]

    def _keep(self) -> None:
        self._world.fleet.resize(self.desired)

    def _step(self) -> None:
        in_service = self._world.fleet.serving
        if in_service == 0:  # no datapoint: the alarms have insufficient data
            self._metric.clear()
            return
        self.desired = self.capacity(self._world.queue.counts.visible, in_service, self._world.events.now)
        self._world.fleet.resize(self.desired)

    def capacity(self, backlog: int, in_service: int, now: float) -> int:
        """Return the group's size after one more datapoint."""
        self._metric.append(backlog / in_service)
        latest = list(self._metric)
        if len(latest) >= self.high_datapoints and min(latest[-self.high_datapoints :]) > self._target:
            wanted = min(math.ceil(in_service * latest[-1] / self._target), self._world.fleet.max_instances)
            if wanted > self.desired:
                self._grew_at = now
                return wanted
        elif (
            len(latest) == self.low_datapoints
            and max(latest) < self.low_share * self._target
            and now - self._grew_at >= self.warm_up_seconds
        ):
            return max(self.min_instances, self.desired - max(1, self.desired // 10))
        return self.desired
