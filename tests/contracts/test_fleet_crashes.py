"""What a crash, EC2's late answers and a second autoscaler may do to the fleet on EC2: nothing that is not counted."""

import contextlib
import itertools
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from autoscale.aws.instances import LAG_SECONDS, UNSEEN_SECONDS
from autoscale.observation import FleetByPhase, Observation, Power
from autoscale.policy import Decision, Estimates, Policy, decide
from facerec.aws.clients import Clients
from facerec.errors import ConfigurationError, FacerecError, LeaseLost, Throttled, Transient
from facerec.fleet_records import QueueDepth
from tests.support.fleet_cloud import (
    LEASE_KEY,
    DocumentedLaunches,
    FleetCloud,
    answer,
    describe_no_instances,
    refusal,
    repair_and_read,
    report_of,
    take_lease,
)


def crash_after(**_: Any) -> None:
    """The answer gets lost."""
    raise Transient("the answer got lost")


def test_missing_name_is_given_by_the_next_autoscaler(cloud: FleetCloud) -> None:
    """EC2 did not know the new instance yet, or the autoscaler died. A reading gives no name."""
    with cloud.hooked("before-call.ec2.CreateTags", refusal("InvalidInstanceID.NotFound")):
        cloud.active().launch([1, 2])
    cloud.fleet(cloud.lease()).instances()
    assert cloud.names() == ["", ""]
    repair_and_read(cloud.fleet(take_lease(cloud)))
    assert cloud.names() == ["app-tier-instance-1", "app-tier-instance-2"]


def test_crash_before_the_launch_is_completed(cloud: FleetCloud) -> None:
    """The slot counts at once; the next autoscaler launches it with the same token, once."""
    tokens = []

    def crash(params: Any, **_: Any) -> None:
        tokens.append(params["body"]["ClientToken"])
        raise KeyboardInterrupt

    lease = cloud.lease()
    assert lease.acquire_or_renew()
    first = cloud.fleet(lease)
    with cloud.hooked("before-call.ec2.RunInstances", crash), pytest.raises(KeyboardInterrupt):
        first.launch([1])
    lease.release()
    assert cloud.describe_instances() == []
    (claimed,) = first.instances()
    assert (claimed.number, claimed.instance_id, claimed.power) == (1, None, Power.PENDING)
    assert cloud.describe_instances() == []
    with pytest.raises(LeaseLost):
        first.repair()
    assert cloud.describe_instances() == []

    repeated = []
    with cloud.hooked("before-call.ec2.RunInstances", lambda params, **_: repeated.append(params["body"])):
        second = cloud.active()
        (completed,) = repair_and_read(second)
        assert [instance.instance_id for instance in second.instances()] == [completed.instance_id]
    assert completed.instance_id == cloud.describe_instances()[0]["InstanceId"]
    assert [body["ClientToken"] for body in repeated] == tokens
    assert cloud.names() == ["app-tier-instance-1"]


def test_crash_after_the_launch_finds_the_instance(cloud: FleetCloud) -> None:
    """EC2 shows it by the launch's tag: nothing is launched again."""
    fleet = cloud.active()
    with cloud.hooked("after-call.ec2.RunInstances", crash_after), pytest.raises(Transient):
        fleet.launch([1])
    assert len(cloud.describe_instances()) == 1
    with cloud.hooked("before-call.ec2.RunInstances", refusal("MustNotBeAsked")):
        (found,) = fleet.instances()
        assert repair_and_read(fleet) == (found,)
    assert (found.number, found.instance_id) == (1, cloud.describe_instances()[0]["InstanceId"])
    assert cloud.slots()[0]["instance_id"]["S"] == found.instance_id
    assert cloud.names() == ["app-tier-instance-1"]


def test_repeated_launch_takes_the_instances_of_the_first_one(cloud: FleetCloud, other: Clients) -> None:
    """EC2 repeats the first answer to a token; numbers without an instance are free."""
    fleet, ec2 = cloud.active(), DocumentedLaunches(other.ec2, most=2)

    def lost(**call: Any) -> None:
        ec2(**call)
        raise Transient("the answer got lost")

    with cloud.hooked("before-call.ec2.RunInstances", lost), pytest.raises(Transient):
        fleet.launch([1, 2, 3])
    with (
        cloud.hooked("before-call.ec2.RunInstances", ec2),
        cloud.hooked("before-call.ec2.DescribeInstances", describe_no_instances),
    ):
        found = repair_and_read(fleet)
    assert [instance.number for instance in found] == [1, 2]
    assert sorted(str(instance.instance_id) for instance in found) == sorted(ec2.launched())
    assert len(ec2.bodies) == 2
    assert ec2.bodies[0] == ec2.bodies[1]
    assert cloud.names() == ["app-tier-instance-1", "app-tier-instance-2"]


def test_slot_without_an_instance_is_dropped_after_five_minutes(cloud: FleetCloud) -> None:
    """With or without an id; until then it counts."""
    fleet = cloud.active()
    with cloud.hooked("before-call.ec2.DescribeInstances", describe_no_instances):
        fleet.launch([1])
        with cloud.hooked("before-call.ec2.RunInstances", refusal("Unavailable", 503)):
            with pytest.raises(Transient):
                fleet.launch([2])
            for _ in range(2):
                fleet = cloud.fleet(take_lease(cloud))  # restarts do not matter
                assert [(instance.number, instance.power) for instance in repair_and_read(fleet)] == [
                    (1, Power.PENDING),
                    (2, Power.PENDING),
                ]
            cloud.time.ahead += UNSEEN_SECONDS - 5
            assert len(fleet.instances()) == 2
            cloud.time.ahead += 10
            assert repair_and_read(fleet) == ()
            assert cloud.slots() == []


def test_slot_of_a_forgotten_instance_is_dropped_in_seconds(cloud: FleetCloud, other: Clients) -> None:
    """After a long absence of all autoscalers it would fill the cap for minutes."""
    fleet = cloud.active()
    fleet.launch([1, 2])
    kept = str(fleet.instances()[0].instance_id)
    cloud.time.ahead += UNSEEN_SECONDS + 1

    shown = dict(other.ec2.describe_instances(InstanceIds=[kept]))
    with cloud.hooked("before-call.ec2.DescribeInstances", lambda **_: answer(shown)):
        late = cloud.fleet(take_lease(cloud))
        assert [instance.number for instance in late.instances()] == [1, 2]  # one reading may lack it by chance
        cloud.time.ahead += 6
        assert [instance.number for instance in fleet.instances()] == [1, 2]  # this one has seen both
        assert [instance.number for instance in repair_and_read(late)] == [1]
        assert len(cloud.slots()) == 1


def test_late_answers_never_make_the_fleet_smaller(cloud: FleetCloud) -> None:
    """An instance that EC2 does not show is still listed, so that it is not launched again."""
    fleet = cloud.active()
    with cloud.hooked("before-call.ec2.DescribeInstances", describe_no_instances):
        fleet.launch([1, 2])
        first = fleet.instances()
        assert [instance.number for instance in first] == [1, 2]
        assert {instance.instance_id for instance in first} == {item["instance_id"]["S"] for item in cloud.slots()}
        assert {instance.power for instance in first} == {Power.PENDING}
        for instance in first:
            cloud.reports.report(report_of(instance, cloud.time.now()))
        assert all(instance.report is not None for instance in fleet.instances())
    shown = fleet.instances()
    assert {instance.power for instance in shown} == {Power.RUNNING}
    with cloud.hooked("before-call.ec2.DescribeInstances", describe_no_instances):
        assert fleet.instances() == shown


@pytest.mark.parametrize(
    ("order", "lagging", "told"),
    [
        ("stop", "running", Power.STOPPING),
        ("terminate", "running", Power.SHUTTING_DOWN),
        ("start", "stopped", Power.PENDING),
    ],
)
def test_order_is_visible_before_ec2_shows_it(cloud: FleetCloud, order: str, lagging: str, told: Power) -> None:
    """For a minute the order is believed; then EC2 is, so that the order is given again."""
    fleet = cloud.active()
    fleet.launch([1])
    (instance,) = fleet.instances()
    ids = [str(instance.instance_id)]
    if order == "start":
        fleet.stop(ids)
    stale = cloud.clients.ec2.describe_instances(InstanceIds=ids)
    assert stale["Reservations"][0]["Instances"][0]["State"]["Name"] == lagging
    getattr(fleet, order)(ids)
    with cloud.hooked("before-call.ec2.DescribeInstances", lambda **_: answer(dict(stale))):
        assert [instance.power for instance in fleet.instances()] == [told]
        cloud.time.ahead += LAG_SECONDS + 1
        assert [instance.power for instance in fleet.instances()] == [Power(lagging)]


@pytest.mark.parametrize("order", ["stop", "terminate"])
def test_failed_order_changes_nothing(cloud: FleetCloud, order: str) -> None:
    """An instance that may still run must count, or another would be launched beside it."""
    fleet = cloud.active()
    fleet.launch([1])
    (running,) = fleet.instances()
    event = f"before-call.ec2.{order.capitalize()}Instances"
    for failure in (refusal("RequestLimitExceeded", 503), crash_after):
        with cloud.hooked(event, failure), pytest.raises(Transient):
            getattr(fleet, order)([str(running.instance_id)])
        (still,) = fleet.instances()
        assert replace(still, drain_ordered_at=None) == running


def test_start_with_a_lost_answer_counts(cloud: FleetCloud) -> None:
    """For a minute; then EC2 is believed."""
    fleet = cloud.active()
    fleet.launch([1])
    ids = [str(instance.instance_id) for instance in fleet.instances()]
    fleet.stop(ids)
    with cloud.hooked("before-call.ec2.StartInstances", crash_after), pytest.raises(Transient):
        fleet.start(ids)
    assert [instance.power for instance in fleet.instances()] == [Power.PENDING]
    cloud.time.ahead += LAG_SECONDS + 1
    assert [instance.power for instance in fleet.instances()] == [Power.STOPPED]


def test_instance_that_failed_to_start_is_not_started_again(cloud: FleetCloud) -> None:
    """EC2 accepts the start and stops the instance again; an instance that reported since is kept."""
    fleet = cloud.active()
    fleet.launch([1, 2])
    ids = [str(instance.instance_id) for instance in fleet.instances()]
    fleet.stop(ids)
    cloud.time.ahead += 30
    fleet.start(ids)
    cloud.time.ahead += 30
    cloud.reports.report(report_of(fleet.instances()[1], cloud.time.now()))
    cloud.clients.ec2.stop_instances(InstanceIds=ids)
    assert [(instance.power, instance.outdated) for instance in fleet.instances()] == [(Power.PENDING, False)] * 2
    cloud.time.ahead += LAG_SECONDS + 1
    fleet = cloud.fleet(take_lease(cloud))  # a restart does not forget it
    first, second = fleet.instances()
    assert (first.power, first.outdated) == (Power.STOPPED, True)
    assert (second.power, second.outdated) == (Power.STOPPED, False)
    nothing = Estimates(arrivals_per_second=0, service_seconds=1, boot_seconds=10, start_seconds=5, recent_peak=None)
    by_phase = FleetByPhase.of((first,), Policy().limits, cloud.time.now())
    decision = decide(Observation(QueueDepth(1000, 0), by_phase), nothing, Policy(), cloud.time.now())
    assert isinstance(decision, Decision)
    assert decision.start == ()
    assert decision.launch[0] == 2
    assert decision.terminate == (ids[0],)


@pytest.mark.parametrize(
    ("code", "status", "error"),
    [
        ("RequestLimitExceeded", 503, Throttled),
        ("IncorrectInstanceState", 400, Transient),
        ("UnauthorizedOperation", 403, ConfigurationError),
    ],
)
def test_refused_start_leaves_instances_stopped(
    cloud: FleetCloud, code: str, status: int, error: type[FacerecError]
) -> None:
    """They must not count as booting, or nothing is launched in their place."""
    fleet = cloud.active()
    fleet.launch([1, 2])
    ids = [str(instance.instance_id) for instance in fleet.instances()]
    fleet.stop(ids)
    stopped = fleet.instances()
    with cloud.hooked("before-call.ec2.StartInstances", refusal(code, status)), pytest.raises(error):
        fleet.start(ids)
    assert [(instance.power, instance.since) for instance in fleet.instances()] == [
        (Power.STOPPED, instance.since) for instance in stopped
    ]


def test_start_refused_to_one_counts_the_others(cloud: FleetCloud) -> None:
    """EC2 refuses all because of one: each is then started alone."""
    fleet = cloud.active()
    fleet.launch([1, 2, 3])
    ids = [str(instance.instance_id) for instance in fleet.instances()]
    fleet.stop(ids)

    def partly(params: Any, **_: Any) -> Any:
        asked = params["body"].values()
        if ids[2] in asked and ids[0] not in asked:
            raise Transient("the answer got lost")
        return refusal("IncorrectInstanceState")() if ids[0] in asked else None

    with cloud.hooked("before-call.ec2.StartInstances", partly), pytest.raises(Transient):
        fleet.start(ids)
    assert [instance.power for instance in fleet.instances()] == [Power.STOPPED, Power.RUNNING, Power.PENDING]


def test_two_autoscalers_never_launch_one_number_twice(cloud: FleetCloud) -> None:
    """The second takes over between the decision and the launch of the first."""
    first, second = cloud.lease(), cloud.lease()
    assert first.acquire_or_renew()
    late, early = cloud.fleet(first), cloud.fleet(second)
    assert not second.acquire_or_renew()
    cloud.time.silence += 3601
    assert second.acquire_or_renew()
    early.launch([1, 2, 3])
    with pytest.raises(LeaseLost):
        late.launch([1, 2, 3])
    first._held_until = float("inf")  # its clock stood still: the table's condition must do
    with pytest.raises(LeaseLost):
        late.launch([1, 2, 3, 4])
    with pytest.raises(LeaseLost):
        late.terminate([str(instance.instance_id) for instance in early.instances()])
    assert len(cloud.describe_instances()) == 3
    assert [instance.number for instance in early.instances()] == [1, 2, 3]


def test_lease_lost_after_the_slot_was_taken_launches_nothing(cloud: FleetCloud) -> None:
    """The new owner of the lease completes the launch."""
    lease = cloud.lease()
    assert lease.acquire_or_renew()
    fleet = cloud.fleet(lease)

    def stall(**_: Any) -> None:
        cloud.time.silence += 3601

    with cloud.hooked("after-call.dynamodb.TransactWriteItems", stall), pytest.raises(LeaseLost):
        fleet.launch([1])
    assert cloud.describe_instances() == []
    assert [instance.number for instance in repair_and_read(cloud.fleet(take_lease(cloud)))] == [1]
    assert len(cloud.describe_instances()) == 1


@pytest.mark.parametrize("order", ["stop", "terminate"])
def test_expired_lease_ends_no_instance(cloud: FleetCloud, order: str) -> None:
    """The orders to drain may take long; the new owner may have taken them back."""
    lease = cloud.lease()
    assert lease.acquire_or_renew()
    fleet = cloud.fleet(lease)
    fleet.launch([1, 2, 3])
    ids = [str(instance.instance_id) for instance in fleet.instances()]
    given = []

    def stall(instance_id: str, ordered_at: float) -> None:
        given.append((instance_id, ordered_at))
        if len(given) == 2:
            cloud.time.silence += 3601

    cloud.reports.order_drain = stall  # type: ignore[method-assign] # it takes an hour
    with (
        cloud.hooked(f"before-call.ec2.{order.capitalize()}Instances", refusal("MustNotBeAsked")),
        pytest.raises(LeaseLost),
    ):
        getattr(fleet, order)(ids)
    assert [instance_id for instance_id, _ in given] == ids[:2]
    assert {instance["State"]["Name"] for instance in cloud.describe_instances()} == {"running"}
    given.clear()

    def stall_at_last(instance_id: str, ordered_at: float) -> None:
        given.append((instance_id, ordered_at))
        if len(given) == 3:
            cloud.time.silence += 3601

    cloud.reports.order_drain = stall_at_last  # type: ignore[method-assign] # as before
    assert lease.acquire_or_renew()
    with (
        cloud.hooked(f"before-call.ec2.{order.capitalize()}Instances", refusal("MustNotBeAsked")),
        pytest.raises(LeaseLost),
    ):
        getattr(fleet, order)(ids)


def test_lease_that_another_had_is_not_renewed(cloud: FleetCloud) -> None:
    """Also when it is free again: the readings before are too old."""
    lease = cloud.lease()
    with pytest.raises(LeaseLost):
        lease.renew_or_raise()
    assert lease.acquire_or_renew()
    cloud.time.silence += 3000
    lease.renew_or_raise()
    cloud.time.silence += 3000
    assert lease.held
    take_lease(cloud).release()
    with pytest.raises(LeaseLost):
        lease.renew_or_raise()
    assert not lease.held
    assert lease.acquire_or_renew()


def test_throttling_keeps_the_slot_and_its_token(cloud: FleetCloud) -> None:
    """The call may have been served, so that the numbers stay taken, and the launch is repeated."""
    fleet, throttled = cloud.active(), refusal("RequestLimitExceeded", 503)
    with cloud.hooked("before-call.ec2.RunInstances", throttled), pytest.raises(Throttled):
        fleet.launch([1])
    (token,) = {item["token"]["S"] for item in cloud.slots()}
    (repeated,) = repair_and_read(fleet)
    assert repeated.instance_id is not None
    assert {item["token"]["S"] for item in cloud.slots()} == {token}


def test_instances_without_a_slot_are_taken_in(cloud: FleetCloud) -> None:
    """After a lost table or a late launch they count, with the numbers of their names."""
    fleet = cloud.active()
    fleet.launch([1, 2, 3])
    ids = [instance.instance_id for instance in fleet.instances()]
    for item in cloud.slots()[:2]:
        cloud.clients.dynamodb.delete_item(
            TableName=cloud.settings.fleet_table, Key={name: item[name] for name in ("kind", "item")}
        )
    assert [(instance.number, instance.instance_id) for instance in repair_and_read(fleet)] == list(
        zip((1, 2, 3), ids, strict=True)
    )
    assert len(cloud.slots()) == 3
    fleet.stop([str(ids[0])])
    assert fleet.instances()[0].power is Power.STOPPED


def test_instance_terminated_from_outside_is_cleaned_up(cloud: FleetCloud) -> None:
    """Its number is free, and its worker's report is forgotten."""
    fleet = cloud.active()
    fleet.launch([1])
    (instance,) = fleet.instances()
    cloud.reports.report(report_of(instance, cloud.time.now()))
    cloud.clients.ec2.terminate_instances(InstanceIds=[str(instance.instance_id)])
    assert repair_and_read(fleet) == ()
    assert cloud.slots() == []
    assert cloud.reports.records([str(instance.instance_id)]) == {}


def test_unreadable_ec2_is_no_empty_fleet(cloud: FleetCloud) -> None:
    """Nor is an unreadable table."""
    fleet = cloud.active()
    fleet.launch([1])
    for event in ("before-call.ec2.DescribeInstances", "before-call.dynamodb.Query"):
        with cloud.hooked(event, refusal("InternalError", 500)), pytest.raises(Transient):
            fleet.instances()


@pytest.mark.parametrize("damage", [{"token": {"N": "1"}}, {"made_at": {"S": "noon"}}, {"order": {"S": "explode"}}])
def test_damaged_launch_slot_is_no_free_number(cloud: FleetCloud, damage: Any) -> None:
    """The fleet is unreadable, and the reason names the slot."""
    fleet = cloud.active()
    fleet.launch([1])
    (slot,) = cloud.slots()
    cloud.clients.dynamodb.put_item(TableName=cloud.settings.fleet_table, Item=slot | damage)
    with pytest.raises(Transient, match="000001"):
        fleet.instances()


def test_competing_autoscalers_never_exceed_the_cap(cloud: FleetCloud, other: Clients) -> None:
    """Leases and answers get lost, answers lag, instances end: never more than four run at once."""
    cap, launches = 4, 5
    ec2, truth = DocumentedLaunches(other.ec2, most=2), replace(cloud, clients=other)
    running: list[int] = []
    chance = random.Random(5)  # noqa: S311 - no secret

    def unreliable(**call: Any) -> Any:
        if chance.random() < 0.2:
            raise Transient("the request got lost")
        given = ec2(**call)
        running.append(len(truth.describe_instances()))
        if chance.random() < 0.2:
            raise Transient("the answer got lost")
        return given

    def lagging(**_: Any) -> Any:
        return describe_no_instances() if chance.random() < 0.3 else None

    def control(_: int) -> None:
        lease = cloud.lease()
        fleet = cloud.fleet(lease)
        turns = itertools.takewhile(lambda _: len(running) < launches, range(500))
        for _ in turns:
            with contextlib.suppress(Transient):
                if lease.acquire_or_renew():
                    shown = repair_and_read(fleet)
                    numbers = {instance.number for instance in shown}
                    fleet.launch([n for n in range(1, cap + 1) if n not in numbers][: cap - len(shown)])
                    if shown and chance.random() < 0.3:
                        fleet.terminate(
                            [instance.instance_id for instance in shown[:2] if instance.instance_id is not None]
                        )
            if chance.random() < 0.3:
                cloud.clients.dynamodb.delete_item(TableName=cloud.settings.fleet_table, Key=LEASE_KEY)

    with (
        cloud.hooked("before-call.ec2.RunInstances", unreliable),
        cloud.hooked("before-call.ec2.DescribeInstances", lagging),
        ThreadPoolExecutor(3) as pool,
    ):
        list(pool.map(control, range(3)))
    with cloud.hooked("before-call.ec2.RunInstances", ec2):
        last = repair_and_read(cloud.fleet(take_lease(cloud)))
    assert len(running) >= launches
    assert max(running) <= cap
    assert len({instance.number for instance in last}) == len(last) <= cap
    assert {instance["InstanceId"] for instance in truth.describe_instances()} == {
        instance.instance_id for instance in last
    }
