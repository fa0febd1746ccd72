"""Galleries on this machine's disk, so that a starting worker reads the changes since and not the whole store."""

import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path

import structlog

from model.index.blocks import PutAside
from model.index.snapshot import SnapshotMissing, SnapshotUnusable, Spool, open_snapshot, write
from model.index.vectors import RowsDamaged
from model.matching import GalleryIndex

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Saved:
    """A collection as it was at a version."""

    version: int
    index: GalleryIndex


class GallerySnapshots:
    """One file for each collection and model in a directory, shared by the workers of a machine.

    `store` names the store that the collections are of. A file is replaced at once, so that a reader has the old or the
    new one whole; a damaged one counts as none. It holds what the store holds of a person, and is as private.
    `worth_writing` is the number of changed templates from which on a collection is to be saved.
    """

    def __init__(self, directory: Path, store: str, model_id: str, *, worth_writing: int = 1000) -> None:
        self.worth_writing = worth_writing
        self._directory = directory
        self._store = store
        self._model_id = model_id

    def load(self, collection: str) -> Saved | None:
        """Return the collection as it was saved, or nothing, with a warning where the file cannot be used."""
        path, key = self._place(collection)
        started = time.perf_counter()
        try:
            index, version = open_snapshot(path, key)
        except SnapshotMissing:
            return None
        except SnapshotUnusable as exc:
            log.warning("gallery_snapshot_unusable", collection=collection, reason=str(exc))
            return None
        seconds = round(time.perf_counter() - started, 3)
        log.info("gallery_snapshot_loaded", collection=collection, templates=len(index), seconds=seconds)
        return Saved(version, index)

    def save(self, collection: str, version: int, index: GalleryIndex) -> GalleryIndex | None:
        """Save the collection and return the index over the file, or nothing, with a warning, where that fails."""
        path, key = self._place(collection)
        try:
            write(index, path, key, version)
            return open_snapshot(path, key)[0]
        except (OSError, RowsDamaged, SnapshotUnusable) as exc:
            log.warning("gallery_snapshot_not_written", collection=collection, reason=str(exc))
            return None

    def spool(self) -> PutAside:
        """Where embeddings are put while a gallery is read that is to be saved."""
        return Spool(self._directory).put_aside

    def _place(self, collection: str) -> tuple[Path, str]:
        key = json.dumps([self._store, self._model_id, collection])
        return self._directory / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.gallery", key
