"""The use case: one request in, its result stored and published.

A driver (the Celery worker; Lambda and edge are planned) calls `Recogniser.recognise` and maps its outcome.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from time import perf_counter
from typing import TYPE_CHECKING, Protocol, TypeVar

import structlog

from facerec.errors import InvalidMessage, ObjectMissing, QueueMissing
from facerec.keys import copy_key, output_key
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
from facerec.ports import FaceEngine, ObjectStore, ResultPublisher
from model.header import InvalidImage

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
        default_threshold: float,
        copy_by_filename: bool = False,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._engine = engine
        self._gallery = gallery
        self._publisher = publisher
        self._output_bucket = output_bucket
        self._default_threshold = default_threshold
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
                self._keep(request, result, insist)
        with _timed(spent, "publish"):
            self._answer(request, result, insist)
        return result

    def fail(
        self, request: RecognitionRequest, reason: str, attempt: int = 1, *, insist: Insist = once
    ) -> RecognitionResult:
        """Store and publish that this request cannot be processed, so that its client need not wait in vain.

        A result that is stored already is published instead.
        """
        result = insist(lambda: self._stored(request))
        if result is None:
            result = self._result(request, Outcome.FAILED, attempt, {}, detail=reason)
            self._keep(request, result, insist)
        self._answer(request, result, insist)
        return result

    def _stored(self, request: RecognitionRequest) -> RecognitionResult | None:
        try:
            body = self._store.get(self._output_bucket, output_key(request.request_id, request.filename))
        except ObjectMissing:
            return None
        try:
            return RecognitionResult.parse(body)
        except InvalidMessage as exc:
            # Written by a newer version, or damaged: what this version computes is as good.
            log.warning("stored_result_unreadable", request_id=str(request.request_id), reason=str(exc))
            return None

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
            faces, source = insist(lambda: self._matched(request, analysis))
        outcome = Outcome.NO_FACE if not faces else Outcome.MATCH if faces[0].matches else Outcome.UNKNOWN
        return self._result(request, outcome, attempt, timings, faces=faces, threshold_source=source)

    def _threshold(self, request: RecognitionRequest) -> tuple[float, ThresholdSource]:
        """The first that there is of the request's, the collection's and the model's threshold."""
        if request.threshold is not None:
            return request.threshold, "request"
        own = self._gallery.threshold(request.collection)
        return (self._default_threshold, "model") if own is None else (own, "collection")

    def _matched(
        self, request: RecognitionRequest, analysis: "ImageAnalysis"
    ) -> tuple[tuple[Face, ...], ThresholdSource | None]:
        if not analysis.faces:
            return (), None
        # Imported here because the web tier's bootstrap reaches this module and runs without numpy.
        import numpy as np  # noqa: PLC0415

        threshold, source = self._threshold(request)
        index = self._gallery.index(request.collection)
        found = index.search(np.stack([face.embedding for face in analysis.faces]), limit=MATCHES_PER_FACE)
        faces = tuple(
            _face(
                face,
                [
                    Match(identity=m.identity, similarity=m.similarity, threshold=threshold)
                    for m in matches
                    if m.similarity >= threshold
                ],
            )
            for face, matches in zip(analysis.faces, found, strict=True)
        )
        return faces, source

    def _result(
        self,
        request: RecognitionRequest,
        outcome: Outcome,
        attempt: int,
        timings: Timings,
        *,
        faces: tuple[Face, ...] = (),
        detail: str | None = None,
        threshold_source: ThresholdSource | None = None,
    ) -> RecognitionResult:
        names = {Outcome.UNKNOWN: UNKNOWN, Outcome.NO_FACE: NO_FACE}
        return RecognitionResult(
            request_id=request.request_id,
            result=faces[0].matches[0].identity if outcome is Outcome.MATCH else names.get(outcome, ""),
            filename=request.filename,
            outcome=outcome,
            detail=detail,
            collection=request.collection,
            faces=faces,
            threshold_source=threshold_source,
            model_id=self._engine.model_id,
            engine=self._engine.name,
            precision=self._engine.precision,
            timings_ms=dict(timings),
            attempt=attempt,
            completed_at=self._now(),
        )

    def _keep(self, request: RecognitionRequest, result: RecognitionResult, insist: Insist) -> None:
        key = output_key(request.request_id, request.filename)
        body = result.to_json().encode()
        insist(lambda: self._store.put(self._output_bucket, key, body, "application/json"))
        if self._copy_by_filename:
            # For runs that expect the results of one upload set under the files' own names (contract, section 1).
            copy = copy_key(request.filename)
            name = result.result.encode()
            insist(lambda: self._store.put(self._output_bucket, copy, name, "text/plain; charset=utf-8"))

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
