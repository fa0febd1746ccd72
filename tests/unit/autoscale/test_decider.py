"""What the decider learns from observations, and what it remembers."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from autoscale.decider import Arrivals, Boots, Decider, Priors, Throughput
from autoscale.observation import FleetByPhase, Instance, Phase, Power, Reading, Unreadable
from autoscale.policy import Decision, Hold, Policy
from facerec.fleet_records import QueueDepth
from facerec.messages import WorkerReport, WorkerState

NOW = 1_000_000.0


def serving_instance(number: int, boot: float = 40.0, since: float = NOW - 300, **changes: object) -> Instance:
    """An instance whose worker was ready `boot` seconds after its launch."""
    ready = since + boot
    report = WorkerReport(f"i-{number}", WorkerState.READY, ready, NOW, 0, ready, 0, 0.0, 0)
    report = replace(report, **changes)  # type: ignore[arg-type]  # fields by name
    return Instance(number, f"i-{number}", Power.RUNNING, since, report)


def booting(number: int, since: float = NOW - 300) -> Instance:
    """An instance whose worker has not reported yet."""
    return Instance(number, f"i-{number}", Power.PENDING, since)


def observe_boot(boots: Boots, number: int, seconds: float) -> None:
    """See an instance boot, and serve for a while."""
    for second in (3, 2, 1):
        boots.observe([booting(number)], NOW - 300 + seconds - second)
    for second in (1, 2, 3):
        boots.observe([serving_instance(number, seconds)], NOW - 300 + seconds + second)


def test_boot_time_is_the_median_of_the_boots_seen() -> None:
    """One slow boot does not move it, and a later restart of a worker is no boot."""
    boots = Boots(60.0, 600.0)
    assert boots.seconds == 60
    for number, seconds in enumerate((30.0, 40.0, 500.0)):
        observe_boot(boots, number, seconds)
    boots.observe([serving_instance(0, 250.0)], NOW)
    assert boots.seconds == 40


def test_boot_time_ignores_restarted_workers() -> None:
    """A worker that is restarted after sixteen other boots has not booted for hours."""
    boots = Boots(60.0, 600.0)
    for number in range(17):
        observe_boot(boots, number, 40.0)
    for number in range(17):
        boots.observe([serving_instance(number, 599.0)], NOW + 300)
    assert boots.seconds == 40


def test_boot_time_ignores_impossible_values() -> None:
    """Values above the boot limit, and negative ones, which come from differing clocks."""
    boots = Boots(60.0, 300.0)
    observe_boot(boots, 1, 301.0)
    observe_boot(boots, 2, -20.0)
    assert boots.seconds == 60


@pytest.mark.parametrize(("claimed", "counted"), [(1.0, 34.0), (299.0, 46.0)])
def test_boot_time_departs_little_from_the_readings(claimed: float, counted: float) -> None:
    """A worker that was taken over may tell any time at which it got ready."""
    boots = Boots(60.0, 300.0)
    boots.observe([booting(1)], NOW - 300 + 39)
    boots.observe([serving_instance(1, claimed)], NOW - 300 + 41)
    assert boots.seconds == counted


@pytest.mark.parametrize(
    "between", [{"report_unreadable": True}, {"power": Power.RUNNING}], ids=["unreadable", "former"]
)
def test_boot_time_counts_each_boot_once(between: dict[str, object]) -> None:
    """A worker that was taken over may write a report that cannot be read, or one from before its start, in between."""
    boots = Boots(60.0, 300.0)
    observe_boot(boots, 1, 40.0)
    for second in range(1000, 1060, 2):
        boots.observe([replace(booting(1), **between)], NOW + second)  # type: ignore[arg-type]  # fields by name
        boots.observe([serving_instance(1)], NOW + second + 1)
    assert boots.seconds == 40


def test_boot_time_ignores_workers_that_report_at_the_first_reading() -> None:
    """After a failover, a fleet that has served for hours is still scaled by the prior."""
    decider = Decider(Policy(), Priors())
    old = serving_instance(1, boot=18_000, since=NOW - 18_100)
    decision = decider.step(Reading(QueueDepth(3000, 0), (old,)), NOW)
    assert decider.estimates(NOW).boot_seconds == Priors().boot_seconds
    assert isinstance(decision, Decision)
    assert decision.launch == tuple(range(2, 16))


def test_throughput_is_measured_in_saturated_time() -> None:
    """Ten tasks a second; the prior fills what is missing of two seconds."""
    throughput = Throughput(0.5)
    assert throughput.service_seconds == pytest.approx(0.5)
    throughput.observe((serving_instance(1, saturated_seconds=1.0, saturated_tasks=10),), NOW)
    assert throughput.service_seconds == pytest.approx(2.0 / (10 + 1 / 0.5))
    throughput.observe((serving_instance(1, saturated_seconds=10.0, saturated_tasks=100),), NOW + 10)
    assert throughput.service_seconds == pytest.approx(0.1)
    throughput.observe((serving_instance(1, saturated_seconds=10.0, saturated_tasks=100),), NOW + 10)
    assert throughput.service_seconds == pytest.approx(0.1)


def test_throughput_follows_slower_tasks() -> None:
    """With larger photos the estimate changes within minutes."""
    throughput = Throughput(0.5)
    for second in range(600):
        tasks = 10 * second if second < 300 else 3000 + second - 300
        throughput.observe((serving_instance(1, saturated_seconds=float(second), saturated_tasks=tasks),), NOW + second)
        if second == 299:
            assert throughput.service_seconds == pytest.approx(0.1, rel=0.01)
    assert throughput.service_seconds == pytest.approx(1.0, rel=0.5)


def flow(rates: list[float], arrivals: Arrivals, start: float = NOW, done_share: float = 1.0) -> None:
    """Seconds of arrivals of which workers do a share at once."""
    done = outstanding = 0.0
    for second, rate in enumerate(rates):
        arrivals.observe(
            QueueDepth(round(outstanding), 0), (serving_instance(1, tasks_done=round(done)),), start + second, 0.01
        )
        done += rate * done_share
        outstanding += rate * (1 - done_share)


@pytest.mark.parametrize("done_share", [1.0, 0.5, 0.0])
def test_arrivals_count_done_and_waiting_tasks(done_share: float) -> None:
    """A flow of twenty a second."""
    arrivals = Arrivals()
    flow([20.0] * 60, arrivals, done_share=done_share)
    assert arrivals.per_second == pytest.approx(20.0, rel=0.1)


def test_arrivals_ignore_a_burst() -> None:
    """A thousand tasks at once or within four seconds, after silence and after a flow."""
    for before, seconds in ((0.0, 1), (5.0, 1), (5.0, 4)):
        arrivals = Arrivals()
        flow([before] * 40 + [before + 1000.0 / seconds] * seconds + [before] * 10, arrivals)
        assert arrivals.per_second == pytest.approx(before, abs=0.5)


def test_arrivals_ignore_a_burst_at_the_first_reading() -> None:
    """Work at the start says nothing about the arrivals to come."""
    arrivals = Arrivals()
    flow([40.0] * 4, arrivals)
    assert arrivals.per_second == 0.0


def test_arrivals_follow_a_new_flow_in_a_dozen_seconds() -> None:
    """The median of half a minute would need longer."""
    arrivals = Arrivals()
    flow([2.0] * 40 + [50.0] * 13, arrivals)
    assert arrivals.per_second == pytest.approx(50.0, rel=0.1)


def test_outage_restarts_the_cooldown() -> None:
    """What was needed during the outage is not known."""
    decider = Decider(Policy(cooldown_seconds=10), Priors())
    busy = tuple(
        replace(instance, report=replace(instance.report, held=1, idle_since=None))  # type: ignore[type-var]
        for instance in map(serving_instance, (1, 2))
    )

    def seen(at: float) -> tuple[Instance, ...]:
        return tuple(replace(instance, report=replace(instance.report, reported_at=at)) for instance in busy)  # type: ignore[type-var]

    for second in range(10):
        decision = decider.step(Reading(QueueDepth(0, 2), seen(NOW + second)), NOW + second)
        assert isinstance(decision, Decision)
        assert decision.is_empty
    assert isinstance(decider.step(Reading(Unreadable("outage"), busy), NOW + 10), Hold)
    for second in range(11, 21):
        decision = decider.step(Reading(QueueDepth(0, 2), seen(NOW + second)), NOW + second)
        assert isinstance(decision, Decision)
        assert decision.is_empty
    decision = decider.step(Reading(QueueDepth(0, 2), seen(NOW + 21)), NOW + 21)
    assert isinstance(decision, Decision)
    assert decision.drain == ("i-2",)


def test_thin_flow_keeps_the_last_instance() -> None:
    """Its tasks are never seen in the queue, and it is never idle for the cooldown."""
    decider = Decider(Policy(cooldown_seconds=10), Priors())
    for second in range(60):
        now = NOW + second
        instance = serving_instance(1, reported_at=now, idle_since=now - second % 5, tasks_done=second // 5)
        decision = decider.step(Reading(QueueDepth(0, 0), (instance,)), now)
        assert isinstance(decision, Decision)
        assert decision.is_empty


def test_flow_launches_before_a_backlog_builds_up() -> None:
    """Two instances do twenty a second: at 17 a second a third one is launched."""
    decider = Decider(Policy(), Priors())
    done = 0
    for second in range(40):
        now = NOW + second
        done += 17
        fleet = tuple(
            serving_instance(n, reported_at=now, idle_since=None, held=4, tasks_done=done // 2, saturated_seconds=0.0)
            for n in (1, 2)
        )
        decision = decider.step(Reading(QueueDepth(2, 8), fleet), now)
    assert isinstance(decision, Decision)
    assert decision.launch == (3,)
    assert "17 a second" in decision.reason


def test_long_gap_between_readings_is_no_silence() -> None:
    """After an outage, a pause or a lost lease, silence counts from the first reading."""
    decider = Decider(Policy(), Priors())
    busy = WorkerReport("i-1", WorkerState.READY, 0.0, 100.0, 3, None, 0, 0.0, 0)
    fleet = (Instance(1, "i-1", Power.RUNNING, 0.0, busy),)
    for now, lost in ((100.0, False), (190.0, False), (200.0, False), (260.0, False)):
        decision = decider.step(Reading(QueueDepth(1, 3), fleet), now)
        assert isinstance(decision, Decision)
        assert bool(decision.terminate) is lost
    for now in range(270, 345, 10):
        decision = decider.step(Reading(QueueDepth(1, 3), fleet), float(now))
    assert isinstance(decision, Decision)
    assert decision.terminate == ("i-1",)


def test_differing_clocks_make_no_worker_silent() -> None:
    """The autoscaler's clock is 90 s ahead; new reports count, not their times."""
    decider = Decider(Policy(), Priors())
    for second in range(200):
        now = NOW + second
        fleet = tuple(serving_instance(n, reported_at=now - 90, held=1, idle_since=None) for n in (1, 2, 3))
        decision = decider.step(Reading(QueueDepth(297, 3), fleet), now)
        assert isinstance(decision, Decision)
        assert decision.is_empty


def test_silent_worker_is_lost_after_the_limit() -> None:
    """Also if the time of its last report is in the future."""
    decider = Decider(Policy(), Priors())
    lost_at = []
    for second in range(100):
        now = NOW + second
        alive = serving_instance(1, reported_at=now, held=1, idle_since=None)
        silent = serving_instance(2, reported_at=NOW + 5000 + min(second, 10), held=1, idle_since=None)
        decision = decider.step(Reading(QueueDepth(0, 2), (alive, silent)), now)
        assert isinstance(decision, Decision)
        if decision.terminate:
            lost_at.append(second)
    assert lost_at[0] == 10 + 61


def test_idle_time_is_measured_by_the_workers_clock() -> None:
    """A busy instance is not drained because our clock is two minutes ahead."""
    decider = Decider(Policy(), Priors())
    for second in range(200):
        now = NOW + second
        fleet = tuple(
            serving_instance(n, reported_at=now - 120, idle_since=now - 120 - second % 5, tasks_done=second)
            for n in (1, 2)
        )
        decision = decider.step(Reading(QueueDepth(0, 0), fleet), now)
        assert isinstance(decision, Decision)
        assert decision.drain == (() if second < 60 else ("i-2",))  # one of two is enough for such a flow
    idle = tuple(serving_instance(n, reported_at=NOW + 141, idle_since=NOW + 80) for n in (1, 2))
    decision = decider.step(Reading(QueueDepth(0, 0), idle), NOW + 200)
    assert isinstance(decision, Decision)
    assert decision.drain == ("i-2", "i-1")


def test_empty_reading_does_not_end_a_boot() -> None:
    """SQS may miss a task in one reading; a booting instance is drained after an empty cooldown."""
    decider = Decider(Policy(), Priors(boot_seconds=100))
    for second in range(70):
        decision = decider.step(Reading(QueueDepth(1, 0), (booting(1, since=NOW),)), NOW + second)
        assert isinstance(decision, Decision)
        assert decision.is_empty
    drained_at = []
    for second in range(70, 140):
        decision = decider.step(Reading(QueueDepth(0, 0), (booting(1, since=NOW),)), NOW + second)
        assert isinstance(decision, Decision)
        if decision.drain:
            drained_at.append(second)
    assert drained_at[0] == 130


def all_fall_silent(decider: Decider, depth: QueueDepth, seconds: int) -> list[tuple[int, Decision]]:
    """Two busy instances whose reports end after ten seconds; returns the decisions that act."""
    acted: list[tuple[int, Decision]] = []
    for second in range(seconds):
        now = NOW + second
        fleet = [serving_instance(n, reported_at=min(now, NOW + 10), held=3, idle_since=None) for n in (1, 2)]
        if acted and acted[0][1].launch:
            fleet.append(booting(3, since=NOW + acted[0][0]))
        decision = decider.step(Reading(depth, tuple(fleet)), now)
        assert isinstance(decision, Decision)
        if not decision.is_empty:
            acted.append((second, decision))
    return acted


def test_all_silent_fleet_is_kept_and_probed() -> None:
    """If all reports fail at once, one more instance is launched and all others stay."""
    ((second, first), *others) = all_fall_silent(Decider(Policy(), Priors()), QueueDepth(100, 6), 350)
    assert second == 71
    assert first.launch == (3,)
    assert not first.terminate
    assert "1, 2 fell silent at once" in first.reason
    assert not others


def test_all_silent_fleet_at_the_cap_loses_one() -> None:
    """One instance makes room for the probe."""
    acted = all_fall_silent(Decider(Policy(max_instances=2), Priors()), QueueDepth(100, 6), 72)
    assert [(second, decision.terminate) for second, decision in acted] == [(71, ("i-1",))]


def test_silent_workers_are_lost_when_another_reports() -> None:
    """Reports arrive, so that the silent workers have died."""
    decider = Decider(Policy(), Priors())
    for second in range(100):
        now = NOW + second
        fleet = [serving_instance(n, reported_at=min(now, NOW + 10), held=3, idle_since=None) for n in (1, 2)]
        if second >= 80:
            fleet.append(serving_instance(3, since=NOW + 72, boot=8, reported_at=now, held=3, idle_since=None))
        decision = decider.step(Reading(QueueDepth(5, 6), tuple(fleet)), now)
        assert isinstance(decision, Decision)
        assert decision.terminate == (("i-1", "i-2") if second >= 80 else ())


def test_all_silent_fleet_without_work_is_terminated() -> None:
    """After a cooldown with an empty queue the silent instances hold no tasks."""
    decider = Decider(Policy(min_instances=1), Priors())
    ended: list[tuple[int, tuple[str, ...]]] = []
    for second in range(200):
        now = NOW + second
        fleet = tuple(serving_instance(n, reported_at=min(now, NOW + 10), held=3, idle_since=None) for n in (1, 2))
        decision = decider.step(Reading(QueueDepth(0, 3 if second < 100 else 0), fleet), now)
        assert isinstance(decision, Decision)
        if decision.terminate:
            ended.append((second, decision.terminate))
    assert ended[0] == (160, ("i-2",))


def learn(report: Callable[[int], WorkerReport], honest: int, depth: QueueDepth, seconds: int = 60) -> Decider:
    """A decider that has seen one worker's reports beside those of `honest` saturated ones of ten tasks a second."""
    decider = Decider(Policy(), Priors())
    for second in range(seconds):
        now = NOW + second
        counts = {"tasks_done": 10 * second, "saturated_seconds": float(second), "saturated_tasks": 10 * second}
        others = [serving_instance(n, reported_at=now, idle_since=None, held=4, **counts) for n in range(2, honest + 2)]
        fleet = (replace(serving_instance(1), report=report(second)), *others)
        decider.step(Reading(depth, fleet), now)
    return decider


def false_report(second: int, **changes: object) -> WorkerReport:
    """What a worker that was taken over reports: more than can be, in a new life every second."""
    false = WorkerReport("i-1", WorkerState.READY, NOW + second, NOW + second, 2, None, 0, 0.0, 0)
    return replace(false, **changes)  # type: ignore[arg-type]  # fields by name


@pytest.mark.parametrize(
    "changes", [{"saturated_seconds": 1e6, "saturated_tasks": 1}, {"saturated_seconds": 1e11, "saturated_tasks": 0}]
)
def test_throughput_counts_no_worker_for_more_time_than_passes(changes: dict[str, object]) -> None:
    """Beside three others one false worker moves the service time by a third; alone, to ten times the prior."""
    decider = learn(lambda second: false_report(second, **changes), 3, QueueDepth(10, 10))
    assert decider.estimates(NOW + 60).service_seconds == pytest.approx(4 / 3 * 0.1, rel=0.1)
    alone = learn(lambda second: false_report(second, **changes), 0, QueueDepth(10, 2))
    assert alone.estimates(NOW + 60).service_seconds == pytest.approx(1.0)
    decision = alone.step(Reading(QueueDepth(10, 2), (serving_instance(1),)), NOW + 60)
    assert isinstance(decision, Decision)
    assert not decision.launch


def test_throughput_counts_no_idle_hours_of_a_worker() -> None:
    """After ten idle hours, tasks of all that time would hide for long how slow the others are."""
    throughput = Throughput(0.1)
    for second in range(36_000):
        throughput.observe([serving_instance(1)], NOW + second)
    throughput.observe([serving_instance(1, saturated_tasks=10**12)], NOW + 36_000)
    for second in range(300):
        counts = {"saturated_seconds": 1.0 * second, "saturated_tasks": 10 * second}
        throughput.observe([serving_instance(number, **counts) for number in (2, 3)], NOW + 36_000 + second)
    assert throughput.service_seconds == pytest.approx(0.1, rel=0.2)


def test_throughput_counts_no_worker_for_a_hundred_times_the_prior() -> None:
    """A million million tasks at once are those of the time that has passed, at that rate."""
    decider = learn(lambda second: false_report(second, saturated_tasks=10**12), 9, QueueDepth(10, 10))
    assert decider.estimates(NOW + 60).service_seconds == pytest.approx(9 / (90 + 1000), rel=0.2)


def test_arrivals_count_no_worker_for_more_than_an_instance_does() -> None:
    """A million tasks a second of one worker look like two busy instances."""
    decider = learn(lambda second: false_report(0, tasks_done=10**6 * second), 3, QueueDepth(10, 10))
    assert decider.estimates(NOW + 60).arrivals_per_second == pytest.approx(30 + 20, rel=0.1)


def test_counts_that_fall_are_no_work() -> None:
    """They neither lower the arrivals nor the throughput of the others."""
    falling = {"tasks_done": 10**12, "saturated_seconds": 1e11, "saturated_tasks": 10**12}

    def report(second: int) -> WorkerReport:
        return false_report(0, **({} if second else falling))

    estimates = learn(report, 3, QueueDepth(10, 10)).estimates(NOW + 60)
    assert estimates.arrivals_per_second == pytest.approx(30, rel=0.1)


def unreadable(number: int, **changes: object) -> Instance:
    """An instance whose report cannot be read."""
    instance = replace(serving_instance(number), report=None, report_unreadable=True)
    return replace(instance, **changes)  # type: ignore[arg-type]  # fields by name


@pytest.mark.parametrize(("ordered_at", "phase"), [(None, Phase.SERVING), (NOW, Phase.DRAINING)])
def test_unreadable_worker_is_replaced_after_the_silence_limit(ordered_at: float | None, phase: Phase) -> None:
    """Until then it may hold tasks: it is not ended, not even if it was ordered to drain."""
    decider = Decider(Policy(), Priors())
    for second in range(62):
        now = NOW + second
        fleet = (
            unreadable(1, drain_ordered_at=ordered_at),
            serving_instance(2, reported_at=now, held=1, idle_since=None),
        )
        observation = decider.observe(Reading(QueueDepth(0, 2), fleet), now)
        decision = decider.decide(observation, now)
        assert isinstance(decision, Decision)
        assert isinstance(observation.fleet, FleetByPhase)
        lost = second > 60
        assert observation.fleet[Phase.LOST if lost else phase] != []
        assert decision.terminate == (("i-1",) if lost else ())
        assert not decision.stop


def test_fleet_of_unreadable_workers_is_kept() -> None:
    """If no report can be read, as after an upgrade, it is not the workers' fault."""
    decider = Decider(Policy(), Priors())
    for second in range(400):
        decision = decider.step(Reading(QueueDepth(0, 6), (unreadable(1), unreadable(2))), NOW + second)
        assert isinstance(decision, Decision)
        assert not decision.terminate
