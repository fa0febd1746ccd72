"""The images that wait for an engine, and how they are put together to batches."""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from model.header import MEGAPIXEL, InvalidImage, read_header


def megapixels(image: bytes, unknown: float, most: float) -> float:
    """The megapixels of a picture; 0 for one of more than `most` and for what is none: it is refused, not decoded.

    Only the headers of JPEG and PNG are read, which Pillow does in Python. Those of WebP and HEIF are parsed by native
    code, which is for the engine's children alone (docs/adr/0002-engine-child.md): they count as `unknown`.
    """
    if image[8:12] == b"WEBP" or image[4:8] == b"ftyp":
        return unknown
    try:
        header = read_header(image, most)
    except InvalidImage:
        return 0.0
    return header.width * header.height / MEGAPIXEL


if TYPE_CHECKING:
    from model.faces import ImageAnalysis


@dataclass(eq=False, slots=True)
class QueuedImage:
    """An image, the caller who waits for its answer, and how many batches with it in them failed."""

    data: bytes
    megapixels: float = 0.0
    """What it will have when it is decoded, as far as its header tells."""
    answer: "Future[ImageAnalysis]" = field(default_factory=Future)
    failures: int = 0
    came_at: float = 0.0
    """When it was queued, in seconds of the queue's clock."""
    request_id: str | None = None
    """Whose image it is, for the log."""
    streamed: bool = False
    """Whether the image before it came so shortly before that another one is likely to follow."""

    @property
    def suspect(self) -> bool:
        """Whether it may be what made a batch fail; it goes alone then, so that it takes no neighbour with it."""
        return self.failures > 0


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """How large a batch may be, how long it may wait for its next image, and how much may be queued.

    One image always passes, however large it is.
    """

    batch_images: int
    batch_megapixels: float
    window_seconds: float
    queued_images: int
    queued_bytes: int


class ImageQueue:
    """First in, first out; suspects come first and alone. Safe for many threads.

    Whoever puts an image waits while the queue is full. Whoever takes gets what is there at once, unless images are
    streaming in: one that came within `window_seconds` after the one before it waits so long for others to join it, if
    there is another one already or another taker is at work. So a single client on an idle engine never waits.
    """

    def __init__(self, limits: QueueLimits, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._images: deque[QueuedImage] = deque()
        self._bytes = 0
        self._takers = 0
        self._at_work: set[int] = set()
        self._last_came_at = float("-inf")
        self._changed = threading.Condition()
        self._closed: Exception | None = None

    @property
    def waiting(self) -> int:
        """How many images no taker has taken yet."""
        return len(self._images)

    def put(self, image: QueuedImage) -> None:
        """Add an image, as soon as there is room; it fails at once when the queue is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed is not None or self._has_room(image))
            if self._closed is None:
                image.came_at = self._clock()
                image.streamed = image.came_at - self._last_came_at <= self._limits.window_seconds
                self._last_came_at = image.came_at
                self._images.append(image)
                self._bytes += len(image.data)
                # All, because the one that is woken may turn out to have lost its child.
                self._changed.notify_all()
                return
        image.answer.set_exception(self._closed)

    def put_back(self, images: list[QueuedImage]) -> None:
        """Return images that were taken, to the front; they do not wait for room, nor for others."""
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
        """The next batch, as soon as there is one; nothing once the queue is closed.

        An empty batch means that `unless` came true; it is looked at again after each `wake`. Takers that wait at the
        same time share what is there. Each taker is a thread, which is at work from one `take` to its next.
        """
        with self._changed:
            self._takers += 1
            self._at_work.discard(threading.get_ident())
            self._changed.notify_all()  # another one may have waited only because this one was at work
            try:
                while True:
                    self._changed.wait_for(lambda: self._images or self._closed is not None or unless())
                    if self._closed is not None:
                        return None
                    if unless():
                        return []
                    remaining = self._window_ends_at() - self._clock()
                    if remaining <= 0:
                        return self._popped()
                    self._changed.wait(remaining)
            finally:
                self._takers -= 1

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
            self._bytes = 0
            self._changed.notify_all()
        for image in waiting:
            image.answer.set_exception(reason)

    def wait_closed(self, seconds: float) -> bool:
        """Wait up to a time for the queue to close; returns whether it has."""
        with self._changed:
            return self._changed.wait_for(lambda: self._closed is not None, seconds)

    def _has_room(self, image: QueuedImage) -> bool:
        if not self._images:
            return True
        limits = self._limits
        return self._bytes + len(image.data) <= limits.queued_bytes and len(self._images) < limits.queued_images

    def _window_ends_at(self) -> float:
        """Until when the first image waits for others; a time that is over where it need not."""
        first, limits = self._images[0], self._limits
        joinable = len(self._images) < limits.batch_images and first.megapixels < limits.batch_megapixels
        if first.streamed and joinable and (len(self._images) > 1 or self._at_work):
            return first.came_at + limits.window_seconds
        return float("-inf")

    def _popped(self) -> list[QueuedImage]:
        # Takers that wait get equal shares: cores that compute at the same time beat one with a larger batch.
        share = min(self._limits.batch_images, -(-len(self._images) // self._takers))
        batch = [self._images.popleft()]
        megapixels = batch[0].megapixels
        while self._images and len(batch) < share and not batch[0].suspect and not self._images[0].suspect:
            megapixels += self._images[0].megapixels
            if megapixels > self._limits.batch_megapixels:
                break
            batch.append(self._images.popleft())
        self._bytes -= sum(len(image.data) for image in batch)
        self._at_work.add(threading.get_ident())
        self._changed.notify_all()  # there is room
        return batch
