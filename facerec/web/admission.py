"""Limits how many uploads wait, and shares the places among clients.

An upload that cannot be answered within the wait is refused at once.
"""

import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

SATURATED = 16
"""With fewer waiting uploads the rate does not show the capacity: one worker holds 16 tasks at once."""

WINDOW_SECONDS = 30.0
"""Older completions are ignored, because the fleet grows and shrinks."""

MIN_COMPLETIONS = 10
"""Fewer completions than this are no measurement."""

DEFAULT_RETRY_SECONDS = 5
"""When a refused client may try again, while no rate is known."""


class RefusalCause(StrEnum):
    """Why an upload was not admitted."""

    FULL = "full"
    SLOW = "slow"
    STOPPING = "stopping"


def all_places(max_waiting: int) -> int:
    """Return how many uploads of all clients wait at once, if one client may have `max_waiting`."""
    return max_waiting + math.ceil(max_waiting / 10)


@dataclass(frozen=True, slots=True)
class Refusal:
    """An upload that was not admitted, and when to try again."""

    cause: RefusalCause
    retry_after_seconds: int


class Admission:
    """Counts the waiting uploads of each client and measures how fast answers come; safe for many threads.

    A client alone takes `max_waiting` places, or the uploads that can be answered within the wait, if these are fewer.
    A tenth more is for clients that hold less than their share: the places divided by the clients that hold some. So
    a client that comes later gets a place, and as uploads end, its share.

    `watch` is called with the count whenever it changes. The rate is known only in a busy period: at least ten answers
    in the last 30 s, with at least 16 uploads waiting all the time. So a quiet hour, or a fleet that boots from zero,
    does not count as a slow fleet.
    """

    def __init__(
        self,
        *,
        max_waiting: int,
        wait_seconds: float,
        clock: Callable[[], float] = time.monotonic,
        watch: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._places = all_places(max_waiting)
        self._wait_seconds = wait_seconds
        self._clock = clock
        self._watch = watch
        self._lock = threading.Lock()
        self._held: Counter[str] = Counter()
        """By client; none is 0."""
        self._waiting = 0
        self._completions: deque[float] = deque()
        self._closed = False

    @property
    def waiting(self) -> int:
        """How many uploads have entered and not left."""
        return self._waiting

    @property
    def closed(self) -> bool:
        """Whether every further upload is refused because the process stops."""
        return self._closed

    def enter(self, client: str) -> Refusal | None:
        """Take a place, or return why there is none; a place must be given back by `leave`."""
        with self._lock:
            refusal = self._refusal(client, self._clock())
            if refusal is None:
                self._waiting += 1
                self._held[client] += 1
                self._watch(self._waiting)
            return refusal

    def leave(self, client: str, *, answered: bool) -> None:
        """Give the place back; `answered` says whether a worker's result came."""
        with self._lock:
            self._waiting -= 1
            self._held[client] -= 1
            if not self._held[client]:
                del self._held[client]
            self._watch(self._waiting)
            if answered:
                self._completions.append(self._clock())
            if self._waiting < SATURATED:
                self._completions.clear()

    def close(self) -> None:
        """Refuse every further upload."""
        self._closed = True

    def _refusal(self, client: str, now: float) -> Refusal | None:
        if self._closed:
            return Refusal(RefusalCause.STOPPING, DEFAULT_RETRY_SECONDS)
        rate = self._per_second(now)
        capacity = self._places if rate is None else min(self._places, math.floor(rate * self._wait_seconds))
        open_to_all = capacity * 10 // 11
        share = open_to_all / (len(self._held) + (client not in self._held))
        limit = capacity if self._held[client] < share else open_to_all
        if self._waiting < limit:
            return None
        retry_seconds = DEFAULT_RETRY_SECONDS if rate is None else math.ceil((self._waiting + 1 - limit) / rate)
        return Refusal(RefusalCause.FULL if capacity == self._places else RefusalCause.SLOW, retry_seconds)

    def _per_second(self, now: float) -> float | None:
        while self._completions and self._completions[0] < now - WINDOW_SECONDS:
            self._completions.popleft()
        if len(self._completions) < MIN_COMPLETIONS:
            return None
        elapsed = now - self._completions[0]
        # Up to now, not up to the last completion: so the rate of a fleet that has stopped falls.
        return (len(self._completions) - 1) / elapsed if elapsed > 0 else None
