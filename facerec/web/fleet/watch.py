"""One service for the view of the fleet: what is, what was, and what the autoscaler decided."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from facerec.errors import FacerecError
from facerec.fleet_records import QueueDepth, RoundRecord
from facerec.ports import FleetHistory
from facerec.web.fleet.series import (
    INSTANCES,
    QUEUE,
    Columns,
    Point,
    RecordSeries,
    columns,
    with_readings,
)
from facerec.web.fleet.traffic import KEPT_SECONDS, Traffic, TrafficSample

FRESH_SECONDS = 2.0
"""Queue and history are read at most so often, for all who look."""
_RECENT_SECONDS = 60.0
"""Throughput and waits of "now" are those of the last minute."""
_READINGS = int(KEPT_SECONDS / FRESH_SECONDS)

RANGES = {"15m": 900.0, "1h": 3600.0, "6h": 6 * 3600.0, "24h": 24 * 3600.0, "7d": 7 * 24 * 3600.0}
"""How far back a viewer may look, in seconds."""

Problem = str
"""Why something could not be read."""


@dataclass(frozen=True, slots=True)
class FleetNow:
    """The present; each source may be unreadable while the others are readable."""

    at: float
    """In seconds since the epoch."""
    queue: QueueDepth | Problem
    record: RoundRecord | Problem | None
    """The autoscaler's newest record of the last week."""
    traffic: TrafficSample | None
    """The last minute of this web instance; None just after its start."""

    @property
    def fleet(self) -> RoundRecord | None:
        """The newest record if it tells the present, which it does while work is recorded, or since there is none."""
        return self.record if isinstance(self.record, RoundRecord) and self.record.tells(self.at) else None


@dataclass(frozen=True, slots=True)
class FleetSeries:
    """Columns for charts, each with the column `at` of its times."""

    since: float
    until: float
    queue: Columns
    instances: Columns
    traffic: Columns
    """Of the last hour at most."""
    problem: Problem | None
    """Why there are no records."""


class FleetWatch:
    """Reads queue and history for viewers, each at most every two seconds; safe for many threads."""

    def __init__(
        self,
        *,
        read_depth: Callable[[], QueueDepth],
        history: FleetHistory,
        traffic: Traffic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._read_depth = read_depth
        self._traffic = traffic
        self._now = now
        self._records = {seconds: _SharedSeries(history, seconds, now) for seconds in RANGES.values()}
        self._lock = threading.Lock()
        self._depth: QueueDepth | Problem = "it has not been read yet"
        self._depth_at = float("-inf")
        self._readings: deque[tuple[float, QueueDepth]] = deque(maxlen=_READINGS)

    def now(self) -> FleetNow:
        """Return the present."""
        at = self._now()
        record: RoundRecord | Problem | None
        try:
            with self._records[min(self._records)].read() as records:
                record = records.latest
        except FacerecError as exc:
            record = str(exc)
        return FleetNow(at, self._queue(at), record, self._traffic.latest(_RECENT_SECONDS))

    def series(self, seconds: float) -> FleetSeries:
        """Return the last so many seconds, one of `RANGES`, as at most 600 points."""
        now = self._now()
        self._queue(now)
        points: list[Point] = []
        latest: RoundRecord | None = None
        problem: Problem | None = None
        try:
            with self._records[seconds].read() as records:
                points, latest = records.points(now), records.latest
        except FacerecError as exc:
            problem = str(exc)
        return FleetSeries(
            since=now - seconds,
            until=now,
            queue=columns(with_readings(points, list(self._readings), latest, seconds, now), QUEUE),
            instances=columns(points, INSTANCES),
            traffic=_traffic_columns(self._traffic.samples(now - seconds)),
            problem=problem,
        )

    def decisions(self, seconds: float) -> Sequence[RoundRecord]:
        """Return the records whose rounds changed the fleet, the newest first, at most 15; raises as the history."""
        with self._records[seconds].read() as records:
            return tuple(records.decisions)

    def _queue(self, at: float) -> QueueDepth | Problem:
        with self._lock:
            if at - self._depth_at >= FRESH_SECONDS:
                self._depth_at = at
                try:
                    self._depth = self._read_depth()
                except FacerecError as exc:
                    self._depth = str(exc)
                else:
                    self._readings.append((at, self._depth))
            return self._depth


class _SharedSeries:
    """The history's records of the last `seconds`, of which only what is new is read."""

    def __init__(self, history: FleetHistory, seconds: float, now: Callable[[], float]) -> None:
        self._history = history
        self._seconds = seconds
        self._now = now
        self._lock = threading.Lock()
        self._series: RecordSeries | None = None
        self._read_at = 0.0

    @contextmanager
    def read(self) -> Iterator[RecordSeries]:
        """Yield the series, which no other thread changes meanwhile; raises as the history."""
        with self._lock:
            now = self._now()
            start = now - self._seconds
            series = self._series
            if series is None or self._read_at < start:  # no one has looked for that long
                series = RecordSeries(self._seconds, self._history.latest(start))
                series.add(self._history.records(start))
                self._series, self._read_at = series, now
            elif now - self._read_at >= FRESH_SECONDS:
                series.add(self._history.records(start if series.latest is None else max(series.latest.at, start)))
                self._read_at = now
            series.drop_until(start)
            yield series


def _traffic_columns(samples: Sequence[TrafficSample]) -> Columns:
    def rounded(value: float | None) -> float | None:
        return None if value is None else round(value, 3)

    return {
        "at": [round(sample.at, 3) for sample in samples],
        "answers": [rounded(sample.answers_per_second) for sample in samples],
        "median": [rounded(sample.wait_seconds(0.5)) for sample in samples],
        "p95": [rounded(sample.wait_seconds(0.95)) for sample in samples],
        "waiting": [float(sample.waiting) for sample in samples],
    }
