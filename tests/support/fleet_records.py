"""An hour of a busy fleet: the production autoscaler on the simulator, with its records and the waits of uploads."""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from autoscale.decider import Decider, Priors
from autoscale.observation import Reading
from autoscale.policy import ActionKind, Decision, Policy
from autoscale.reconcile_result import Action, ReconcileResult, RoundLog
from autoscale.simulator.fleet import SimulatedFleet
from autoscale.simulator.scenario import Load, Scenarios, Trace
from autoscale.simulator.workers import Queue, Schedule
from facerec.fleet_records import RoundRecord
from facerec.web.fleet.traffic import SAMPLE_SECONDS, TrafficSample
from facerec.web.metrics import WAIT_BOUNDS
from tests.fakes.fleet import InMemoryHistory
from tests.fakes.web_tier import FakeWebTier

HOUR = 3600.0
_LOAD = Load(
    name="busy hour",
    about="quiet, a rise, two bursts, a fall and another rise",
    duration_seconds=HOUR,
    rate=((0, 0.3), (500, 0.3), (1300, 45), (1900, 20), (2500, 65), (3100, 18), (3600, 30)),
    bursts=((240, 120), (1800, 500)),
)
_SEED = 3


@dataclass(frozen=True)
class BusyHour:
    """What happened; times are in seconds since the epoch."""

    records: Sequence[RoundRecord]
    samples: Sequence[TrafficSample]


def busy_hour(until: float) -> BusyHour:
    """Simulate an hour that ends at `until`, in the middle of work."""
    environment = Scenarios.load().environment
    trace = _LOAD.trace(environment, _SEED)
    events, random = Schedule(), Random(_SEED)  # noqa: S311 - repeatable, not secret
    queue = Queue(events, environment.visibility_seconds, environment.counts_refresh_seconds, random)
    policy = Policy()
    fleet = SimulatedFleet(events, queue, environment, trace.services, policy.max_instances, trace.name)
    decider, history, start = Decider(policy, Priors()), InMemoryHistory(), until - HOUR
    log = RoundLog(history)

    def step() -> None:
        log.write(_round(decider, fleet, queue, events.now))

    events.every(1.0, 0.5, step)
    done: dict[int, float] = {}

    def answer(task: int) -> None:
        done[task] = events.now

    queue.listener = answer
    for task, arrival in enumerate(trace.arrivals):
        while events.next_at <= arrival:
            events.step()
        events.now = arrival
        queue.put(task)
    while events.next_at <= HOUR:
        events.step()
    records = [replace(record, at=start + record.at) for record in history.kept]
    return BusyHour(records, _samples(trace, done, start))


def show(tier: FakeWebTier, hour: BusyHour) -> None:
    """Let a web tier show the hour, and the queue as it was at its end."""
    tier.history.kept.extend(hour.records)
    tier.traffic._samples.extend(hour.samples)
    last = hour.records[-1]
    tier.backlog.counts = replace(tier.backlog.counts, visible=last.visible, in_flight=last.in_flight)


def _round(decider: Decider, fleet: SimulatedFleet, queue: Queue, now: float) -> ReconcileResult:
    observation = decider.observe(Reading(queue.counts, fleet.observe()), now)
    decision = decider.decide(observation, now)
    actions: list[Action] = []
    if isinstance(decision, Decision):
        numbers = {machine.instance_id: machine.number for machine in fleet.machines.values()}
        chosen = (
            (ActionKind.RESUME, decision.resume, fleet.resume),
            (ActionKind.START, decision.start, fleet.start),
            (ActionKind.DRAIN, decision.drain, fleet.drain),
            (ActionKind.STOP, decision.stop, fleet.stop),
            (ActionKind.TERMINATE, decision.terminate, fleet.terminate),
        )
        for kind, names, act in chosen:
            if names:
                act(names)
                actions.append(Action(kind, tuple(numbers[name] for name in names)))
        if decision.launch:
            fleet.launch(decision.launch)
            actions.append(Action(ActionKind.LAUNCH, decision.launch))
    estimates = decider.estimates(now)
    return ReconcileResult(now, True, observation, decision, estimates, actions=tuple(actions))


def _samples(trace: Trace, done: dict[int, float], start: float) -> list[TrafficSample]:
    """The uploads' answers, as a web instance counts them."""
    count = math.ceil(HOUR / SAMPLE_SECONDS)
    waits = [[0] * (len(WAIT_BOUNDS) + 1) for _ in range(count)]
    waiting = [0] * count
    for task, arrival in enumerate(trace.arrivals):
        answered = done.get(task, math.inf)
        for index in range(int(arrival // SAMPLE_SECONDS), min(count, int(min(answered, HOUR) // SAMPLE_SECONDS))):
            waiting[index] += 1
        if answered < HOUR:
            waits[int(answered // SAMPLE_SECONDS)][bisect_left(WAIT_BOUNDS, answered - arrival)] += 1
    return [
        TrafficSample(start + (n + 1) * SAMPLE_SECONDS, SAMPLE_SECONDS, sum(waits[n]), tuple(waits[n]), waiting[n])
        for n in range(count)
    ]
