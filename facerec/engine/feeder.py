"""The thread that feeds one engine child with batches, and replaces the child when it has ended."""

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

import structlog

from facerec.background import BackgroundThread
from facerec.engine.child import EngineSpec, Ready
from facerec.engine.image_queue import ImageQueue, QueuedImage
from facerec.engine.process import BatchFault, EngineProcess, FaultCause
from facerec.errors import ConfigurationError, EngineFailure, FacerecError
from facerec.settings.tiers import WorkerSettings
from model.header import InvalidImage

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


@dataclass(eq=False)
class Feeder:
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
    working: EngineProcess | None = None
    abandoned: bool = False
    """Whether running batches are not to be finished."""

    def __post_init__(self) -> None:
        """Make the thread, which its owner starts."""
        self.thread = BackgroundThread(f"engine-{self.index}", lambda _: self._run())
        self.log = log.bind(engine_child=self.index)

    def close(self, *, finish: bool = True) -> None:
        """Wait for the thread to end, after the queue was closed; a child that is still loading is killed.

        So is one that is at work, unless its batch is to be finished.
        """
        self.abandoned = not finish
        for child in (self.loading, None if finish else self.working):
            if child is not None:
                child.kill()
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
        self.working = child
        try:
            if self.abandoned:
                child.kill()  # `close` was called before there was a batch to end
            answers = child.analyse([image.data for image in batch], self.limits.task_time_limit_seconds)
        except BatchFault as exc:
            if self.abandoned:
                self.queue.put_back(batch)
                return
            self.on_batch(Batch(waited, time.monotonic() - started, exc.cause))
            self.log.warning("batch_failed", reason=f"the engine {exc}")
            self._retry_alone(batch, str(exc))
            return
        finally:
            self.working = None
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
