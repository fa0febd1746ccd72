"""Answers and waits of this web instance over the last hour, from the metrics of its processes."""

import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from facerec.background import BackgroundThread, OutageLog
from facerec.web.metrics import WAIT_BOUNDS, UploadTotals

SAMPLE_SECONDS = 5.0
KEPT_SECONDS = 3600.0
POINTS = 200


@dataclass(frozen=True, slots=True)
class TrafficSample:
    """The uploads that ended in an interval."""

    at: float
    """Its end, in seconds since the epoch."""
    seconds: float
    answers: int
    waits: tuple[int, ...]
    """As in `UploadTotals`."""
    waiting: int
    """Uploads that waited for their result at the end; the most, if samples were added up."""

    @property
    def answers_per_second(self) -> float:
        """The throughput."""
        return self.answers / self.seconds

    def wait_seconds(self, share: float) -> float | None:
        """Return a quantile of the waits, about as exact as the bounds are close; None without any wait."""
        return quantile(self.waits, share)


class Traffic:
    """Samples the totals every 5 s in a thread, and keeps an hour; `now` returns seconds since the epoch."""

    def __init__(self, read: Callable[[], UploadTotals], *, now: Callable[[], float] = time.time) -> None:
        self._read = read
        self._now = now
        self._last, self._last_at = read(), now()
        self._samples: deque[TrafficSample] = deque(maxlen=int(KEPT_SECONDS / SAMPLE_SECONDS))
        self._outage = OutageLog("metrics")
        self._thread = BackgroundThread("traffic", self._run)

    def start(self) -> None:
        """Begin to sample."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._thread.stop()

    def sample(self) -> None:
        """Add what has happened since the last sample."""
        totals, at = self._read(), self._now()
        if at <= self._last_at:  # the clock was set back
            self._last, self._last_at = totals, at
            return
        # A counter can only appear to decrease, while the file of a process that ends is merged.
        waits = tuple(max(0, new - old) for old, new in zip(self._last.waits, totals.waits, strict=True))
        answers = max(0, totals.answers - self._last.answers)
        self._samples.append(TrafficSample(at, at - self._last_at, answers, waits, totals.waiting))
        self._last, self._last_at = totals, at

    def samples(self, since: float) -> list[TrafficSample]:
        """Return the samples since a moment, the oldest first; more than 200 are added up to fewer."""
        found = [sample for sample in list(self._samples) if sample.at >= since]
        size = max(1, -(-len(found) // POINTS))
        # Groups begin at fixed moments, so that a point that was drawn does not change later.
        groups: dict[int, list[TrafficSample]] = {}
        for sample in found:
            groups.setdefault(int(sample.at // (size * SAMPLE_SECONDS)), []).append(sample)
        return [added_up(group) for group in groups.values()]

    def latest(self, seconds: float) -> TrafficSample | None:
        """Return the last samples added up, those of so many seconds, with the uploads that wait now; None without."""
        found = [sample for sample in list(self._samples) if sample.at > self._now() - seconds]
        return replace(added_up(found), waiting=found[-1].waiting) if found else None

    def _run(self, stopping: threading.Event) -> None:
        while not stopping.wait(SAMPLE_SECONDS):
            try:
                self.sample()
            except Exception as exc:  # noqa: BLE001 - whatever the metrics' files hold, it must not end the thread
                self._outage.failed(exc)
            else:
                self._outage.succeeded()


def added_up(samples: Sequence[TrafficSample]) -> TrafficSample:
    """Return one sample for several, at least one, in order of time."""
    return TrafficSample(
        at=samples[-1].at,
        seconds=sum(sample.seconds for sample in samples),
        answers=sum(sample.answers for sample in samples),
        waits=tuple(map(sum, zip(*(sample.waits for sample in samples), strict=True))),
        waiting=max(sample.waiting for sample in samples),
    )


def quantile(waits: Sequence[int], share: float) -> float | None:
    """Return the wait that a share of the uploads did not exceed, as Prometheus' `histogram_quantile` interpolates."""
    reached = list(accumulate(waits))
    if not reached[-1]:
        return None
    rank = share * reached[-1]
    index = bisect_left(reached, rank)
    if index == len(WAIT_BOUNDS):  # longer than the last bound: no more is known
        return float(WAIT_BOUNDS[-1])
    lower = WAIT_BOUNDS[index - 1] if index else 0.0
    below = reached[index - 1] if index else 0
    return lower + (WAIT_BOUNDS[index] - lower) * (rank - below) / waits[index]
