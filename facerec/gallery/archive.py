"""The gallery in one portable file: a zip of a JSON manifest, the embeddings, and the photos where they are wanted.

    manifest.json    format, version, collection, time, the dimension of each model, and one entry per template
    embeddings.bin   float32 little-endian, as many per template as its model has dimensions, in the entries' order
    photos/<id>      the photo of the template with that id, as it was enrolled

Version 1, which is still read, names no dimensions: all its templates have 512.

An archive may come from a stranger: nothing is unpacked to disk, members are read only under the names above and up to
a limit, manifest and embeddings are checked as a whole before any of it is used, and a photo before it is stored.
"""

import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import IO, Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from facerec.errors import AlreadyEnrolled, FacerecError
from facerec.gallery.enrolment import (
    MAX_IDENTITY_LENGTH,
    MAX_PHOTO_BYTES,
    MAX_SOURCE_LENGTH,
    InvalidName,
    photo_key,
    store_template,
    template_id,
    valid_identity,
)
from facerec.messages import CollectionName, ObjectRef, Ratio
from facerec.ports import ObjectStore, Template, TemplateStore
from model.header import InvalidImage, read_header

MAX_DIMENSION = 1024
"""More than an embedder of faces has; it bounds what a made-up archive may unpack to."""
MAX_MANIFEST_BYTES = 128_000_000
"""Some hundred thousand templates."""

_VERSION_1_DIMENSION = 512
_MANIFEST, _EMBEDDINGS, _PHOTOS = "manifest.json", "embeddings.bin", "photos/"
_NORM_TOLERANCE = 1e-3
_READABLE = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_ENCRYPTED = 0x1  # general purpose bit 0, APPNOTE.TXT 4.4.4


class InvalidArchive(FacerecError):
    """The file is no gallery that can be read; the text says why."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} cannot be imported: {reason}")


def _same_identity(name: str) -> str:
    try:
        return valid_identity(name)
    except InvalidName as exc:
        raise ValueError(str(exc)) from exc


_ModelId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,128}$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Entry(_Part):
    """A template without its embedding."""

    template_id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    # A decomposed name is longer than the composed one, whose length counts.
    identity: Annotated[str, Field(max_length=4 * MAX_IDENTITY_LENGTH), AfterValidator(_same_identity)]
    model_id: _ModelId
    source: Annotated[str, Field(max_length=MAX_SOURCE_LENGTH)]
    probability: Ratio
    enrolled_at: AwareDatetime


class _Manifest(_Part):
    format: Literal["facerec-gallery"]
    version: Literal[1, 2]
    collection: CollectionName
    exported_at: AwareDatetime
    dimensions: dict[_ModelId, Annotated[int, Field(ge=1, le=MAX_DIMENSION)]] = {}
    templates: tuple[_Entry, ...]

    @model_validator(mode="after")
    def _every_dimension_known(self) -> Self:
        unknown = {entry.model_id for entry in self.templates} - self.dimensions.keys()
        if unknown and self.version > 1:
            raise ValueError(f"the dimension of model {min(unknown)} is missing")
        return self

    @property
    def lengths(self) -> list[int]:
        """How many numbers each template's embedding has."""
        if self.version == 1:
            return [_VERSION_1_DIMENSION] * len(self.templates)
        return [self.dimensions[entry.model_id] for entry in self.templates]


def write_archive(
    path: Path,
    collection: str,
    templates: Sequence[Template],
    photos: Iterable[tuple[str, bytes]],
    exported_at: datetime,
) -> None:
    """Write templates, and photos as (template id, bytes), to a file that appears complete or not at all.

    Only its owner may read the file, since it holds biometric data. Raises OSError.
    """
    entries = tuple(
        _Entry(
            template_id=template.template_id,
            identity=template.identity,
            model_id=template.model_id,
            source=template.source,
            probability=template.probability,
            enrolled_at=template.enrolled_at,
        )
        for template in templates
    )
    manifest = _Manifest(
        format="facerec-gallery",
        version=2,
        collection=collection,
        exported_at=exported_at,
        dimensions={template.model_id: template.embedding.size for template in templates},
        templates=entries,
    )
    embeddings = b"".join(template.embedding.astype("<f4").tobytes() for template in templates)
    with _staged(path) as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr(_MANIFEST, manifest.model_dump_json(indent=1), zipfile.ZIP_DEFLATED)
        archive.writestr(_EMBEDDINGS, embeddings)
        for identifier, photo in photos:
            archive.writestr(_PHOTOS + identifier, photo)


class GalleryArchive:
    """An archive that has been read and checked; `open_archive` gets one. Its templates refer to no photo."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self._path = path
        self._archive = archive
        try:
            manifest = _Manifest.model_validate_json(self._member(_MANIFEST, MAX_MANIFEST_BYTES))
        except ValidationError as exc:
            error = exc.errors(include_input=False, include_url=False)[0]
            place = ".".join(map(str, error["loc"]))
            raise InvalidArchive(path, f"its manifest is wrong at {place or 'the start'}: {error['msg']}") from exc
        if len({entry.template_id for entry in manifest.templates}) < len(manifest.templates):
            raise InvalidArchive(path, "it holds a template twice")
        embeddings = self._embeddings(manifest.lengths)
        self.collection = manifest.collection
        self.templates = [
            Template(
                template_id=entry.template_id,
                collection=manifest.collection,
                identity=entry.identity,
                model_id=entry.model_id,
                embedding=embedding,
                source=entry.source,
                photo=None,
                probability=entry.probability,
                enrolled_at=entry.enrolled_at,
            )
            for entry, embedding in zip(manifest.templates, embeddings, strict=True)
        ]

    def photo(self, identifier: str) -> bytes | None:
        """Return the photo of a template, or nothing where there is none; raises `InvalidArchive`."""
        if _PHOTOS + identifier not in self._archive.NameToInfo:
            return None
        photo = self._member(_PHOTOS + identifier, MAX_PHOTO_BYTES)
        try:
            read_header(photo, max_megapixels=float("inf"))
        except InvalidImage as exc:
            raise InvalidArchive(self._path, f"photo {identifier}: {exc}") from exc
        return photo

    def _embeddings(self, lengths: Sequence[int]) -> list[NDArray[np.float32]]:
        size = sum(lengths) * 4
        content = self._member(_EMBEDDINGS, size)
        if len(content) != size:
            raise InvalidArchive(
                self._path, f"{len(lengths)} templates need {size} bytes of embeddings, not {len(content)}"
            )
        numbers = np.frombuffer(content, dtype="<f4").astype(np.float32)
        embeddings = np.split(numbers, np.cumsum(lengths)[:-1]) if lengths else []
        with np.errstate(all="ignore"):
            off = np.array([abs(np.linalg.norm(embedding) - 1) for embedding in embeddings])
        if not (off < _NORM_TOLERANCE).all():  # also false for NaN
            raise InvalidArchive(self._path, "it holds embeddings that are not of length 1")
        return embeddings

    def _member(self, name: str, limit: int) -> bytes:
        try:
            info = self._archive.getinfo(name)
        except KeyError as exc:
            raise InvalidArchive(self._path, f"it lacks {name}") from exc
        if info.compress_type not in _READABLE or info.flag_bits & _ENCRYPTED:
            raise InvalidArchive(self._path, f"{name} is encrypted or packed in an unknown way")
        if info.file_size > limit:
            raise InvalidArchive(self._path, f"{name} has {info.file_size} bytes, at most {limit} are expected")
        try:
            # Never yields more bytes than it declares, whatever is packed inside.
            return self._archive.read(info)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as exc:  # the last: unknown features
            raise InvalidArchive(self._path, f"{name} is damaged ({exc})") from exc


@contextmanager
def open_archive(path: Path) -> Iterator[GalleryArchive]:
    """Yield the checked archive; raises `InvalidArchive`."""
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError) as exc:
        raise InvalidArchive(path, f"it is no readable zip file ({exc})") from exc
    with archive:
        yield GalleryArchive(path, archive)


def restore(
    template: Template, photo: bytes | None, collection: str, bucket: str, templates: TemplateStore, photos: ObjectStore
) -> bool:
    """Put one archived template into a collection; returns whether it was new. Repeating it changes nothing.

    With its photo the template gets the id that enrolling the photo there would give it; without one it keeps its own.
    """
    identifier, reference = template.template_id, None
    if photo is not None:
        identifier = template_id(collection, template.model_id, photo)
        key = photo_key(collection, identifier, template.source)
        reference = ObjectRef(bucket=bucket, key=key, size=len(photo))
    restored = replace(template, template_id=identifier, collection=collection, photo=reference)
    try:
        store_template(templates, photos, restored, photo)
    except AlreadyEnrolled:
        return False
    return True


@contextmanager
def _staged(path: Path) -> Iterator[IO[bytes]]:
    with tempfile.NamedTemporaryFile(prefix=f".{path.name}.", dir=path.parent, delete=False) as file:
        stage = Path(file.name)
        try:
            yield file
            file.flush()
            stage.replace(path)
        except BaseException:
            stage.unlink(missing_ok=True)
            raise
