"""How long launches pause after EC2 has refused them: no I/O, no clock."""

from collections.abc import Callable

_FIRST_SECONDS = 2.0
_LONGEST_SECONDS = 60.0


class LaunchPause:
    """Pauses of 2, 4, 8 … 60 s, less up to half by `luck` (from 0 to 1), until a launch succeeds.

    A refusal that comes a minute or more after the last pause is a first one again.
    """

    def __init__(self, luck: Callable[[], float]) -> None:
        self._luck = luck
        self._refusals = 0
        self._until = 0.0
        self._reason = ""

    def refused(self, reason: str, now: float) -> None:
        """EC2 has refused."""
        if now - self._until >= _LONGEST_SECONDS:
            self._refusals = 0
        longest = min(_FIRST_SECONDS * 2 ** min(self._refusals, 10), _LONGEST_SECONDS)
        seconds = longest * (1 - self._luck() / 2)
        self._refusals += 1
        self._until = now + seconds
        self._reason = f"{reason}; launches pause for {seconds:.1f} s"

    def succeeded(self) -> None:
        """EC2 has launched."""
        self._refusals = 0

    def reason(self, now: float) -> str | None:
        """Why nothing may be launched at this moment."""
        return self._reason if now < self._until else None
