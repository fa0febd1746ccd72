"""What the autoscaler sees of queue and fleet: pure values; times are in seconds since the epoch."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from facerec.fleet_records import QueueDepth
from facerec.messages import WorkerReport, WorkerState


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A reading that failed, and why; never the same as an empty one."""

    reason: str


class Power(StrEnum):
    """EC2's instance states, in EC2's words."""

    PENDING = "pending"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    SHUTTING_DOWN = "shutting-down"


class Phase(StrEnum):
    """What an instance is to the autoscaler."""

    BOOTING = "booting"
    """Launched, started or resumed; its worker does not take tasks yet."""
    SERVING = "serving"
    """Its worker takes tasks."""
    DRAINING = "draining"
    """Its worker takes no more tasks, and may still hold some."""
    DRAINED = "drained"
    """Its worker holds no task and takes none."""
    LOST = "lost"
    """It never reported, fell silent, or is impaired: to be replaced."""
    STOPPING = "stopping"
    """On its way to stopped or terminated."""
    STOPPED = "stopped"
    """In the warm pool: it costs only its disk."""


ACTIVE = frozenset({Phase.BOOTING, Phase.SERVING, Phase.DRAINING, Phase.DRAINED, Phase.LOST})
"""The phases that count towards the cap: EC2 calls these instances pending or running."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance of the fleet; `number` is that of its name `app-tier-instance-<number>`."""

    number: int
    instance_id: str | None
    """Absent until EC2 has confirmed the launch."""
    power: Power
    since: float
    """When it was last launched, started, or stopped."""
    report: WorkerReport | None = None
    """The latest report of its worker since then."""
    drain_ordered_at: float | None = None
    spot: bool = False
    """Spot instances are terminated, never stopped."""
    outdated: bool = False
    """Not worth a start: made from an older launch template, or stopped again by EC2 after a start."""
    impaired: bool = False
    """It runs and fails EC2's status checks."""
    report_unreadable: bool = False
    """Its worker has reported something that cannot be read, so that nothing is known of it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long an instance may take before it is lost, in seconds."""

    boot_seconds: float
    """From launch or start to the first report."""
    silence_seconds: float
    """Between two reports."""
    drain_seconds: float
    """From the order to drain to drained."""


def phase(  # noqa: PLR0911 - one line for each phase
    instance: Instance, limits: Limits, now: float, watched_since: float = 0.0, changed_at: float | None = None
) -> Phase:
    """Return the phase of the instance; the optional arguments are as in `FleetByPhase.of`."""
    if instance.power in {Power.STOPPING, Power.SHUTTING_DOWN}:
        return Phase.STOPPING
    if instance.power is Power.STOPPED:
        return Phase.STOPPED
    report, ordered_at = instance.report, instance.drain_ordered_at
    overdue = ordered_at is not None and now - max(ordered_at, watched_since) > limits.drain_seconds
    if instance.impaired or overdue:
        return Phase.LOST
    silent_seconds = now - _silent_since(instance, watched_since, changed_at)
    if instance.report_unreadable:
        # The worker may hold tasks: it counts as before for a while, and then as silent.
        if silent_seconds > limits.silence_seconds:
            return Phase.LOST
        return Phase.SERVING if ordered_at is None else Phase.DRAINING
    if report is None or report.state is WorkerState.ENDED:
        if silent_seconds > limits.boot_seconds:
            return Phase.LOST
        # A worker learns of the order by its first report, before it takes a task.
        return Phase.BOOTING if ordered_at is None else Phase.DRAINED
    if silent_seconds > limits.silence_seconds:
        return Phase.LOST
    if report.interrupted or ordered_at is not None:
        return Phase.DRAINED if report.state is WorkerState.DRAINED else Phase.DRAINING
    # A worker that reports draining without an order was resumed, or is being started again.
    return Phase.SERVING if report.state is WorkerState.READY else Phase.BOOTING


def _silent_since(instance: Instance, watched_since: float, changed_at: float | None) -> float:
    if changed_at is None:  # without our own clock there are only those of EC2 and of the worker
        changed_at = instance.since if instance.report is None else instance.report.reported_at
    return max(changed_at, watched_since)


def _is_silent(instance: Instance, limits: Limits, now: float, silent_since: float) -> bool | None:
    """Whether a worker that has reported is silent for too long; None where no worker reports."""
    report = instance.report
    if instance.report_unreadable:
        return True if now - silent_since > limits.silence_seconds else None
    if report is None or report.state is WorkerState.ENDED or instance.power not in {Power.PENDING, Power.RUNNING}:
        return None
    return now - silent_since > limits.silence_seconds


@dataclass(frozen=True, slots=True)
class FleetByPhase:
    """The instances of a reading, each in its phase; in each phase and in `silent` sorted by number."""

    instances: tuple[Instance, ...]
    """All of them, as they were read."""
    by_phase: dict[Phase, list[Instance]]
    silent: tuple[Instance, ...]
    """Those that run, pass EC2's checks, and have not reported for too long."""
    any_reports: bool
    """Whether any worker reports."""
    changed_at: Mapping[int, float]

    @classmethod
    def of(
        cls,
        fleet: Iterable[Instance],
        limits: Limits,
        now: float,
        watched_since: float = 0.0,
        changed_at: Mapping[int, float] | None = None,
    ) -> "FleetByPhase":
        """Sort a reading of the fleet.

        `watched_since` is the end of the last long gap between readings: silence counts from then at the earliest,
        because reports may have failed in that gap, too. `changed_at` tells by number when an instance or its report
        last changed, by the reader's own clock.
        """
        instances, changed = tuple(fleet), changed_at or {}
        by_phase: dict[Phase, list[Instance]] = {name: [] for name in Phase}
        silent, any_reports = [], False
        for instance in sorted(instances, key=lambda instance: instance.number):
            at = changed.get(instance.number)
            by_phase[phase(instance, limits, now, watched_since, at)].append(instance)
            is_silent = _is_silent(instance, limits, now, _silent_since(instance, watched_since, at))
            any_reports = any_reports or is_silent is False
            if is_silent and not instance.impaired:
                silent.append(instance)
        return cls(instances, by_phase, tuple(silent), any_reports, changed)

    def __getitem__(self, name: Phase) -> list[Instance]:
        """Return the instances of that phase."""
        return self.by_phase[name]

    @property
    def counts(self) -> dict[Phase, int]:
        """The number of instances in each phase."""
        return {name: len(members) for name, members in self.by_phase.items()}

    @property
    def active(self) -> int:
        """How many instances count towards the cap."""
        return sum(len(self.by_phase[name]) for name in ACTIVE)

    @property
    def all_silent(self) -> bool:
        """Whether not one of several workers reports.

        Then it is more likely that reports fail than that all workers have died. Instances that boot or that were just
        terminated count among the several.
        """
        ending = sum(instance.power is Power.SHUTTING_DOWN for instance in self[Phase.STOPPING])
        several = len(self.silent) + len(self[Phase.BOOTING]) + ending > 1
        return bool(self.silent) and not self.any_reports and several

    def free_numbers(self, count: int) -> list[int]:
        """Return the lowest numbers that no instance has."""
        taken = {instance.number for instance in self.instances}
        free = (number for number in range(1, len(taken) + count + 1) if number not in taken)
        return [number for number, _ in zip(free, range(count), strict=False)]


@dataclass(frozen=True, slots=True)
class Reading:
    """Queue and fleet as they were read."""

    depth: QueueDepth | Unreadable
    fleet: tuple[Instance, ...] | Unreadable
    no_capacity: str | None = None
    """Why nothing can be launched or started at the moment."""
    unstartable: frozenset[str] = frozenset()
    """Stopped instances that EC2 lately could not start; others are launched instead."""


@dataclass(frozen=True, slots=True)
class Observation:
    """A reading whose instances have been sorted into phases; the other fields are as in `Reading`."""

    depth: QueueDepth | Unreadable
    fleet: FleetByPhase | Unreadable
    no_capacity: str | None = None
    unstartable: frozenset[str] = frozenset()
