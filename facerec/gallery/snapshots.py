"""The snapshots of a machine's workers: one file for each collection and model."""

import hashlib
import json
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from facerec.ports import TemplateStore
from model.index.blocks import PutAside
from model.index.snapshot import (
    SnapshotMissing,
    SnapshotUnusable,
    Spool,
    open_snapshot,
    read_header,
    read_template_ids,
    write,
)
from model.index.vectors import RowsDamaged
from model.matching import GalleryIndex

log = structlog.get_logger(__name__)

_SLOW_SECONDS = 1.0
_PAUSE_FACTOR = 50
"""A snapshot that takes longer than `_SLOW_SECONDS` to write is written for a fiftieth of the time at most."""
_ABANDONED_SECONDS = 3600
"""A file in writing that has not grown for so long belongs to a process that was killed."""


@dataclass(frozen=True, slots=True)
class SavedGallery:
    """A collection as a snapshot has it."""

    index: GalleryIndex
    version: int
    damaged: Mapping[str, str]
    """The reasons of the templates that the writer had to leave out, by id."""


class GallerySnapshots:
    """One file for each collection and model in a directory, shared by the workers of a machine.

    A starting worker then reads only the changes since from the store. `store` is the name of that store. A file is
    replaced atomically; a damaged one is deleted. It contains the same personal data as the store, and must be as
    private: the removal of a template deletes the files that contain it. A collection is saved when `worth_writing`
    templates have changed.
    """

    def __init__(self, directory: Path, store: str, model_id: str, *, worth_writing: int = 1000) -> None:
        self._worth_writing = worth_writing
        self._directory = directory
        self._store = store
        self._model_id = model_id
        self._not_before: dict[str, float] = {}
        self._checked: dict[Path, tuple[int, int]] = {}  # the version in a file, and the one up to which it is good
        self._removals: dict[str, int] = {}  # the versions before which files are deleted, of loaded collections
        self._stuck: set[Path] = set()
        self._failure = ""

    def load(self, collection: str) -> SavedGallery | None:
        """Return the saved collection, or None; deletes a file that cannot be used, with a warning."""
        path, key = self._place(collection)
        started = time.perf_counter()
        try:
            index, header = open_snapshot(path, key)
        except SnapshotMissing:
            return None
        except SnapshotUnusable as exc:
            log.warning("gallery_snapshot_unusable", collection=collection, reason=str(exc))
            self._delete(path)
            return None
        seconds = round(time.perf_counter() - started, 3)
        log.info("gallery_snapshot_loaded", collection=collection, templates=len(index), seconds=seconds)
        return SavedGallery(index, header.version, header.notes if isinstance(header.notes, dict) else {})

    def due(self, collection: str, unsaved: int, *, at_once: bool = False) -> bool:
        """Whether a collection of which so many templates are not saved is to be saved now; `at_once` any number."""
        enough = at_once or unsaved >= self._worth_writing
        return enough and time.monotonic() >= self._not_before.get(collection, 0)

    def save(
        self, collection: str, version: int, index: GalleryIndex, damaged: Mapping[str, str] | None = None
    ) -> GalleryIndex | None:
        """Save the collection and return the index over the file, or None if there is none; a failure is logged."""
        path, key = self._place(collection)
        started = time.monotonic()
        try:
            write(index, path, key, version, dict(damaged or {}))
            saved, header = open_snapshot(path, key)
        except (OSError, RowsDamaged, SnapshotUnusable) as exc:
            log.warning("gallery_snapshot_not_written", collection=collection, reason=str(exc))
            return None
        finally:
            seconds = time.monotonic() - started
            if seconds > _SLOW_SECONDS:
                self._not_before[collection] = time.monotonic() + _PAUSE_FACTOR * seconds
        # Another worker may have replaced the file meanwhile.
        return saved if header.version == version else None

    def discard(self, collection: str, before: int | None = None) -> None:
        """Delete the collection's file; with `before` only one of an earlier version."""
        path, _ = self._place(collection)
        if before is not None:
            self._removals[collection] = before
        try:
            current = before is not None and read_header(path).version >= before
        except SnapshotUnusable:
            current = False
        if not current:
            self._delete(path)

    def delete_stale(self, store: TemplateStore, loaded: Collection[str]) -> None:
        """Delete files of collections that this worker has not loaded if they have a template that was removed.

        Also those that cannot be read, those that a worker that is behind wrote over a newer one, and what a killed
        process left. Costs the read of a version for each file. A failure is logged once: it is tried again.
        """
        try:
            self._delete_stale(store, loaded)
        except Exception as exc:  # noqa: BLE001 - whatever the store raises; the loaded collections are up to date
            if self._failure != repr(exc):
                log.warning("gallery_snapshots_not_checked", reason=str(exc))
            self._failure = repr(exc)
        else:
            self._failure = ""

    def clean_files(self, loaded: Mapping[str, int]) -> dict[str, int] | None:
        """Return the collections with a file, each with the version up to which no file has a removed template.

        `loaded` are the versions of the loaded collections. Right after `delete_stale`; None if that has failed, if a
        file cannot be deleted, and while a file is being written or was left half written.
        """
        if self._failure or self._stuck or any(self._directory.glob(".*.gallery.*")):
            return None
        own = {self._place(collection)[0]: version for collection, version in loaded.items()}
        clean: dict[str, int] = {}
        for path in self._directory.glob("*.gallery"):
            try:
                header = read_header(path)
                store, _, collection = json.loads(header.key)
            except SnapshotMissing:
                continue  # another worker has just deleted it
            except (SnapshotUnusable, ValueError):
                return None
            if store != self._store:
                continue
            # The file of a loaded collection is deleted with the first removal after it, so what is left has none.
            current = header.version >= self._removals.get(collection, 0)
            version = own[path] if path in own and current else self._checked.get(path, (0, header.version))[1]
            clean[collection] = min(clean.get(collection, version), version)
        return clean

    def spool(self) -> PutAside:
        """Return what keeps embeddings on disk while a gallery is read that will be saved."""
        return Spool(self._directory).put_aside

    def _delete_stale(self, store: TemplateStore, loaded: Collection[str]) -> None:
        for collection, version in list(self._removals.items()):
            self.discard(collection, version)
        for path in self._directory.glob(".*.gallery.*"):
            if time.time() - _changed_at(path) > _ABANDONED_SECONDS:
                self._delete(path)
        kept = {self._place(collection)[0] for collection in loaded}
        for path in set(self._directory.glob("*.gallery")) - kept:
            if self._is_stale(path, store):
                self._delete(path)

    def _is_stale(self, path: Path, store: TemplateStore) -> bool:
        """Whether a file has a template that was removed or replaced, or cannot be read.

        Not a file of another store, which this process cannot ask.
        """
        try:
            header = read_header(path)
            name, _, collection = json.loads(header.key)
            written, checked = self._checked.get(path, (0, 0))
            seen = checked if written == header.version else header.version
            if name != self._store or store.version(collection) == seen:
                return False
            changes = store.changes(collection, seen)
            if changes is None:
                return True
            touched = {*changes.removed, *(template.template_id for template in changes.added)}
            if not touched.isdisjoint(read_template_ids(path)):
                return True
        except (SnapshotUnusable, ValueError):
            return True
        self._checked[path] = header.version, changes.version
        return False

    def _place(self, collection: str) -> tuple[Path, str]:
        key = json.dumps([self._store, self._model_id, collection])
        return self._directory / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.gallery", key

    def _delete(self, path: Path) -> None:
        """Delete a file; a failure is logged once."""
        try:
            path.unlink(missing_ok=True)
        except OSError as exc:
            if path not in self._stuck:
                log.warning("gallery_snapshot_not_deleted", path=str(path), reason=str(exc))
            self._stuck.add(path)
            return
        self._stuck.discard(path)


def _changed_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # its writer has finished meanwhile
        return time.time()
