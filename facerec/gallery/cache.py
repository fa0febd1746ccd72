"""The gallery in memory: one searchable index per collection, refreshed in the background."""

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from itertools import islice

import structlog

from facerec.background import BackgroundThread, OutageLog
from facerec.errors import FacerecError, Throttled, Transient
from facerec.gallery.damaged import log_fields, separate
from facerec.gallery.published import PublishedSnapshot, PublishedSnapshots
from facerec.gallery.snapshots import GallerySnapshots, SavedGallery
from facerec.ports import Changes, DamagedTemplate, Template, TemplateStore
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
    damaged: int = 0
    """The number of damaged templates in them, which were left out."""


@dataclass(frozen=True, slots=True)
class _Loaded:
    version: int
    index: GalleryIndex
    unsaved: int = 0
    """How many templates differ from the collection's snapshot."""
    threshold: float | None = None
    damaged: Mapping[str, str] = field(default_factory=dict)
    """The reasons of the damaged templates, which are not in the index, by id."""


@dataclass(slots=True)
class _Found:
    """What was left out of some templates."""

    models: Counter[str] = field(default_factory=Counter)
    damaged: list[DamagedTemplate] = field(default_factory=list)


class GalleryCache:
    """`GalleryReader` over a template store, for many threads.

    The first use of a collection loads it: from the machine's snapshot, else from the published one, and the changes
    since from the store; without either, from the store. From `start` to `stop` a thread asks for
    the versions of the loaded collections every `refresh_seconds`. It applies the changes since to the index, or loads
    the collection again if the store no longer has these changes: readers of a loaded collection never wait. While the
    store is unreachable they see the last state.

    Templates of other models than `model_id` are left out, and so are damaged ones: `dimension` is that of the model.
    A removed name is forgotten, and a removal deletes the snapshots that contain the template, at the next refresh.
    Clients choose the names of collections, so only the `max_collections` most recently used ones are kept, and a
    collection that never had a template is not kept.
    """

    def __init__(
        self,
        store: TemplateStore,
        model_id: str,
        refresh_seconds: float,
        *,
        dimension: int,
        snapshots: GallerySnapshots | None = None,
        published: PublishedSnapshots | None = None,
        max_collections: int = 64,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._model_id = model_id
        self._refresh_seconds = refresh_seconds
        self._dimension = dimension
        self._snapshots = snapshots
        self._published = published
        self._max_collections = max_collections
        self._lock = threading.Lock()
        self._loaded: OrderedDict[str, _Loaded] = OrderedDict()
        self._loading: dict[str, Future[_Loaded]] = {}
        self._outage = OutageLog("gallery")
        self._failed: dict[str, str] = {}
        self._now = now
        self._fresh_at = now()
        self._refreshing = threading.Lock()
        self._due_at = now() + refresh_seconds
        self._thread = BackgroundThread("gallery-refresh", self._run)

    def index(self, collection: str) -> GalleryIndex:
        """Return the collection as last loaded; the first use loads it, and raises `Transient` if that fails."""
        return self._current(collection).index

    def threshold(self, collection: str) -> float | None:
        """Return the collection's own threshold for the model, if any; loads and raises as `index` does."""
        return self._current(collection).threshold

    def loaded(self, collection: str) -> SavedGallery:
        """Return the collection as last loaded, as a snapshot has it; loads and raises as `index` does."""
        current = self._current(collection)
        return SavedGallery(current.index, current.version, current.damaged)

    def sizes(self) -> GallerySizes:
        """Return the sizes of the loaded collections."""
        with self._lock:
            loaded = list(self._loaded.items())
        sizes = {collection: len(known.index) for collection, known in loaded}
        return GallerySizes(sizes, self._fresh_at, sum(len(known.damaged) for _, known in loaded))

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
        if self._snapshots is not None:
            self._snapshots.delete_stale(self._store, [collection for collection, _ in loaded])

    def refresh_if_due(self) -> None:
        """Refresh in this thread if `refresh_seconds` have passed since the last time; at once if another one does.

        For a process without `start`: a function's threads stand still between invocations.
        """
        if self._now() < self._due_at or not self._refreshing.acquire(blocking=False):
            return
        try:
            self.refresh()
            self._due_at = self._now() + self._refresh_seconds
        finally:
            self._refreshing.release()

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
            self._discard(collection)
            self._keep(collection, self._load_again(collection))
        elif self._store.version(collection) != known.version:
            self._keep(collection, self._advance(collection, known))
        elif self._snapshots is not None and self._snapshots.due(collection, known.unsaved):
            self._keep(collection, self._save(collection, known))

    def _load(self, collection: str) -> _Loaded:
        saved = self._snapshots.load(collection) if self._snapshots else None
        if saved is not None:
            try:
                return self._advance(collection, self._checked(collection, saved))
            except RowsDamaged as exc:
                log.warning("gallery_snapshot_unusable", collection=collection, reason=str(exc))
                self._discard(collection)
        return self._load_again(collection)

    def _load_again(self, collection: str) -> _Loaded:
        """Load the collection without the machine's snapshot."""
        return self._load_published(collection) or self._read(collection)

    def _load_published(self, collection: str) -> _Loaded | None:
        """Load the published snapshot, if there is one that the recorded changes reach; the next refresh saves it."""
        if self._published is None or self._store.version(collection) == 0:
            return None
        changes: Changes | None = None

        def reached(snapshot: PublishedSnapshot) -> bool:
            nonlocal changes
            changes = self._store.changes(collection, snapshot.version)
            if changes is None:
                log.warning("gallery_snapshot_outdated", collection=collection, version=snapshot.version)
            return changes is not None

        saved = self._published.load(collection, reached)
        if saved is None or changes is None:
            return None
        try:
            known = self._checked(collection, saved)
        except RowsDamaged as exc:
            log.warning("gallery_snapshot_unusable", collection=collection, reason=str(exc), published=True)
            return None
        self._discard(collection, saved.version)
        return replace(self._apply(collection, known, changes), unsaved=len(known.index))

    def _checked(self, collection: str, saved: SavedGallery) -> _Loaded:
        """Return what was loaded from a snapshot; raises `RowsDamaged` if it does not fit the model."""
        index, damaged = saved.index, saved.damaged
        if len(index) and index.dimension != self._dimension:
            raise RowsDamaged(f"its embeddings have {index.dimension} numbers, not {self._dimension}")
        if damaged:
            self._warn_of_damaged(collection, [DamagedTemplate(*each) for each in damaged.items()], len(damaged))
        if index.identities < len(index.names):  # an earlier release kept the names of removed people
            self._discard(collection)
            return _Loaded(saved.version, index, len(index), damaged=damaged)
        return _Loaded(saved.version, index, damaged=damaged)

    def _advance(self, collection: str, known: _Loaded) -> _Loaded:
        """Apply the changes since to the known index, or load the collection if the store no longer has them."""
        changes = self._store.changes(collection, known.version)
        if changes is None:
            return self._load_again(collection)
        return self._save(collection, self._apply(collection, known, changes))

    def _apply(self, collection: str, known: _Loaded, changes: Changes) -> _Loaded:
        threshold = self._threshold(collection, changes.version)  # may fail, so before the index changes
        found = _Found(damaged=list(changes.damaged))
        added = self._columns(changes.added, found)
        self._warn_of_other_models(collection, found.models)
        left_out = {each.template_id: each.reason for each in found.damaged}
        touched = {*changes.removed, *(template.template_id for template in changes.added)}
        damaged = {name: reason for name, reason in known.damaged.items() if name not in touched} | left_out
        if left_out:
            self._warn_of_damaged(collection, found.damaged, len(damaged))
        index, unsaved = known.index, known.unsaved + len(changes.added) + len(changes.removed)
        gone = index.remove(sorted(touched.difference(added[2])))
        # A template that was read with the collection may come a second time, unchanged.
        renamed = any(index.identity_of(own) not in {None, name} for own, name in zip(added[2], added[1], strict=True))
        index.add(*added)
        if gone or renamed:
            self._discard(collection, changes.version)
            unsaved = len(index)
        return _Loaded(changes.version, index, unsaved, threshold, damaged)

    def _read(self, collection: str) -> _Loaded:
        # The version is read first: a change in between is read now, and a second time at the next refresh.
        version = self._store.version(collection)
        found = _Found()
        templates = self._store.templates(collection, found.damaged) if version > 0 else iter(())
        pieces = (self._columns(piece, found) for piece in iter(lambda: list(islice(templates, _READ_AT_ONCE)), []))
        files = self._snapshots or self._published
        index = GalleryIndex.of_pieces(pieces, files.spool() if files else Float32Vectors)
        self._warn_of_other_models(collection, found.models)
        damaged = {each.template_id: each.reason for each in found.damaged}
        if damaged:
            self._warn_of_damaged(collection, found.damaged, len(damaged))
        self._discard(collection, version or None)  # a table that was made again has no version
        # Templates of other models do not count: a worker that starts from a snapshot could not warn of them.
        threshold = self._threshold(collection, version)
        return self._save(collection, _Loaded(version, index, found.models[self._model_id], threshold, damaged))

    def _discard(self, collection: str, before: int | None = None) -> None:
        if self._snapshots is not None:
            self._snapshots.discard(collection, before)

    def _threshold(self, collection: str, version: int) -> float | None:
        own = self._store.threshold(collection, self._model_id) if version > 0 else None
        return None if own is None else own.value

    def _save(self, collection: str, loaded: _Loaded) -> _Loaded:
        """Save a snapshot if enough has changed."""
        if self._snapshots is None or not self._snapshots.due(collection, loaded.unsaved):
            return loaded
        saved = self._snapshots.save(collection, loaded.version, loaded.index, loaded.damaged)
        return replace(loaded, index=saved or loaded.index, unsaved=0)

    def _columns(self, templates: Sequence[Template], found: _Found) -> Columns:
        """Return the usable templates of the model in use as columns, and add the others to `found`."""
        found.models.update(template.model_id for template in templates)
        own = [template for template in templates if template.model_id == self._model_id]
        usable, embeddings, damaged = separate(own, self._dimension)
        found.damaged += damaged
        found.models[self._model_id] -= len(damaged)
        return embeddings, [template.identity for template in usable], [template.template_id for template in usable]

    def _warn_of_damaged(self, collection: str, damaged: Sequence[DamagedTemplate], count: int) -> None:
        """Log damaged templates that were found now; `count` is the number of all in the collection."""
        log.warning("gallery_templates_damaged", count=count, **log_fields(collection, damaged))

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
