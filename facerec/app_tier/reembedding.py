"""One template of another model for the face of a template: the step of a migration that a worker does."""

from dataclasses import dataclass

import numpy as np

from facerec.app_tier.one_to_one import NotDone
from facerec.errors import AlreadyEnrolled, ObjectMissing
from facerec.gallery.enrolment import NotChosen, WhichFace, chosen_face, face_place, store_template, template_id
from facerec.gallery.names import same_person
from facerec.gallery.rebuild import RebuildStatus, twin
from facerec.gallery.removal import thumbnail_key, withdraw
from facerec.message_base import ObjectRef
from facerec.messages import Enrolment, RecognitionRequest, Refusal
from facerec.operations import Reembed
from facerec.ports import FaceEngine, ObjectStore, Template, TemplateStore
from model.faces import Box, EmbeddedFace, ImageAnalysis, PictureToEnrol
from model.header import InvalidImage
from model.index.norms import normalised

_LEAST_OVERLAP = 0.3
"""Of two models' boxes of one face, as intersection over union; those of neighbours overlap less."""


@dataclass(frozen=True, slots=True)
class Reembedding:
    """Adds a template of the model of `target`; `source` is the engine of the template's own model, if there is one.

    Of several faces it takes the one whose embedding by `source` is the nearest to the template. Without `source` it
    chooses as `facerec enrol` does.
    """

    templates: TemplateStore
    store: ObjectStore
    gallery_bucket: str
    source: FaceEngine | None
    target: FaceEngine

    def reembed(self, request: RecognitionRequest, operation: Reembed, old: Template) -> Enrolment:
        """Return what came of it, with a `RebuildStatus`; idempotent; may raise `Transient`."""
        try:
            photo = self.store.get(request.input.bucket, request.input.key)
        except ObjectMissing:
            return _not(old, RebuildStatus.NO_PHOTO, "its photo is no longer in the bucket: enrol one of this person")
        place = face_place(old, photo)
        identifier = template_id(old.collection, operation.model_id, photo, place)
        present = self.templates.entry(old.collection, identifier)
        if present is not None:
            return _present(old, identifier, present.identity)
        try:
            face = self._face(old, photo, place)
        except _NotChosen as exc:
            return _not(old, exc.status, str(exc))
        new = twin(old, face, photo, place, operation.model_id, self.gallery_bucket)
        try:
            store_template(self.templates, self.store, new, photo, face.thumbnail)
        except AlreadyEnrolled as exc:
            return _present(old, identifier, exc.identity)
        if self.templates.entry(old.collection, old.template_id) is None:
            # The person was removed meanwhile, and must not return. A worker may not list the photos of the bucket.
            if new.photo is not None:
                self.store.delete(new.photo.bucket, thumbnail_key(new.collection, new.template_id))
                self.store.delete(new.photo.bucket, new.photo.key)
            self.templates.remove(old.collection, [identifier])
            withdraw(self.store, self.gallery_bucket, old.collection)
            return _not(old, RebuildStatus.NO_PHOTO, "the template was removed meanwhile")
        return Enrolment(status=RebuildStatus.REBUILT, detail="", identity=old.identity, template_id=identifier)

    def _face(self, old: Template, photo: bytes, place: int) -> EmbeddedFace:
        try:
            face = self._found(old, photo, place)
        except InvalidImage as exc:
            raise _NotChosen(RebuildStatus.INVALID_IMAGE, str(exc)) from exc
        if not normalised(face.embedding[None]).all():
            raise _NotChosen(RebuildStatus.INVALID_IMAGE, "the model computed no usable embedding for this face")
        return face

    def _found(self, old: Template, photo: bytes, place: int) -> EmbeddedFace:
        seen = self.target.analyse(PictureToEnrol(photo))
        if not seen.faces:
            raise _NotChosen(RebuildStatus.NO_FACE, "the model finds no face: enrol another photo of this person")
        if len(seen.faces) == 1 and place == 0:
            return seen.faces[0]
        if self.source is None:
            choice = chosen_face(seen.faces, WhichFace.DOMINANT)
            if place or isinstance(choice, NotChosen):
                detail = f"{len(seen.faces)} faces found, and the engine of the template's own model is missing"
                raise _NotChosen(RebuildStatus.SEVERAL_FACES, detail)
            return choice.face
        box = _nearest(self.source.analyse(photo), old)
        overlap, best = max(
            ((_overlap(face.box, box), face) for face in seen.faces if box is not None),
            key=lambda pair: pair[0],
            default=(0.0, seen.faces[0]),
        )
        if overlap < _LEAST_OVERLAP:
            detail = f"the model finds {len(seen.faces)} faces, but not the one that is enrolled"
            raise _NotChosen(RebuildStatus.NO_FACE, detail)
        return best


class _NotChosen(Exception):
    def __init__(self, status: RebuildStatus, detail: str) -> None:
        super().__init__(detail)
        self.status = status


def enrolled_template(templates: TemplateStore, request: RecognitionRequest, operation: Reembed) -> Template:
    """Return the template that a request names; raises `NotDone`, also if the photo is another one."""
    found = templates.template(request.collection, operation.template_id)
    if found is None or not _same(found.photo, request.input):
        # A message must not make the worker read another photo than that of the template.
        raise NotDone(Refusal.NO_SUCH_TEMPLATE, "there is no such template with this photo in this collection")
    return found


def _same(kept: ObjectRef | None, asked: ObjectRef) -> bool:
    return kept is not None and (kept.bucket, kept.key) == (asked.bucket, asked.key)


def _nearest(seen: ImageAnalysis, old: Template) -> Box | None:
    """Return where the face of a template is in its photo."""
    if not seen.faces:
        return None
    cosines = np.stack([face.embedding for face in seen.faces]) @ old.embedding
    return seen.faces[int(cosines.argmax())].box


def _overlap(one: Box, other: Box) -> float:
    width = min(one.x_max, other.x_max) - max(one.x_min, other.x_min)
    height = min(one.y_max, other.y_max) - max(one.y_min, other.y_min)
    if width <= 0 or height <= 0:
        return 0.0
    common = width * height
    return common / (one.area + other.area - common)


def _present(old: Template, identifier: str, owner: str) -> Enrolment:
    if same_person(owner, old.identity):
        detail = "it has one of this model already"
        return Enrolment(status=RebuildStatus.PRESENT, detail=detail, identity=old.identity, template_id=identifier)
    detail = f"with this model the photo is enrolled for {owner!r}: remove one of the two templates"
    return _not(old, RebuildStatus.OTHER_NAME, detail)


def _not(old: Template, status: RebuildStatus, detail: str) -> Enrolment:
    return Enrolment(status=status, detail=detail, identity=old.identity)
