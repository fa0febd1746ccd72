"""What one round of the reconciler saw, decided and did: pure values, for the log, the metrics and the chronicle."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from autoscale.estimates import Estimates
from autoscale.observation import Limits, Observation, Phase, QueueDepth, Unreadable
from autoscale.policy import Decision, Hold


def in_words(numbers: Iterable[int]) -> str:
    """Numbers of instances, runs of them in short: `1-3, 7`."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


class ActionKind(StrEnum):
    """What can be done to instances, in the order in which it is done: what adds capacity first, what ends last."""

    RESUME = "resume"
    START = "start"
    LAUNCH = "launch"
    DRAIN = "drain"
    STOP = "stop"
    TERMINATE = "terminate"


class Cause(StrEnum):
    """Why a round held, or could not do all that it wanted."""

    LEASE = "lease"
    QUEUE = "queue"
    FLEET = "fleet"
    CAPACITY = "capacity"
    """Launches pause, because EC2 refused them."""


@dataclass(frozen=True, slots=True)
class Action:
    """One order to the fleet; `numbers` are those of the instances' names."""

    kind: ActionKind
    numbers: tuple[int, ...]
    problem: str | None = None
    """Why it failed, as a whole or in part."""

    def __str__(self) -> str:
        """The action in words."""
        return f"{self.kind} {in_words(self.numbers)}" + ("" if self.problem is None else " failed")


@dataclass(frozen=True, slots=True)
class Round:
    """One round of the loop; what is absent was not known."""

    at: float
    """When it began, in seconds since the epoch."""
    leading: bool
    """Whether this controller held the lease to the end."""
    observation: Observation | None = None
    decision: Decision | Hold | None = None
    """Absent while another controller leads."""
    estimates: Estimates | None = None
    cause: Cause | None = None
    actions: tuple[Action, ...] = ()
    failures: tuple[str, ...] = ()
    """What failed: `lease`, `queue`, `fleet`, `chronicle`, or a kind of action."""
    seconds: float = 0.0
    """How long it took."""

    @property
    def depth(self) -> QueueDepth | None:
        """The queue, where it could be read."""
        depth = None if self.observation is None else self.observation.depth
        return None if isinstance(depth, Unreadable) else depth

    def phases(self, limits: Limits) -> Mapping[Phase, int] | None:
        """The number of instances in each phase, where the fleet could be read."""
        observation = self.observation
        if observation is None or isinstance(observation.fleet, Unreadable):
            return None
        counts = Counter(observation.phase(one, limits, self.at) for one in observation.fleet)
        return {name: counts[name] for name in Phase}

    @property
    def words(self) -> str:
        """What was done; empty when nothing was."""
        return "; ".join(map(str, self.actions))
