"""The queue between a source of frames and the detector."""

import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime

from facerec.edge.counters import Counters
from facerec.edge.frame import Frame
from facerec.edge.frame_queue import FrameQueue
from tests.support.logs import capture_logs


def frame(name: str, settled: list[str] | None = None, *, droppable: bool = True) -> Frame:
    """A frame that notes its name in `settled` once it is settled."""
    note: Callable[[], None] = (lambda: None) if settled is None else (lambda: settled.append(name))
    return Frame(uuid.uuid4(), name, b"", datetime.now(UTC), droppable=droppable, settled=note)


def names(queue: FrameQueue) -> list[str]:
    """The frames that wait, taken out."""
    taken = []
    while found := queue.get(0):
        taken.append(found.filename)
    return taken


def test_full_queue_drops_settles_and_counts_the_oldest_frame() -> None:
    """The newest picture is worth more than one of seconds ago."""
    counters, settled = Counters(), list[str]()
    queue = FrameQueue(2, counters)
    for name in "abcd":
        queue.put(frame(name, settled))
    assert settled == ["a", "b"]
    assert names(queue) == ["c", "d"]
    counts = counters.read()
    assert (counts["frames"], counts["dropped"]) == (4, 2)


def test_frames_that_their_sender_relies_on_are_not_dropped() -> None:
    """A burst with QoS 0 drops none with QoS 1: it rather drops the frame that comes. The broker limits the others."""
    settled: list[str] = []
    queue = FrameQueue(2, Counters())
    for name in "aBcD":
        queue.put(frame(name, settled, droppable=name.islower()))
    queue.put(frame("e", settled))
    assert settled == ["a", "c", "e"]
    queue.put(frame("F", settled, droppable=False))
    assert settled == ["a", "c", "e"]
    assert names(queue) == ["B", "D", "F"]


def test_burst_of_dropped_frames_is_logged_at_its_start_and_at_its_end() -> None:
    """Not once for each frame; the next burst is logged again."""
    queue = FrameQueue(1, Counters())
    with capture_logs() as logs:
        for burst in ("abc", "de"):
            for name in burst:
                queue.put(frame(name))
            names(queue)
    events = [(entry["event"], entry.get("frames")) for entry in logs]
    assert events == [
        ("frames_dropped", None),
        ("frames_no_longer_dropped", 2),
        ("frames_dropped", None),
        ("frames_no_longer_dropped", 1),
    ]


def test_settled_may_use_the_queue() -> None:
    """It is called without the queue's lock: it may do I/O, or bring the next frame."""
    queue = FrameQueue(1, Counters())
    queue.put(Frame(uuid.uuid4(), "a", b"", datetime.now(UTC), settled=lambda: assert_room(queue, room=False)))
    queue.put(frame("b"))
    assert names(queue) == ["b"]


def assert_room(queue: FrameQueue, *, room: bool) -> None:
    """Another thread sees whether there is room."""
    seen: list[bool] = []
    thread = threading.Thread(target=lambda: seen.append(queue.wait_for_room(0)))
    thread.start()
    thread.join(30)
    assert seen == [room]


def test_source_that_waits_for_room_gets_it_when_a_frame_is_taken() -> None:
    """A folder's pictures are never dropped."""
    queue = FrameQueue(1, Counters())
    assert queue.wait_for_room(0)
    queue.put(frame("a"))
    assert not queue.wait_for_room(0)
    room: list[bool] = []
    waiting = threading.Thread(target=lambda: room.append(queue.wait_for_room(30)))
    waiting.start()
    assert queue.get(0) is not None
    waiting.join(30)
    assert room == [True]


def test_large_pictures_leave_no_room_for_others() -> None:
    """The device's memory is small: 30 MB of pictures may wait, whatever their number."""
    queue = FrameQueue(32, Counters())
    for _ in range(3):
        assert queue.wait_for_room(0)
        queue.put(Frame(uuid.uuid4(), "large.jpg", bytes(12_000_000), datetime.now(UTC)))
    assert not queue.wait_for_room(0)
    queue.get(0)
    assert queue.wait_for_room(0)


def test_get_waits_for_a_frame() -> None:
    """And gives up after the timeout."""
    queue = FrameQueue(1, Counters())
    assert queue.get(0) is None
    got: list[Frame | None] = []
    waiting = threading.Thread(target=lambda: got.append(queue.get(30)))
    waiting.start()
    queue.put(frame("a"))
    waiting.join(30)
    assert [each and each.filename for each in got] == ["a"]


def test_closing_wakes_everybody_and_settles_nothing() -> None:
    """What waits comes again after a restart, if its source can bring it again."""
    settled: list[str] = []
    empty, full = FrameQueue(1, Counters()), FrameQueue(1, Counters())
    full.put(frame("a", settled))
    ends: list[object] = []
    threads = [
        threading.Thread(target=lambda: ends.append(empty.get(30))),
        threading.Thread(target=lambda: ends.append(full.wait_for_room(30))),
    ]
    for thread in threads:
        thread.start()
    empty.close()
    full.close()
    for thread in threads:
        thread.join(10)
    full.put(frame("b", settled))
    assert (set(ends), full.get(0), settled) == ({None, False}, None, [])
