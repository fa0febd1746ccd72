"""The loop around the policy: failing readings and orders, the lease, and the log."""

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest
from structlog.typing import EventDict

from autoscale.decider import Decider
from autoscale.observation import Instance, Phase, Power, Reading
from autoscale.policy import ActionKind, Decision, Hold
from autoscale.reconcile_result import Cause, ReconcileResult
from autoscale.reconciler import LaunchBackoff, Reconciler
from facerec.errors import ConfigurationError, FacerecError, InsufficientCapacity, LeaseLost, Throttled, Transient
from facerec.fleet_records import QueueDepth
from tests.fakes.fleet import InMemoryLease
from tests.fakes.worker_reports import READY
from tests.support.fleet_world import (
    LEASE_SECONDS,
    POLICY,
    PRIORS,
    FleetWorld,
    events,
    make_reconciler,
    run_rounds,
    start_instances,
)
from tests.support.logs import capture_logs


def test_fleet_grows_to_the_cap_and_shrinks_to_zero(world: FleetWorld, reconciler: Reconciler) -> None:
    """A burst launches at once; after the work and the cooldown the fleet drains, stops and ends."""
    world.queue(1000)
    first = reconciler.round()
    assert world.orders == ["launch " + " ".join(map(str, range(1, 16)))]
    assert first.actions_text == "launch 1-15"
    run_rounds(world, reconciler, 20)
    assert world.active == 15
    world.queue(0)
    run_rounds(world, reconciler, 20)
    assert world.active == 0
    assert [machine.power for machine in world.fleet.machines] == [Power.STOPPED]  # the warm pool
    kinds = [order.split()[0] for order in world.orders]
    assert kinds.index("drain") < kinds.index("stop") <= kinds.index("terminate")


@pytest.mark.parametrize(("method", "cause"), [("depth", Cause.QUEUE), ("instances", Cause.FLEET)])
def test_unreadable_port_holds_the_fleet(
    world: FleetWorld, reconciler: Reconciler, logs: list[EventDict], method: str, cause: Cause
) -> None:
    """Twenty seconds without an answer change nothing, are logged once, and restart the cooldown."""
    start_instances(world, 3)
    run_rounds(world, reconciler, 3)
    world.failing[method] = Transient("no answer")
    held = run_rounds(world, reconciler, 20)
    assert not world.orders
    assert world.active == 3
    assert all(
        isinstance(result.decision, Hold) and result.cause is cause and cause in result.failures for result in held
    )
    del world.failing[method]
    run_rounds(world, reconciler, 2)
    assert [(line["cause"], line["log_level"]) for line in events(logs, "holding")] == [(cause, "warning")]
    assert [line["seconds"] for line in events(logs, "hold_over")] == [20.0]
    run_rounds(world, reconciler, 20)
    assert world.active == 0


def test_launch_backoff_doubles_without_capacity(world: FleetWorld, reconciler: Reconciler) -> None:
    """EC2 is asked again after 2, 4, 8 … s; meanwhile the backoff is the reason."""
    world.queue(10)
    world.failing["launch"] = InsufficientCapacity("EC2 has none")
    done = run_rounds(world, reconciler, 31)
    asked = [index for index, result in enumerate(done) if result.actions]
    assert asked == [0, 2, 6, 14, 30]
    assert done[1].cause is Cause.CAPACITY
    decision = done[1].decision
    assert isinstance(decision, Decision)
    assert "EC2 has none; launches wait for 2.0 s" in decision.reason
    refused = world.failing.pop("launch")
    while not world.orders:
        run_rounds(world, reconciler, 1)
    run_rounds(world, reconciler, int(world.boot_seconds) + 1)
    world.failing["launch"] = refused
    world.queue(1000)
    again = run_rounds(world, reconciler, 2)[1].decision
    assert isinstance(again, Decision)
    assert "launches wait for 2.0 s" in again.reason


def test_launch_backoff_begins_when_instances_end_before_a_report(world: FleetWorld, reconciler: Reconciler) -> None:
    """They are launched again after 2, 4, 8 … s, not every second."""
    world.queue(25)
    launched = []
    for second in range(40):
        launched += [second for action in reconciler.round().actions if action.kind is ActionKind.LAUNCH]
        world.fleet.machines.clear()
        world.pass_second()
    assert launched == [0, 3, 8, 17, 34]
    decision = reconciler.round().decision
    assert isinstance(decision, Decision)
    assert "1, 2, 3 ended before any report" in decision.reason


def test_launch_backoff_ignores_instances_that_the_fleet_ended(world: FleetWorld, reconciler: Reconciler) -> None:
    """The work was withdrawn, so that the fleet drained them: the next launch need not wait."""
    world.boot_seconds = 1000.0
    world.queue(25)
    reconciler.round()
    world.queue(0)
    run_rounds(world, reconciler, 20)
    assert not world.fleet.machines
    world.queue(25)
    assert reconciler.round().actions_text == "launch 1-3"


def test_launch_backoff_is_shortened_by_jitter_and_reset_by_success() -> None:
    """It is at most a minute; after a success it begins again."""
    backoff = LaunchBackoff(lambda: 1.0)
    now = 0.0
    lengths = []
    for _ in range(8):
        backoff.begin_wait("none", now)
        began = now
        while backoff.reason(now):
            now += 0.5
        lengths.append(now - began)
    assert lengths == [1, 2, 4, 8, 16, 30, 30, 30]
    backoff.watch([1])
    booting = Instance(1, "i-1", Power.RUNNING, since=now)
    backoff.observe([booting], now)
    backoff.observe([replace(booting, report=READY)], now)
    backoff.begin_wait("none", now)
    assert backoff.reason(now + 0.9)
    assert backoff.reason(now + 1) is None


def test_launch_backoff_begins_when_ec2_throttles(world: FleetWorld, reconciler: Reconciler) -> None:
    """Also when the launch template is missing."""
    world.queue(10)
    for error in (Throttled("slower"), ConfigurationError("no template")):
        world.failing["launch"] = error
        done = run_rounds(world, make_reconciler(world), 2)
        assert [bool(result.actions) for result in done] == [True, False]
        world.lease.owner = None


@pytest.mark.parametrize(
    "error", [InsufficientCapacity("the zone is full"), ConfigurationError("the role may not start instances")]
)
def test_unstartable_instance_is_replaced_by_a_launch(
    world: FleetWorld, reconciler: Reconciler, error: FacerecError
) -> None:
    """A stopped instance that cannot be started must not keep the fleet at zero."""
    world.fleet.launch([1])
    world.machine(1).power = Power.STOPPED
    world.failing["start"] = error
    world.queue(3)
    run_rounds(world, reconciler, 4)
    assert world.orders == ["launch 2"]


def test_failing_action_does_not_stop_the_others(
    world: FleetWorld, reconciler: Reconciler, logs: list[EventDict]
) -> None:
    """A failed launch is logged; resume and terminate are still carried out."""
    start_instances(world, 2)
    world.reports.order_drain(world.machine(1).instance_id, world.now)
    world.machine(2).impaired = True
    world.queue(1000)
    world.failing["launch"] = Transient("refused")
    done = reconciler.round()
    assert world.orders == ["resume 1", "terminate 2"]
    assert done.failures == (ActionKind.LAUNCH,)
    assert done.actions_text == "resume 1; launch 3-15 failed; terminate 2"
    (line,) = events(logs, "action_failed")
    assert (line["action"], line["reason"]) == ("launch", "refused")
    assert line["instances"][:2] == (3, 4)


def test_recovered_instance_is_not_ended(world: FleetWorld, reconciler: Reconciler) -> None:
    """It passes its status checks at the second reading."""
    start_instances(world, 1)
    world.machine(1).impaired = True
    readings = 0

    def recover(method: str) -> None:
        nonlocal readings
        readings += method == "instances"
        if readings == 2:
            world.machine(1).impaired = False

    world.on_call = recover
    done = reconciler.round()
    assert isinstance(done.decision, Decision)
    assert done.decision.terminate == (world.machine(1).instance_id,)
    assert not done.actions
    assert world.machine(1).power is Power.RUNNING


def test_reporting_worker_is_not_ended(world: FleetWorld, reconciler: Reconciler) -> None:
    """It was silent for its minute and reports before the second reading."""
    start_instances(world, 2)
    world.queue(15)
    first, second = world.fleet.instances()
    readings = 0

    def speak(method: str) -> None:
        nonlocal readings
        readings += method == "instances"
        if readings == 2:
            world.report(second, held=1)

    world.on_call = speak
    for _ in range(62):
        readings = 0
        world.report(first, held=1)
        done = reconciler.round()
        world.now += 1
    assert isinstance(done.decision, Decision)
    assert done.decision.terminate == (second.instance_id,)
    assert not [action for action in done.actions if action.kind is ActionKind.TERMINATE]
    assert world.machine(2).power is Power.RUNNING


def test_outage_makes_no_instance_lost(world: FleetWorld, reconciler: Reconciler) -> None:
    """Neither reports nor readings succeeded: metrics, log and history show the phases of the decision."""
    start_instances(world, 3)
    world.queue(30)
    run_rounds(world, reconciler, 3)
    world.failing["instances"] = Transient("no answer")
    for _ in range(100):
        world.now += 1
        reconciler.round()
    del world.failing["instances"]
    done = reconciler.round()
    phases = done.phases
    assert phases is not None
    assert (phases[Phase.SERVING], phases[Phase.LOST]) == (3, 0)
    assert world.history.kept[-1].serving == 3
    assert not done.actions


def test_failed_second_reading_ends_nothing(world: FleetWorld, reconciler: Reconciler, logs: list[EventDict]) -> None:
    """The end waits for the next round."""
    start_instances(world, 1)
    world.machine(1).impaired = True
    readings = 0

    def fail_second(method: str) -> None:
        nonlocal readings
        readings += method == "depth"
        if readings == 2 and method == "depth":
            raise Transient("no answer")

    world.on_call = fail_second
    assert not reconciler.round().actions
    assert events(logs, "ends_not_confirmed")
    run_rounds(world, reconciler, 1)
    assert not world.fleet.machines


def test_lease_lost_while_reading_ends_the_round(
    world: FleetWorld, reconciler: Reconciler, logs: list[EventDict]
) -> None:
    """The new owner is not disturbed."""
    world.queue(10)

    def take_over(method: str) -> None:
        if method == "instances":
            world.lease.owner = InMemoryLease(world.lease, lease_seconds=LEASE_SECONDS, clock=lambda: 0)

    world.on_call = take_over
    done = reconciler.round()
    assert not world.orders
    assert not done.leading
    assert events(logs, "lease_lost")
    world.on_call = lambda _: None
    assert reconciler.round().decision is None
    world.lease.owner = None
    assert reconciler.round().actions_text


def test_lease_lost_by_a_launch_ends_the_round(world: FleetWorld, reconciler: Reconciler) -> None:
    """The actions after the launch are left out."""
    start_instances(world, 1)
    world.machine(1).impaired = True
    world.queue(10)
    world.failing["launch"] = LeaseLost("taken")
    assert not reconciler.round().leading
    assert not world.orders


def test_unreadable_lease_holds_the_fleet(world: FleetWorld, reconciler: Reconciler) -> None:
    """Another autoscaler may own it."""
    world.queue(10)
    world.failing["acquire_or_renew"] = Transient("no answer")
    done = reconciler.round()
    assert isinstance(done.decision, Hold)
    assert (done.cause, done.failures, done.leading) == (Cause.LEASE, (Cause.LEASE,), False)
    assert not world.orders


def test_second_autoscaler_waits_and_logs_it_once(world: FleetWorld, reconciler: Reconciler) -> None:
    """It changes nothing until the first one leaves; then it continues at once."""
    world.queue(10)
    reconciler.round()
    launched = list(world.orders)
    with capture_logs() as logs:
        second = make_reconciler(world)
        assert all(result.decision is None and not result.leading for result in run_rounds(world, second, 5))
        assert [line["event"] for line in logs] == ["waiting_for_the_lease"]
        reconciler.release()
        assert second.round().leading
    assert world.orders == launched
    assert events(logs, "leading")


def test_restarts_lose_nothing(world: FleetWorld) -> None:
    """A new autoscaler every few seconds serves the burst, keeps the cap, and ends at zero."""
    world.queue(100)
    for _ in range(10):
        run_rounds(world, make_reconciler(world), 3)
        world.lease.owner = None
    assert world.active == 10
    assert world.orders == ["launch 1 2 3 4 5 6 7 8 9 10"]
    world.queue(0)
    for _ in range(6):
        run_rounds(world, make_reconciler(world), 8)
        world.lease.owner = None
    assert world.active == 0


def test_waiting_for_the_lease_restarts_the_cooldown(world: FleetWorld) -> None:
    """A fleet that another autoscaler grew is not cut down at once."""
    start_instances(world, 4)
    world.queue(0, 4)
    first = make_reconciler(world)

    def busy(seconds: int) -> None:
        for _ in range(seconds):
            world.pass_second(held=1)
            first.round()

    world.lease.owner = None
    busy(3)
    world.lease.owner = InMemoryLease(world.lease, lease_seconds=LEASE_SECONDS, clock=lambda: 0)
    busy(10)
    world.lease.owner = None
    busy(3)
    assert not world.orders


def test_round_repairs_before_its_orders(world: FleetWorld, reconciler: Reconciler) -> None:
    """Also while the queue is unreadable; a failed repair is no reason to hold."""
    calls: list[str] = []
    world.on_call = calls.append
    world.queue(10)
    reconciler.round()
    assert calls.index("instances") < calls.index("repair") < calls.index("launch")
    calls.clear()
    world.failing["depth"] = Transient("no answer")
    assert isinstance(reconciler.round().decision, Hold)
    assert "repair" in calls
    del world.failing["depth"]
    world.failing["repair"] = Transient("no answer")
    done = reconciler.round()
    assert done.failures == (Cause.FLEET,)
    assert isinstance(done.decision, Decision)


def test_run_stops_and_releases_the_lease(world: FleetWorld) -> None:
    """The round in progress is finished; an error of the release is only logged."""
    stopping = threading.Event()
    seen: list[ReconcileResult] = []

    def watch(done: ReconcileResult) -> None:
        seen.append(done)
        if len(seen) == 3:
            stopping.set()

    make_reconciler(world, watch=watch).run(stopping, interval_seconds=0.001)
    assert len(seen) == 3
    assert world.lease.owner is None
    world.failing["release"] = Transient("no answer")
    make_reconciler(world).run(stopping, interval_seconds=1)


def test_dry_run_decides_and_changes_nothing(world: FleetWorld) -> None:
    """It needs no lease, gives no order, repairs nothing, and records nothing."""
    calls: list[str] = []
    world.on_call = calls.append
    world.queue(10)
    world.lease.owner = InMemoryLease(world.lease, lease_seconds=LEASE_SECONDS, clock=lambda: 0)
    dry = make_reconciler(world, dry_run=True)
    for _ in range(3):
        assert dry.round().actions_text == "launch 1"
        world.pass_second()
    dry.release()
    assert set(calls) == {"depth", "instances"}


def test_clock_that_is_set_back_stands_still(world: FleetWorld, reconciler: Reconciler) -> None:
    """No round begins before the previous one."""
    at = [reconciler.round().at]
    world.now -= 100
    at.append(reconciler.round().at)
    assert at[0] == at[1]


def outage(method: str) -> Callable[[FleetWorld, Reconciler], Reconciler]:
    """A quarter of an hour without an answer to the port's method."""

    def pass_outage(world: FleetWorld, reconciler: Reconciler) -> Reconciler:
        world.failing[method] = Transient("no answer")
        run_rounds(world, reconciler, 900)
        del world.failing[method]
        return reconciler

    return pass_outage


def other_leads(world: FleetWorld, reconciler: Reconciler) -> Reconciler:
    """Another autoscaler holds the lease meanwhile."""
    world.lease.owner = InMemoryLease(world.lease, lease_seconds=1, clock=lambda: 0)
    run_rounds(world, reconciler, 12)
    world.lease.owner = None
    return reconciler


def process_paused(world: FleetWorld, reconciler: Reconciler) -> Reconciler:
    """The workers work on; a clock that is put forward looks the same."""
    for _ in range(60):
        world.pass_second()
    return reconciler


def successor_takes_over(world: FleetWorld, _: Reconciler) -> Reconciler:
    """The first autoscaler was killed."""
    world.lease.owner = None
    return make_reconciler(world)


@pytest.mark.parametrize(
    "interruption",
    [
        outage("depth"),
        outage("instances"),
        outage("acquire_or_renew"),
        other_leads,
        process_paused,
        successor_takes_over,
    ],
    ids=["backlog", "fleet", "lease", "other_leads", "paused", "successor"],
)
def test_idle_fleet_is_watched_for_a_cooldown_after_an_interruption(
    world: FleetWorld, reconciler: Reconciler, interruption: Callable[[FleetWorld, Reconciler], Reconciler]
) -> None:
    """Workers that were idle meanwhile are drained only after a whole cooldown of readings, as at the start."""
    start_instances(world, 3)
    world.queue(0)
    run_rounds(world, reconciler, 3)
    assert not world.orders
    reconciler = interruption(world, reconciler)
    run_rounds(world, reconciler, int(POLICY.cooldown_seconds))
    assert not world.orders
    run_rounds(world, reconciler, 2)
    assert world.orders[0].startswith("drain")


def test_old_stopped_instances_outlive_an_interruption_for_a_cooldown(
    world: FleetWorld, reconciler: Reconciler
) -> None:
    """A clock that was put forward by two days makes every stopped instance look old."""
    start_instances(world, 2)
    world.queue(0, 1)
    world.fleet.stop([world.machine(2).instance_id])
    run_rounds(world, reconciler, 10)
    world.orders.clear()
    world.now += 2 * 86_400
    run_rounds(world, reconciler, int(POLICY.cooldown_seconds))
    assert not world.orders
    run_rounds(world, reconciler, 1)
    assert world.orders == ["terminate 2"]


def test_pause_within_a_round_ends_no_old_stopped_instance(world: FleetWorld, reconciler: Reconciler) -> None:
    """The process is paused between its decision and the reading that confirms it."""
    start_instances(world, 2)
    world.queue(0, 1)
    world.fleet.stop([world.machine(2).instance_id])
    run_rounds(world, reconciler, 10)
    world.orders.clear()

    def pause(call: str) -> None:
        if call == "repair":  # which follows the decision
            world.now += 100

    world.on_call = pause
    world.machine(2).outdated = True
    decision = reconciler.round().decision
    assert isinstance(decision, Decision)
    assert decision.terminate
    assert not world.orders


def test_cooldown_between_two_rare_readings_is_watched() -> None:
    """A cooldown shorter than the interval does not keep the fleet for ever."""
    decider = Decider(replace(POLICY, cooldown_seconds=5), PRIORS, interval_seconds=20)
    for second in (0, 20, 40):
        report = replace(READY, reported_at=READY.ready_at + 100 + second)
        fleet = (Instance(1, READY.instance_id, Power.RUNNING, 0.0, report),)
        decision = decider.step(Reading(QueueDepth(0, 0), fleet), 1000.0 + second)
        assert isinstance(decision, Decision)
        assert bool(decision.drain) is (second > 0)
