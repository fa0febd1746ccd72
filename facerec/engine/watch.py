"""What a watcher is told of the engines, for the metrics."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Failure(StrEnum):
    """Why a batch failed as a whole."""

    CRASHED = "crashed"
    OVERRAN = "overran"
    RAISED = "raised"


@dataclass(frozen=True, slots=True)
class Batch:
    """What one engine child took at once, and how it ended."""

    waited_seconds: tuple[float, ...]
    """How long each of its images had waited for a child."""
    seconds: float
    failure: Failure | None = None


class EngineWatch(Protocol):
    """Is told by the threads that feed the children; it must be quick, and must not raise."""

    def batch(self, batch: Batch) -> None:
        """A batch is over."""

    def replaced(self) -> None:
        """A child that had ended has a successor."""


class _Nobody:
    def batch(self, batch: Batch) -> None:
        """Forget it."""

    def replaced(self) -> None:
        """Forget it."""


NOBODY: EngineWatch = _Nobody()
"""Nobody listens."""
