"""Records of people in memory, which tests/contracts compares with DynamoDB."""

import threading
from collections import defaultdict

from facerec.errors import FacerecError
from facerec.gallery.names import same_person
from facerec.ports import MergeRecord


class InMemoryPersonRecords:
    """`PersonRecords` in dictionaries, safe for many threads. While `outage` is set every call raises it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._names: defaultdict[str, set[str]] = defaultdict(set)
        self._merges: defaultdict[str, dict[str, MergeRecord]] = defaultdict(dict)
        self.outage: FacerecError | None = None

    def add_name(self, collection: str, name: str) -> None:
        """Keep a name."""
        with self._lock:
            self._check()
            self._names[collection].add(name)

    def names(self, collection: str) -> list[str]:
        """Return the kept names."""
        with self._lock:
            self._check()
            return sorted(self._names[collection])

    def remove_name(self, collection: str, name: str) -> None:
        """Keep a name no longer."""
        with self._lock:
            self._check()
            self._names[collection].discard(name)

    def put_merge(self, record: MergeRecord) -> None:
        """Add or replace a record."""
        with self._lock:
            self._check()
            self._merges[record.collection][record.merge_id] = record

    def merges(self, collection: str) -> list[MergeRecord]:
        """Return the records, oldest first."""
        with self._lock:
            self._check()
            return sorted(self._merges[collection].values(), key=lambda record: (record.merged_at, record.merge_id))

    def remove_merge(self, collection: str, merge_id: str) -> None:
        """Remove a record."""
        with self._lock:
            self._check()
            self._merges[collection].pop(merge_id, None)

    def forget(self, collection: str, name: str) -> int:
        """Remove everything that names the person."""
        with self._lock:
            self._check()
            names = {kept for kept in self._names[collection] if same_person(kept, name)}
            merges = [
                record.merge_id
                for record in self._merges[collection].values()
                if same_person(record.source, name) or same_person(record.into, name)
            ]
            self._names[collection] -= names
            for merge_id in merges:
                del self._merges[collection][merge_id]
            return len(names) + len(merges)

    def _check(self) -> None:
        if self.outage is not None:
            raise self.outage
