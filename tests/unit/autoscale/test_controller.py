"""What the controller learns from observations, and what it remembers."""

from dataclasses import replace

import pytest

from autoscale.controller import Arrivals, Boots, Controller, Priors, Throughput
from autoscale.observation import Instance, Power, QueueDepth, Reading, Unreadable
from autoscale.policy import Decision, Hold, Policy
from facerec.messages import WorkerReport, WorkerState

NOW = 1_000_000.0


def serving(number: int, boot: float = 40.0, since: float = NOW - 300, **changes: object) -> Instance:
    """An instance whose worker was ready `boot` seconds after its launch."""
    ready = since + boot
    report = WorkerReport(f"i-{number}", WorkerState.READY, ready, NOW, 0, ready, 0, 0.0, 0)
    report = replace(report, **changes)  # type: ignore[arg-type]  # fields by name
    return Instance(number, f"i-{number}", Power.RUNNING, since, report)


def booting(number: int, since: float = NOW - 300) -> Instance:
    """An instance whose worker has not reported yet."""
    return Instance(number, f"i-{number}", Power.PENDING, since)


def booted(boots: Boots, number: int, seconds: float) -> None:
    """See an instance boot, and serve for a while."""
    for _ in range(3):
        boots.observe([booting(number)])
    for _ in range(3):
        boots.observe([serving(number, seconds)])


def test_boots_are_the_median_of_what_was_seen_each_counted_once() -> None:
    """One slow boot does not move it, and a worker that came back later is no boot."""
    boots = Boots(60.0, 600.0)
    assert boots.seconds == 60
    for number, seconds in enumerate((30.0, 40.0, 500.0)):
        booted(boots, number, seconds)
    boots.observe([serving(0, 250.0)])
    assert boots.seconds == 40


def test_a_boot_counts_once_however_many_came_after_it() -> None:
    """A worker that is restarted after sixteen other boots has not booted for hours."""
    boots = Boots(60.0, 600.0)
    for number in range(17):
        booted(boots, number, 40.0)
    for number in range(17):
        boots.observe([serving(number, 599.0)])
    assert boots.seconds == 40


def test_what_no_boot_can_take_is_not_learned() -> None:
    """Longer than an instance is waited for, or less than nothing because two clocks differ."""
    boots = Boots(60.0, 300.0)
    booted(boots, 1, 301.0)
    booted(boots, 2, -20.0)
    assert boots.seconds == 60


def test_a_worker_that_was_restarted_before_the_controller_is_no_boot() -> None:
    """After a failover a fleet that has served for hours is still scaled by the prior."""
    controller = Controller(Policy(), Priors())
    old = serving(1, boot=18_000, since=NOW - 18_100)
    decision = controller.step(Reading(QueueDepth(3000, 0), (old,)), NOW)
    assert controller.estimates(NOW).boot_seconds == Priors().boot_seconds
    assert isinstance(decision, Decision)
    assert decision.launch == tuple(range(2, 16))


def test_throughput_is_that_of_saturated_time() -> None:
    """Ten tasks a second; the prior counts only for what is missing of two seconds."""
    throughput = Throughput(0.5)
    assert throughput.service_seconds == pytest.approx(0.5)
    throughput.observe((serving(1, saturated_seconds=1.0, saturated_tasks=10),))
    assert throughput.service_seconds == pytest.approx(2.0 / (10 + 1 / 0.5))
    throughput.observe((serving(1, saturated_seconds=10.0, saturated_tasks=100),))
    assert throughput.service_seconds == pytest.approx(0.1)
    throughput.observe((serving(1, saturated_seconds=10.0, saturated_tasks=100),))
    assert throughput.service_seconds == pytest.approx(0.1)


def test_throughput_forgets() -> None:
    """Larger photos from now on: after some minutes of them they are the estimate."""
    throughput = Throughput(0.5)
    for second in range(600):
        tasks = 10 * second if second < 300 else 3000 + second - 300
        throughput.observe((serving(1, saturated_seconds=float(second), saturated_tasks=tasks),))
        if second == 299:
            assert throughput.service_seconds == pytest.approx(0.1, rel=0.01)
    assert throughput.service_seconds == pytest.approx(1.0, rel=0.5)


def flow(rates: list[float], arrivals: Arrivals, start: float = NOW, done_share: float = 1.0) -> None:
    """Seconds of arrivals of which workers do a share at once."""
    done = outstanding = 0.0
    for second, rate in enumerate(rates):
        arrivals.observe(QueueDepth(round(outstanding), 0), (serving(1, tasks_done=round(done)),), start + second)
        done += rate * done_share
        outstanding += rate * (1 - done_share)


@pytest.mark.parametrize("done_share", [1.0, 0.5, 0.0])
def test_a_steady_flow_is_seen_whether_it_is_worked_off_or_piles_up(done_share: float) -> None:
    """Twenty a second."""
    arrivals = Arrivals()
    flow([20.0] * 60, arrivals, done_share=done_share)
    assert arrivals.per_second == pytest.approx(20.0, rel=0.1)


def test_a_burst_is_no_flow() -> None:
    """A thousand at once, after quiet and after a flow; also when they come within four seconds."""
    for before, seconds in ((0.0, 1), (5.0, 1), (5.0, 4)):
        arrivals = Arrivals()
        flow([before] * 40 + [before + 1000.0 / seconds] * seconds + [before] * 10, arrivals)
        assert arrivals.per_second == pytest.approx(before, abs=0.5)


def test_a_burst_at_the_start_is_no_flow_either() -> None:
    """The autoscaler was started because there is work: the first thing it sees says nothing of what comes next."""
    arrivals = Arrivals()
    flow([40.0] * 4, arrivals)
    assert arrivals.per_second == 0.0


def test_a_flow_that_begins_is_seen_in_a_dozen_seconds() -> None:
    """The median of half a minute would need longer."""
    arrivals = Arrivals()
    flow([2.0] * 40 + [50.0] * 13, arrivals)
    assert arrivals.per_second == pytest.approx(50.0, rel=0.1)


def test_an_outage_makes_the_cooldown_begin_anew() -> None:
    """What was needed meanwhile is not known, so nobody is too many yet."""
    controller = Controller(Policy(cooldown_seconds=10), Priors())
    busy = tuple(replace(serving(n), worker=replace(serving(n).worker, held=1, idle_since=None)) for n in (1, 2))  # type: ignore[type-var]

    def seen(at: float) -> tuple[Instance, ...]:
        return tuple(replace(one, worker=replace(one.worker, reported_at=at)) for one in busy)  # type: ignore[type-var]

    for second in range(10):
        decision = controller.step(Reading(QueueDepth(0, 2), seen(NOW + second)), NOW + second)
        assert isinstance(decision, Decision)
        assert decision.holds
    assert isinstance(controller.step(Reading(Unreadable("outage"), busy), NOW + 10), Hold)
    for second in range(11, 21):
        decision = controller.step(Reading(QueueDepth(0, 2), seen(NOW + second)), NOW + second)
        assert isinstance(decision, Decision)
        assert decision.holds
    decision = controller.step(Reading(QueueDepth(0, 2), seen(NOW + 21)), NOW + 21)
    assert isinstance(decision, Decision)
    assert decision.drain == ("i-2",)


def test_the_last_instance_of_a_thin_flow_stays() -> None:
    """Its tasks are never seen in the queue; it is not idle for the cooldown either."""
    controller = Controller(Policy(cooldown_seconds=10), Priors())
    for second in range(60):
        now = NOW + second
        one = serving(1, reported_at=now, idle_since=now - second % 5, tasks_done=second // 5)
        decision = controller.step(Reading(QueueDepth(0, 0), (one,)), now)
        assert isinstance(decision, Decision)
        assert decision.holds


def test_a_flow_is_served_before_it_has_built_a_backlog() -> None:
    """Two instances do twenty a second: of 17 a second a third one is launched while hardly anything waits."""
    controller = Controller(Policy(), Priors())
    done = 0
    for second in range(40):
        now = NOW + second
        done += 17
        fleet = tuple(
            serving(n, reported_at=now, idle_since=None, held=4, tasks_done=done // 2, saturated_seconds=0.0)
            for n in (1, 2)
        )
        decision = controller.step(Reading(QueueDepth(2, 8), fleet), now)
    assert isinstance(decision, Decision)
    assert decision.launch == (3,)
    assert "17 a second" in decision.reason


def test_a_long_gap_is_not_the_workers_silence() -> None:
    """An outage, a paused process, a lease that came back: reports count again from the first reading on."""
    controller = Controller(Policy(), Priors())
    busy = WorkerReport("i-1", WorkerState.READY, 0.0, 100.0, 3, None, 0, 0.0, 0)
    fleet = (Instance(1, "i-1", Power.RUNNING, 0.0, busy),)
    for now, lost in ((100.0, False), (190.0, False), (200.0, False), (260.0, False)):
        decision = controller.step(Reading(QueueDepth(1, 3), fleet), now)
        assert isinstance(decision, Decision)
        assert bool(decision.terminate) is lost
    for now in range(270, 345, 10):
        decision = controller.step(Reading(QueueDepth(1, 3), fleet), float(now))
    assert isinstance(decision, Decision)
    assert decision.terminate == ("i-1",)


def test_a_clock_that_is_ahead_makes_nobody_silent() -> None:
    """The controller's is 90 s ahead of the workers': what counts is that they say something new each second."""
    controller = Controller(Policy(), Priors())
    for second in range(200):
        now = NOW + second
        fleet = tuple(serving(n, reported_at=now - 90, held=1, idle_since=None) for n in (1, 2, 3))
        decision = controller.step(Reading(QueueDepth(297, 3), fleet), now)
        assert isinstance(decision, Decision)
        assert decision.holds


def test_who_falls_silent_is_lost_after_the_limit_whatever_its_clock_says() -> None:
    """Its last report may be from the future."""
    controller = Controller(Policy(), Priors())
    lost_at = []
    for second in range(100):
        now = NOW + second
        alive = serving(1, reported_at=now, held=1, idle_since=None)
        silent = serving(2, reported_at=NOW + 5000 + min(second, 10), held=1, idle_since=None)
        decision = controller.step(Reading(QueueDepth(0, 2), (alive, silent)), now)
        assert isinstance(decision, Decision)
        if decision.terminate:
            lost_at.append(second)
    assert lost_at[0] == 10 + 61


def test_idleness_is_told_by_the_workers_own_clock() -> None:
    """An instance that is busy every few seconds is not drained because our clock is two minutes ahead."""
    controller = Controller(Policy(), Priors())
    for second in range(200):
        now = NOW + second
        fleet = tuple(
            serving(n, reported_at=now - 120, idle_since=now - 120 - second % 5, tasks_done=second) for n in (1, 2)
        )
        decision = controller.step(Reading(QueueDepth(0, 0), fleet), now)
        assert isinstance(decision, Decision)
        assert decision.drain == (() if second < 60 else ("i-2",))  # one of two is enough for such a flow
    idle = tuple(serving(n, reported_at=NOW + 141, idle_since=NOW + 80) for n in (1, 2))
    decision = controller.step(Reading(QueueDepth(0, 0), idle), NOW + 200)
    assert isinstance(decision, Decision)
    assert decision.drain == ("i-2", "i-1")


def test_work_that_is_not_counted_for_a_moment_ends_no_boot() -> None:
    """A task waits for the instance that boots; one reading of nothing is SQS's, a cooldown of nothing is the end."""
    controller = Controller(Policy(), Priors(boot_seconds=100))
    for second in range(70):
        decision = controller.step(Reading(QueueDepth(1, 0), (booting(1, since=NOW),)), NOW + second)
        assert isinstance(decision, Decision)
        assert decision.holds
    drained_at = []
    for second in range(70, 140):
        decision = controller.step(Reading(QueueDepth(0, 0), (booting(1, since=NOW),)), NOW + second)
        assert isinstance(decision, Decision)
        if decision.drain:
            drained_at.append(second)
    assert drained_at[0] == 130


def writes_fail(controller: Controller, depth: QueueDepth, seconds: int) -> list[tuple[int, Decision]]:
    """Two busy instances of which nothing is heard any more after ten seconds; what is done besides holding."""
    acted: list[tuple[int, Decision]] = []
    for second in range(seconds):
        now = NOW + second
        fleet = [serving(n, reported_at=min(now, NOW + 10), held=3, idle_since=None) for n in (1, 2)]
        if acted and acted[0][1].launch:
            fleet.append(booting(3, since=NOW + acted[0][0]))
        decision = controller.step(Reading(depth, tuple(fleet)), now)
        assert isinstance(decision, Decision)
        if not decision.holds:
            acted.append((second, decision))
    return acted


def test_a_fleet_that_falls_silent_as_one_is_not_ended() -> None:
    """Their reports are refused, say, while they work: one more instance is to show, and all others stay."""
    ((second, first), *others) = writes_fail(Controller(Policy(), Priors()), QueueDepth(100, 6), 350)
    assert second == 71
    assert first.launch == (3,)
    assert not first.terminate
    assert "1, 2 fell silent at once" in first.reason
    assert not others


def test_at_the_cap_one_of_a_silent_fleet_makes_room() -> None:
    """Never both."""
    acted = writes_fail(Controller(Policy(max_instances=2), Priors()), QueueDepth(100, 6), 72)
    assert [(second, decision.terminate) for second, decision in acted] == [(71, ("i-1",))]


def test_once_another_is_heard_the_silent_are_lost() -> None:
    """Reports do come through, so that it was the workers that died."""
    controller = Controller(Policy(), Priors())
    for second in range(100):
        now = NOW + second
        fleet = [serving(n, reported_at=min(now, NOW + 10), held=3, idle_since=None) for n in (1, 2)]
        if second >= 80:
            fleet.append(serving(3, since=NOW + 72, boot=8, reported_at=now, held=3, idle_since=None))
        decision = controller.step(Reading(QueueDepth(5, 6), tuple(fleet)), now)
        assert isinstance(decision, Decision)
        assert decision.terminate == (("i-1", "i-2") if second >= 80 else ())


def test_a_silent_fleet_without_work_costs_nothing_for_long() -> None:
    """The queue has been empty for a cooldown: who is silent holds nothing, so that the surplus goes."""
    controller = Controller(Policy(min_instances=1), Priors())
    ended: list[tuple[int, tuple[str, ...]]] = []
    for second in range(200):
        now = NOW + second
        fleet = tuple(serving(n, reported_at=min(now, NOW + 10), held=3, idle_since=None) for n in (1, 2))
        decision = controller.step(Reading(QueueDepth(0, 3 if second < 100 else 0), fleet), now)
        assert isinstance(decision, Decision)
        if decision.terminate:
            ended.append((second, decision.terminate))
    assert ended[0] == (160, ("i-2",))
