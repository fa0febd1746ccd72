"""The simulated request queue."""

from collections import deque
from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from math import inf
from random import Random
from typing import Any, Protocol

from autoscale.observation import QueueDepth


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


class Taker(Protocol):
    """A worker that has room for tasks."""

    def take(self, task: int) -> None:
        """Receive a task; one that is full then calls `Queue.withdraw`."""


class Queue:
    """Tasks wait in the order of their coming; workers with room get them at once, by chance as from SQS."""

    def __init__(self, events: Events, visibility_seconds: float, refresh_seconds: float, random: Random) -> None:
        self._events = events
        self._visibility_seconds = visibility_seconds
        self._random = random.random
        self.visible: deque[int] = deque()
        self.in_flight = 0
        self.redelivered = 0
        self.listener: Callable[[int], None] = _nothing
        """Told of every task that is done."""
        self._takers: list[Taker] = []
        self._places: dict[Taker, int] = {}
        self._counts = QueueDepth(0, 0)
        events.every(refresh_seconds, random.uniform(0, refresh_seconds), self._refresh)

    @property
    def counts(self) -> QueueDepth:
        """What SQS tells: it lags."""
        return self._counts

    def put(self, task: int) -> None:
        """Make a task visible."""
        self.visible.append(task)
        if self._takers:
            self.hand_out()

    def done(self, task: int) -> None:
        """Delete a task."""
        self.in_flight -= 1
        self.listener(task)

    def abandon(self, tasks: Iterable[int]) -> None:
        """Their worker is gone: they become visible when their time is over."""
        for task in tasks:
            self._events.after(self._visibility_seconds, self._redeliver, task)

    def offer(self, taker: Taker) -> None:
        """This worker has room."""
        if taker not in self._places:
            self._places[taker] = len(self._takers)
            self._takers.append(taker)

    def withdraw(self, taker: Taker) -> None:
        """It has none any more, or wants none."""
        place = self._places.pop(taker, None)
        if place is None:
            return
        last = self._takers.pop()
        if last is not taker:
            self._takers[place] = last
            self._places[last] = place

    def hand_out(self) -> None:
        """Give what is visible to workers with room."""
        visible, takers = self.visible, self._takers
        while visible and takers:
            self.in_flight += 1
            takers[int(self._random() * len(takers))].take(visible.popleft())

    def _redeliver(self, task: int) -> None:
        self.in_flight -= 1
        self.redelivered += 1
        self.put(task)

    def _refresh(self) -> None:
        self._counts = QueueDepth(len(self.visible), self.in_flight)


def _nothing(_: int) -> None:
    return
