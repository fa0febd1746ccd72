"""Tasks whose clients can no longer be waiting make way for the others: they go back to the end of their queue.

After an outage the queue may be full of them, before the tasks of clients that wait now. To send one again costs a
send, a receive and a delete (batched), some milliseconds, where to work it off takes an engine's time.
"""

import json
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Protocol

import structlog

from facerec.errors import FacerecError
from facerec.messages import RecognitionRequest

log = structlog.get_logger(__name__)

MARK = "facerec_postponed"
"""The header of a task's message that counts how often it has been postponed."""

_FIRST_DELAY_SECONDS = 5
_LONGEST_DELAY_SECONDS = 60
_MOST = 6
"""After 5, 10, 20, 40, 60 and 60 s, at most, it is worked off whatever else comes: nothing waits for ever."""
_RUSH_SECONDS = 2.0
"""So long after a task whose client waits another one may be on its way."""


class Postponed(Exception):
    """The task has been sent again; this delivery of it is over."""


class Tail(Protocol):
    """The end of the queue."""

    def send(self, body: str, delay_seconds: int) -> None:
        """Return when the message is taken, to be delivered after the delay."""


class Latecomers:
    """Decides which tasks go back; safe for many threads.

    Late is what was submitted more than `wait_seconds` ago, by the clocks of two machines: where they differ by more
    than that, every task is postponed once, by 5 s.
    """

    def __init__(self, tail: Tail, wait_seconds: float, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._tail = tail
        self._wait = timedelta(seconds=wait_seconds)
        self._monotonic = monotonic
        self._rush_until = monotonic()

    def give_way(self, request: RecognitionRequest, body: str, attempt: int, now: datetime) -> None:
        """Raise `Postponed` if the task was sent again; return if it is to be worked off now.

        One that was delivered before is always worked off, and so is one that cannot be sent again.
        """
        if now - request.submitted_at <= self._wait:
            self._rush_until = self._monotonic() + _RUSH_SECONDS
            return
        if attempt > 1:
            return
        envelope, before = _opened(body)
        if envelope is None or before >= _MOST or (before and self._monotonic() >= self._rush_until):
            return
        envelope["headers"][MARK] = before + 1
        delay = min(_FIRST_DELAY_SECONDS * 2**before, _LONGEST_DELAY_SECONDS)
        try:
            self._tail.send(json.dumps(envelope, separators=(",", ":")), delay)
        except FacerecError as exc:
            log.info("not_postponed", reason=str(exc))
            return
        raise Postponed(f"its client has gone: after {delay} s, when others have been served")


def _opened(body: str) -> tuple[dict[str, Any] | None, int]:
    """The message that a task came in, and how often it has been postponed; nothing where it is not as we send it."""
    try:
        envelope = json.loads(body)
        before = envelope["headers"].get(MARK, 0)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None, 0
    return (envelope, before) if isinstance(before, int) and before >= 0 else (None, 0)
