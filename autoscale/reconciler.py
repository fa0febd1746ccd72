"""The loop that makes the fleet what the policy wants: observe, repair, decide, act, confirm, end.

All that must outlive the process lies in AWS, so that another process can go on at any point. When the loop ends, the
instances stay as they are.
"""

import random
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

import structlog

from autoscale.decider import Decider
from autoscale.observation import FleetByPhase, Instance, Power, Reading, Unreadable
from autoscale.policy import ActionKind, Decision, Hold
from autoscale.ports import Backlog, Fleet, Lease
from autoscale.reconcile_result import Action, Cause, ReconcileResult, RoundLog
from facerec.background import backoff_seconds
from facerec.errors import ConfigurationError, FacerecError, InsufficientCapacity, LeaseLost, Throttled
from facerec.ports import FleetHistory

log = structlog.get_logger(__name__)

_FIRST_BACKOFF_SECONDS = 2.0
_LONGEST_BACKOFF_SECONDS = 60.0
_INTERVAL_JITTER = 0.1
"""Share of the interval by which rounds come earlier or later, so that autoscalers do not act in step."""
_UNSTARTABLE_SECONDS = 300.0
"""For so long others are launched instead of a stopped instance that EC2 has no room for, or may not start."""
T = TypeVar("T")


class LaunchBackoff:
    """Waits 2, 4, 8 … 60 s after refused launches, less up to half by `jitter` (0 to 1).

    It begins again at 2 s when a launched instance's worker reports, and a minute after the last wait.
    """

    def __init__(self, jitter: Callable[[], float]) -> None:
        self._jitter = jitter
        self._refusals = 0
        self._until = 0.0
        self._reason = ""
        self._unreported: set[int] = set()
        """Numbers of launched instances whose workers have not reported yet."""

    def begin_wait(self, reason: str, now: float) -> None:
        """Begin the next wait, because EC2 refused a launch."""
        if now - self._until >= _LONGEST_BACKOFF_SECONDS:
            self._refusals = 0
        self._refusals += 1
        seconds = backoff_seconds(
            self._refusals, self._jitter(), first=_FIRST_BACKOFF_SECONDS, longest=_LONGEST_BACKOFF_SECONDS
        )
        self._until = now + seconds
        self._reason = f"{reason}; launches wait for {seconds:.1f} s"

    def watch(self, numbers: Iterable[int]) -> None:
        """Watch accepted launches: an instance may still fail to boot, as an image, a key or a quota may be missing."""
        self._unreported.update(numbers)

    def observe(self, fleet: Sequence[Instance], now: float) -> None:
        """Look for instances that ended before a report; those that the fleet itself drained are no failures."""
        unreported = [instance for instance in fleet if instance.number in self._unreported]
        drained = {instance.number for instance in unreported if instance.drain_ordered_at is not None}
        reported = {
            instance.number for instance in unreported if instance.report is not None or instance.report_unreadable
        }
        running = {instance.number for instance in unreported if instance.power is not Power.SHUTTING_DOWN}
        ended = self._unreported - running - drained
        self._unreported -= drained | reported | ended
        if reported:
            self._refusals = 0
        if ended:
            numbers = ", ".join(map(str, sorted(ended)))
            self.begin_wait(f"{numbers} ended before any report (see EC2's state transition reason)", now)

    def reason(self, now: float) -> str | None:
        """Return why nothing may be launched at this moment."""
        return self._reason if now < self._until else None


class Reconciler:
    """Keeps the fleet at the size that the backlog needs, while it holds the lease.

    A dry run needs no lease, decides, and changes nothing. `clock` returns seconds since the epoch, `jitter` a number
    from 0 to 1; `watch` gets every result.
    """

    def __init__(
        self,
        *,
        backlog: Backlog,
        fleet: Fleet,
        lease: Lease,
        history: FleetHistory,
        decider: Decider,
        dry_run: bool = False,
        watch: Callable[[ReconcileResult], None] = lambda _: None,
        clock: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._backlog = backlog
        self._fleet = fleet
        self._lease = lease
        self._decider = decider
        self._dry_run = dry_run
        self._round_log = RoundLog(None if dry_run else history)
        self._watch = watch
        self._clock = clock
        self._jitter = jitter
        self._backoff = LaunchBackoff(jitter)
        self._unstartable: dict[str, float] = {}
        self._leading: bool | None = None
        self._latest = 0.0
        self._failures: list[str] = []

    def run(self, stopping: threading.Event, interval_seconds: float) -> None:
        """Do rounds until `stopping` is set, then release the lease; a round in progress is finished."""
        try:
            while not stopping.is_set():
                took = self.round().seconds
                # Also after a long round there is a wait, so that rounds never follow each other at once.
                wait = interval_seconds * (1 + _INTERVAL_JITTER * (2 * self._jitter() - 1))
                stopping.wait(max(wait - took, wait * _INTERVAL_JITTER))
        finally:
            self.release()

    def release(self) -> None:
        """Let another autoscaler take over at once."""
        if self._dry_run:
            return
        try:
            self._lease.release()
        except FacerecError as exc:
            log.warning("lease_not_released", reason=str(exc))

    def round(self) -> ReconcileResult:
        """Observe, decide and act once; failures are logged, returned, and tried again in the next round."""
        began = self._now()
        self._failures.clear()
        result = self._reconcile(began)
        result = replace(result, failures=tuple(self._failures), seconds=self._now() - began)
        if not self._round_log.write(result):
            result = replace(result, failures=(*result.failures, "history"))
        self._watch(result)
        return result

    def _reconcile(self, now: float) -> ReconcileResult:
        try:
            leading = self._dry_run or self._lease.acquire_or_renew()
        except FacerecError as exc:
            self._failures.append(Cause.LEASE)
            self._decider.restart_cooldown()
            hold = Hold(f"the lease could not be renewed: {exc}")
            return ReconcileResult(now, leading=False, decision=hold, cause=Cause.LEASE)
        if leading != self._leading:
            log.info("leading" if leading else "waiting_for_the_lease")
        self._leading = leading
        if not leading:
            self._decider.restart_cooldown()
            return ReconcileResult(now, leading=False)
        observation = self._decider.observe(self._read(now), now)
        decision = self._decider.decide(observation, now)
        estimates = self._decider.estimates(now)
        cause: Cause | None = None
        if isinstance(observation.depth, Unreadable):
            cause = Cause.QUEUE
        elif isinstance(observation.fleet, Unreadable):
            cause = Cause.FLEET
        elif observation.no_capacity is not None:
            cause = Cause.CAPACITY
        actions: tuple[Action, ...] = ()
        if not isinstance(observation.fleet, Unreadable):
            actions = self._act(decision, observation.fleet)
        return ReconcileResult(now, bool(self._leading), observation, decision, estimates, cause, actions)

    def _read(self, now: float) -> Reading:
        self._unstartable = {name: until for name, until in self._unstartable.items() if now < until}
        depth = self._try_read(Cause.QUEUE, self._backlog.depth)
        fleet = self._try_read(Cause.FLEET, self._fleet.instances)
        if not isinstance(fleet, Unreadable):
            self._backoff.observe(fleet, now)
        return Reading(depth, fleet, no_capacity=self._backoff.reason(now), unstartable=frozenset(self._unstartable))

    def _try_read(self, name: str, read: Callable[[], T]) -> T | Unreadable:
        try:
            return read()
        except FacerecError as exc:
            self._failures.append(name)
            return Unreadable(str(exc))

    def _act(self, decision: Decision | Hold, fleet: FleetByPhase) -> tuple[Action, ...]:
        """Repair the fleet and carry the decision out, each part even if another fails, until the lease is lost."""
        numbers = {instance.instance_id: instance.number for instance in fleet.instances}
        actions: list[Action] = []

        def act(kind: ActionKind, ids: Sequence[str], call: Callable[[Sequence[str]], None]) -> None:
            if ids:
                actions.append(self._carry_out(kind, tuple(numbers[name] for name in ids), partial(call, ids)))

        try:
            self._repair()
            if isinstance(decision, Hold):
                return ()
            act(ActionKind.RESUME, decision.resume, self._fleet.resume)
            act(ActionKind.START, decision.start, self._start)
            if decision.launch:
                launch = partial(self._launch, decision.launch)
                actions.append(self._carry_out(ActionKind.LAUNCH, decision.launch, launch))
            act(ActionKind.DRAIN, decision.drain, partial(self._fleet.drain, now=self._now()))
            stop, terminate = self._confirm_ends(decision)
            act(ActionKind.STOP, stop, self._fleet.stop)
            act(ActionKind.TERMINATE, terminate, self._fleet.terminate)
        except LeaseLost as exc:
            log.warning("lease_lost", reason=str(exc))
            self._leading = False
            self._decider.restart_cooldown()
        return tuple(actions)

    def _repair(self) -> None:
        if self._dry_run:
            return
        try:
            self._fleet.repair()
        except LeaseLost:
            raise
        except FacerecError as exc:
            log.warning("fleet_not_repaired", reason=str(exc))
            self._failures.append(Cause.FLEET)

    def _carry_out(self, kind: ActionKind, numbers: tuple[int, ...], call: Callable[[], None]) -> Action:
        """Renew the lease and do one action; raises `LeaseLost`."""
        if self._dry_run:
            return Action(kind, numbers)
        try:
            self._renew_lease()
            call()
        except LeaseLost:
            raise
        except FacerecError as exc:
            log.warning("action_failed", action=kind, instances=numbers, reason=str(exc))
            self._failures.append(kind)
            return Action(kind, numbers, str(exc))
        return Action(kind, numbers)

    def _renew_lease(self) -> None:
        """Renew the lease, because the readings may have taken longer than it lasts; raises `LeaseLost`."""
        if not self._lease.acquire_or_renew():
            raise LeaseLost("another autoscaler has taken over")

    def _start(self, ids: Sequence[str]) -> None:
        try:
            self._fleet.start(ids)
        except (InsufficientCapacity, Throttled, ConfigurationError) as exc:
            if not isinstance(exc, InsufficientCapacity):
                self._backoff.begin_wait(str(exc), self._now())
            if not isinstance(exc, Throttled):
                until = self._now() + _UNSTARTABLE_SECONDS
                self._unstartable.update((name, until) for name in ids)
            raise

    def _launch(self, numbers: Sequence[int]) -> None:
        try:
            self._fleet.launch(numbers)
        except (InsufficientCapacity, Throttled, ConfigurationError) as exc:
            self._backoff.begin_wait(str(exc), self._now())
            raise
        self._backoff.watch(numbers)

    def _confirm_ends(self, decision: Decision) -> tuple[Sequence[str], Sequence[str]]:
        """Read again; returns the instances that are still to be stopped, and those still to be terminated."""
        if not decision.stop and not decision.terminate:
            return (), ()
        now = self._now()
        again = self._decider.review(self._decider.observe(self._read(now), now), now)
        if isinstance(again, Hold):
            log.warning("ends_not_confirmed", reason=again.reason)
            return (), ()
        stop = [name for name in decision.stop if name in again.stop]
        return stop, [name for name in decision.terminate if name in again.terminate]

    def _now(self) -> float:
        """Return the time; while a clock that was set back catches up, the time stands still."""
        self._latest = max(self._latest, self._clock())
        return self._latest
