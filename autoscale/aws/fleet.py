"""The app tier's instances on EC2: readings, repairs and actions, safe against crashes and late answers."""

import time
import uuid
from collections.abc import Callable, Collection, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace

import structlog

from autoscale.aws import CachedReading
from autoscale.aws.ec2 import CapacityPools, Ec2, NoSuchInstance, Refused, WrongState
from autoscale.aws.instances import (
    UNSEEN_SECONDS,
    Description,
    LaunchRequest,
    LaunchSlot,
    Sightings,
    instance_of,
    matched,
    name_of,
    unclaimed,
)
from autoscale.aws.launch_slots import BATCH, LaunchSlots
from autoscale.aws.lease import DynamoLease
from autoscale.observation import Instance
from autoscale.policy import ActionKind
from facerec.errors import ConfigurationError, FacerecError, InsufficientCapacity, Throttled, Transient
from facerec.ports import WorkerReports
from facerec.text import counted

log = structlog.get_logger(__name__)

_CACHED_SECONDS = 15.0
"""EC2's status checks run every minute; the default version of a template changes with a release."""
_REPEAT_SECONDS = 5.0
"""Between two tries of a launch with an unknown outcome."""
_NAMES_AT_ONCE = 20
"""Each name is a request of its own: the others wait for the next repair."""
_FOR_ONE = (NoSuchInstance, Refused, WrongState)
"""With these errors EC2 refuses an action on several instances because of one."""
_NOT_DONE = (*_FOR_ONE, Throttled, ConfigurationError)
"""After any other error it is unknown whether EC2 has carried the action out."""


@dataclass(frozen=True, slots=True)
class _Reading:
    """What `instances` read last, for `repair`."""

    changed: list[LaunchSlot] = field(default_factory=list)
    """Slots whose instance EC2 shows, though the answer to the launch was lost."""
    slots: list[LaunchSlot] = field(default_factory=list)
    found: list[LaunchSlot] = field(default_factory=list)
    """New slots for instances without one."""
    gone: list[LaunchSlot] = field(default_factory=list)
    described: Mapping[str, Description] = field(default_factory=dict)


class Ec2Fleet:
    """`Fleet` on EC2; `now` is in seconds since the epoch, `clock` monotonic. Not to be shared by threads."""

    def __init__(
        self,
        ec2: Ec2,
        slots: LaunchSlots,
        lease: DynamoLease,
        reports: WorkerReports,
        pools: CapacityPools,
        *,
        spot: bool = False,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ec2 = ec2
        self._slots = slots
        self._lease = lease
        self._reports = reports
        self._pools = pools
        self._spot = spot
        self._now = now
        self._clock = clock
        self._version: CachedReading[str | None] = CachedReading(
            "launch_template", ec2.default_version, fallback=None, every_seconds=_CACHED_SECONDS, clock=clock
        )
        self._impaired: CachedReading[frozenset[str]] = CachedReading(
            "status_checks", ec2.impaired, fallback=frozenset(), every_seconds=_CACHED_SECONDS, clock=clock
        )
        self._sightings = Sightings()
        self._reading = _Reading()
        self._repeated: dict[str, float] = {}
        self._named: dict[str, int] = {}
        """Names given; EC2 may show an instance without its name for a moment."""
        self._names_left = _NAMES_AT_ONCE

    def instances(self) -> tuple[Instance, ...]:
        """Read the launch slots, EC2 and the workers' reports."""
        now, written = self._now(), self._slots.all()
        described = self._ec2.describe()
        slots = matched(written, described)
        found = unclaimed(slots, described)
        gone = self._sightings.find_gone(slots, described, now, self._clock())
        left = [slot for slot in slots if slot not in gone]
        unchanged = set(written)
        changed = [slot for slot in left if slot not in unchanged]
        self._reading = _Reading(changed, left, found, gone, described)
        known = sorted([*left, *found], key=lambda slot: slot.number)
        records = self._reports.records(slot.instance_id for slot in known if slot.instance_id is not None)
        self._sightings.keep(known, described)
        version, impaired = self._version.value(), self._impaired.value()
        if impaired & {slot.instance_id for slot in known}:  # the checks may have passed since
            impaired = self._impaired.refresh()
        return tuple(
            instance_of(
                slot,
                self._sightings.latest.get(slot.instance_id or ""),
                records.get(slot.instance_id or ""),
                default_version=version,
                impaired=slot.instance_id in impaired,
                now=now,
            )
            for slot in known
        )

    def repair(self) -> None:
        """Repair what crashes and late answers left behind, by the latest reading; raises `LeaseLost`."""
        self._lease.raise_if_expired()
        reading, self._reading = self._reading, _Reading()
        self._slots.update(reading.changed, gone=reading.gone)
        slots = self._repeat_launches([*reading.slots, *self._slots.take(reading.found)])
        known = {slot.instance_id for slot in slots}
        self._names_left = _NAMES_AT_ONCE
        self._named = {name: number for name, number in self._named.items() if name in known}
        self._give_names(slots, reading.described)
        for slot in reading.gone:
            if slot.instance_id is not None:
                self._reports.forget(slot.instance_id)

    def launch(self, numbers: Sequence[int]) -> None:
        """Take slots, then ask EC2, pool by pool until all have an instance or no pool is left."""
        version = self._version.value() or self._ec2.default_version()
        wanted = sorted(set(numbers))
        while wanted:
            batch, wanted = wanted[:BATCH], wanted[BATCH:]
            request = LaunchRequest(self._pools.best(), self._spot, version, len(batch))
            token, now = str(uuid.uuid4()), self._now()
            slots = self._slots.take([LaunchSlot(number, token, now, request) for number in batch])
            if slots:
                wanted = [*self._run_instances(slots), *wanted]
            if wanted:
                self._lease.renew_or_raise()  # a large launch takes long

    def start(self, instance_ids: Sequence[str]) -> None:
        """Forget former reports and orders to drain, record the start, so that the instances count, then start."""
        slots = self._read_slots(instance_ids)
        self._slots.confirm_lease()
        records = self._reports.records(str(slot.instance_id) for slot in slots)
        started = []
        for slot in slots:
            self._reports.forget(str(slot.instance_id))
            known = records.get(str(slot.instance_id))
            former = slot.former_ready_at if known is None or known.report is None else known.report.ready_at
            started.append(replace(slot, action=ActionKind.START, acted_at=self._now(), former_ready_at=former))
        self._slots.announce(started)
        failed = self._call_for_each(self._ec2.start, slots)
        refused = {slot: exc for slot, exc in failed.items() if isinstance(exc, _NOT_DONE)}
        self._slots.update(list(refused))  # the others may be starting, so that they count
        _raise_other(failed)
        codes = {exc.code for exc in refused.values() if isinstance(exc, Refused)}
        if codes:
            instances = counted(len(refused), "stopped instance")
            raise InsufficientCapacity(f"EC2 has no capacity to start {instances} ({', '.join(codes)}); retry later")

    def drain(self, instance_ids: Sequence[str], now: float) -> None:
        """Write the order where the workers read it."""
        for slot in self._read_slots(instance_ids):
            self._reports.order_drain(str(slot.instance_id), now)

    def resume(self, instance_ids: Sequence[str]) -> None:
        """Delete the order to drain."""
        for slot in self._read_slots(instance_ids):
            self._reports.cancel_drain(str(slot.instance_id))

    def stop(self, instance_ids: Sequence[str]) -> None:
        """Stop; the numbers stay taken."""
        self._end(instance_ids, ActionKind.STOP, self._ec2.stop)

    def terminate(self, instance_ids: Sequence[str]) -> None:
        """Terminate; a number is free again when EC2 shows that its instance has ended."""
        missing = self._end(instance_ids, ActionKind.TERMINATE, self._ec2.terminate)
        # EC2 may not know an instance because it is new: its slot stays, and it is terminated again later.
        gone = [slot for slot in missing if self._now() - slot.made_at > UNSEEN_SECONDS]
        self._slots.update(gone=gone)
        for slot in gone:
            self._reports.forget(str(slot.instance_id))

    def _end(
        self, instance_ids: Sequence[str], kind: ActionKind, call: Callable[[Sequence[str]], None]
    ) -> Collection[LaunchSlot]:
        """Call EC2, then record the action: until then the instances count. Returns those for which it failed."""
        slots = self._read_slots(instance_ids)
        self._slots.confirm_lease()
        for index, slot in enumerate(slots, 1):
            # The worker's process ends only seconds later; until then it must not take tasks.
            self._lease.raise_if_expired()
            self._reports.order_drain(str(slot.instance_id), self._now())
            if index % BATCH == 0:
                self._lease.renew_or_raise()

        def call_if_held(ids: Sequence[str]) -> None:
            self._lease.raise_if_expired()
            call(ids)

        failed = self._call_for_each(call_if_held, slots)
        ended = [slot for slot in slots if slot not in failed]
        self._slots.update([replace(slot, action=kind, acted_at=self._now()) for slot in ended])
        _raise_other(failed)
        return failed

    def _run_instances(self, slots: list[LaunchSlot], known: Container[str | None] = ()) -> list[int]:
        """Launch all slots by one request; returns the numbers for which EC2 had no instance, free again.

        A repeated request returns all instances of its first call, among them `known` ones.
        """
        self._lease.raise_if_expired()
        token, request = slots[0].token, slots[0].request
        if request is None:
            return []
        try:
            launched = [shown for shown in self._ec2.run(token, request) if shown.instance_id not in known]
        except Refused as exc:
            self._pools.refuse(request.pool, exc.code)
            self._slots.update(gone=slots)
            return [slot.number for slot in slots]
        except ConfigurationError:
            self._slots.update(gone=slots)
            raise
        self._pools.accept(request.pool)
        filled = [replace(slot, instance_id=shown.instance_id) for slot, shown in zip(slots, launched, strict=False)]
        left = slots[len(filled) :]
        self._slots.update(filled, gone=left)
        self._give_names(filled, {shown.instance_id: shown for shown in launched})
        return [slot.number for slot in left]

    def _repeat_launches(self, slots: list[LaunchSlot]) -> list[LaunchSlot]:
        """Repeat the launches with an unknown outcome; returns all slots. With their token they cannot launch twice."""
        unknown: dict[str, list[LaunchSlot]] = {}
        for slot in slots:
            if slot.instance_id is None:
                unknown.setdefault(slot.token, []).append(slot)
        self._repeated = {token: at for token, at in self._repeated.items() if token in unknown}
        known = {slot.instance_id for slot in slots}
        repeated = False
        for token, of_launch in unknown.items():
            if self._clock() - self._repeated.get(token, -_REPEAT_SECONDS) < _REPEAT_SECONDS:
                continue
            self._repeated[token], repeated = self._clock(), True
            numbers = [slot.number for slot in of_launch]
            log.warning("launch_repeated", numbers=numbers, first_try_at=of_launch[0].made_at)
            try:
                self._run_instances(of_launch, known)
            except (Transient, ConfigurationError) as exc:
                log.warning("launch_not_completed", reason=str(exc))
        return self._slots.all() if repeated else slots

    def _give_names(self, slots: Sequence[LaunchSlot], described: Mapping[str, Description]) -> None:
        """Give instances their names; those that EC2 does not know yet are named later."""
        for slot in slots:
            seen, name = described.get(slot.instance_id or ""), name_of(slot.number)
            if seen is None or seen.name == name or self._named.get(seen.instance_id) == slot.number:
                continue
            if not self._names_left:
                return
            self._names_left -= 1
            try:
                self._ec2.name(seen.instance_id, name)
            except FacerecError as exc:
                log.info("instance_not_named", instance_id=seen.instance_id, number=slot.number, reason=str(exc))
            else:
                self._named[seen.instance_id] = slot.number

    def _read_slots(self, instance_ids: Sequence[str]) -> list[LaunchSlot]:
        """Read the slots of those instances again; instances without a slot are never touched."""
        wanted = set(instance_ids)
        slots = [slot for slot in self._slots.all() if slot.instance_id in wanted] if wanted else []
        for stranger in wanted - {slot.instance_id for slot in slots}:
            log.warning("instance_not_of_the_fleet", instance_id=stranger)
        return slots

    def _call_for_each(
        self, call: Callable[[Sequence[str]], None], slots: Sequence[LaunchSlot]
    ) -> dict[LaunchSlot, FacerecError]:
        """Call EC2 for all at once, or for each alone if EC2 refuses it because of one; returns the failures."""
        if not slots:
            return {}
        try:
            call([str(slot.instance_id) for slot in slots])
        except FacerecError as exc:
            if len(slots) == 1 or not isinstance(exc, _FOR_ONE):
                return dict.fromkeys(slots, exc)
            return {failed: why for slot in slots for failed, why in self._call_for_each(call, [slot]).items()}
        return {}


def _raise_other(failed: Mapping[LaunchSlot, FacerecError]) -> None:
    """Raise a failure that is neither a shortage nor a missing instance."""
    for exc in failed.values():
        if not isinstance(exc, (NoSuchInstance, Refused)):
            raise exc
