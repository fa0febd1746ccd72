"""The simulator: nothing is lost or done twice, the bill is right, and the baselines follow their published rules."""

import json
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscale.policy import Policy
from autoscale.simulator.fleet import SimulatedFleet
from autoscale.simulator.run import POLICIES, percentile, simulate
from autoscale.simulator.scalers import Keda, Naive, TargetTracking, World
from autoscale.simulator.scenario import Environment, Load, LogNormal, Scenarios, Trace, read_trace
from autoscale.simulator.workers import Queue, Schedule
from facerec.errors import ConfigurationError
from facerec.settings.resources import InstancesSettings

ENVIRONMENT = Scenarios.load().environment
CERTAIN = replace(
    ENVIRONMENT,
    service=LogNormal(0.2, 0.0),
    boot=LogNormal(45.0, 0.0),
    start=LogNormal(25.0, 0.0),
    overhead_seconds=0.0,
    disk_price_per_hour=0.0,
    price_per_hour=3.6,
)
"""No chance in it; a second of an instance costs a tenth of a cent."""


def world(environment: Environment = CERTAIN, services: int = 0, max_instances: int = 15) -> World:
    """An empty queue and no instance."""
    events = Schedule()
    queue = Queue(events, environment.visibility_seconds, environment.counts_refresh_seconds, Random(1))  # noqa: S311 - chance
    return World(events, queue, SimulatedFleet(events, queue, environment, [0.2] * services, max_instances, "test"))


def pass_time(world: World, until: float) -> None:
    """Let happen what is due until then."""
    while world.events.next_at <= until:
        world.events.step()
    world.events.now = until


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.floats(0, 300), min_size=1, max_size=120),
    st.sampled_from(POLICIES),
    st.integers(1, 15),
    st.sampled_from([0.0, 20.0]),
    st.integers(0, 100),
)
def test_every_request_is_done_once_within_the_cap(
    arrivals: list[float], name: str, cap: int, deaths: float, seed: int
) -> None:
    """Under every policy, also when instances die; `simulate` itself refuses a second answer."""
    trace = Load("any", "", 600.0, arrivals=tuple(arrivals)).trace(ENVIRONMENT, seed)
    environment = replace(ENVIRONMENT, deaths_per_instance_hour=deaths)
    run = simulate(trace, environment, name, Policy(max_instances=cap), seed)
    assert run.outcome.lost == 0
    assert len(run.latencies) == len(arrivals)
    assert min(run.latencies) > 0
    assert run.outcome.over_cap == 0
    assert run.outcome.max_instances <= cap


def test_tasks_of_a_dead_instance_are_redelivered() -> None:
    """SQS makes them visible again; another instance does them."""
    state = world(services=1)
    state.fleet.launch([1, 2])
    pass_time(state, 50.0)
    state.queue.put(0)
    holder = next(machine for machine in state.fleet.machines.values() if machine.held)
    done: list[int] = []
    state.queue.listener = done.append
    holder.die()
    pass_time(state, 79.9)
    assert (done, state.queue.in_flight) == ([], 1)
    pass_time(state, 81.0)
    assert (done, state.queue.in_flight, state.queue.redelivered) == ([0], 0, 1)


@pytest.mark.parametrize("name", POLICIES)
def test_same_seed_gives_the_same_run(name: str) -> None:
    """Another seed gives another run."""
    load = Scenarios.load().loads["burst-100"]
    first, again, other = (
        simulate(load.trace(ENVIRONMENT, seed), ENVIRONMENT, name, Policy(), seed).latencies for seed in (3, 3, 4)
    )
    assert first == again
    assert first != other


def test_bill_of_one_request() -> None:
    """By hand: seen at once, launched; billed from second 8; ready at 45, done at 45.2, idle for a minute, drained.

    The autoscaler's round and the counts add less than three seconds before, the order to drain one or two after.
    """
    trace = Trace("one", [10.0], [0.2], 600.0)
    run = simulate(trace, CERTAIN, "ours", Policy(), 1)
    (latency,) = run.latencies
    assert 45.2 <= latency <= 48.2
    billed = run.outcome.instance_seconds
    assert 37.2 + 60 <= billed <= 37.2 + 60 + 5
    assert run.outcome.cost_per_1000 == pytest.approx(1000 * billed * 0.001)


def test_start_is_billed_for_a_minute_and_then_whole_seconds() -> None:
    """EC2's rule."""
    state = world()
    state.fleet.launch([1, 2])
    short, long = state.fleet.machines
    pass_time(state, 20.0)  # ran for 12 s
    state.fleet.stop([short])
    assert state.fleet.billed_seconds == 60
    pass_time(state, 100.5)  # ran for 92.5 s
    state.fleet.terminate([long])
    assert state.fleet.billed_seconds == 60 + 93
    state.fleet.start([short])
    pass_time(state, 120.0)
    state.fleet.terminate([short])
    assert state.fleet.billed_seconds == 60 + 93 + 60


def test_pending_instance_costs_nothing() -> None:
    """Pending is free."""
    state = world()
    state.fleet.launch([1])
    pass_time(state, 5.0)
    state.fleet.terminate(list(state.fleet.machines))
    pass_time(state, 100.0)
    assert state.fleet.billed_seconds == 0
    assert not state.fleet.machines


def test_time_above_the_cap_is_counted() -> None:
    """The simulated EC2 allows it and counts it."""
    state = world(max_instances=1)
    state.fleet.launch([1, 2])
    pass_time(state, 30.0)
    state.fleet.terminate([next(iter(state.fleet.machines))])
    state.fleet.close()
    assert state.fleet.over_cap_seconds == pytest.approx(30.0)


def test_launches_wait_for_tokens() -> None:
    """Five at once, then two a second: the ninth comes two seconds later."""
    state = world(replace(CERTAIN, launches_per_second=2.0, launches_at_once=5))
    state.fleet.launch(range(1, 10))
    pass_time(state, 45.0)
    assert state.fleet.serving == 5
    pass_time(state, 46.9)
    assert state.fleet.serving == 8
    pass_time(state, 47.1)
    assert state.fleet.serving == 9


def test_worker_reports_its_counts() -> None:
    """Twenty tasks on two engines: sixteen are held, and with two or more it is saturated."""
    state = world(services=20)
    for task in range(20):
        state.queue.put(task)
    state.fleet.launch([1])
    pass_time(state, 45.1)
    report = state.fleet.observe()[0].report
    assert report is not None
    assert (report.held, report.tasks_done, report.idle_since) == (16, 0, None)
    assert (len(state.queue.visible), state.queue.in_flight) == (4, 16)
    pass_time(state, 60.0)
    report = state.fleet.observe()[0].report
    assert report is not None
    assert (report.held, report.tasks_done) == (0, 20)
    assert report.idle_since == pytest.approx(47.0)
    # Of the last two, one ends a moment before the other, and that other one works on an instance that has room.
    assert report.saturated_seconds == pytest.approx(2.0)
    assert report.saturated_tasks == 19


def test_draining_worker_takes_nothing_and_finishes_its_tasks() -> None:
    """When it is resumed, it takes tasks again."""
    state = world(services=40)
    state.fleet.launch([1])
    pass_time(state, 50.0)
    for task in range(40):
        state.queue.put(task)
    (name,) = state.fleet.machines
    state.fleet.drain([name])
    pass_time(state, 60.0)
    left = len(state.queue.visible)
    assert left > 0
    assert state.queue.in_flight == 0
    report = state.fleet.observe()[0].report
    assert report is not None
    assert report.state == "drained"
    state.fleet.resume([name])
    pass_time(state, 70.0)
    assert not state.queue.visible


def test_naive_launches_one_for_each_message_until_idle() -> None:
    """Three messages, three instances; twenty idle seconds later none."""
    state = world(services=3)
    ((seconds, step),) = Naive(state).loops()
    assert seconds == 2
    for task in range(3):
        state.queue.put(task)
    pass_time(state, 2.0)
    step()
    assert state.fleet.active == 3
    step()
    assert state.fleet.active == 3
    pass_time(state, 47.5)
    step()
    assert state.fleet.active == 3
    pass_time(state, 47.5 + 20)
    step()
    assert state.fleet.active == 0


def test_keda_asks_for_five_messages_a_pod_within_a_tenth() -> None:
    """Desired = ceil(messages / 5); 10 % off is left alone; at least one, at most the cap."""
    keda = Keda(world())
    assert keda.recommendation(51, 4) == 11
    assert keda.recommendation(21, 4) == 4  # 1.05 of the target
    assert keda.recommendation(23, 4) == 5
    assert keda.recommendation(18, 4) == 4
    assert keda.recommendation(17, 4) == 4  # ceil(3.4)
    assert keda.recommendation(14, 4) == 3
    assert keda.recommendation(0, 4) == 1
    assert keda.recommendation(1000, 4) == 15


def test_the_pod_autoscaler_grows_by_four_or_double_and_shrinks_to_the_most_of_five_minutes() -> None:
    """From 1 to 15 it takes 1, 5, 10, 15; a recommendation of 2 counts when the last of 15 is 300 s old."""
    keda = Keda(world())
    keda.desired = 1
    sizes = []
    for sync in range(4):
        keda.desired = keda.stabilise(15, 15.0 * sync)
        sizes.append(keda.desired)
    assert sizes == [5, 10, 15, 15]
    for at, expected in ((60.0, 15), (345.0, 15), (360.0, 2)):
        keda.desired = keda.stabilise(2, at)
        assert keda.desired == expected


def test_keda_wakes_up_when_it_polls_and_sleeps_after_five_idle_minutes() -> None:
    """0 ↔ 1."""
    state = world(services=1)
    keda = Keda(state)
    (polling, poll), (syncing, sync) = keda.loops()
    assert (polling, syncing) == (30, 15)
    state.queue.put(0)
    pass_time(state, 30.0)
    sync()
    assert keda.desired == 0  # the pod autoscaler alone never leaves zero
    poll()
    assert keda.desired == 1
    pass_time(state, 329.0)
    poll()
    assert keda.desired == 1
    pass_time(state, 330.0)
    poll()
    assert (keda.desired, state.fleet.active) == (0, 0)


def test_target_tracking_needs_three_high_minutes_to_grow_and_fifteen_low_ones_to_shrink() -> None:
    """With a target of 100 a backlog of 700 on two instances is worth seven; then one goes a minute."""
    group = TargetTracking(world(), 100.0)
    group.desired = 2
    sizes = []
    for minute in range(3):
        group.desired = group.capacity(700, 2, 60.0 * minute)
        sizes.append(group.desired)
    assert sizes == [2, 2, 7]
    sizes = []
    for minute in range(3, 20):
        group.desired = group.capacity(0, 7, 60.0 * minute)
        sizes.append(group.desired)
    assert sizes == [7] * 14 + [6, 5, 4]


def test_target_tracking_never_goes_below_one() -> None:
    """At none its metric would not be defined."""
    state = world()
    group = TargetTracking(state, 100.0)
    assert state.fleet.active == 1
    for minute in range(40):
        group.desired = group.capacity(0, 1, 60.0 * minute)
    assert group.desired == 1


def test_a_percentile_is_a_value_that_occurred() -> None:
    """Nearest rank."""
    assert [percentile([1.0, 2.0, 3.0, 4.0], share) for share in (50, 75, 76, 100)] == [2.0, 3.0, 4.0, 4.0]


def test_the_scenario_file_draws_what_it_says() -> None:
    """The rate's area and the bursts' sizes, in order, within the trace."""
    loads = Scenarios.load().loads
    assert len(loads["burst-1000"].trace(ENVIRONMENT, 0).arrivals) == 1000
    ramp = loads["ramp"].trace(ENVIRONMENT, 0)
    assert len(ramp.arrivals) == pytest.approx(72_000, rel=0.03)
    assert ramp.arrivals == sorted(ramp.arrivals)
    assert sum(ramp.services) / len(ramp.services) == pytest.approx(0.2, rel=0.02)


def test_recorded_arrivals_are_read_from_a_file(tmp_path: Path) -> None:
    """A heading is skipped, the first one is time zero; a file without times is refused."""
    path = tmp_path / "day.csv"
    path.write_text("time,what\n1700000005,b\n1700000000.5,a\n")
    assert read_trace(path).trace(ENVIRONMENT, 0).arrivals == [0.0, 4.5]
    path.write_text("time\nsoon\n")
    with pytest.raises(ConfigurationError, match=r"day\.csv"):
        read_trace(path)


def test_the_command_compares_and_draws(tmp_path: Path) -> None:
    """A table of all policies, and a picture."""
    from autoscale.commands.simulate import command  # noqa: PLC0415 - loads matplotlib only here

    plot = tmp_path / "plot.png"
    result = CliRunner().invoke(command, ["burst-100", "--plot", str(plot)])
    assert result.exit_code == 0, result.output
    assert all(name in result.output for name in POLICIES)
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert "burst-100" in CliRunner().invoke(command, []).output


def test_the_command_takes_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a warm pool the second of two bursts finds stopped instances; without one it waits for boots again."""
    from autoscale.commands.simulate import command  # noqa: PLC0415 - as above

    path = tmp_path / "two.csv"
    path.write_text("\n".join(str(at + index / 100) for at in (0, 400) for index in range(50)))
    latest = {}
    for kept in ("4", "0"):
        monkeypatch.setenv("FACEREC_AUTOSCALE__WARM_POOL_MAX", kept)
        result = CliRunner().invoke(command, [str(path), "--policy", "ours", "--json"])
        assert result.exit_code == 0, result.output
        latest[kept] = json.loads(result.output)["ours"]
    assert latest["4"]["launches"] < latest["0"]["launches"]
    assert latest["4"]["p50_s"] < latest["0"]["p50_s"]


def test_the_disks_are_those_of_the_settings() -> None:
    """The scenarios bill what an instance is launched with: 0.08 $ a GB and month of 730 hours."""
    price = InstancesSettings().volume_gb * 0.08 / 730
    assert pytest.approx(price, rel=0.001) == ENVIRONMENT.disk_price_per_hour
