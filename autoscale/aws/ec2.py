"""The fleet's calls of EC2, each with its errors translated, and the capacity pools that launches choose from."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from autoscale.aws.instances import (
    LAUNCH_TAG,
    VERSION_TAG,
    CapacityPool,
    Description,
    LaunchRequest,
    in_launch_order,
)
from facerec.aws.clients import Clients, translated
from facerec.errors import ConfigurationError, InsufficientCapacity, Transient
from facerec.messages import FLEET_TAG
from facerec.settings import Settings
from facerec.text import counted

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
"""EC2's codes for a shortage: another type, zone or time may help (`Unsupported`: not in this zone)."""
SKIP_SECONDS = 120.0
"""EC2's shortages last minutes; another pool is quicker than a retry."""
_LONGEST_SKIP_SECONDS = 960.0


class Refused(InsufficientCapacity):
    """EC2 has no capacity; `code` is its reason."""

    def __init__(self, code: str) -> None:
        super().__init__(f"EC2 has no capacity ({code})")
        self.code = code


class NoSuchInstance(Transient):
    """EC2 does not know one of the instances: it has ended, or is too new."""

    def __init__(self) -> None:
        super().__init__("EC2 does not know the instance (yet, or any more)")


class WrongState(Transient):
    """An instance changes its state, so that the action does not apply."""


class Ec2:
    """The instances of one fleet, found by their tag, and their launch template."""

    def __init__(self, clients: Clients, settings: Settings) -> None:
        self._clients = clients
        self._fleet = settings.prefix
        self._template = settings.launch_template

    def describe(self) -> dict[str, Description]:
        """Return every instance of the fleet that EC2 shows, terminated ones included, by id."""
        with translated("describe the fleet's instances"):
            pages = self._client.get_paginator("describe_instances").paginate(
                Filters=[{"Name": f"tag:{FLEET_TAG}", "Values": [self._fleet]}], PaginationConfig={"PageSize": 1000}
            )
            shown = [
                Description.of(instance)
                for page in pages
                for reservation in page["Reservations"]
                for instance in reservation["Instances"]
            ]
        return {description.instance_id: description for description in shown}

    def run(self, token: str, request: LaunchRequest) -> list[Description]:
        """Launch one to `request.count` instances; a repeated token returns what its first call launched.

        Raises `Refused`. After any other `Transient` the outcome is unknown.
        """
        tags = {FLEET_TAG: self._fleet, LAUNCH_TAG: token, VERSION_TAG: request.template_version}
        parameters: Any = {
            "MinCount": 1,
            "MaxCount": request.count,
            "ClientToken": token,
            "LaunchTemplate": {"LaunchTemplateName": self._template, "Version": request.template_version},
            "InstanceType": request.pool.instance_type,
            "TagSpecifications": [
                {"ResourceType": "instance", "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}
            ],
        }
        if request.pool.subnet_id is not None:
            parameters["SubnetId"] = request.pool.subnet_id
        if request.spot:
            parameters["InstanceMarketOptions"] = {"MarketType": "spot"}
        with translated(f"launch {counted(request.count, 'instance')} of {request.pool}", **_refusals()):
            launched = self._client.run_instances(**parameters)["Instances"]
        return in_launch_order(map(Description.of, launched))

    def start(self, instance_ids: Sequence[str]) -> None:
        """Start stopped instances, all or none; raises `Refused`, `NoSuchInstance` and `WrongState`."""
        with _action_errors("start instances"):
            self._client.start_instances(InstanceIds=instance_ids)

    def stop(self, instance_ids: Sequence[str]) -> None:
        """Stop instances, all or none; raises `NoSuchInstance` and `WrongState`."""
        with _action_errors("stop instances"):
            self._client.stop_instances(InstanceIds=instance_ids)

    def terminate(self, instance_ids: Sequence[str]) -> None:
        """Terminate instances, all or none; raises `NoSuchInstance` and `WrongState`."""
        with _action_errors("terminate instances"):
            self._client.terminate_instances(InstanceIds=instance_ids)

    def name(self, instance_id: str, name: str) -> None:
        """Set the `Name` tag; raises `NoSuchInstance`."""
        with _action_errors("name an instance"):
            self._client.create_tags(Resources=[instance_id], Tags=[{"Key": "Name", "Value": name}])

    def default_version(self) -> str:
        """Return the launch template's default version; raises `ConfigurationError` without a template."""
        missing = ConfigurationError(
            f"there is no launch template {self._template!r}; set FACEREC_INSTANCES__IMAGE_ID and run "
            "`facerec provision`"
        )
        unknown = {"InvalidLaunchTemplateName_NotFoundException": lambda: missing}
        with translated(f"read launch template {self._template!r}", **unknown):
            found = self._client.describe_launch_templates(LaunchTemplateNames=[self._template])["LaunchTemplates"]
        if not found:  # the answer of emulators
            raise missing
        return str(found[0]["DefaultVersionNumber"])

    def impaired(self) -> frozenset[str]:
        """Return the instances that fail a status check, also those of others."""
        failing = set()
        with translated("read the status of instances"):
            for check in ("system-status.status", "instance-status.status"):
                # With the filter the answer is nearly always empty; emulators ignore it, so the status is checked here.
                pages = self._client.get_paginator("describe_instance_status").paginate(
                    Filters=[{"Name": check, "Values": ["impaired"]}]
                )
                for page in pages:
                    for shown in page["InstanceStatuses"]:
                        checks = (shown.get("SystemStatus", {}), shown.get("InstanceStatus", {}))
                        if "impaired" in {found.get("Status") for found in checks}:
                            failing.add(shown["InstanceId"])
        return frozenset(failing)

    @property
    def _client(self) -> "EC2Client":
        return self._clients.ec2


def _refusals() -> dict[str, Callable[[], Exception]]:
    return {code: lambda code=code: Refused(code) for code in CAPACITY_CODES}  # type: ignore[misc] # mypy#4226


def _action_errors(doing: str) -> Any:
    return translated(
        doing,
        InvalidInstanceID_NotFound=NoSuchInstance,
        IncorrectInstanceState=lambda: WrongState(f"could not {doing}: one of them changes its state; retry later"),
        **_refusals(),
    )


@dataclass(slots=True)
class _Skip:
    until: float
    seconds: float
    code: str


class CapacityPools:
    """The pools in the order of preference; `clock` is monotonic, in seconds.

    A pool without capacity is skipped for two minutes, and twice as long each time that it still has none.
    """

    def __init__(
        self, types: Sequence[str], subnet_ids: Sequence[str], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._pools = [CapacityPool(kind, subnet) for kind, subnet in product(types, subnet_ids or (None,))]
        self._clock = clock
        self._skips: dict[CapacityPool, _Skip] = {}

    def best(self) -> CapacityPool:
        """Return the first pool that is not skipped; raises `InsufficientCapacity` if all are."""
        found = next((pool for pool in self._pools if self._skip_seconds(pool) <= 0), None)
        if found is None:
            tried = ", ".join(f"{pool} ({skip.code})" for pool, skip in self._skips.items())
            soonest = min((self._skip_seconds(pool) for pool in self._pools), default=0.0)
            raise InsufficientCapacity(
                f"EC2 has no instance of {tried}; it is asked again in {max(0.0, soonest):.0f} s; offer more with "
                "FACEREC_INSTANCES__TYPES or FACEREC_INSTANCES__SUBNET_IDS, or raise the account's quota"
            )
        return found

    def refuse(self, pool: CapacityPool, code: str) -> None:
        """Skip the pool for a time: EC2 had no instance there."""
        last = self._skips.get(pool)
        seconds = SKIP_SECONDS if last is None else min(2 * last.seconds, _LONGEST_SKIP_SECONDS)
        self._skips[pool] = _Skip(self._clock() + seconds, seconds, code)

    def accept(self, pool: CapacityPool) -> None:
        """Forget the pool's shortages: EC2 had an instance there."""
        self._skips.pop(pool, None)

    def _skip_seconds(self, pool: CapacityPool) -> float:
        skip = self._skips.get(pool)
        return 0.0 if skip is None else skip.until - self._clock()
