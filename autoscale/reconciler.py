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

from autoscale.controller import Controller
from autoscale.observation import FleetByPhase, Instance, Power, Reading, Unreadable
from autoscale.policy import Decision, Hold
from autoscale.ports import Backlog, Fleet, History, Lease
from autoscale.reconcile_result import Action, ActionKind, Cause, ReconcileResult, RoundLog
from facerec.background import backoff_seconds
from facerec.errors import ConfigurationError, FacerecError, InsufficientCapacity, LeaseLost, Throttled

log = structlog.get_logger(__name__)

_FIRST_BACKOFF_SECONDS = 2.0
_LONGEST_BACKOFF_SECONDS = 60.0
_INTERVAL_JITTER = 0.1
"""Share of the interval by which rounds come earlier or later, so that controllers do not act in step."""
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

    def refused(self, reason: str, now: float) -> None:
        """Begin the next wait."""
        if now - self._until >= _LONGEST_BACKOFF_SECONDS:
            self._refusals = 0
        self._refusals += 1
        seconds = backoff_seconds(
            self._refusals, self._jitter(), first=_FIRST_BACKOFF_SECONDS, longest=_LONGEST_BACKOFF_SECONDS
        )
        self._until = now + seconds
        self._reason = f"{reason}; launches wait for {seconds:.1f} s"

    def launched(self, numbers: Iterable[int]) -> None:
        """Watch instances that EC2 accepted; they may still fail to boot: an image, a key or a quota may be missing."""
        self._unreported.update(numbers)

    def observe(self, fleet: Sequence[Instance], now: float) -> None:
        """Look for instances that ended before a report; those that the fleet itself drained are no failures."""
        there = {one.number: one for one in fleet if one.number in self._unreported}
        drained = {number for number, one in there.items() if one.drain_ordered_at is not None}
        reported = {number for number, one in there.items() if one.worker is not None}
        running = {number for number, one in there.items() if one.power is not Power.SHUTTING_DOWN}
        ended = self._unreported - running - drained
        self._unreported -= drained | reported | ended
        if reported:
            self._refusals = 0
        if ended:
            numbers = ", ".join(map(str, sorted(ended)))
            self.refused(f"{numbers} ended before any report (see EC2's state transition reason)", now)

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
        history: History,
        controller: Controller,
        dry_run: bool = False,
        watch: Callable[[ReconcileResult], None] = lambda _: None,
        clock: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._backlog = backlog
        self._fleet = fleet
        self._lease = lease
        self._controller = controller
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
        """Let another controller take over at once."""
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
        result = self._reconciled(began)
        result = replace(result, failures=tuple(self._failures), seconds=self._now() - began)
        if not self._round_log.write(result):
            result = replace(result, failures=(*result.failures, "chronicle"))
        self._watch(result)
        return result

    def _reconciled(self, now: float) -> ReconcileResult:
        try:
            leading = self._dry_run or self._lease.hold()
        except FacerecError as exc:
            self._failures.append(Cause.LEASE)
            self._forget(now)
            hold = Hold(f"the lease could not be renewed: {exc}")
            return ReconcileResult(now, leading=False, decision=hold, cause=Cause.LEASE)
        if leading != self._leading:
            log.info("leading" if leading else "waiting_for_the_lease")
        self._leading = leading
        if not leading:
            self._forget(now)
            return ReconcileResult(now, leading=False)
        observation = self._controller.observe(self._read(now), now)
        decision = self._controller.decide(observation, now)
        estimates = self._controller.estimates(now)
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

    def _forget(self, now: float) -> None:
        """What is needed meanwhile is not observed: the cooldown begins again."""
        not_read = Unreadable("not leading")
        self._controller.step(Reading(not_read, not_read), now)

    def _read(self, now: float) -> Reading:
        self._unstartable = {one: until for one, until in self._unstartable.items() if now < until}
        depth = self._readable(Cause.QUEUE, self._backlog.depth)
        fleet = self._readable(Cause.FLEET, self._fleet.instances)
        if not isinstance(fleet, Unreadable):
            self._backoff.observe(fleet, now)
        return Reading(depth, fleet, no_capacity=self._backoff.reason(now), unstartable=frozenset(self._unstartable))

    def _readable(self, name: str, read: Callable[[], T]) -> T | Unreadable:
        try:
            return read()
        except FacerecError as exc:
            self._failures.append(name)
            return Unreadable(str(exc))

    def _act(self, decision: Decision | Hold, fleet: FleetByPhase) -> tuple[Action, ...]:
        """Repair the fleet and carry the decision out, each part even if another fails, until the lease is lost."""
        numbers = {one.instance_id: one.number for one in fleet.instances}
        actions: list[Action] = []

        def order(kind: ActionKind, ids: Sequence[str], give: Callable[[Sequence[str]], None]) -> None:
            if ids:
                actions.append(self._ordered(kind, tuple(numbers[one] for one in ids), partial(give, ids)))

        try:
            self._repair()
            if isinstance(decision, Hold):
                return ()
            order(ActionKind.RESUME, decision.resume, self._fleet.resume)
            order(ActionKind.START, decision.start, self._start)
            if decision.launch:
                launch = partial(self._launch, decision.launch)
                actions.append(self._ordered(ActionKind.LAUNCH, decision.launch, launch))
            order(ActionKind.DRAIN, decision.drain, partial(self._fleet.drain, now=self._now()))
            stop, terminate = self._confirmed(decision)
            order(ActionKind.STOP, stop, self._fleet.stop)
            order(ActionKind.TERMINATE, terminate, self._fleet.terminate)
        except LeaseLost as exc:
            log.warning("lease_lost", reason=str(exc))
            self._leading = False
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

    def _ordered(self, kind: ActionKind, numbers: tuple[int, ...], give: Callable[[], None]) -> Action:
        """Give one order while the lease is held; raises `LeaseLost`."""
        if self._dry_run:
            return Action(kind, numbers)
        try:
            self._fence()
            give()
        except LeaseLost:
            raise
        except FacerecError as exc:
            log.warning("action_failed", action=kind, instances=numbers, reason=str(exc))
            self._failures.append(kind)
            return Action(kind, numbers, str(exc))
        return Action(kind, numbers)

    def _fence(self) -> None:
        """Raise `LeaseLost` if the readings took longer than the lease lasts."""
        if not self._lease.hold():
            raise LeaseLost("another controller has taken over")

    def _start(self, ids: Sequence[str]) -> None:
        try:
            self._fleet.start(ids)
        except (InsufficientCapacity, Throttled, ConfigurationError) as exc:
            if not isinstance(exc, InsufficientCapacity):
                self._backoff.refused(str(exc), self._now())
            if not isinstance(exc, Throttled):
                until = self._now() + _UNSTARTABLE_SECONDS
                self._unstartable.update((one, until) for one in ids)
            raise

    def _launch(self, numbers: Sequence[int]) -> None:
        try:
            self._fleet.launch(numbers)
        except (InsufficientCapacity, Throttled, ConfigurationError) as exc:
            self._backoff.refused(str(exc), self._now())
            raise
        self._backoff.launched(numbers)

    def _confirmed(self, decision: Decision) -> tuple[Sequence[str], Sequence[str]]:
        """Return the instances that a second reading still wants stopped, and those it wants terminated."""
        if not decision.stop and not decision.terminate:
            return (), ()
        now = self._now()
        again = self._controller.review(self._controller.observe(self._read(now), now), now)
        if isinstance(again, Hold):
            log.warning("ends_not_confirmed", reason=again.reason)
            return (), ()
        stop = [one for one in decision.stop if one in again.stop]
        return stop, [one for one in decision.terminate if one in again.terminate]

    def _now(self) -> float:
        """Return the time; while a clock that was set back catches up, the time stands still."""
        self._latest = max(self._latest, self._clock())
        return self._latest
