"""From a delivered message to the use case and back: decode, call, map how it ended to what the queue is told."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from time import perf_counter
from typing import Any, Protocol

import structlog

from facerec.errors import EngineFailure, FacerecError, InvalidMessage, ObjectMissing
from facerec.messages import Outcome, RecognitionRequest, RecognitionResult
from facerec.recognition import Recogniser

log = structlog.get_logger(__name__)


class DeadLetters(Protocol):
    """Where messages go that no retry helps."""

    def put(self, body: str, *, reason: str, request_id: str, failed_at: datetime) -> None:
        """Keep the body and why it is there."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """One delivery of a task: its argument, the message around it as it came, and which delivery this is."""

    payload: Any
    body: str
    request_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Ended:
    """How a delivery ended whose message is to be deleted."""

    outcome: str
    reason: str | None = None


class TaskDriver:
    """What a task does; safe to call from many threads.

    On return the message is to be deleted: the request is answered, or it is in the dead-letter queue with its reason
    and, where it could be read, answered as failed. On an exception the message must be delivered again.
    """

    def __init__(
        self,
        recogniser: Recogniser,
        dead_letters: DeadLetters,
        input_bucket: str,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._recogniser = recogniser
        self._dead_letters = dead_letters
        self._input_bucket = input_bucket
        self._now = now

    def handle(self, delivered: Delivered) -> Ended:
        """Recognise one request; raises `Transient`, `ConfigurationError`, or whatever nobody expected."""
        with structlog.contextvars.bound_contextvars(request_id=delivered.request_id, attempt=delivered.attempt):
            started = perf_counter()
            try:
                return self._handle(delivered, started)
            except FacerecError as exc:
                _say(started, "redelivered", reason=str(exc))
                raise
            except Exception as exc:
                # Celery logs the traceback.
                _say(started, "error", reason=repr(exc))
                raise

    def _handle(self, delivered: Delivered, started: float) -> Ended:
        try:
            request = self._decoded(delivered)
        except InvalidMessage as exc:
            self._put_aside(delivered, str(exc))
            _say(started, DEAD_LETTERED, reason=str(exc))
            return Ended(DEAD_LETTERED, str(exc))
        waited_ms = (self._now() - request.submitted_at).total_seconds() * 1000
        try:
            result = self._recogniser.recognise(request, delivered.attempt)
        except (EngineFailure, ObjectMissing) as exc:
            self._put_aside(delivered, str(exc))
            self._recogniser.fail(request, _told(exc), delivered.attempt)
            _say(started, Outcome.FAILED, reason=str(exc))
            return Ended(str(Outcome.FAILED), str(exc))
        _say(started, result.outcome, queued_ms=round(waited_ms, 1), **_facts(result))
        return Ended(str(result.outcome))

    def _decoded(self, delivered: Delivered) -> RecognitionRequest:
        request = RecognitionRequest.parse(delivered.payload)
        if request.input.bucket != self._input_bucket:
            # A message chooses what is recognised, not what the worker's role may read.
            raise InvalidMessage(f"the input is in bucket {request.input.bucket!r}, not in {self._input_bucket!r}")
        return request

    def _put_aside(self, delivered: Delivered, reason: str) -> None:
        self._dead_letters.put(delivered.body, reason=reason, request_id=delivered.request_id, failed_at=self._now())


def _told(exc: EngineFailure | ObjectMissing) -> str:
    """The sentence for the client, who knows no buckets."""
    if isinstance(exc, ObjectMissing):
        return "the uploaded picture is no longer stored; upload it again"
    return str(exc)


def _facts(result: RecognitionResult) -> dict[str, Any]:
    return {
        "faces": len(result.faces),
        "collection": result.collection,
        "engine": result.engine,
        "precision": result.precision,
        "timings_ms": result.timings_ms,
        "computed_in_attempt": result.attempt,
    }


def _say(started: float, outcome: str, **facts: Any) -> None:
    """The canonical line of a delivery."""
    level = log.info if outcome in _WELL else log.warning
    level("recognised", outcome=str(outcome), total_ms=round((perf_counter() - started) * 1000, 1), **facts)


_WELL = frozenset(Outcome) - {Outcome.FAILED}

DEAD_LETTERED = "dead_lettered"

PUT_ASIDE = frozenset({DEAD_LETTERED, str(Outcome.FAILED)})
"""The outcomes of what is in the dead-letter queue now."""
