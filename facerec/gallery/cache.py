"""The gallery in memory: one searchable index per collection, refreshed in the background."""

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import structlog

from facerec.errors import FacerecError, Throttled, Transient
from facerec.gallery.snapshots import GallerySnapshots
from facerec.ports import Template, TemplateStore
from model.index.vectors import Float32Vectors, RowsDamaged
from model.matching import Columns, GalleryIndex

log = structlog.get_logger(__name__)

_READ_AT_ONCE = 4096
"""Templates of a collection that are held beside the index while it is read: some 20 MB at 512 dimensions."""


@dataclass(frozen=True, slots=True)
class GallerySizes:
    """How many templates each loaded collection has, and when all of them were last known to be up to date."""

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


class GalleryCache:
    """`GalleryReader` over a template store, for many threads.

    A collection is loaded at its first use. From `start` to `stop` one thread asks for the versions of the loaded ones
    every `refresh_seconds`, and makes the changes since in the index, or puts a new one in its place where the store
    can no longer tell them: readers of a loaded collection never wait. While the store cannot be reached they see what
    was loaded last. With `snapshots` a collection is loaded from this machine's disk, and only what has changed since
    is read from the store.

    Templates of another model than `model_id` are left out. Names of collections come from clients, so at most
    `max_collections` are kept, the most recently used ones, and one that never held a template is not kept at all.
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
        self._unreachable = False
        self._failed: dict[str, str] = {}
        self._now = now
        self._fresh_at = now()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def index(self, collection: str) -> GalleryIndex:
        """Return the collection as last loaded; the first use loads it, and raises `Transient` when that fails."""
        return self._current(collection).index

    def threshold(self, collection: str) -> float | None:
        """Return the collection's own threshold for the model, if any; loads and raises as `index` does."""
        return self._current(collection).threshold

    def sizes(self) -> GallerySizes:
        """What is loaded, at this moment."""
        with self._lock:
            loaded = list(self._loaded.items())
        return GallerySizes({collection: len(known.index) for collection, known in loaded}, self._fresh_at)

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

    def start(self) -> None:
        """Start refreshing in a daemon thread."""
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name="gallery-refresh", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End refreshing and wait for the thread; what is loaded stays readable."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def refresh(self) -> None:
        """Bring what is loaded up to date.

        A collection that cannot be read, and all of them while the store is away, stay as they are; it is logged once.
        """
        with self._lock:
            loaded = list(self._loaded.items())
        began, failed = self._now(), dict[str, str]()
        for collection, known in loaded:
            try:
                self._bring_up_to_date(collection, known)
            except Exception as exc:  # whatever is wrong with one collection must not keep the others from being read
                if isinstance(exc, Transient) and not isinstance(exc, Throttled):
                    if not self._unreachable:
                        log.warning("gallery_unreachable", reason=str(exc))
                    self._unreachable = True
                    return
                reason = repr(exc)
                if self._failed.get(collection) != reason:
                    trace = None if isinstance(exc, FacerecError) else exc
                    log.warning("gallery_refresh_failed", collection=collection, reason=str(exc), exc_info=trace)
                failed[collection] = self._failed[collection] = reason
        if self._unreachable:
            log.info("gallery_reachable_again")
        self._unreachable, self._failed = False, failed
        if not failed:
            self._fresh_at = began

    def _bring_up_to_date(self, collection: str, known: _Loaded) -> None:
        if known.index.damaged:
            log.error("gallery_snapshot_damaged", collection=collection)
            self._keep(collection, self._read(collection))
        elif self._store.version(collection) != known.version:
            self._keep(collection, self._advanced(collection, known))

    def _run(self) -> None:
        while not self._stopping.wait(self._refresh_seconds):
            self.refresh()

    def _load_first(self, collection: str, future: "Future[_Loaded]") -> None:
        try:
            loaded = self._load(collection)
        except BaseException as exc:  # noqa: BLE001 - whatever it is belongs to everyone who waits for this load
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
            # A refresh neither brings back what was dropped meanwhile nor counts as a use.
            if new or collection in self._loaded:
                self._loaded[collection] = loaded
            while len(self._loaded) > self._max_collections:
                self._loaded.popitem(last=False)

    def _load(self, collection: str) -> _Loaded:
        saved = self._snapshots.load(collection) if self._snapshots else None
        if saved is not None:
            try:
                return self._advanced(collection, _Loaded(saved.version, saved.index))
            except RowsDamaged as exc:
                log.warning("gallery_snapshot_unusable", collection=collection, reason=str(exc))
        return self._read(collection)

    def _advanced(self, collection: str, known: _Loaded) -> _Loaded:
        """What is known with the changes since, made in place; read anew when they cannot be told."""
        changes = self._store.changes(collection, known.version)
        if changes is None:
            return self._read(collection)
        models = Counter[str]()
        added = self._columns(changes.added, models)
        self._tell_of_others(collection, models)
        known.index.remove(changes.removed)
        known.index.add(*added)
        unsaved = known.unsaved + len(changes.added) + len(changes.removed)
        return self._saved(collection, _Loaded(changes.version, known.index, unsaved))

    def _read(self, collection: str) -> _Loaded:
        # The version is read first: a change in between is read now, and once more at the next look.
        version = self._store.version(collection)
        templates = self._store.templates(collection) if version > 0 else iter(())
        models = Counter[str]()
        pieces = (self._columns(piece, models) for piece in iter(lambda: list(islice(templates, _READ_AT_ONCE)), []))
        index = GalleryIndex.of_pieces(pieces, self._snapshots.spool() if self._snapshots else Float32Vectors)
        self._tell_of_others(collection, models)
        # Those of other models count as nothing: a worker that starts from a snapshot would not see and tell of them.
        return self._saved(collection, _Loaded(version, index, models[self._model_id]))

    def _saved(self, collection: str, loaded: _Loaded) -> _Loaded:
        """The same with the collection's threshold, and from a new snapshot where one is worth writing."""
        own = self._store.threshold(collection, self._model_id) if loaded.version > 0 else None
        loaded = replace(loaded, threshold=None if own is None else own.value)
        if self._snapshots is None or loaded.unsaved < self._snapshots.worth_writing:
            return loaded
        saved = self._snapshots.save(collection, loaded.version, loaded.index)
        return replace(loaded, index=saved or loaded.index, unsaved=0)

    def _columns(self, templates: Sequence[Template], models: "Counter[str]") -> Columns:
        """What the index takes of those of the model in use; all are counted."""
        models.update(template.model_id for template in templates)
        usable = [template for template in templates if template.model_id == self._model_id]
        return (
            np.array([template.embedding for template in usable], dtype=np.float32),
            [template.identity for template in usable],
            [template.template_id for template in usable],
        )

    def _tell_of_others(self, collection: str, models: "Counter[str]") -> None:
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
