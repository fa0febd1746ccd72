"""One simulated instance and its worker."""

from collections import deque
from collections.abc import Callable, Sequence

from autoscale.observation import Instance, Power
from autoscale.simulator.queue import Events, Queue
from autoscale.simulator.scenario import Environment
from facerec.messages import WorkerReport, WorkerState


class Machine:
    """Its power is set by `SimulatedFleet`; its worker takes tasks from the queue while it is ready.

    Every start is a life of its own: what was arranged in a former one does not happen.
    """

    def __init__(
        self, number: int, events: Events, queue: Queue, environment: Environment, services: Sequence[float]
    ) -> None:
        self.number = number
        self.instance_id = f"i-{number:03d}-{events.now:.3f}"
        self.power = Power.PENDING
        self.created_at = self.since = events.now
        self.running_since: float | None = None
        self.drain_ordered_at: float | None = None
        self.life = 0
        self.last_words: WorkerReport | None = None
        """What the worker said before it died."""
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
        self._told: WorkerReport | None = None
        self._changed = False

    @property
    def active(self) -> bool:
        """Whether it counts towards the cap."""
        return self.power in {Power.PENDING, Power.RUNNING}

    @property
    def leaving(self) -> bool:
        """Whether it was asked to drain."""
        return self.drain_ordered_at is not None

    def ready(self) -> None:
        """Its worker has started; one that was asked to drain meanwhile takes nothing."""
        now = self._events.now
        self._ready_at = self.idle_since = now
        self.state = WorkerState.READY
        self._changed = True
        if self.leaving:
            self.heed()
        else:
            self._queue.offer(self)
            self._queue.hand_out()

    def heed(self) -> None:
        """Its worker sees whether it is asked to drain."""
        if self.state is None:
            return
        self._changed = True
        if not self.leaving:
            self.state = WorkerState.READY
            if len(self.held) < self._prefetch:
                self._queue.offer(self)
                self._queue.hand_out()
            return
        self._queue.withdraw(self)
        self.state = WorkerState.DRAINING
        if not self.held:
            self._drained()

    def take(self, task: int) -> None:
        """Receive a task."""
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
                self._drained()
        if self.state is WorkerState.READY:
            self._queue.offer(self)
            if self._queue.visible:
                self._queue.hand_out()

    def _drained(self) -> None:
        self.state = WorkerState.DRAINED
        if self.on_drained is not None:
            self.on_drained()

    def die(self) -> None:
        """Its worker is gone, and EC2 does not know it."""
        told = self._told
        self.end()
        self.last_words = told

    def end(self) -> None:
        """Its worker is gone, for whatever reason; what it held comes back."""
        self.life += 1
        self._queue.withdraw(self)
        self._queue.abandon(sorted(self.held))
        self.drain_ordered_at = None
        self.on_drained = None
        self.last_words = None
        self._begin()

    def observed(self) -> Instance:
        """What the controller sees; to be called once a round.

        A worker reports at once when it becomes busy, idle or drained; its counts are those of the round before.
        """
        return Instance(self.number, self.instance_id, self.power, self.since, self._report(), self.drain_ordered_at)

    def _report(self) -> WorkerReport | None:
        if self.state is None:
            return self.last_words
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
        told = fresh if self._changed or self._told is None else self._told
        self._told, self._changed = fresh, False
        return told
