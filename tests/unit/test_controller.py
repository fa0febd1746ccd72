"""What the controller learns from observations, and what it remembers."""

from dataclasses import replace

import pytest

from autoscale.controller import Controller, Priors
from autoscale.estimates import Arrivals, Boots, Throughput
from autoscale.observation import Instance, Observation, Power, QueueDepth, Unreadable
from autoscale.policy import Decision, Hold, Policy
from facerec.fleet import WorkerReport, WorkerState

NOW = 1_000_000.0


def serving(number: int, boot: float = 40.0, since: float = NOW - 300, **changes: object) -> Instance:
    """An instance whose worker was ready `boot` seconds after its launch."""
    ready = since + boot
    report = WorkerReport(f"i-{number}", WorkerState.READY, ready, NOW, 0, ready, 0, 0.0, 0)
    report = replace(report, **changes)  # type: ignore[arg-type]  # fields by name
    return Instance(number, f"i-{number}", Power.RUNNING, since, report)


def test_boots_are_the_median_of_what_was_seen_each_counted_once() -> None:
    """One slow boot does not move it, and a worker that came back later is no boot."""
    boots = Boots(60.0)
    assert boots.seconds == 60
    for number, seconds in enumerate((30.0, 40.0, 500.0)):
        for _ in range(5):
            boots.observe(serving(number, seconds))
    boots.observe(serving(0, 250.0))
    assert boots.seconds == 40


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
        decision = controller.step(Observation(QueueDepth(0, 2), seen(NOW + second)), NOW + second)
        assert isinstance(decision, Decision)
        assert decision.holds
    assert isinstance(controller.step(Observation(Unreadable("outage"), busy), NOW + 10), Hold)
    for second in range(11, 21):
        decision = controller.step(Observation(QueueDepth(0, 2), seen(NOW + second)), NOW + second)
        assert isinstance(decision, Decision)
        assert decision.holds
    decision = controller.step(Observation(QueueDepth(0, 2), seen(NOW + 21)), NOW + 21)
    assert isinstance(decision, Decision)
    assert decision.drain == ("i-2",)


def test_the_last_instance_of_a_thin_flow_stays() -> None:
    """Its tasks are never seen in the queue; it is not idle for the cooldown either."""
    controller = Controller(Policy(cooldown_seconds=10), Priors())
    for second in range(60):
        now = NOW + second
        one = serving(1, reported_at=now, idle_since=now - second % 5, tasks_done=second // 5)
        decision = controller.step(Observation(QueueDepth(0, 0), (one,)), now)
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
        decision = controller.step(Observation(QueueDepth(2, 8), fleet), now)
    assert isinstance(decision, Decision)
    assert decision.launch == (3,)
    assert "17 a second" in decision.reason


def test_a_long_gap_is_not_the_workers_silence() -> None:
    """An outage, a paused process, a lease that came back: reports count again from the first reading on."""
    controller = Controller(Policy(), Priors())
    busy = WorkerReport("i-1", WorkerState.READY, 0.0, 100.0, 3, None, 0, 0.0, 0)
    fleet = (Instance(1, "i-1", Power.RUNNING, 0.0, busy),)
    for now, lost in ((100.0, False), (190.0, False), (200.0, False), (260.0, False)):
        decision = controller.step(Observation(QueueDepth(1, 3), fleet), now)
        assert isinstance(decision, Decision)
        assert bool(decision.terminate) is lost
    for now in range(270, 345, 10):
        decision = controller.step(Observation(QueueDepth(1, 3), fleet), float(now))
    assert isinstance(decision, Decision)
    assert decision.terminate == ("i-1",)
