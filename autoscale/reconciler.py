"""The loop that makes the fleet what the policy wants: observe, decide, confirm, act; again and again.

All that must outlive the process lies in AWS: another process goes on in the middle of anything. On its end the
instances are left as they are.
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
from autoscale.observation import Instance, Observation, Power, Unreadable
from autoscale.policy import Decision, Hold
from autoscale.ports import Backlog, Chronicle, Fleet, Lease
from autoscale.round_log import Journal
from autoscale.round_result import Action, ActionKind, Cause, Round
from facerec.errors import ConfigurationError, FacerecError, InsufficientCapacity, LeaseLost, Throttled

_FIRST_SECONDS = 2.0
_LONGEST_SECONDS = 60.0


class LaunchPause:
    """Pauses of 2, 4, 8 … 60 s, less up to half by `luck` (from 0 to 1), until a launched instance's worker reports.

    A refusal that comes a minute or more after the last pause is a first one again.
    """

    def __init__(self, luck: Callable[[], float]) -> None:
        self._luck = luck
        self._refusals = 0
        self._until = 0.0
        self._reason = ""
        self._launched: set[int] = set()
        """The numbers of which nothing has been heard yet."""

    def refused(self, reason: str, now: float) -> None:
        """EC2 has refused."""
        if now - self._until >= _LONGEST_SECONDS:
            self._refusals = 0
        longest = min(_FIRST_SECONDS * 2 ** min(self._refusals, 10), _LONGEST_SECONDS)
        seconds = longest * (1 - self._luck() / 2)
        self._refusals += 1
        self._until = now + seconds
        self._reason = f"{reason}; launches pause for {seconds:.1f} s"

    def launched(self, numbers: Iterable[int]) -> None:
        """EC2 has accepted a launch, which may come to nothing still: the image, a key or a limit may be missing."""
        self._launched.update(numbers)

    def observe(self, fleet: Sequence[Instance], now: float) -> None:
        """See what has become of the launches; whom the fleet itself drains or ends is no failure."""
        there = {one.number: one for one in fleet if one.number in self._launched}
        drained = {number for number, one in there.items() if one.drain_ordered_at is not None}
        reported = {number for number, one in there.items() if one.worker is not None}
        running = {number for number, one in there.items() if one.power is not Power.SHUTTING_DOWN}
        ended = self._launched - running - drained
        self._launched -= drained | reported | ended
        if reported:
            self._refusals = 0
        if ended:
            names = ", ".join(map(str, sorted(ended)))
            self.refused(f"{names} ended before any report (EC2 tells why as the state transition reason)", now)

    def reason(self, now: float) -> str | None:
        """Why nothing may be launched at this moment."""
        return self._reason if now < self._until else None


log = structlog.get_logger(__name__)
_JITTER = 0.1
"""Share of the interval by which rounds come earlier or later, so that several controllers do not march in step."""
_UNSTARTABLE_SECONDS = 300.0
"""A stopped instance lives in one zone; where EC2 has no room for it, others are launched for so long instead.

So they are when it may not be started, as by a role that lacks the permission.
"""
T = TypeVar("T")


class Reconciler:
    """Keeps the fleet at the size that the backlog needs, while it holds the lease.

    `clock` tells seconds since the epoch, `luck` a number from 0 to 1; `watch` gets every round when it is over.
    """

    def __init__(
        self,
        *,
        backlog: Backlog,
        fleet: Fleet,
        lease: Lease,
        chronicle: Chronicle,
        controller: Controller,
        watch: Callable[[Round], None] = lambda _: None,
        clock: Callable[[], float] = time.time,
        luck: Callable[[], float] = random.random,
    ) -> None:
        self._backlog = backlog
        self._fleet = fleet
        self._lease = lease
        self._controller = controller
        self._journal = Journal(chronicle, controller.policy.limits)
        self._watch = watch
        self._clock = clock
        self._luck = luck
        self._pause = LaunchPause(luck)
        self._unstartable: dict[str, float] = {}
        self._leading: bool | None = None
        self._latest = 0.0
        self._failures: list[str] = []

    def run(self, stopping: threading.Event, interval_seconds: float) -> None:
        """Do rounds until `stopping` is set, then release the lease; a round in progress is finished."""
        try:
            while not stopping.is_set():
                took = self.round().seconds
                # After a long round there is a pause all the same, so that rounds never run into each other.
                pause = interval_seconds * (1 + _JITTER * (2 * self._luck() - 1))
                stopping.wait(max(pause - took, pause * _JITTER))
        finally:
            self.release()

    def release(self) -> None:
        """Let another controller take over at once."""
        try:
            self._lease.release()
        except FacerecError as exc:
            log.warning("lease_not_released", reason=str(exc))

    def round(self) -> Round:
        """Observe, decide and act once; what fails is logged and told in the round, and tried again in the next."""
        began = self._now()
        self._failures.clear()
        done = replace(self._led(began), failures=tuple(self._failures), seconds=self._now() - began)
        if not self._journal.write(done):
            done = replace(done, failures=(*done.failures, "chronicle"))
        self._watch(done)
        return done

    def _led(self, now: float) -> Round:
        """One round, as far as this controller leads."""
        try:
            leading = self._lease.hold()
        except FacerecError as exc:
            self._failures.append(Cause.LEASE)
            self._forget(now)
            hold = Hold(f"the lease could not be renewed: {exc}")
            return Round(now, leading=False, decision=hold, cause=Cause.LEASE)
        self._turn(leading)
        if not leading:
            self._forget(now)
            return Round(now, leading=False)
        observation = self._controller.heard(self._observed(now), now)  # as the round tells it, too
        decision = self._controller.step(observation, now)
        estimates = self._controller.estimates(now)
        cause: Cause | None = None
        actions: tuple[Action, ...] = ()
        if isinstance(observation.depth, Unreadable):
            cause = Cause.QUEUE
        elif isinstance(observation.fleet, Unreadable):
            cause = Cause.FLEET
        elif isinstance(decision, Decision):
            cause = None if observation.no_capacity is None else Cause.CAPACITY
            actions = self._act(decision, observation.fleet)
        return Round(now, bool(self._leading), observation, decision, estimates, cause, actions)

    def _turn(self, leading: bool) -> None:  # noqa: FBT001 - a state
        if leading != self._leading:
            log.info("leading" if leading else "waiting_for_the_lease")
        self._leading = leading

    def _forget(self, now: float) -> None:
        """What is needed meanwhile is not seen: the cooldown begins anew."""
        unseen = Unreadable("not leading")
        self._controller.step(Observation(unseen, unseen), now)

    def _observed(self, now: float) -> Observation:
        self._unstartable = {one: until for one, until in self._unstartable.items() if now < until}
        depth = self._read(Cause.QUEUE, self._backlog.depth)
        fleet = self._read(Cause.FLEET, self._fleet.instances)
        if not isinstance(fleet, Unreadable):
            self._pause.observe(fleet, now)
        return Observation(depth, fleet, no_capacity=self._pause.reason(now), unstartable=frozenset(self._unstartable))

    def _read(self, name: str, reading: Callable[[], T]) -> T | Unreadable:
        try:
            return reading()
        except FacerecError as exc:
            self._failures.append(name)
            return Unreadable(str(exc))

    def _act(self, decision: Decision, fleet: Sequence[Instance]) -> tuple[Action, ...]:
        """Carry the decision out, each part whatever becomes of the others, until the lease is lost."""
        numbers = {one.instance_id: one.number for one in fleet}
        done: list[Action] = []

        def give(kind: ActionKind, ids: Sequence[str], order: Callable[[Sequence[str]], None]) -> None:
            if ids:
                done.append(self._given(kind, tuple(numbers[one] for one in ids), partial(order, ids)))

        try:
            give(ActionKind.RESUME, decision.resume, self._fleet.resume)
            give(ActionKind.START, decision.start, self._start)
            if decision.launch:
                done.append(self._given(ActionKind.LAUNCH, decision.launch, partial(self._launch, decision.launch)))
            give(ActionKind.DRAIN, decision.drain, partial(self._fleet.drain, now=self._now()))
            stop, terminate = self._confirmed(decision)
            give(ActionKind.STOP, stop, self._fleet.stop)
            give(ActionKind.TERMINATE, terminate, self._fleet.terminate)
        except LeaseLost as exc:
            log.warning("lease_lost", reason=str(exc))
            self._leading = False
        return tuple(done)

    def _given(self, kind: ActionKind, numbers: tuple[int, ...], order: Callable[[], None]) -> Action:
        """Give one order while the lease is held; raises `LeaseLost`."""
        try:
            self._fence()
            order()
        except LeaseLost:
            raise
        except FacerecError as exc:
            log.warning("action_failed", action=kind, instances=numbers, reason=str(exc))
            self._failures.append(kind)
            return Action(kind, numbers, str(exc))
        return Action(kind, numbers)

    def _fence(self) -> None:
        """What was read may have taken longer than the lease lasts."""
        if not self._lease.hold():
            raise LeaseLost("another controller has taken over")

    def _start(self, ids: Sequence[str]) -> None:
        try:
            self._fleet.start(ids)
        except (InsufficientCapacity, Throttled, ConfigurationError) as exc:
            if not isinstance(exc, InsufficientCapacity):
                self._pause.refused(str(exc), self._now())
            if not isinstance(exc, Throttled):
                until = self._now() + _UNSTARTABLE_SECONDS
                self._unstartable.update((one, until) for one in ids)
            raise

    def _launch(self, numbers: Sequence[int]) -> None:
        try:
            self._fleet.launch(numbers)
        except (InsufficientCapacity, Throttled, ConfigurationError) as exc:
            self._pause.refused(str(exc), self._now())
            raise
        self._pause.launched(numbers)

    def _confirmed(self, decision: Decision) -> tuple[Sequence[str], Sequence[str]]:
        """Who is to be stopped and terminated still, when everything is read and decided on anew."""
        if not decision.stop and not decision.terminate:
            return (), ()
        now = self._now()
        again = self._controller.review(self._observed(now), now)
        if isinstance(again, Hold):
            log.warning("ends_not_confirmed", reason=again.reason)
            return (), ()
        stop = [one for one in decision.stop if one in again.stop]
        return stop, [one for one in decision.terminate if one in again.terminate]

    def _now(self) -> float:
        """The time; a clock that is set back stands still instead."""
        self._latest = max(self._latest, self._clock())
        return self._latest
