"""The use case: one photo of one person becomes a template, or a report that says why not."""

import hashlib
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from facerec.errors import AlreadyEnrolled, FacerecError
from facerec.keys import base_name, is_text, safe_name
from facerec.messages import DEFAULT_COLLECTION, NO_FACE, UNKNOWN, CollectionName, ObjectRef
from facerec.ports import ObjectStore, Template, TemplateStore
from model.header import InvalidImage, read_header

if TYPE_CHECKING:
    from model.faces import Box, ImageAnalysis

MAX_IDENTITY_LENGTH = 128
MAX_SOURCE_LENGTH = 255
MAX_PHOTO_BYTES = 100_000_000
"""Far above what a camera makes, and a bound for what is held in memory."""

_JOINERS = "\u200c\u200d"
"""Format characters that belong into names: Persian is written with the one, emoji with the other."""


class InvalidName(FacerecError):
    """The name of a person or of a collection cannot be taken; the text says what is wrong with it."""


class EnrolmentStatus(StrEnum):
    """What became of a photo."""

    ENROLLED = "enrolled"
    DUPLICATE = "duplicate"
    """The very same photo is enrolled already, for this person or for another one."""
    NO_FACE = "no_face"
    SEVERAL_FACES = "several_faces"
    TOO_SMALL = "too_small"
    INVALID_IMAGE = "invalid_image"

    @property
    def failed(self) -> bool:
        """Whether the photo is of no use; a duplicate is."""
        return self not in {EnrolmentStatus.ENROLLED, EnrolmentStatus.DUPLICATE}


@dataclass(frozen=True, slots=True)
class EnrolmentReport:
    """What became of one photo; `detail` is one sentence for the person who sent it."""

    file: str
    identity: str
    status: EnrolmentStatus
    detail: str
    template_id: str | None = None
    """Of the template that is there now, with `enrolled` and `duplicate`."""
    box: "Box | None" = None
    """The face in pixels of the upright picture, where there is exactly one."""


def valid_identity(name: str) -> str:
    """Return a person's name stripped and in Unicode's composed form (NFC), as it will be stored and answered.

    The form matters: macOS gives file names decomposed, and one person must not become two. Raises `InvalidName` for
    an empty name, one of more than 128 characters, with line breaks, control or invisible characters, and for the two
    words that stand for nobody in an answer.
    """
    identity = unicodedata.normalize("NFC", name).strip()
    if not identity.strip(_JOINERS):
        raise InvalidName("a person needs a name")
    if len(identity) > MAX_IDENTITY_LENGTH:
        raise InvalidName(f"a name has {MAX_IDENTITY_LENGTH} characters at most; this one has {len(identity)}")
    if not all(is_text(c) or c in _JOINERS for c in identity):
        raise InvalidName(f"the name {identity!r} holds control or invisible characters")
    if identity.casefold() in {UNKNOWN.casefold(), NO_FACE.casefold()}:
        raise InvalidName(f"{identity!r} is what an answer says of nobody; choose another name")
    return identity


def valid_collection(name: str) -> str:
    """Return the name of a collection unchanged; raises `InvalidName`."""
    try:
        return TypeAdapter(CollectionName).validate_python(name)
    except ValidationError as exc:
        raise InvalidName(
            f"{name!r} is no name for a collection: 1 to 64 letters, digits, dots, underscores and hyphens"
        ) from exc


def template_id(collection: str, model_id: str, photo: bytes) -> str:
    """Return 32 hexadecimal digits that are the same for the same photo, model and collection, whoever is in it."""
    digest = hashlib.sha256()
    for part in (collection.encode(), model_id.encode(), photo):
        # Lengths first, so that no two different triples look alike.
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:32]


def photo_prefix(collection: str, identifier: str) -> str:
    """What the keys of a template's photo begin with in the gallery bucket."""
    return f"{collection}/{identifier}/"


def photo_key(collection: str, identifier: str, filename: str) -> str:
    """Where a template's photo is kept in the gallery bucket."""
    return photo_prefix(collection, identifier) + safe_name(filename)


class Enroller:
    """Enrols photos; as safe to call from several threads as its `analyse` is.

    `analyse` turns photo bytes into faces, as `FaceEngine.analyse` does. `min_face_pixels` is the least length of a
    face's shorter side. A photo is stored before its template, so that no template points at nothing.
    """

    def __init__(
        self,
        *,
        analyse: "Callable[[bytes], ImageAnalysis]",
        templates: TemplateStore,
        photos: ObjectStore,
        gallery_bucket: str,
        model_id: str,
        min_face_pixels: int,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._analyse = analyse
        self._templates = templates
        self._photos = photos
        self._bucket = gallery_bucket
        self._model_id = model_id
        self._min_face_pixels = min_face_pixels
        self._now = now

    def enrol(
        self, identity: str, filename: str, photo: bytes, collection: str = DEFAULT_COLLECTION
    ) -> EnrolmentReport:
        """Enrol the one face of a photo; repeating it reports a duplicate and changes nothing.

        Raises `InvalidName` before anything is looked at, and `Transient` when a service cannot be reached: the
        template is not there then, or complete, and the call may be repeated.
        """
        identity, collection = valid_identity(identity), valid_collection(collection)
        source = base_name(filename)[:MAX_SOURCE_LENGTH]

        def report(status: EnrolmentStatus, detail: str, box: "Box | None" = None) -> EnrolmentReport:
            return EnrolmentReport(source, identity, status, detail, box=box)

        if len(photo) > MAX_PHOTO_BYTES:
            limit = MAX_PHOTO_BYTES // 1_000_000
            return report(EnrolmentStatus.INVALID_IMAGE, f"the file has more than {limit} MB: send a smaller one")
        try:
            faces = self._analyse(photo).faces
        except InvalidImage as exc:
            return report(EnrolmentStatus.INVALID_IMAGE, str(exc))
        if not faces:
            return report(EnrolmentStatus.NO_FACE, "no face found: take a sharper photo, from the front")
        if len(faces) > 1:
            detail = f"{len(faces)} faces found: crop the photo to the one person"
            return report(EnrolmentStatus.SEVERAL_FACES, detail)
        (face,) = faces
        shorter = min(face.box.x_max - face.box.x_min, face.box.y_max - face.box.y_min)
        if shorter < self._min_face_pixels:
            detail = f"the face measures {shorter:.0f} pixels, at least {self._min_face_pixels} are needed"
            return report(EnrolmentStatus.TOO_SMALL, detail, face.box)
        identifier = template_id(collection, self._model_id, photo)
        template = Template(
            template_id=identifier,
            collection=collection,
            identity=identity,
            model_id=self._model_id,
            embedding=face.embedding,
            source=source,
            photo=ObjectRef(bucket=self._bucket, key=photo_key(collection, identifier, source), size=len(photo)),
            probability=face.probability,
            enrolled_at=self._now(),
        )
        try:
            store_template(self._templates, self._photos, template, photo)
        except AlreadyEnrolled as exc:
            status, detail = EnrolmentStatus.DUPLICATE, str(exc)
        else:
            status, detail = EnrolmentStatus.ENROLLED, f"face of {shorter:.0f} pixels"
        return EnrolmentReport(source, identity, status, detail, identifier, face.box)


def store_template(templates: TemplateStore, photos: ObjectStore, template: Template, photo: bytes | None) -> None:
    """Store a photo where its template says, then the template; raises `AlreadyEnrolled`.

    Of a duplicate the photo may be stored a second time under another file name; it lies under the same prefix, and
    goes with the template.
    """
    if template.photo is not None and photo is not None:
        content_type = f"image/{read_header(photo, max_megapixels=float('inf')).format.lower()}"
        photos.put(template.photo.bucket, template.photo.key, photo, content_type)
    templates.add(template)


def remove_templates(
    templates: TemplateStore, photos: ObjectStore, bucket: str, collection: str, template_ids: Sequence[str]
) -> int:
    """Remove templates and their photos; returns how many templates were there.

    The photos go first: when that is cut short, the templates are still listed, and removing them again completes it.
    The other way round, a photo of a person who asked to be forgotten would stay behind unseen.
    """
    for identifier in template_ids:
        for key in photos.keys(bucket, photo_prefix(collection, identifier)):
            photos.delete(bucket, key)
    return templates.remove(collection, template_ids)
