"""The API keys as one web process knows them: read when they are presented, kept for a while, and through outages."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from enum import Enum

import structlog

from facerec.api_keys import ApiKey
from facerec.errors import FacerecError, Transient
from facerec.ports import ApiKeys

log = structlog.get_logger(__name__)

FRESH_SECONDS = 30.0
"""How long a key is not read again: so soon a revocation has reached every process."""

ABSENT_SECONDS = 10.0
"""How long an id without a key is not looked for again."""

STALE_SECONDS = 600.0
"""How long a key goes on working while the store cannot be read."""

PATIENCE_SECONDS = 5.0
"""How long a request waits for a reading."""

PAUSE_SECONDS = 2.0
"""How long the store is left alone after a reading that failed."""

MAX_KEPT = 10_000
MAX_ABSENT = 1_000
"""Random keys push each other out, never the real ones."""

MAX_READINGS = 32
"""Keys that are read at once, each in a thread of its own: a store that hangs must not take more."""


class Unread(Enum):
    """The key is being read."""

    UNREAD = "unread"


UNREAD = Unread.UNREAD


class KeyRing:
    """Finds keys by their ids; safe for many threads. A store that cannot be read makes no key good that was not."""

    def __init__(self, store: ApiKeys, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[ApiKey, float]] = OrderedDict()
        self._absent: OrderedDict[str, float] = OrderedDict()
        self._readings: dict[str, Future[ApiKey | None]] = {}
        self._pause_until = 0.0

    def knows(self, key_id: str) -> bool:
        """Whether a key of that id has been read, so that to ask for it costs at most a reading every 30 s."""
        return key_id in self._kept

    def peek(self, key_id: str) -> ApiKey | Unread | None:
        """What is known now, without waiting; where that is nothing, the reading has begun. Raises `Transient`."""
        with self._lock:
            found = self._found(key_id)
            if isinstance(found, Unread):
                self._begin(key_id)
            return found

    def find(self, key_id: str) -> ApiKey | None:
        """The key of that id; raises `Transient` when that cannot be told."""
        with self._lock:
            found = self._found(key_id)
            if not isinstance(found, Unread):
                return found
            reading = self._begin(key_id)
        try:
            return reading.result(PATIENCE_SECONDS)
        except (FacerecError, TimeoutError) as exc:
            with self._lock:
                self._pause(str(exc) or f"no answer within {PATIENCE_SECONDS:g} s")
            return self.find(key_id)  # in the pause that is what was known before, or `Transient`

    def _found(self, key_id: str) -> ApiKey | Unread | None:
        now = self._clock()
        if key_id in self._kept:
            key, read_at = self._kept[key_id]
            limit = STALE_SECONDS if now < self._pause_until else FRESH_SECONDS
            if now - read_at < limit:
                return key
        elif now - self._absent.get(key_id, float("-inf")) < ABSENT_SECONDS:
            return None
        if now < self._pause_until:
            raise Transient("API keys cannot be read right now")
        return UNREAD

    def _begin(self, key_id: str) -> Future[ApiKey | None]:
        reading = self._readings.get(key_id)
        if reading is None:
            if len(self._readings) >= MAX_READINGS:
                raise Transient("too many API keys are being read right now")
            reading = self._readings[key_id] = Future()
            # Not a pool, whose threads the interpreter would wait for at its end.
            threading.Thread(target=self._read, args=(key_id, reading), name="api-key", daemon=True).start()
        return reading

    def _read(self, key_id: str, reading: Future[ApiKey | None]) -> None:
        try:
            key = self._store.get(key_id)
        except Exception as exc:  # a fault of ours must let nobody in, and nobody wait
            if not isinstance(exc, FacerecError):
                log.exception("api_key_fault")
            with self._lock:
                del self._readings[key_id]
            reading.set_exception(Transient(str(exc)))
            return
        with self._lock:
            del self._readings[key_id]
            if key is None:
                self._kept.pop(key_id, None)
                self._absent[key_id] = self._clock()
            else:
                self._absent.pop(key_id, None)
                self._kept[key_id] = (key, self._clock())
            for kept, most in ((self._kept, MAX_KEPT), (self._absent, MAX_ABSENT)):
                if len(kept) > most:
                    kept.popitem(last=False)
        reading.set_result(key)

    def _pause(self, reason: str) -> None:
        now = self._clock()
        if now >= self._pause_until:
            log.warning("api_keys_unreadable", reason=reason)
        self._pause_until = now + PAUSE_SECONDS
