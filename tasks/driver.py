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
from tasks.latecomers import Latecomers, Postponed
from tasks.patience import Patience

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


class TaskDriver:
    """What a task does; safe to call from many threads.

    On return the message is to be deleted: the request is answered, or it is in the dead-letter queue with its reason
    and, where it could be read, answered as failed. So it is on `Postponed`: the task was sent again. On any other
    exception the message must be delivered again: at once on `Interrupted`, after a pause else. What fails in the last
    of its deliveries, `max_receives`, is put aside here, since SQS would do so without the reason.
    """

    def __init__(
        self,
        recogniser: Recogniser,
        dead_letters: DeadLetters,
        latecomers: Latecomers,
        patience: Callable[[], Patience],
        *,
        input_bucket: str,
        max_receives: int,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._recogniser = recogniser
        self._dead_letters = dead_letters
        self._latecomers = latecomers
        self._patience = patience
        self._input_bucket = input_bucket
        self._max_receives = max_receives
        self._now = now

    def handle(self, delivered: Delivered) -> None:
        """Recognise one request; raises `Postponed`, `FacerecError`, or whatever nobody expected."""
        with structlog.contextvars.bound_contextvars(request_id=delivered.request_id, attempt=delivered.attempt):
            started = perf_counter()
            try:
                self._handle(delivered, started)
            except Postponed as exc:
                _say(started, "postponed", reason=str(exc))
                raise
            except Exception as exc:
                ours = isinstance(exc, FacerecError)
                reason = str(exc) if ours else repr(exc)
                if delivered.attempt >= self._max_receives and self._given_up(delivered, reason):
                    _say(started, Outcome.FAILED, reason=reason, **({} if ours else {"exc_info": exc}))
                    return
                # Celery logs the traceback of what nobody expected.
                _say(started, "redelivered" if ours else "error", reason=reason)
                raise

    def _handle(self, delivered: Delivered, started: float) -> None:
        insist = self._patience().insist
        try:
            request = self._decoded(delivered)
        except InvalidMessage as exc:
            unreadable = str(exc)
            insist(lambda: self._put_aside(delivered, unreadable))
            _say(started, "dead_lettered", reason=unreadable)
            return
        self._latecomers.give_way(request, delivered.body, delivered.attempt, self._now())
        waited_ms = (self._now() - request.submitted_at).total_seconds() * 1000
        try:
            result = self._recogniser.recognise(request, delivered.attempt, insist=insist)
        except (EngineFailure, ObjectMissing) as exc:
            reason = str(exc)
            insist(lambda: self._put_aside(delivered, reason))
            self._recogniser.fail(request, _told(exc), delivered.attempt, insist=insist)
            _say(started, Outcome.FAILED, reason=reason)
        else:
            _say(started, result.outcome, queued_ms=round(waited_ms, 1), **_facts(result))

    def _decoded(self, delivered: Delivered) -> RecognitionRequest:
        request = RecognitionRequest.parse(delivered.payload)
        if request.input.bucket != self._input_bucket:
            # A message chooses what is recognised, not what the worker's role may read.
            raise InvalidMessage(f"the input is in bucket {request.input.bucket!r}, not in {self._input_bucket!r}")
        return request

    def _given_up(self, delivered: Delivered, reason: str) -> bool:
        """Put aside and answer, each once and as far as it is possible; returns whether the message may be deleted."""
        try:
            self._put_aside(delivered, f"{reason} (in the last of {self._max_receives} deliveries)")
        except FacerecError as exc:
            log.warning("not_put_aside", reason=str(exc))
            return False
        try:
            self._recogniser.fail(self._decoded(delivered), _GIVEN_UP, delivered.attempt)
        except FacerecError as exc:
            log.warning("not_answered", reason=str(exc))
        return True

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


_WELL = (frozenset(Outcome) - {Outcome.FAILED}) | {"postponed"}

_GIVEN_UP = "the picture could not be processed for now; upload it again later"
