"""EC2's descriptions, our launch slots and the workers' reports, combined into instances: pure.

EC2's answers lag: a new instance may be missing in them, and an action may not be visible yet. For a while the launch
slot is believed, then EC2.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from autoscale.observation import Instance, Power
from autoscale.policy import ActionKind
from facerec.messages import WorkerRecord, WorkerReport

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import InstanceTypeDef

LAUNCH_TAG = "facerec:launch"
VERSION_TAG = "facerec:template-version"
"""AWS tags instances with the template's version itself, under a name that only AWS may write; emulators do not."""
_AWS_VERSION_TAG = "aws:ec2launchtemplate:version"
_NAME = re.compile(r"app-tier-instance-([1-9][0-9]{0,5})")
_REASON_TIME = re.compile(r"\((\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (?:GMT|UTC)\)")
LAG_SECONDS = 60.0
"""How long EC2's answers may lag behind an action; usually it is some seconds."""
UNSEEN_SECONDS = 300.0
"""After so long without its instance in EC2's answers a slot is void; AWS shows new instances within seconds."""
_FORGOTTEN_BY_EC2_SECONDS = 5.0
"""The same for a slot that is already older, and whose instance this process has never seen."""
_CLOCKS_DIFFER_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class CapacityPool:
    """An instance type in a subnet; without one, in that of the launch template or of the default VPC."""

    instance_type: str
    subnet_id: str | None

    def __str__(self) -> str:
        """Describe the pool for people."""
        return self.instance_type + (f" in {self.subnet_id}" if self.subnet_id else "")


@dataclass(frozen=True, slots=True)
class LaunchRequest:
    """The parameters of one RunInstances call: repeated with its token, it must have the same."""

    pool: CapacityPool
    spot: bool
    template_version: str
    count: int


@dataclass(frozen=True, slots=True)
class LaunchSlot:
    """A number that is taken by an instance, or for one."""

    number: int
    token: str
    """The client token of the launch, shared by all instances of that launch."""
    made_at: float
    request: LaunchRequest | None
    """Absent for an instance that was found without a slot."""
    instance_id: str | None = None
    """Absent until EC2 has confirmed it."""
    action: ActionKind | None = None
    """The latest start, stop or termination."""
    acted_at: float = 0.0
    former_ready_at: float | None = None
    """When the worker before the last start got ready, by its own clock: its reports may come late."""


def name_of(number: int) -> str:
    """Return the `Name` tag of an instance."""
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
        """Read one instance of DescribeInstances or RunInstances.

        An instance in an unknown state counts as running, because it may be billed and work; without a launch time, it
        counts as launched long ago.
        """
        tags = {tag["Key"]: tag.get("Value") for tag in described.get("Tags", [])}
        state: str = described.get("State", {}).get("Name", "")
        launched = described.get("LaunchTime")
        return cls(
            instance_id=described["InstanceId"],
            power=None if state == "terminated" else Power(state) if state in set(Power) else Power.RUNNING,
            launched_at=0.0 if launched is None else launched.timestamp(),
            stopped_at=_time_of(described.get("StateTransitionReason", "")),
            index=described.get("AmiLaunchIndex", 0),
            token=tags.get(LAUNCH_TAG),
            name=tags.get("Name"),
            spot=described.get("InstanceLifecycle") == "spot",
            template_version=tags.get(_AWS_VERSION_TAG) or tags.get(VERSION_TAG),
        )


def _time_of(reason: str) -> float | None:
    """Return the time in EC2's reason for a stop, in seconds since the epoch."""
    found = _REASON_TIME.search(reason)
    try:
        return None if found is None else datetime.fromisoformat(found[1]).replace(tzinfo=UTC).timestamp()
    except ValueError:  # digits that are no date
        return None


def in_launch_order(descriptions: Iterable[Description]) -> list[Description]:
    """Sort by the place in the launch, then by id: emulators give every instance the same place."""
    return sorted(descriptions, key=lambda description: (description.index, description.instance_id))


def matched(slots: Sequence[LaunchSlot], described: Mapping[str, Description]) -> list[LaunchSlot]:
    """Return the slots, with the instances that EC2 shows for launches whose answer was lost."""
    known = {slot.instance_id for slot in slots}
    found: dict[str, list[Description]] = {}
    for description in in_launch_order(described.values()):
        if description.token is not None and description.instance_id not in known:
            found.setdefault(description.token, []).append(description)
    result = []
    for slot in slots:
        of_launch = found.get(slot.token)
        if slot.instance_id is None and of_launch:
            result.append(replace(slot, instance_id=of_launch.pop(0).instance_id))
        else:
            result.append(slot)
    return result


def unclaimed(slots: Sequence[LaunchSlot], described: Mapping[str, Description]) -> list[LaunchSlot]:
    """Make slots for instances of the fleet that have none: by their names, or with the lowest free numbers."""
    known = {slot.instance_id for slot in slots}
    taken = {slot.number for slot in slots}
    found = []
    for description in in_launch_order(described.values()):
        if description.instance_id in known or description.power is None:
            continue
        named = _NAME.fullmatch(description.name or "")
        number = int(named[1]) if named else 0
        if number in taken or not number:
            number = next(free for free in range(1, len(taken) + 2) if free not in taken)
        taken.add(number)
        token = f"found-{description.instance_id}"
        found.append(
            LaunchSlot(number, token, description.launched_at, request=None, instance_id=description.instance_id)
        )
    return found


class Sightings:
    """What EC2 last showed of each instance, and since when it shows others no more."""

    def __init__(self) -> None:
        self.latest: dict[str, Description] = {}
        self._unseen_since: dict[tuple[str, int], float] = {}

    def find_gone(
        self, slots: Iterable[LaunchSlot], described: Mapping[str, Description], now: float, clock: float
    ) -> list[LaunchSlot]:
        """Return the slots whose instance is terminated, or was not shown for long.

        EC2's answers may lack a known instance for a moment. An instance that is old and that this process has never
        seen was forgotten by EC2 long ago.
        """
        unseen, gone = {}, []
        for slot in slots:
            seen, key = described.get(slot.instance_id or ""), (slot.token, slot.number)
            if seen is not None:
                if seen.power is None:
                    gone.append(slot)
                continue
            unseen[key] = self._unseen_since.get(key, clock)
            old = now - slot.made_at > UNSEEN_SECONDS and slot.instance_id is not None
            forgotten = old and slot.instance_id not in self.latest
            if clock - unseen[key] > (_FORGOTTEN_BY_EC2_SECONDS if forgotten else UNSEEN_SECONDS):
                gone.append(slot)
        self._unseen_since = unseen
        return gone

    def keep(self, slots: Iterable[LaunchSlot], described: Mapping[str, Description]) -> None:
        """Remember what EC2 shows of these slots' instances, and forget all others."""
        ids = {slot.instance_id for slot in slots}
        self.latest = {
            name: description for name, description in (self.latest | dict(described)).items() if name in ids
        }


def instance_of(
    slot: LaunchSlot,
    seen: Description | None,
    record: WorkerRecord | None,
    *,
    default_version: str | None,
    impaired: bool,
    now: float,
) -> Instance:
    """Combine what is known of one instance; `seen` is what EC2 last showed of it, if anything."""
    power = _power(slot, seen, now)
    since = _since(slot, seen, power)
    report = record.report if record is not None else None
    stopped = power in {Power.STOPPING, Power.STOPPED}
    version = seen.template_version if seen is not None else slot.request and slot.request.template_version
    return Instance(
        number=slot.number,
        instance_id=slot.instance_id,
        power=power,
        since=since,
        report=None if report is None or _of_former_life(report, slot, seen, power) else report,
        drain_ordered_at=record.drain_ordered_at if record is not None else None,
        spot=seen.spot if seen is not None else slot.request is not None and slot.request.spot,
        # An instance that failed to start is not worth another start: a new one is launched instead.
        outdated=(None not in {version, default_version} and version != default_version)
        or (power is Power.STOPPED and _failed_to_start(slot, report)),
        # The checks are read now and then: an older result may be of the time before a stop.
        impaired=impaired and power is Power.RUNNING,
        report_unreadable=record is not None and record.unreadable and not stopped,
    )


def _of_former_life(report: WorkerReport, slot: LaunchSlot, seen: Description | None, power: Power) -> bool:
    """Whether the report comes from before the last start, or from before the stop.

    The clocks of the worker, of EC2 and of this process may differ. The worker before our own start is recognised by
    its own clock; for another's start the report must be older by more than clocks differ.
    """
    if power in {Power.STOPPING, Power.STOPPED} or report.ready_at == slot.former_ready_at:
        return True
    return seen is not None and report.reported_at < seen.launched_at - _CLOCKS_DIFFER_SECONDS


def _failed_to_start(slot: LaunchSlot, report: WorkerReport | None) -> bool:
    """Whether a stopped instance was last started by us, and its worker has not reported since.

    EC2 accepts a start before it knows whether it has room, or a key for the disk; then it stops the instance again.
    """
    return slot.action is ActionKind.START and (report is None or report.ready_at == slot.former_ready_at)


def _power(slot: LaunchSlot, seen: Description | None, now: float) -> Power:
    shown = Power.PENDING if seen is None or seen.power is None else seen.power
    if slot.action is None or now - slot.acted_at > LAG_SECONDS:
        return shown
    if slot.action is ActionKind.TERMINATE:
        return Power.SHUTTING_DOWN
    if slot.action is ActionKind.STOP and shown in {Power.PENDING, Power.RUNNING}:
        return Power.STOPPING
    if slot.action is ActionKind.START and shown in {Power.STOPPING, Power.STOPPED}:
        return Power.PENDING
    return shown


def _since(slot: LaunchSlot, seen: Description | None, power: Power) -> float:
    """When it was last launched, started or stopped.

    AWS returns the time of the last start as launch time, and that of a stop in a sentence; emulators return neither.
    """
    began = seen.launched_at if seen is not None else slot.made_at
    if power in {Power.STOPPING, Power.STOPPED}:
        if slot.action is ActionKind.STOP:
            return slot.acted_at
        return (seen.stopped_at if seen is not None else None) or began
    return max(began, slot.acted_at) if slot.action is ActionKind.START else began
