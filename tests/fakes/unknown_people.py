"""Unknown people in memory, which tests/contracts compares with DynamoDB."""

import threading
from collections.abc import Iterator

from facerec.errors import FacerecError
from facerec.unknown_records import UnknownAlert, UnknownPerson


class InMemoryUnknownPeople:
    """`UnknownPeople` in dictionaries, safe for many threads. While `outage` is set every call raises it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: dict[tuple[str, str], UnknownPerson] = {}
        self._alerts: dict[tuple[str, str], UnknownAlert] = {}
        self.outage: FacerecError | None = None

    def get(self, collection: str, unknown_id: str) -> UnknownPerson | None:
        """Return a record."""
        with self._lock:
            self._check()
            return self._records.get((collection, unknown_id))

    def records(self, collection: str, after: str = "") -> Iterator[UnknownPerson]:
        """Yield the records of a collection by their ids."""
        with self._lock:
            self._check()
            found = sorted(self._records.items())
        return (record for (own, identifier), record in found if own == collection and identifier > after)

    def put(self, record: UnknownPerson, alert: UnknownAlert | None = None) -> bool:
        """Write the next revision with its alert."""
        with self._lock:
            self._check()
            key = (record.collection, record.unknown_id)
            before = self._records.get(key)
            if (before.revision if before else 0) != record.revision - 1:
                return False
            self._records[key] = record
            if alert is not None:
                self._alerts[key] = alert
            return True

    def remove(self, record: UnknownPerson) -> bool:
        """Remove this revision."""
        with self._lock:
            self._check()
            key = (record.collection, record.unknown_id)
            before = self._records.get(key)
            if before is None or before.revision != record.revision:
                return False
            del self._records[key]
            return True

    def alerts(self) -> list[UnknownAlert]:
        """Return the alerts."""
        with self._lock:
            self._check()
            return [alert for _, alert in sorted(self._alerts.items())]

    def postpone_alert(self, alert: UnknownAlert, later: UnknownAlert) -> bool:
        """Replace an alert that is unchanged."""
        with self._lock:
            self._check()
            key = (alert.collection, alert.unknown_id)
            if self._alerts.get(key) != alert:
                return False
            self._alerts[key] = later
            return True

    def remove_alert(self, alert: UnknownAlert) -> bool:
        """Remove an alert that is unchanged."""
        with self._lock:
            self._check()
            key = (alert.collection, alert.unknown_id)
            if self._alerts.get(key) != alert:
                return False
            del self._alerts[key]
            return True

    def _check(self) -> None:
        if self.outage is not None:
            raise self.outage
