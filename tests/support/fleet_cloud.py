"""An emulated EC2 with one fleet's table and launch template, autoscalers on it, and answers in its place."""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from autoscale.aws.ec2 import CapacityPools, Ec2
from autoscale.aws.fleet import Ec2Fleet
from autoscale.aws.launch_slots import LaunchSlots
from autoscale.aws.lease import DynamoLease
from autoscale.observation import Instance
from facerec.aws.clients import Clients
from facerec.provision import provisioning
from facerec.settings import Settings
from facerec.settings.resources import InstancesSettings
from tests.fakes.worker_reports import READY, InMemoryWorkerReports

Hook = Callable[..., Any]
LEASE_KEY: Any = {"kind": {"S": "lease"}, "item": {"S": "controller"}}


@dataclass
class Time:
    """A clock that the test may put forward."""

    ahead: float = 0.0
    silence: float = 0.0
    """How long the autoscalers have not renewed their leases."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time() + self.ahead

    def clock(self) -> float:
        """Seconds since some moment."""
        return time.monotonic() + self.ahead

    def lease_clock(self) -> float:
        """The same for leases, so that tests need not renew them."""
        return time.monotonic() + self.silence


@dataclass
class FleetCloud:
    """An emulated EC2 with one fleet's table and launch template, and autoscalers on it."""

    clients: Clients
    settings: Settings
    time: Time = field(default_factory=Time)
    reports: InMemoryWorkerReports = field(default_factory=InMemoryWorkerReports)

    def lease(self) -> DynamoLease:
        """Another autoscaler's share in the lease."""
        return DynamoLease(self.clients, self.settings.fleet_table, lease_seconds=3600, clock=self.time.lease_clock)

    def fleet(self, lease: DynamoLease, **options: Any) -> Ec2Fleet:
        """An autoscaler's fleet."""
        return Ec2Fleet(
            Ec2(self.clients, self.settings),
            LaunchSlots(self.clients, self.settings.fleet_table, lease),
            lease,
            self.reports,
            CapacityPools(self.settings.instances.types, self.settings.instances.subnet_ids, clock=self.time.clock),
            now=self.time.now,
            clock=self.time.clock,
            **options,
        )

    def active(self, **options: Any) -> Ec2Fleet:
        """The fleet of an autoscaler that holds the lease."""
        lease = self.lease()
        assert lease.acquire_or_renew()
        return self.fleet(lease, **options)

    def describe_instances(self) -> list[Any]:
        """EC2's own descriptions of the instances that are not terminated."""
        answer = self.clients.ec2.describe_instances(
            Filters=[{"Name": "tag:facerec:fleet", "Values": [self.settings.prefix]}]
        )
        found = [instance for reservation in answer["Reservations"] for instance in reservation["Instances"]]
        return [instance for instance in found if instance["State"]["Name"] != "terminated"]

    def names(self) -> list[str]:
        """Their `Name` tags, sorted."""
        tags = [{tag["Key"]: tag["Value"] for tag in instance["Tags"]} for instance in self.describe_instances()]
        return sorted(found.get("Name", "") for found in tags)

    def slots(self) -> list[Any]:
        """The items of the launch slots."""
        items = self.clients.dynamodb.scan(TableName=self.settings.fleet_table, ConsistentRead=True)["Items"]
        return [item for item in items if item["kind"]["S"] == "number"]

    @contextmanager
    def hooked(self, event: str, hook: Hook) -> Iterator[None]:
        """Give a botocore hook the calls of EC2 or DynamoDB, to record or to answer them."""
        client = getattr(self.clients, event.split(".")[1])
        client.meta.events.register(event, hook)
        try:
            yield
        finally:
            client.meta.events.unregister(event, hook)


def make_cloud(clients: Clients, **instances: Any) -> FleetCloud:
    """Create a table, a launch template and settings of its own on the emulator that these clients reach."""
    settings = Settings(prefix=f"test-{uuid.uuid4().hex[:12]}", instances=InstancesSettings(**instances))
    provisioning._table(clients, "FLEET_TABLE", settings.fleet_table, ("kind", "item"))
    image = clients.ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
    clients.ec2.create_launch_template(
        LaunchTemplateName=settings.launch_template, LaunchTemplateData={"ImageId": image}
    )
    return FleetCloud(clients, settings)


def answer(parsed: Any, status: int = 200) -> tuple[Any, Any]:
    """Return what a botocore hook returns to replace the service's answer."""

    class Response:
        status_code = status

    return Response(), parsed | {"ResponseMetadata": {"HTTPStatusCode": status}}


def refusal(code: str, status: int = 400) -> Hook:
    """A hook that answers with an error."""
    return lambda **_: answer({"Error": {"Code": code, "Message": "no"}}, status)


def describe_no_instances(**_: Any) -> tuple[Any, Any]:
    """Answer DescribeInstances without any instance, as EC2 does when it lags behind."""
    return answer({"Reservations": []})


def report_of(instance: Instance, at: float) -> Any:
    """A report of the instance's worker, ready at that moment."""
    return replace(READY, instance_id=str(instance.instance_id), ready_at=at, reported_at=at)


def repair_and_read(fleet: Ec2Fleet) -> tuple[Instance, ...]:
    """Repair the fleet as a round does, and read it again."""
    fleet.instances()
    fleet.repair()
    return fleet.instances()


def take_lease(cloud: FleetCloud) -> DynamoLease:
    """Take the lease for a new autoscaler, also from a current owner."""
    cloud.clients.dynamodb.delete_item(TableName=cloud.settings.fleet_table, Key=LEASE_KEY)
    lease = cloud.lease()
    assert lease.acquire_or_renew()
    return lease


class DocumentedLaunches:
    """Makes RunInstances behave as EC2 documents it, unlike the emulators: MaxCount, and one launch per token.

    A hook for `before-call`, which launches with its own client. `most` is how many instances a call gets.
    """

    def __init__(self, ec2: Any, most: int) -> None:
        self._ec2 = ec2
        self._most = most
        self._answers: dict[str, list[Any]] = {}
        self._lock = threading.Lock()
        self.bodies: list[Any] = []

    def __call__(self, params: Any, **_: Any) -> tuple[Any, Any]:
        """Serve one call."""
        body = params["body"]
        with self._lock:
            self.bodies.append(body)
            token = body["ClientToken"]
            if token not in self._answers:
                count = min(int(body["MaxCount"]), self._most)
                self._answers[token] = [self._launch(body) for _ in range(count)]
            return answer({"Instances": self._answers[token]})

    def launched(self) -> list[str]:
        """Every instance ever launched."""
        with self._lock:
            return [instance["InstanceId"] for given in self._answers.values() for instance in given]

    def _launch(self, body: Any) -> Any:
        prefix = "TagSpecification.1.Tag."
        count = sum(key.startswith(prefix) and key.endswith(".Key") for key in body)
        tags = [{part: body[f"{prefix}{index + 1}.{part}"] for part in ("Key", "Value")} for index in range(count)]
        tagged = [{"ResourceType": "instance", "Tags": tags}]
        answered = self._ec2.run_instances(ImageId="ami-1", MinCount=1, MaxCount=1, TagSpecifications=tagged)
        return answered["Instances"][0]


def instance_description(number: int) -> Any:
    """An instance as RunInstances answers."""
    return {
        "InstanceId": f"i-{number:017x}",
        "State": {"Name": "pending"},
        "LaunchTime": datetime.now(UTC),
        "AmiLaunchIndex": number,
    }
