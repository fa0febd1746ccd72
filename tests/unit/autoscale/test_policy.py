"""The policy's promises, whatever it sees."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscale.observation import ACTIVE, FleetByPhase, Instance, Observation, Phase, Power, Unreadable, phase
from autoscale.policy import Decision, Estimates, Hold, Policy, decide
from autoscale.process import make_policy
from facerec.fleet_records import QueueDepth
from facerec.messages import WorkerReport, WorkerState
from facerec.settings.tiers import AutoscaleSettings

NOW = 1_000_000.0
POLICY = Policy()
ESTIMATES = Estimates(boot_seconds=60, start_seconds=30, service_seconds=0.1)


def report(instance_id: str, **changes: object) -> WorkerReport:
    """A ready worker that has been idle for ten seconds."""
    idle = WorkerReport(instance_id, WorkerState.READY, NOW - 100, NOW - 1, 0, NOW - 10, 0, 0.0, 0)
    return replace(idle, **changes)  # type: ignore[arg-type]  # fields by name


def instance(number: int, power: Power = Power.RUNNING, since: float = NOW - 200, **changes: object) -> Instance:
    """A serving instance, changed as given."""
    known = {"report": report(f"i-{number}") if power is Power.RUNNING else None} | changes
    return Instance(number, f"i-{number}", power, since, **known)  # type: ignore[arg-type]  # fields by name


def booting(number: int, age: float = 5) -> Instance:
    """An instance that has not reported yet."""
    return Instance(number, f"i-{number}", Power.PENDING, NOW - age)


def seen(
    depth: QueueDepth | Unreadable,
    fleet: tuple[Instance, ...],
    *,
    watched_since: float = 0.0,
    **known: object,
) -> Observation:
    """An observation of these instances."""
    return Observation(depth, FleetByPhase.of(fleet, POLICY.limits, NOW, watched_since), **known)  # type: ignore[arg-type]  # fields by name


def decided(depth: QueueDepth, *fleet: Instance, policy: Policy = POLICY, **estimates: object) -> Decision:
    """The decision, which must not be a hold."""
    guesses = replace(ESTIMATES, **estimates)  # type: ignore[arg-type]  # fields by name
    decision = decide(seen(depth, fleet), guesses, policy, NOW)
    assert isinstance(decision, Decision)
    return decision


@st.composite
def reports(draw: st.DrawFn, instance_id: str) -> WorkerReport:
    """Any report of a worker."""
    held = draw(st.integers(0, 16))
    return WorkerReport(
        instance_id,
        draw(st.sampled_from(WorkerState)) if held == 0 else draw(st.sampled_from([WorkerState.READY, "draining"])),  # type: ignore[arg-type]
        NOW - draw(st.floats(0, 5000)),
        NOW - draw(st.floats(0, 100)),
        held,
        NOW - draw(st.floats(0, 500)) if held == 0 else None,
        draw(st.integers(0, 1000)),
        draw(st.floats(0, 100)),
        draw(st.integers(0, 1000)),
        draw(st.booleans()),
    )


@st.composite
def instances(draw: st.DrawFn, number: int) -> Instance:
    """An instance in any condition."""
    power = draw(st.sampled_from(Power))
    instance_id = f"i-{number}"
    return Instance(
        number,
        instance_id,
        power,
        NOW - draw(st.floats(0, 100_000)),
        draw(st.none() | reports(instance_id)) if power is Power.RUNNING else None,
        draw(st.none() | st.floats(NOW - 300, NOW)),
        spot=draw(st.booleans()),
        outdated=draw(st.booleans()),
        impaired=power is Power.RUNNING and draw(st.booleans()),
    )


@st.composite
def fleets(draw: st.DrawFn) -> tuple[Instance, ...]:
    """Up to twenty instances with different numbers."""
    numbers = draw(st.sets(st.integers(1, 40), max_size=20))
    return tuple(draw(instances(number)) for number in sorted(numbers))


depths = st.builds(QueueDepth, st.integers(0, 5000), st.integers(0, 300), st.integers(0, 50))
estimates = st.builds(
    Estimates,
    st.floats(1, 300),
    st.floats(1, 100),
    st.floats(0.005, 5),
    st.floats(0, 500),
    st.none() | st.integers(0, 15),
    st.none() | st.floats(0, 500),
)
policies = st.builds(
    Policy,
    st.integers(0, 3),
    st.integers(3, 15),
    st.floats(1, 60),
    st.floats(0, 300),
    st.floats(0.1, 1),
    st.integers(0, 5),
)


def phases(fleet: tuple[Instance, ...], policy: Policy) -> dict[str, Phase]:
    """Every instance's phase by its id."""
    return {str(each.instance_id): phase(each, policy.limits, NOW) for each in fleet}


@given(depths, fleets(), estimates, policies)
def test_policy_never_exceeds_the_cap(
    depth: QueueDepth, fleet: tuple[Instance, ...], guesses: Estimates, policy: Policy
) -> None:
    """Launched, started and active instances together stay within the maximum."""
    decision = decide(seen(depth, fleet), guesses, policy, NOW)
    assert isinstance(decision, Decision)
    active = sum(name in ACTIVE for name in phases(fleet, policy).values())
    assert active + len(decision.launch) + len(decision.start) <= max(policy.max_instances, active)


@given(depths, fleets(), estimates, policies)
def test_policy_gives_each_instance_one_order(
    depth: QueueDepth, fleet: tuple[Instance, ...], guesses: Estimates, policy: Policy
) -> None:
    """And new numbers are free ones."""
    decision = decide(seen(depth, fleet), guesses, policy, NOW)
    assert isinstance(decision, Decision)
    named = [*decision.start, *decision.resume, *decision.drain, *decision.stop, *decision.terminate]
    assert len(named) == len(set(named))
    assert not set(decision.launch) & {each.number for each in fleet}
    assert len(decision.launch) == len(set(decision.launch))


@given(depths, fleets(), estimates, policies)
def test_policy_never_ends_instances_that_hold_tasks(
    depth: QueueDepth, fleet: tuple[Instance, ...], guesses: Estimates, policy: Policy
) -> None:
    """Only drained, lost and stopped instances are ended."""
    decision = decide(seen(depth, fleet), guesses, policy, NOW)
    assert isinstance(decision, Decision)
    known = phases(fleet, policy)
    assert {known[name] for name in decision.stop} <= {Phase.DRAINED}
    assert {known[name] for name in decision.terminate} <= {Phase.DRAINED, Phase.LOST, Phase.STOPPED}


@given(depths, depths, fleets(), estimates, policies)
def test_more_backlog_never_needs_fewer_instances(
    first: QueueDepth, other: QueueDepth, fleet: tuple[Instance, ...], guesses: Estimates, policy: Policy
) -> None:
    """The need grows with the open tasks."""
    less, more = sorted((first, other), key=lambda depth: depth.open)
    less = replace(less, delayed=more.delayed)
    smaller = decide(seen(less, fleet), guesses, policy, NOW)
    larger = decide(seen(more, fleet), guesses, policy, NOW)
    assert isinstance(smaller, Decision)
    assert isinstance(larger, Decision)
    assert smaller.needed <= larger.needed


@given(fleets(), estimates, policies, depths)
def test_unreadable_reading_holds(
    fleet: tuple[Instance, ...], guesses: Estimates, policy: Policy, depth: QueueDepth
) -> None:
    """An outage is neither an empty queue nor an empty fleet."""
    for observation in (seen(Unreadable("outage"), fleet), Observation(depth, Unreadable("outage"))):
        decision = decide(observation, guesses, policy, NOW)
        assert isinstance(decision, Hold)
        assert "outage" in decision.reason


@given(depths, fleets(), estimates, policies)
def test_decision_is_stable_after_it_was_carried_out(
    depth: QueueDepth, fleet: tuple[Instance, ...], guesses: Estimates, policy: Policy
) -> None:
    """Once its orders are seen, the same backlog asks for none of them again, nor for their contrary.

    What is terminated makes room under the cap, which may be used then.
    """
    decision = decide(seen(depth, fleet), guesses, policy, NOW)
    assert isinstance(decision, Decision)
    after = decide(seen(depth, carried_out(fleet, decision)), guesses, policy, NOW)
    assert isinstance(after, Decision)
    grew = bool(decision.launch or decision.start or decision.resume)
    if not decision.terminate:
        assert (after.launch, after.start, after.resume) == ((), (), ())
    if not grew:
        assert (after.drain, after.stop) == ((), ())
    again = {*after.start, *after.resume, *after.drain, *after.stop, *after.terminate}
    assert not {*decision.start, *decision.resume, *decision.stop, *decision.terminate} & again
    assert not {*decision.drain} & {*after.start, *after.resume, *after.drain}  # a drained instance may be ended


@given(depths, fleets(), estimates, policies)
def test_decisions_converge(depth: QueueDepth, fleet: tuple[Instance, ...], guesses: Estimates, policy: Policy) -> None:
    """Carried out one after the other, without news, they soon hold."""
    for _ in range(5):
        decision = decide(seen(depth, fleet), guesses, policy, NOW)
        assert isinstance(decision, Decision)
        if decision.is_empty:
            return
        fleet = carried_out(fleet, decision)
    raise AssertionError(decision)


def carried_out(fleet: tuple[Instance, ...], decision: Decision) -> tuple[Instance, ...]:
    """The fleet a moment after the decision."""
    after = []
    for each in fleet:
        name = each.instance_id
        if name in decision.terminate:
            after.append(replace(each, power=Power.SHUTTING_DOWN, report=None))
        elif name in decision.stop:
            after.append(replace(each, power=Power.STOPPING, report=None))
        elif name in decision.start:
            after.append(replace(each, power=Power.PENDING, since=NOW, drain_ordered_at=None))
        elif name in decision.resume:
            resumed = None if each.report is None else replace(each.report, state=WorkerState.READY)
            after.append(replace(each, drain_ordered_at=None, report=resumed))
        elif name in decision.drain:
            after.append(replace(each, drain_ordered_at=NOW))
        else:
            after.append(each)
    after += [Instance(number, f"i-{number}", Power.PENDING, NOW) for number in decision.launch]
    return tuple(after)


def test_first_task_launches_one_instance() -> None:
    """From zero, one task is enough; the reason counts in words that fit."""
    decision = decided(QueueDepth(1, 0))
    assert decision.launch == (1,)
    assert "1 instance can clear it" in decision.reason


def test_burst_launches_enough_for_the_target_time() -> None:
    """1 000 tasks at 0.1 s are 100 s of work: ten instances clear them in ten seconds."""
    assert len(decided(QueueDepth(1000, 0)).launch) == 10


def test_instances_that_would_come_too_late_are_not_launched() -> None:
    """Two serving instances clear 1 000 tasks in 50 s; others would need 60 s to boot."""
    decision = decided(QueueDepth(1000, 0), instance(1), instance(2))
    assert decision.is_empty


def test_booting_instances_count() -> None:
    """Ten booting instances are enough for the burst, at any age."""
    for age in (0.0, 30.0, 100.0):
        assert decided(QueueDepth(1000, 0), *(booting(number, age) for number in range(1, 11))).is_empty


def test_launch_takes_the_lowest_free_numbers() -> None:
    """Names have no holes."""
    fleet = (booting(2), instance(4, Power.STOPPING))
    assert decided(QueueDepth(400, 0), *fleet).launch == (1, 3, 5)


def test_silence_counts_from_the_end_of_an_outage() -> None:
    """Every report is old then."""
    busy = [instance(n, report=report(f"i-{n}", reported_at=NOW - 90, held=3, idle_since=None)) for n in (1, 2)]
    depth = QueueDepth(5, 6)
    decision = decide(seen(depth, tuple(busy), watched_since=NOW - 5), ESTIMATES, POLICY, NOW)
    assert isinstance(decision, Decision)
    assert decision.is_empty
    assert decided(depth, *busy, instance(3)).terminate == ("i-1", "i-2")


def test_draining_instance_is_resumed_if_a_launch_would_come_too_late() -> None:
    """It serves within a second, so it is never stopped while it could help."""
    drained = instance(2, drain_ordered_at=NOW - 2, report=report("i-2", state=WorkerState.DRAINED))
    for count in (30, 64, 69, 200):
        decision = decided(QueueDepth(count, 0), instance(1), drained, service_seconds=1.0)
        assert decision.resume == ("i-2",)
        assert not decision.stop


def test_resumed_instance_counts_until_its_next_report() -> None:
    """It still reports drained: it is neither stopped nor doubled by a launch."""
    called_back = instance(2, report=report("i-2", state=WorkerState.DRAINED))
    for count in (1, 80, 200):
        assert decided(QueueDepth(count, 0), instance(1), called_back).is_empty


def test_growing_resumes_first_then_starts() -> None:
    """The nearest capacity comes first."""
    fleet = (instance(1, drain_ordered_at=NOW - 1), instance(2, Power.STOPPED))
    decision = decided(QueueDepth(300, 0), *fleet)
    assert decision.resume == ("i-1",)
    assert decision.start == ("i-2",)


def test_no_capacity_launches_nothing_and_is_the_reason() -> None:
    """The backoff is visible."""
    observation = seen(QueueDepth(100, 0), (), no_capacity="EC2 has no c7i.large")
    decision = decide(observation, ESTIMATES, POLICY, NOW)
    assert isinstance(decision, Decision)
    assert decision.is_empty
    assert "no c7i.large" in decision.reason


def test_idle_instance_is_drained_after_the_cooldown_then_stopped() -> None:
    """The order comes first, the stop when no task is held."""
    idle = instance(1, report=report("i-1", idle_since=NOW - 61))
    assert decided(QueueDepth(0, 0), idle).drain == ("i-1",)
    assert decided(QueueDepth(0, 0), instance(1)).is_empty  # idle for ten seconds
    drained = instance(1, drain_ordered_at=NOW - 2, report=report("i-1", state=WorkerState.DRAINED))
    assert decided(QueueDepth(0, 0), drained).stop == ("i-1",)


def test_new_work_resumes_a_drained_instance() -> None:
    """A drained instance is the nearest capacity."""
    drained = instance(1, drain_ordered_at=NOW - 2, report=report("i-1", state=WorkerState.DRAINED))
    decision = decided(QueueDepth(5, 0), drained)
    assert decision.resume == ("i-1",)
    assert not decision.stop
    assert not decision.launch


def test_surplus_of_busy_instances_drains_the_least_busy() -> None:
    """The consumers share the queue's tasks: at a low flow none is ever idle."""
    fleet = [instance(n, report=report(f"i-{n}", held=n, idle_since=None)) for n in range(1, 5)]
    assert decided(QueueDepth(0, 4), *fleet).is_empty
    assert decided(QueueDepth(0, 4), *fleet, recent_peak=2).drain == ("i-1", "i-2")


def test_delayed_tasks_keep_one_instance_but_launch_none() -> None:
    """A retry that is due soon finds an instance."""
    idle = [instance(n, report=report(f"i-{n}", idle_since=NOW - 100)) for n in (1, 2)]
    assert len(decided(QueueDepth(0, 0, 3), *idle).drain) == 1
    assert decided(QueueDepth(0, 0, 3)).is_empty


def test_steady_flow_keeps_the_instances_it_needs() -> None:
    """Fifty tasks a second at 0.1 s keep five busy; at 80 % utilisation seven."""
    fleet = [instance(n, report=report(f"i-{n}", idle_since=NOW - 100)) for n in range(1, 10)]
    assert decided(QueueDepth(3, 5), *fleet, arrivals_per_second=50.0).keep == math.ceil(50 * 0.1 / 0.8)


@pytest.mark.parametrize(
    "lost",
    [
        booting(1, age=301),
        instance(1, report=report("i-1", reported_at=NOW - 61)),
        instance(1, impaired=True),
        instance(1, drain_ordered_at=NOW - 121, report=report("i-1", held=3)),
    ],
    ids=["never registered", "silent", "impaired", "never drained"],
)
def test_lost_instance_is_replaced(lost: Instance) -> None:
    """It is terminated, and another is launched."""
    decision = decided(QueueDepth(5, 3), lost)
    assert decision.terminate == ("i-1",)
    assert decision.launch == (2,)


def test_restarted_worker_gets_the_boot_limit() -> None:
    """After an update its instance is old, and is not lost while its worker starts."""
    restarting = instance(1, report=report("i-1", state=WorkerState.ENDED, reported_at=NOW - 200))
    assert decided(QueueDepth(5, 0), restarting).is_empty
    never = instance(1, report=report("i-1", state=WorkerState.ENDED, reported_at=NOW - 301))
    assert decided(QueueDepth(5, 0), never).terminate == ("i-1",)


def test_interrupted_instance_is_replaced_while_it_drains() -> None:
    """The notice comes two minutes before."""
    leaving = instance(1, report=report("i-1", interrupted=True, held=3, idle_since=None))
    decision = decided(QueueDepth(5, 3), leaving)
    assert decision.launch == (2,)
    assert not decision.terminate


def test_warm_pool_has_a_size_and_an_age() -> None:
    """Old, surplus and outdated instances are terminated."""
    pool = [instance(n, Power.STOPPED, since=NOW - 10) for n in range(1, 7)]
    pool[0] = replace(pool[0], since=NOW - 90_000)
    pool[1] = replace(pool[1], outdated=True)
    assert decided(QueueDepth(0, 0), *pool, policy=Policy(warm_pool_max=3)).terminate == ("i-1", "i-2", "i-6")


def test_spot_instance_is_terminated_not_stopped() -> None:
    """They cannot be stopped."""
    drained = instance(1, spot=True, drain_ordered_at=NOW - 2, report=report("i-1", state=WorkerState.DRAINED))
    assert decided(QueueDepth(0, 0), drained).terminate == ("i-1",)


def test_booting_instance_without_work_is_ended() -> None:
    """Its worker will see the order before its first task."""
    policy = Policy(cooldown_seconds=0)
    assert decided(QueueDepth(0, 0), booting(1), policy=policy).is_empty  # one reading of nothing may be wrong
    assert decided(QueueDepth(0, 0), booting(1), policy=policy, empty_seconds=1.0).drain == ("i-1",)
    ordered = replace(booting(1), drain_ordered_at=NOW - 1)
    assert decided(QueueDepth(0, 0), ordered, policy=policy).terminate == ("i-1",)


def test_serverless_app_tier_drains_the_fleet_and_launches_nothing() -> None:
    """Whatever waits in the queue, which the functions take; drained instances end, and nothing is resumed."""
    policy = make_policy(AutoscaleSettings(min_instances=1), "serverless")
    serving = [instance(n, report=report(f"i-{n}", held=1, idle_since=None)) for n in (1, 2)]
    decision = decided(QueueDepth(500, 10), *serving, booting(3), policy=policy)
    assert set(decision.drain) == {"i-1", "i-2", "i-3"}
    assert decision.needed == 0
    assert "serverless" in decision.reason
    drained = instance(1, report=report("i-1", state=WorkerState.DRAINED), drain_ordered_at=NOW - 5)
    ended = decided(QueueDepth(500, 10), drained, policy=policy)
    assert (ended.resume, ended.launch, ended.stop) == ((), (), ("i-1",))
    assert decided(QueueDepth(500, 10), policy=policy).is_empty
    assert decided(QueueDepth(500, 10), policy=make_policy(AutoscaleSettings(), "both")).launch


def test_lowered_cap_drains_at_once() -> None:
    """Busy instances finish first."""
    fleet = [instance(n, report=report(f"i-{n}", held=n, idle_since=None)) for n in range(1, 5)]
    assert decided(QueueDepth(500, 10), *fleet, policy=Policy(max_instances=2)).drain == ("i-1", "i-2")


@pytest.mark.parametrize(
    ("stopped", "unstartable"),
    [
        (instance(2, Power.STOPPED), frozenset({"i-2"})),
        (instance(2, Power.STOPPED, outdated=True), frozenset()),
        (instance(2, Power.STOPPED, since=NOW - 90_000), frozenset()),
    ],
    ids=["no room for it", "outdated", "expired"],
)
def test_unstartable_instance_does_not_shorten_the_boot_time(stopped: Instance, unstartable: frozenset[str]) -> None:
    """New instances need a whole boot, so that fewer of them are worth it."""
    depth, serving = QueueDepth(600, 0), instance(1)
    hindered = decide(seen(depth, (serving, stopped), unstartable=unstartable), ESTIMATES, POLICY, NOW)
    without = decide(seen(depth, (serving,)), ESTIMATES, POLICY, NOW)
    assert isinstance(hindered, Decision)
    assert isinstance(without, Decision)
    assert hindered.reason.removesuffix("; 2 to end") == without.reason
    assert decided(depth, serving, instance(2, Power.STOPPED)).start == ("i-2",)
