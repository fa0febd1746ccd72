"""From a delivered task to a use case and back: decode, call, map the outcome to what happens to the message.

The worker and both functions use it, each with its own use case and its own `decode`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import perf_counter
from typing import Any, Generic, Protocol, Self, TypeVar

import structlog

from facerec.answering import PortWrapper, StageTimer
from facerec.dead_letters import DeadLetterWriter
from facerec.delivery.retry import RetryBudget
from facerec.delivery.stale_tasks import Requeued, StaleTasks
from facerec.edge_messages import DeviceRequest
from facerec.errors import (
    ConfigurationError,
    EngineFailure,
    FacerecError,
    InvalidMessage,
    ObjectMissing,
    OtherModel,
    QueueMissing,
    Transient,
)
from facerec.message_base import ObjectRef
from facerec.messages import Forwarded, Outcome, RecognitionRequest, RecognitionResult, Request
from facerec.object_keys import MAX_KEY_BYTES, is_key
from facerec.operations import Compare, Reembed

log = structlog.get_logger(__name__)

W_contra = TypeVar("W_contra", contravariant=True)
W = TypeVar("W")

_GIVEN_UP = "the picture could not be processed for now; upload it again later"
_ADVICE: dict[type[FacerecError], str] = {
    InvalidMessage: _GIVEN_UP,
    ObjectMissing: "the uploaded picture is no longer stored; upload it again",
    OtherModel: "the model was replaced while the picture was processed; upload it again",
}
"""Sentences for the client, which name neither bucket nor model."""


@dataclass(frozen=True, slots=True)
class TaskDelivery:
    """One delivery of a task."""

    payload: Any
    """The task's argument."""
    body: str
    """The message around it, as SQS delivered it."""
    request_id: str
    attempt: int
    """Which delivery of the message this is, from 1."""


class UseCase(Protocol[W_contra]):
    """What a delivery is for; idempotent, and safe for many threads."""

    def run(self, work: W_contra, attempt: int, timer: StageTimer, /) -> RecognitionResult | Forwarded:
        """Do the work; returns the result that was stored and published, unless faces went onward.

        Raises `ObjectMissing` if the input is gone, `EngineFailure` if this input makes the engine fail,
        `InvalidMessage` and `OtherModel` if the faces cannot be used, and `Transient` if a service cannot be reached.
        """

    def fail(self, request: Request, reason: str, attempt: int, /, *, retryable: bool = False) -> RecognitionResult:
        """Store and publish that this request cannot be processed; a result that is already stored is kept."""

    def with_ports(self, wrap: PortWrapper) -> Self:
        """Return a copy whose services are wrapped."""


REQUEUED, REDELIVERED, ERROR, DEAD_LETTERED = "requeued", "redelivered", "error", "dead_lettered"
"""How a delivery may end, beside the outcomes of a recognition."""
FORWARDED = "forwarded"
"""The faces went onward, to their recognition."""
DEAD_LETTER_OUTCOMES = frozenset({DEAD_LETTERED, str(Outcome.FAILED)})
"""The outcomes after which the message is in the dead-letter queue."""
_GOOD_OUTCOMES = (frozenset(Outcome) - {Outcome.FAILED}) | {REQUEUED, FORWARDED}


@dataclass(slots=True)
class DeliveryRecord:
    """What is known of one delivery, for its log line and the metrics; filled in on the way."""

    attempt: int
    outcome: str = ERROR
    reason: str | None = None
    queued_seconds: float | None = None
    """From the request's submission to this delivery, by the clocks of two machines.

    `None` for a device's frame, which may have waited on the device, and whose clock may be wrong.
    """
    timer: StageTimer = field(default_factory=StageTimer)
    """The stages of this delivery; those in the result may be an earlier delivery's."""
    result: RecognitionResult | None = None
    forwarded: Forwarded | None = None
    seconds: float = 0.0

    def log(self) -> None:
        """Write the canonical line of the delivery."""
        facts: dict[str, Any] = {"outcome": str(self.outcome), "total_ms": round(self.seconds * 1000, 1)}
        if self.queued_seconds is not None:
            facts["queued_ms"] = round(self.queued_seconds * 1000, 1)
        if self.queued_seconds is not None or self.timer.timings_ms:
            facts["timings_ms"] = self.timer.timings_ms
        if self.reason is not None:
            facts["reason"] = self.reason
        if self.result is not None:
            facts |= {
                **({} if self.result.operation == "recognise" else {"operation": self.result.operation}),
                **({} if self.result.refusal is None else {"refusal": str(self.result.refusal)}),
                "faces": len(self.result.faces),
                "collection": self.result.collection,
                "engine": self.result.engine,
                "precision": self.result.precision,
                "computed_in_attempt": self.result.attempt,
            }
        if self.forwarded is not None:
            facts["faces"] = self.forwarded.faces
        level = log.info if self.outcome in _GOOD_OUTCOMES else log.warning
        level("recognised", **facts)


def decode_request(payload: Any, input_bucket: str, gallery_bucket: str | None = None) -> RecognitionRequest:
    """Read a request that S3 can serve from this bucket; raises `InvalidMessage`.

    The photo of `Reembed` alone is in the gallery bucket, which only workers read.
    """
    request = RecognitionRequest.parse(payload)
    kept = gallery_bucket is not None and isinstance(request.operation, Reembed)
    _check_place("input", request.input, gallery_bucket if kept and gallery_bucket else input_bucket)
    if isinstance(request.operation, Compare):
        _check_place("second photo", request.operation.target, input_bucket)
    return request


def _check_place(what: str, photo: ObjectRef, input_bucket: str) -> None:
    if photo.bucket != input_bucket:
        # A message must not make the worker read everything that its role may read.
        raise InvalidMessage(f"the {what} is in bucket {photo.bucket!r}, not in {input_bucket!r}")
    if not is_key(photo.key):
        # S3 would refuse it in each delivery.
        raise InvalidMessage(f"the {what}'s key is not 1 to {MAX_KEY_BYTES} bytes of text")


class TaskDriver(Generic[W]):
    """Processes deliveries of tasks; safe for many threads.

    `decode` turns the payload into the request and what the use case works on; it raises `InvalidMessage`.
    After `handle` has returned, or raised `Requeued`, the message is to be deleted: the request is answered, requeued,
    or in the dead-letter queue with its reason. After any other exception the message must be delivered again: at once
    after `GivenBack`, after a pause otherwise. A request that fails in the last of its `max_receives` deliveries is
    dead-lettered here, because SQS would move it without a reason. `on_end` gets the record of every delivery.
    """

    def __init__(
        self,
        use_case: UseCase[W],
        decode: Callable[[Any], tuple[Request, W]],
        dead_letters: DeadLetterWriter,
        stale_tasks: StaleTasks | None,
        retry_budget: Callable[[], RetryBudget],
        *,
        max_receives: float,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        on_end: Callable[[DeliveryRecord], None] = lambda _: None,
    ) -> None:
        self._use_case = use_case
        self._decode = decode
        self._dead_letters = dead_letters
        self._stale_tasks = stale_tasks
        self._retry_budget = retry_budget
        self._max_receives = max_receives
        self._now = now
        self._on_end = on_end

    def handle(self, delivery: TaskDelivery) -> DeliveryRecord:
        """Recognise one request; raises `Requeued`, `FacerecError`, or an unexpected exception."""
        with structlog.contextvars.bound_contextvars(request_id=delivery.request_id, attempt=delivery.attempt):
            started = perf_counter()
            record = DeliveryRecord(delivery.attempt)
            try:
                self._process(delivery, record)
            except Requeued as exc:
                record.outcome, record.reason = REQUEUED, str(exc)
                raise
            except Exception as exc:
                expected = isinstance(exc, FacerecError)
                record.reason = str(exc) if expected else repr(exc)
                if delivery.attempt >= self._max_receives and self.give_up(delivery, record.reason):
                    record.outcome = Outcome.FAILED
                    if not expected:
                        log.exception("task_given_up")
                    return record
                # Celery logs the traceback of an unexpected exception.
                record.outcome = REDELIVERED if expected else ERROR
                raise
            finally:
                record.seconds = perf_counter() - started
                record.log()
                self._on_end(record)
            return record

    def give_up(self, delivery: TaskDelivery, reason: str) -> bool:
        """Dead-letter the message and answer its client, without retries; returns whether it may be deleted.

        For a message that SQS will not deliver again.
        """
        try:
            self._put(delivery, f"{reason} (in the last of {self._max_receives} deliveries)", self._dead_letters)
        except FacerecError as exc:
            log.warning("not_dead_lettered", reason=str(exc))
            return False
        try:
            request, _ = self._decode(delivery.payload)
            self._use_case.fail(request, _GIVEN_UP, delivery.attempt, retryable=True)
        except FacerecError as exc:
            log.warning("not_answered", reason=str(exc))
        return True

    def _process(self, delivery: TaskDelivery, record: DeliveryRecord) -> None:
        budget = self._retry_budget()
        dead_letters = budget.retrying(self._dead_letters, (Transient, QueueMissing))
        try:
            request, work = self._decode(delivery.payload)
        except InvalidMessage as exc:
            record.reason = str(exc)
            self._dead_letter(delivery, record.reason, dead_letters)
            record.outcome = DEAD_LETTERED
            return
        if self._stale_tasks is not None:
            self._stale_tasks.requeue_if_stale(request, delivery.body, delivery.attempt, self._now())
        if not isinstance(request, DeviceRequest):
            record.queued_seconds = (self._now() - request.submitted_at).total_seconds()
        use_case = self._use_case.with_ports(budget.retrying)
        try:
            done = use_case.run(work, delivery.attempt, record.timer)
            if isinstance(done, Forwarded):
                record.forwarded, record.outcome = done, FORWARDED
            else:
                record.result, record.outcome = done, done.outcome
        except (EngineFailure, InvalidMessage, ObjectMissing, OtherModel) as exc:
            record.reason = str(exc)
            self._dead_letter(delivery, record.reason, dead_letters)
            # An engine's failure is the picture's fault; after the others a new upload may succeed.
            detail = _ADVICE.get(type(exc))
            use_case.fail(request, detail or record.reason, delivery.attempt, retryable=detail is not None)
            record.outcome = Outcome.FAILED

    def _dead_letter(self, delivery: TaskDelivery, reason: str, dead_letters: DeadLetterWriter) -> None:
        try:
            self._put(delivery, reason, dead_letters)
        except ConfigurationError as exc:
            # Other tasks need no dead-letter queue: it must not end the worker.
            raise Transient(str(exc)) from exc

    def _put(self, delivery: TaskDelivery, reason: str, dead_letters: DeadLetterWriter) -> None:
        dead_letters.put(delivery.body, reason=reason, request_id=delivery.request_id, failed_at=self._now())
