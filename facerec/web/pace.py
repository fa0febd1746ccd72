"""Whether a client keeps up: a leaky bucket of seconds, filled by bytes. Pure; the time comes from outside."""

CREDIT_SECONDS = 10
"""How far ahead bytes pay: a client that was fast may stall for this long before it falls behind at all. Without an end
to it, whoever sends megabytes at once may sit on them for hours."""


class Pace:
    """How many seconds a client is behind a speed: time passes, and each byte pays for its part of a second."""

    def __init__(self, bytes_per_second: float, now: float) -> None:
        self._bytes_per_second = bytes_per_second
        self._paid_until = now

    def restart(self, now: float) -> None:
        """Forget what was owed and what was paid ahead."""
        self._paid_until = now

    def pay(self, count: int, now: float) -> None:
        """Note that so many bytes have passed."""
        self._paid_until = min(self._paid_until + count / self._bytes_per_second, now + CREDIT_SECONDS)

    def excuse(self, seconds: float) -> None:
        """Leave out seconds that were not the client's."""
        self._paid_until += seconds

    def behind(self, now: float) -> float:
        """The seconds that are owed; less than 0 when some are paid ahead."""
        return now - self._paid_until
