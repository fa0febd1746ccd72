"""Rebuild: after a change of the model, a collection's stored photos become templates of the model in use."""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING

from facerec.errors import AlreadyEnrolled, ObjectMissing
from facerec.gallery.damaged import separate
from facerec.gallery.enrolment import (
    NotChosen,
    WhichFace,
    choose_face,
    face_place,
    quality_score,
    quality_text,
    store_template,
    template_id,
)
from facerec.gallery.names import same_person
from facerec.gallery.removal import photo_key, remove_templates
from facerec.message_base import ObjectRef
from facerec.ports import DamagedTemplate, ObjectStore, Template, TemplateStore

if TYPE_CHECKING:
    from facerec.gallery.enrolment import Analyse
    from model.faces import Box, EmbeddedFace, Quality


class RebuildStatus(StrEnum):
    """The outcome for a template of another model; the last three are those of `EnrolmentStatus`."""

    REBUILT = "rebuilt"
    PRESENT = "present"
    """Its photo is already enrolled with the model in use: by an earlier run, or by an operator."""
    OTHER_NAME = "other_name"
    """Its photo is already enrolled with the model in use, for another person."""
    NO_PHOTO = "no_photo"
    NO_FACE = "no_face"
    SEVERAL_FACES = "several_faces"
    INVALID_IMAGE = "invalid_image"

    @property
    def failed(self) -> bool:
        """Whether an operator must act."""
        return self not in {RebuildStatus.REBUILT, RebuildStatus.PRESENT}


@dataclass(frozen=True, slots=True)
class RebuildReport:
    """The outcome for one template of another model; `detail` is one sentence for the operator."""

    collection: str
    identity: str
    file: str
    """The photo's file name at enrolment."""
    old_template_id: str
    old_model_id: str
    status: RebuildStatus
    detail: str
    template_id: str | None = None
    """The template of the model in use, with `rebuilt` and `present`."""
    box: "Box | None" = None
    """The face that was embedded, in pixels of the upright picture."""
    faces: "tuple[Box, ...]" = ()
    """All faces of a photo that shows several, the primary one first."""
    quality: "Quality | None" = None


_MakeReport = Callable[..., RebuildReport]


def twin(old: Template, face: "EmbeddedFace", photo: bytes, place: int, model_id: str, gallery_bucket: str) -> Template:
    """Return the template of another model for the face of a template: the same person, photo and date."""
    identifier = template_id(old.collection, model_id, photo, place)
    return replace(
        old,
        template_id=identifier,
        model_id=model_id,
        embedding=face.embedding,
        probability=face.probability,
        quality=quality_score(face),
        photo=ObjectRef(bucket=gallery_bucket, key=photo_key(old.collection, identifier, old.source), size=len(photo)),
    )


@dataclass
class CollectionRebuild:
    """Embeds the photos of one collection's templates of other models; for one thread.

    An enrolled face stays enrolled, whatever its size and quality. With several faces the choice is that of `enrol`.
    Each new template is stored at once, with a copy of the photo and the old name and date, so that the next run
    continues an interrupted one. A photo with templates of several other models is embedded once. Other processes may
    change the collection meanwhile; a template removed during its rebuild may return.
    """

    collection: str
    _: KW_ONLY
    analyse: "Analyse"
    templates: TemplateStore
    photos: ObjectStore
    gallery_bucket: str
    model_id: str
    dimension: int
    which: WhichFace = WhichFace.DOMINANT
    old: list[Template] = field(default_factory=list, init=False)
    """The templates of other models without their embeddings, by identity."""
    damaged: list[DamagedTemplate] = field(default_factory=list, init=False)
    """Templates that cannot be read, and damaged ones of the model in use; embedding the photo replaces its own."""
    _present: dict[str, str] = field(default_factory=dict, init=False)
    _enrolments: set[tuple[str, str, datetime]] = field(default_factory=set, init=False)
    replaced: dict[str, str] = field(default_factory=dict, init=False)
    """The new template of each replaced one, by its id; empty if the new one is known by its name and time alone."""

    def __post_init__(self) -> None:
        """Read the collection; raises `Transient`."""
        own: list[Template] = []
        for template in self.templates.templates(self.collection, self.damaged):
            if template.model_id == self.model_id:
                own.append(template)
            else:
                self.old.append(replace(template, embedding=template.embedding[:0].copy()))
        present, _, damaged = separate(own, self.dimension)
        self._present = {template.template_id: template.identity for template in present}
        self._enrolments = {(template.identity, template.source, template.enrolled_at) for template in present}
        self.damaged += damaged
        self.old.sort(key=attrgetter("identity", "source", "template_id"))

    def rebuild(self, old: Template) -> RebuildReport:
        """Embed the photo of one of `old`, unless it is already done; raises `Transient`, and may then be repeated."""
        report = self._rebuild(old)
        if not report.status.failed:
            self.replaced[old.template_id] = report.template_id or ""
        return report

    def remove_old(self) -> int:
        """Remove the replaced templates and their copies of the photos; returns how many."""
        return remove_templates(self.templates, self.photos, self.gallery_bucket, self.collection, list(self.replaced))

    def _rebuild(self, old: Template) -> RebuildReport:
        report = partial(RebuildReport, self.collection, old.identity, old.source, old.template_id, old.model_id)
        if old.photo is None:
            return report(RebuildStatus.NO_PHOTO, "it was imported without a photo: enrol one of this person")
        try:
            photo = self.photos.get(old.photo.bucket, old.photo.key)
        except ObjectMissing:
            if (old.identity, old.source, old.enrolled_at) in self._enrolments:
                # `remove_old` was interrupted after it had removed the photo.
                return report(RebuildStatus.PRESENT, "rebuilt already, and its photo is removed")
            return report(RebuildStatus.NO_PHOTO, "its photo is no longer in the bucket: enrol one of this person")
        place = face_place(old, photo)
        identifier = template_id(self.collection, self.model_id, photo, place)
        if identifier in self._present:
            return self._report_present(report, old, identifier)
        return self._embed(report, old, photo, place)

    def _embed(self, report: _MakeReport, old: Template, photo: bytes, place: int) -> RebuildReport:
        identifier = template_id(self.collection, self.model_id, photo, place)
        choice = choose_face(self.analyse, photo, self.which, place)
        if isinstance(choice, NotChosen):
            return report(RebuildStatus(choice.status), choice.detail, faces=choice.faces)
        face = choice.face
        template = twin(old, face, photo, place, self.model_id, self.gallery_bucket)
        try:
            store_template(self.templates, self.photos, template, photo, face.thumbnail)
        except AlreadyEnrolled as exc:
            # Another process enrolled it after the collection was read.
            self._present[identifier] = exc.identity
            return self._report_present(report, old, identifier)
        self._present[identifier] = old.identity
        return report(
            RebuildStatus.REBUILT,
            ", ".join(filter(None, [choice.note, quality_text(face.quality)])),
            template_id=identifier,
            box=face.box,
            faces=choice.faces,
            quality=face.quality,
        )

    def _report_present(self, report: _MakeReport, old: Template, identifier: str) -> RebuildReport:
        owner = self._present[identifier]
        if not same_person(owner, old.identity):
            detail = f"with the model in use this photo is enrolled for {owner!r}: remove one of the two templates"
            return report(RebuildStatus.OTHER_NAME, detail)
        detail = "enrolled with the model in use already"
        return report(RebuildStatus.PRESENT, detail, template_id=identifier)
