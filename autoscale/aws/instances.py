"""EC2's descriptions, our claims and the workers' reports, brought together: pure.

EC2 answers late: what was launched may not be shown yet, and what was ordered may show its old state. For a while the
claim is believed, then EC2.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from autoscale.observation import Instance, Power
from facerec.messages import Registration, WorkerReport


@dataclass(frozen=True, slots=True)
class Offer:
    """An instance type in a subnet; without one, in that of the launch template or of the default VPC."""

    instance_type: str
    subnet_id: str | None

    def __str__(self) -> str:
        """For people."""
        return self.instance_type + (f" in {self.subnet_id}" if self.subnet_id else "")


class Order(StrEnum):
    """What an instance was last told."""

    START = "start"
    STOP = "stop"
    TERMINATE = "terminate"


@dataclass(frozen=True, slots=True)
class Request:
    """One call of RunInstances: repeated with its token it must have the same parameters."""

    offer: Offer
    spot: bool
    template_version: str
    count: int


@dataclass(frozen=True, slots=True)
class Claim:
    """A number that is taken by an instance, or for one."""

    number: int
    token: str
    """The client token of the launch, shared by all that were launched at once."""
    made_at: float
    request: Request | None
    """Absent for an instance that was found without a claim."""
    instance_id: str | None = None
    """Absent until EC2 has confirmed it."""
    order: Order | None = None
    ordered_at: float = 0.0
    former_ready_at: float | None = None
    """When the worker of its life before the last start got ready, by its own clock: its reports may come late."""


if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import InstanceTypeDef

LAUNCH_TAG = "facerec:launch"
VERSION_TAG = "facerec:template-version"
"""AWS tags instances with the template's version itself, under a name that only AWS may write; emulators do not."""
_AWS_VERSION_TAG = "aws:ec2launchtemplate:version"
_NAME = re.compile(r"app-tier-instance-([1-9][0-9]{0,5})")
_REASON_TIME = re.compile(r"\((\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (?:GMT|UTC)\)")
LAG_SECONDS = 60.0
"""How long EC2's answers may lag behind an order; usually they do for some seconds."""
_CLOCKS_DIFFER_SECONDS = 600.0


def name_of(number: int) -> str:
    """The `Name` tag of an instance."""
    return f"app-tier-instance-{number}"


@dataclass(frozen=True, slots=True)
class Description:
    """One instance as EC2 describes it; times are seconds since the epoch."""

    instance_id: str
    power: Power | None
    """Absent when it is terminated."""
    launched_at: float
    stopped_at: float | None
    index: int
    """Its place in its launch."""
    token: str | None
    name: str | None
    spot: bool
    template_version: str | None

    @classmethod
    def of(cls, described: "InstanceTypeDef") -> "Description":
        """Read one instance of DescribeInstances or RunInstances."""
        tags = {tag["Key"]: tag["Value"] for tag in described.get("Tags", [])}
        state = described["State"]["Name"]
        stopped = _REASON_TIME.search(described.get("StateTransitionReason", ""))
        return cls(
            instance_id=described["InstanceId"],
            power=None if state == "terminated" else Power(state),
            launched_at=described["LaunchTime"].timestamp(),
            stopped_at=datetime.fromisoformat(stopped[1]).replace(tzinfo=UTC).timestamp() if stopped else None,
            index=described.get("AmiLaunchIndex", 0),
            token=tags.get(LAUNCH_TAG),
            name=tags.get("Name"),
            spot=described.get("InstanceLifecycle") == "spot",
            template_version=tags.get(_AWS_VERSION_TAG) or tags.get(VERSION_TAG),
        )


def in_launch_order(descriptions: Iterable[Description]) -> list[Description]:
    """Sorted by their place in their launch; emulators give every one the same, so by their ids, too."""
    return sorted(descriptions, key=lambda one: (one.index, one.instance_id))


def matched(claims: Sequence[Claim], described: Mapping[str, Description]) -> list[Claim]:
    """The claims, with the instances that EC2 shows for launches whose answer got lost."""
    known = {claim.instance_id for claim in claims}
    found: dict[str, list[Description]] = {}
    for one in in_launch_order(described.values()):
        if one.token is not None and one.instance_id not in known:
            found.setdefault(one.token, []).append(one)
    result = []
    for claim in claims:
        of_launch = found.get(claim.token)
        if claim.instance_id is None and of_launch:
            result.append(replace(claim, instance_id=of_launch.pop(0).instance_id))
        else:
            result.append(claim)
    return result


def unclaimed(claims: Sequence[Claim], described: Mapping[str, Description]) -> list[Claim]:
    """Claims for the instances of the fleet that have none: each the number of its name, or the lowest free one."""
    known = {claim.instance_id for claim in claims}
    taken = {claim.number for claim in claims}
    found = []
    for one in in_launch_order(described.values()):
        if one.instance_id in known or one.power is None:
            continue
        named = _NAME.fullmatch(one.name or "")
        number = int(named[1]) if named else 0
        if number in taken or not number:
            number = next(free for free in range(1, len(taken) + 2) if free not in taken)
        taken.add(number)
        token = f"found-{one.instance_id}"
        found.append(Claim(number, token, one.launched_at, request=None, instance_id=one.instance_id))
    return found


def instance_of(
    claim: Claim,
    seen: Description | None,
    registration: Registration | None,
    *,
    default_version: str | None,
    impaired: bool,
    now: float,
) -> Instance:
    """One instance of the fleet; `seen` is what EC2 last showed of it, if it ever did."""
    power = _power(claim, seen, now)
    since = _since(claim, seen, power)
    report = registration.report if registration is not None else None
    version = seen.template_version if seen is not None else claim.request and claim.request.template_version
    return Instance(
        number=claim.number,
        instance_id=claim.instance_id,
        power=power,
        since=since,
        worker=None if report is None or _of_former_life(report, claim, seen, power) else report,
        drain_ordered_at=registration.drain_ordered_at if registration is not None else None,
        spot=seen.spot if seen is not None else claim.request is not None and claim.request.spot,
        # Who fell back to stopped is, like an old version, not worth starting: another is launched instead.
        outdated=(None not in {version, default_version} and version != default_version)
        or (power is Power.STOPPED and _failed_to_start(claim, report)),
        # The checks are of what runs; they are read now and then only, so what was found may be of a former life.
        impaired=impaired and power is Power.RUNNING,
    )


def _of_former_life(report: WorkerReport, claim: Claim, seen: Description | None, power: Power) -> bool:
    """Whether the report comes from before the last start, or from before the stop.

    The worker's clock may be another than ours, and that of EC2 a third one: told by its own clock is the worker that
    we knew when we gave the order. Somebody else's start is told by a time that no two clocks differ by.
    """
    if power in {Power.STOPPING, Power.STOPPED} or report.ready_at == claim.former_ready_at:
        return True
    return seen is not None and report.reported_at < seen.launched_at - _CLOCKS_DIFFER_SECONDS


def _failed_to_start(claim: Claim, report: WorkerReport | None) -> bool:
    """Whether a stopped instance was last told to start and never got so far that its worker spoke.

    EC2 accepts a start before it knows whether there is room, or a key for the disk; then it only stops it again.
    """
    return claim.order is Order.START and (report is None or report.ready_at == claim.former_ready_at)


def _power(claim: Claim, seen: Description | None, now: float) -> Power:
    shown = Power.PENDING if seen is None or seen.power is None else seen.power
    if claim.order is None or now - claim.ordered_at > LAG_SECONDS:
        return shown
    if claim.order is Order.TERMINATE:
        return Power.SHUTTING_DOWN
    if claim.order is Order.STOP and shown in {Power.PENDING, Power.RUNNING}:
        return Power.STOPPING
    if claim.order is Order.START and shown in {Power.STOPPING, Power.STOPPED}:
        return Power.PENDING
    return shown


def _since(claim: Claim, seen: Description | None, power: Power) -> float:
    """When it was last launched, started or stopped.

    AWS tells the time of the last start as launch time, and that of a stop in words; emulators tell neither.
    """
    began = seen.launched_at if seen is not None else claim.made_at
    if power in {Power.STOPPING, Power.STOPPED}:
        if claim.order is Order.STOP:
            return claim.ordered_at
        return (seen.stopped_at if seen is not None else None) or began
    return max(began, claim.ordered_at) if claim.order is Order.START else began
