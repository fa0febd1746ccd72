"""A reading that is good to have, taken now and then, whose failure must not stop the fleet."""

from collections.abc import Callable
from typing import Generic, TypeVar

import structlog

from facerec.errors import FacerecError

log = structlog.get_logger(__name__)

Value = TypeVar("Value")


class Polled(Generic[Value]):
    """The value of `read`, asked for at most once in `every_seconds`; `fallback` while it cannot be read.

    A failure is logged once, until a reading succeeds again. `clock` is monotonic, in seconds.
    """

    def __init__(
        self,
        what: str,
        read: Callable[[], Value],
        *,
        fallback: Value,
        every_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self._what = what
        self._read = read
        self._fallback = fallback
        self._every_seconds = every_seconds
        self._clock = clock
        self._value = fallback
        self._due = -float("inf")
        self._failing = False

    def value(self) -> Value:
        """The latest reading."""
        return self.anew() if self._clock() >= self._due else self._value

    def anew(self) -> Value:
        """A reading of this moment."""
        try:
            self._value = self._read()
        except FacerecError as exc:
            if not self._failing:
                log.warning("reading_failed", what=self._what, reason=str(exc))
            self._value, self._failing = self._fallback, True
        else:
            self._failing = False
        self._due = self._clock() + self._every_seconds
        return self._value
