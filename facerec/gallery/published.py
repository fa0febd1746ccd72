"""The published snapshots: a collection's templates of one model at one version, as one object of the gallery bucket.

    !snapshots/<collection>/<model id>/<version, 20 digits>-<SHA-256 of the object>

The key says everything that a reader must know, so a snapshot appears in one step and is found by listing; the highest
version counts. No photo is below this prefix: `!` is in no collection's name. A snapshot holds the same personal data
as the table. So every removal deletes the collection's snapshots, and a writer deletes its own if a template of it was
removed meanwhile.
"""

import hashlib
import io
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import structlog

from facerec.errors import FacerecError, ObjectMissing
from facerec.gallery.snapshots import SavedGallery
from facerec.object_keys import SNAPSHOTS_PREFIX
from facerec.ports import Changes, ObjectStore, TemplateStore
from model.index.blocks import PutAside
from model.index.compact import CompactHeader, read_compact, write_compact
from model.index.snapshot import SnapshotUnusable, Spool
from model.matching import GalleryIndex

log = structlog.get_logger(__name__)

_KEY = re.compile(
    re.escape(SNAPSHOTS_PREFIX) + r"(?P<collection>[A-Za-z0-9_.-]{1,64})/(?P<model_id>[A-Za-z0-9_.-]{1,128})/"
    r"(?P<version>[0-9]{20})-(?P<sha256>[0-9a-f]{64})"
)
_CONTENT_TYPE = "application/octet-stream"
_LISTINGS = 2
"""A snapshot may be replaced between its listing and its download, once."""


@dataclass(frozen=True, slots=True, order=True)
class PublishedSnapshot:
    """One published snapshot, as its key says; ordered by version within a collection and model."""

    collection: str
    model_id: str
    version: int
    sha256: str

    @property
    def key(self) -> str:
        """The object's key."""
        return f"{SNAPSHOTS_PREFIX}{self.collection}/{self.model_id}/{self.version:020d}-{self.sha256}"

    @classmethod
    def of_key(cls, key: str) -> "PublishedSnapshot | None":
        """Return what the key says; None for another key."""
        parts = _KEY.fullmatch(key)
        if parts is None:
            return None
        return cls(parts["collection"], parts["model_id"], int(parts["version"]), parts["sha256"])


def published(
    objects: ObjectStore, bucket: str, collection: str, model_id: str | None = None
) -> list[PublishedSnapshot]:
    """Return a collection's published snapshots, of one model or of all; those of one model end with the newest."""
    prefix = f"{SNAPSHOTS_PREFIX}{collection}/" + (f"{model_id}/" if model_id else "")
    return sorted(filter(None, map(PublishedSnapshot.of_key, objects.keys(bucket, prefix))))


class PublishedSnapshots:
    """Reads and writes the published snapshots of one model, with unnamed files in `directory`."""

    def __init__(self, objects: ObjectStore, bucket: str, model_id: str, directory: Path) -> None:
        self._objects = objects
        self._bucket = bucket
        self._model_id = model_id
        self._directory = directory

    def newest(self, collection: str) -> PublishedSnapshot | None:
        """Return the collection's newest snapshot, if there is one; raises `FacerecError`."""
        return next(reversed(published(self._objects, self._bucket, collection, self._model_id)), None)

    def load(self, collection: str, wanted: Callable[[PublishedSnapshot], bool]) -> SavedGallery | None:
        """Return the newest snapshot's gallery; None without one, and if it is not `wanted`.

        One that cannot be read or used costs a warning and gives None, too: the store has everything. `wanted` may ask
        the store; its errors pass.
        """
        for _ in range(_LISTINGS):
            try:
                found = self.newest(collection)
            except FacerecError as exc:
                _warn_of_unusable(collection, exc)
                return None
            if found is None or not wanted(found):
                return None
            try:
                return self._load(found)
            except ObjectMissing:
                continue  # a newer one, or a removal, has replaced it
            except (FacerecError, SnapshotUnusable, ValueError, OSError) as exc:
                _warn_of_unusable(collection, exc)
                return None
        return None

    def publish(
        self,
        collection: str,
        saved: SavedGallery,
        store: TemplateStore,
        on_written: Callable[[int], None] = lambda _: None,
    ) -> PublishedSnapshot | None:
        """Publish a collection, and delete its older snapshots of this model.

        Returns None, and leaves no object, if templates were removed since the version of `saved`: it is to be brought
        up to date. Raises `FacerecError`, OSError, and `RowsDamaged` for an index over a damaged file; no object is
        left then, unless S3 refuses to delete it.
        """
        index = saved.index
        header = CompactHeader(
            collection, self._model_id, saved.version, index.dimension, len(index), dict(saved.damaged)
        )
        with self._file() as file:
            write_compact(index, file, header, on_written)
            found = PublishedSnapshot(collection, self._model_id, saved.version, _sha256(file))
            try:
                self._objects.upload(self._bucket, found.key, file, _CONTENT_TYPE)
                present = published(self._objects, self._bucket, collection, self._model_id)
                # After the upload: a removal deletes what is there then, and this sees the removals before it.
                changes = store.changes(collection, saved.version)
            except (Exception, KeyboardInterrupt):  # it may be stored, and may hold a removed template
                self._objects.delete(self._bucket, found.key)
                raise
        if changes is None or _removed(changes, index):
            self._objects.delete(self._bucket, found.key)
            return None
        # One of a later version than the table's is of a table that was lost, and replaced by its backup.
        newest = max([found, *(each for each in present if each.version <= changes.version)])
        for each in present:
            if each != newest:
                self._objects.delete(self._bucket, each.key)
        return newest

    def spool(self) -> PutAside:
        """Return what keeps embeddings on disk while a gallery is read."""
        return Spool(self._directory).put_aside

    def _load(self, found: PublishedSnapshot) -> SavedGallery:
        started = time.perf_counter()
        with self._file() as file:
            self._objects.download(self._bucket, found.key, file)
            downloaded = time.perf_counter()
            if _sha256(file) != found.sha256:
                raise SnapshotUnusable(f"the SHA-256 of {found.key} is not the one in its key")
            file.seek(0)
            header, pieces = read_compact(file)
            if (header.collection, header.model_id, header.version) != (
                found.collection,
                found.model_id,
                found.version,
            ):
                raise SnapshotUnusable(f"{found.key} is the snapshot of another collection, model or version")
            index = GalleryIndex.of_pieces(pieces, self.spool())
        log.info(
            "gallery_snapshot_loaded",
            collection=found.collection,
            templates=len(index),
            seconds=round(time.perf_counter() - started, 3),
            download_seconds=round(downloaded - started, 3),
            published=True,
        )
        return SavedGallery(index, header.version, header.damaged)

    def _file(self) -> BinaryIO:
        self._directory.mkdir(parents=True, exist_ok=True)
        return cast("BinaryIO", tempfile.TemporaryFile(dir=self._directory))


def _warn_of_unusable(collection: str, reason: Exception) -> None:
    log.warning("gallery_snapshot_unusable", collection=collection, reason=str(reason), published=True)


def _removed(changes: Changes, index: GalleryIndex) -> bool:
    """Whether templates were removed, or removed and enrolled again for another person."""
    return bool(changes.removed) or any(
        index.identity_of(each.template_id) not in {None, each.identity} for each in changes.added
    )


def _sha256(file: BinaryIO) -> str:
    """Return the SHA-256 of the whole file."""
    file.seek(0)
    return hashlib.file_digest(cast("io.BufferedRandom", file), "sha256").hexdigest()
