"""The simulated request queue, and the instances whose workers take its tasks."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from heapq import heappop, heappush
from math import inf
from random import Random
from typing import Any

from autoscale.observation import Instance, Power
from autoscale.simulator.scenario import Environment
from facerec.fleet_records import QueueDepth
from facerec.messages import WorkerReport, WorkerState


class Schedule:
    """Calls that are due, sorted by time and then by the order of their scheduling."""

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._scheduled = 0

    def after(self, seconds: float, call: Callable[..., None], *arguments: Any) -> None:
        """Schedule a call."""
        self._scheduled += 1
        heappush(self._heap, (self.now + seconds, self._scheduled, call, arguments))

    def every(self, seconds: float, first: float, call: Callable[[], None]) -> None:
        """Schedule a call for ever."""

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


class Queue:
    """Tasks in the order of their arrival; workers with room get them at once, by chance as from SQS."""

    def __init__(self, events: Schedule, visibility_seconds: float, refresh_seconds: float, random: Random) -> None:
        self._events = events
        self._visibility_seconds = visibility_seconds
        self._random = random.random
        self.visible: deque[int] = deque()
        self.in_flight = 0
        self.redelivered = 0
        self.listener: Callable[[int], None] = lambda _: None
        """Called with every task that is done."""
        self._takers: list[Machine] = []
        self._places: dict[Machine, int] = {}
        self.counts = QueueDepth(0, 0)
        """SQS's answer: it lags."""
        events.every(refresh_seconds, random.uniform(0, refresh_seconds), self._refresh)

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
        """Make the tasks of a dead worker visible after the visibility timeout."""
        for task in tasks:
            self._events.after(self._visibility_seconds, self._redeliver, task)

    def offer(self, taker: "Machine") -> None:
        """Add a worker that has room."""
        if taker not in self._places:
            self._places[taker] = len(self._takers)
            self._takers.append(taker)

    def withdraw(self, taker: "Machine") -> None:
        """Remove a worker that has no room, or takes no tasks."""
        place = self._places.pop(taker, None)
        if place is None:
            return
        last = self._takers.pop()
        if last is not taker:
            self._takers[place] = last
            self._places[last] = place

    def hand_out(self) -> None:
        """Give visible tasks to workers with room."""
        visible, takers = self.visible, self._takers
        while visible and takers:
            self.in_flight += 1
            takers[int(self._random() * len(takers))].take(visible.popleft())

    def _redeliver(self, task: int) -> None:
        self.in_flight -= 1
        self.redelivered += 1
        self.put(task)

    def _refresh(self) -> None:
        self.counts = QueueDepth(len(self.visible), self.in_flight)


class Machine:
    """One instance: `SimulatedFleet` sets its power; its worker takes tasks while it is ready.

    `life` counts its starts: events of a former life have no effect.
    """

    def __init__(
        self, number: int, events: Schedule, queue: Queue, environment: Environment, services: Sequence[float]
    ) -> None:
        self.number = number
        self.instance_id = f"i-{number:03d}-{events.now:.3f}"
        self.power = Power.PENDING
        self.created_at = self.since = events.now
        self.running_since: float | None = None
        self.drain_ordered_at: float | None = None
        self.life = 0
        self.last_report: WorkerReport | None = None
        """Of a worker that has died."""
        self.on_drained: Callable[[], None] | None = None
        self._events, self._queue, self._services = events, queue, services
        self._engines, self._prefetch = environment.engines, environment.prefetch
        self._begin()

    def _begin(self) -> None:
        self.state: WorkerState | None = None
        self.held: set[int] = set()
        self.idle_since: float | None = None
        self._ready_at = 0.0
        self._waiting: deque[int] = deque()
        self._busy = 0
        self._done = 0
        self._saturated_since: float | None = None
        self._saturated_seconds = 0.0
        self._saturated_tasks = 0
        self._reported: WorkerReport | None = None
        self._changed = False

    @property
    def active(self) -> bool:
        """Whether it counts towards the cap."""
        return self.power in {Power.PENDING, Power.RUNNING}

    @property
    def drain_ordered(self) -> bool:
        """Whether it was ordered to drain."""
        return self.drain_ordered_at is not None

    def ready(self) -> None:
        """Start the worker; with an order to drain it takes nothing."""
        now = self._events.now
        self._ready_at = self.idle_since = now
        self.state = WorkerState.READY
        self._changed = True
        if self.drain_ordered:
            self.read_order()
        else:
            self._queue.offer(self)
            self._queue.hand_out()

    def read_order(self) -> None:
        """Let the worker see whether it is ordered to drain."""
        if self.state is None:
            return
        self._changed = True
        if not self.drain_ordered:
            self.state = WorkerState.READY
            if len(self.held) < self._prefetch:
                self._queue.offer(self)
                self._queue.hand_out()
            return
        self._queue.withdraw(self)
        self.state = WorkerState.DRAINING
        if not self.held:
            self._finish_drain()

    def take(self, task: int) -> None:
        """Receive a task; a full worker withdraws from the queue."""
        held = self.held
        held.add(task)
        count = len(held)
        if count == 1:
            self.idle_since, self._changed = None, True
        if count == self._engines:
            self._saturated_since = self._events.now
        if count == self._prefetch:
            self._queue.withdraw(self)
        if self._busy < self._engines:
            self._work(task)
        else:
            self._waiting.append(task)

    def _work(self, task: int) -> None:
        self._busy += 1
        self._events.after(self._services[task], self._finish, task, self.life)

    def _finish(self, task: int, life: int) -> None:
        if life != self.life:
            return
        now, held = self._events.now, self.held
        self._busy -= 1
        self._done += 1
        if self._saturated_since is not None:
            self._saturated_tasks += 1
            if len(held) == self._engines:
                self._saturated_seconds += now - self._saturated_since
                self._saturated_since = None
        held.remove(task)
        self._queue.done(task)
        if self._waiting:
            self._work(self._waiting.popleft())
        if not held:
            self.idle_since, self._changed = now, True
            if self.state is WorkerState.DRAINING:
                self._finish_drain()
        if self.state is WorkerState.READY:
            self._queue.offer(self)
            if self._queue.visible:
                self._queue.hand_out()

    def _finish_drain(self) -> None:
        self.state = WorkerState.DRAINED
        if self.on_drained is not None:
            self.on_drained()

    def die(self) -> None:
        """End the worker; EC2 does not notice."""
        reported = self._reported
        self.end()
        self.last_report = reported

    def end(self) -> None:
        """End the worker; its tasks become visible again."""
        self.life += 1
        self._queue.withdraw(self)
        self._queue.abandon(sorted(self.held))
        self.drain_ordered_at = None
        self.on_drained = None
        self.last_report = None
        self._begin()

    def observe(self) -> Instance:
        """Return what the autoscaler sees; for one call each round.

        A worker reports at once when it becomes busy, idle or drained; its counts are those of the previous round.
        """
        return Instance(self.number, self.instance_id, self.power, self.since, self._report(), self.drain_ordered_at)

    def _report(self) -> WorkerReport | None:
        if self.state is None:
            return self.last_report
        now, saturated = self._events.now, self._saturated_seconds
        if self._saturated_since is not None:
            saturated += now - self._saturated_since
        fresh = WorkerReport(
            self.instance_id,
            self.state,
            self._ready_at,
            now,
            len(self.held),
            self.idle_since,
            self._done,
            saturated,
            self._saturated_tasks,
        )
        report = fresh if self._changed or self._reported is None else self._reported
        self._reported, self._changed = fresh, False
        return report
