"""What the component counts from its start on, for the status message."""

import threading
from collections import Counter
from typing import Literal, get_args

CounterName = Literal[
    "frames",  # that came from the source
    "dropped",  # frames that gave way to newer ones, because the detector was busy
    "rate_limited",  # frames of the camera beyond `max_frames_per_second`
    "malformed",  # messages and files that are no frames
    "no_face",  # frames in which no face was found
    "suppressed",  # frames with faces, all of which were sent before
    "faces",  # that are in messages
    "messages",  # that AWS IoT acknowledged
    "bytes",  # of these messages
    "spool_dropped",  # messages that gave way to newer ones, because the spool was full
    "refused",  # messages that cannot be sent, such as one that is too large
    "failed",  # frames that could not be processed
]
"""The names, in the order in which they are shown."""


class Counters:
    """Counts by name, from 0 on; safe for many threads."""

    def __init__(self) -> None:
        self._counts: Counter[CounterName] = Counter()
        self._lock = threading.Lock()

    def add(self, name: CounterName, count: int = 1) -> None:
        """Add to a count."""
        with self._lock:
            self._counts[name] += count

    def read(self) -> dict[CounterName, int]:
        """Return all counts of one moment."""
        with self._lock:
            return {name: self._counts[name] for name in get_args(CounterName)}
