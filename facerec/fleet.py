"""What an instance's worker and the autoscaler say to each other: pure values; times are seconds since the epoch."""

from dataclasses import dataclass
from enum import StrEnum

FLEET_TAG = "facerec:fleet"
"""The tag of the fleet's instances and of what makes them; its value is the prefix."""


class WorkerState(StrEnum):
    """Where a worker is in its life, as it tells itself."""

    READY = "ready"
    """It takes tasks."""
    DRAINING = "draining"
    """It takes no more tasks and finishes those it holds."""
    DRAINED = "drained"
    """It takes no tasks and holds none: its instance may be stopped."""
    ENDED = "ended"
    """Its process ends in good order: the instance stops, or the worker is started again, as after an update."""


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """What the worker of one instance last said of itself; the counts are since `ready_at`."""

    instance_id: str
    state: WorkerState
    ready_at: float
    """When it began to take tasks: what launched or started before is what booting took."""
    reported_at: float
    held: int
    """Tasks received and not yet ended."""
    idle_since: float | None
    """Since when it holds none; absent while it holds one."""
    tasks_done: int
    saturated_seconds: float
    """How long it held at least as many tasks as it has engines, so that its throughput was its capacity."""
    saturated_tasks: int
    """Tasks that ended in that time."""
    interrupted: bool = False
    """EC2 has given notice that it takes the instance back."""


@dataclass(frozen=True, slots=True)
class Registration:
    """What is known of one instance's worker: what it said, and what it was asked."""

    report: WorkerReport | None
    drain_ordered_at: float | None
