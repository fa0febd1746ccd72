"""What decides in a simulation: our controller, and the port that the baselines share with it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from autoscale.controller import Controller, Priors
from autoscale.observation import Observation
from autoscale.policy import Decision, Policy
from autoscale.simulator.events import Events
from autoscale.simulator.fleet import SimulatedFleet
from autoscale.simulator.queue import Queue

Loop = tuple[float, Callable[[], None]]
"""Something to be done every so many seconds."""


@dataclass(frozen=True, slots=True)
class World:
    """What a scaler sees and acts on."""

    events: Events
    queue: Queue
    fleet: SimulatedFleet


class Scaler(Protocol):
    """Sizes the fleet."""

    @property
    def desired(self) -> int:
        """How many instances it wants at the moment."""

    def loops(self) -> Sequence[Loop]:
        """What it does, and how often; each begins at a moment by chance."""


class Ours:
    """The production controller, once a second, on what lags as it does there."""

    def __init__(self, world: World, policy: Policy, priors: Priors) -> None:
        self.controller = Controller(policy, priors)
        self.desired = 0
        self._world = world

    def loops(self) -> Sequence[Loop]:
        """The reconciler's interval."""
        return [(1.0, self._step)]

    def _step(self) -> None:
        fleet = self._world.fleet
        observation = Observation(self._world.queue.counts, fleet.observed())
        decision = self.controller.step(observation, self._world.events.now)
        if not isinstance(decision, Decision):
            return
        self.desired = decision.needed
        fleet.resume(decision.resume)
        fleet.start(decision.start)
        fleet.launch(decision.launch)
        fleet.drain(decision.drain)
        fleet.stop(decision.stop)
        fleet.terminate(decision.terminate)
