"""Trying a step again while its service is out of reach, so that an outage costs a task time but no delivery."""

import random
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeVar

import structlog

from facerec.aws.sqs.queue import pause_seconds
from facerec.celery_sqs.consumer_gate import Intake
from facerec.errors import QueueMissing, Transient

log = structlog.get_logger(__name__)

T = TypeVar("T")


class Interrupted(Transient):
    """The worker is to take no more tasks: another one shall go on with this one."""


class Patience:
    """What one delivery's steps have in common: the time that they may wait for in all; for one thread.

    The message stays hidden and its place taken: while all places wait nothing is received.
    """

    def __init__(
        self,
        seconds: float,
        intake: Intake,
        resting: Callable[[], AbstractContextManager[None]],
        *,
        monotonic: Callable[[], float] = time.monotonic,
        luck: Callable[[], float] = random.random,
    ) -> None:
        self._intake = intake
        self._resting = resting
        self._monotonic = monotonic
        self._luck = luck
        self._until = monotonic() + seconds

    def insist(self, step: Callable[[], T], /) -> T:
        """Carry out the step, again after growing pauses while it raises `Transient` or `QueueMissing`.

        Raises what it raised last when the time is over, and `Interrupted` when no tasks are taken any more.
        """
        failures = 0
        while True:
            try:
                return step()
            except (Transient, QueueMissing) as exc:
                failures += 1
                if failures == 1:
                    log.warning("waiting", reason=str(exc))
                self._rest_after(failures, exc)

    def _rest_after(self, failures: int, exc: Transient | QueueMissing) -> None:
        pause = min(pause_seconds(failures, self._luck()), self._until - self._monotonic())
        if pause <= 0:
            raise exc
        with self._resting():
            taken = self._intake.rest(pause)
        if not taken:
            raise Interrupted(str(exc)) from exc
