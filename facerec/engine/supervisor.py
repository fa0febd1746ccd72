"""`FaceEngine` over supervised children: one per core, replaced when it crashes or exceeds its deadline.

It does not use the supervisor of `facerec.processes`: these children answer over a pipe, with a deadline per batch.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from facerec.background import BackgroundThread
from facerec.engine.child import REAL_ANALYSER, EngineSpec, Ready
from facerec.engine.image_queue import ImageQueue, QueuedImage, megapixels
from facerec.engine.loading import available_cores
from facerec.engine.process import BatchFault, EngineProcess, FaultCause
from facerec.errors import ConfigurationError, EngineFailure, FacerecError, Transient
from facerec.settings import Settings
from facerec.settings.tiers import WorkerSettings
from model.header import InvalidImage

if TYPE_CHECKING:
    from model.faces import ImageAnalysis

log = structlog.get_logger(__name__)

_RESTART_DELAYS_SECONDS = (0.0, 1.0, 5.0)
"""Attempts to replace a child, for causes that pass, such as a lack of memory; then the engine gives up."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch and how it ended."""

    waited_seconds: tuple[float, ...]
    """How long each image had waited for a child."""
    seconds: float
    fault: FaultCause | None = None


class SupervisedEngine:
    """`FaceEngine`: a free child takes the queued images, and waits shortly for more while images stream in.

    `image_queue` forms the batches. A batch has `worker.task_time_limit_seconds`, whatever its size: an image that
    hangs must not delay its neighbours for longer. When a batch fails (the child crashed, exceeded the deadline or
    raised), each of its images is tried again alone. An image that fails alone is the culprit: `EngineFailure`.

    `start` first, `close` at the end; `analyse` from any thread in between. `on_batch` and `on_replaced` are called by
    the threads that feed the children, after each batch and each replacement; they must be quick and must not raise.
    """

    def __init__(
        self,
        settings: Settings,
        artefact_dir: Path,
        *,
        factory: str = REAL_ANALYSER,
        on_batch: Callable[[Batch], None] = lambda _: None,
        on_replaced: Callable[[], None] = lambda: None,
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
        limits = settings.worker
        self._max_megapixels = settings.max_megapixels
        self._queue = ImageQueue(limits)
        self._feeders = [
            _Feeder(index, spec, limits, self._queue, on_batch, on_replaced)
            for index in range(limits.engines or available_cores())
        ]

    def start(self) -> None:
        """Return when every child is loaded and warm; raises `ConfigurationError` if one cannot be."""
        for feeder in self._feeders:
            feeder.thread.start()
        try:
            loaded = {feeder.ready.result() for feeder in self._feeders}
        except BaseException:
            self.close()
            raise
        if len(loaded) > 1:
            self.close()
            raise ConfigurationError("the model was replaced while the engine started: start again")
        self._ready = loaded.pop()
        log.info("engines_ready", engines=len(self._feeders), available_cores=available_cores())

    @property
    def name(self) -> str:
        """`openvino`, `onnxruntime` or `torch`."""
        return self._ready.name

    @property
    def precision(self) -> str:
        """The number format of the networks: `fp32` or `bf16`."""
        return self._ready.precision

    @property
    def model_id(self) -> str:
        """The model of the embeddings."""
        return self._ready.model_id

    @property
    def waiting(self) -> int:
        """How many images wait for a child."""
        return self._queue.waiting

    def pids(self) -> list[int]:
        """The process ids of the children."""
        return [feeder.pid for feeder in self._feeders if feeder.pid is not None]

    def analyse(self, image: bytes) -> "ImageAnalysis":
        """Decode, detect and embed; `timings_ms` also has the `wait` for a child.

        Waits while `worker.queue_max_images` or `worker.queue_max_bytes` are queued. Raises `InvalidImage`,
        `EngineFailure` for a culprit, `Transient` after `close`, and `ConfigurationError` once a child could not be
        replaced: the process should end then.
        """
        request_id = structlog.contextvars.get_contextvars().get("request_id")
        size = megapixels(image, self._max_megapixels)
        queued = QueuedImage(image, size, request_id)
        self._queue.put(queued)
        return queued.answer.result()

    def close(self) -> None:
        """Fail queued images with `Transient`, finish the running batches, which have a deadline, end the children."""
        self._queue.close(Transient("the engine is shutting down; the task is delivered again"))
        for feeder in self._feeders:
            feeder.close()


@dataclass(eq=False)
class _Feeder:
    """The thread that feeds one child, and replaces it when it has ended."""

    index: int
    spec: EngineSpec
    limits: WorkerSettings
    queue: ImageQueue
    on_batch: Callable[[Batch], None]
    on_replaced: Callable[[], None]
    ready: Future[Ready] = field(default_factory=Future)
    pid: int | None = None
    loading: EngineProcess | None = None

    def __post_init__(self) -> None:
        self.thread = BackgroundThread(f"engine-{self.index}", lambda _: self._run())
        self.log = log.bind(engine_child=self.index)

    def close(self) -> None:
        """Wait for the thread to end, after the queue was closed; a child that is still loading is killed."""
        if (loading := self.loading) is not None:
            loading.kill()
        self.thread.stop()

    def _run(self) -> None:
        try:
            self._serve(self._launch())
        except FacerecError as exc:
            self._give_up(exc)
        except Exception as exc:  # a thread that ended silently would leave its callers waiting
            self.log.exception("engine_supervisor_failed")
            self._give_up(ConfigurationError(f"the engine's supervisor failed: {exc!r}; see the log"))

    def _serve(self, child: EngineProcess) -> None:
        try:
            while (batch := self.queue.take(unless=child.ended)) is not None:
                if not child.ended():
                    self._analyse(child, batch)
                    continue
                self.queue.put_back(batch)
                child.close()
                if (successor := self._replacement()) is None:
                    return
                child = successor
        finally:
            child.close()

    def _analyse(self, child: EngineProcess, batch: list[QueuedImage]) -> None:
        request_ids = [image.request_id for image in batch]
        with structlog.contextvars.bound_contextvars(request_ids=request_ids, images=len(batch), pid=child.pid):
            try:
                self._attempt(child, batch)
            except Exception:
                # This thread ends, and closing the queue fails only the images in it.
                self.queue.put_back([image for image in batch if not image.answer.done()])
                raise

    def _attempt(self, child: EngineProcess, batch: list[QueuedImage]) -> None:
        started = time.monotonic()
        waited = tuple(started - image.queued_at for image in batch)
        try:
            answers = child.analyse([image.data for image in batch], self.limits.task_time_limit_seconds)
        except BatchFault as exc:
            self.on_batch(Batch(waited, time.monotonic() - started, exc.cause))
            self.log.warning("batch_failed", reason=f"the engine {exc}")
            self._retry_alone(batch, str(exc))
            return
        self.on_batch(Batch(waited, time.monotonic() - started))
        self.log.debug("batch_analysed")
        for image, answer, seconds in zip(batch, answers, waited, strict=True):
            if isinstance(answer, InvalidImage):
                image.answer.set_exception(answer)
            else:
                image.answer.set_result(replace(answer, timings_ms={"wait": seconds * 1000, **answer.timings_ms}))

    def _retry_alone(self, batch: list[QueuedImage], reason: str) -> None:
        # An image that has failed before was alone in its batch: it is the culprit.
        for image in batch:
            image.failures += 1
            if image.failures > 1:
                culprit = EngineFailure(f"the engine {reason} on this picture, again when it was alone")
                image.answer.set_exception(culprit)
        self.queue.put_back([image for image in batch if not image.answer.done()])

    def _launch(self) -> EngineProcess:
        child = self.loading = EngineProcess(self.spec, on_exit=self.queue.wake)
        self.pid = child.pid
        try:
            if self.queue.wait_closed(0):
                child.kill()  # `close` was called before there was a child to kill
            ready = child.load(self.limits.startup_seconds)
        except BaseException:
            child.close()
            raise
        finally:
            self.loading = None
        self.log.debug("engine_ready", pid=child.pid, engine=ready.name)
        if not self.ready.done():
            self.ready.set_result(ready)
            # Every successor uses the same precision: choosing again might decide differently on a busy machine.
            self.spec = replace(self.spec, precision=ready.precision)
        elif ready != self.ready.result():
            # Its embeddings would be compared with templates of the other model.
            child.close()
            raise ConfigurationError(f"the model in {self.spec.artefact_dir} has changed: start the worker again")
        return child

    def _replacement(self) -> EngineProcess | None:
        """A new child; `None` if the engine closes. Raises `ConfigurationError` after the last attempt."""
        problem = None
        for attempt, delay in enumerate(_RESTART_DELAYS_SECONDS, start=1):
            if self.queue.wait_closed(delay):
                return None
            try:
                child = self._launch()
            except ConfigurationError as exc:
                if self.queue.wait_closed(0):
                    return None
                problem = exc
                self.log.warning("engine_not_replaced", attempt=attempt, reason=str(exc))
            else:
                self.on_replaced()
                self.log.info("engine_replaced", pid=child.pid)
                return child
        raise problem or AssertionError("there is at least one attempt")

    def _give_up(self, reason: FacerecError) -> None:
        if not self.ready.done():
            self.ready.set_exception(reason)
        # If one child cannot be kept running, the whole engine ends: a restarted worker is better than half a worker.
        self.queue.close(reason)
