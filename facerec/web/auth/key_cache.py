"""The API keys that one web process has read: kept for 30 s, and for ten minutes while the store is unreachable."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future

import structlog

from facerec.api_keys import ApiKey
from facerec.background import OutageLog
from facerec.errors import ApiKeyUnreadable, FacerecError, Transient
from facerec.ports import ApiKeys

log = structlog.get_logger(__name__)

FRESH_SECONDS = 30.0
"""How long a key is not read again; a revocation takes this long to reach every process."""

DOUBTED_SECONDS = 2.0
"""The same when a client presents another secret for the key: it may have been rotated."""

ABSENT_SECONDS = 10.0
"""How long an id without a readable key is not looked up again."""

STALE_SECONDS = 600.0
"""How long a key works while the store cannot be read."""

WAIT_SECONDS = 5.0
"""How long a request waits for another request that reads the same key, or for a place to read."""

PAUSE_SECONDS = 2.0
"""How long no key is read after a failed read."""

MAX_KEPT = 10_000
MAX_ABSENT = 1_000
"""Two limits, so that invented ids evict each other and never real keys."""

MAX_READINGS = 32
"""Keys that are read at once: a store that hangs must not block all request threads."""


class KeyCache:
    """Finds keys by their ids; safe for many threads. Concurrent requests for one key share a reading."""

    def __init__(self, store: ApiKeys, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(MAX_READINGS)
        self._kept: OrderedDict[str, tuple[ApiKey, float]] = OrderedDict()
        self._absent: OrderedDict[str, tuple[str | None, float]] = OrderedDict()
        """Ids without a key, or with the reason why the key cannot be read."""
        self._readings: dict[str, Future[ApiKey | None]] = {}
        self._pause_until = 0.0
        self._outage = OutageLog("api_keys")

    def knows(self, key_id: str) -> bool:
        """Return whether a key of that id has been read."""
        return key_id in self._kept

    def find(self, key_id: str, fresh_seconds: float = FRESH_SECONDS) -> ApiKey | None:
        """Return the key of that id, read within `fresh_seconds`, or None if there is none.

        While the store cannot be read, a key read within `STALE_SECONDS` is returned. Raises `Transient` without one.
        """
        with self._lock:
            now = self._clock()
            key, read_at = self._kept.get(key_id, (None, 0.0))
            if key is not None and now - read_at < fresh_seconds:
                return key
            stale = key if now - read_at < STALE_SECONDS else None
            if now < self._pause_until:
                return _or_transient(stale, "API keys cannot be read right now")
            problem, looked_at = self._absent.get(key_id, (None, -ABSENT_SECONDS))
            if now - looked_at < ABSENT_SECONDS:
                if problem is not None:
                    raise Transient(problem)
                return None
            reading = self._readings.get(key_id)
            mine = reading is None
            if reading is None:
                reading = self._readings[key_id] = Future()
        if mine:
            self._read(key_id, reading)
        try:
            return reading.result(WAIT_SECONDS)
        except ApiKeyUnreadable as exc:
            raise Transient(str(exc)) from exc
        except (Transient, TimeoutError) as exc:
            return _or_transient(stale, str(exc) or "the API keys do not answer")

    def _read(self, key_id: str, reading: Future[ApiKey | None]) -> None:
        key: ApiKey | None = None
        problem: FacerecError | None = None
        if not self._places.acquire(timeout=WAIT_SECONDS):
            problem = Transient("too many API keys are being read right now")
        else:
            try:
                key = self._store.get(key_id)
            except ApiKeyUnreadable as exc:
                log.warning("api_key_unreadable", key_id=key_id, reason=str(exc))
                problem = exc
            except Exception as exc:  # an error of our own must not admit a request, nor keep others waiting
                if not isinstance(exc, FacerecError):
                    log.exception("api_key_fault")
                problem = Transient(str(exc))
            finally:
                self._places.release()
        with self._lock:
            del self._readings[key_id]
            self._keep(key_id, key, problem)
        if problem is None:
            reading.set_result(key)
        else:
            reading.set_exception(problem)

    def _keep(self, key_id: str, key: ApiKey | None, problem: FacerecError | None) -> None:
        now = self._clock()
        if isinstance(problem, Transient):
            self._outage.failed(problem)
            self._pause_until = now + PAUSE_SECONDS
            return
        self._outage.succeeded()
        if key is None:
            self._kept.pop(key_id, None)
            self._absent[key_id] = (None if problem is None else str(problem), now)
        else:
            self._absent.pop(key_id, None)
            self._kept[key_id] = (key, now)
        for entries, most in ((self._kept, MAX_KEPT), (self._absent, MAX_ABSENT)):
            if len(entries) > most:
                entries.popitem(last=False)


def _or_transient(key: ApiKey | None, reason: str) -> ApiKey:
    if key is None:
        raise Transient(reason)
    return key
