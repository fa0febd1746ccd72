"""What the use cases share: one result per request, stored, then published."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from time import perf_counter
from typing import Protocol, Self, TypeVar

import structlog

from facerec.comparison import NOT_COMPARED, Comparison
from facerec.edge_messages import DeviceRequest
from facerec.errors import QueueMissing, Refused
from facerec.messages import NO_FACE, UNKNOWN, Outcome, RecognitionRequest, RecognitionResult, Request
from facerec.object_keys import output_key
from facerec.ports import ModelInUse, ObjectStore, ResultPublisher
from facerec.stored_results import store_result, stored_result

log = structlog.get_logger(__name__)

T = TypeVar("T")


@dataclass(slots=True)
class StageTimer:
    """How long each stage of one delivery took, in milliseconds."""

    timings_ms: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the block, also if it raises."""
        started = perf_counter()
        try:
            yield
        finally:
            self.add({name: (perf_counter() - started) * 1000})

    def add(self, timings_ms: Mapping[str, float]) -> None:
        """Add stages that were timed elsewhere."""
        self.timings_ms |= {stage: round(milliseconds, 3) for stage, milliseconds in timings_ms.items()}


def added(first: Mapping[str, float], second: Mapping[str, float]) -> dict[str, float]:
    """Return the stages of two deliveries; the times of a stage in both are added up."""
    return {stage: round(first.get(stage, 0) + second.get(stage, 0), 3) for stage in {**first, **second}}


class PortWrapper(Protocol):
    """Returns a port with the same methods, around which it does something, such as retries."""

    def __call__(self, port: T, /) -> T:
        """Wrap a port."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answering:
    """The base of the use cases; safe for many threads, and idempotent.

    The output key is the request id, so a redelivery overwrites. On a later attempt a stored result is published again
    instead of computed again. The order is store, publish, return: a driver acknowledges after the return.
    """

    store: ObjectStore
    engine: ModelInUse
    publisher: ResultPublisher
    output_bucket: str
    copy_by_filename: bool = False
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def with_ports(self, wrap: PortWrapper) -> Self:
        """Return a copy whose services are wrapped, each on its own; the engine is not."""
        return replace(self, store=wrap(self.store), publisher=wrap(self.publisher))

    def fail(self, request: Request, reason: str, attempt: int = 1, *, retryable: bool = False) -> RecognitionResult:
        """Store and publish that this request cannot be processed; a result that is already stored is kept."""
        result = self._load_stored(request)
        if result is None:
            result = self._result(request, Outcome.FAILED, attempt, {}, detail=reason, retryable=retryable)
            self._store(result)
        self._publish(request, result)
        return result

    def _earlier(self, request: Request, attempt: int) -> RecognitionResult | None:
        """Return the result that an earlier delivery stored; the first delivery does not look."""
        return self._load_stored(request) if attempt > 1 else None

    def _conclude(
        self, request: Request, result: RecognitionResult, timer: StageTimer, *, stored: bool
    ) -> RecognitionResult:
        """Store the result unless it is stored already, and publish it."""
        if not stored:
            with timer.stage("store"):
                self._store(result)
        with timer.stage("publish"):
            self._publish(request, result)
        return result

    def _load_stored(self, request: Request) -> RecognitionResult | None:
        stored = stored_result(self.store, self.output_bucket, output_key(request.request_id, request.filename))
        # A device gets back what is stored, and it chooses its request ids.
        return stored if stored is not None and stored.thing == _thing(request) else None

    def _store(self, result: RecognitionResult) -> None:
        copied = self.copy_by_filename and result.operation == "recognise"
        store_result(self.store, self.output_bucket, result, copy_by_filename=copied)

    def _publish(self, request: Request, result: RecognitionResult) -> None:
        if request.reply_to is None:
            return
        try:
            self.publisher.publish(request.reply_to, result)
        except QueueMissing:
            # Its web process has left. The stored result can still be fetched, and a retry would not find the queue.
            log.warning("response_queue_missing", queue=request.reply_to, request_id=str(request.request_id))
        except Refused as exc:
            # The web tier finds the stored result, and the queue would refuse it every time.
            log.warning("result_refused", request_id=str(request.request_id), reason=str(exc))

    def _compared(
        self, request: Request, comparison: Comparison, attempt: int, timings_ms: Mapping[str, float]
    ) -> RecognitionResult:
        """Return the result of a picture that was recognised; the primary face decides."""
        faces = comparison.faces
        outcome = Outcome.NO_FACE if not faces else Outcome.MATCH if faces[0].matches else Outcome.UNKNOWN
        return self._result(request, outcome, attempt, timings_ms, comparison)

    def _result(
        self,
        request: Request,
        outcome: Outcome,
        attempt: int,
        timings_ms: Mapping[str, float],
        comparison: Comparison = NOT_COMPARED,
        *,
        detail: str | None = None,
        retryable: bool = False,
    ) -> RecognitionResult:
        names = {Outcome.UNKNOWN: UNKNOWN, Outcome.NO_FACE: NO_FACE}
        faces, threshold = comparison.faces, comparison.threshold
        device = request if isinstance(request, DeviceRequest) else None
        return RecognitionResult(
            request_id=request.request_id,
            result=faces[0].matches[0].identity if outcome is Outcome.MATCH else names.get(outcome, ""),
            filename=request.filename,
            outcome=outcome,
            detail=detail,
            retryable=retryable,
            collection=request.collection,
            operation=request.operation.kind if isinstance(request, RecognitionRequest) else "recognise",
            faces=faces,
            width=comparison.width or None,
            height=comparison.height or None,
            threshold_source=threshold.source if threshold else None,
            threshold=threshold.value if threshold else None,
            identities=threshold.identities if threshold else None,
            false_names=threshold.false_names if threshold else None,
            threshold_extrapolated=threshold is not None and threshold.extrapolated,
            more_faces=comparison.more_faces,
            model_id=self.engine.model_id,
            engine=self.engine.name,
            precision=self.engine.precision,
            timings_ms=dict(timings_ms),
            attempt=attempt,
            thing=_thing(request),
            captured_at=device.captured_at if device else None,
            frame_id=device.frame_id if device else None,
            completed_at=self.now(),
        )


def _thing(request: Request) -> str | None:
    return request.thing if isinstance(request, DeviceRequest) else None
