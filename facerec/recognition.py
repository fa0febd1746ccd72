"""The use case: recognise the faces of one request, store the result, publish it; whole, or in two halves.

The worker calls `Recogniser`. In the functions `FaceDetection` sends the faces of a photo to `FaceRecognition`, and
answers photos without a face itself: the same steps, so the same result.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self, TypeVar

import structlog

from facerec.answering import Answering, PortWrapper, StageTimer, added
from facerec.comparison import Comparison, GalleryReader, ModelThresholds, UnknownSights, compare, not_compared
from facerec.device_faces import DeviceFaces, jpeg_faces
from facerec.edge_messages import DeviceRequest
from facerec.errors import ConfigurationError, InvalidMessage, OtherModel, Refused
from facerec.faces_message import faces_message, first_faces, packed_crops, picture_faces
from facerec.message_base import ObjectRef
from facerec.messages import (
    FacesMessage,
    Forwarded,
    Outcome,
    RecognitionRequest,
    RecognitionResult,
    Refusal,
    Request,
)
from facerec.object_keys import faces_key
from facerec.operations import Detect, Recognise
from facerec.ports import DeviceResults, FaceDetector, FaceEmbedder, FaceEngine, FacesPublisher, ObjectStore
from model.faces import ImageAnalysis, PackedFaces
from model.header import InvalidImage

log = structlog.get_logger(__name__)

Seen = TypeVar("Seen", ImageAnalysis, PackedFaces)

_BINARY = "application/octet-stream"
_FACE_BYTES = 1000
"""More than a face takes in a message without its crop, which is some 650 bytes."""
_UNSUPPORTED = "the functions recognise and detect faces only: an app tier of workers does this, too"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Comparing(Answering):
    """The base of the use cases that compare faces with the gallery."""

    gallery: GalleryReader
    thresholds: ModelThresholds
    unknown: UnknownSights | None = None
    """`None`: unknown people are not kept. Its services are not wrapped: an answer does not wait for them."""

    def with_ports(self, wrap: PortWrapper) -> Self:
        """Return a copy whose services are wrapped."""
        return replace(Answering.with_ports(self, wrap), gallery=wrap(self.gallery))

    def _recognised(self, request: Request, analysis: ImageAnalysis) -> Comparison:
        comparison = compare(request, analysis, self.gallery, self.thresholds)
        return comparison if self.unknown is None else self.unknown.seen(request, analysis.faces, comparison)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recogniser(_Comparing):
    """From a photo to its result."""

    engine: FaceEngine

    def run(self, request: RecognitionRequest, attempt: int = 1, timer: StageTimer | None = None) -> RecognitionResult:
        """Recognise, store, publish; `attempt` counts deliveries from 1.

        The result has the stages up to `match`; `timer` also gets `store` and `publish`.
        Raises `ObjectMissing` if the input is gone, `EngineFailure` if this image makes the engine fail, and
        `Transient` if a service cannot be reached; nothing has been published then.
        """
        timer = timer or StageTimer()
        earlier = self._earlier(request, attempt)
        result = earlier or self._compute(request, attempt, timer)
        return self._conclude(request, result, timer, stored=earlier is not None)

    def _compute(self, request: RecognitionRequest, attempt: int, timer: StageTimer) -> RecognitionResult:
        try:
            analysis = seen_in(request.input, self.engine.analyse, self.store, timer)
        except InvalidImage as exc:
            return self._result(request, Outcome.INVALID_IMAGE, attempt, timer.timings_ms, detail=str(exc))
        with timer.stage("match"):
            comparison = self._recognised(request, analysis)
        return self._compared(request, comparison, attempt, timer.timings_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceDetection(Answering):
    """From a photo to its faces, which are sent onward, or to its result if it has none.

    Crops that do not fit into a message of `max_message_bytes` go through the input bucket, where they expire. Faces
    that do not fit, from the 250th or so, are only counted.
    """

    engine: FaceDetector
    faces: FacesPublisher
    input_bucket: str
    max_message_bytes: int

    def with_ports(self, wrap: PortWrapper) -> Self:
        """Return a copy whose services are wrapped."""
        return replace(Answering.with_ports(self, wrap), faces=wrap(self.faces))

    def run(
        self, request: RecognitionRequest, attempt: int = 1, timer: StageTimer | None = None
    ) -> RecognitionResult | Forwarded:
        """Detect, and send the faces onward or store and publish the result; raises as `Recogniser.run`."""
        timer = timer or StageTimer()
        earlier = self._earlier(request, attempt)
        done = earlier or self._compute(request, attempt, timer)
        if isinstance(done, Forwarded):
            return done
        return self._conclude(request, done, timer, stored=earlier is not None)

    def _compute(self, request: RecognitionRequest, attempt: int, timer: StageTimer) -> RecognitionResult | Forwarded:
        if not isinstance(request.operation, Recognise | Detect):
            refused = self._result(request, Outcome.REFUSED, attempt, timer.timings_ms, detail=_UNSUPPORTED)
            return refused.model_copy(update={"refusal": Refusal.UNSUPPORTED})
        try:
            picture = seen_in(request.input, self.engine.detect, self.store, timer)
        except InvalidImage as exc:
            return self._result(request, Outcome.INVALID_IMAGE, attempt, timer.timings_ms, detail=str(exc))
        if isinstance(request.operation, Detect):
            return self._result(request, Outcome.DONE, attempt, timer.timings_ms, not_compared(picture))
        if not picture.faces:
            return self._compared(request, not_compared(picture), attempt, timer.timings_ms)
        with timer.stage("send"):
            self._send(request, picture, timer)
        return Forwarded(len(picture.faces))

    def _send(self, request: RecognitionRequest, picture: PackedFaces, timer: StageTimer) -> None:
        picture = first_faces(picture, self.max_message_bytes // _FACE_BYTES)
        message = faces_message(request, picture, self.engine.model_id, timer.timings_ms)
        if len(message.to_json()) > self.max_message_bytes:
            stored = ObjectRef(bucket=self.input_bucket, key=_crops_key(request), size=len(picture.crops))
            self.store.put(stored.bucket, stored.key, picture.crops, _BINARY)
            message = message.model_copy(update={"crops": None, "crops_object": stored})
        self.faces.publish(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceRecognition(_Comparing):
    """From the faces of a photo, or of a device's frame, to its result.

    `crop_side` is the model's, `max_faces` the most faces of a message; crops are read from `input_bucket` only.
    """

    engine: FaceEmbedder
    devices: DeviceResults
    input_bucket: str
    crop_side: int
    max_faces: int

    def with_ports(self, wrap: PortWrapper) -> Self:
        """Return a copy whose services are wrapped."""
        return replace(_Comparing.with_ports(self, wrap), devices=wrap(self.devices))

    def run(
        self, work: FacesMessage | DeviceFaces, attempt: int = 1, timer: StageTimer | None = None
    ) -> RecognitionResult:
        """Recognise, store, publish, as `Recogniser.run`; the result has the stages of both halves.

        Stages of one name are added up. A device that wants the result gets it last.
        Also raises `InvalidMessage` if the crops cannot be read, and `OtherModel`.
        """
        timer = timer or StageTimer()
        earlier = self._earlier(work.request, attempt)
        result = earlier or self._compute(work, attempt, timer)
        return self._conclude(work.request, result, timer, stored=earlier is not None)

    def _compute(self, work: FacesMessage | DeviceFaces, attempt: int, timer: StageTimer) -> RecognitionResult:
        if work.model_id not in (None, self.engine.model_id):
            raise OtherModel(str(work.model_id), self.engine.model_id)
        analysis = self._of_device(work, timer) if isinstance(work, DeviceFaces) else self._of_photo(work, timer)
        timer.add(analysis.timings_ms)
        with timer.stage("match"):
            comparison = self._recognised(work.request, analysis)
        return self._compared(work.request, comparison, attempt, added(work.timings_ms, timer.timings_ms))

    def _of_device(self, work: DeviceFaces, timer: StageTimer) -> ImageAnalysis:
        with timer.stage("engine"):
            faces = jpeg_faces(work.message, max_faces=self.max_faces)
            try:
                return self.engine.embed(faces)
            except InvalidImage as exc:
                raise InvalidMessage(str(exc)) from exc

    def _of_photo(self, message: FacesMessage, timer: StageTimer) -> ImageAnalysis:
        packed = self._packed(message, timer)
        with timer.stage("engine"):
            faces = picture_faces(message, packed, crop_side=self.crop_side, max_faces=self.max_faces)
            return self.engine.embed(faces)

    def _packed(self, message: FacesMessage, timer: StageTimer) -> bytes:
        packed = packed_crops(message)
        if packed is not None:
            return packed
        stored, key = message.crops_object, _crops_key(message.request)
        if stored is None or (stored.bucket, stored.key) != (self.input_bucket, key):
            # A message must not make the function read everything that its role may read.
            raise InvalidMessage(f"the crops are not in bucket {self.input_bucket!r} as {key!r}")
        with timer.stage("fetch"):
            return self.store.get(stored.bucket, stored.key)

    def _publish(self, request: Request, result: RecognitionResult) -> None:
        Answering._publish(self, request, result)  # noqa: SLF001 - `super` does not work in a class with slots
        if not isinstance(request, DeviceRequest) or not request.results:
            return
        try:
            self.devices.publish(request.thing, result)
        except (ConfigurationError, Refused) as exc:
            # The result is stored and on the response queue; a retry would be refused, too.
            log.warning(
                "device_result_refused", request_id=str(request.request_id), thing=request.thing, reason=str(exc)
            )


def seen_in(ref: ObjectRef, look: Callable[[bytes], Seen], store: ObjectStore, timer: StageTimer) -> Seen:
    """Return what the engine finds in a stored photo, with the time of each stage; raises `InvalidImage`."""
    with timer.stage("fetch"):
        photo = store.get(ref.bucket, ref.key)
    with timer.stage("engine"):
        seen = look(photo)
    timer.add(seen.timings_ms)
    return seen


def _crops_key(request: Request) -> str:
    return faces_key(request.request_id, request.filename)
