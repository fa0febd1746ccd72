"""Queue, fleet, lease and history in memory around a reconciler, on a clock that the test moves."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from structlog.typing import EventDict

from autoscale.decider import Decider, Priors
from autoscale.observation import ACTIVE, Instance, Power, phase
from autoscale.policy import Policy
from autoscale.reconcile_result import ReconcileResult
from autoscale.reconciler import Reconciler
from facerec.errors import FacerecError
from facerec.fleet_records import QueueDepth
from facerec.messages import WorkerState
from tests.fakes.fleet import InMemoryBacklog, InMemoryFleet, InMemoryHistory, InMemoryLease, LeaseItem, Machine
from tests.fakes.worker_reports import READY, InMemoryWorkerReports

POLICY = Policy(cooldown_seconds=5, warm_pool_max=1)
LEASE_SECONDS = 15.0
PRIORS = Priors(boot_seconds=10, start_seconds=5, service_seconds=1)


class FleetWorld:
    """Queue, fleet, lease and history in memory, on a clock that the test moves.

    An instance's worker reports every second, from `boot_seconds` after its launch on; it never reduces the queue.
    `failing` maps a port's method to what it raises; `orders` lists the calls of the fleet with their instances.
    """

    boot_seconds = 10.0

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.reports = InMemoryWorkerReports()
        self.fleet = InMemoryFleet(self.reports, lambda: self.now, pending_seconds=self.boot_seconds / 2)
        self.backlog = InMemoryBacklog()
        self.lease = LeaseItem()
        self.history = InMemoryHistory()
        self.failing: dict[str, FacerecError] = {}
        self.on_call: Callable[[str], None] = lambda _: None
        self.orders: list[str] = []

    def called(self, method: str, targets: Sequence[int | str]) -> None:
        """Record the call of a port's method, before it is made."""
        self.on_call(method)
        if method in self.failing:
            raise self.failing[method]
        if targets:
            numbers = {machine.instance_id: machine.number for machine in self.fleet.machines}
            self.orders.append(" ".join([method, *(str(numbers.get(str(target), target)) for target in targets)]))

    def queue(self, visible: int, in_flight: int = 0) -> None:
        """Set the depth of the queue."""
        self.backlog.counts = QueueDepth(visible, in_flight)

    def machine(self, number: int) -> Machine:
        """The instance of that number, to be changed."""
        return next(machine for machine in self.fleet.machines if machine.number == number)

    @property
    def active(self) -> int:
        """How many instances count towards the cap."""
        return sum(phase(instance, POLICY.limits, self.now) in ACTIVE for instance in self.fleet.instances())

    def pass_second(self, held: int = 0) -> None:
        """Advance the clock by a second; every ready worker reports."""
        self.now += 1
        for instance in self.fleet.instances():
            if instance.power is Power.RUNNING and self.now - instance.since >= self.boot_seconds:
                self.report(instance, held)

    def report(self, instance: Instance, held: int = 0) -> None:
        """Let the worker report."""
        assert instance.instance_id is not None
        before = instance.report or replace(
            READY, instance_id=instance.instance_id, ready_at=self.now, idle_since=self.now
        )
        drained = WorkerState.DRAINING if held else WorkerState.DRAINED
        state = WorkerState.READY if instance.drain_ordered_at is None else drained
        idle_since = None if held else before.idle_since or self.now
        still = replace(before, saturated_seconds=0.0, saturated_tasks=0)
        self.reports.report(replace(still, state=state, reported_at=self.now, held=held, idle_since=idle_since))


class WatchedPort:
    """A port whose calls are first passed to `FleetWorld.called`."""

    def __init__(self, world: FleetWorld, port: Any) -> None:
        self._world = world
        self._port = port

    def __getattr__(self, name: str) -> Any:
        """The method, watched."""
        method = getattr(self._port, name)

        def call(*arguments: Any, **named: Any) -> Any:
            targets = arguments[0] if arguments and name != "record" else ()
            self._world.called(name, targets)
            return method(*arguments, **named)

        return call


def make_reconciler(
    world: FleetWorld, watch: Callable[[ReconcileResult], None] = lambda _: None, *, dry_run: bool = False
) -> Reconciler:
    """Return another autoscaler on the same world."""
    return Reconciler(
        backlog=WatchedPort(world, world.backlog),
        fleet=WatchedPort(world, world.fleet),
        lease=WatchedPort(world, InMemoryLease(world.lease, lease_seconds=LEASE_SECONDS, clock=lambda: world.now)),
        history=WatchedPort(world, world.history),
        decider=Decider(POLICY, PRIORS),
        dry_run=dry_run,
        watch=watch,
        clock=lambda: world.now,
        jitter=lambda: 0.0,
    )


def run_rounds(world: FleetWorld, reconciler: Reconciler, seconds: int) -> list[ReconcileResult]:
    """Run a round every second; returns the results."""
    done = []
    for _ in range(seconds):
        done.append(reconciler.round())
        assert world.active <= POLICY.max_instances
        world.pass_second()
    return done


def start_instances(world: FleetWorld, count: int) -> None:
    """Launch `count` instances, and pass the time until they are ready and idle."""
    world.fleet.launch(range(1, count + 1))
    for _ in range(int(world.boot_seconds) + 1):
        world.pass_second()


def events(logs: list[EventDict], name: str) -> list[EventDict]:
    """Return the log lines of one event."""
    return [line for line in logs if line["event"] == name]
