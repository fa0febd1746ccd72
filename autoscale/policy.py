"""How many instances there should be, and which: pure, no I/O and no clock.

The rule, with N tasks open, R instances serving, each doing μ tasks a second, boot time B and target T:

- what serves keeps its size while it clears N within T;
- else it is reckoned what will have been done at B + T, when instances launched now will have worked for T: by those
  that serve, by those that boot already, each from its own time on; what is lacking then is shared by new ones. An
  instance that could not be there before the work is done is never launched;
- a steady flow of tasks adds what it brings until then, and is never served by fewer than it keeps busy;
- down goes what has been idle for the cooldown, or what the last cooldown never needed. An instance is first asked
  to drain, and stopped when it says that it holds nothing: work in hand is never cut off, and an order to drain is
  taken back when work comes;
- silence of one worker is its end, silence of all of them is rather the end of their reports.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from autoscale.estimates import Estimates
from autoscale.observation import Instance, Limits, Muster, Observation, Phase, Power, QueueDepth, Unreadable


@dataclass(frozen=True, slots=True)
class Policy:
    """What the operator wants."""

    min_instances: int = 0
    max_instances: int = 15
    target_seconds: float = 10.0
    """How soon instances that serve shall have cleared what is open."""
    cooldown_seconds: float = 60.0
    utilisation: float = 0.8
    """The share of its time that an instance may be busy under a steady flow."""
    warm_pool_max: int = 4
    warm_pool_max_age_seconds: float = 86_400.0
    limits: Limits = field(default_factory=lambda: Limits(boot_seconds=300, silence_seconds=60, drain_seconds=120))


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now, and why; instance ids, and for launches the numbers of their names."""

    needed: int
    """Instances that should serve, booting ones included."""
    keep: int
    """The fewest that would do for what is known now; the cooldown may ask for more."""
    reason: str
    launch: tuple[int, ...] = ()
    start: tuple[str, ...] = ()
    resume: tuple[str, ...] = ()
    """Orders to drain to be taken back."""
    drain: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    terminate: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether nothing is to be done."""
        return not (self.launch or self.start or self.resume or self.drain or self.stop or self.terminate)


@dataclass(frozen=True, slots=True)
class Hold:
    """Nothing may be decided, because something could not be read."""

    reason: str


def decide(observation: Observation, estimates: Estimates, policy: Policy, now: float) -> Decision | Hold:
    """What to do about queue and fleet as they are; `now` is in seconds since the epoch."""
    if isinstance(observation.depth, Unreadable):
        return Hold(f"the queue could not be read: {observation.depth.reason}")
    if isinstance(observation.fleet, Unreadable):
        return Hold(f"the fleet could not be read: {observation.fleet.reason}")
    fleet = Muster.of(observation, observation.fleet, policy.limits, now)
    serving = len(fleet[Phase.SERVING]) + len(fleet[Phase.BOOTING])
    keep = fewest(observation.depth, estimates, policy)
    if fleet.deaf:
        return _sound_out(fleet, keep, observation, observation.depth, estimates, policy)
    boot_seconds = estimates.start_seconds if _startable(fleet, observation, policy, now) else estimates.boot_seconds
    needed, reason = _needed(observation.depth, fleet, boot_seconds, keep, estimates, policy, now)
    # Who drains serves again within a second or so: that always pays, up to what would do.
    needed = max(needed, min(serving + len(_resumable(fleet)), keep))
    if needed > serving:
        return _grow(fleet, needed, keep, reason, observation, policy, now)
    drain = _to_drain(fleet, keep, observation.depth, estimates, policy, now)
    stop, terminate = _to_end(fleet, policy, now)
    if drain:
        reason = f"{reason}; {_named(drain)} not needed for {policy.cooldown_seconds:g} s"
    elif stop or terminate:
        reason = f"{reason}; {_named([*stop, *terminate])} to go"
    return Decision(
        needed=serving - len(drain),
        keep=keep,
        reason=reason,
        drain=_ids(drain),
        stop=_ids(stop),
        terminate=_ids(terminate),
    )


def fewest(depth: QueueDepth, estimates: Estimates, policy: Policy) -> int:
    """The fewest instances that clear what is open within the target and keep up with the flow."""
    if depth.open == 0:
        # What is delayed needs somebody soon, but is no reason to launch.
        least = 1 if depth.delayed else 0
    else:
        clear = depth.open * estimates.service_seconds / policy.target_seconds
        least = max(1, math.ceil(clear), _for_flow(estimates, policy))
    return min(max(least, policy.min_instances), policy.max_instances)


def _for_flow(estimates: Estimates, policy: Policy) -> int:
    """Instances that a steady flow keeps as busy as they may be."""
    return math.ceil(estimates.arrivals_per_second * estimates.service_seconds / policy.utilisation)


def _needed(
    depth: QueueDepth,
    fleet: Muster,
    boot: float,
    keep: int,
    estimates: Estimates,
    policy: Policy,
    now: float,
) -> tuple[int, str]:
    """Serving and booting instances that there should be, at least those there are; and the reason."""
    ready, booting = len(fleet[Phase.SERVING]), len(fleet[Phase.BOOTING])
    there = ready + booting
    work = f"{depth.open} open"
    least = policy.min_instances
    if depth.open == 0:
        if least > there:
            return least, f"{work}; at least {least} instances are asked for"
        return there, f"{work}; nothing more is needed"
    if ready >= keep:
        return there, f"{work}; {ready} serving instances clear it within {policy.target_seconds:g} s"
    horizon = boot + policy.target_seconds
    done_seconds = ready * horizon
    for instance in fleet[Phase.BOOTING]:
        of_its_own = estimates.boot_seconds  # a started one is there sooner; to reckon with the longer one is safe
        left = max(0.0, min(of_its_own, boot) - max(0.0, now - instance.since))
        done_seconds += horizon - left
    come = depth.open + estimates.arrivals_per_second * horizon
    lacking_seconds = come * estimates.service_seconds - done_seconds
    more = math.ceil(lacking_seconds / policy.target_seconds - 1e-9) if lacking_seconds > 0 else 0
    flow = _for_flow(estimates, policy)
    needed = min(max(there + more, flow, least, 1), policy.max_instances)
    reason = (
        f"{work}; {needed} instances clear it {horizon:.0f} s from now "
        f"(boot {boot:.0f} s, {estimates.service_seconds:.3g} s a task)"
    )
    if flow > there + more:
        reason = f"{work}; {estimates.arrivals_per_second:.3g} a second keep {needed} instances busy"
    return max(needed, there), reason


def _grow(
    fleet: Muster, needed: int, keep: int, reason: str, observation: Observation, policy: Policy, now: float
) -> Decision:
    """First who drains is called back, then who is stopped is started, then others are launched."""
    missing = needed - len(fleet[Phase.SERVING]) - len(fleet[Phase.BOOTING])
    resume = _resumable(fleet)[:missing]
    terminate = [*fleet[Phase.LOST], *(one for one in fleet[Phase.DRAINED] if one not in resume and _leaves(one))]
    terminate += [one for one in fleet[Phase.STOPPED] if _expired(one, policy, now)]
    start: list[Instance] = []
    launch: list[int] = []
    if observation.no_capacity is None:
        # Called back ones are active already; lost ones count until they are gone.
        room = max(0, policy.max_instances - fleet.active)
        start = _startable(fleet, observation, policy, now)[: min(missing - len(resume), room)]
        count = min(missing - len(resume) - len(start), room - len(start))
        launch = fleet.free_numbers(count)
    else:
        reason = f"{reason}; but {observation.no_capacity}"
    return Decision(
        needed=needed,
        keep=keep,
        reason=reason,
        launch=tuple(launch),
        start=_ids(start),
        resume=_ids(resume),
        terminate=_ids(terminate),
    )


def _startable(fleet: Muster, observation: Observation, policy: Policy, now: float) -> list[Instance]:
    """Who of the stopped may be started, and is worth it."""
    if observation.no_capacity is not None:
        return []
    pool = [one for one in fleet[Phase.STOPPED] if not _expired(one, policy, now)]
    return [one for one in pool if one.instance_id not in observation.unstartable]


def _resumable(fleet: Muster) -> list[Instance]:
    """Who drains because it was asked to, and may be called back."""
    drains = [*fleet[Phase.DRAINING], *fleet[Phase.DRAINED]]
    return [one for one in drains if one.drain_ordered_at is not None and not _leaves(one)]


def _sound_out(
    fleet: Muster, keep: int, observation: Observation, depth: QueueDepth, estimates: Estimates, policy: Policy
) -> Decision:
    """While nobody is heard the silent are left alone; where there is work, one more instance shows whose fault it is.

    When its worker is heard, those that are silent still are lost. Only for its place one of them is ended, or when the
    queue has been empty for so long that they hold nothing.
    """
    silent, booting = fleet.silent, fleet[Phase.BOOTING]
    there = len(silent) + len(booting)
    terminate = [one for one in fleet[Phase.LOST] if one not in silent]
    reason = f"{_named(silent)} fell silent at once and nobody is heard: reports may be what fails, not the workers"
    launch: list[int] = []
    if depth.open and not booting:
        if observation.no_capacity is not None:
            reason = f"{reason}; {observation.no_capacity}"
        elif fleet.active < policy.max_instances:
            launch = fleet.free_numbers(1)
        elif not terminate:
            terminate = [min(silent, key=lambda one: (observation.heard_at.get(one.number, 0.0), one.number))]
    elif _empty_for(max(policy.cooldown_seconds, policy.limits.silence_seconds), depth, estimates):
        idle = silent[::-1][: max(0, there - keep)]
        terminate += idle
        there -= len(idle)
    return Decision(
        needed=there + len(launch), keep=keep, reason=reason, launch=tuple(launch), terminate=_ids(terminate)
    )


def _to_drain(
    fleet: Muster, keep: int, depth: QueueDepth, estimates: Estimates, policy: Policy, now: float
) -> list[Instance]:
    """Who is to take no more tasks: who boots for nothing, who has long been idle, or who holds least."""
    serving, booting = fleet[Phase.SERVING], fleet[Phase.BOOTING]
    there = len(serving) + len(booting)
    surplus = there - keep
    idle: list[Instance] = []
    if _empty_for(policy.cooldown_seconds, depth, estimates):
        idle = [one for one in reversed(booting) if one.instance_id is not None]
        idle = [one for one in idle if now - one.since >= policy.cooldown_seconds]
    idle += sorted(
        (one for one in serving if _idle_seconds(one) >= policy.cooldown_seconds),
        key=lambda one: (-_idle_seconds(one), -one.number),
    )
    drain = idle[: max(0, surplus)]
    if estimates.recent_peak is not None:
        # Consumers of a queue share its tasks, so that of too many none is ever idle: the least busy make way. The last
        # one goes only when it has been idle: a task now and then may never be seen in the queue.
        more = there - len(drain) - max(keep, estimates.recent_peak, 1)
        others = [one for one in serving if one not in drain]
        drain += sorted(others, key=lambda one: (_held(one), -one.number))[: max(0, more)]
    if there - len(drain) > policy.max_instances:  # the cap was lowered
        others = [one for one in [*booting, *serving] if one not in drain and one.instance_id is not None]
        drain += sorted(others, key=lambda one: (_held(one), -one.number))[: there - len(drain) - policy.max_instances]
    return drain


def _to_end(fleet: Muster, policy: Policy, now: float) -> tuple[list[Instance], list[Instance]]:
    """Who is to be stopped into the warm pool, and who is to be terminated."""
    pool = [one for one in fleet[Phase.STOPPED] if not _expired(one, policy, now)]
    terminate = [*fleet[Phase.LOST], *(one for one in fleet[Phase.STOPPED] if one not in pool)]
    terminate += pool[policy.warm_pool_max :]
    room = policy.warm_pool_max - len(pool) - sum(one.power is Power.STOPPING for one in fleet[Phase.STOPPING])
    stop: list[Instance] = []
    for one in fleet[Phase.DRAINED]:
        # Only who once took tasks is known to be worth starting again.
        if len(stop) < room and not _leaves(one) and not one.spot and one.worker is not None:
            stop.append(one)
        else:
            terminate.append(one)
    return stop, terminate


def _empty_for(seconds: float, depth: QueueDepth, estimates: Estimates) -> bool:
    """Whether no work was seen for so long, and never by one reading alone: SQS's counts are approximate."""
    if depth.open + depth.delayed:
        return False
    return estimates.empty_seconds is not None and estimates.empty_seconds >= seconds


def _leaves(instance: Instance) -> bool:
    """Whether EC2 takes it back, or it is not to be used again."""
    return instance.outdated or (instance.worker is not None and instance.worker.interrupted)


def _expired(instance: Instance, policy: Policy, now: float) -> bool:
    return instance.outdated or now - instance.since > policy.warm_pool_max_age_seconds


def _idle_seconds(instance: Instance) -> float:
    """How long it had held no task when it reported, by its own clock; negative while it holds one."""
    if instance.worker is None or instance.worker.idle_since is None:
        return -1.0
    return instance.worker.reported_at - instance.worker.idle_since


def _held(instance: Instance) -> int:
    return 0 if instance.worker is None else instance.worker.held


def _ids(instances: Iterable[Instance]) -> tuple[str, ...]:
    return tuple(one.instance_id for one in instances if one.instance_id is not None)


def _named(instances: Sequence[Instance]) -> str:
    return ", ".join(str(one.number) for one in instances)
