"""Deciding without acting: stand-ins for the ports by which the reconciler changes the world."""

from collections.abc import Sequence

from autoscale.observation import Instance
from autoscale.ports import Fleet, Record


class WatchedFleet:
    """A `Fleet` that is only looked at: every order is left out."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def instances(self) -> tuple[Instance, ...]:
        """The real ones."""
        return self._fleet.instances()

    def launch(self, numbers: Sequence[int]) -> None:
        """Nothing."""

    def start(self, instance_ids: Sequence[str]) -> None:
        """Nothing."""

    def drain(self, instance_ids: Sequence[str], now: float) -> None:
        """Nothing."""

    def resume(self, instance_ids: Sequence[str]) -> None:
        """Nothing."""

    def stop(self, instance_ids: Sequence[str]) -> None:
        """Nothing."""

    def terminate(self, instance_ids: Sequence[str]) -> None:
        """Nothing."""


class NoLease:
    """A `Lease` that keeps nobody from anything: who only looks needs none."""

    def hold(self) -> bool:
        """Go on."""
        return True

    def release(self) -> None:
        """Nothing."""


class NoChronicle:
    """A `Chronicle` that keeps nothing."""

    def record(self, record: Record) -> None:
        """Nothing."""

    def records(self, since: float) -> Sequence[Record]:
        """None."""
        del since
        return ()
