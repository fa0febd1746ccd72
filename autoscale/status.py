"""The fleet at this moment, for people and programs that look at it."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from autoscale.observation import Instance, Limits, Phase, Power, QueueDepth, Unreadable, phase
from autoscale.ports import Backlog, Chronicle, Fleet, Record
from facerec.errors import FacerecError

RECENT_SECONDS = 3600.0
"""How far back the last record is looked for; at zero instances none is written."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class InstanceStatus:
    """One instance; absent is what is not known."""

    number: int
    instance_id: str | None
    phase: Phase
    power: Power
    since: float
    """When it was last launched, started or stopped, in seconds since the epoch."""
    held: int | None
    idle_seconds: float | None
    tasks_done: int | None
    spot: bool
    outdated: bool
    impaired: bool

    @classmethod
    def of(cls, instance: Instance, limits: Limits, now: float) -> "InstanceStatus":
        """What is known of the instance."""
        worker = instance.worker
        idle_since = None if worker is None else worker.idle_since
        return cls(
            number=instance.number,
            instance_id=instance.instance_id,
            phase=phase(instance, limits, now),
            power=instance.power,
            since=instance.since,
            held=None if worker is None else worker.held,
            idle_seconds=None if idle_since is None else max(0.0, now - idle_since),
            tasks_done=None if worker is None else worker.tasks_done,
            spot=instance.spot,
            outdated=instance.outdated,
            impaired=instance.impaired,
        )


@dataclass(frozen=True, slots=True)
class FleetStatus:
    """Queue, fleet and autoscaler; each of them may be unreadable while the others are not."""

    at: float
    queue: QueueDepth | Unreadable
    instances: tuple[InstanceStatus, ...] | Unreadable
    lease_holder: str | Unreadable | None
    last: Record | Unreadable | None
    """The latest record of the last hour."""

    @property
    def whole(self) -> bool:
        """Whether all could be read."""
        return not any(isinstance(v, Unreadable) for v in (self.queue, self.instances, self.lease_holder, self.last))

    def as_json(self) -> dict[str, Any]:
        """The same as plain values; what could not be read is `{"unreadable": reason}`."""
        return {
            "at": self.at,
            "queue": _plain(self.queue),
            "instances": _plain(self.instances),
            "lease_holder": _plain(self.lease_holder),
            "last": _plain(self.last),
        }


def status(
    backlog: Backlog,
    fleet: Fleet,
    chronicle: Chronicle,
    lease_owner: Callable[[], str | None],
    limits: Limits,
    now: float,
) -> FleetStatus:
    """Read everything; whatever fails is told, not raised."""
    instances = _read(fleet.instances)
    recent = _read(lambda: chronicle.records(now - RECENT_SECONDS))
    return FleetStatus(
        at=now,
        queue=_read(backlog.depth),
        instances=instances
        if isinstance(instances, Unreadable)
        else tuple(InstanceStatus.of(one, limits, now) for one in instances),
        lease_holder=_read(lease_owner),
        last=recent if isinstance(recent, Unreadable) else next(reversed(recent), None),
    )


def _read(reading: Callable[[], T]) -> T | Unreadable:
    try:
        return reading()
    except FacerecError as exc:
        return Unreadable(str(exc))


def _plain(value: Any) -> Any:
    if isinstance(value, Unreadable):
        return {"unreadable": value.reason}
    if isinstance(value, tuple):
        return [asdict(one) for one in value]
    return asdict(value) if isinstance(value, QueueDepth | Record) else value
