"""The use case: one request in, its result stored and published.

A driver (the Celery worker; Lambda and edge are planned) calls `Recogniser.recognise` and maps its outcome.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from time import perf_counter
from typing import TYPE_CHECKING, Protocol, TypeVar

import structlog

from facerec.errors import QueueMissing
from facerec.messages import (
    NO_FACE,
    UNKNOWN,
    Box,
    Face,
    FaceQuality,
    Match,
    Outcome,
    RecognitionRequest,
    RecognitionResult,
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

Timings = dict[str, float]
"""How long each stage took, in milliseconds, filled in as it becomes known."""

MATCHES_PER_FACE = 5
"""How many identities at or above the threshold a result lists for each face."""


class GalleryReader(Protocol):
    """The gallery as it is now, kept fresh by its owner."""

    def index(self, collection: str) -> "GalleryIndex":
        """The searchable templates of a collection; an empty index for one without any."""

    def threshold(self, collection: str) -> float | None:
        """The collection's own threshold for the model in use, if it was calibrated."""


@dataclass(frozen=True, slots=True)
class ModelThresholds:
    """The thresholds of a model's table: at most `false_names` of strangers get a name, however many are enrolled.

    `verification` is the threshold of a comparison one to one, below which none of them lies.
    """

    tail: ImpostorTail
    verification: float
    false_names: float

    def threshold(self, identities: int) -> "Threshold":
        """Return the threshold for a collection of so many identities."""
        found = identification_threshold(self.tail, self.verification, self.false_names, identities)
        return Threshold(found.value, "model", identities, self.false_names, found.extrapolated)


@dataclass(frozen=True, slots=True)
class Threshold:
    """The least similarity of a match, whose it is, and how many people there are; the rest is said of the model's."""

    value: float
    source: ThresholdSource
    identities: int
    false_names: float | None = None
    extrapolated: bool = False


T = TypeVar("T")


class Insist(Protocol):
    """How a driver carries out one step, of which any may fail with `Transient`: once, or again until it succeeds."""

    def __call__(self, step: Callable[[], T], /) -> T:
        """Return what the step returns."""


def once(step: Callable[[], T], /) -> T:
    """Carry out a step once."""
    return step()


class Recogniser:
    """Recognises requests; safe to call from many threads.

    Idempotent: the output is keyed by the request id, so a redelivery overwrites; and on a later attempt a result that
    is already stored is published again, not computed again. The order is store, publish, return: whoever acknowledges
    the message after `recognise` has returned loses nothing.
    """

    def __init__(
        self,
        *,
        store: ObjectStore,
        engine: FaceEngine,
        gallery: GalleryReader,
        publisher: ResultPublisher,
        output_bucket: str,
        thresholds: ModelThresholds,
        copy_by_filename: bool = False,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._engine = engine
        self._gallery = gallery
        self._publisher = publisher
        self._output_bucket = output_bucket
        self._thresholds = thresholds
        self._copy_by_filename = copy_by_filename
        self._now = now

    def recognise(
        self,
        request: RecognitionRequest,
        attempt: int = 1,
        *,
        insist: Insist = once,
        timings: Timings | None = None,
    ) -> RecognitionResult:
        """Recognise, store, publish; `attempt` counts deliveries from 1.

        `insist` repeats single steps: what is computed or stored stays so while a later one is tried again. `timings`
        is filled in, also on an error, and with the stages that come after the result is written. Raises
        `ObjectMissing` when the input is gone, `EngineFailure` when this image is the engine's culprit, and `Transient`
        when a service cannot be reached; nothing has been published then.
        """
        spent = {} if timings is None else timings
        result = insist(lambda: self._stored(request)) if attempt > 1 else None
        if result is None:
            result = self._compute(request, attempt, insist, spent)
            with _timed(spent, "store"):
                self._keep(result, insist)
        with _timed(spent, "publish"):
            self._answer(request, result, insist)
        return result

    def fail(
        self,
        request: RecognitionRequest,
        reason: str,
        attempt: int = 1,
        *,
        retryable: bool = False,
        insist: Insist = once,
    ) -> RecognitionResult:
        """Store and publish that this request cannot be processed, so that its client need not wait in vain.

        A result that is stored already is published instead.
        """
        result = insist(lambda: self._stored(request))
        if result is None:
            result = self._result(request, Outcome.FAILED, attempt, {}, detail=reason, retryable=retryable)
            self._keep(result, insist)
        self._answer(request, result, insist)
        return result

    def _stored(self, request: RecognitionRequest) -> RecognitionResult | None:
        key = output_key(request.request_id, request.filename)
        return stored_result(self._store, self._output_bucket, key)

    def _compute(
        self, request: RecognitionRequest, attempt: int, insist: Insist, timings: Timings
    ) -> RecognitionResult:
        with _timed(timings, "fetch"):
            image = insist(lambda: self._store.get(request.input.bucket, request.input.key))
        try:
            with _timed(timings, "engine"):
                analysis = self._engine.analyse(image)
        except InvalidImage as exc:
            return self._result(request, Outcome.INVALID_IMAGE, attempt, timings, detail=str(exc))
        timings |= {stage: round(ms, 3) for stage, ms in analysis.timings_ms.items()}
        with _timed(timings, "match"):
            faces, threshold = insist(lambda: self._matched(request, analysis))
        outcome = Outcome.NO_FACE if not faces else Outcome.MATCH if faces[0].matches else Outcome.UNKNOWN
        return self._result(
            request, outcome, attempt, timings, faces=faces, threshold=threshold, more_faces=analysis.more_faces
        )

    def _threshold(self, request: RecognitionRequest, identities: int) -> Threshold:
        """The first that there is of the request's threshold, the collection's, and the model's for so many people."""
        if request.threshold is not None:
            return Threshold(request.threshold, "request", identities)
        own = self._gallery.threshold(request.collection)
        return self._thresholds.threshold(identities) if own is None else Threshold(own, "collection", identities)

    def _matched(
        self, request: RecognitionRequest, analysis: "ImageAnalysis"
    ) -> tuple[tuple[Face, ...], Threshold | None]:
        if not analysis.faces:
            return (), None
        # Imported here because the web tier's bootstrap reaches this module and runs without numpy.
        import numpy as np  # noqa: PLC0415

        index = self._gallery.index(request.collection)
        threshold = self._threshold(request, index.identities)
        found = index.search(np.stack([face.embedding for face in analysis.faces]), limit=MATCHES_PER_FACE)
        faces = tuple(
            _face(
                face,
                [
                    Match(identity=m.identity, similarity=m.similarity, threshold=threshold.value)
                    for m in matches
                    if m.similarity >= threshold.value
                ],
            )
            for face, matches in zip(analysis.faces, found, strict=True)
        )
        return faces, threshold

    def _result(
        self,
        request: RecognitionRequest,
        outcome: Outcome,
        attempt: int,
        timings: Timings,
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
            model_id=self._engine.model_id,
            engine=self._engine.name,
            precision=self._engine.precision,
            timings_ms=dict(timings),
            attempt=attempt,
            completed_at=self._now(),
        )

    def _keep(self, result: RecognitionResult, insist: Insist) -> None:
        insist(lambda: store_result(self._store, self._output_bucket, result, copy_by_filename=self._copy_by_filename))

    def _answer(self, request: RecognitionRequest, result: RecognitionResult, insist: Insist) -> None:
        reply_to = request.reply_to
        if reply_to is None:
            return

        def publish() -> None:
            try:
                self._publisher.publish(reply_to, result)
            except QueueMissing:
                # Its owner has left; the stored result stays fetchable, and a retry would find the queue no sooner.
                log.warning("response_queue_missing", queue=reply_to, request_id=str(request.request_id))

        insist(publish)


def _face(face: "EmbeddedFace", matches: Sequence[Match]) -> Face:
    box = Box(x_min=face.box.x_min, y_min=face.box.y_min, x_max=face.box.x_max, y_max=face.box.y_max)
    quality = None if face.quality is None else FaceQuality(score=face.quality.score, reasons=face.quality.reasons)
    return Face(
        box=box, probability=face.probability, landmarks=face.landmarks, matches=tuple(matches), quality=quality
    )


@contextmanager
def _timed(timings: Timings, stage: str) -> Iterator[None]:
    """Add how long the block took, however it ended."""
    started = perf_counter()
    try:
        yield
    finally:
        timings[stage] = round((perf_counter() - started) * 1000, 3)
