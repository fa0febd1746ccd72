"""The queue in front of the engine's children: batches, windows, shares and bounds."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from facerec.engine.image_queue import ImageQueue, QueuedImage, QueueLimits
from facerec.errors import Transient

FOR_EVER = 100_000.0
Batch = list[QueuedImage] | None


class Clock:
    """A clock that stands still until the test moves it."""

    now = 0.0

    def __call__(self) -> float:
        """The time in seconds."""
        return self.now


class Watched(bytes):
    """Bytes that tell when the queue has looked at their length, which it does holding its lock."""

    looked: threading.Semaphore

    def __len__(self) -> int:
        """Their length."""
        self.looked.release()
        return super().__len__()


@pytest.fixture
def others() -> Iterator[ThreadPoolExecutor]:
    """Threads beside the test's own."""
    with ThreadPoolExecutor(max_workers=4) as pool:
        yield pool


@pytest.fixture
def clock() -> Clock:
    """The queue's clock."""
    return Clock()


def make(clock: Clock, *, batch: int = 8, window_seconds: float = 0, images: int = 100, size: int = 1000) -> ImageQueue:
    """A queue whose batches hold 8 megapixels."""
    return ImageQueue(QueueLimits(batch, 8.0, window_seconds, images, size), clock=clock)


def put(queue: ImageQueue, *megapixels: float) -> list[QueuedImage]:
    """Put an image of each size at once."""
    images = [QueuedImage(b"x", size) for size in megapixels]
    for image in images:
        queue.put(image)
    return images


def take(queue: ImageQueue) -> Batch:
    """Take in the test's own thread."""
    return queue.take(unless=lambda: False)


def taking(queue: ImageQueue, others: ThreadPoolExecutor) -> "Future[Batch]":
    """A taker in a thread of its own, which waits already."""
    looked = threading.Event()

    def look() -> bool:
        looked.set()
        return False

    taken = others.submit(queue.take, look)
    looked.wait()
    return taken


def test_a_single_image_never_waits(clock: Clock) -> None:
    """Nothing came shortly before it, so nobody waits for another one, however long the window."""
    queue = make(clock, window_seconds=10)
    for _ in range(3):
        images = put(queue, 1)
        assert take(queue) == images
        clock.now += 11


def test_a_client_who_waits_for_each_answer_never_waits_for_others(clock: Clock) -> None:
    """One image after the other without a pause is no stream: nobody else is there to join."""
    queue = make(clock, window_seconds=FOR_EVER)
    for _ in range(3):
        images = put(queue, 1)
        assert take(queue) == images


def test_streaming_images_wait_until_the_batch_is_full(clock: Clock, others: ThreadPoolExecutor) -> None:
    """Images that come one close upon the other go together."""
    queue = make(clock, batch=3, window_seconds=FOR_EVER)
    put(queue, 1)
    take(queue)
    first = put(queue, 1, 1)
    taken = taking(queue, others)
    last = put(queue, 1)
    assert taken.result() == first + last


def test_nobody_waits_longer_than_the_window(clock: Clock) -> None:
    """It counts from the coming of the first image, so what has waited for a busy engine goes at once."""
    queue = make(clock, window_seconds=10)
    put(queue, 1)
    take(queue)
    images = put(queue, 1, 1)
    clock.now += 10
    assert take(queue) == images


def test_an_image_waits_while_another_engine_is_at_work(clock: Clock, others: ThreadPoolExecutor) -> None:
    """Others may come while it computes; when it is free there is no more reason to wait."""
    queue = make(clock, window_seconds=FOR_EVER)
    put(queue, 1)
    take(queue)
    images = put(queue, 1)
    taken = taking(queue, others)
    assert queue.take(unless=lambda: True) == []
    assert taken.result() == images


def test_large_pictures_wait_for_nobody(clock: Clock) -> None:
    """One that fills a batch by itself has nothing to gain."""
    queue = make(clock, window_seconds=FOR_EVER)
    put(queue, 1)
    take(queue)
    images = put(queue, 9, 9)
    assert take(queue) == images[:1]
    assert take(queue) == images[1:]


def test_a_batch_is_bounded_in_megapixels(clock: Clock) -> None:
    """What does not fit starts the next batch; nothing overtakes, and a giant goes alone."""
    queue = make(clock)
    images = put(queue, 3, 5, 0.1, 50, 1, 7)
    assert [take(queue) for _ in range(4)] == [images[:2], images[2:3], images[3:4], images[4:]]


def test_idle_engines_share_what_is_there(clock: Clock, others: ThreadPoolExecutor) -> None:
    """Three images are two and one for two engines, not three and none."""
    queue = make(clock)
    takers = [taking(queue, others), taking(queue, others)]
    with queue._changed:
        put(queue, 1, 1, 1)
    assert sorted(len(taker.result() or ()) for taker in takers) == [1, 2]


def test_a_busy_engine_gets_no_share(clock: Clock, others: ThreadPoolExecutor) -> None:
    """The idle one takes everything while the other is at work."""
    queue = make(clock)
    put(queue, 1)
    others.submit(take, queue).result()
    images = put(queue, 1, 1, 1)
    assert take(queue) == images


@pytest.mark.parametrize(("images", "size"), [(2, 1000), (100, 20)])
def test_whoever_puts_waits_while_the_queue_is_full(
    clock: Clock, others: ThreadPoolExecutor, images: int, size: int
) -> None:
    """Bounded in images and in bytes; there is room as soon as something is taken."""
    queue = make(clock, images=images, size=size)
    first = [QueuedImage(b"x" * 10) for _ in range(2)]
    for image in first:
        queue.put(image)
    late, added = waiting_to_put(queue, others)
    assert take(queue) == first
    added.result()
    assert take(queue) == [late]


def test_an_image_larger_than_the_bound_passes_alone(clock: Clock) -> None:
    """Or it would never be looked at."""
    queue = make(clock, size=1)
    image = QueuedImage(b"x" * 10)
    queue.put(image)
    assert take(queue) == [image]


def test_close_reaches_whoever_waits_for_room(clock: Clock, others: ThreadPoolExecutor) -> None:
    """The images in the queue and those on their way into it fail alike."""
    queue = make(clock, images=1)
    [first] = put(queue, 1)
    late, added = waiting_to_put(queue, others)
    queue.close(Transient("over"))
    added.result()
    for image in (first, late):
        with pytest.raises(Transient, match="over"):
            image.answer.result()
    assert take(queue) is None


def test_images_that_are_put_back_come_first_and_wait_for_nothing(clock: Clock) -> None:
    """Neither for room nor for others; suspects go alone."""
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
