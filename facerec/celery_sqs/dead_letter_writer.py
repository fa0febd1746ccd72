"""Puts what is no task, or has failed for the last time, into the dead-letter queue: beside the event loop, unhurried.

SQS would do so by itself after some deliveries, but without the reason.
"""

import random
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from facerec.aws.sqs.dead_letter_queue import SqsDeadLetters
from facerec.aws.sqs.queue import pause_seconds
from facerec.errors import FacerecError, QueueMissing, Transient

log = structlog.get_logger(__name__)

_MOST = 100
"""Messages that may wait for a dead-letter queue that is out of reach; others stay in their queue."""

WATCHERS: set[Callable[[], None]] = set()
"""Called after each that this process has stored: kombu makes the channels itself, so nothing can be handed to them."""


@dataclass(frozen=True, slots=True)
class CastOff:
    """A message as it came, and why it is put aside."""

    body: str
    receipt: str
    queue_url: str
    reason: str
    request_id: str


class CastOffs:
    """Stores each in the dead-letter queue and then calls `stored` with it; safe for many threads.

    What is taken must be kept hidden until it is stored, or `left`: when `stop` comes first, or the dead-letter queue
    refuses it. While that queue is out of reach it is tried again, after growing pauses.
    """

    def __init__(
        self, dead_letters: SqsDeadLetters, *, stored: Callable[[CastOff], None], left: Callable[[CastOff], None]
    ) -> None:
        self._dead_letters = dead_letters
        self._stored = stored
        self._left = left
        self._waiting: deque[CastOff] = deque()
        self._changed = threading.Condition()
        self._stopped = False
        self._thread: threading.Thread | None = None

    def take(self, castoff: CastOff) -> bool:
        """Return whether it was taken; it is left in its queue else."""
        with self._changed:
            if self._stopped or len(self._waiting) >= _MOST:
                return False
            self._waiting.append(castoff)
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="castoffs", daemon=True)
                thread.start()  # where that fails the next one is tried
                self._thread = thread
            self._changed.notify()
            return True

    def stop(self) -> None:
        """Leave what is not stored yet."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
            thread = self._thread
        if thread is not None:
            thread.join()
        while self._waiting:
            self._left(self._waiting.popleft())

    def _run(self) -> None:
        failures = 0
        while True:
            pause = pause_seconds(failures, random.random()) if failures else 0  # noqa: S311 - no secret
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stopped)
                if self._changed.wait_for(lambda: self._stopped, pause):
                    return
                first = self._waiting[0]
            try:
                self._put(first)
            except (Transient, QueueMissing) as exc:
                failures += 1
                if failures == 1:
                    log.warning("dead_letters_unreachable", reason=str(exc))
            except Exception as exc:
                # Such as an answer of a proxy's that botocore cannot read: it must not end the thread.
                failures += 1
                if failures == 1:
                    log.exception("dead_letters_unreachable", reason=repr(exc))
            else:
                failures = 0
                with self._changed:
                    self._waiting.popleft()

    def _put(self, castoff: CastOff) -> None:
        try:
            self._dead_letters.put(
                castoff.body, reason=castoff.reason, request_id=castoff.request_id, failed_at=datetime.now(UTC)
            )
        except (Transient, QueueMissing):
            raise
        except FacerecError as exc:
            log.warning("not_put_aside", request_id=castoff.request_id, reason=str(exc))
            self._left(castoff)
        else:
            log.warning("dead_lettered", request_id=castoff.request_id, reason=castoff.reason)
            self._stored(castoff)
            for watch in WATCHERS:
                watch()
