"""The use case: recognise the faces of one request, store the result, publish it.

Drivers (the Celery worker; Lambda and edge are planned) call `Recogniser.run` and map its outcome.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from time import perf_counter
from typing import TYPE_CHECKING, Protocol, TypeVar

import structlog

from facerec.errors import QueueMissing, Refused
from facerec.messages import (
    NO_FACE,
    UNKNOWN,
    Face,
    FaceQuality,
    Outcome,
    RecognitionRequest,
    RecognitionResult,
    ResultBox,
    ResultMatch,
    ThresholdSource,
)
from facerec.object_keys import output_key
from facerec.ports import FaceEngine, ObjectStore, ResultPublisher
from facerec.stored_results import store_result, stored_result
from model.header import InvalidImage
from model.tail import ImpostorTail, identification_threshold

if TYPE_CHECKING:
    from model.faces import EmbeddedFace, ImageAnalysis
    from model.matching import GalleryIndex

log = structlog.get_logger(__name__)

T = TypeVar("T")

MATCHES_PER_FACE = 5
"""The most identities at or above the threshold that a result lists for each face."""


class GalleryReader(Protocol):
    """The gallery as it is now; its owner keeps it fresh. Every method may raise `Transient`."""

    def index(self, collection: str) -> "GalleryIndex":
        """The searchable templates of a collection; empty if it has none."""

    def threshold(self, collection: str) -> float | None:
        """The collection's calibrated threshold for the model in use; `None` if it was not calibrated."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """The least similarity of a match and where it comes from.

    `false_names` and `extrapolated` apply to the source `model` only.
    """

    value: float
    source: ThresholdSource
    identities: int
    false_names: float | None = None
    extrapolated: bool = False


@dataclass(frozen=True, slots=True)
class ModelThresholds:
    """The thresholds of a model's table: at most the share `false_names` of strangers gets a name.

    `verification` is the threshold of a one-to-one comparison; no threshold of the table is lower.
    """

    tail: ImpostorTail
    verification: float
    false_names: float

    def threshold(self, identities: int) -> Threshold:
        """The threshold for a collection with this number of identities."""
        found = identification_threshold(self.tail, self.verification, self.false_names, identities)
        return Threshold(found.value, "model", identities, self.false_names, found.extrapolated)


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


class PortWrapper(Protocol):
    """Returns a port with the same methods, around which it does something, such as retries."""

    def __call__(self, port: T, /) -> T:
        """Wrap a port."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recogniser:
    """Recognises requests; safe for many threads, and idempotent.

    The output key is the request id, so a redelivery overwrites. On a later attempt a stored result is published again
    instead of computed again. The order is store, publish, return: a driver acknowledges after the return.
    """

    store: ObjectStore
    engine: FaceEngine
    gallery: GalleryReader
    publisher: ResultPublisher
    output_bucket: str
    thresholds: ModelThresholds
    copy_by_filename: bool = False
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def with_ports(self, wrap: PortWrapper) -> "Recogniser":
        """Return a copy whose services are wrapped, each on its own; the engine is not."""
        return replace(self, store=wrap(self.store), gallery=wrap(self.gallery), publisher=wrap(self.publisher))

    def run(self, request: RecognitionRequest, attempt: int = 1, timer: StageTimer | None = None) -> RecognitionResult:
        """Recognise, store, publish; `attempt` counts deliveries from 1.

        The result has the stages up to `match`; `timer` also gets `store` and `publish`.
        Raises `ObjectMissing` if the input is gone, `EngineFailure` if this image makes the engine fail, and
        `Transient` if a service cannot be reached; nothing has been published then.
        """
        timer = timer or StageTimer()
        result = self._load_stored(request) if attempt > 1 else None
        if result is None:
            result = self._compute(request, attempt, timer)
            with timer.stage("store"):
                self._store(result)
        with timer.stage("publish"):
            self._publish(request, result)
        return result

    def fail(
        self, request: RecognitionRequest, reason: str, attempt: int = 1, *, retryable: bool = False
    ) -> RecognitionResult:
        """Store and publish that this request cannot be processed; a result that is already stored is kept."""
        result = self._load_stored(request)
        if result is None:
            result = self._result(request, Outcome.FAILED, attempt, detail=reason, retryable=retryable)
            self._store(result)
        self._publish(request, result)
        return result

    def _load_stored(self, request: RecognitionRequest) -> RecognitionResult | None:
        return stored_result(self.store, self.output_bucket, output_key(request.request_id, request.filename))

    def _store(self, result: RecognitionResult) -> None:
        store_result(self.store, self.output_bucket, result, copy_by_filename=self.copy_by_filename)

    def _publish(self, request: RecognitionRequest, result: RecognitionResult) -> None:
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

    def _compute(self, request: RecognitionRequest, attempt: int, timer: StageTimer) -> RecognitionResult:
        with timer.stage("fetch"):
            image = self.store.get(request.input.bucket, request.input.key)
        try:
            with timer.stage("engine"):
                analysis = self.engine.analyse(image)
        except InvalidImage as exc:
            return self._result(request, Outcome.INVALID_IMAGE, attempt, timer, detail=str(exc))
        timer.add(analysis.timings_ms)
        with timer.stage("match"):
            faces, threshold = self._match(request, analysis)
        outcome = Outcome.NO_FACE if not faces else Outcome.MATCH if faces[0].matches else Outcome.UNKNOWN
        return self._result(
            request, outcome, attempt, timer, faces=faces, threshold=threshold, more_faces=analysis.more_faces
        )

    def _match(
        self, request: RecognitionRequest, analysis: "ImageAnalysis"
    ) -> tuple[tuple[Face, ...], Threshold | None]:
        if not analysis.faces:
            return (), None
        # Imported here because the web tier's bootstrap reaches this module and runs without numpy.
        import numpy as np  # noqa: PLC0415

        index = self.gallery.index(request.collection)
        threshold = self._threshold(request, index.identities)
        found = index.search(np.stack([face.embedding for face in analysis.faces]), limit=MATCHES_PER_FACE)
        faces = tuple(
            _face(
                face,
                [
                    ResultMatch(identity=m.identity, similarity=m.similarity, threshold=threshold.value)
                    for m in matches
                    if m.similarity >= threshold.value
                ],
            )
            for face, matches in zip(analysis.faces, found, strict=True)
        )
        return faces, threshold

    def _threshold(self, request: RecognitionRequest, identities: int) -> Threshold:
        """The request's threshold, or the collection's, or the model's: the first that exists."""
        if request.threshold is not None:
            return Threshold(request.threshold, "request", identities)
        calibrated = self.gallery.threshold(request.collection)
        if calibrated is not None:
            return Threshold(calibrated, "collection", identities)
        return self.thresholds.threshold(identities)

    def _result(
        self,
        request: RecognitionRequest,
        outcome: Outcome,
        attempt: int,
        timer: StageTimer | None = None,
        *,
        faces: tuple[Face, ...] = (),
        detail: str | None = None,
        retryable: bool = False,
        threshold: Threshold | None = None,
        more_faces: int = 0,
    ) -> RecognitionResult:
        names = {Outcome.UNKNOWN: UNKNOWN, Outcome.NO_FACE: NO_FACE}
        return RecognitionResult(
            request_id=request.request_id,
            result=faces[0].matches[0].identity if outcome is Outcome.MATCH else names.get(outcome, ""),
            filename=request.filename,
            outcome=outcome,
            detail=detail,
            retryable=retryable,
            collection=request.collection,
            faces=faces,
            threshold_source=threshold.source if threshold else None,
            threshold=threshold.value if threshold else None,
            identities=threshold.identities if threshold else None,
            false_names=threshold.false_names if threshold else None,
            threshold_extrapolated=threshold is not None and threshold.extrapolated,
            more_faces=more_faces,
            model_id=self.engine.model_id,
            engine=self.engine.name,
            precision=self.engine.precision,
            timings_ms=dict(timer.timings_ms) if timer else {},
            attempt=attempt,
            completed_at=self.now(),
        )


def _face(face: "EmbeddedFace", matches: Sequence[ResultMatch]) -> Face:
    box = ResultBox(x_min=face.box.x_min, y_min=face.box.y_min, x_max=face.box.x_max, y_max=face.box.y_max)
    quality = None if face.quality is None else FaceQuality(score=face.quality.score, reasons=face.quality.reasons)
    return Face(
        box=box, probability=face.probability, landmarks=face.landmarks, matches=tuple(matches), quality=quality
    )
