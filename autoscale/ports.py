"""What the reconciler needs from AWS, as protocols; every method may raise `Transient`.

The adapters are in `autoscale.aws`; their in-memory twins in `tests/fakes` pass the same contract tests.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from autoscale.observation import Instance, QueueDepth


class Backlog(Protocol):
    """The request queue, seen from outside."""

    def depth(self) -> QueueDepth:
        """The counts as they are told; one that is missing in the answer is `Transient`, never 0."""


class Fleet(Protocol):
    """The app tier's instances. Every order may be given twice: the second time changes nothing."""

    def instances(self) -> tuple[Instance, ...]:
        """Every instance that is not terminated, and every launch that is claimed, sorted by number.

        What was ordered before is seen, even where EC2's own answer lags behind.
        """

    def launch(self, numbers: Sequence[int]) -> None:
        """Launch one instance for each free number; the claim outlives a crash in the middle.

        Raises `InsufficientCapacity` when EC2 has no instance of any configured type in any subnet, and `LeaseLost`
        when another controller is active; a number that is taken meanwhile is left out.
        """

    def start(self, instance_ids: Sequence[str]) -> None:
        """Start stopped instances; forgets what their workers said in their former life. Raises as `launch`."""

    def drain(self, instance_ids: Sequence[str], now: float) -> None:
        """Ask the workers to take no more tasks."""

    def resume(self, instance_ids: Sequence[str]) -> None:
        """Take the order to drain back."""

    def stop(self, instance_ids: Sequence[str]) -> None:
        """Stop instances, to be started again; until they end their workers are asked to drain."""

    def terminate(self, instance_ids: Sequence[str]) -> None:
        """End instances for good, their workers drained likewise; one that has gone is no error."""


class Lease(Protocol):
    """Lets exactly one controller act; others wait."""

    def hold(self) -> bool:
        """Take or renew the lease; returns whether this controller may act. To be called before every round."""

    def release(self) -> None:
        """Give it up at once, so that another need not wait; without effect for who does not hold it."""


@dataclass(frozen=True, slots=True)
class Record:
    """One round of the reconciler, for people to look at; counts of instances by phase."""

    at: float
    """Seconds since the epoch."""
    visible: int
    in_flight: int
    needed: int
    booting: int
    serving: int
    draining: int
    stopped: int
    arrivals_per_second: float
    service_seconds: float
    boot_seconds: float
    reason: str
    actions: str
    """What was done, in words; empty when nothing was."""


class Chronicle(Protocol):
    """What the fleet did, kept for days."""

    def record(self, record: Record) -> None:
        """Keep one record."""

    def records(self, since: float) -> Sequence[Record]:
        """Every record from that moment on, the oldest first."""
