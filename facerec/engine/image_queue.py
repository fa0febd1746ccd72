"""The images that wait for an engine, and how they are put together to batches."""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from model.faces import ImageAnalysis


@dataclass(eq=False, slots=True)
class QueuedImage:
    """An image, the caller who waits for its answer, and how many batches with it in them failed."""

    data: bytes
    answer: "Future[ImageAnalysis]" = field(default_factory=Future)
    failures: int = 0

    @property
    def suspect(self) -> bool:
        """Whether it may be what made a batch fail; it goes alone then, so that it takes no neighbour with it."""
        return self.failures > 0


class ImageQueue:
    """First in, first out; suspects come first and alone. Safe for many threads."""

    def __init__(self) -> None:
        self._images: deque[QueuedImage] = deque()
        self._changed = threading.Condition()
        self._closed: Exception | None = None

    def put(self, image: QueuedImage) -> None:
        """Add an image; it fails at once when the queue is closed."""
        with self._changed:
            if self._closed is None:
                self._images.append(image)
                # All, because the one that is woken may turn out to have lost its child.
                self._changed.notify_all()
                return
        image.answer.set_exception(self._closed)

    def put_back(self, images: list[QueuedImage]) -> None:
        """Return images that were taken, to the front."""
        with self._changed:
            if self._closed is None:
                self._images.extendleft(reversed(images))
                self._changed.notify_all()
                return
        for image in images:
            image.answer.set_exception(self._closed)

    def take(self, limit: int, unless: Callable[[], bool]) -> list[QueuedImage] | None:
        """The next batch of up to `limit` images, as soon as there is one; nothing once the queue is closed.

        An empty batch means that `unless` came true; it is looked at again after each `wake`.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._images or self._closed is not None or unless())
            if self._closed is not None:
                return None
            if unless():
                return []
            batch = [self._images.popleft()]
            if not batch[0].suspect:
                while self._images and not self._images[0].suspect and len(batch) < limit:
                    batch.append(self._images.popleft())
            return batch

    def wake(self) -> None:
        """Make every `take` look at its `unless` again."""
        with self._changed:
            self._changed.notify_all()

    def close(self, reason: Exception) -> None:
        """Fail what waits and whatever comes later with the reason; only the first call counts."""
        with self._changed:
            if self._closed is not None:
                return
            self._closed = reason
            waiting, self._images = self._images, deque()
            self._changed.notify_all()
        for image in waiting:
            image.answer.set_exception(reason)

    def wait_closed(self, seconds: float) -> bool:
        """Wait up to a time for the queue to close; returns whether it has."""
        with self._changed:
            return self._changed.wait_for(lambda: self._closed is not None, seconds)
