"""The gallery in one portable file, a zip archive; docs/people.md describes it for other programs.

    manifest.json    format, version, collection, time, the dimension of each model, and one entry per template,
                     rejection and merge
    embeddings.bin   float32 little-endian, as many per template as its model has dimensions, in the entries' order
    rejections.bin   the same of the rejections
    photos/<id>      the photo of the template with that id, as it was enrolled

Version 1 has no dimensions: all its templates have 512. Versions 1 and 2, which are still read, have neither external
ids nor rejections nor merges.

An archive may be hostile: nothing is unpacked to disk, only the members above are read, up to a limit, manifest and
embeddings are checked completely before their use, and each photo before it is stored. A damaged template, rejection or
merge is left out; a file whose parts do not fit together is refused.
"""

import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from facerec.errors import FacerecError
from facerec.gallery.archive_manifest import (
    READING,
    Entry,
    Manifest,
    MergeEntry,
    RejectionEntry,
    first_problem,
    read_entry,
)
from facerec.gallery.damaged import MAX_DIMENSION, usable
from facerec.gallery.enrolment import MAX_PHOTO_BYTES
from facerec.gallery.names import InvalidName, valid_identity
from facerec.ports import DamagedTemplate, MergeRecord, Rejection, Template
from model.artefact import staged_file
from model.header import InvalidImage, read_header
from model.index.norms import normalised

MAX_MANIFEST_BYTES = 128_000_000  # some hundred thousand templates

_MANIFEST, _EMBEDDINGS, _REJECTIONS, _PHOTOS = "manifest.json", "embeddings.bin", "rejections.bin", "photos/"
_READABLE = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_ENCRYPTED = 0x1  # general purpose bit 0, APPNOTE.TXT 4.4.4


@dataclass(frozen=True, slots=True)
class Remembered:
    """What a collection remembers beside its templates."""

    rejections: Sequence[Rejection] = ()
    merges: Sequence[MergeRecord] = ()
    names: Sequence[str] = ()
    """People without templates."""


NOTHING = Remembered()


class InvalidArchive(FacerecError):
    """The file is no readable gallery; the text says why."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} cannot be imported: {reason}")


def write_archive(
    path: Path,
    collection: str,
    templates: Sequence[Template],
    photos: Iterable[tuple[str, bytes]],
    exported_at: datetime,
    remembered: Remembered = NOTHING,
) -> list[DamagedTemplate]:
    """Write templates, and photos as (template id, bytes), to a file that appears complete or not at all.

    Only its owner may read the file, because it contains biometric data. Returns the templates that `GalleryArchive`
    would leave out, and that are not in the file. Raises OSError.
    """
    entries, damaged = dict[str, Entry](), list[DamagedTemplate]()
    for number, template in enumerate(templates, start=1):
        found = read_entry({name: getattr(template, name) for name in Entry.model_fields}, number)
        if isinstance(found, Entry):
            entries[template.template_id] = found
        else:
            damaged.append(replace(found, identity=template.identity))
    templates = [template for template in usable(templates, damaged) if template.template_id in entries]
    dimensions = {template.model_id: template.embedding.size for template in templates}
    rejections = [
        each
        for each in remembered.rejections
        if 0 < each.embedding.size <= MAX_DIMENSION
        and dimensions.setdefault(each.model_id, each.embedding.size) == each.embedding.size
    ]
    manifest = Manifest(
        format="facerec-gallery",
        version=3,
        collection=collection,
        exported_at=exported_at,
        dimensions=dimensions,
        templates=tuple(entries[template.template_id] for template in templates),
        rejections=tuple(
            RejectionEntry.model_validate({name: getattr(found, name) for name in RejectionEntry.model_fields})
            for found in rejections
        ),
        merges=tuple(
            MergeEntry.model_validate(asdict(record)).model_dump(mode="json")
            for record in remembered.merges
            if not record.rename
        ),
        names=tuple(remembered.names),
    )
    with staged_file(path) as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr(_MANIFEST, manifest.model_dump_json(indent=1), zipfile.ZIP_DEFLATED)
        archive.writestr(_EMBEDDINGS, _packed(templates))
        archive.writestr(_REJECTIONS, _packed(rejections))
        written = {template.template_id for template in templates}
        for identifier, photo in photos:
            if identifier in written:
                archive.writestr(_PHOTOS + identifier, photo)
    return damaged


def _packed(embedded: Iterable[Template | Rejection]) -> bytes:
    return b"".join(each.embedding.astype("<f4").tobytes() for each in embedded)


class GalleryArchive:
    """A checked archive, made by `open_archive`.

    Its `templates` refer to no photo; `damaged` ones are left out. `left_out` says in sentences what else is.
    """

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self._path = path
        self._archive = archive
        try:
            manifest = Manifest.model_validate_json(self._member(_MANIFEST, MAX_MANIFEST_BYTES))
        except ValidationError as exc:
            error = exc.errors(include_input=False, include_url=False)[0]
            place = ".".join(map(str, error["loc"]))
            raise InvalidArchive(path, f"its manifest is wrong at {place or 'the start'}: {error['msg']}") from exc
        embeddings = self._embeddings(_EMBEDDINGS, manifest.lengths)
        self.collection = manifest.collection
        self.damaged: list[DamagedTemplate] = []
        templates = []
        for number, (raw, embedding) in enumerate(zip(manifest.templates, embeddings, strict=True), start=1):
            entry = read_entry(raw.model_dump(), number, READING)
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
        self.left_out: list[str] = []
        self.remembered = Remembered(self._rejections(manifest), self._merges(manifest), self._names(manifest))

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

    def _rejections(self, manifest: Manifest) -> list[Rejection]:
        embeddings = self._embeddings(_REJECTIONS, manifest.rejection_lengths) if manifest.rejections else []
        found = []
        for number, (raw, embedding) in enumerate(zip(manifest.rejections, embeddings, strict=True), start=1):
            try:
                entry = RejectionEntry.model_validate(raw.model_dump(), context=READING)
            except ValidationError as exc:
                self.left_out.append(f"rejection {number}: {first_problem(exc)}")
                continue
            if normalised(embedding[None]).all():
                found.append(Rejection(**dict(entry), collection=manifest.collection, embedding=embedding))
            else:
                self.left_out.append(f"rejection {number}: its embedding does not have the length 1")
        return found

    def _merges(self, manifest: Manifest) -> list[MergeRecord]:
        found = []
        for number, values in enumerate(manifest.merges, start=1):
            try:
                entry = MergeEntry.model_validate(values, context=READING)
            except ValidationError as exc:
                self.left_out.append(f"merge {number}: {first_problem(exc)}")
            else:
                found.append(MergeRecord(**dict(entry), collection=manifest.collection))
        return found

    def _names(self, manifest: Manifest) -> list[str]:
        found = []
        for number, name in enumerate(manifest.names, start=1):
            try:
                found.append(valid_identity(name, exact=True))
            except InvalidName as exc:
                self.left_out.append(f"name {number}: {exc}")
        return found

    def _embeddings(self, member: str, lengths: Sequence[int]) -> list[NDArray[np.float32]]:
        size = sum(lengths) * 4
        content = self._member(member, size)
        if len(content) != size:
            raise InvalidArchive(
                self._path, f"{len(lengths)} entries need {size} bytes of {member}, not {len(content)}"
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
