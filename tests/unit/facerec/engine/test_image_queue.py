"""The queue in front of the engine children: batches, windows, shares and limits."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from io import BytesIO

import pytest
from PIL import Image

from facerec.engine.image_queue import ImageQueue, QueuedImage, megapixels
from facerec.errors import Transient
from facerec.settings.tiers import WorkerSettings

LONG = 1.0  # seconds of a clock that stands still
Batch = list[QueuedImage] | None


class Clock:
    """A clock that stands still until the test moves it."""

    now = 0.0

    def __call__(self) -> float:
        """The time in seconds."""
        return self.now


class Watched(bytes):
    """Bytes that signal when the queue reads their length, which it does with its lock held."""

    looked: threading.Semaphore

    def __len__(self) -> int:
        """Their length."""
        self.looked.release()
        return super().__len__()


@pytest.fixture
def others() -> Iterator[ThreadPoolExecutor]:
    """Other threads than the test's."""
    with ThreadPoolExecutor(max_workers=4) as pool:
        yield pool


@pytest.fixture
def clock() -> Clock:
    """The queue's clock."""
    return Clock()


def make(clock: Clock, *, batch: int = 8, window_seconds: float = 0, images: int = 100, size: int = 1000) -> ImageQueue:
    """A queue whose batches hold 8 megapixels."""
    limits = WorkerSettings(
        batch_max=batch,
        batch_max_megapixels=8,
        batch_window_ms=window_seconds * 1000,
        queue_max_images=images,
        queue_max_bytes=size,
    )
    return ImageQueue(limits, clock=clock)


def put(queue: ImageQueue, *sizes: float) -> list[QueuedImage]:
    """Put an image of each size at once."""
    images = [QueuedImage(b"x", size) for size in sizes]
    for image in images:
        queue.put(image)
    return images


def take(queue: ImageQueue) -> Batch:
    """Take in the test's thread."""
    return queue.take(unless=lambda: False)


def taking(queue: ImageQueue, others: ThreadPoolExecutor) -> "Future[Batch]":
    """A taker that already waits in another thread."""
    looked = threading.Event()

    def look() -> bool:
        looked.set()
        return False

    taken = others.submit(queue.take, look)
    looked.wait()
    return taken


def test_single_image_does_not_wait(clock: Clock) -> None:
    """No image came shortly before it."""
    queue = make(clock, window_seconds=1)
    for _ in range(3):
        images = put(queue, 1)
        assert take(queue) == images
        clock.now += 2


def test_sequential_client_does_not_wait(clock: Clock) -> None:
    """No other image waits, and no other taker is busy."""
    queue = make(clock, window_seconds=LONG)
    for _ in range(3):
        images = put(queue, 1)
        assert take(queue) == images


def test_streaming_images_wait_for_a_full_batch(clock: Clock, others: ThreadPoolExecutor) -> None:
    """Images that come close together go together."""
    queue = make(clock, batch=3, window_seconds=LONG)
    put(queue, 1)
    take(queue)
    first = put(queue, 1, 1)
    taken = taking(queue, others)
    last = put(queue, 1)
    assert taken.result() == first + last


def test_wait_ends_with_the_window(clock: Clock) -> None:
    """The window begins when the first image is queued."""
    queue = make(clock, window_seconds=1)
    put(queue, 1)
    take(queue)
    images = put(queue, 1, 1)
    clock.now += 1
    assert take(queue) == images


def test_streaming_image_waits_while_another_taker_is_busy(clock: Clock, others: ThreadPoolExecutor) -> None:
    """It goes as soon as that taker is free."""
    queue = make(clock, window_seconds=LONG)
    put(queue, 1)
    take(queue)
    images = put(queue, 1)
    taken = taking(queue, others)
    assert queue.take(unless=lambda: True) == []
    assert taken.result() == images


def test_large_image_does_not_wait(clock: Clock) -> None:
    """It fills a batch alone."""
    queue = make(clock, window_seconds=LONG)
    put(queue, 1)
    take(queue)
    images = put(queue, 9, 9)
    assert take(queue) == images[:1]
    assert take(queue) == images[1:]


def test_batch_is_limited_in_megapixels(clock: Clock) -> None:
    """The order is kept, and a larger image goes alone."""
    queue = make(clock)
    images = put(queue, 3, 5, 0.1, 50, 1, 7)
    assert [take(queue) for _ in range(4)] == [images[:2], images[2:3], images[3:4], images[4:]]


def test_waiting_takers_share_the_images(clock: Clock, others: ThreadPoolExecutor) -> None:
    """Two takers get two images and one, not three and none."""
    queue = make(clock)
    takers = [taking(queue, others), taking(queue, others)]
    with queue._changed:
        put(queue, 1, 1, 1)
    assert sorted(len(taker.result() or ()) for taker in takers) == [1, 2]


def test_busy_taker_gets_no_share(clock: Clock, others: ThreadPoolExecutor) -> None:
    """The waiting one takes all images."""
    queue = make(clock)
    put(queue, 1)
    others.submit(take, queue).result()
    images = put(queue, 1, 1, 1)
    assert take(queue) == images


@pytest.mark.parametrize(("images", "size"), [(2, 1000), (100, 20)])
def test_put_waits_while_the_queue_is_full(clock: Clock, others: ThreadPoolExecutor, images: int, size: int) -> None:
    """It continues as soon as images are taken."""
    queue = make(clock, images=images, size=size)
    first = [QueuedImage(b"x" * 10) for _ in range(2)]
    for image in first:
        queue.put(image)
    late, added = waiting_to_put(queue, others)
    assert take(queue) == first
    added.result()
    assert take(queue) == [late]


def test_image_larger_than_the_queue_passes_alone(clock: Clock) -> None:
    """It would wait for ever otherwise."""
    queue = make(clock, size=1)
    image = QueuedImage(b"x" * 10)
    queue.put(image)
    assert take(queue) == [image]


def test_close_fails_images_that_wait_for_room(clock: Clock, others: ThreadPoolExecutor) -> None:
    """They fail like the images in the queue."""
    queue = make(clock, images=1)
    [first] = put(queue, 1)
    late, added = waiting_to_put(queue, others)
    queue.close(Transient("over"))
    added.result()
    for image in (first, late):
        with pytest.raises(Transient, match="over"):
            image.answer.result()
    assert take(queue) is None


def test_put_back_images_come_first_and_alone(clock: Clock) -> None:
    """They wait neither for room nor for other images."""
    queue = make(clock, images=3)
    failed = put(queue, 1, 1)
    assert take(queue) == failed
    waiting = put(queue, 1, 1, 1)
    for image in failed:
        image.failures += 1
    queue.put_back(failed)
    assert [take(queue) for _ in range(3)] == [failed[:1], failed[1:], waiting]


def waiting_to_put(queue: ImageQueue, others: ThreadPoolExecutor) -> tuple[QueuedImage, "Future[None]"]:
    """An image whose caller waits for room."""
    data = Watched(b"x" * 10)
    data.looked = threading.Semaphore(0)
    image = QueuedImage(data)
    added = others.submit(queue.put, image)
    data.looked.acquire()
    return image, added


def picture(kind: str, width: int, height: int) -> bytes:
    """An encoded picture."""
    file = BytesIO()
    Image.new("RGB", (width, height)).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_megapixels_are_read_from_the_header(kind: str) -> None:
    """Width times height."""
    assert megapixels(picture(kind, 500, 200), most=50) == pytest.approx(0.1)


@pytest.mark.parametrize("data", [b"", b"no picture", picture("JPEG", 500, 200)[:30], picture("PNG", 2000, 1000)])
def test_refused_image_has_no_megapixels(data: bytes) -> None:
    """It will not be decoded."""
    assert megapixels(data, most=1) == 0
