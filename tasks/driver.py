"""From a delivered message to the use case and back: decode, call, map how it ended to what the queue is told."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import perf_counter
from typing import Any, Protocol

import structlog

from facerec.errors import ConfigurationError, EngineFailure, FacerecError, InvalidMessage, ObjectMissing, Transient
from facerec.messages import Outcome, RecognitionRequest, RecognitionResult
from facerec.object_keys import MAX_KEY_BYTES
from facerec.recognition import Insist, Recogniser, Timings
from tasks.retry import Patience
from tasks.stale_tasks import Latecomers, Postponed

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


POSTPONED, REDELIVERED, ERROR, DEAD_LETTERED = "postponed", "redelivered", "error", "dead_lettered"
"""How a delivery may end beside the outcomes of a recognition."""
PUT_ASIDE = frozenset({DEAD_LETTERED, str(Outcome.FAILED)})
"""The outcomes of what is in the dead-letter queue now."""


@dataclass(slots=True)
class Handling:
    """One delivery of a request: what is known of it, filled in on the way, for its line in the log and the metrics."""

    attempt: int
    outcome: str = ERROR
    reason: str | None = None
    queued_seconds: float | None = None
    """From the request's submission to this delivery, by two machines' clocks."""
    timings_ms: Timings = field(default_factory=dict)
    """Of this delivery; those of the result may be an earlier one's."""
    result: RecognitionResult | None = None
    seconds: float = 0.0


class TaskDriver:
    """What a task does; safe to call from many threads.

    On return the message is to be deleted: the request is answered, or it is in the dead-letter queue with its reason
    and, where it could be read, answered as failed. So it is on `Postponed`: the task was sent again. On any other
    exception the message must be delivered again: at once on `Interrupted`, after a pause else. What fails in the last
    of its deliveries, `max_receives`, is put aside here, since SQS would do so without the reason. `watch` gets every
    delivery when it is over.
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
        watch: Callable[[Handling], None] = lambda _: None,
    ) -> None:
        self._recogniser = recogniser
        self._dead_letters = dead_letters
        self._latecomers = latecomers
        self._patience = patience
        self._input_bucket = input_bucket
        self._max_receives = max_receives
        self._now = now
        self._watch = watch

    def handle(self, delivered: Delivered) -> Handling:
        """Recognise one request; raises `Postponed`, `FacerecError`, or whatever nobody expected."""
        with structlog.contextvars.bound_contextvars(request_id=delivered.request_id, attempt=delivered.attempt):
            started = perf_counter()
            handling = Handling(delivered.attempt)
            try:
                self._handle(delivered, handling)
            except Postponed as exc:
                handling.outcome, handling.reason = POSTPONED, str(exc)
                raise
            except Exception as exc:
                ours = isinstance(exc, FacerecError)
                handling.reason = str(exc) if ours else repr(exc)
                if delivered.attempt >= self._max_receives and self._given_up(delivered, handling.reason):
                    handling.outcome = Outcome.FAILED
                    if not ours:
                        log.exception("task_given_up")
                    return handling
                # Celery logs the traceback of what nobody expected.
                handling.outcome = REDELIVERED if ours else ERROR
                raise
            finally:
                handling.seconds = perf_counter() - started
                _say(handling)
                self._watch(handling)
            return handling

    def _handle(self, delivered: Delivered, handling: Handling) -> None:
        insist = self._patience().insist
        try:
            request = self._decoded(delivered)
        except InvalidMessage as exc:
            unreadable = str(exc)
            self._put_aside_patiently(delivered, unreadable, insist)
            handling.outcome, handling.reason = DEAD_LETTERED, unreadable
            return
        self._latecomers.give_way(request, delivered.body, delivered.attempt, self._now())
        handling.queued_seconds = (self._now() - request.submitted_at).total_seconds()
        try:
            handling.result = self._recogniser.recognise(
                request, delivered.attempt, insist=insist, timings=handling.timings_ms
            )
            handling.outcome = handling.result.outcome
        except (EngineFailure, ObjectMissing) as exc:
            reason = str(exc)
            self._put_aside_patiently(delivered, reason, insist)
            missing = isinstance(exc, ObjectMissing)
            told = _INPUT_MISSING if missing else reason
            self._recogniser.fail(request, told, delivered.attempt, retryable=missing, insist=insist)
            handling.outcome, handling.reason = Outcome.FAILED, reason

    def _decoded(self, delivered: Delivered) -> RecognitionRequest:
        request = RecognitionRequest.parse(delivered.payload)
        if request.input.bucket != self._input_bucket:
            # A message chooses what is recognised, not what the worker's role may read.
            raise InvalidMessage(f"the input is in bucket {request.input.bucket!r}, not in {self._input_bucket!r}")
        if not 0 < len(request.input.key.encode()) <= MAX_KEY_BYTES:
            # S3 would refuse it like a worker that is set up wrongly, which exits.
            raise InvalidMessage(
                f"the input's key has {len(request.input.key.encode())} bytes, not 1 to {MAX_KEY_BYTES}"
            )
        return request

    def _given_up(self, delivered: Delivered, reason: str) -> bool:
        """Put aside and answer, each once and as far as it is possible; returns whether the message may be deleted."""
        try:
            self._put_aside(delivered, f"{reason} (in the last of {self._max_receives} deliveries)")
        except FacerecError as exc:
            log.warning("not_put_aside", reason=str(exc))
            return False
        try:
            self._recogniser.fail(self._decoded(delivered), _GIVEN_UP, delivered.attempt, retryable=True)
        except FacerecError as exc:
            log.warning("not_answered", reason=str(exc))
        return True

    def _put_aside_patiently(self, delivered: Delivered, reason: str, insist: Insist) -> None:
        try:
            insist(lambda: self._put_aside(delivered, reason))
        except ConfigurationError as exc:
            # It may be for this message alone, which is too large with its reason: no cause to end the worker.
            raise Transient(str(exc)) from exc

    def _put_aside(self, delivered: Delivered, reason: str) -> None:
        self._dead_letters.put(delivered.body, reason=reason, request_id=delivered.request_id, failed_at=self._now())


def _facts(handling: Handling) -> dict[str, Any]:
    result = handling.result
    facts: dict[str, Any] = {"total_ms": round(handling.seconds * 1000, 1)}
    if handling.queued_seconds is not None:
        facts |= {"queued_ms": round(handling.queued_seconds * 1000, 1), "timings_ms": handling.timings_ms}
    if handling.reason is not None:
        facts["reason"] = handling.reason
    if result is not None:
        facts |= {
            "faces": len(result.faces),
            "collection": result.collection,
            "engine": result.engine,
            "precision": result.precision,
            "computed_in_attempt": result.attempt,
        }
    return facts


def _say(handling: Handling) -> None:
    """The canonical line of a delivery."""
    level = log.info if handling.outcome in _WELL else log.warning
    level("recognised", outcome=str(handling.outcome), **_facts(handling))


_WELL = (frozenset(Outcome) - {Outcome.FAILED}) | {POSTPONED}

_INPUT_MISSING = "the uploaded picture is no longer stored; upload it again"
_GIVEN_UP = "the picture could not be processed for now; upload it again later"
