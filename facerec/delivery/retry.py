"""Retry steps of one delivery while a service cannot be reached: an outage costs a task time, but no delivery."""

import random
import time
from collections.abc import Callable
from typing import Any, TypeVar, cast

from facerec.background import OutageLog, backoff_seconds
from facerec.errors import FacerecError, Transient

T = TypeVar("T")


class GivenBack(Transient):
    """The worker takes no more tasks: it gives the message back at once, for another worker."""


class RetryBudget:
    """The time that the retries of one delivery may take in all; for one thread.

    `pause(seconds)` waits; it returns False, and at once, when the worker takes no more tasks. During the pause the
    message stays hidden and the task keeps its place, so a worker receives nothing while all its places wait.
    """

    def __init__(
        self,
        seconds: float,
        pause: Callable[[float], bool],
        *,
        monotonic: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._pause = pause
        self._monotonic = monotonic
        self._jitter = jitter
        self._ends_at = monotonic() + seconds

    def retrying(self, port: T, errors: tuple[type[FacerecError], ...] = (Transient,)) -> T:
        """Return the port with every method retried on these errors.

        Raises the last error when the budget is used up, and `GivenBack` when the worker takes no more tasks.
        """
        return cast("T", _RetryingPort(port, self, errors))

    def call(self, step: Callable[[], T], errors: tuple[type[FacerecError], ...]) -> T:
        """Call a step until it raises none of these errors; raises as `retrying` says."""
        outage = OutageLog("service")
        while True:
            try:
                returned = step()
            except errors as exc:
                outage.failed(exc)
                self._wait(outage.failures, exc)
            else:
                outage.succeeded()
                return returned

    def _wait(self, failures: int, exc: FacerecError) -> None:
        seconds = min(backoff_seconds(failures, self._jitter()), self._ends_at - self._monotonic())
        if seconds <= 0:
            raise exc
        if not self._pause(seconds):
            raise GivenBack(str(exc)) from exc


class _RetryingPort:
    """A port whose methods go through a retry budget."""

    def __init__(self, port: object, budget: RetryBudget, errors: tuple[type[FacerecError], ...]) -> None:
        self._port = port
        self._budget = budget
        self._errors = errors

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._port, name)
        return lambda *args, **kwargs: self._budget.call(lambda: method(*args, **kwargs), self._errors)
