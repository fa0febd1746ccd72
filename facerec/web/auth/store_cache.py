"""What one web process has read to check its clients: API keys and sessions.

It is kept for seconds, and for ten minutes while the store is unreachable.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

import structlog

from facerec.api_keys import ApiKey
from facerec.background import OutageLog
from facerec.errors import ApiKeyUnreadable, FacerecError, Transient
from facerec.ports import ApiKeys, Sessions
from facerec.session_records import Session

log = structlog.get_logger(__name__)

FRESH_SECONDS = 30.0
"""How long a key is not read again; a revocation takes this long to reach every process."""

SESSION_SECONDS = 10.0
"""The same for a session: the end of one takes this long to reach the other processes."""

DOUBTED_SECONDS = 2.0
"""The same when a client presents another secret for the key: it may have been rotated."""

ABSENT_SECONDS = 10.0
"""How long an id without a readable record is not looked up again."""

STALE_SECONDS = 600.0
"""How long a record is used while the store cannot be read."""

WAIT_SECONDS = 5.0
"""How long a request waits for another request that reads the same record, or for a place to read."""

PAUSE_SECONDS = 2.0
"""How long nothing is read after a failed read."""

MAX_KEPT = 10_000
MAX_ABSENT = 1_000
"""Two limits, so that invented ids evict each other and never real records."""

MAX_READINGS = 32
"""Records that are read at once: a store that hangs must not block all request threads."""


Record = TypeVar("Record")


class StoreCache(Generic[Record]):
    """Finds records by their ids; safe for many threads. Concurrent requests for one record share a reading.

    `read` reads from the store; `named` names the records in sentences.
    """

    def __init__(
        self, read: Callable[[str], Record | None], named: str, fresh_seconds: float, clock: Callable[[], float]
    ) -> None:
        self._read_one = read
        self._named = named
        self._fresh_seconds = fresh_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(MAX_READINGS)
        self._kept: OrderedDict[str, tuple[Record, float]] = OrderedDict()
        self._absent: OrderedDict[str, tuple[str | None, float]] = OrderedDict()
        """Ids without a record, or with the reason why it cannot be read."""
        self._readings: dict[str, Future[Record | None]] = {}
        self._pause_until = 0.0
        self._outage = OutageLog(named.lower().replace(" ", "_"))

    def knows(self, record_id: str) -> bool:
        """Return whether a record of that id has been read."""
        return record_id in self._kept

    def find(self, record_id: str, fresh_seconds: float | None = None) -> Record | None:
        """Return the record of that id, read within `fresh_seconds`, or None if there is none.

        While the store cannot be read, a record read within `STALE_SECONDS` counts. Raises `Transient` without one.
        """
        with self._lock:
            now = self._clock()
            record, read_at = self._kept.get(record_id, (None, 0.0))
            if record is not None and now - read_at < (fresh_seconds or self._fresh_seconds):
                return record
            stale = record if now - read_at < STALE_SECONDS else None
            if now < self._pause_until:
                return _or_transient(stale, f"{self._named} cannot be read right now")
            problem, looked_at = self._absent.get(record_id, (None, -ABSENT_SECONDS))
            if now - looked_at < ABSENT_SECONDS:
                if problem is not None:
                    raise Transient(problem)
                return None
            reading = self._readings.get(record_id)
            mine = reading is None
            if reading is None:
                reading = self._readings[record_id] = Future()
        if mine:
            self._read(record_id, reading)
        try:
            return reading.result(WAIT_SECONDS)
        except ApiKeyUnreadable as exc:
            raise Transient(str(exc)) from exc
        except (Transient, TimeoutError) as exc:
            return _or_transient(stale, str(exc) or f"the {self._named} do not answer")

    def forget(self, record_id: str) -> None:
        """Have the record of that id count as removed, also if it is being read."""
        with self._lock:
            self._readings.pop(record_id, None)
            self._keep(record_id, None, None)

    def _read(self, record_id: str, reading: Future[Record | None]) -> None:
        record: Record | None = None
        problem: FacerecError | None = None
        if not self._places.acquire(timeout=WAIT_SECONDS):
            problem = Transient(f"too many {self._named} are being read right now")
        else:
            try:
                record = self._read_one(record_id)
            except ApiKeyUnreadable as exc:
                log.warning("api_key_unreadable", key_id=record_id, reason=str(exc))
                problem = exc
            except Exception as exc:  # an error of our own must not admit a request, nor keep others waiting
                if not isinstance(exc, FacerecError):
                    log.exception("credential_fault", records=self._named)
                problem = Transient(str(exc))
            finally:
                self._places.release()
        with self._lock:
            if self._readings.get(record_id) is reading:  # it was not forgotten meanwhile
                del self._readings[record_id]
                self._keep(record_id, record, problem)
        if problem is None:
            reading.set_result(record)
        else:
            reading.set_exception(problem)

    def _keep(self, record_id: str, record: Record | None, problem: FacerecError | None) -> None:
        now = self._clock()
        if isinstance(problem, Transient):
            self._outage.failed(problem)
            self._pause_until = now + PAUSE_SECONDS
            return
        self._outage.succeeded()
        if record is None:
            self._kept.pop(record_id, None)
            self._absent[record_id] = (None if problem is None else str(problem), now)
        else:
            self._absent.pop(record_id, None)
            self._kept[record_id] = (record, now)
        for entries, most in ((self._kept, MAX_KEPT), (self._absent, MAX_ABSENT)):
            if len(entries) > most:
                entries.popitem(last=False)


class KeyCache(StoreCache[ApiKey]):
    """Finds API keys by their ids."""

    def __init__(self, store: ApiKeys, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(store.get, "API keys", FRESH_SECONDS, clock)


class SessionCache(StoreCache[Session]):
    """Finds sessions by the hashes of their tokens."""

    def __init__(self, store: Sessions, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(store.get, "sessions", SESSION_SECONDS, clock)


def _or_transient(record: Record | None, reason: str) -> Record:
    if record is None:
        raise Transient(reason)
    return record
