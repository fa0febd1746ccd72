"""The simulated EC2: instances, actions, and the bill."""

import math
from collections.abc import Callable, Iterable, Sequence
from random import Random

from autoscale.observation import Instance, Power
from autoscale.simulator.scenario import Environment
from autoscale.simulator.workers import Machine, Queue, Schedule
from facerec.messages import WorkerState


class SimulatedFleet:
    """Carries out actions as EC2 and the workers would; it measures the cap, and the policies keep it."""

    def __init__(
        self,
        events: Schedule,
        queue: Queue,
        environment: Environment,
        services: Sequence[float],
        max_instances: int,
        seed: str,
    ) -> None:
        self.max_instances = max_instances
        self.machines: dict[str, Machine] = {}
        self.active = 0
        """Pending or running."""
        self.most_active = 0
        self.over_cap_seconds = 0.0
        self.billed_seconds = 0.0
        self.disk_seconds = 0.0
        self.launches = 0
        self.health_check_seconds: float | None = None
        """After so long EC2 terminates an instance that has died, for policies that rely on EC2 for it."""
        self._events, self._queue, self._environment = events, queue, environment
        self._services = services
        # One stream each, so that the n-th launch takes equally long under every policy.
        self._boots, self._starts, self._deaths = (
            Random(f"{seed} {name}")  # noqa: S311 - repeatable, not secret
            for name in ("boots", "starts", "deaths")
        )
        self._active_since = 0.0
        self._tokens, self._tokens_at = float(environment.launches_at_once), 0.0

    @property
    def serving(self) -> int:
        """Instances whose workers take tasks."""
        return sum(
            machine.state is WorkerState.READY and not machine.drain_ordered for machine in self.machines.values()
        )

    @property
    def not_draining(self) -> list[Machine]:
        """Pending and running instances without an order to drain."""
        return [machine for machine in self.machines.values() if machine.active and not machine.drain_ordered]

    def observe(self) -> tuple[Instance, ...]:
        """Return what the autoscaler sees, sorted by number."""
        return tuple(
            machine.observe() for machine in sorted(self.machines.values(), key=lambda machine: machine.number)
        )

    def launch(self, numbers: Iterable[int]) -> None:
        """Launch new instances."""
        for number in numbers:
            machine = Machine(number, self._events, self._queue, self._environment, self._services)
            self.machines[machine.instance_id] = machine
            self.launches += 1
            self._boot(machine, self._environment.boot.draw(self._boots), self._throttled_seconds())

    def start(self, instance_ids: Iterable[str]) -> None:
        """Start stopped instances."""
        for name in instance_ids:
            machine = self.machines[name]
            machine.power, machine.since = Power.PENDING, self._events.now
            self._boot(machine, self._environment.start.draw(self._starts), 0.0)

    def drain(self, instance_ids: Iterable[str]) -> None:
        """Order workers to take no more tasks."""
        for name in instance_ids:
            self.machines[name].drain_ordered_at = self._events.now
            self._send_order(self.machines[name])

    def resume(self, instance_ids: Iterable[str]) -> None:
        """Cancel the order to drain."""
        for name in instance_ids:
            self.machines[name].drain_ordered_at = None
            self._send_order(self.machines[name])

    def stop(self, instance_ids: Iterable[str]) -> None:
        """Stop instances into the warm pool."""
        for name in instance_ids:
            self._end(self.machines[name], Power.STOPPING)

    def terminate(self, instance_ids: Iterable[str]) -> None:
        """Terminate instances."""
        for name in instance_ids:
            self._end(self.machines[name], Power.SHUTTING_DOWN)

    def resize(self, size: int) -> None:
        """Act as a scaling group: start stopped instances and launch others, or drain the newest.

        The cap counts draining instances, too.
        """
        current = self.not_draining
        missing = min(size, self.max_instances) - len(current)
        if missing > 0:
            missing = min(missing, self.max_instances - self.active)
            pool = [name for name, machine in self.machines.items() if machine.power is Power.STOPPED][
                : max(0, missing)
            ]
            self.start(pool)
            taken = {machine.number for machine in self.machines.values()}
            numbers = (number for number in range(1, len(taken) + missing + 1) if number not in taken)
            self.launch([number for number, _ in zip(numbers, range(missing - len(pool)), strict=False)])
            return
        newest_first = sorted(current, key=lambda machine: (machine.state is not None, -machine.since, machine.number))
        for machine in newest_first[: len(current) - size]:
            self.retire(machine)

    def retire(self, machine: Machine) -> None:
        """Drain it, then stop it into the warm pool, or terminate it if the pool is full."""
        if machine.state is None or (machine.state is WorkerState.READY and not machine.held):
            self._stop_or_terminate(machine)
            return
        machine.on_drained = lambda: self._stop_or_terminate(machine)
        self.drain([machine.instance_id])

    def close(self) -> None:
        """End the simulation: bill what still runs."""
        self._count(0)
        for machine in self.machines.values():
            self._bill(machine)
            self.disk_seconds += self._events.now - machine.created_at

    def _stop_or_terminate(self, machine: Machine) -> None:
        pool = sum(other.power in {Power.STOPPING, Power.STOPPED} for other in self.machines.values())
        keeps = pool < self._environment.warm_pool_max and machine.state is not None
        self._end(machine, Power.STOPPING if keeps else Power.SHUTTING_DOWN)

    def _later(self, seconds: float, machine: Machine, call: Callable[[Machine], None]) -> None:
        """Schedule a call for this life of the machine."""
        life = machine.life

        def arrive() -> None:
            if machine.life == life:
                call(machine)

        self._events.after(seconds, arrive)

    def _boot(self, machine: Machine, seconds: float, delay: float) -> None:
        self._count(1)
        self._later(delay + min(seconds, self._environment.pending_seconds), machine, self._run)
        self._later(delay + seconds, machine, self._ready)

    def _run(self, machine: Machine) -> None:
        machine.power, machine.running_since = Power.RUNNING, self._events.now

    def _ready(self, machine: Machine) -> None:
        if self._environment.deaths_per_instance_hour:
            rate = self._environment.deaths_per_instance_hour / 3600
            self._later(self._deaths.expovariate(rate), machine, self._die)
        machine.ready()

    def _die(self, machine: Machine) -> None:
        machine.die()
        if self.health_check_seconds is not None:
            self._later(self.health_check_seconds, machine, lambda dead: self._end(dead, Power.SHUTTING_DOWN))

    def _send_order(self, machine: Machine) -> None:
        self._later(self._environment.order_seconds, machine, Machine.read_order)

    def _end(self, machine: Machine, power: Power) -> None:
        if machine.power is power:
            return
        if machine.active:
            self._count(-1)
            self._bill(machine)
        machine.end()
        machine.power, machine.since = power, self._events.now
        self._later(self._environment.stopping_seconds, machine, self._finish_end)

    def _finish_end(self, machine: Machine) -> None:
        if machine.power is Power.STOPPING:
            machine.power = Power.STOPPED
        else:
            self.disk_seconds += self._events.now - machine.created_at
            del self.machines[machine.instance_id]

    def _bill(self, machine: Machine) -> None:
        if machine.running_since is not None:
            ran = math.ceil(self._events.now - machine.running_since)
            self.billed_seconds += max(self._environment.billed_least_seconds, ran)
            machine.running_since = None

    def _count(self, change: int) -> None:
        if self.active > self.max_instances:
            self.over_cap_seconds += self._events.now - self._active_since
        self._active_since = self._events.now
        self.active += change
        self.most_active = max(self.most_active, self.active)

    def _throttled_seconds(self) -> float:
        """Return how long EC2's token bucket makes a launch wait."""
        environment, now = self._environment, self._events.now
        if environment.launches_per_second is None:
            return 0.0
        refilled = self._tokens + (now - self._tokens_at) * environment.launches_per_second
        self._tokens, self._tokens_at = min(refilled, environment.launches_at_once) - 1, now
        return max(0.0, -self._tokens / environment.launches_per_second)
