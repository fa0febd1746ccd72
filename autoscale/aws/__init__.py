"""The autoscaler's ports on AWS (SQS and CloudWatch, EC2, the fleet's table in DynamoDB), and their cached reading."""

from collections.abc import Callable
from typing import Generic, TypeVar

from facerec.background import OutageLog
from facerec.errors import FacerecError

Value = TypeVar("Value")


class CachedReading(Generic[Value]):
    """A value that is read at most once in `every_seconds`, and is `fallback` while it cannot be read.

    Start and end of an outage are logged as events of `subject`. `clock` is monotonic, in seconds.
    """

    def __init__(
        self,
        subject: str,
        read: Callable[[], Value],
        *,
        fallback: Value,
        every_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self._read = read
        self._fallback = fallback
        self._every_seconds = every_seconds
        self._clock = clock
        self._value = fallback
        self._due = -float("inf")
        self._outage = OutageLog(subject)

    def value(self) -> Value:
        """Return the latest reading, or a new one if that is too old."""
        return self.refresh() if self._clock() >= self._due else self._value

    def refresh(self) -> Value:
        """Read now; returns the new reading."""
        try:
            self._value = self._read()
        except FacerecError as exc:
            self._outage.failed(exc)
            self._value = self._fallback
        else:
            self._outage.succeeded()
        self._due = self._clock() + self._every_seconds
        return self._value
