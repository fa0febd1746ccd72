"""What the fleet asks of EC2: each method one kind of call, vendor errors in our words."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from autoscale.aws.instances import LAUNCH_TAG, VERSION_TAG, Description, Request, in_launch_order
from facerec.aws.clients import Clients, translated
from facerec.errors import ConfigurationError, InsufficientCapacity, Transient
from facerec.messages import FLEET_TAG
from facerec.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

CAPACITY_CODES = frozenset(
    {
        "InstanceLimitExceeded",
        "InsufficientCapacity",
        "InsufficientFreeAddressesInSubnet",
        "InsufficientHostCapacity",
        "InsufficientInstanceCapacity",
        "InsufficientReservedInstanceCapacity",
        "MaxSpotInstanceCountExceeded",
        "SpotMaxPriceTooLow",
        "Unsupported",
        "VcpuLimitExceeded",
    }
)
"""By which EC2 says that another type, zone or time may do better (`Unsupported`: not in this zone)."""


class Refused(InsufficientCapacity):
    """EC2 has none of what was asked for; `code` is its word for the reason."""

    def __init__(self, code: str) -> None:
        super().__init__(f"EC2 has no capacity ({code})")
        self.code = code


class NoSuchInstance(Transient):
    """EC2 does not know one of the instances: it has gone, or is not known everywhere yet."""

    def __init__(self) -> None:
        super().__init__("EC2 does not know the instance (yet, or any more)")


class WrongState(Transient):
    """An instance is on its way elsewhere, so that the order does not apply."""


class Ec2:
    """The instances of one fleet, told by their tag, and the launch template that they are made from."""

    def __init__(self, clients: Clients, settings: Settings) -> None:
        self._clients = clients
        self._fleet = settings.prefix
        self._template = settings.launch_template

    def described(self) -> dict[str, Description]:
        """Every instance of the fleet that EC2 shows, terminated ones included, by id."""
        with translated("describe the fleet's instances"):
            pages = self._client.get_paginator("describe_instances").paginate(
                Filters=[{"Name": f"tag:{FLEET_TAG}", "Values": [self._fleet]}], PaginationConfig={"PageSize": 1000}
            )
            shown = [
                Description.of(one)
                for page in pages
                for reservation in page["Reservations"]
                for one in reservation["Instances"]
            ]
        return {one.instance_id: one for one in shown}

    def run(self, token: str, request: Request) -> list[Description]:
        """Launch one to `request.count` instances; with a token used before, returns what that launched.

        Raises `Refused`. After any other `Transient` it is not known whether anything was launched.
        """
        tags = {FLEET_TAG: self._fleet, LAUNCH_TAG: token, VERSION_TAG: request.template_version}
        parameters: Any = {
            "MinCount": 1,
            "MaxCount": request.count,
            "ClientToken": token,
            "LaunchTemplate": {"LaunchTemplateName": self._template, "Version": request.template_version},
            "InstanceType": request.offer.instance_type,
            "TagSpecifications": [
                {"ResourceType": "instance", "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}
            ],
        }
        if request.offer.subnet_id is not None:
            parameters["SubnetId"] = request.offer.subnet_id
        if request.spot:
            parameters["InstanceMarketOptions"] = {"MarketType": "spot"}
        with translated(f"launch {request.count} instances of {request.offer}", **_refusals()):
            return in_launch_order(Description.of(one) for one in self._client.run_instances(**parameters)["Instances"])

    def start(self, instance_ids: Sequence[str]) -> None:
        """Start stopped instances, all or none; raises `Refused`, `NoSuchInstance` and `WrongState`."""
        with _ordering("start instances"):
            self._client.start_instances(InstanceIds=instance_ids)

    def stop(self, instance_ids: Sequence[str]) -> None:
        """Stop instances, all or none; raises `NoSuchInstance` and `WrongState`."""
        with _ordering("stop instances"):
            self._client.stop_instances(InstanceIds=instance_ids)

    def terminate(self, instance_ids: Sequence[str]) -> None:
        """End instances, all or none; raises `NoSuchInstance` and `WrongState`."""
        with _ordering("terminate instances"):
            self._client.terminate_instances(InstanceIds=instance_ids)

    def name(self, instance_id: str, name: str) -> None:
        """Set the `Name` tag; raises `NoSuchInstance`."""
        with _ordering("name an instance"):
            self._client.create_tags(Resources=[instance_id], Tags=[{"Key": "Name", "Value": name}])

    def default_version(self) -> str:
        """The version of the launch template in force; raises `ConfigurationError` where there is no template."""
        missing = ConfigurationError(
            f"there is no launch template {self._template!r}; set FACEREC_INSTANCES__IMAGE_ID and run "
            "`facerec provision`"
        )
        unknown = {"InvalidLaunchTemplateName_NotFoundException": lambda: missing}
        with translated(f"read launch template {self._template!r}", **unknown):
            found = self._client.describe_launch_templates(LaunchTemplateNames=[self._template])["LaunchTemplates"]
        if not found:  # so emulators say it
            raise missing
        return str(found[0]["DefaultVersionNumber"])

    def impaired(self) -> frozenset[str]:
        """The instances, also others than ours, that fail a status check."""
        failing = set()
        with translated("read the status of instances"):
            for check in ("system-status.status", "instance-status.status"):
                # By the filter the answer is nearly always empty; emulators ignore it, so it is looked at again.
                pages = self._client.get_paginator("describe_instance_status").paginate(
                    Filters=[{"Name": check, "Values": ["impaired"]}]
                )
                for page in pages:
                    for one in page["InstanceStatuses"]:
                        statuses = {one["SystemStatus"]["Status"], one["InstanceStatus"]["Status"]}
                        if "impaired" in statuses:
                            failing.add(one["InstanceId"])
        return frozenset(failing)

    @property
    def _client(self) -> "EC2Client":
        return self._clients.ec2


def _refusals() -> dict[str, Callable[[], Exception]]:
    return {code: lambda code=code: Refused(code) for code in CAPACITY_CODES}  # type: ignore[misc] # mypy#4226


def _ordering(doing: str) -> Any:
    return translated(
        doing,
        InvalidInstanceID_NotFound=NoSuchInstance,
        IncorrectInstanceState=lambda: WrongState(
            f"could not {doing}: one of them is on its way elsewhere; retry later"
        ),
        **_refusals(),
    )
