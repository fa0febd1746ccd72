"""Enrolment: one photo of one person becomes a template, or a report that says why not."""

import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING

import structlog

from facerec.errors import AlreadyEnrolled, FacerecError
from facerec.gallery.damaged import check_usable, may_replace
from facerec.gallery.look_alikes import LookAlikes, look_alike_text
from facerec.gallery.names import KnownNames, same_person, valid_collection, valid_identity
from facerec.gallery.removal import photo_key, thumbnail_key
from facerec.message_base import DEFAULT_COLLECTION, ObjectRef
from facerec.object_keys import base_name
from facerec.ports import ObjectStore, Template, TemplateEntry, TemplateStore
from facerec.text import megabytes
from model.faces import PictureToEnrol
from model.header import InvalidImage, read_header
from model.index.norms import normalised
from model.matching import Match

if TYPE_CHECKING:
    from model.faces import Box, EmbeddedFace, ImageAnalysis, Quality

    Analyse = Callable[[bytes], ImageAnalysis]

log = structlog.get_logger(__name__)

DOMINANCE = 4  # a face with this many times the area of the next largest is the subject of the photo
MAX_PHOTO_BYTES = 100_000_000  # far above a camera's photos; it bounds the memory
MAX_FACES_OF_A_PHOTO = 4096
"""More than any model finds in one."""
NO_EMBEDDING = "the model computed no usable embedding for this face: take another photo"


class EnrolmentStatus(StrEnum):
    """The outcome for one photo."""

    ENROLLED = "enrolled"
    DUPLICATE = "duplicate"
    """The same photo is already enrolled for this person."""
    OTHER_NAME = "other_name"
    """The same photo is already enrolled, for another person."""
    NO_FACE = "no_face"
    SEVERAL_FACES = "several_faces"
    TOO_SMALL = "too_small"
    POOR_QUALITY = "poor_quality"
    INVALID_IMAGE = "invalid_image"

    @property
    def failed(self) -> bool:
        """Whether the photo is not enrolled; a duplicate is."""
        return self not in {EnrolmentStatus.ENROLLED, EnrolmentStatus.DUPLICATE}


class WhichFace(StrEnum):
    """Which face of a photo with several is enrolled."""

    DOMINANT = "dominant"
    """The largest, if it has `DOMINANCE` times the area of the next largest."""
    PRIMARY = "primary"
    """The picture's subject by the model's rule: the first of `ImageAnalysis.faces`."""
    ONLY = "only"
    """The only face: a photo with several is refused."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The face to enrol; `note` says which of several it is, and is empty if there is one."""

    face: "EmbeddedFace"
    note: str
    faces: "tuple[Box, ...]"
    """As in `EnrolmentReport`."""


@dataclass(frozen=True, slots=True)
class NotChosen:
    """Why no face can be enrolled: `no_face`, `several_faces` or `invalid_image`, and one sentence."""

    status: EnrolmentStatus
    detail: str
    faces: "tuple[Box, ...]" = ()
    """As in `EnrolmentReport`."""


@dataclass(frozen=True, slots=True)
class EnrolmentReport:
    """The outcome for one photo; `detail` is one sentence for the person who sent it."""

    file: str
    identity: str
    status: EnrolmentStatus
    detail: str
    template_id: str | None = None
    """The stored template, with `enrolled`, `duplicate` and `other_name`."""
    enrolled_for: str | None = None
    """The person whom the photo belongs to, with `other_name`."""
    box: "Box | None" = None
    """The chosen face, in pixels of the upright picture."""
    faces: "tuple[Box, ...]" = ()
    """All faces of a photo that shows several, the primary one first."""
    quality: "Quality | None" = None
    """Of the face in `box`, if the engine assessed it."""
    look_alikes: tuple[Match, ...] = ()
    """Other people who are like this face, the most similar first, if the enroller looks for them."""


def template_id(collection: str, model_id: str, photo: bytes, place: int = 0) -> str:
    """Return 32 hexadecimal digits that depend on collection, model and photo, not on the person.

    Where several faces of a photo are enrolled, `place` is the face's among them, from 0.
    """
    digest = _digest(collection.encode(), model_id.encode(), photo)
    return digest.hexdigest()[:32] if place == 0 else _at_place(digest, place)


def face_place(template: TemplateEntry, photo: bytes) -> int:
    """Return the `place` of `template_id` that a template has by its id; 0 also for an id that is not of this photo."""
    digest = _digest(template.collection.encode(), template.model_id.encode(), photo)
    if digest.hexdigest()[:32] == template.template_id:
        return 0
    places = range(1, MAX_FACES_OF_A_PHOTO)
    return next((place for place in places if _at_place(digest, place) == template.template_id), 0)


def rejection_id(collection: str, identity: str, model_id: str, photo: bytes, place: int) -> str:
    """Return 32 hexadecimal digits; `place` is the face's among all of the photo."""
    parts = (collection.encode(), model_id.encode(), photo, str(place).encode(), identity.encode())
    return _digest(*parts).hexdigest()[:32]


def _at_place(digest: "hashlib._Hash", place: int) -> str:
    own = digest.copy()
    own.update(_with_length(str(place).encode()))
    return own.hexdigest()[:32]


def _digest(*parts: bytes) -> "hashlib._Hash":
    digest = hashlib.sha256()
    for part in parts:
        digest.update(_with_length(part))
    return digest


def _with_length(part: bytes) -> bytes:
    # Lengths first, so that different parts never give the same bytes.
    return len(part).to_bytes(8, "big") + part


def choose_face(analyse: "Analyse", photo: bytes, which: WhichFace, place: int = 0) -> Chosen | NotChosen:
    """Return the face of a photo to enrol; raises `Transient`.

    A `place` above 0 is that of `template_id`: the face was enrolled as one of several.
    """
    try:
        faces = analyse(PictureToEnrol(photo)).faces
    except InvalidImage as exc:
        return NotChosen(EnrolmentStatus.INVALID_IMAGE, str(exc))
    if place == 0:
        choice = chosen_face(faces, which)
    elif place < len(faces):
        choice = Chosen(faces[place], f"number {place + 1} of {len(faces)} faces", ())
    else:
        detail = f"{len(faces)} faces found, and it was enrolled as number {place + 1}: enrol it again"
        choice = NotChosen(EnrolmentStatus.NO_FACE, detail)
    if isinstance(choice, Chosen) and not normalised(choice.face.embedding[None]).all():
        return NotChosen(EnrolmentStatus.INVALID_IMAGE, NO_EMBEDDING)
    return choice


def chosen_face(faces: "Sequence[EmbeddedFace]", which: WhichFace) -> Chosen | NotChosen:
    """Return which of a photo's faces is to be enrolled; the primary one is the first. Its embedding is not checked."""
    if not faces:
        return NotChosen(EnrolmentStatus.NO_FACE, "no face found: take a sharper photo, from the front")
    if len(faces) == 1:
        return Chosen(faces[0], "", ())
    boxes = tuple(face.box for face in faces)
    if which is WhichFace.ONLY:
        return NotChosen(EnrolmentStatus.SEVERAL_FACES, f"{len(faces)} faces found: send a photo of one person", boxes)
    if which is WhichFace.PRIMARY:
        return Chosen(faces[0], f"the primary one of {len(faces)} faces", boxes)
    largest, second = sorted(faces, key=lambda face: face.box.area, reverse=True)[:2]
    if largest.box.area >= DOMINANCE * second.box.area:
        return Chosen(largest, f"the largest of {len(faces)} faces", boxes)
    detail = (
        f"{len(faces)} faces found, and none has {DOMINANCE} times the area of every other: crop the photo to the one "
        "person, or ask for the primary face"
    )
    return NotChosen(EnrolmentStatus.SEVERAL_FACES, detail, boxes)


@dataclass(frozen=True, kw_only=True)
class Enroller:
    """Enrols photos; thread-safe if `analyse` is. It reads the names of a collection once.

    `analyse` is `FaceEngine.analyse`. `min_face_pixels` is the least length of a face's shorter side, `min_probability`
    the least one of the detector, `min_quality` the least `Quality.score`, if the engine gives a quality. A photo is
    stored before its template, so that no template refers to a missing photo, and so is the face's thumbnail.
    """

    analyse: "Analyse"
    templates: TemplateStore
    photos: ObjectStore
    gallery_bucket: str
    model_id: str
    min_face_pixels: int
    min_quality: float = 0.0
    min_probability: float = 0.0
    look_alikes: LookAlikes | None = None
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    _names: dict[str, KnownNames] = field(default_factory=dict, init=False)
    _reading_names: threading.Lock = field(default_factory=threading.Lock, init=False)

    def enrol(
        self,
        identity: str,
        filename: str,
        photo: bytes,
        collection: str = DEFAULT_COLLECTION,
        *,
        which: WhichFace = WhichFace.DOMINANT,
        exact_name: bool = False,
        force: bool = False,
    ) -> EnrolmentReport:
        """Enrol one face of a photo; a repeated call reports a duplicate and changes nothing.

        `force` is that of `enrol_face`.

        A person of the collection keeps the first spelling of the name (`names.identity_key`). With `exact_name` a name
        that differs in case or blanks is another person.

        Raises `InvalidName` before anything else, and `Transient` if a service is unreachable. The template is then
        missing or complete, and the call may be repeated.
        """
        written, collection = valid_identity(identity, exact=exact_name), valid_collection(collection)
        identity = self._known_name(written, collection, exact=exact_name)
        source = base_name(filename)
        report = partial(EnrolmentReport, source, identity)
        if len(photo) > MAX_PHOTO_BYTES:
            detail = f"the file has more than {megabytes(MAX_PHOTO_BYTES)}: send a smaller one"
            return report(EnrolmentStatus.INVALID_IMAGE, detail)
        choice = choose_face(self.analyse, photo, which)
        if isinstance(choice, NotChosen):
            return report(choice.status, choice.detail, faces=choice.faces)
        done = self.enrol_face(choice, identity, filename, photo, collection, exact_name=exact_name, force=force)
        if done.status.failed:
            return done
        found = self._look_alikes(done, choice, collection)
        spelling = "" if identity == written else f"the name is spelled {identity!r} in this collection"
        details = (done.detail, spelling, look_alike_text(found))
        return replace(done, detail=", ".join(filter(None, details)), look_alikes=found)

    def enrol_face(
        self,
        choice: Chosen,
        identity: str,
        filename: str,
        photo: bytes,
        collection: str,
        *,
        place: int = 0,
        exact_name: bool = False,
        force: bool = False,
        external_id: str | None = None,
        enrolled_at: datetime | None = None,
    ) -> EnrolmentReport:
        """Enrol the chosen face of a photo for a valid name; raises `Transient` as `enrol`.

        `place` is that of `template_id`. `force` enrols a face that is small, hardly a face to the detector, or of poor
        quality.
        """
        face = choice.face
        shortcoming = self.shortcoming(face)
        source = base_name(filename)
        report = partial(EnrolmentReport, source, identity, box=face.box, faces=choice.faces, quality=face.quality)
        if not normalised(face.embedding[None]).all():
            return report(EnrolmentStatus.INVALID_IMAGE, NO_EMBEDDING)
        if shortcoming is not None and not force:
            return report(shortcoming.status, f"{shortcoming.detail}: take a better photo")
        identifier = template_id(collection, self.model_id, photo, place)
        template = Template(
            template_id=identifier,
            collection=collection,
            identity=identity,
            model_id=self.model_id,
            embedding=face.embedding,
            source=source,
            photo=ObjectRef(bucket=self.gallery_bucket, key=photo_key(collection, identifier, source), size=len(photo)),
            probability=face.probability,
            quality=quality_score(face),
            enrolled_at=enrolled_at or self.now(),
            external_id=external_id,
        )
        try:
            store_template(self.templates, self.photos, template, photo, face.thumbnail)
        except AlreadyEnrolled as exc:
            if not same_person(exc.identity, identity, exact=exact_name):
                detail = f"{exc}: `facerec people remove` takes it from there"
                return report(EnrolmentStatus.OTHER_NAME, detail, template_id=identifier, enrolled_for=exc.identity)
            status, details = EnrolmentStatus.DUPLICATE, [str(exc)]
        else:
            status = EnrolmentStatus.ENROLLED
            forced = f"forced: {shortcoming.detail}" if shortcoming else ""
            details = [f"face of {shorter_side(face):.0f} pixels", choice.note, quality_text(face.quality), forced]
        return report(status, ", ".join(filter(None, details)), template_id=identifier)

    def shortcoming(self, face: "EmbeddedFace") -> "NotChosen | None":
        """Return why a face is not to be enrolled unless it is forced, if there is a reason."""
        shorter = shorter_side(face)
        if shorter < self.min_face_pixels:
            detail = f"the face measures {shorter:.0f} pixels, at least {self.min_face_pixels} are needed"
            return NotChosen(EnrolmentStatus.TOO_SMALL, detail)
        if face.probability < self.min_probability:
            probability = f"{face.probability:.2f}, at least {self.min_probability:g} is needed"
            detail = f"hardly a face to the detector: {probability}"
            return NotChosen(EnrolmentStatus.POOR_QUALITY, detail)
        if face.quality is not None and face.quality.score < self.min_quality:
            detail = f"{quality_text(face.quality)}, at least {self.min_quality:g} is needed"
            return NotChosen(EnrolmentStatus.POOR_QUALITY, detail)
        return None

    def _look_alikes(self, done: EnrolmentReport, choice: Chosen, collection: str) -> tuple[Match, ...]:
        if self.look_alikes is None or done.template_id is None:
            return ()
        embedding = choice.face.embedding
        found = self.look_alikes.find(collection, embedding, done.identity)
        if done.status is EnrolmentStatus.ENROLLED:
            self.look_alikes.add(collection, embedding, done.identity, done.template_id)
        return found

    def _known_name(self, identity: str, collection: str, *, exact: bool) -> str:
        with self._reading_names:
            if collection not in self._names:
                self._names[collection] = KnownNames(self.templates.owners(collection).values())
            return self._names[collection].adopt(identity, exact=exact)


def shorter_side(face: "EmbeddedFace") -> float:
    """Return the length of the shorter side of a face's box, in pixels."""
    return min(face.box.x_max - face.box.x_min, face.box.y_max - face.box.y_min)


def quality_score(face: "EmbeddedFace") -> float | None:
    """Return the quality of a face as a template keeps it."""
    return None if face.quality is None else face.quality.score


def quality_text(quality: "Quality | None") -> str:
    """Return `quality 0.97`, or `quality 0.61 (blurred, too dark)`; empty without a quality."""
    if quality is None:
        return ""
    reasons = f" ({', '.join(quality.reasons)})" if quality.reasons else ""
    return f"quality {quality.score:.2f}{reasons}"


def store_template(
    templates: TemplateStore,
    photos: ObjectStore,
    template: Template,
    photo: bytes | None,
    thumbnail: bytes | None = None,
) -> None:
    """Store a template's photo with its thumbnail, if there is one, then the template.

    Raises `AlreadyEnrolled`, and `UnusableTemplate` for a template that readers would leave out, with nothing stored.
    A thumbnail that cannot be stored is logged: the photo is shown in its place.

    While a removal of this template runs, the template exists, so no photo is stored that the removal would miss. After
    an interruption a photo may be there without its template; a repeated call completes it, and `check` finds it.
    """
    check_usable(template)
    if template.photo is None or photo is None:
        templates.add(template)
        return
    found = templates.template(template.collection, template.template_id)
    if found is not None and not may_replace(found, template):
        raise AlreadyEnrolled(found.identity, found.template_id)
    content_type = f"image/{read_header(photo, max_megapixels=float('inf')).format.lower()}"
    photos.put(template.photo.bucket, template.photo.key, photo, content_type)
    small = thumbnail_key(template.collection, template.template_id)
    if thumbnail is not None:
        try:
            photos.put(template.photo.bucket, small, thumbnail, "image/jpeg")
        except FacerecError as exc:
            log.warning("thumbnail_not_stored", template_id=template.template_id, reason=str(exc))
    try:
        templates.add(template)
    except AlreadyEnrolled:
        # Another process has enrolled the photo meanwhile, perhaps under another file name.
        found = templates.template(template.collection, template.template_id)
        if found is None or found.photo is None:
            photos.delete(template.photo.bucket, small)  # the other one's would be the same
        if found is None or found.photo is None or found.photo.key != template.photo.key:
            photos.delete(template.photo.bucket, template.photo.key)
        raise
