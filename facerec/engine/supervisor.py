"""`FaceEngine` over supervised children: one per core, replaced when it crashes or overruns its deadline."""

import dataclasses
import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from facerec.engine.child import REAL_ANALYSER, EngineSpec, Ready
from facerec.engine.cores import available_cores
from facerec.engine.image_queue import ImageQueue, QueuedImage, QueueLimits, megapixels
from facerec.engine.process import (
    NOBODY,
    Batch,
    EngineDied,
    EngineOverran,
    EngineProcess,
    EngineRefused,
    EngineStumbled,
    EngineWatch,
    Failure,
)
from facerec.errors import ConfigurationError, EngineFailure, FacerecError, Transient
from facerec.settings import Settings
from facerec.settings.tiers import WorkerSettings
from model.header import InvalidImage

if TYPE_CHECKING:
    from model.faces import ImageAnalysis

log = structlog.get_logger(__name__)

_RESTART_DELAYS_SECONDS = (0.0, 1.0, 5.0)
"""Attempts to replace a child, for causes that pass, such as a lack of memory; after them the worker gives up."""


class SupervisedEngine:
    """`FaceEngine`: each child takes what is queued when it is free, and waits shortly while images stream in.

    A batch has up to `worker.batch_max` images of `worker.batch_max_megapixels` together; see `image_queue` for which.
    It has `worker.task_time_limit_seconds` in all, however many images are in it: one image that hangs must not
    hold its neighbours longer than that. When the batch fails (the child crashed, overran or raised) each of its images
    is tried again alone. One that fails alone, too, is the culprit and gets `EngineFailure`; the others get theirs.

    `start` first, `close` at the end; `analyse` from any thread in between. `watch` is told of every batch.
    """

    def __init__(
        self,
        settings: Settings,
        artefact_dir: Path,
        *,
        factory: str = REAL_ANALYSER,
        watch: EngineWatch = NOBODY,
    ) -> None:
        spec = EngineSpec(
            artefact_dir=artefact_dir,
            engine=settings.engine,
            max_megapixels=settings.max_megapixels,
            max_faces=settings.model.max_faces,
            min_face_pixels=settings.model.min_face_pixels,
            cache_dir=settings.model.cache_dir,
            precision=settings.precision,
            factory=factory,
        )
        self._limits = settings.worker
        self._max_megapixels = settings.max_megapixels
        self._queue = ImageQueue(_queue_limits(settings.worker))
        count = settings.worker.engines or available_cores()
        self._lanes = [_Lane(index, spec, settings, self._queue, watch) for index in range(count)]
        self._ready: Ready | None = None

    def start(self) -> None:
        """Return when every child is loaded and warm; raises `ConfigurationError` when one cannot be."""
        for lane in self._lanes:
            lane.start()
        try:
            self._ready = _same(lane.ready.result() for lane in self._lanes)
        except BaseException:
            self.close()
            raise
        log.info("engines_ready", engines=len(self._lanes), available_cores=available_cores())

    @property
    def name(self) -> str:
        """`openvino`, `onnxruntime` or `torch`."""
        return self._loaded.name

    @property
    def precision(self) -> str:
        """What its numbers are: `fp32`, `bf16`."""
        return self._loaded.precision

    @property
    def model_id(self) -> str:
        """Which model its embeddings belong to."""
        return self._loaded.model_id

    @property
    def waiting(self) -> int:
        """How many images wait for a child."""
        return self._queue.waiting

    def pids(self) -> list[int]:
        """The process ids of the children, as far as they run."""
        return [lane.pid for lane in self._lanes if lane.pid is not None]

    def analyse(self, image: bytes) -> "ImageAnalysis":
        """Decode, detect and embed; `timings_ms` also has the `wait` for a child.

        Raises `InvalidImage`; `EngineFailure` for a culprit; `Transient` after `close`; and `ConfigurationError` once
        a child could not be replaced: then this engine is of no more use, and the process should end. Waits while
        `worker.queue_max_images` or `worker.queue_max_bytes` are queued.
        """
        queued = QueuedImage(image, megapixels(image, self._limits.batch_max_megapixels, self._max_megapixels))
        queued.request_id = structlog.contextvars.get_contextvars().get("request_id")
        self._queue.put(queued)
        return queued.answer.result()

    def close(self) -> None:
        """Fail what is queued with `Transient`, finish the batches in hand, which have a deadline, end the children."""
        self._queue.close(Transient("the engine is shutting down; the task is delivered again"))
        for lane in self._lanes:
            lane.close()

    @property
    def _loaded(self) -> Ready:
        if self._ready is None:
            raise RuntimeError("start() comes first")
        return self._ready


def _queue_limits(settings: WorkerSettings) -> QueueLimits:
    return QueueLimits(
        batch_images=settings.batch_max,
        batch_megapixels=settings.batch_max_megapixels,
        window_seconds=settings.batch_window_ms / 1000,
        queued_images=settings.queue_max_images,
        queued_bytes=settings.queue_max_bytes,
    )


def _same(loaded: Iterable[Ready]) -> Ready:
    different = set(loaded)
    if len(different) > 1:
        raise ConfigurationError("the model was replaced while the engine started: start again")
    return different.pop()


def _failure(exc: EngineDied | EngineStumbled) -> Failure:
    if isinstance(exc, EngineStumbled):
        return Failure.RAISED
    return Failure.OVERRAN if isinstance(exc, EngineOverran) else Failure.CRASHED


class _Lane:
    """One child at a time, and the thread that feeds it."""

    def __init__(self, index: int, spec: EngineSpec, settings: Settings, queue: ImageQueue, watch: EngineWatch) -> None:
        self.ready: Future[Ready] = Future()
        self.pid: int | None = None
        self._spec = spec
        self._limits = settings.worker
        self._queue = queue
        self._watch = watch
        self._log = log.bind(engine_child=index)
        self._loading: EngineProcess | None = None
        self._thread = threading.Thread(target=self._run, name=f"engine-{index}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Wait for the thread's end; the queue is closed already. A child that is still loading does not hold it up."""
        if (loading := self._loading) is not None:
            loading.kill()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            self._serve(self._launch())
        except FacerecError as exc:
            self._give_up(exc)
        except Exception as exc:  # noqa: BLE001 - a thread that ends without a word would leave its callers waiting
            self._log.exception("engine_lane_failed")
            self._give_up(ConfigurationError(f"the engine's supervisor failed: {exc!r}; see the log"))

    def _serve(self, child: EngineProcess) -> None:
        try:
            while (batch := self._queue.take(unless=child.ended)) is not None:
                if not child.ended():
                    self._analyse(child, batch)
                    continue
                self._queue.put_back(batch)
                child.close()
                if (successor := self._replace()) is None:
                    return
                child = successor
        finally:
            child.close()

    def _analyse(self, child: EngineProcess, batch: list[QueuedImage]) -> None:
        request_ids = [image.request_id for image in batch]
        try:
            with structlog.contextvars.bound_contextvars(request_ids=request_ids, images=len(batch), pid=child.pid):
                self._attempt(child, batch)
        except Exception:
            # The lane ends with it, and closing the queue reaches only what is in it.
            self._queue.put_back([image for image in batch if not image.answer.done()])
            raise

    def _attempt(self, child: EngineProcess, batch: list[QueuedImage]) -> None:
        begun = time.monotonic()
        waited = tuple(begun - image.came_at for image in batch)
        try:
            answers = child.analyse([image.data for image in batch], self._limits.task_time_limit_seconds)
        except (EngineDied, EngineStumbled) as exc:
            self._watch.batch(Batch(waited, time.monotonic() - begun, _failure(exc)))
            self._log.warning("batch_failed", reason=f"the engine {exc}")
            self._sort_out(batch, str(exc))
            return
        self._watch.batch(Batch(waited, time.monotonic() - begun))
        self._log.debug("batch_analysed")
        self._hand_out(batch, answers, waited)

    def _hand_out(
        self, batch: list[QueuedImage], answers: "list[ImageAnalysis | InvalidImage]", waited: tuple[float, ...]
    ) -> None:
        for image, answer, seconds in zip(batch, answers, waited, strict=True):
            if isinstance(answer, InvalidImage):
                image.answer.set_exception(answer)
            else:
                timings = {"wait": seconds * 1000, **answer.timings_ms}
                image.answer.set_result(dataclasses.replace(answer, timings_ms=timings))

    def _sort_out(self, batch: list[QueuedImage], reason: str) -> None:
        # A suspect was alone in its batch, so what failed again is the culprit.
        for image in batch:
            image.failures += 1
            if image.failures > 1:
                image.answer.set_exception(
                    EngineFailure(f"the engine {reason} on this picture, again when it was alone")
                )
        self._queue.put_back([image for image in batch if not image.answer.done()])

    def _launch(self) -> EngineProcess:
        try:
            child = self._loading = EngineProcess(self._spec, on_exit=self._queue.wake)
        except OSError as exc:  # no memory, process or descriptor is left, which may pass
            raise ConfigurationError(f"the engine's process does not start: {exc}") from exc
        self.pid = child.pid
        try:
            if self._queue.wait_closed(0):
                child.kill()  # `close` has come and gone before there was a child to kill
            ready = child.load(self._limits.startup_seconds)
        except BaseException as exc:
            child.close()
            if isinstance(exc, EngineRefused):
                raise ConfigurationError(str(exc)) from exc
            if isinstance(exc, EngineDied):
                raise ConfigurationError(
                    f"the engine does not start: it {exc}; try `facerec model verify` or another FACEREC_ENGINE"
                ) from exc
            raise
        finally:
            self._loading = None
        self._log.debug("engine_ready", pid=child.pid, engine=ready.name)
        if not self.ready.done():
            self.ready.set_result(ready)
            # What was chosen once holds for every successor: a new measurement might tip over on a busy machine.
            self._spec = dataclasses.replace(self._spec, precision=ready.precision)
        elif ready != self.ready.result():
            # Its embeddings would be compared with templates of the other model.
            child.close()
            raise ConfigurationError(f"the model in {self._spec.artefact_dir} is another than before: start anew")
        return child

    def _replace(self) -> EngineProcess | None:
        """A new child, or nothing when the engine closes meanwhile; raises `ConfigurationError` when it gives up."""
        problem = None
        for attempt, delay in enumerate(_RESTART_DELAYS_SECONDS, start=1):
            if self._queue.wait_closed(delay):
                return None
            try:
                child = self._launch()
            except ConfigurationError as exc:
                if self._queue.wait_closed(0):
                    return None
                problem = exc
                self._log.warning("engine_not_replaced", attempt=attempt, reason=str(exc))
            else:
                self._watch.replaced()
                self._log.info("engine_replaced", pid=child.pid)
                return child
        raise problem or AssertionError("there is at least one attempt")

    def _give_up(self, reason: FacerecError) -> None:
        if not self.ready.done():
            self.ready.set_exception(reason)
        # One lane that cannot be kept up ends the whole engine: a worker that is started anew beats half a worker.
        self._queue.close(reason)
