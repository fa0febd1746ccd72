"""The gallery in memory: one searchable index per collection, refreshed in the background."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
import structlog
from numpy.typing import NDArray

from facerec.background import BackgroundThread, OutageLog
from facerec.errors import FacerecError, Throttled, Transient
from facerec.gallery.loading import CollectionLoader, LoadedCollection, Matching
from facerec.gallery.names import KnownNames, valid_identity
from facerec.gallery.published import PublishedSnapshots
from facerec.gallery.readers import ReaderReporter
from facerec.gallery.snapshots import GallerySnapshots, SavedGallery
from facerec.ports import TemplateStore
from model.matching import GalleryIndex, Match

log = structlog.get_logger(__name__)

_PATIENCE_SECONDS = 2


@dataclass(frozen=True, slots=True)
class GallerySizes:
    """The number of templates of each loaded collection, and the last time when all of them were up to date."""

    templates: Mapping[str, int]
    fresh_at: float
    """In seconds since the epoch."""
    damaged: int = 0
    """The number of damaged templates in them, which were left out."""


@dataclass(slots=True)
class _ReadNames:
    """The known spellings of a collection, from the first `read` ones of these names."""

    names: Sequence[str]
    read: int
    spellings: KnownNames


class GalleryCache:
    """`GalleryReader` over a template store, for many threads.

    The first use of a collection loads it (`CollectionLoader`). From `start` to `stop` a thread asks for the versions
    of the loaded collections every `refresh_seconds`. It applies the changes since to the index, or loads the
    collection again if the store no longer has these changes: readers of a loaded collection never wait. While the
    store is unreachable they see the last state.

    A removed name is forgotten, and a removal deletes the snapshots that contain the template, at the next refresh.
    The `reporter` tells the ledger of erasures what was done.
    Clients choose the names of collections, so only the `max_collections` most recently used ones are kept, and a
    collection that never had a template is not kept.

    `matching` is the similarity to a person: to the `best` of the person's templates, or to their `mean`.
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
        matching: Matching = "best",
        reporter: ReaderReporter | None = None,
        max_collections: int = 64,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._loader = CollectionLoader(
            store, model_id, dimension=dimension, snapshots=snapshots, published=published, matching=matching
        )
        self._reporter = reporter
        self._reporting = threading.Lock()
        self._refresh_seconds = refresh_seconds
        self._max_collections = max_collections
        self._lock = threading.Lock()
        self._loaded: OrderedDict[str, LoadedCollection] = OrderedDict()
        self._loading: dict[str, Future[LoadedCollection]] = {}
        self._outage = OutageLog("gallery")
        self._failed: dict[str, str] = {}
        self._now = now
        self._fresh_at = now()
        self._applying = threading.Lock()
        """Changes are applied in their order: an index that two threads change could keep a removed template."""
        self._reading_names = threading.Lock()
        self._known_names: dict[str, _ReadNames] = {}
        self._refreshing = threading.Lock()
        self._due_at = now() + refresh_seconds
        self._thread = BackgroundThread("gallery-refresh", self._run)

    def index(self, collection: str) -> GalleryIndex:
        """Return the collection as last loaded; the first use loads it, and raises `Transient` if that fails."""
        return self._current(collection).index

    def search(self, collection: str, queries: NDArray[np.float32], limit: int) -> list[list[Match]]:
        """Return the nearest people of faces (F, D) by `matching`; loads and raises as `index` does."""
        return self._current(collection).search(queries, limit)

    def threshold(self, collection: str) -> float | None:
        """Return the collection's own threshold for the model, if any; loads and raises as `index` does."""
        return self._current(collection).threshold

    def rejections(self, collection: str) -> Mapping[str, NDArray[np.float32]]:
        """Return the faces (K, D) that are not a person, by the person; loads and raises as `index` does."""
        return self._current(collection).rejections

    def loaded(self, collection: str) -> SavedGallery:
        """Return the collection as last loaded, as a snapshot has it; loads and raises as `index` does."""
        current = self._current(collection)
        return SavedGallery(current.index, current.version, current.damaged)

    def known_name(self, collection: str, name: str, *, exact: bool = False) -> str:
        """Return the collection's spelling of a person's name, or an unknown name cleaned.

        Raises `InvalidName`; loads and raises as `index` does.
        """
        valid_identity(name, exact=exact)
        names = self._current(collection).index.names
        with self._reading_names:
            known = self._known_names.get(collection)
            if known is None or known.names is not names:
                known = self._known_names[collection] = _ReadNames(names, 0, KnownNames([]))
            # An index appends to its list of names; a removal makes another list.
            known.spellings.add(names[known.read :])
            known.read = len(names)
            return known.spellings.spelling(name, exact=exact)

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
        """Stop refreshing and wait for the thread; the loaded collections stay readable until the process ends."""
        self._thread.stop()
        if self._reporter is not None:
            with self._lock:
                versions = {name: known.version for name, known in self._loaded.items()}
            self._reporter.leave(self._loader.clean_files(versions))

    def refresh(self) -> None:
        """Bring the loaded collections up to date.

        A collection that cannot be read stays as it is, and so do all of them while the store is unreachable. Each
        failure is logged once.
        """
        with self._lock:
            loaded = list(self._loaded)
        began, failed = self._now(), dict[str, str]()
        for collection in loaded:
            try:
                with self._applying:
                    self._renew(collection)
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
        self._loader.delete_stale_snapshots(loaded)
        self._report()

    def refresh_collection(self, collection: str) -> None:
        """Bring one collection up to date if it is loaded, for readers of what this process has just written.

        While a refresh takes long, as one that loads a collection again, it leaves the collection to the next one.
        Raises `Transient`.
        """
        if not self._applying.acquire(timeout=_PATIENCE_SECONDS):
            return
        try:
            self._renew(collection)
        finally:
            self._applying.release()

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

    def _renew(self, collection: str) -> None:
        with self._lock:
            known = self._loaded.get(collection)
        if known is not None:
            renewed = self._loader.bring_up_to_date(collection, known)
            if renewed is not known:
                self._keep(collection, renewed)

    def _run(self, stopping: threading.Event) -> None:
        while not stopping.wait(self._refresh_seconds):
            self.refresh()

    def _current(self, collection: str) -> LoadedCollection:
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

    def _load_first(self, collection: str, future: "Future[LoadedCollection]") -> None:
        self._report()  # before there is anything in memory
        try:
            loaded = self._loader.load(collection)
        except BaseException as exc:  # noqa: BLE001 - every thread that waits for this load gets the error
            future.set_exception(exc)
        else:
            if loaded.version > 0:
                self._keep(collection, loaded, new=True)
            future.set_result(loaded)
        finally:
            with self._lock:
                del self._loading[collection]

    def _report(self) -> None:
        """Tell the ledger of erasures what this process and its disk hold; a collection in loading is not clean yet."""
        if self._reporter is None:
            return
        with self._reporting:
            with self._lock:
                loaded, loading = dict(self._loaded), list(self._loading)
            held = {name: 0 if known.lingering else known.version for name, known in loaded.items()}
            files = self._loader.clean_files({name: known.version for name, known in loaded.items()})
            self._reporter.report(held | dict.fromkeys(loading, 0), files)

    def _keep(self, collection: str, loaded: LoadedCollection, *, new: bool = False) -> None:
        with self._lock:
            # A refresh neither restores an evicted collection nor counts as a use.
            if new or collection in self._loaded:
                self._loaded[collection] = loaded
            while len(self._loaded) > self._max_collections:
                self._loaded.popitem(last=False)
            current = {name: known.index.names for name, known in self._loaded.items()}
        with self._reading_names:
            # A name that was removed is forgotten here, too.
            for name in [name for name, read in self._known_names.items() if read.names is not current.get(name)]:
                del self._known_names[name]
