"""The autoscaler's ports in memory, held to the real ones' behaviour by tests/contracts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from autoscale.observation import Instance, Power
from facerec.errors import FacerecError, InsufficientCapacity, LeaseLost
from facerec.fleet_records import QueueDepth, RoundRecord
from facerec.messages import WorkerReport
from facerec.ports import WorkerReports


class InMemoryBacklog:
    """`Backlog` with counts to be set; while `outage` is set it is raised."""

    def __init__(self, visible: int = 0, in_flight: int = 0, delayed: int = 0) -> None:
        self.counts = QueueDepth(visible, in_flight, delayed)
        self.outage: FacerecError | None = None

    def depth(self) -> QueueDepth:
        if self.outage is not None:
            raise self.outage
        return self.counts


@dataclass
class LeaseItem:
    """What several `InMemoryLease` contend for."""

    owner: "InMemoryLease | None" = None
    renewals: int = 0
    outage: FacerecError | None = None


class InMemoryLease:
    """`Lease` on an item in memory; `clock` is monotonic, in seconds."""

    def __init__(self, item: LeaseItem, *, lease_seconds: float, clock: Callable[[], float]) -> None:
        self._item = item
        self._lease_seconds = lease_seconds
        self._clock = clock
        self._held_until = -float("inf")
        self._seen: int | None = None
        self._seen_at = 0.0

    @property
    def held(self) -> bool:
        """Whether the lease is ours for all that this process knows."""
        return self._clock() < self._held_until

    def acquire_or_renew(self) -> bool:
        item, now = self._item, self._clock()
        if item.outage is not None:
            raise item.outage
        if item.owner not in {None, self}:
            self._held_until = -float("inf")
            if item.renewals != self._seen:
                self._seen, self._seen_at = item.renewals, now
            if now - self._seen_at < self._lease_seconds:
                return False
        item.owner, item.renewals = self, item.renewals + 1
        self._held_until = now + self._lease_seconds
        return True

    def release(self) -> None:
        self._held_until = -float("inf")
        if self._item.owner is self:
            self._item.owner = None


@dataclass
class InMemoryHistory:
    """`FleetHistory` in a list; while `outage` is set it is raised."""

    kept: list[RoundRecord] = field(default_factory=list)
    outage: FacerecError | None = None

    def record(self, record: RoundRecord) -> None:
        self.kept.append(record)

    def latest(self, until: float) -> RoundRecord | None:
        if self.outage is not None:
            raise self.outage
        return max((record for record in self.kept if record.at <= until), key=lambda record: record.at, default=None)

    def records(self, since: float) -> Sequence[RoundRecord]:
        if self.outage is not None:
            raise self.outage
        return sorted((record for record in self.kept if record.at >= since), key=lambda record: record.at)


@dataclass
class Machine:
    """One simulated instance; times are seconds since the epoch."""

    number: int
    instance_id: str
    power: Power
    since: float
    confirmed_at: float
    spot: bool = False
    outdated: bool = False
    impaired: bool = False
    former_ready_at: float | None = None
    """Of the worker that was known at the last start: its reports no longer count."""


class InMemoryFleet:
    """`Fleet` of simulated instances, whose power states follow the orders by the injected clock.

    `capacity` is how many more EC2 has (absent: any number); `lease_lost` makes orders fail as for an autoscaler that
    was replaced; while `outage` is set every call raises it. `machines` may be changed from outside, as EC2 does.
    """

    def __init__(
        self,
        reports: WorkerReports,
        now: Callable[[], float],
        *,
        pending_seconds: float = 0.0,
        stopping_seconds: float = 0.0,
        confirm_seconds: float = 0.0,
        spot: bool = False,
    ) -> None:
        self._reports = reports
        self._now = now
        self._pending_seconds = pending_seconds
        self._stopping_seconds = stopping_seconds
        self._confirm_seconds = confirm_seconds
        self._spot = spot
        self._launched = 0
        self.machines: list[Machine] = []
        self.capacity: int | None = None
        self.lease_lost = False
        self.outage: FacerecError | None = None

    def instances(self) -> tuple[Instance, ...]:
        self._check()
        now = self._now()
        for machine in list(self.machines):
            self._move_on(machine, now - machine.since)
        records = self._reports.records(machine.instance_id for machine in self.machines)
        found = []
        for machine in sorted(self.machines, key=lambda machine: machine.number):
            record = records.get(machine.instance_id)
            report = record.report if record is not None else None
            found.append(
                Instance(
                    number=machine.number,
                    instance_id=machine.instance_id if now >= machine.confirmed_at else None,
                    power=machine.power,
                    since=machine.since,
                    report=None if report is None or self._of_former_life(report, machine) else report,
                    drain_ordered_at=record.drain_ordered_at if record is not None else None,
                    spot=machine.spot,
                    outdated=machine.outdated,
                    impaired=machine.impaired,
                    report_unreadable=record is not None and record.unreadable,
                )
            )
        return tuple(found)

    def repair(self) -> None:
        self._check(writing=True)

    def launch(self, numbers: Sequence[int]) -> None:
        self._check(writing=True)
        now = self._now()
        for number in sorted(set(numbers) - {machine.number for machine in self.machines}):
            self._take_capacity()
            self._launched += 1
            self.machines.append(
                Machine(
                    number=number,
                    instance_id=f"i-{self._launched:017x}",
                    power=Power.PENDING,
                    since=now,
                    confirmed_at=now + self._confirm_seconds,
                    spot=self._spot,
                )
            )

    def start(self, instance_ids: Sequence[str]) -> None:
        self._check(writing=True)
        for machine in self._ours(instance_ids):
            if machine.power is Power.STOPPED:
                self._take_capacity()
                record = self._reports.records([machine.instance_id]).get(machine.instance_id)
                if record is not None and record.report is not None:
                    machine.former_ready_at = record.report.ready_at
                self._reports.forget(machine.instance_id)
                machine.power, machine.since = Power.PENDING, self._now()

    def drain(self, instance_ids: Sequence[str], now: float) -> None:
        self._check()
        for machine in self._ours(instance_ids):
            self._reports.order_drain(machine.instance_id, now)

    def resume(self, instance_ids: Sequence[str]) -> None:
        self._check()
        for machine in self._ours(instance_ids):
            self._reports.cancel_drain(machine.instance_id)

    def stop(self, instance_ids: Sequence[str]) -> None:
        self._end(instance_ids, {Power.PENDING, Power.RUNNING}, Power.STOPPING)

    def terminate(self, instance_ids: Sequence[str]) -> None:
        self._end(instance_ids, set(Power) - {Power.SHUTTING_DOWN}, Power.SHUTTING_DOWN)

    def _end(self, instance_ids: Sequence[str], ending: set[Power], power: Power) -> None:
        self._check(writing=True)
        for machine in self._ours(instance_ids):
            self._reports.order_drain(machine.instance_id, self._now())
            if machine.power in ending:
                machine.power, machine.since = power, self._now()

    def _move_on(self, machine: Machine, seconds: float) -> None:
        if machine.power is Power.PENDING and seconds >= self._pending_seconds:
            machine.power = Power.RUNNING
        elif machine.power is Power.STOPPING and seconds >= self._stopping_seconds:
            machine.power = Power.STOPPED
        elif machine.power is Power.SHUTTING_DOWN and seconds >= self._stopping_seconds:
            self.machines.remove(machine)
            self._reports.forget(machine.instance_id)

    def _ours(self, instance_ids: Sequence[str]) -> list[Machine]:
        return [machine for machine in self.machines if machine.instance_id in instance_ids]

    @staticmethod
    def _of_former_life(report: WorkerReport, machine: Machine) -> bool:
        return machine.power in {Power.STOPPING, Power.STOPPED} or report.ready_at == machine.former_ready_at

    def _take_capacity(self) -> None:
        if self.capacity is not None:
            if self.capacity < 1:
                raise InsufficientCapacity("EC2 has no instance of any type in any subnet; offer more")
            self.capacity -= 1

    def _check(self, *, writing: bool = False) -> None:
        if self.outage is not None:
            raise self.outage
        if writing and self.lease_lost:
            raise LeaseLost("another autoscaler is active; this one waits")


def a_record(at: float, reason: str = "3 open; 1 instance is enough", **counts: int) -> RoundRecord:
    """A record of that moment."""
    return replace(
        RoundRecord(
            at=at,
            visible=2,
            in_flight=1,
            needed=1,
            booting=0,
            serving=1,
            draining=0,
            stopped=4,
            arrivals_per_second=1 / 3,
            service_seconds=0.1 + 0.2,
            boot_seconds=31.25,
            reason=reason,
            actions="",
        ),
        **counts,  # type: ignore[arg-type] # only counts are given
    )
