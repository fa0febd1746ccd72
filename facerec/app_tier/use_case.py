"""A worker's use case: what a request asks is done, its result is stored, then published."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Protocol, Self

import structlog

from facerec.answering import PortWrapper, StageTimer, added
from facerec.app_tier.enrolling import PhotoEnrolment
from facerec.app_tier.one_to_one import NotDone, nearest_others, similarities
from facerec.app_tier.reembedding import Reembedding, enrolled_template
from facerec.app_tier.unknown_faces import UnknownFaces
from facerec.comparison import GalleryReader, Threshold, applying_threshold, result_face, result_match
from facerec.errors import Transient
from facerec.gallery.enrolment import Enroller, EnrolmentStatus, rejection_id
from facerec.gallery.names import InvalidName, same_person
from facerec.gallery.rebuild import RebuildStatus
from facerec.message_base import ObjectRef
from facerec.messages import Outcome, RecognitionRequest, RecognitionResult, Refusal
from facerec.operations import (
    CheckEnrolment,
    Compare,
    Detect,
    Enrol,
    Recognise,
    Reembed,
    Reject,
    SearchTemplate,
    SearchUnknown,
    Verify,
)
from facerec.ports import FaceEngine, Rejection, Template, TemplateStore
from facerec.recognition import Recogniser, seen_in
from facerec.text import counted
from model.faces import ImageAnalysis, PictureToEnrol
from model.header import InvalidImage
from model.index.norms import normalised

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

log = structlog.get_logger(__name__)

_OTHER_MODEL = "{} to another model than the one in use: embed the gallery again with `facerec model migrate`"


class Gallery(GalleryReader, Protocol):
    """The gallery of a process that also enrols."""

    def known_name(self, collection: str, name: str, *, exact: bool = False) -> str:
        """Return the collection's spelling of a person's name, or an unknown name cleaned; raises `InvalidName`."""

    def refresh_collection(self, collection: str) -> None:
        """Bring a collection up to date."""


class OtherEngines(Protocol):
    """The engines of other models than the one in use."""

    def engine(self, model_id: str) -> FaceEngine | None:
        """Return the engine of a model of the migration that runs, opened if need be; `None` for any other model.

        Raises `Transient` if it cannot be opened now.
        """


class _NoOtherEngines:
    def engine(self, model_id: str) -> FaceEngine | None:  # noqa: ARG002 - the protocol's
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class AppTier(Recogniser):
    """`Recogniser` for every operation.

    An operation that cannot be done ends as `refused` with its reason. An enrolment is idempotent: its templates bear
    the time of the request, so a redelivery finds its own templates, and reports them as enrolled.
    """

    gallery: Gallery
    unknown: UnknownFaces | None = None
    templates: TemplateStore
    gallery_bucket: str
    min_face_pixels: int
    min_quality: float = 0.0
    min_probability: float = 0.0
    others: OtherEngines = field(default_factory=_NoOtherEngines)

    def with_ports(self, wrap: PortWrapper) -> Self:
        """Return a copy whose services are wrapped."""
        return replace(Recogniser.with_ports(self, wrap), templates=wrap(self.templates))

    def _compute(self, request: RecognitionRequest, attempt: int, timer: StageTimer) -> RecognitionResult:
        if isinstance(request.operation, Recognise):
            return Recogniser._compute(self, request, attempt, timer)  # noqa: SLF001 - `super` fails with slots
        outcome, facts = Outcome.DONE, dict[str, Any]()
        try:
            facts = self._done(request, timer)
        except InvalidImage as exc:
            outcome, facts = Outcome.INVALID_IMAGE, {"detail": str(exc)}
        except InvalidName as exc:
            outcome, facts = Outcome.REFUSED, {"detail": str(exc), "refusal": Refusal.INVALID_NAME}
        except NotDone as exc:
            outcome, facts = Outcome.REFUSED, {"detail": str(exc), "refusal": exc.refusal, **exc.facts}
        return self._result(request, outcome, attempt, timer.timings_ms).model_copy(update=facts)

    def _done(self, request: RecognitionRequest, timer: StageTimer) -> dict[str, Any]:
        """Return the fields of the result; raises `InvalidImage`, `InvalidName` and `NotDone`."""
        match request.operation:
            case Compare() as operation:
                return self._compare(request, operation, timer)
            case Verify() as operation:
                return self._verify(request, operation, timer)
            case SearchTemplate() as operation:
                return self._search_template(request, operation, timer)
            case CheckEnrolment() | Enrol() | Reject() | Reembed() as operation:
                return self._written(request, operation, timer)
            case Detect() | Recognise() | SearchUnknown():
                return self._look(request, timer)

    def _written(
        self, request: RecognitionRequest, operation: CheckEnrolment | Enrol | Reject | Reembed, timer: StageTimer
    ) -> dict[str, Any]:
        match operation:
            case CheckEnrolment():
                return self._check_enrolment(request, timer)
            case Enrol():
                return self._enrol(request, operation, timer)
            case Reject():
                return self._reject(request, operation, timer)
            case Reembed():
                return self._reembed(request, operation, timer)

    def _compare(self, request: RecognitionRequest, operation: Compare, timer: StageTimer) -> dict[str, Any]:
        source = seen_in(request.input, self.engine.analyse, self.store, timer)
        target = self._second(operation.target, timer)
        largest_first = sorted(source.faces, key=lambda face: face.box.area, reverse=True)
        with timer.stage("match"):
            found = similarities(target.faces, [face.embedding for face in largest_first[:1]])
        sizes = {"source_width": source.width, "source_height": source.height}
        threshold = self.thresholds.threshold(1)
        if request.threshold is not None:
            threshold = Threshold(request.threshold, "request", 1)
        source_faces = tuple(map(result_face, largest_first))
        return _of_picture(target, found) | _of_threshold(threshold) | sizes | {"source_faces": source_faces}

    def _template(self, collection: str, template_id: str) -> Template:
        template = self.templates.template(collection, template_id)
        if template is None or not normalised(template.embedding[None]).all():
            raise NotDone(Refusal.NO_SUCH_TEMPLATE, "there is no such template in this collection")
        if template.model_id != self.engine.model_id:
            raise NotDone(Refusal.OTHER_MODEL, _OTHER_MODEL.format("this template belongs"))
        return template

    def _person(self, collection: str, identity: str) -> "NDArray[np.float32]":
        """Return the embeddings of a person's templates; there is at least one."""
        embeddings = self._templates_of(collection, identity)
        if not len(embeddings):
            self.gallery.refresh_collection(collection)  # another worker may have enrolled the person just now
            embeddings = self._templates_of(collection, identity)
        if len(embeddings):
            return embeddings
        if any(same_person(owner, identity) for owner in set(self.templates.owners(collection).values())):
            raise NotDone(Refusal.OTHER_MODEL, _OTHER_MODEL.format("the templates of this person belong"))
        raise NotDone(Refusal.NO_SUCH_PERSON, "there is no such person in this collection")

    def _templates_of(self, collection: str, identity: str) -> "NDArray[np.float32]":
        return self.gallery.index(collection).templates_of(self.gallery.known_name(collection, identity))[0]

    def _second(self, target: ObjectRef, timer: StageTimer) -> ImageAnalysis:
        own = StageTimer()
        try:
            seen = seen_in(target, self.engine.analyse, self.store, own)
        except InvalidImage as exc:
            raise InvalidImage(f"the second picture: {exc}") from exc
        timer.timings_ms = added(timer.timings_ms, own.timings_ms)
        return seen

    def _verify(self, request: RecognitionRequest, operation: Verify, timer: StageTimer) -> dict[str, Any]:
        if operation.template_id is not None:
            embeddings = [self._template(request.collection, operation.template_id).embedding]
        else:
            embeddings = list(self._person(request.collection, operation.identity or ""))
        seen = seen_in(request.input, self.engine.analyse, self.store, timer)
        with timer.stage("match"):
            threshold = applying_threshold(request, 1, self.gallery, self.thresholds)
            found = similarities(seen.faces, embeddings)
        return _of_picture(seen, found) | _of_threshold(threshold)

    def _search_template(
        self, request: RecognitionRequest, operation: SearchTemplate, timer: StageTimer
    ) -> dict[str, Any]:
        with timer.stage("match"):
            template = self._template(request.collection, operation.template_id)
            index = self.gallery.index(request.collection)
            threshold = applying_threshold(request, index.identities, self.gallery, self.thresholds)
            hits = nearest_others(index, template, operation.nearest)
            matches = tuple(result_match(hit, threshold) for hit in hits)
        return {"matches": matches} | _of_threshold(threshold)

    def _enrol(self, request: RecognitionRequest, operation: Enrol, timer: StageTimer) -> dict[str, Any]:
        identity = operation.identity
        if identity is not None:
            identity = self.gallery.known_name(request.collection, identity, exact=operation.exact_name)
        photo, seen = self._photo(request.input, timer, PictureToEnrol)
        enrolment = self._enrolment(request)
        with timer.stage("write"):
            enrolments = enrolment.enrol(request, operation, identity, photo, seen.faces)
            self._show(request.collection)
        facts = _of_picture(seen) | {"enrolments": enrolments}
        if all(EnrolmentStatus(each.status).failed for each in enrolments):
            raise NotDone(Refusal.NOT_ENROLLED, enrolments[0].detail, facts)
        return facts

    def _check_enrolment(self, request: RecognitionRequest, timer: StageTimer) -> dict[str, Any]:
        photo, seen = self._photo(request.input, timer)
        enrolment = self._enrolment(request)
        with timer.stage("match"):
            enrolments = enrolment.check(request, photo, seen.faces)
        return _of_picture(seen) | _of_threshold(enrolment.threshold) | {"enrolments": enrolments}

    def _enrolment(self, request: RecognitionRequest) -> PhotoEnrolment:
        index = self.gallery.index(request.collection)
        return PhotoEnrolment(
            Enroller(
                analyse=self.engine.analyse,
                templates=self.templates,
                photos=self.store,
                gallery_bucket=self.gallery_bucket,
                model_id=self.engine.model_id,
                min_face_pixels=self.min_face_pixels,
                min_quality=self.min_quality,
                min_probability=self.min_probability,
            ),
            index,
            applying_threshold(request, index.identities, self.gallery, self.thresholds),
        )

    def _reject(self, request: RecognitionRequest, operation: Reject, timer: StageTimer) -> dict[str, Any]:
        collection = request.collection
        self._person(collection, operation.identity)
        identity = self.gallery.known_name(collection, operation.identity)
        photo, seen = self._photo(request.input, timer)
        facts = _of_picture(seen)
        if operation.face >= len(seen.faces):
            detail = f"the photo has {counted(len(seen.faces), 'face')}, and none with the number {operation.face}"
            raise NotDone(Refusal.NO_SUCH_FACE, detail, facts)
        embedding, model_id = seen.faces[operation.face].embedding, self.engine.model_id
        if not normalised(embedding[None]).all():
            raise InvalidImage("the model computed no usable embedding for this face: take another photo")
        rejection = Rejection(
            rejection_id=rejection_id(collection, identity, model_id, photo, operation.face),
            collection=collection,
            identity=identity,
            model_id=model_id,
            embedding=embedding,
            source=request.filename,
            rejected_at=request.submitted_at,
        )
        with timer.stage("write"):
            self.templates.reject(rejection)
            self._show(collection)
        return facts

    def _reembed(self, request: RecognitionRequest, operation: Reembed, timer: StageTimer) -> dict[str, Any]:
        old = enrolled_template(self.templates, request, operation)
        target = self._engine_of(operation.model_id)
        if target is None:
            detail = f"no migration has the model {operation.model_id}"
            raise NotDone(Refusal.OTHER_MODEL, detail)
        work = Reembedding(self.templates, self.store, self.gallery_bucket, self._engine_of(old.model_id), target)
        with timer.stage("engine"):
            done = work.reembed(request, operation, old)
        if RebuildStatus(done.status).failed:
            raise NotDone(Refusal.NOT_ENROLLED, done.detail, {"enrolments": (done,)})
        return {"enrolments": (done,)}

    def _engine_of(self, model_id: str) -> FaceEngine | None:
        return self.engine if model_id == self.engine.model_id else self.others.engine(model_id)

    def _look(self, request: RecognitionRequest, timer: StageTimer) -> dict[str, Any]:
        """Return the faces; of `SearchUnknown` with the unknown people that they are."""
        seen = seen_in(request.input, self.engine.analyse, self.store, timer)
        facts = _of_picture(seen)
        if self.unknown is None or not isinstance(request.operation, SearchUnknown):
            return facts
        with timer.stage("match"):
            found = self.unknown.search(request.collection, seen.faces)
        faces = [face.model_copy(update={"unknown": found.get(place)}) for place, face in enumerate(facts["faces"])]
        return facts | {"faces": tuple(faces)}

    def _photo(
        self, stored: ObjectRef, timer: StageTimer, kind: Callable[[bytes], bytes] = bytes
    ) -> tuple[bytes, ImageAnalysis]:
        """Return a photo with what the engine finds in it as a picture of this kind."""
        photo = b""

        def look(fetched: bytes) -> ImageAnalysis:
            nonlocal photo
            photo = fetched
            return self.engine.analyse(kind(fetched))

        seen = seen_in(stored, look, self.store, timer)
        return photo, seen

    def _show(self, collection: str) -> None:
        """Let the next request of this process find what was enrolled; the refresh of the others takes seconds."""
        try:
            self.gallery.refresh_collection(collection)
        except Transient as exc:
            log.warning("gallery_not_refreshed", collection=collection, reason=str(exc))


def _of_picture(seen: ImageAnalysis, found: Sequence[float] = ()) -> dict[str, Any]:
    """Return the result's fields of a picture; `found` has the similarity of each face, if they were compared."""
    pairs = zip_longest(seen.faces, found)
    faces = tuple(result_face(face, similarity=similarity) for face, similarity in pairs)
    return {"faces": faces, "more_faces": seen.more_faces, "width": seen.width, "height": seen.height}


def _of_threshold(threshold: Threshold) -> dict[str, Any]:
    """Return the result's fields of a threshold."""
    return {
        "threshold_source": threshold.source,
        "threshold": threshold.value,
        "identities": threshold.identities,
        "false_names": threshold.false_names,
        "threshold_extrapolated": threshold.extrapolated,
    }
