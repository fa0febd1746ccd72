"""The access log of a web process: written in the background, so that no request waits for it."""

from collections.abc import Callable

import structlog

from facerec.access_records import AccessRecord
from facerec.background import BackgroundQueue, backoff_seconds
from facerec.ports import AccessRecords

log = structlog.get_logger(__name__)

WINDOW_SECONDS = 5.0
"""A record is written so long after it was made, at most; a process that is killed loses those of this time."""
_FULL, _MOST = 500, 50_000


class AccessLog:
    """Notes accesses for any number of threads; what the store does not take is tried again, the oldest given up."""

    def __init__(
        self,
        records: AccessRecords,
        *,
        window_seconds: float = WINDOW_SECONDS,
        backoff: Callable[[int, float], float] = backoff_seconds,
    ) -> None:
        self._records = records
        self._queue = BackgroundQueue[AccessRecord](
            "access_log",
            self._write,
            window_seconds=window_seconds,
            full=_FULL,
            max_waiting=_MOST,
            dropped=self._dropped,
            backoff=backoff,
        )

    def note(self, record: AccessRecord) -> None:
        """Write the record soon."""
        self._queue.put(record)

    def close(self, timeout_seconds: float) -> None:
        """Write what waits."""
        for record in self._queue.stop(timeout_seconds):
            self._dropped(record)

    def _write(self, waiting: list[AccessRecord]) -> None:
        self._records.add(waiting)
        waiting.clear()

    def _dropped(self, record: AccessRecord) -> None:
        log.warning("access_not_logged", request_id=str(record.request_id), client=record.client)
