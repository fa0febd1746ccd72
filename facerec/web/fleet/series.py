"""Records over time as points for charts: at most 600, without losing a peak. Pure."""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from facerec.fleet_records import SILENT_SECONDS, QueueDepth, RoundRecord

BUCKETS = 200
DECISIONS = 15

QUEUE = ("visible", "in_flight")
INSTANCES = ("serving", "booting", "draining", "stopped", "needed")
Counts = dict[str, int]
Point = tuple[float, Counts | None]
"""A time with the counts that hold from then on; None is a time from which nothing is known."""
Columns = dict[str, list[float | None]]


@dataclass(slots=True)
class _Bucket:
    """The records of one interval."""

    first: RoundRecord
    last: RoundRecord
    busiest: RoundRecord
    """That with the most open tasks."""
    largest: RoundRecord
    """That with the most instances."""
    needed: int

    @classmethod
    def of(cls, record: RoundRecord) -> "_Bucket":
        return cls(record, record, record, record, record.needed)

    def add(self, record: RoundRecord) -> None:
        self.last = record
        self.busiest = max(self.busiest, record, key=lambda one: one.visible + one.in_flight)
        self.largest = max(self.largest, record, key=lambda one: one.active)
        self.needed = max(self.needed, record.needed)

    def points(self) -> list[Point]:
        peak = _counts(self.largest) | {name: getattr(self.busiest, name) for name in QUEUE} | {"needed": self.needed}
        found: list[Point] = [(self.first.at, peak)]
        return found if self.last is self.first else [*found, (self.last.at, _counts(self.last))]


class RecordSeries:
    """The records of the last `seconds`; each holds until the next one, or until nothing is known.

    `before` is the newest record before that time.
    """

    def __init__(self, seconds: float, before: RoundRecord | None) -> None:
        self.seconds = seconds
        self.latest = before
        self.decisions: deque[RoundRecord] = deque(maxlen=DECISIONS)
        """Those that changed the fleet, the newest first."""
        self._width = seconds / BUCKETS
        self._before = before
        self._buckets: dict[int, _Bucket] = {}

    def add(self, records: Iterable[RoundRecord]) -> None:
        """Add records in order of time; those that are there already change nothing."""
        for record in records:
            if self.latest is not None and record.at <= self.latest.at:
                continue
            self.latest = record
            number = int(record.at // self._width)
            if number in self._buckets:
                self._buckets[number].add(record)
            else:
                self._buckets[number] = _Bucket.of(record)
            if record.actions:
                self.decisions.appendleft(record)

    def drop_until(self, moment: float) -> None:
        """Forget what is older."""
        for number in [number for number in self._buckets if (number + 1) * self._width < moment]:
            self._before = self._buckets.pop(number).last
        while self.decisions and self.decisions[-1].at < moment:
            self.decisions.pop()

    def points(self, now: float) -> list[Point]:
        """Return the peaks of up to 200 intervals, each with its last record, and where nothing is known."""
        start = now - self.seconds
        spans = [(bucket.points(), bucket.last) for bucket in self._buckets.values()]
        if self._before is not None and self._before.tells(start):
            spans.insert(0, ([(start, _counts(self._before))], self._before))
        points: list[Point] = []
        ends = [*(span[0][0] for span, _ in spans[1:]), now]
        for (span, last), end in zip(spans, ends, strict=True) if spans else ():
            points += span
            if not last.tells(end):
                points.append((max(last.at + SILENT_SECONDS, start), None))
        if spans and spans[-1][1].tells(now):
            points.append((now, _counts(spans[-1][1])))
        return points


def with_readings(
    points: Sequence[Point],
    readings: Sequence[tuple[float, QueueDepth]],
    latest: RoundRecord | None,
    seconds: float,
    now: float,
) -> list[Point]:
    """Return the points, followed by readings of the queue itself where there are no records.

    `latest` is the newest record. Readings that are close together are thinned to the highest.
    """
    known_until = -math.inf if latest is None else latest.at + SILENT_SECONDS
    width = seconds / BUCKETS
    thinned: dict[int, tuple[float, QueueDepth]] = {}
    for at, depth in readings:
        number = int(at // width)
        if at > max(known_until, now - seconds) and depth.open >= thinned.get(number, (at, depth))[1].open:
            thinned[number] = (at, depth)
    if not thinned:
        return list(points)
    previous = next(iter(thinned.values()))[0]
    found = [point for point in points if point[0] < previous]
    for at, depth in thinned.values():
        if at - previous > max(SILENT_SECONDS, 2 * width):  # no one looked
            found.append((previous + SILENT_SECONDS, None))
        found.append((at, {"visible": depth.visible, "in_flight": depth.in_flight}))
        previous = at
    return found


def columns(points: Sequence[Point], names: Sequence[str]) -> Columns:
    """Return the times as `at`, and the counts of these names."""
    found: Columns = {name: [None if counts is None else counts[name] for _, counts in points] for name in names}
    return {"at": [round(at, 3) for at, _ in points], **found}


def _counts(record: RoundRecord) -> Counts:
    return {name: getattr(record, name) for name in (*QUEUE, *INSTANCES)}
