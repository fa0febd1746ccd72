"""The images that wait for an engine child, and how they form batches."""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from facerec.settings.tiers import WorkerSettings
from model.header import MEGAPIXEL, InvalidImage, read_header


def megapixels(image: bytes, most: float) -> float:
    """Return a picture's megapixels; 0 if it will be refused: it has more than `most`, or is no picture."""
    try:
        header = read_header(image, most)
    except InvalidImage:
        return 0.0
    return header.width * header.height / MEGAPIXEL


@dataclass(eq=False, slots=True)
class QueuedImage:
    """An image, its caller's future, and how many of its batches failed."""

    data: bytes
    megapixels: float = 0.0
    request_id: str | None = None
    """For the log."""
    answer: Future[Any] = field(default_factory=Future)
    failures: int = 0
    queued_at: float = 0.0
    """In seconds of the queue's clock."""
    streamed: bool = False
    """Whether it came so soon after the image before it that another one is likely to follow."""


class ImageQueue:
    """First in, first out; images of a failed batch come first and alone. Safe for many threads.

    `put` waits while the queue is full. `take` returns at once with the images there are, unless images are streaming
    in. An image that came within `batch_window_ms` of the one before it waits up to that time for others, if another
    image waits or another taker is busy. A single client with an idle engine never waits. One image passes every limit.
    """

    def __init__(self, limits: WorkerSettings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._window_seconds = limits.batch_window_ms / 1000
        self._clock = clock
        self._images: deque[QueuedImage] = deque()
        self._bytes = 0
        self._waiting_takers = 0
        self._busy_takers: set[int] = set()
        self._last_put_at = float("-inf")
        self._changed = threading.Condition()
        self._closed: Exception | None = None

    @property
    def waiting(self) -> int:
        """How many images wait for a taker."""
        return len(self._images)

    def put(self, image: QueuedImage) -> None:
        """Add an image when there is room; once the queue is closed, the image fails."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed is not None or self._has_room(image))
            if self._closed is None:
                image.queued_at = self._clock()
                image.streamed = image.queued_at - self._last_put_at <= self._window_seconds
                self._last_put_at = image.queued_at
                self._images.append(image)
                self._bytes += len(image.data)
                # Notify all: the child of a single notified taker may have ended.
                self._changed.notify_all()
                return
        image.answer.set_exception(self._closed)

    def put_back(self, images: list[QueuedImage]) -> None:
        """Return taken images to the front; they wait neither for room nor for other images."""
        with self._changed:
            if self._closed is None:
                for image in images:
                    image.streamed = False
                self._images.extendleft(reversed(images))
                self._bytes += sum(len(image.data) for image in images)
                self._changed.notify_all()
                return
        for image in images:
            image.answer.set_exception(self._closed)

    def take(self, unless: Callable[[], bool]) -> list[QueuedImage] | None:
        """Wait for the next batch and return it; `None` once the queue is closed, an empty list if `unless` is true.

        `wake` makes it check `unless` again. Takers that wait at the same time share the images. Each taker is a
        thread, and it is busy from one `take` to its next.
        """
        with self._changed:
            self._waiting_takers += 1
            self._busy_takers.discard(threading.get_ident())
            self._changed.notify_all()  # another taker may wait only because this one was busy
            try:
                while True:
                    self._changed.wait_for(lambda: self._images or self._closed is not None or unless())
                    if self._closed is not None:
                        return None
                    if unless():
                        return []
                    remaining = self._window_ends_at() - self._clock()
                    if remaining <= 0:
                        return self._batch()
                    self._changed.wait(remaining)
            finally:
                self._waiting_takers -= 1

    def wake(self) -> None:
        """Make every `take` check its `unless` again."""
        with self._changed:
            self._changed.notify_all()

    def close(self, reason: Exception) -> None:
        """Fail the queued images, and all later ones, with the reason; only the first call counts."""
        with self._changed:
            if self._closed is not None:
                return
            self._closed = reason
            waiting, self._images = self._images, deque()
            self._bytes = 0
            self._changed.notify_all()
        for image in waiting:
            image.answer.set_exception(reason)

    def wait_closed(self, seconds: float) -> bool:
        """Wait up to this time for the queue to close; returns whether it has."""
        with self._changed:
            return self._changed.wait_for(lambda: self._closed is not None, seconds)

    def _has_room(self, image: QueuedImage) -> bool:
        limits = self._limits
        return not self._images or (
            self._bytes + len(image.data) <= limits.queue_max_bytes and len(self._images) < limits.queue_max_images
        )

    def _window_ends_at(self) -> float:
        """Until when the first image waits for others; in the past if it does not wait."""
        first, limits = self._images[0], self._limits
        joinable = len(self._images) < limits.batch_max and first.megapixels < limits.batch_max_megapixels
        if first.streamed and joinable and (len(self._images) > 1 or self._busy_takers):
            return first.queued_at + self._window_seconds
        return float("-inf")

    def _batch(self) -> list[QueuedImage]:
        # Equal shares for the waiting takers: two cores with half a batch each are faster than one with all of it.
        share = min(self._limits.batch_max, -(-len(self._images) // self._waiting_takers))
        batch = [self._images.popleft()]
        total = batch[0].megapixels
        while self._images and len(batch) < share and not batch[0].failures and not self._images[0].failures:
            total += self._images[0].megapixels
            if total > self._limits.batch_max_megapixels:
                break
            batch.append(self._images.popleft())
        self._bytes -= sum(len(image.data) for image in batch)
        self._busy_takers.add(threading.get_ident())
        self._changed.notify_all()  # there is room
        return batch
