"""`FaceEngine` and its halves over supervised children: one per core, replaced when it crashes or is too slow.

It does not use the supervisor of `facerec.processes`: these children answer over a pipe, with a deadline per batch.
"""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import structlog

from facerec.engine.child import DETECTOR, EMBEDDER, REAL_ANALYSER, EngineSpec, PickledFaces
from facerec.engine.feeder import Batch, Feeder
from facerec.engine.image_queue import ImageQueue, QueuedImage, megapixels
from facerec.engine.loading import available_cores
from facerec.errors import ConfigurationError, Transient
from facerec.settings import Settings

if TYPE_CHECKING:
    from model.faces import ImageAnalysis, JpegFaces, PackedFaces, PictureFaces

log = structlog.get_logger(__name__)

_FACE_MEGAPIXELS = 0.25
"""As which a face counts in the embedder's batches: else those of some group photos would exceed the time limit."""


class EngineSupervisor:
    """Children of one factory: a free child takes the queued images, and waits shortly for more while images stream in.

    `image_queue` forms the batches. A batch has `worker.task_time_limit_seconds`, whatever its size: an image that
    hangs must not delay its neighbours for longer. When a batch fails (the child crashed, exceeded the deadline or
    raised), each of its images is tried again alone. An image that fails alone is the culprit: `EngineFailure`.

    `start` first, `close` at the end; `answer` from any thread in between. `on_batch` and `on_replaced` are called by
    the threads that feed the children, after each batch and each replacement; they must be quick and must not raise.
    """

    FACTORY: ClassVar[str]
    """The `EngineSpec.factory` of the children."""

    def __init__(
        self,
        settings: Settings,
        artefact_dir: Path,
        *,
        factory: str | None = None,
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
            factory=factory or self.FACTORY,
        )
        limits = settings.worker
        self._max_megapixels = settings.max_megapixels
        self._queue = ImageQueue(limits)
        self._feeders = [
            Feeder(index, spec, limits, self._queue, on_batch, on_replaced)
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

    @property
    def ended(self) -> bool:
        """Whether it was closed, or a child could not be replaced: every answer is an error then."""
        return self._queue.wait_closed(0)

    def answer(self, image: bytes, size: float = 0.0) -> Any:
        """Return a child's answer for an input of so many megapixels; its `timings_ms` also has the `wait` for a child.

        Waits while `worker.queue_max_images` or `worker.queue_max_bytes` are queued. Raises `InvalidImage`,
        `EngineFailure` for a culprit, `Transient` after `close`, and `ConfigurationError` once a child could not be
        replaced: the process should end then.
        """
        request_id = structlog.contextvars.get_contextvars().get("request_id")
        queued = QueuedImage(image, size, request_id)
        self._queue.put(queued)
        return queued.answer.result()

    def answer_picture(self, image: bytes) -> Any:
        """Return the answer for a picture, whose size is read from its header."""
        return self.answer(image, megapixels(image, self._max_megapixels))

    def answer_faces(self, faces: "PictureFaces | JpegFaces") -> "ImageAnalysis":
        """Return the answer for faces."""
        analysis: ImageAnalysis = self.answer(PickledFaces(pickle.dumps(faces)), len(faces.faces) * _FACE_MEGAPIXELS)
        return analysis

    def close(self, *, finish: bool = True) -> None:
        """Fail queued images with `Transient`, finish the running batches, which have a deadline, end the children.

        Without `finish` a child that is at work is killed, and the images of its batch fail with `Transient`, too.
        """
        self._queue.close(Transient("the engine is shutting down; the task is delivered again"))
        for feeder in self._feeders:
            feeder.close(finish=finish)


class SupervisedEngine(EngineSupervisor):
    """`FaceEngine` and `FaceEmbedder`: each child answers pictures and faces, also in one batch."""

    FACTORY = REAL_ANALYSER

    def analyse(self, image: bytes) -> "ImageAnalysis":
        """Decode, detect and embed; raises as `answer`."""
        analysis: ImageAnalysis = self.answer_picture(image)
        return analysis

    def embed(self, faces: "PictureFaces | JpegFaces") -> "ImageAnalysis":
        """Embed; raises as `answer`."""
        return self.answer_faces(faces)


class SupervisedDetector(EngineSupervisor):
    """`FaceDetector`."""

    FACTORY = DETECTOR

    def detect(self, image: bytes) -> "PackedFaces":
        """Decode, detect, crop and pack; raises as `answer`."""
        faces: PackedFaces = self.answer_picture(image)
        return faces


class SupervisedEmbedder(EngineSupervisor):
    """`FaceEmbedder`."""

    FACTORY = EMBEDDER

    def embed(self, faces: "PictureFaces | JpegFaces") -> "ImageAnalysis":
        """Embed; raises as `answer`."""
        return self.answer_faces(faces)
