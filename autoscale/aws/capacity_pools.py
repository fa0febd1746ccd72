"""Where instances may be had: instance types and subnets, the first preferred, and which of them had none lately."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

from autoscale.aws.instances import Offer

REST_SECONDS = 120.0
"""EC2's shortages last minutes; a launch elsewhere is quicker than to ask again."""
_LONGEST_REST_SECONDS = 960.0


@dataclass(slots=True)
class _Rest:
    until: float
    seconds: float
    code: str


class Offers:
    """The offers in the order of preference; `clock` is monotonic, in seconds.

    One that had no instance rests for two minutes, and for twice as long each time that it still has none.
    """

    def __init__(
        self, types: Sequence[str], subnet_ids: Sequence[str], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._offers = [Offer(kind, subnet) for kind, subnet in product(types, subnet_ids or (None,))]
        self._clock = clock
        self._rests: dict[Offer, _Rest] = {}

    def best(self) -> Offer | None:
        """The first one that does not rest."""
        now = self._clock()
        return next((offer for offer in self._offers if self._left(offer, now) <= 0), None)

    def refuse(self, offer: Offer, code: str) -> None:
        """EC2 had no instance there, and said so by this code."""
        rested = self._rests.get(offer)
        seconds = REST_SECONDS if rested is None else min(2 * rested.seconds, _LONGEST_REST_SECONDS)
        self._rests[offer] = _Rest(self._clock() + seconds, seconds, code)

    def accept(self, offer: Offer) -> None:
        """EC2 had one."""
        self._rests.pop(offer, None)

    def shortage(self) -> str:
        """What was refused why, and what to do, as a sentence for people."""
        now = self._clock()
        tried = ", ".join(f"{offer} ({rest.code})" for offer, rest in self._rests.items())
        soonest = min((self._left(offer, now) for offer in self._offers), default=0.0)
        return (
            f"EC2 has no instance of {tried}; it is asked again in {max(0.0, soonest):.0f} s; offer more with "
            "FACEREC_INSTANCES__TYPES or FACEREC_INSTANCES__SUBNET_IDS, or raise the account's quota"
        )

    def _left(self, offer: Offer, now: float) -> float:
        rest = self._rests.get(offer)
        return 0.0 if rest is None else rest.until - now
