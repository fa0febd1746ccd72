"""What the reconciler needs from AWS, as protocols; every method may raise `Transient`.

The adapters are in `autoscale.aws`; their in-memory twins in `tests/fakes` pass the same contract tests.
"""

from collections.abc import Sequence
from typing import Protocol

from autoscale.observation import Instance
from facerec.fleet_records import QueueDepth


class Backlog(Protocol):
    """The counts of the queues of the app tier."""

    def depth(self) -> QueueDepth:
        """Read the counts; one that is missing in the answer is `Transient`, never 0. Raises `QueueMissing`."""


class Fleet(Protocol):
    """The app tier's instances. Every action may be repeated: the second time changes nothing."""

    def instances(self) -> tuple[Instance, ...]:
        """Read every instance that is not terminated and every launch slot, sorted by number; writes nothing.

        Former actions are visible, even while EC2's own answers lag behind.
        """

    def repair(self) -> None:
        """Repair what crashes and late answers left behind, by the latest reading; raises `LeaseLost`.

        It completes launches with an unknown outcome, frees the slots of instances that have ended, makes slots for
        unknown instances of the fleet, sets missing names, and forgets the reports of ended instances.
        """

    def launch(self, numbers: Sequence[int]) -> None:
        """Launch one instance for each free number; its slot outlives a crash.

        Raises `InsufficientCapacity` when EC2 has no instance of any configured type in any subnet, and `LeaseLost`
        when another autoscaler is active. A number that was taken meanwhile is left out.
        """

    def start(self, instance_ids: Sequence[str]) -> None:
        """Start stopped instances and forget their workers' former reports. Raises as `launch`."""

    def drain(self, instance_ids: Sequence[str], now: float) -> None:
        """Order the workers to take no more tasks."""

    def resume(self, instance_ids: Sequence[str]) -> None:
        """Cancel the order to drain."""

    def stop(self, instance_ids: Sequence[str]) -> None:
        """Stop instances, to be started again; until they end, their workers drain."""

    def terminate(self, instance_ids: Sequence[str]) -> None:
        """Terminate instances; until they end, their workers drain. One that has ended is no error."""


class Lease(Protocol):
    """Lets exactly one autoscaler act."""

    def acquire_or_renew(self) -> bool:
        """Take or renew the lease before a round; returns whether this autoscaler may act."""

    def release(self) -> None:
        """Free the lease at once; without effect if it is not held."""
