"""The model that a worker serves: it follows the record of a migration, and changes between two tasks.

The other model of a migration has an engine of its own, with one child, while templates are embedded with it.
"""

import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import structlog

from facerec.background import BackgroundThread, OutageLog
from facerec.delivery.driver import TaskDriver
from facerec.device_faces import DeviceFaces
from facerec.engine import registry
from facerec.engine.loading import check_licence, load_artefact
from facerec.engine.migration import Migration, model_to_serve, read_migration
from facerec.engine.supervisor import SupervisedEngine
from facerec.errors import ConfigurationError, FacerecError, Transient
from facerec.gallery.cache import GalleryCache
from facerec.messages import FacesMessage, RecognitionRequest
from facerec.ports import FaceEngine, ObjectStore
from facerec.settings import Settings
from model.artefact import Artefact, ArtefactError

log = structlog.get_logger(__name__)

_IDLE_SECONDS = 120.0
"""After so long without a task the engine of the other model is closed."""
_LOOK_SECONDS = 0.5


@dataclass(slots=True, eq=False)
class ServedModel:
    """A model with its engine, its gallery and the drivers of both tasks."""

    engine: SupervisedEngine
    gallery: GalleryCache
    photos: TaskDriver[RecognitionRequest]
    faces: TaskDriver[FacesMessage | DeviceFaces]
    resources: ExitStack
    tasks: int = field(default=0, init=False)
    """How many tasks it works on."""


OpenModel = Callable[[Artefact, Collection[str]], ServedModel]
"""Opens a model with these collections in memory; raises `FacerecError`."""
OpenEngine = Callable[[Artefact], SupervisedEngine]
"""Starts an engine with one child; raises `FacerecError`."""


class ModelShelf:
    """The models on this machine: that of the settings, and those of the model bucket, fetched when needed."""

    def __init__(self, settings: Settings, objects: ObjectStore) -> None:
        self._settings = settings
        self._objects = objects

    def migration(self) -> Migration | None:
        """Return the record; raises `FacerecError`."""
        return read_migration(self._objects, self._settings.model_bucket)

    def artefact(self, model_id: str) -> Artefact:
        """Return a model; raises `FacerecError`, also for a licence that the settings do not accept."""
        try:
            own = load_artefact(self._settings)
        except ConfigurationError:
            pass  # the directory may have been replaced by a model with another licence
        else:
            if own.model_id == model_id:
                return own
        directory = self._settings.model.cache_dir / "models" / model_id
        try:
            fetched = registry.pull(self._objects, self._settings.model_bucket, directory, model_id)
        except (ArtefactError, OSError) as exc:
            raise ConfigurationError(str(exc)) from exc
        check_licence(self._settings, fetched.pack, fetched.licence)
        return fetched

    def to_serve(self) -> Artefact:
        """Return the model to start with: that of the settings, unless a migration serves another one."""
        own = load_artefact(self._settings)
        try:
            wanted = model_to_serve(own.model_id, self.migration())
            return own if wanted == own.model_id else self.artefact(wanted)
        except FacerecError as exc:
            log.warning("migration_not_followed", model_id=own.model_id, reason=str(exc))
            return own


class OtherEngine:
    """`OtherEngines`: one engine at a time, opened with its first task and closed when it is idle; for many threads."""

    def __init__(
        self, shelf: ModelShelf, open_engine: OpenEngine, *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._shelf = shelf
        self._open = open_engine
        self._now = now
        self._lock = threading.Lock()
        self._engine: SupervisedEngine | None = None
        self._used_at = 0.0

    def engine(self, model_id: str) -> FaceEngine | None:
        """Return the engine; raises `Transient` if it cannot be opened now."""
        with self._lock:
            self._used_at = self._now()
            if self._engine is not None and self._engine.model_id == model_id and not self._engine.ended:
                return self._engine
            try:
                migration = self._shelf.migration()
                if migration is None or model_id not in migration.models:
                    return None
                self._close()
                self._engine = self._open(self._shelf.artefact(model_id))
            except FacerecError as exc:
                # This worker serves its own model nevertheless.
                raise Transient(f"the model {model_id} cannot be opened: {exc}") from exc
            log.info("other_model_opened", model_id=model_id)
            self._used_at = self._now()
            return self._engine

    def close_if_idle(self) -> None:
        """Close the engine if no task has asked for it for two minutes."""
        with self._lock:
            if self._engine is not None and self._now() - self._used_at >= _IDLE_SECONDS:
                log.info("other_model_closed", model_id=self._engine.model_id)
                self._close()

    def pids(self) -> list[int]:
        """The process ids of its children."""
        engine = self._engine
        return [] if engine is None else engine.pids()

    def close(self) -> None:
        """Close the engine."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._engine is not None:
            self._engine.close()
            self._engine = None


class ServedModels:
    """The model in use, for many threads; from `start` to `stop` a thread follows the record of the migration.

    A task keeps the model that it began with. The former model is closed when its last task is over.
    """

    def __init__(
        self, shelf: ModelShelf, first: ServedModel, open_model: OpenModel, other: OtherEngine, *, poll_seconds: float
    ) -> None:
        self._shelf = shelf
        self._current = first
        self._open_model = open_model
        self._other = other
        self._poll_seconds = poll_seconds
        self._changed = threading.Condition()
        self._outage = OutageLog("migration")
        self._thread = BackgroundThread("served-model", self._run)

    @property
    def current(self) -> ServedModel:
        """The model in use."""
        return self._current

    @contextmanager
    def hold(self) -> Iterator[ServedModel]:
        """Yield the model in use, which stays open at least until the block ends."""
        with self._changed:
            served = self._current
            served.tasks += 1
        try:
            yield served
        finally:
            with self._changed:
                served.tasks -= 1
                self._changed.notify_all()

    def start(self) -> None:
        """Start to follow."""
        self._thread.start()

    def stop(self) -> None:
        """Stop, and close the model in use."""
        self._thread.stop()
        self._current.resources.close()

    def pids(self) -> list[int]:
        """The process ids of all engine children."""
        return [*self._current.engine.pids(), *self._other.pids()]

    def follow(self, stopping: threading.Event) -> None:
        """Change to the other model of the migration if its record says so; a failure is logged and tried again."""
        own = self._current.engine.model_id
        try:
            wanted = model_to_serve(own, self._shelf.migration())
            if wanted != own:
                self._change(self._shelf.artefact(wanted), stopping)
        except FacerecError as exc:
            self._outage.failed(exc)
        else:
            self._outage.succeeded()
        self._other.close_if_idle()

    def _change(self, artefact: Artefact, stopping: threading.Event) -> None:
        former, began = self._current, time.monotonic()
        log.info("model_changing", former=former.engine.model_id, model_id=artefact.model_id)
        new = self._open_model(artefact, former.gallery.sizes().templates)
        with self._changed:
            self._current = new
        log.info("model_changed", model_id=artefact.model_id, seconds=round(time.monotonic() - began, 1))
        with self._changed:
            while former.tasks and not stopping.is_set():
                self._changed.wait(_LOOK_SECONDS)
        former.resources.close()

    def _run(self, stopping: threading.Event) -> None:
        while not stopping.wait(self._poll_seconds):
            self.follow(stopping)
