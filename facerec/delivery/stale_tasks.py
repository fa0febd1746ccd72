"""Requeue stale tasks, whose clients have stopped waiting, behind the tasks of clients that still wait.

After an outage the queue may hold many of them. To requeue one costs a send, a receive and a delete (batched), a few
milliseconds; to process it takes an engine's time.
"""

import json
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import structlog

from facerec.background import backoff_seconds
from facerec.celery_sqs.received_task import REQUEUES_HEADER
from facerec.errors import FacerecError
from facerec.messages import Request
from facerec.ports import MessageSender

log = structlog.get_logger(__name__)

_FIRST_DELAY_SECONDS = 5
_LONGEST_DELAY_SECONDS = 60
_MOST_REQUEUES = 6
"""After delays of 5, 10, 20, 40, 60 and 60 s a task is processed in any case."""
_BUSY_SECONDS = 2.0
"""For this long after a fresh task another fresh one may be on its way."""


class Requeued(Exception):
    """The task was sent again; this delivery is over."""


class StaleTasks:
    """Decides which tasks are requeued; safe for many threads.

    A task is stale when it was submitted more than `wait_seconds` ago. The clocks of two machines decide: if they
    differ by more than that, every task is requeued once, by 5 s.
    """

    def __init__(
        self, requests: MessageSender, wait_seconds: float, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._requests = requests
        self._wait = timedelta(seconds=wait_seconds)
        self._monotonic = monotonic
        self._busy_until = monotonic()

    def requeue_if_stale(self, request: Request, body: str, attempt: int, now: datetime) -> None:
        """Raise `Requeued` if the task was sent again; return if it is to be processed now.

        A task is processed if it is fresh, was delivered before, or cannot be sent again. Once requeued, it is
        requeued again only while fresh tasks come.
        """
        if now - request.submitted_at <= self._wait:
            self._busy_until = self._monotonic() + _BUSY_SECONDS
            return
        if attempt > 1:
            return
        envelope, requeues = _envelope(body)
        if envelope is None or requeues >= _MOST_REQUEUES or (requeues and self._monotonic() >= self._busy_until):
            return
        envelope["headers"][REQUEUES_HEADER] = requeues + 1
        delay = int(backoff_seconds(requeues + 1, 0, first=_FIRST_DELAY_SECONDS, longest=_LONGEST_DELAY_SECONDS))
        try:
            self._requests.send(json.dumps(envelope, separators=(",", ":")), delay)
        except FacerecError as exc:
            log.info("not_requeued", reason=str(exc))
            return
        raise Requeued(f"its client has stopped waiting: requeued for {delay} s, behind other tasks")


def _envelope(body: str) -> tuple[dict[str, Any] | None, int]:
    """The decoded message and its count of requeues; `None` if it does not have our form."""
    try:
        envelope = json.loads(body)
        requeues = envelope["headers"].get(REQUEUES_HEADER, 0)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None, 0
    return (envelope, requeues) if isinstance(requeues, int) and requeues >= 0 else (None, 0)
