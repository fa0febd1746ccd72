"""The simulated clock."""

from collections.abc import Callable
from heapq import heappop, heappush
from math import inf
from typing import Any


class Events:
    """What is to happen, in the order of time and then of arranging."""

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._arranged = 0

    def after(self, seconds: float, call: Callable[..., None], *arguments: Any) -> None:
        """Arrange a call."""
        self._arranged += 1
        heappush(self._heap, (self.now + seconds, self._arranged, call, arguments))

    def every(self, seconds: float, first: float, call: Callable[[], None]) -> None:
        """Arrange a call again and again, for ever."""

        def again() -> None:
            call()
            self.after(seconds, again)

        self.after(first, again)

    @property
    def next_at(self) -> float:
        """When the next call is due."""
        return self._heap[0][0] if self._heap else inf

    def step(self) -> None:
        """Make the next call."""
        self.now, _, call, arguments = heappop(self._heap)
        call(*arguments)
