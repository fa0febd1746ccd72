"""The gallery in memory: one searchable index per collection, refreshed in the background, with snapshots on disk."""

import hashlib
import json
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import structlog

from facerec.background import BackgroundThread, OutageLog
from facerec.errors import FacerecError, Throttled, Transient
from facerec.ports import Template, TemplateStore
from model.index.blocks import PutAside
from model.index.snapshot import SnapshotMissing, SnapshotUnusable, Spool, open_snapshot, write
from model.index.vectors import Float32Vectors, RowsDamaged
from model.matching import Columns, GalleryIndex

log = structlog.get_logger(__name__)

_READ_AT_ONCE = 4096  # templates held beside the index while a collection is read: some 20 MB at 512 dimensions


@dataclass(frozen=True, slots=True)
class GallerySizes:
    """The number of templates of each loaded collection, and the last time when all of them were up to date."""

    templates: Mapping[str, int]
    fresh_at: float
    """In seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class _Loaded:
    version: int
    index: GalleryIndex
    unsaved: int = 0
    """How many templates differ from the collection's snapshot."""
    threshold: float | None = None


class GallerySnapshots:
    """One file for each collection and model in a directory, shared by the workers of a machine.

    A starting worker then reads only the changes since from the store. `store` is the name of that store. A file is
    replaced atomically; a damaged one is ignored. It contains the same personal data as the store, and must be as
    private. A collection is saved when `worth_writing` templates have changed.
    """

    def __init__(self, directory: Path, store: str, model_id: str, *, worth_writing: int = 1000) -> None:
        self.worth_writing = worth_writing
        self._directory = directory
        self._store = store
        self._model_id = model_id

    def load(self, collection: str) -> tuple[GalleryIndex, int] | None:
        """Return the saved collection and its version, or None; logs a warning if the file cannot be used."""
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
        return index, version

    def save(self, collection: str, version: int, index: GalleryIndex) -> GalleryIndex | None:
        """Save the collection and return the index over the file, or None after a warning."""
        path, key = self._place(collection)
        try:
            write(index, path, key, version)
            return open_snapshot(path, key)[0]
        except (OSError, RowsDamaged, SnapshotUnusable) as exc:
            log.warning("gallery_snapshot_not_written", collection=collection, reason=str(exc))
            return None

    def spool(self) -> PutAside:
        """Return what keeps embeddings on disk while a gallery is read that will be saved."""
        return Spool(self._directory).put_aside

    def _place(self, collection: str) -> tuple[Path, str]:
        key = json.dumps([self._store, self._model_id, collection])
        return self._directory / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.gallery", key


class GalleryCache:
    """`GalleryReader` over a template store, for many threads.

    The first use of a collection loads it, from a snapshot if there is one. From `start` to `stop` a thread asks for
    the versions of the loaded collections every `refresh_seconds`. It applies the changes since to the index, or loads
    the collection again if the store no longer has these changes: readers of a loaded collection never wait. While the
    store is unreachable they see the last state.

    Templates of other models than `model_id` are left out. Clients choose the names of collections, so only the
    `max_collections` most recently used ones are kept, and a collection that never had a template is not kept.
    """

    def __init__(
        self,
        store: TemplateStore,
        model_id: str,
        refresh_seconds: float,
        *,
        snapshots: GallerySnapshots | None = None,
        max_collections: int = 64,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._model_id = model_id
        self._refresh_seconds = refresh_seconds
        self._snapshots = snapshots
        self._max_collections = max_collections
        self._lock = threading.Lock()
        self._loaded: OrderedDict[str, _Loaded] = OrderedDict()
        self._loading: dict[str, Future[_Loaded]] = {}
        self._outage = OutageLog("gallery")
        self._failed: dict[str, str] = {}
        self._now = now
        self._fresh_at = now()
        self._thread = BackgroundThread("gallery-refresh", self._run)

    def index(self, collection: str) -> GalleryIndex:
        """Return the collection as last loaded; the first use loads it, and raises `Transient` if that fails."""
        return self._current(collection).index

    def threshold(self, collection: str) -> float | None:
        """Return the collection's own threshold for the model, if any; loads and raises as `index` does."""
        return self._current(collection).threshold

    def sizes(self) -> GallerySizes:
        """Return the sizes of the loaded collections."""
        with self._lock:
            loaded = list(self._loaded.items())
        return GallerySizes({collection: len(known.index) for collection, known in loaded}, self._fresh_at)

    def start(self) -> None:
        """Start refreshing in a daemon thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop refreshing and wait for the thread; the loaded collections stay readable."""
        self._thread.stop()

    def refresh(self) -> None:
        """Bring the loaded collections up to date.

        A collection that cannot be read stays as it is, and so do all of them while the store is unreachable. Each
        failure is logged once.
        """
        with self._lock:
            loaded = list(self._loaded.items())
        began, failed = self._now(), dict[str, str]()
        for collection, known in loaded:
            try:
                self._bring_up_to_date(collection, known)
            except Exception as exc:  # a failure of one collection must not stop the refresh of the others
                if isinstance(exc, Transient) and not isinstance(exc, Throttled):
                    self._outage.failed(exc)
                    return
                reason = repr(exc)
                if self._failed.get(collection) != reason:
                    trace = None if isinstance(exc, FacerecError) else exc
                    log.warning("gallery_refresh_failed", collection=collection, reason=str(exc), exc_info=trace)
                failed[collection] = self._failed[collection] = reason
        self._outage.succeeded()
        self._failed = failed
        if not failed:
            self._fresh_at = began

    def _run(self, stopping: threading.Event) -> None:
        while not stopping.wait(self._refresh_seconds):
            self.refresh()

    def _current(self, collection: str) -> _Loaded:
        with self._lock:
            loaded = self._loaded.get(collection)
            if loaded is not None:
                self._loaded.move_to_end(collection)
                return loaded
            future = self._loading.get(collection)
            first = future is None
            if future is None:
                future = self._loading[collection] = Future()
        if first:
            self._load_first(collection, future)
        return future.result()

    def _load_first(self, collection: str, future: "Future[_Loaded]") -> None:
        try:
            loaded = self._load(collection)
        except BaseException as exc:  # noqa: BLE001 - every thread that waits for this load gets the error
            future.set_exception(exc)
        else:
            if loaded.version > 0:
                self._keep(collection, loaded, new=True)
            future.set_result(loaded)
        finally:
            with self._lock:
                del self._loading[collection]

    def _keep(self, collection: str, loaded: _Loaded, *, new: bool = False) -> None:
        with self._lock:
            # A refresh neither restores an evicted collection nor counts as a use.
            if new or collection in self._loaded:
                self._loaded[collection] = loaded
            while len(self._loaded) > self._max_collections:
                self._loaded.popitem(last=False)

    def _bring_up_to_date(self, collection: str, known: _Loaded) -> None:
        if known.index.damaged:
            log.error("gallery_snapshot_damaged", collection=collection)
            self._keep(collection, self._read(collection))
        elif self._store.version(collection) != known.version:
            self._keep(collection, self._advance(collection, known))

    def _load(self, collection: str) -> _Loaded:
        saved = self._snapshots.load(collection) if self._snapshots else None
        if saved is not None:
            index, version = saved
            try:
                return self._advance(collection, _Loaded(version, index))
            except RowsDamaged as exc:
                log.warning("gallery_snapshot_unusable", collection=collection, reason=str(exc))
        return self._read(collection)

    def _advance(self, collection: str, known: _Loaded) -> _Loaded:
        """Apply the changes since to the known index, or read the collection if the store no longer has them."""
        changes = self._store.changes(collection, known.version)
        if changes is None:
            return self._read(collection)
        models = Counter[str]()
        added = self._columns(changes.added, models)
        self._warn_of_other_models(collection, models)
        known.index.remove(changes.removed)
        known.index.add(*added)
        unsaved = known.unsaved + len(changes.added) + len(changes.removed)
        return self._save(collection, _Loaded(changes.version, known.index, unsaved))

    def _read(self, collection: str) -> _Loaded:
        # The version is read first: a change in between is read now, and a second time at the next refresh.
        version = self._store.version(collection)
        templates = self._store.templates(collection) if version > 0 else iter(())
        models = Counter[str]()
        pieces = (self._columns(piece, models) for piece in iter(lambda: list(islice(templates, _READ_AT_ONCE)), []))
        index = GalleryIndex.of_pieces(pieces, self._snapshots.spool() if self._snapshots else Float32Vectors)
        self._warn_of_other_models(collection, models)
        # Templates of other models do not count: a worker that starts from a snapshot could not warn of them.
        return self._save(collection, _Loaded(version, index, models[self._model_id]))

    def _save(self, collection: str, loaded: _Loaded) -> _Loaded:
        """Add the collection's threshold, and save a snapshot if enough has changed."""
        own = self._store.threshold(collection, self._model_id) if loaded.version > 0 else None
        loaded = replace(loaded, threshold=None if own is None else own.value)
        if self._snapshots is None or loaded.unsaved < self._snapshots.worth_writing:
            return loaded
        saved = self._snapshots.save(collection, loaded.version, loaded.index)
        return replace(loaded, index=saved or loaded.index, unsaved=0)

    def _columns(self, templates: Sequence[Template], models: "Counter[str]") -> Columns:
        """Return the templates of the model in use as columns, and count those of every model."""
        models.update(template.model_id for template in templates)
        usable = [template for template in templates if template.model_id == self._model_id]
        return (
            np.array([template.embedding for template in usable], dtype=np.float32),
            [template.identity for template in usable],
            [template.template_id for template in usable],
        )

    def _warn_of_other_models(self, collection: str, models: "Counter[str]") -> None:
        others = models.keys() - {self._model_id}
        if others:
            log.warning(
                "gallery_of_another_model",
                collection=collection,
                count=models.total() - models[self._model_id],
                usable=models[self._model_id],
                models=sorted(others),
                model_in_use=self._model_id,
                command=f"facerec gallery rebuild --collection {collection}",
            )
