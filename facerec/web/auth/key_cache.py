"""The API keys as one web process knows them: read when they are presented, kept for a while, and through outages."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from enum import Enum

import structlog

from facerec.api_keys import ApiKey
from facerec.errors import ApiKeyUnreadable, FacerecError, Transient
from facerec.ports import ApiKeys

log = structlog.get_logger(__name__)

FRESH_SECONDS = 30.0
"""How long a key is not read again: so soon a revocation has reached every process."""

DOUBTED_SECONDS = 2.0
"""How long a key is not read again though another secret was presented for it, which a rotation may have made."""

ABSENT_SECONDS = 10.0
"""How long an id without a key, or with one that cannot be read, is not looked for again."""

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
"""Keys that are read at once, each in a thread of its own: a store that hangs must not take more.

There are so many places for ids that are new, which anybody can invent, and as many for keys that are read again."""


class Unread(Enum):
    """The key is being read."""

    UNREAD = "unread"


UNREAD = Unread.UNREAD


class KeyRing:
    """Finds keys by their ids; safe for many threads. A store that cannot be read makes no key good that was not."""

    def __init__(self, store: ApiKeys, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._lock = threading.Condition()
        """Told whenever a reading ends."""
        self._kept: OrderedDict[str, tuple[ApiKey, float]] = OrderedDict()
        self._absent: OrderedDict[str, tuple[float, str | None]] = OrderedDict()
        """Ids with the time at which there was no key, or none that could be read for the reason given."""
        self._readings: dict[str, Future[ApiKey | None]] = {}
        self._pause_until = 0.0

    def knows(self, key_id: str) -> bool:
        """Whether a key of that id has been read, so that to ask for it costs at most a reading every 2 s."""
        return key_id in self._kept

    def would_read(self, key_id: str) -> bool:
        """Whether asking now for that id, which may be nobody's, would begin a reading, in a thread of its own."""
        with self._lock:
            try:
                unread = isinstance(self._found(key_id, FRESH_SECONDS), Unread)
            except Transient:
                return False
            return unread and key_id not in self._readings and self._has_place(key_id)

    def peek(self, key_id: str, fresh_seconds: float = FRESH_SECONDS) -> ApiKey | Unread | None:
        """What is known now, without waiting; where that is nothing, the reading has begun if there was a place for it.

        A key that was read longer ago than `fresh_seconds` is read again. Raises `Transient`.
        """
        with self._lock:
            reading = self._begun(key_id, fresh_seconds)
            return reading.result() if reading is not None and reading.done() else UNREAD

    def find(self, key_id: str, fresh_seconds: float = FRESH_SECONDS) -> ApiKey | None:
        """The key of that id, read again as with `peek`; raises `Transient` when that cannot be told."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        with self._lock:
            reading = self._lock.wait_for(lambda: self._begun(key_id, fresh_seconds), PATIENCE_SECONDS)
        if reading is None:
            raise Transient("too many API keys are being read right now")
        try:
            return reading.result(max(0.0, deadline - time.monotonic()))
        except ApiKeyUnreadable as exc:
            raise Transient(str(exc)) from exc
        except (FacerecError, TimeoutError) as exc:
            with self._lock:
                self._pause(str(exc) or f"no answer within {PATIENCE_SECONDS:g} s")
            return self.find(key_id)  # in the pause that is what was known before, or `Transient`

    def _begun(self, key_id: str, fresh_seconds: float) -> Future[ApiKey | None] | None:
        """The reading of a key, which has ended where its result is known; nothing while there is no place for it."""
        found = self._found(key_id, fresh_seconds)
        if isinstance(found, Unread):
            if key_id in self._readings:
                return self._readings[key_id]
            if self._has_place(key_id):
                return self._begin(key_id)
            found = self._kept_for(key_id, STALE_SECONDS)
            if found is None:
                return None
        reading: Future[ApiKey | None] = Future()
        reading.set_result(found)
        return reading

    def _found(self, key_id: str, fresh_seconds: float) -> ApiKey | Unread | None:
        now = self._clock()
        paused = now < self._pause_until
        key = self._kept_for(key_id, STALE_SECONDS if paused else fresh_seconds)
        if key is not None:
            return key
        looked_at, problem = self._absent.get(key_id, (float("-inf"), None))
        if now - looked_at < ABSENT_SECONDS:
            if problem is not None:
                raise Transient(problem)
            return None
        if paused:
            raise Transient("API keys cannot be read right now")
        return UNREAD

    def _kept_for(self, key_id: str, seconds: float) -> ApiKey | None:
        """The key if it was read within so many seconds."""
        key, read_at = self._kept.get(key_id, (None, 0.0))
        return key if self._clock() - read_at < seconds else None

    def _has_place(self, key_id: str) -> bool:
        known = key_id in self._kept
        return sum((other in self._kept) == known for other in self._readings) < MAX_READINGS

    def _begin(self, key_id: str) -> Future[ApiKey | None]:
        reading: Future[ApiKey | None] = Future()
        # Not a pool, whose threads the interpreter would wait for at its end.
        thread = threading.Thread(target=self._read, args=(key_id, reading), name="api-key", daemon=True)
        try:
            thread.start()
        except RuntimeError as exc:  # the process, or the machine, has as many as it may have
            log.warning("api_key_unreadable", key_id=key_id, reason=str(exc))
            known = self._kept_for(key_id, STALE_SECONDS)
            if known is None:
                raise Transient(f"an API key cannot be read: {exc}") from exc
            reading.set_result(known)
            return reading
        # It ends under the lock, which we hold.
        self._readings[key_id] = reading
        return reading

    def _read(self, key_id: str, reading: Future[ApiKey | None]) -> None:
        key: ApiKey | None = None
        problem: FacerecError | None = None
        try:
            key = self._store.get(key_id)
        except ApiKeyUnreadable as exc:
            log.warning("api_key_unreadable", key_id=key_id, reason=str(exc))
            problem = exc
        except Exception as exc:  # a fault of ours must let nobody in, and nobody wait
            if not isinstance(exc, FacerecError):
                log.exception("api_key_fault")
            problem = Transient(str(exc))
        with self._lock:
            del self._readings[key_id]
            if not isinstance(problem, Transient):
                self._keep(key_id, key, problem)
            self._lock.notify_all()
        if problem is None:
            reading.set_result(key)
        else:
            reading.set_exception(problem)

    def _keep(self, key_id: str, key: ApiKey | None, problem: FacerecError | None) -> None:
        now = self._clock()
        if key is None:
            self._kept.pop(key_id, None)
            self._absent[key_id] = (now, None if problem is None else str(problem))
        else:
            self._absent.pop(key_id, None)
            self._kept[key_id] = (key, now)
        for kept, most in ((self._kept, MAX_KEPT), (self._absent, MAX_ABSENT)):
            if len(kept) > most:
                kept.popitem(last=False)

    def _pause(self, reason: str) -> None:
        self._lock.notify_all()  # who waits for a place need not wait any longer
        now = self._clock()
        if now >= self._pause_until:
            log.warning("api_keys_unreadable", reason=reason)
        self._pause_until = now + PAUSE_SECONDS
