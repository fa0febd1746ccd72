"""Workers' reports and drain orders in memory; tests/contracts compares them with DynamoDB."""

import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from facerec.messages import WorkerRecord, WorkerReport, WorkerState

READY = WorkerReport(
    instance_id="i-1",
    state=WorkerState.READY,
    ready_at=1_700_000_000.125,
    reported_at=1_700_000_012.3456789,
    held=0,
    idle_since=1_700_000_010.5,
    tasks_done=3,
    saturated_seconds=0.1 + 0.2,
    saturated_tasks=2,
)
"""A worker that has done something and has nothing to do."""


class InMemoryWorkerReports:
    """`WorkerReports` in dictionaries, safe for many threads. While `outage` is set every call raises it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reports: dict[str, WorkerReport] = {}
        self._orders: dict[str, float] = {}
        self.outage: Exception | None = None
        self.unreadable: set[str] = set()
        """Instances whose report cannot be read."""

    def report(self, report: WorkerReport) -> bool:
        """Store the report; returns whether there is an order."""
        with self._lock:
            self._reach()
            self._reports[report.instance_id] = report
            self.unreadable.discard(report.instance_id)
            return report.instance_id in self._orders

    def records(self, instance_ids: Iterable[str]) -> Mapping[str, WorkerRecord]:
        """Return a copy."""
        with self._lock:
            self._reach()
            return {
                name: WorkerRecord(self._reports.get(name), self._orders.get(name), unreadable=name in self.unreadable)
                for name in set(instance_ids) & (self._reports.keys() | self._orders.keys() | self.unreadable)
            }

    def order_drain(self, instance_id: str, ordered_at: float) -> None:
        """Keep the first order."""
        with self._lock:
            self._reach()
            self._orders.setdefault(instance_id, ordered_at)

    def cancel_drain(self, instance_id: str) -> None:
        """Drop the order."""
        with self._lock:
            self._reach()
            self._orders.pop(instance_id, None)

    def forget(self, instance_id: str) -> None:
        """Drop both."""
        with self._lock:
            self._reach()
            self._reports.pop(instance_id, None)
            self._orders.pop(instance_id, None)
            self.unreadable.discard(instance_id)

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Block all calls meanwhile."""
        with self._lock:
            yield

    def _reach(self) -> None:
        if self.outage is not None:
            raise self.outage
