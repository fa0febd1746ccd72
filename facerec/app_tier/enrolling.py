"""Enrolment of faces of one photo on request: which of them, for whom, and what came of each."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, repeat
from uuid import UUID

from facerec.comparison import Threshold, result_match
from facerec.gallery.enrolment import (
    NO_EMBEDDING,
    Chosen,
    Enroller,
    EnrolmentReport,
    EnrolmentStatus,
    NotChosen,
    WhichFace,
    chosen_face,
    quality_text,
    shorter_side,
    template_id,
)
from facerec.gallery.look_alikes import look_alikes
from facerec.messages import SUITABLE, Enrolment, RecognitionRequest, ResultMatch
from facerec.operations import Enrol
from facerec.ports import TemplateEntry
from model.faces import EmbeddedFace
from model.index.norms import normalised
from model.matching import GalleryIndex


@dataclass(frozen=True, slots=True)
class _ToEnrol:
    """A face that is to be enrolled."""

    face: EmbeddedFace
    number: int
    """Its place in the photo's faces."""
    place: int
    """Its place in the template's id."""
    note: str = ""


@dataclass(frozen=True, slots=True)
class PhotoEnrolment:
    """Enrols faces of photos; the index and the threshold are those of the collection."""

    enroller: Enroller
    index: GalleryIndex
    threshold: Threshold

    def enrol(
        self,
        request: RecognitionRequest,
        operation: Enrol,
        identity: str | None,
        photo: bytes,
        faces: Sequence[EmbeddedFace],
    ) -> tuple[Enrolment, ...]:
        """Enrol, and return what came of each face that was taken, at least one entry; may raise `Transient`.

        `identity` is the known spelling of the operation's. With `all` it is the name of the first of the taken faces;
        each other one is a person of its own, named by the id of its template. A face that this same request has
        enrolled in an earlier delivery is reported as enrolled.
        """
        taken = _taken(operation, faces)
        if isinstance(taken, NotChosen):
            return (Enrolment(status=taken.status, detail=taken.detail, identity=identity or ""),)
        names = chain([identity], repeat(None))
        return tuple(
            self._enrol(request, operation, name, photo, each) for name, each in zip(names, taken, strict=False)
        )

    def check(self, request: RecognitionRequest, photo: bytes, faces: Sequence[EmbeddedFace]) -> tuple[Enrolment, ...]:
        """Return what an enrolment would do: by default, then with each other face; may raise `Transient`."""
        default = _taken(Enrol(), faces)
        chosen = None if isinstance(default, NotChosen) else default[0]
        first = [] if chosen is None else [chosen]
        others = [
            _ToEnrol(face, number, number)
            for number, face in enumerate(faces)
            if chosen is None or number != chosen.number
        ]
        own = [template_id(request.collection, self.enroller.model_id, photo, each.place) for each in first + others]
        stored = self.enroller.templates.find(request.collection, own)
        checked = [
            self._checked(each, stored.get(identifier)) for each, identifier in zip(first + others, own, strict=True)
        ]
        if isinstance(default, NotChosen):
            checked.insert(0, Enrolment(status=default.status, detail=default.detail, identity=""))
        return tuple(checked)

    def _checked(self, taken: _ToEnrol, stored: TemplateEntry | None) -> Enrolment:
        face, shortcoming = taken.face, self.enroller.shortcoming(taken.face)
        if not normalised(face.embedding[None]).all():
            return Enrolment(status=EnrolmentStatus.INVALID_IMAGE, detail=NO_EMBEDDING, identity="", face=taken.number)
        details = [f"face of {shorter_side(face):.0f} pixels", taken.note, quality_text(face.quality)]
        status, detail = SUITABLE, ", ".join(filter(None, details))
        if stored is not None:
            status, detail = EnrolmentStatus.DUPLICATE, f"this photo is already enrolled for {stored.identity!r}"
        elif shortcoming is not None:
            status, detail = shortcoming.status, shortcoming.detail
        return Enrolment(
            status=status,
            detail=detail,
            identity="" if stored is None else stored.identity,
            template_id=None if stored is None else stored.template_id,
            face=taken.number,
            look_alikes=self._look_alikes(face, ""),
        )

    def _enrol(
        self, request: RecognitionRequest, operation: Enrol, identity: str | None, photo: bytes, taken: _ToEnrol
    ) -> Enrolment:
        own = template_id(request.collection, self.enroller.model_id, photo, taken.place)
        name = identity if identity is not None else str(UUID(own))
        look_alikes = self._look_alikes(taken.face, name)
        report = self.enroller.enrol_face(
            Chosen(taken.face, taken.note, ()),
            name,
            request.filename,
            photo,
            request.collection,
            place=taken.place,
            exact_name=operation.exact_name,
            force=operation.force,
            external_id=operation.external_id,
            enrolled_at=request.submitted_at,
        )
        if identity is None and report.status is EnrolmentStatus.OTHER_NAME and report.enrolled_for is not None:
            # The person has got a name since.
            name = report.enrolled_for
            detail = f"this photo is already enrolled for {name!r}"
            report = replace(report, status=EnrolmentStatus.DUPLICATE, detail=detail, enrolled_for=None)
        report = self._of_this_request(report, request)
        return Enrolment(
            status=report.status,
            detail=report.detail,
            identity=name,
            template_id=report.template_id,
            enrolled_for=report.enrolled_for,
            face=taken.number,
            look_alikes=look_alikes,
        )

    def _of_this_request(self, report: EnrolmentReport, request: RecognitionRequest) -> EnrolmentReport:
        """Turn a duplicate into an enrolment if an earlier delivery of this request has stored it."""
        if report.status is not EnrolmentStatus.DUPLICATE or report.template_id is None:
            return report
        stored = self.enroller.templates.entry(request.collection, report.template_id)
        if stored is None or stored.enrolled_at != request.submitted_at:
            return report
        return replace(report, status=EnrolmentStatus.ENROLLED, detail="enrolled in an earlier delivery")

    def _look_alikes(self, face: EmbeddedFace, identity: str) -> tuple[ResultMatch, ...]:
        found = look_alikes(self.index, face.embedding, identity, self.threshold.value)
        return tuple(result_match(match, self.threshold) for match in found)


def _taken(operation: Enrol, faces: Sequence[EmbeddedFace]) -> list[_ToEnrol] | NotChosen:
    """Return the faces that the operation asks for, in their order; at least one."""
    probable = [
        (number, face)
        for number, face in enumerate(faces)
        if operation.min_probability is None or face.probability >= operation.min_probability
    ]
    if operation.faces == "all" and probable:
        largest_first = sorted(probable, key=lambda each: each[1].box.area, reverse=True)
        kept = {number for number, _ in largest_first[: operation.max_faces]}
        return [_ToEnrol(face, number, number) for number, face in probable if number in kept]
    if operation.faces == "numbered":
        numbered = [_ToEnrol(face, number, number) for number, face in probable if number == operation.number]
        missing = f"the photo has {len(faces)} faces: there is no number {operation.number + 1}"
        return numbered or NotChosen(EnrolmentStatus.NO_FACE, missing)
    which = WhichFace.PRIMARY if operation.faces == "all" else WhichFace(operation.faces)
    choice = chosen_face([face for _, face in probable], which)
    if isinstance(choice, NotChosen):
        return choice
    number = next(number for number, face in probable if face is choice.face)
    return [_ToEnrol(choice.face, number, 0, choice.note)]
