"""The ledger of erasures and the gallery readers in memory; tests/contracts compares them with DynamoDB."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from facerec.access_records import AccessRecord
from facerec.erasure_records import ErasureRecord, ReaderReport
from facerec.errors import FacerecError, LeaseLost
from facerec.gallery import erasure_steps as steps
from facerec.gallery.erasure import Erasures
from facerec.settings import Settings
from tests.fakes.dead_letters import InMemoryDeadLetterQueue
from tests.fakes.object_store import InMemoryObjectStore
from tests.fakes.person_records import InMemoryPersonRecords
from tests.fakes.templates import InMemoryTemplateStore


class InMemoryErasureLedger:
    """`ErasureLedger` in a dictionary."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._records: dict[str, str] = {}
        self._leases: dict[str, tuple[str, float]] = {}

    def add(self, record: ErasureRecord, owner: str, seconds: float) -> None:
        """Add an open erasure, leased to its owner."""
        with self._lock:
            self._records[record.erasure_id] = record.to_json()
            self._leases[record.erasure_id] = (owner, self._clock() + seconds)

    def get(self, erasure_id: str) -> ErasureRecord | None:
        """Return an erasure, open or complete."""
        with self._lock:
            stored = self._records.get(erasure_id)
            return None if stored is None else ErasureRecord.parse(stored)

    def open(self) -> list[ErasureRecord]:
        """Return the open erasures, oldest first."""
        return [record for record in self._sorted() if not record.complete]

    def complete(self) -> list[ErasureRecord]:
        """Return the complete erasures, oldest first."""
        return [record for record in self._sorted() if record.complete]

    def lease(self, erasure_id: str, owner: str, seconds: float) -> ErasureRecord | None:
        """Lease an open erasure."""
        record = self.get(erasure_id)
        with self._lock:
            holder, until = self._leases.get(erasure_id, ("", 0.0))
            if record is None or record.complete or (until > self._clock() and holder != owner):
                return None
            self._leases[erasure_id] = (owner, self._clock() + seconds)
            return record

    def save(self, record: ErasureRecord, owner: str, *, seconds: float = 0, release: bool = False) -> None:
        """Write the record if the lease is still its owner's."""
        with self._lock:
            stored = self._records.get(record.erasure_id)
            open_ = stored is not None and not ErasureRecord.parse(stored).complete
            if not open_ or self._leases[record.erasure_id][0] != owner:
                raise LeaseLost(f"another process works on erasure {record.erasure_id}")
            self._records[record.erasure_id] = record.to_json()
            self._leases[record.erasure_id] = ("", 0.0) if release else (owner, self._clock() + seconds)

    def _sorted(self) -> list[ErasureRecord]:
        with self._lock:
            records = [ErasureRecord.parse(stored) for stored in self._records.values()]
        return sorted(records, key=lambda record: (record.begun_at, record.erasure_id))


class InMemoryGalleryReaders:
    """`GalleryReaders` in a dictionary. While `outage` is set every call raises it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reports: dict[str, ReaderReport] = {}
        self.outage: FacerecError | None = None

    def report(self, report: ReaderReport) -> None:
        """Replace the report of its reader."""
        self._check()
        with self._lock:
            self._reports[report.reader_id] = report

    def reports(self) -> list[ReaderReport]:
        """Return all reports, by reader id."""
        self._check()
        with self._lock:
            return [self._reports[name] for name in sorted(self._reports)]

    def forget(self, reader_id: str) -> None:
        """Remove a report."""
        self._check()
        with self._lock:
            self._reports.pop(reader_id, None)

    def write_off(self, reader_id: str, by: str) -> bool:
        """Mark a reader as gone."""
        self._check()
        with self._lock:
            known = self._reports.get(reader_id)
            if known is not None:
                self._reports[reader_id] = known.model_copy(update={"written_off_by": by})
            return known is not None

    def _check(self) -> None:
        if self.outage is not None:
            raise self.outage


class InMemoryAccessRecords:
    """`AccessRecords` in a list. While `outage` is set every call raises it."""

    def __init__(self) -> None:
        self._records: list[AccessRecord] = []
        self.outage: FacerecError | None = None

    def add(self, records: Sequence[AccessRecord]) -> None:
        """Add records."""
        if self.outage is not None:
            raise self.outage
        self._records += records

    def since(self, moment: datetime) -> Iterator[AccessRecord]:
        """Yield the records from a moment on."""
        yield from (record for record in list(self._records) if record.at >= moment)


class InMemoryPendingMessages:
    """`PendingMessages` whose counts a test sets."""

    def __init__(self) -> None:
        self.held: dict[str, int] = {}

    def counts(self) -> dict[str, int]:
        """Return what the test has set."""
        return dict(self.held)


class FakeErasures:
    """The use cases with every store in memory; `make` opens them for one more process."""

    def __init__(
        self,
        *,
        settings: Settings,
        objects: InMemoryObjectStore,
        templates: InMemoryTemplateStore,
        people: InMemoryPersonRecords,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.settings, self.objects, self.templates, self.people, self.now = settings, objects, templates, people, now
        self.ledger = InMemoryErasureLedger(lambda: now().timestamp())
        self.readers = InMemoryGalleryReaders()
        self.queues = InMemoryPendingMessages()
        self.dead_letters = InMemoryDeadLetterQueue()

    def make(self, owner: str = "first") -> Erasures:
        """Return the use cases of a process."""
        bucket = self.settings.gallery_bucket
        shared: dict[str, Any] = {"objects": self.objects, "gallery_bucket": bucket, "now": self.now}
        return Erasures(
            self.ledger,
            self.templates,
            self.people,
            steps.GalleryStep(enrolled=self.templates, people=self.people, **shared),
            steps.PhotosStep(enrolled=self.templates, **shared),
            (
                steps.ReadersStep(readers=self.readers, now=self.now),
                steps.ResultsStep(
                    objects=self.objects,
                    input_bucket=self.settings.input_bucket,
                    output_bucket=self.settings.output_bucket,
                    grace_seconds=20,
                    now=self.now,
                ),
                steps.LateSnapshotsStep(**shared),
                steps.DeadLettersStep(queues={"dead": self.dead_letters}, now=self.now),
                steps.QueuesStep(queues=self.queues, now=self.now),
            ),
            owner=owner,
            now=self.now,
        )
