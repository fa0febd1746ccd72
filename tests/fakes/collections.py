"""Collections in memory; tests/contracts compares them with DynamoDB."""

import threading

from facerec.ports import CollectionRecord


class InMemoryCollections:
    """`Collections` in a dictionary, safe for many threads."""

    def __init__(self, *records: CollectionRecord) -> None:
        self._lock = threading.Lock()
        self._records = {record.collection: record for record in records}

    def create(self, record: CollectionRecord) -> bool:
        """Add a record unless there is one."""
        with self._lock:
            return self._records.setdefault(record.collection, record) is record

    def get(self, collection: str) -> CollectionRecord | None:
        """Return the collection's record."""
        with self._lock:
            return self._records.get(collection)

    def remove(self, collection: str) -> None:
        """Remove a record."""
        with self._lock:
            self._records.pop(collection, None)

    def records(self) -> list[CollectionRecord]:
        """Return all records, by name."""
        with self._lock:
            return [self._records[name] for name in sorted(self._records)]
