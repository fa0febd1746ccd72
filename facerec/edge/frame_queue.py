"""The frames between a source and the detector."""

import threading
from collections import deque

import structlog

from facerec.edge.counters import Counters
from facerec.edge.frame import Frame

log = structlog.get_logger(__name__)

_ROOM_BYTES = 30_000_000
"""Of waiting pictures, above which there is no room: a component may have 512 MB, and most of it is the engine's."""


class FrameQueue:
    """A `FrameSink` of at most `max_frames`; safe for many threads.

    It counts what comes (`frames`) and what it drops (`dropped`). A burst of dropped frames is logged twice: at its
    first frame, and when the detector has caught up, with their number.
    """

    def __init__(self, max_frames: int, counters: Counters) -> None:
        self._max_frames = max_frames
        self._counters = counters
        self._frames: deque[Frame] = deque()
        self._changed = threading.Condition()
        self._dropped = 0
        """Since the detector last caught up."""
        self._closed = False

    def put(self, frame: Frame) -> None:
        """Take a frame at once; when too many wait, the oldest that may be dropped is settled and counted.

        None is dropped that its sender relies on, so there may be more of those: their source or the broker limits
        them. A closed queue takes none: the frame is not settled, so its source may bring it again after a restart.
        """
        oldest = None
        with self._changed:
            if self._closed:
                return
            self._frames.append(frame)
            if len(self._frames) > self._max_frames:
                oldest = next((each for each in self._frames if each.droppable), None)
            if oldest is not None:
                self._frames.remove(oldest)
                self._dropped += 1
                if self._dropped == 1:
                    log.warning("frames_dropped", reason="frames come faster than the detector takes them")
            self._changed.notify_all()
        self._counters.add("frames")
        if oldest is not None:
            self._counters.add("dropped")
            oldest.settled()

    def get(self, timeout_seconds: float) -> Frame | None:
        """Wait for the oldest frame; `None` if none comes in time, and after `close`."""
        with self._changed:
            self._changed.wait_for(lambda: self._frames or self._closed, timeout_seconds)
            if self._closed or not self._frames:
                return None
            frame = self._frames.popleft()
            if self._dropped and not self._frames:
                log.info("frames_no_longer_dropped", frames=self._dropped)
                self._dropped = 0
            self._changed.notify_all()
            return frame

    def wait_for_room(self, timeout_seconds: float) -> bool:
        """Wait until a frame can be taken without dropping another; returns whether it can, which ends with `close`."""
        with self._changed:
            self._changed.wait_for(lambda: self._has_room() or self._closed, timeout_seconds)
            return self._has_room() and not self._closed

    def _has_room(self) -> bool:
        return len(self._frames) < self._max_frames and sum(len(each.image) for each in self._frames) < _ROOM_BYTES

    def close(self) -> None:
        """End every wait. Frames that still wait are not settled: those of a folder or with QoS 1 come again."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
