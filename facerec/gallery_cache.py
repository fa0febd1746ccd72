"""The gallery in memory: one searchable index per collection, refreshed in the background."""

import threading
from collections import Counter, OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
import structlog

from facerec.errors import FacerecError
from facerec.ports import TemplateStore
from model.matching import GalleryIndex

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Loaded:
    version: int
    index: GalleryIndex
    threshold: float | None


class GalleryCache:
    """`GalleryReader` over a template store, for many threads.

    A collection is loaded at its first use. From `start` to `stop` one thread asks for the versions of the loaded ones
    every `refresh_seconds`, reloads what has changed, and puts the new index in the old one's place at once: readers of
    a loaded collection never wait. While the store cannot be reached they see what was loaded last.

    Templates of another model than `model_id` are left out. Names of collections come from clients, so at most
    `max_collections` are kept, the most recently used ones, and one that never held a template is not kept at all.
    """

    def __init__(
        self, store: TemplateStore, model_id: str, refresh_seconds: float, *, max_collections: int = 64
    ) -> None:
        self._store = store
        self._model_id = model_id
        self._refresh_seconds = refresh_seconds
        self._max_collections = max_collections
        self._lock = threading.Lock()
        self._loaded: OrderedDict[str, _Loaded] = OrderedDict()
        self._loading: dict[str, Future[_Loaded]] = {}
        self._unreachable = False
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def index(self, collection: str) -> GalleryIndex:
        """Return the collection as last loaded; the first use loads it, and raises `Transient` when that fails."""
        return self._current(collection).index

    def threshold(self, collection: str) -> float | None:
        """Return the collection's own threshold for the model, if any; loads and raises as `index` does."""
        return self._current(collection).threshold

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
        """Reload the collections that have changed; keeps what is loaded, and logs once, while the store is away."""
        with self._lock:
            versions = {collection: loaded.version for collection, loaded in self._loaded.items()}
        try:
            for collection, version in versions.items():
                if self._store.version(collection) != version:
                    self._keep(collection, self._load(collection))
        except FacerecError as exc:
            if not self._unreachable:
                log.warning("gallery_unreachable", reason=str(exc))
            self._unreachable = True
            return
        if self._unreachable:
            log.info("gallery_reachable_again")
        self._unreachable = False

    def _run(self) -> None:
        while not self._stopping.wait(self._refresh_seconds):
            try:
                self.refresh()
            except Exception:
                # A template that cannot be read must not end the refreshing of all others for good.
                log.exception("gallery_refresh_failed")

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
        # The version is read first: a change in between is loaded now, and once more at the next look.
        version = self._store.version(collection)
        templates = list(self._store.templates(collection)) if version > 0 else []
        usable = [template for template in templates if template.model_id == self._model_id]
        others = Counter(template.model_id for template in templates if template.model_id != self._model_id)
        if others:
            log.warning(
                "templates_of_another_model",
                collection=collection,
                left_out=others.total(),
                usable=len(usable),
                models=sorted(others),
                model_in_use=self._model_id,
                remedy="enrol these people again, or import a gallery that was made with the model in use",
            )
        index = GalleryIndex(
            np.array([template.embedding for template in usable], dtype=np.float32),
            [template.identity for template in usable],
            [template.template_id for template in usable],
        )
        own = self._store.threshold(collection, self._model_id) if version > 0 else None
        return _Loaded(version, index, None if own is None else own.value)
