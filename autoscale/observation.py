"""What the autoscaler sees of queue and fleet: pure values; times are seconds since the epoch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from facerec.messages import WorkerReport, WorkerState


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A reading that failed, and why; never to be taken for nothing."""

    reason: str


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """How many tasks the request queue holds; approximate, as SQS counts are."""

    visible: int
    """The backlog: waiting for a worker."""
    in_flight: int
    """Received and not deleted, also by workers that died since."""
    delayed: int = 0
    """To be tried again later."""
    oldest_age_seconds: float | None = None
    """Age of the oldest one, where it is known."""
    dead_letters: int | None = None
    """How many lie in the dead-letter queue, where it is known; for people, no decision looks at it."""

    @property
    def open(self) -> int:
        """Tasks to be worked off now."""
        return self.visible + self.in_flight


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
    """Launched, started or called back; its worker does not take tasks yet."""
    SERVING = "serving"
    """Its worker takes tasks."""
    DRAINING = "draining"
    """Its worker takes no more tasks and still holds some, as far as is known."""
    DRAINED = "drained"
    """It holds no task and takes none."""
    LOST = "lost"
    """It never reported, fell silent, or is impaired: to be replaced."""
    STOPPING = "stopping"
    """On its way to stopped or gone."""
    STOPPED = "stopped"
    """In the warm pool: it costs its disk."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance of the fleet; `number` is that of its name `app-tier-instance-<number>`."""

    number: int
    instance_id: str | None
    """Absent for a moment after the launch was claimed, before EC2 has confirmed it."""
    power: Power
    since: float
    """When it was last launched, started, or stopped."""
    worker: WorkerReport | None = None
    """What its worker last said since then."""
    drain_ordered_at: float | None = None
    spot: bool = False
    """Spot instances are terminated, not stopped."""
    outdated: bool = False
    """Not worth starting again: made from an older launch template, or it fell back to stopped after a start."""
    impaired: bool = False
    """EC2's status checks fail; of what runs alone."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long an instance may keep quiet, in seconds."""

    boot_seconds: float
    """From launch or start to the first report."""
    silence_seconds: float
    """Between two reports."""
    drain_seconds: float
    """From the order to drain to drained."""


def phase(  # noqa: PLR0911 - one line for each phase
    instance: Instance, limits: Limits, now: float, watched_since: float = 0.0, heard_at: float | None = None
) -> Phase:
    """What the instance is at this moment; the other arguments are as in `Observation`."""
    if instance.power in {Power.STOPPING, Power.SHUTTING_DOWN}:
        return Phase.STOPPING
    if instance.power is Power.STOPPED:
        return Phase.STOPPED
    report, ordered_at = instance.worker, instance.drain_ordered_at
    if instance.impaired:
        return Phase.LOST
    if ordered_at is not None and now - max(ordered_at, watched_since) > limits.drain_seconds:
        return Phase.LOST
    silent_seconds = now - _silent_since(instance, watched_since, heard_at)
    if report is None or report.state is WorkerState.ENDED:
        if silent_seconds > limits.boot_seconds:
            return Phase.LOST
        # A worker learns of the order by its first report, before it takes a task.
        return Phase.BOOTING if ordered_at is None else Phase.DRAINED
    if silent_seconds > limits.silence_seconds:
        return Phase.LOST
    if report.interrupted or ordered_at is not None:
        return Phase.DRAINED if report.state is WorkerState.DRAINED else Phase.DRAINING
    # A worker that still says that it drains, without an order, has been called back, or is being started again.
    return Phase.SERVING if report.state is WorkerState.READY else Phase.BOOTING


def _silent_since(instance: Instance, watched_since: float, heard_at: float | None) -> float:
    if heard_at is None:  # nobody has listened so far: there are only the clocks of others
        heard_at = instance.since if instance.worker is None else instance.worker.reported_at
    return max(heard_at, watched_since)


ACTIVE = frozenset({Phase.BOOTING, Phase.SERVING, Phase.DRAINING, Phase.DRAINED, Phase.LOST})
"""What counts towards the cap: all that EC2 calls pending or running."""


@dataclass(frozen=True, slots=True)
class Observation:
    """Queue and fleet at one moment, as far as they could be read."""

    depth: QueueDepth | Unreadable
    fleet: tuple[Instance, ...] | Unreadable
    no_capacity: str | None = None
    """Why nothing can be launched or started at the moment."""
    unstartable: frozenset[str] = frozenset()
    """Stopped instances that EC2 lately had no room for; others are launched instead."""
    watched_since: float = 0.0
    """Since when there has been no long gap between readings: while nothing could be read nothing could be reported,
    either, so that silence counts from then at the earliest. The controller fills it in."""
    heard_at: Mapping[int, float] = field(default_factory=dict)
    """When what is said of each instance last changed, by its number and by the clock of who reads: the clocks of the
    workers may be others. The controller fills it in."""

    def phase(self, instance: Instance, limits: Limits, now: float) -> Phase:
        """What an instance of this fleet is at this moment."""
        return phase(instance, limits, now, self.watched_since, self.heard_at.get(instance.number))

    def silent(self, instance: Instance, limits: Limits, now: float) -> bool | None:
        """Whether its worker, once heard, has said nothing for too long; nothing of who has no worker that reports."""
        report = instance.worker
        if report is None or report.state is WorkerState.ENDED or instance.power not in {Power.PENDING, Power.RUNNING}:
            return None
        since = _silent_since(instance, self.watched_since, self.heard_at.get(instance.number))
        return now - since > limits.silence_seconds


_SEVERAL = 2


@dataclass(frozen=True, slots=True)
class Muster:
    """Each phase in the order of the numbers."""

    by_phase: dict[Phase, list[Instance]]
    silent: tuple[Instance, ...] = ()
    """Those that run, pass EC2's checks, and have said nothing for too long."""
    heard: bool = False
    """Whether any worker is heard."""

    @classmethod
    def of(cls, observation: Observation, fleet: tuple[Instance, ...], limits: Limits, now: float) -> "Muster":
        """Sort the fleet of an observation."""
        by_phase: dict[Phase, list[Instance]] = {name: [] for name in Phase}
        silent, heard = [], False
        for instance in sorted(fleet, key=lambda one: one.number):
            by_phase[observation.phase(instance, limits, now)].append(instance)
            quiet = observation.silent(instance, limits, now)
            heard = heard or quiet is False
            if quiet and not instance.impaired:
                silent.append(instance)
        return cls(by_phase, tuple(silent), heard)

    def __getitem__(self, name: Phase) -> list[Instance]:
        """Those in that phase."""
        return self.by_phase[name]

    @property
    def active(self) -> int:
        """What counts towards the cap."""
        return sum(len(self.by_phase[name]) for name in ACTIVE)

    @property
    def deaf(self) -> bool:
        """Whether silence says nothing of the silent: of several instances not one is heard.

        Then it is more likely that workers cannot report than that all have died. Who was just ended for it, and who
        boots and may yet be heard, are of the several.
        """
        ending = sum(one.power is Power.SHUTTING_DOWN for one in self[Phase.STOPPING])
        return bool(self.silent) and not self.heard and len(self.silent) + len(self[Phase.BOOTING]) + ending >= _SEVERAL

    def free_numbers(self, count: int) -> list[int]:
        """The lowest numbers that nobody has."""
        taken = {one.number for members in self.by_phase.values() for one in members}
        numbers: list[int] = []
        candidate = 1
        while len(numbers) < count:
            if candidate not in taken:
                numbers.append(candidate)
            candidate += 1
        return numbers
