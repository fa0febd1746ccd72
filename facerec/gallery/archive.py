"""The gallery in one portable file: a zip of a JSON manifest, the embeddings and, optionally, the photos.

    manifest.json    format, version, collection, time, the dimension of each model, and one entry per template
    embeddings.bin   float32 little-endian, as many per template as its model has dimensions, in the entries' order
    photos/<id>      the photo of the template with that id, as it was enrolled

Version 1, which is still read, has no dimensions: all its templates have 512.

An archive may be hostile: nothing is unpacked to disk, only the members above are read, up to a limit, manifest and
embeddings are checked completely before their use, and each photo before it is stored. A damaged template is left out;
a file whose parts do not fit together is refused.
"""

import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from facerec.errors import AlreadyEnrolled, FacerecError
from facerec.gallery.damaged import MAX_DIMENSION, usable
from facerec.gallery.enrolment import MAX_PHOTO_BYTES, store_template, template_id
from facerec.gallery.names import MAX_IDENTITY_LENGTH, InvalidName, same_person, valid_identity
from facerec.gallery.removal import photo_key
from facerec.message_base import CollectionName, ObjectRef, Ratio
from facerec.object_keys import MAX_FILE_NAME
from facerec.ports import DamagedTemplate, ObjectStore, Template, TemplateStore
from model.artefact import staged_file
from model.header import InvalidImage, read_header

MAX_MANIFEST_BYTES = 128_000_000  # some hundred thousand templates

_ID_LENGTH = 32
_VERSION_1_DIMENSION = 512
_MANIFEST, _EMBEDDINGS, _PHOTOS = "manifest.json", "embeddings.bin", "photos/"
_READING = "reading"
_READABLE = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_ENCRYPTED = 0x1  # general purpose bit 0, APPNOTE.TXT 4.4.4


class InvalidArchive(FacerecError):
    """The file is no readable gallery; the text says why."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} cannot be imported: {reason}")


def _read_identity(name: str, info: ValidationInfo) -> str:
    """Check a name that is read; one that an earlier version stored is written as it is."""
    try:
        return valid_identity(name, exact=True) if info.context == _READING else name
    except InvalidName as exc:
        raise ValueError(str(exc)) from exc


_ModelId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,128}$")]


class _RawEntry(BaseModel):
    """A template of which only the model is checked, because the places of the embeddings depend on it."""

    model_config = ConfigDict(frozen=True, extra="allow")

    model_id: _ModelId


class _Entry(_RawEntry):
    """A template without its embedding, in the fields of `Template`."""

    model_config = ConfigDict(extra="ignore")

    template_id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    # A decomposed name is longer than the composed one, whose length counts.
    identity: Annotated[str, Field(max_length=4 * MAX_IDENTITY_LENGTH), AfterValidator(_read_identity)]
    source: Annotated[str, Field(max_length=MAX_FILE_NAME)]
    probability: Ratio
    enrolled_at: AwareDatetime
    quality: Ratio | None = None


def _entry(values: Mapping[str, Any], number: int, context: str | None = None) -> _Entry | DamagedTemplate:
    """Return the entry with these values, or why it is none; the context `_READING` checks the name, too."""
    try:
        return _Entry.model_validate(values, context=context)
    except ValidationError as exc:
        error = exc.errors(include_input=False, include_url=False)[0]
        reason = f"its {error['loc'][0]} is wrong: {error['msg']}"
        identifier = values.get("template_id")
        shown = identifier if isinstance(identifier, str) and len(identifier) <= _ID_LENGTH else f"entry {number}"
        return DamagedTemplate(shown, reason)


class _Manifest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    format: Literal["facerec-gallery"]
    version: Literal[1, 2]
    collection: CollectionName
    exported_at: AwareDatetime
    dimensions: dict[_ModelId, Annotated[int, Field(ge=1, le=MAX_DIMENSION)]] = {}
    templates: tuple[SerializeAsAny[_RawEntry], ...]

    @model_validator(mode="after")
    def _every_dimension_known(self) -> Self:
        unknown = {entry.model_id for entry in self.templates} - self.dimensions.keys()
        if unknown and self.version > 1:
            raise ValueError(f"the dimension of model {min(unknown)} is missing")
        return self

    @property
    def lengths(self) -> list[int]:
        """The dimension of each template's embedding."""
        if self.version == 1:
            return [_VERSION_1_DIMENSION] * len(self.templates)
        return [self.dimensions[entry.model_id] for entry in self.templates]


def write_archive(
    path: Path,
    collection: str,
    templates: Sequence[Template],
    photos: Iterable[tuple[str, bytes]],
    exported_at: datetime,
) -> list[DamagedTemplate]:
    """Write templates, and photos as (template id, bytes), to a file that appears complete or not at all.

    Only its owner may read the file, because it contains biometric data. Returns the templates that `GalleryArchive`
    would leave out, and that are not in the file. Raises OSError.
    """
    entries, damaged = dict[str, _Entry](), list[DamagedTemplate]()
    for number, template in enumerate(templates, start=1):
        found = _entry({name: getattr(template, name) for name in _Entry.model_fields}, number)
        if isinstance(found, _Entry):
            entries[template.template_id] = found
        else:
            damaged.append(replace(found, identity=template.identity))
    templates = [template for template in usable(templates, damaged) if template.template_id in entries]
    manifest = _Manifest(
        format="facerec-gallery",
        version=2,
        collection=collection,
        exported_at=exported_at,
        dimensions={template.model_id: template.embedding.size for template in templates},
        templates=tuple(entries[template.template_id] for template in templates),
    )
    embeddings = b"".join(template.embedding.astype("<f4").tobytes() for template in templates)
    with staged_file(path) as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr(_MANIFEST, manifest.model_dump_json(indent=1), zipfile.ZIP_DEFLATED)
        archive.writestr(_EMBEDDINGS, embeddings)
        written = {template.template_id for template in templates}
        for identifier, photo in photos:
            if identifier in written:
                archive.writestr(_PHOTOS + identifier, photo)
    return damaged


class GalleryArchive:
    """A checked archive, made by `open_archive`. Its `templates` refer to no photo; `damaged` ones are left out."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self._path = path
        self._archive = archive
        try:
            manifest = _Manifest.model_validate_json(self._member(_MANIFEST, MAX_MANIFEST_BYTES))
        except ValidationError as exc:
            error = exc.errors(include_input=False, include_url=False)[0]
            place = ".".join(map(str, error["loc"]))
            raise InvalidArchive(path, f"its manifest is wrong at {place or 'the start'}: {error['msg']}") from exc
        embeddings = self._embeddings(manifest.lengths)
        self.collection = manifest.collection
        self.damaged: list[DamagedTemplate] = []
        templates = []
        for number, (raw, embedding) in enumerate(zip(manifest.templates, embeddings, strict=True), start=1):
            entry = _entry(raw.model_dump(), number, _READING)
            if isinstance(entry, DamagedTemplate):
                self.damaged.append(entry)
            else:
                templates.append(
                    Template(**dict(entry), collection=manifest.collection, embedding=embedding, photo=None)
                )
        if len({template.template_id for template in templates}) < len(templates):
            raise InvalidArchive(path, "it holds a template twice")
        self.templates = usable(templates, self.damaged)
        if self.damaged and not self.templates:
            first = self.damaged[0]
            raise InvalidArchive(
                path, f"all its templates are damaged; the first is {first.template_id}: {first.reason}"
            )

    def photo(self, identifier: str) -> bytes | None:
        """Return the photo of a template, if the archive has it; raises `InvalidArchive`."""
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
        return np.split(numbers, np.cumsum(lengths)[:-1]) if lengths else []

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
            # It never returns more bytes than the member declares.
            return self._archive.read(info)
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            OSError,
            RuntimeError,
        ) as exc:  # RuntimeError: unknown features
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
    template: Template,
    photo: bytes | None,
    collection: str,
    bucket: str,
    templates: TemplateStore,
    photos: ObjectStore,
    *,
    exact_names: bool = False,
) -> bool:
    """Store one archived template in a collection; returns whether it was new. A repeated call changes nothing.

    Raises `AlreadyEnrolled` if the photo belongs to another person there. With its photo the template gets the id that
    enrolment would give it; without one it keeps its own.
    """
    identifier, reference = template.template_id, None
    if photo is not None:
        identifier = template_id(collection, template.model_id, photo)
        key = photo_key(collection, identifier, template.source)
        reference = ObjectRef(bucket=bucket, key=key, size=len(photo))
    restored = replace(template, template_id=identifier, collection=collection, photo=reference)
    try:
        store_template(templates, photos, restored, photo)
    except AlreadyEnrolled as exc:
        if not same_person(exc.identity, template.identity, exact=exact_names):
            raise
        return False
    return True
