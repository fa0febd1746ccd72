"""One suite for every fleet: simulated in memory, and on EC2 and DynamoDB as ministack and moto have them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from autoscale.aws.instances import LAG_SECONDS
from autoscale.observation import Instance, Power
from autoscale.ports import Fleet
from facerec.aws.clients import Clients
from facerec.errors import InsufficientCapacity, LeaseLost
from tests.fakes.fleet import InMemoryFleet
from tests.fakes.worker_reports import InMemoryWorkerReports
from tests.support.fleet_cloud import Time, make_cloud, refusal, report_of


@dataclass
class World:
    """A fleet without instances, and what one can do to it from outside."""

    fleet: Fleet
    reports: InMemoryWorkerReports
    time: Time
    succeed: Callable[[], object]
    """Another autoscaler takes over."""
    exhaust: Callable[[], object]
    """EC2 has no more instances."""

    def repair_and_read(self) -> tuple[Instance, ...]:
        """The fleet after the repair of a round."""
        self.fleet.instances()
        self.fleet.repair()
        return self.fleet.instances()

    def numbers(self) -> list[int]:
        """The numbers taken, as the fleet tells them."""
        return [instance.number for instance in self.fleet.instances()]

    def only_instance(self) -> Instance:
        """The fleet's only instance."""
        (instance,) = self.fleet.instances()
        return instance

    def ids(self) -> list[str]:
        """Every instance's id, in the order of their numbers."""
        return [instance.instance_id for instance in self.fleet.instances() if instance.instance_id is not None]


@pytest.fixture(params=["memory", "ministack", "moto"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """Each kind in turn."""
    if request.param == "memory":
        moment, reports = Time(), InMemoryWorkerReports()
        fake = InMemoryFleet(reports, moment.now)
        yield World(
            fake,
            reports,
            moment,
            succeed=lambda: setattr(fake, "lease_lost", True),
            exhaust=lambda: setattr(fake, "capacity", 0),
        )
        return
    clients: Clients = request.getfixturevalue(f"{request.param}_clients")
    cloud = make_cloud(clients)
    first, second = cloud.lease(), cloud.lease()
    assert first.acquire_or_renew()

    def succeed() -> None:
        first.release()
        assert second.acquire_or_renew()

    hook = refusal("InsufficientInstanceCapacity")
    event = "before-call.ec2.RunInstances"
    yield World(
        cloud.fleet(first),
        cloud.reports,
        cloud.time,
        succeed,
        exhaust=lambda: cloud.clients.ec2.meta.events.register(event, hook),
    )
    cloud.clients.ec2.meta.events.unregister(event, hook)


def test_fleet_is_empty_at_first(world: World) -> None:
    """Zero instances."""
    assert world.fleet.instances() == ()


def test_launched_instances_have_their_numbers(world: World) -> None:
    """They are visible at once, sorted by number, with different ids."""
    before = world.time.now()
    world.fleet.launch([2, 1, 5])
    fleet = world.fleet.instances()
    assert [instance.number for instance in fleet] == [1, 2, 5]
    assert len({instance.instance_id for instance in fleet}) == 3
    for instance in fleet:
        assert instance.power in {Power.PENDING, Power.RUNNING}
        assert before - 2 <= instance.since <= world.time.now() + 2
        assert instance.report is None
        assert instance.drain_ordered_at is None
        assert (instance.spot, instance.outdated, instance.impaired) == (False, False, False)


def test_launch_leaves_taken_numbers_out(world: World) -> None:
    """The others are launched."""
    world.fleet.launch([1, 2])
    ids = world.ids()
    world.fleet.launch([1, 2, 3])
    assert world.numbers() == [1, 2, 3]
    assert world.ids()[:2] == ids


def test_stopped_instance_keeps_its_number(world: World) -> None:
    """The stop is visible at once; it starts again with the same id."""
    world.fleet.launch([1])
    (name,) = world.ids()
    world.fleet.stop([name])
    assert world.only_instance().power in {Power.STOPPING, Power.STOPPED}
    world.time.ahead += LAG_SECONDS + 1
    stopped = world.only_instance()
    assert (stopped.number, stopped.instance_id, stopped.power) == (1, name, Power.STOPPED)
    world.fleet.launch([1])
    world.fleet.start([name])
    started = world.only_instance()
    assert (started.number, started.instance_id) == (1, name)
    assert started.power in {Power.PENDING, Power.RUNNING}


def test_since_is_the_time_of_the_latest_order(world: World) -> None:
    """Emulators keep the launch time of an instance that is started again; the fleet must not."""
    world.fleet.launch([1])
    launched = world.only_instance().since
    world.time.ahead += 100
    world.fleet.stop(world.ids())
    stopped = world.only_instance().since
    world.time.ahead += 100
    assert world.only_instance().since == stopped
    world.fleet.start(world.ids())
    started = world.only_instance().since
    assert stopped - launched == pytest.approx(100, abs=10)
    assert started - stopped == pytest.approx(100, abs=10)


def test_terminated_instance_frees_its_number(world: World) -> None:
    """After it has gone, which may take a while."""
    world.fleet.launch([1, 2])
    first, second = world.ids()
    world.fleet.terminate([first])
    assert all(instance.power is Power.SHUTTING_DOWN for instance in world.fleet.instances() if instance.number == 1)
    world.time.ahead += LAG_SECONDS + 1
    assert [instance.number for instance in world.repair_and_read()] == [2]
    world.fleet.launch([1])
    assert world.numbers() == [1, 2]
    assert first not in world.ids()
    assert second in world.ids()


def test_orders_are_idempotent(world: World) -> None:
    """Also to an instance that has gone."""
    world.fleet.launch([1, 2])
    first, second = world.ids()
    for order in (world.fleet.stop, world.fleet.start, world.fleet.resume):
        order([first])
        order([first])
    world.fleet.drain([first], 5.0)
    world.fleet.drain([first], 6.0)
    assert world.fleet.instances()[0].drain_ordered_at == 5.0
    for _ in range(2):
        world.fleet.terminate([first, second])
    world.time.ahead += LAG_SECONDS + 1
    assert world.fleet.instances() == ()
    world.fleet.terminate([first, second])
    world.fleet.launch([])
    assert world.fleet.instances() == ()


def test_instance_has_its_workers_report(world: World) -> None:
    """And its order to drain."""
    world.fleet.launch([1])
    report = report_of(world.only_instance(), world.time.now())
    world.reports.report(report)
    assert world.only_instance().report == report
    world.fleet.drain(world.ids(), 123.5)
    assert world.only_instance().drain_ordered_at == 123.5
    assert world.reports.report(report)
    world.fleet.resume(world.ids())
    assert world.only_instance().drain_ordered_at is None
    assert not world.reports.report(report)


def test_report_of_a_former_life_is_ignored(world: World) -> None:
    """After a stop, and when the old report arrives late."""
    world.fleet.launch([1])
    report = report_of(world.only_instance(), world.time.now())
    world.reports.report(report)
    world.fleet.drain(world.ids(), world.time.now())
    world.time.ahead += 30
    world.fleet.stop(world.ids())
    world.time.ahead += 30
    world.reports.report(report)  # its last words were on their way
    assert world.only_instance().report is None
    world.fleet.start(world.ids())
    assert world.reports.records(world.ids()) == {}
    world.reports.report(report)
    assert world.only_instance().report is None
    assert world.only_instance().drain_ordered_at is None
    world.time.ahead += 30
    fresh = report_of(world.only_instance(), world.time.now())
    world.reports.report(fresh)
    assert world.only_instance().report == fresh


@pytest.mark.parametrize("apart", [-90, 90])
def test_worker_with_a_differing_clock_reports(world: World, apart: float) -> None:
    """After a launch, and after a start, whose times come from other clocks."""
    world.fleet.launch([1])
    first = report_of(world.only_instance(), world.time.now() + apart)
    world.reports.report(first)
    assert world.only_instance().report == first
    world.fleet.stop(world.ids())
    world.time.ahead += LAG_SECONDS + 1
    assert world.only_instance().report is None
    world.fleet.start(world.ids())
    world.time.ahead += 10
    world.reports.report(first)  # late
    assert world.only_instance().report is None
    second = report_of(world.only_instance(), world.time.now() + apart)
    world.reports.report(second)
    assert world.only_instance().report == second


def test_ending_instance_takes_no_more_tasks(world: World) -> None:
    """Its worker reports until its process ends: an order to drain stays, or is added."""
    world.fleet.launch([1, 2, 3, 4])
    ids = world.ids()
    reports = [report_of(instance, world.time.now()) for instance in world.fleet.instances()]
    for report in reports[:3]:
        world.reports.report(report)
    world.fleet.drain([ids[0]], 123.5)
    before = world.time.now()
    world.fleet.stop(ids[:2])
    world.fleet.terminate(ids[2:])
    assert all(world.reports.report(report) for report in reports)
    orders = [world.reports.records(ids)[name].drain_ordered_at for name in ids]
    assert orders[0] == 123.5
    assert all(at is not None and before <= at <= world.time.now() for at in orders[1:])


def test_reports_of_gone_instances_are_forgotten(world: World) -> None:
    """A fleet that has gone leaves no reports behind."""
    world.fleet.launch([1])
    world.reports.report(report_of(world.only_instance(), world.time.now()))
    ids = world.ids()
    world.fleet.terminate(ids)
    world.time.ahead += LAG_SECONDS + 1
    world.repair_and_read()
    assert world.reports.records(ids) == {}


def test_former_owner_of_the_lease_changes_nothing(world: World) -> None:
    """Its orders are refused; its former launches stay."""
    world.fleet.launch([1])
    world.succeed()
    with pytest.raises(LeaseLost):
        world.fleet.launch([2])
    for order in (world.fleet.start, world.fleet.stop, world.fleet.terminate):
        with pytest.raises(LeaseLost):
            order(world.ids())
    assert world.numbers() == [1]
    assert world.only_instance().power in {Power.PENDING, Power.RUNNING}


def test_exhausted_capacity_names_the_remedy(world: World) -> None:
    """And no number stays taken."""
    world.fleet.launch([1])
    world.exhaust()
    with pytest.raises(InsufficientCapacity, match="offer more"):
        world.fleet.launch([2, 3])
    assert world.numbers() == [1]
