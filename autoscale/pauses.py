"""How long launches pause after EC2 has refused them, or they came to nothing: no I/O, no clock."""

from collections.abc import Callable, Iterable, Sequence

from autoscale.observation import Instance, Power

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
