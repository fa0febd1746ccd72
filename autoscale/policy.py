"""How many instances there should be, and which: pure, no I/O and no clock.

The rule, with N tasks open, R instances serving, each doing μ tasks a second, boot time B and target T:

- If the serving instances clear N within T, the fleet keeps its size.
- Otherwise the policy looks at B + T, when instances launched now will have worked for T. It subtracts what serving
  and booting instances will have done by then. New instances share what is left. An instance that would come after the
  work is done is never launched.
- A steady flow of tasks adds the arrivals until then. The fleet is never smaller than the flow keeps busy.
- An instance that has been idle for the cooldown, or that the last cooldown never needed, is drained. It is stopped
  or terminated when it reports that it holds no task. An order to drain is cancelled when work comes.
- After a hold or a long gap between readings, the fleet shrinks only after it was watched for the whole cooldown.
- One silent worker is lost. If all workers are silent, it is more likely that their reports fail.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from autoscale.observation import FleetByPhase, Instance, Limits, Observation, Phase, Power, Unreadable
from facerec.fleet_records import QueueDepth
from facerec.text import counted


@dataclass(frozen=True, slots=True)
class Policy:
    """What the operator wants."""

    min_instances: int = 0
    max_instances: int = 15
    """0: another app tier takes the tasks, and what runs is drained."""
    target_seconds: float = 10.0
    """How soon serving instances should clear the open tasks."""
    cooldown_seconds: float = 60.0
    utilisation: float = 0.8
    """The share of its time that an instance may be busy under a steady flow."""
    warm_pool_max: int = 4
    warm_pool_max_age_seconds: float = 86_400.0
    limits: Limits = field(default_factory=lambda: Limits(boot_seconds=300, silence_seconds=60, drain_seconds=120))


@dataclass(frozen=True, slots=True)
class Estimates:
    """Measured times and rates."""

    boot_seconds: float
    """From a launch to the worker's first report."""
    start_seconds: float
    """The same for a stopped instance that is started."""
    service_seconds: float
    """One saturated instance's time for one task: the inverse of its throughput."""
    arrivals_per_second: float = 0.0
    """The steady flow of tasks, without bursts."""
    recent_peak: int | None = None
    """The most instances that the last cooldown needed; absent until it has been watched for so long."""
    empty_seconds: float | None = None
    """For how long readings have found no work, up to the previous one; absent when that one found some."""
    watched_seconds: float = math.inf
    """For how long readings have followed each other without a hold or a long gap."""


class ActionKind(StrEnum):
    """The actions on instances, in the sequence of a round: first those that add capacity, last those that end it."""

    RESUME = "resume"
    START = "start"
    LAUNCH = "launch"
    DRAIN = "drain"
    STOP = "stop"
    TERMINATE = "terminate"


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now, and why: instance ids, and for launches the numbers of their names."""

    needed: int
    """Instances that should serve, booting ones included."""
    keep: int
    """The fewest that are enough for the open tasks; the cooldown may keep more."""
    reason: str
    launch: tuple[int, ...] = ()
    start: tuple[str, ...] = ()
    resume: tuple[str, ...] = ()
    """Their order to drain is cancelled."""
    drain: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    terminate: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing is to be done."""
        return not (self.launch or self.start or self.resume or self.drain or self.stop or self.terminate)


@dataclass(frozen=True, slots=True)
class Hold:
    """No decision, because something could not be read."""

    reason: str


def decide(observation: Observation, estimates: Estimates, policy: Policy, now: float) -> Decision | Hold:
    """Decide on an observation; `now` is in seconds since the epoch."""
    depth, fleet = observation.depth, observation.fleet
    if isinstance(depth, Unreadable):
        return Hold(f"the queue could not be read: {depth.reason}")
    if isinstance(fleet, Unreadable):
        return Hold(f"the fleet could not be read: {fleet.reason}")
    known = _Known(depth, fleet, observation.no_capacity, observation.unstartable, estimates, policy, now)
    if fleet.all_silent:
        return known.probe()
    needed, reason = known.needed()
    return known.grow(needed, reason) if needed > known.current else known.shrink(reason)


@dataclass(frozen=True, slots=True)
class _Known:
    """All that a decision depends on."""

    depth: QueueDepth
    fleet: FleetByPhase
    no_capacity: str | None
    unstartable: frozenset[str]
    estimates: Estimates
    policy: Policy
    now: float

    @property
    def current(self) -> int:
        """Serving and booting instances."""
        return len(self.fleet[Phase.SERVING]) + len(self.fleet[Phase.BOOTING])

    @property
    def keep(self) -> int:
        """The fewest instances that clear the open tasks within the target and keep up with the flow."""
        policy = self.policy
        if self.depth.open == 0:
            # Delayed tasks need an instance soon, but are no reason to launch one.
            least = 1 if self.depth.delayed else 0
        else:
            clear = self.depth.open * self.estimates.service_seconds / policy.target_seconds
            least = max(1, math.ceil(clear), self._for_flow)
        return min(max(least, policy.min_instances), policy.max_instances)

    @property
    def _for_flow(self) -> int:
        """Instances that the steady flow keeps busy to the wanted utilisation."""
        return math.ceil(self.estimates.arrivals_per_second * self.estimates.service_seconds / self.policy.utilisation)

    def needed(self) -> tuple[int, str]:
        """Serving and booting instances that there should be, at least the current ones; and the reason."""
        wanted, reason = self._wanted()
        # A draining instance serves again within a second: to resume it always pays.
        return max(wanted, min(self.current + len(self._resumable()), self.keep)), reason

    def _wanted(self) -> tuple[int, str]:
        policy, estimates, current = self.policy, self.estimates, self.current
        ready = len(self.fleet[Phase.SERVING])
        work = f"{self.depth.open} open"
        if policy.max_instances == 0:
            return current, f"{work}; the app tier is serverless, so that no instance is wanted"
        least = policy.min_instances
        if self.depth.open == 0:
            if least > current:
                return least, f"{work}; the minimum is {counted(least, 'instance')}"
            return current, f"{work}; nothing more is needed"
        if ready >= self.keep:
            instances = counted(ready, "serving instance")
            return current, f"{work}; {instances} can clear it within {policy.target_seconds:g} s"
        boot = estimates.start_seconds if self._startable() else estimates.boot_seconds
        horizon = boot + policy.target_seconds
        done_seconds = ready * horizon
        for instance in self.fleet[Phase.BOOTING]:
            # A started instance is ready sooner than a launched one; the longer time is the safe assumption.
            left = max(0.0, min(estimates.boot_seconds, boot) - max(0.0, self.now - instance.since))
            done_seconds += horizon - left
        arrived = self.depth.open + estimates.arrivals_per_second * horizon
        lacking_seconds = arrived * estimates.service_seconds - done_seconds
        more = math.ceil(lacking_seconds / policy.target_seconds - 1e-9) if lacking_seconds > 0 else 0
        wanted = min(max(current + more, self._for_flow, least, 1), policy.max_instances)
        reason = (
            f"{work}; {counted(wanted, 'instance')} can clear it {horizon:.0f} s from now "
            f"(boot {boot:.0f} s, {estimates.service_seconds:.3g} s a task)"
        )
        if self._for_flow > current + more:
            reason = f"{work}; {estimates.arrivals_per_second:.3g} a second keep {counted(wanted, 'instance')} busy"
        return max(wanted, current), reason

    def grow(self, needed: int, reason: str) -> Decision:
        """First resume draining instances, then start stopped ones, then launch new ones."""
        fleet, missing = self.fleet, needed - self.current
        resume = self._resumable()[:missing]
        terminate = [
            *fleet[Phase.LOST],
            *(instance for instance in fleet[Phase.DRAINED] if instance not in resume and _must_end(instance)),
        ]
        terminate += [instance for instance in fleet[Phase.STOPPED] if self._watched and self._expired(instance)]
        start: list[Instance] = []
        launch: list[int] = []
        if self.no_capacity is None:
            # Resumed instances are active already; lost ones count until they have ended.
            room = max(0, self.policy.max_instances - fleet.active)
            start = self._startable()[: min(missing - len(resume), room)]
            launch = fleet.free_numbers(min(missing - len(resume) - len(start), room - len(start)))
        else:
            reason = f"{reason}; but {self.no_capacity}"
        return Decision(
            needed=needed,
            keep=self.keep,
            reason=reason,
            launch=tuple(launch),
            start=_ids(start),
            resume=_ids(resume),
            terminate=_ids(terminate),
        )

    def shrink(self, reason: str) -> Decision:
        """Drain what is not needed, stop or terminate what has drained."""
        drain = self._to_drain()
        stop, terminate = self._to_end()
        if drain and self.policy.max_instances == 0:
            reason = f"{reason}; {_numbers(drain)} to drain"
        elif drain:
            reason = f"{reason}; {_numbers(drain)} not needed for {self.policy.cooldown_seconds:g} s"
        elif stop or terminate:
            reason = f"{reason}; {_numbers([*stop, *terminate])} to end"
        return Decision(
            needed=self.current - len(drain),
            keep=self.keep,
            reason=reason,
            drain=_ids(drain),
            stop=_ids(stop),
            terminate=_ids(terminate),
        )

    def probe(self) -> Decision:
        """While no worker reports, do nothing to the silent instances; if there is work, launch one instance.

        If the new worker reports, the silent ones are lost. At the cap one of them makes room for it. After the queue
        has been empty for long they hold nothing, and the surplus is terminated.
        """
        fleet, silent, booting = self.fleet, self.fleet.silent, self.fleet[Phase.BOOTING]
        current = len(silent) + len(booting)
        terminate = [instance for instance in fleet[Phase.LOST] if instance not in silent]
        reason = f"{_numbers(silent)} fell silent at once and no worker reports: reports may fail, not the workers"
        launch: list[int] = []
        if self.depth.open and not booting:
            if self.no_capacity is not None:
                reason = f"{reason}; {self.no_capacity}"
            elif fleet.active < self.policy.max_instances:
                launch = fleet.free_numbers(1)
            elif not terminate:
                terminate = [
                    min(silent, key=lambda instance: (fleet.changed_at.get(instance.number, 0.0), instance.number))
                ]
        elif self._empty_for(max(self.policy.cooldown_seconds, self.policy.limits.silence_seconds)):
            idle = silent[::-1][: max(0, current - self.keep)]
            terminate += idle
            current -= len(idle)
        return Decision(
            needed=current + len(launch), keep=self.keep, reason=reason, launch=tuple(launch), terminate=_ids(terminate)
        )

    def _startable(self) -> list[Instance]:
        """Stopped instances that are worth a start."""
        if self.no_capacity is not None:
            return []
        pool = [instance for instance in self.fleet[Phase.STOPPED] if not self._expired(instance)]
        return [instance for instance in pool if instance.instance_id not in self.unstartable]

    def _resumable(self) -> list[Instance]:
        """Instances that drain by an order that can be cancelled."""
        draining = [*self.fleet[Phase.DRAINING], *self.fleet[Phase.DRAINED]]
        return [instance for instance in draining if instance.drain_ordered_at is not None and not _must_end(instance)]

    def _to_drain(self) -> list[Instance]:
        """Booting instances without work, instances idle for the cooldown, and the least busy ones of too many."""
        policy, estimates, keep, current = self.policy, self.estimates, self.keep, self.current
        serving, booting = self.fleet[Phase.SERVING], self.fleet[Phase.BOOTING]
        idle: list[Instance] = []
        if self._empty_for(policy.cooldown_seconds):
            idle = [instance for instance in reversed(booting) if instance.instance_id is not None]
            idle = [instance for instance in idle if self.now - instance.since >= policy.cooldown_seconds]
        idle += sorted(
            (instance for instance in serving if self._watched and _idle_seconds(instance) >= policy.cooldown_seconds),
            key=lambda instance: (-_idle_seconds(instance), -instance.number),
        )
        drain = idle[: max(0, current - keep)]
        if estimates.recent_peak is not None:
            # The consumers of a queue share its tasks, so that of too many none is ever idle. The last one is
            # drained only after it was idle: a task now and then may never be seen in the queue.
            more = current - len(drain) - max(keep, estimates.recent_peak, 1)
            others = [instance for instance in serving if instance not in drain]
            drain += sorted(others, key=lambda instance: (_held(instance), -instance.number))[: max(0, more)]
        above_cap = current - len(drain) - policy.max_instances
        if above_cap > 0:  # the cap was lowered
            others = [
                instance
                for instance in [*booting, *serving]
                if instance not in drain and instance.instance_id is not None
            ]
            drain += sorted(others, key=lambda instance: (_held(instance), -instance.number))[:above_cap]
        return drain

    def _to_end(self) -> tuple[list[Instance], list[Instance]]:
        """Instances to be stopped into the warm pool, and instances to be terminated."""
        fleet, policy = self.fleet, self.policy
        pool = [instance for instance in fleet[Phase.STOPPED] if not self._expired(instance)]
        terminate = list(fleet[Phase.LOST])
        if self._watched:
            terminate += [instance for instance in fleet[Phase.STOPPED] if instance not in pool]
            terminate += pool[policy.warm_pool_max :]
        room = (
            policy.warm_pool_max
            - len(pool)
            - sum(instance.power is Power.STOPPING for instance in fleet[Phase.STOPPING])
        )
        stop: list[Instance] = []
        for instance in fleet[Phase.DRAINED]:
            # Only an instance whose worker once reported is known to be worth another start.
            if len(stop) < room and not _must_end(instance) and not instance.spot and instance.report is not None:
                stop.append(instance)
            else:
                terminate.append(instance)
        return stop, terminate

    @property
    def _watched(self) -> bool:
        """Whether the fleet was watched for the cooldown: a worker's idle time may reach back into an outage."""
        return self.estimates.watched_seconds >= self.policy.cooldown_seconds

    def _empty_for(self, seconds: float) -> bool:
        """Whether the queue was empty for so long; one reading is not enough, because SQS's counts are approximate."""
        if self.depth.open + self.depth.delayed:
            return False
        return self.estimates.empty_seconds is not None and self.estimates.empty_seconds >= seconds

    def _expired(self, instance: Instance) -> bool:
        return instance.outdated or self.now - instance.since > self.policy.warm_pool_max_age_seconds


def _must_end(instance: Instance) -> bool:
    """Whether the instance cannot be used again: EC2 reclaims it, or it is outdated."""
    return instance.outdated or (instance.report is not None and instance.report.interrupted)


def _idle_seconds(instance: Instance) -> float:
    """How long it had held no task at its report, by the worker's own clock; negative while it holds one."""
    if instance.report is None or instance.report.idle_since is None:
        return -1.0
    return instance.report.reported_at - instance.report.idle_since


def _held(instance: Instance) -> int:
    return 0 if instance.report is None else instance.report.held


def _ids(instances: Iterable[Instance]) -> tuple[str, ...]:
    return tuple(instance.instance_id for instance in instances if instance.instance_id is not None)


def _numbers(instances: Iterable[Instance]) -> str:
    return ", ".join(str(instance.number) for instance in instances)
