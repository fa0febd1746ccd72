"""One simulation: a trace, a policy, a seed."""

from dataclasses import asdict, dataclass
from math import ceil, inf
from random import Random

from autoscale.decider import Priors
from autoscale.observation import Power
from autoscale.policy import Policy
from autoscale.simulator.fleet import SimulatedFleet
from autoscale.simulator.scalers import Keda, Naive, Ours, Scaler, TargetTracking, World
from autoscale.simulator.scenario import Environment, Trace
from autoscale.simulator.workers import Queue, Schedule
from facerec.messages import WorkerState

POLICIES = ("ours", "naive", "keda", "target-tracking")
_LOST_AFTER_SECONDS = 6 * 3600.0
"""A task that is not done so long after the end of the trace is lost."""


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """The figures of a run; latencies are from a request's arrival to its answer."""

    requests: int
    p50_s: float
    p95_s: float
    p99_s: float
    makespan_s: float
    """From the first request to the last answer."""
    instance_seconds: float
    """Billed ones."""
    cost_per_1000: float
    """US dollars for a thousand requests: instances and disks."""
    over_cap: float
    """Seconds in which more than the maximum were pending or running."""
    lost: int
    max_instances: int
    launches: int
    redelivered: int

    def to_json(self) -> dict[str, float]:
        """Return rounded figures."""
        return {name: round(value, 6 if name == "cost_per_1000" else 3) for name, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class Moment:
    """The state at one moment, for plots."""

    at: float
    visible: int
    in_flight: int
    desired: int
    booting: int
    serving: int
    """Draining ones included."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run with all that plots need."""

    outcome: RunOutcome
    latencies: list[float]
    """In the order of the arrivals; infinite for a lost request."""
    moments: list[Moment]


def simulate(
    trace: Trace,
    environment: Environment,
    policy_name: str,
    policy: Policy,
    seed: int,
    priors: Priors | None = None,
    watch_seconds: float | None = None,
) -> Run:
    """Run a trace under one of `POLICIES`; the same arguments give the same run.

    `max_instances` of `policy` caps every policy; its other fields are for ours. `watch_seconds` is the interval of the
    moments; without it there are none.
    """
    name = f"{trace.name} {seed}"
    random = Random(f"{name} world")  # noqa: S311 - repeatable, not secret
    events = Schedule()
    queue = Queue(events, environment.visibility_seconds, environment.counts_refresh_seconds, random)
    fleet = SimulatedFleet(events, queue, environment, trace.services, policy.max_instances, name)
    scaler = _scaler(policy_name, World(events, queue, fleet), policy, priors or Priors())
    for period, act in scaler.loops():
        events.every(period, random.uniform(0, period), act)
    moments: list[Moment] = []
    if watch_seconds is not None:
        events.every(watch_seconds, 0.0, lambda: moments.append(_moment(events, queue, fleet, scaler)))
    answered = _go(events, queue, trace)
    fleet.close()
    latencies = [
        done - came + environment.overhead_seconds for came, done in zip(trace.arrivals, answered, strict=True)
    ]
    return Run(_outcome(latencies, trace, answered, fleet, queue, environment), latencies, moments)


def _go(events: Schedule, queue: Queue, trace: Trace) -> list[float]:
    """Run until the trace is over and every task is done; returns when each task was done."""
    answered = [inf] * len(trace.arrivals)
    open_tasks = len(answered)

    def done(task: int) -> None:
        nonlocal open_tasks
        if answered[task] != inf:
            raise RuntimeError(f"task {task} was done twice")
        answered[task] = events.now
        open_tasks -= 1

    queue.listener = done
    for task, arrival in enumerate(trace.arrivals):
        while events.next_at <= arrival:
            events.step()
        events.now = arrival
        queue.put(task)
    while events.next_at <= trace.duration_seconds:
        events.step()
    while open_tasks and events.now < trace.duration_seconds + _LOST_AFTER_SECONDS:
        events.step()
    events.now = max(events.now, trace.duration_seconds)
    return answered


def _scaler(name: str, world: World, policy: Policy, priors: Priors) -> Scaler:
    if name == "ours":
        return Ours(world, policy, priors)
    world.fleet.health_check_seconds = 120.0  # two checks of a minute
    if name == "naive":
        return Naive(world)
    if name == "keda":
        return Keda(world)
    if name == "target-tracking":
        # Ours gets the same service time as a prior, and learns the true one.
        return TargetTracking(world, policy.target_seconds / priors.service_seconds)
    raise ValueError(f"there is no policy {name}")


def _moment(events: Schedule, queue: Queue, fleet: SimulatedFleet, scaler: Scaler) -> Moment:
    machines = fleet.machines.values()
    return Moment(
        events.now,
        len(queue.visible),
        queue.in_flight,
        scaler.desired,
        sum(machine.active and machine.state is None for machine in machines),
        sum(
            machine.power is Power.RUNNING and machine.state in {WorkerState.READY, WorkerState.DRAINING}
            for machine in machines
        ),
    )


def _outcome(
    latencies: list[float],
    trace: Trace,
    answered: list[float],
    fleet: SimulatedFleet,
    queue: Queue,
    environment: Environment,
) -> RunOutcome:
    ordered = sorted(latencies)
    requests = len(ordered)
    hours = fleet.billed_seconds / 3600, fleet.disk_seconds / 3600
    cost = hours[0] * environment.price_per_hour + hours[1] * environment.disk_price_per_hour
    return RunOutcome(
        requests,
        percentile(ordered, 50),
        percentile(ordered, 95),
        percentile(ordered, 99),
        max(answered) - trace.arrivals[0] + environment.overhead_seconds if requests else 0.0,
        fleet.billed_seconds,
        1000 * cost / max(requests, 1),
        fleet.over_cap_seconds,
        sum(time == inf for time in answered),
        fleet.most_active,
        fleet.launches,
        queue.redelivered,
    )


def percentile(ordered: list[float], share: float) -> float:
    """Return the nearest rank: the least value that `share` percent do not exceed."""
    return ordered[max(0, ceil(len(ordered) * share / 100) - 1)] if ordered else 0.0
