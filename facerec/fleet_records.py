"""What the autoscaler records of queue and fleet: pure values; times are in seconds since the epoch."""

from dataclasses import dataclass

HISTORY_PARTITIONS = "record#"
"""What the keys of the history's partitions in the fleet's table begin with."""

SILENT_SECONDS = 30.0
"""There is a record every ten seconds while there is work or an instance: after a longer gap nothing is known."""


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """How many tasks the queues of the app tier hold; approximate, as SQS counts are."""

    visible: int
    """The backlog: waiting for a worker."""
    in_flight: int
    """Received and not deleted, also by workers that have died since."""
    delayed: int = 0
    """To be delivered later."""
    oldest_age_seconds: float | None = None
    dead_letters: int | None = None
    """For people; no decision uses it."""

    @property
    def open(self) -> int:
        """Tasks that need a worker now."""
        return self.visible + self.in_flight


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """One round of the reconciler for the history; counts of instances by phase."""

    at: float
    visible: int
    in_flight: int
    needed: int
    booting: int
    serving: int
    draining: int
    """Also those that are drained or lost."""
    stopped: int
    arrivals_per_second: float
    service_seconds: float
    boot_seconds: float
    reason: str
    actions: str
    """In words; empty without any."""

    @property
    def active(self) -> int:
        """How many instances EC2 calls pending or running."""
        return self.booting + self.serving + self.draining

    @property
    def idle(self) -> bool:
        """Whether there is neither work nor an instance: after such a record there may be none for long."""
        return not (self.visible or self.in_flight or self.needed or self.active)

    def tells(self, moment: float) -> bool:
        """Whether it still tells what is at a later moment, if there is no other record between."""
        return self.idle or moment - self.at <= SILENT_SECONDS
