"""The naive controller, as tutorials write it."""

from collections.abc import Sequence

from autoscale.simulator.scalers import Loop, World


class Naive:
    """One instance for each visible message up to the cap, looked at every two seconds; instances end themselves.

    An instance ends itself when a long poll of the longest possible time comes back empty: 20 s, WaitTimeSeconds of
    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ReceiveMessage.html . With shorter ones it
    would lose its instances in every lull.
    """

    def __init__(self, world: World, interval_seconds: float = 2.0, idle_seconds: float = 20.0) -> None:
        self.desired = 0
        self._world = world
        self._interval_seconds, self._idle_seconds = interval_seconds, idle_seconds

    def loops(self) -> Sequence[Loop]:
        """The look at the queue; idle instances are looked at in the same round."""
        return [(self._interval_seconds, self._step)]

    def _step(self) -> None:
        fleet, now = self._world.fleet, self._world.events.now
        for machine in fleet.staying:
            if machine.idle_since is not None and now - machine.idle_since >= self._idle_seconds:
                fleet.retire(machine)
        self.desired = min(max(self._world.queue.counts.visible, fleet.active), fleet.max_instances)
        if self.desired > len(fleet.staying):
            fleet.resize(self.desired)
