"""What only EC2 has: capacity pools and shortages, tags and templates, instances of others, status checks."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from autoscale import process
from autoscale.aws.ec2 import SKIP_SECONDS
from autoscale.observation import Power
from facerec.aws.clients import Clients
from facerec.aws.dynamodb.worker_reports import DynamoWorkerReports
from facerec.bootstrap import fleet_history
from facerec.errors import ConfigurationError, InsufficientCapacity, LeaseLost
from facerec.fleet_records import QueueDepth
from facerec.settings import Settings
from facerec.settings.resources import NameSettings
from tests.fakes.fleet import a_record
from tests.fakes.worker_reports import InMemoryWorkerReports
from tests.support.emulated import EmulatedAws
from tests.support.fleet_cloud import (
    FleetCloud,
    answer,
    describe_no_instances,
    instance_description,
    make_cloud,
    refusal,
    repair_and_read,
    report_of,
    take_lease,
)


def test_instances_of_others_are_never_touched(cloud: FleetCloud) -> None:
    """Instances without our tag, or with another fleet's, are neither listed nor ended."""
    ec2 = cloud.clients.ec2
    another = [{"Key": "facerec:fleet", "Value": "another"}, {"Key": "Name", "Value": "app-tier-instance-1"}]
    tagged: Any = [{"ResourceType": "instance", "Tags": another}]
    launched = [
        ec2.run_instances(ImageId="ami-1", MinCount=1, MaxCount=1),
        ec2.run_instances(ImageId="ami-1", MinCount=1, MaxCount=1, TagSpecifications=tagged),
    ]
    strangers = [instance["Instances"][0]["InstanceId"] for instance in launched]
    fleet = cloud.active()
    assert fleet.instances() == ()
    fleet.launch([1])
    (ours,) = fleet.instances()
    orders: list[Callable[[list[str]], None]] = [
        fleet.stop, fleet.start, fleet.terminate, fleet.resume, lambda ids: fleet.drain(ids, 1.0)
    ]  # fmt: skip
    for order in orders:
        order(strangers)
        order([*strangers, str(ours.instance_id)])
    found = ec2.describe_instances(InstanceIds=strangers)["Reservations"]
    assert [instance["State"]["Name"] for r in found for instance in r["Instances"]] == ["running", "running"]
    assert cloud.reports.records(strangers) == {}


def test_launched_instances_are_named_and_tagged(cloud: FleetCloud) -> None:
    """By their numbers."""
    cloud.active().launch([1, 2, 3])
    assert cloud.names() == [f"app-tier-instance-{number}" for number in (1, 2, 3)]
    assert {instance["InstanceType"] for instance in cloud.describe_instances()} == {"c7i.large"}
    assert {instance["SubnetId"] for instance in cloud.describe_instances()} == {"subnet-a"}


def test_shortage_tries_the_next_capacity_pool(cloud: FleetCloud) -> None:
    """The next subnet, then the next type; a pool without capacity rests, longer each time."""
    asked: list[tuple[str, str]] = []

    def short(params: Any, **_: Any) -> Any:
        pool = (params["body"]["InstanceType"], params["body"]["SubnetId"])
        asked.append(pool)
        codes = {("c7i.large", "subnet-a"): "InsufficientInstanceCapacity", ("c7i.large", "subnet-b"): "Unsupported"}
        return refusal(codes[pool])() if pool in codes else None

    fleet = cloud.active()
    with cloud.hooked("before-call.ec2.RunInstances", short):
        fleet.launch([1])
        assert asked == [("c7i.large", "subnet-a"), ("c7i.large", "subnet-b"), ("m7i.large", "subnet-a")]
        fleet.launch([2])
        assert asked[3:] == [("m7i.large", "subnet-a")]
        cloud.time.ahead += SKIP_SECONDS + 1
        fleet.launch([3])
        assert asked[4:] == [("c7i.large", "subnet-a"), ("c7i.large", "subnet-b"), ("m7i.large", "subnet-a")]
        cloud.time.ahead += SKIP_SECONDS + 1
        fleet.launch([4])
        assert asked[7:] == [("m7i.large", "subnet-a")]
    assert [instance.number for instance in fleet.instances()] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "code",
    [
        "InsufficientInstanceCapacity",
        "InstanceLimitExceeded",
        "VcpuLimitExceeded",
        "MaxSpotInstanceCountExceeded",
        "InsufficientFreeAddressesInSubnet",
    ],
)
def test_exhausted_capacity_pools_are_named(cloud: FleetCloud, code: str) -> None:
    """With EC2's reasons and the settings to change; while all pools rest, EC2 is not asked."""
    fleet = cloud.active()
    with cloud.hooked("before-call.ec2.RunInstances", refusal(code)), pytest.raises(InsufficientCapacity) as found:
        fleet.launch([1])
    for words in (f"m7i.large in subnet-b ({code})", "FACEREC_INSTANCES__TYPES", "FACEREC_INSTANCES__SUBNET_IDS"):
        assert words in str(found.value)
    with cloud.hooked("before-call.ec2.RunInstances", refusal("MustNotBeAsked")), pytest.raises(InsufficientCapacity):
        fleet.launch([1])
    assert cloud.slots() == []


def test_partial_launch_continues_in_the_next_pool(cloud: FleetCloud) -> None:
    """Some are launched here, the others there."""
    left = Counter({"c7i.large": 2})

    def few(params: Any, **_: Any) -> Any:
        body = params["body"]
        if body["InstanceType"] == "c7i.large":
            if not left["c7i.large"]:
                return refusal("InsufficientInstanceCapacity")()
            left["c7i.large"] -= 1
        return None

    fleet = cloud.active()
    with cloud.hooked("before-call.ec2.RunInstances", few):
        fleet.launch([1, 2, 3, 4, 5])
    assert Counter(instance["InstanceType"] for instance in cloud.describe_instances()) == {
        "c7i.large": 2,
        "m7i.large": 3,
    }
    assert [instance.number for instance in fleet.instances()] == [1, 2, 3, 4, 5]


def test_wrong_setting_is_raised_and_takes_no_slot(cloud: FleetCloud) -> None:
    """The operator must change something: no retry helps."""
    fleet = cloud.active()
    wrong = refusal("InvalidParameterValue")
    with cloud.hooked("before-call.ec2.RunInstances", wrong), pytest.raises(ConfigurationError):
        fleet.launch([1])
    assert cloud.slots() == []


def test_missing_launch_template_names_the_remedy(cloud: FleetCloud) -> None:
    """The fleet stays readable."""
    names = NameSettings(launch_template="nowhere", fleet_table=cloud.settings.fleet_table)
    fleet = replace(cloud, settings=Settings(prefix=cloud.settings.prefix, names=names)).active()
    assert fleet.instances() == ()
    with pytest.raises(ConfigurationError, match="FACEREC_INSTANCES__IMAGE_ID and run `facerec provision`"):
        fleet.launch([1])
    unknown = refusal("InvalidLaunchTemplateName.NotFoundException")  # AWS's own code
    with (
        cloud.hooked("before-call.ec2.DescribeLaunchTemplates", unknown),
        pytest.raises(ConfigurationError, match="FACEREC_INSTANCES__IMAGE_ID and run `facerec provision`"),
    ):
        fleet.launch([1])


def test_start_without_capacity_leaves_instances_stopped(cloud: FleetCloud) -> None:
    """Those with capacity are started."""
    fleet = cloud.active()
    fleet.launch([1, 2])
    ids = [str(instance.instance_id) for instance in fleet.instances()]
    fleet.stop(ids)

    def only_the_second(params: Any, **_: Any) -> Any:
        return refusal("InsufficientInstanceCapacity")() if ids[0] in params["body"].values() else None

    with cloud.hooked("before-call.ec2.StartInstances", only_the_second), pytest.raises(InsufficientCapacity):
        fleet.start(ids)
    assert [instance.power for instance in fleet.instances()] == [Power.STOPPED, Power.RUNNING]


def test_instance_of_an_older_template_is_outdated(cloud: FleetCloud) -> None:
    """The default version is read now and then."""
    fleet, ec2, name = cloud.active(), cloud.clients.ec2, cloud.settings.launch_template
    fleet.launch([1])
    assert [instance.outdated for instance in fleet.instances()] == [False]
    ec2.create_launch_template_version(LaunchTemplateName=name, LaunchTemplateData={"ImageId": "ami-2"})
    ec2.modify_launch_template(LaunchTemplateName=name, DefaultVersion="2")
    cloud.time.ahead += 20
    assert [instance.outdated for instance in fleet.instances()] == [True]
    fleet.launch([2])
    assert [instance.outdated for instance in fleet.instances()] == [True, False]


def test_failing_status_check_makes_an_instance_impaired(cloud: FleetCloud) -> None:
    """If the checks cannot be read, no instance is impaired."""
    fleet = cloud.active()
    fleet.launch([1, 2])
    sick = str(fleet.instances()[1].instance_id)
    status = {
        "InstanceId": sick,
        "SystemStatus": {"Status": "impaired"},
        "InstanceStatus": {"Status": "ok"},
    }
    cloud.time.ahead += 20
    with cloud.hooked("before-call.ec2.DescribeInstanceStatus", lambda **_: answer({"InstanceStatuses": [status]})):
        assert [instance.impaired for instance in fleet.instances()] == [False, True]
    cloud.time.ahead += 20
    with cloud.hooked("before-call.ec2.DescribeInstanceStatus", refusal("InvalidAction")):
        assert [instance.impaired for instance in fleet.instances()] == [False, False]


def test_status_checks_of_an_impaired_instance_are_read_each_time(cloud: FleetCloud) -> None:
    """The others are read now and then."""
    fleet = cloud.active()
    fleet.launch([1])
    failing = {
        "InstanceId": str(fleet.instances()[0].instance_id),
        "SystemStatus": {"Status": "ok"},
        "InstanceStatus": {"Status": "impaired"},
    }
    cloud.time.ahead += 20
    asked = []

    def checks(**_: Any) -> Any:
        asked.append(cloud.time.now())
        return answer({"InstanceStatuses": [failing]})

    with cloud.hooked("before-call.ec2.DescribeInstanceStatus", checks):
        assert [instance.impaired for instance in fleet.instances()] == [True]
    cloud.time.ahead += 1
    with cloud.hooked("before-call.ec2.DescribeInstanceStatus", lambda **_: answer({"InstanceStatuses": []})):
        assert [instance.impaired for instance in fleet.instances()] == [False]
    asked.clear()
    failing["InstanceId"] = "i-another"  # others' instances are no reason to ask more often
    cloud.time.ahead += 20
    with cloud.hooked("before-call.ec2.DescribeInstanceStatus", checks):
        for _ in range(3):
            assert [instance.impaired for instance in fleet.instances()] == [False]
            cloud.time.ahead += 1
    assert len(asked) == 2  # one reading, of two checks


def test_spot_instances_are_launched_and_shown(cloud: FleetCloud) -> None:
    """If the settings want them."""
    bodies: list[Any] = []
    fleet = cloud.active(spot=True)
    with (
        cloud.hooked("before-call.ec2.RunInstances", lambda params, **_: bodies.append(params["body"])),
        cloud.hooked("before-call.ec2.DescribeInstances", describe_no_instances),
    ):
        fleet.launch([1])
        assert [instance.spot for instance in fleet.instances()] == [True]
    assert bodies[0]["InstanceMarketOptions.MarketType"] == "spot"


def test_large_launch_is_split(ministack_clients: Clients) -> None:
    """A DynamoDB transaction takes a hundred items, EC2 any number."""
    cloud, next_id = make_cloud(ministack_clients), iter(range(1000))

    def generous(params: Any, **_: Any) -> Any:
        return answer(
            {"Instances": [instance_description(next(next_id)) for _ in range(int(params["body"]["MaxCount"]))]}
        )

    fleet = cloud.active()
    with (
        cloud.hooked("before-call.ec2.RunInstances", generous),
        cloud.hooked("before-call.ec2.CreateTags", lambda **_: answer({})),
    ):
        fleet.launch(list(range(1, 201)))
    assert [instance.number for instance in fleet.instances()] == list(range(1, 201))
    assert len({instance.instance_id for instance in fleet.instances()}) == 200


def test_names_are_given_twenty_at_a_time(ministack_clients: Clients) -> None:
    """Each is a request: the launch gives twenty, and each repair twenty more."""
    cloud = make_cloud(ministack_clients)
    named: list[Any] = []
    instances = [instance_description(number) for number in range(90)]
    fleet = cloud.active()

    def tag(params: Any, **_: Any) -> Any:
        named.append(params["body"])
        return answer({})

    with (
        cloud.hooked("before-call.ec2.RunInstances", lambda **_: answer({"Instances": instances})),
        cloud.hooked(
            "before-call.ec2.DescribeInstances", lambda **_: answer({"Reservations": [{"Instances": instances}]})
        ),
        cloud.hooked("before-call.ec2.CreateTags", tag),
    ):
        fleet.launch(list(range(1, 91)))
        assert len(named) == 20
        for total in (40, 60, 80, 90, 90):
            repair_and_read(fleet)
            assert len(named) == total
    assert {body["Tag.1.Value"] for body in named} == {f"app-tier-instance-{number}" for number in range(1, 91)}


def test_large_launch_renews_the_lease(ministack_clients: Clients) -> None:
    """A lost lease ends the launch."""
    cloud, next_id = make_cloud(ministack_clients), iter(range(1000))
    lease = cloud.lease()
    assert lease.acquire_or_renew()
    fleet, calls = cloud.fleet(lease), []

    def slow(params: Any, **_: Any) -> Any:
        calls.append(int(params["body"]["MaxCount"]))
        cloud.time.silence += 2000  # of the lease's 3600 seconds
        if len(calls) == 3:
            take_lease(cloud)
        return answer({"Instances": [instance_description(next(next_id)) for _ in range(calls[-1])]})

    with (
        cloud.hooked("before-call.ec2.RunInstances", slow),
        cloud.hooked("before-call.ec2.CreateTags", lambda **_: answer({})),
        pytest.raises(LeaseLost),
    ):
        fleet.launch(list(range(1, 401)))
    assert calls == [90, 90, 90]


def test_lost_table_is_restored_for_any_number_of_instances(cloud: FleetCloud) -> None:
    """More than one transaction takes; instances without a name get the lowest numbers."""
    reservation = {"Instances": [instance_description(number) for number in range(120)]}
    with (
        cloud.hooked("before-call.ec2.DescribeInstances", lambda **_: answer({"Reservations": [reservation]})),
        cloud.hooked("before-call.ec2.CreateTags", lambda **_: answer({})),
    ):
        assert [instance.number for instance in repair_and_read(cloud.active())] == list(range(1, 121))
    assert len(cloud.slots()) == 120


def test_settings_make_every_port(emulator: EmulatedAws) -> None:
    """Each adapter finds what provisioning has made."""
    settings = emulator.settings
    lease = process.make_lease(settings)
    assert lease.acquire_or_renew()
    assert process.make_fleet(settings, lease, InMemoryWorkerReports()).instances() == ()
    assert process.make_backlog(settings).depth() == QueueDepth(0, 0, 0, dead_letters=0)
    fleet_history(settings).record(a_record(time.time()))
    assert len(fleet_history(settings).records(time.time() - 60)) == 1
    lease.release()


def test_unreadable_report_leaves_the_other_instances_readable(cloud: FleetCloud) -> None:
    """Also beside reports of instances that do not exist, and an order to drain in the place of former releases."""
    reports = DynamoWorkerReports(cloud.clients, cloud.settings.fleet_table)
    cloud.reports = reports  # type: ignore[assignment] # the true ones
    fleet = cloud.active()
    fleet.launch([1, 2])
    first, second = fleet.instances()
    for instance in (first, second, replace(first, instance_id="i-unknown")):
        reports.report(report_of(instance, cloud.time.now()))
    dynamodb, table = cloud.clients.dynamodb, cloud.settings.fleet_table
    for item in dynamodb.scan(TableName=table, ConsistentRead=True)["Items"]:
        if item["item"]["S"] == "report" and str(second.instance_id) not in item["kind"]["S"]:
            dynamodb.put_item(TableName=table, Item=item | {"report": {"N": "1"}})
    former: Any = {"kind": {"S": "worker"}, "item": {"S": str(second.instance_id)}, "drain_ordered_at": {"N": "1"}}
    dynamodb.put_item(TableName=table, Item=former)
    unreadable, healthy = repair_and_read(fleet)
    assert (unreadable.report, unreadable.report_unreadable) == (None, True)
    assert (healthy.report is None, healthy.report_unreadable, healthy.drain_ordered_at) == (False, False, None)
    fleet.drain([str(first.instance_id)], 5.0)
    assert [instance.drain_ordered_at for instance in fleet.instances()] == [5.0, None]
