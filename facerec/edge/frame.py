"""A frame, and what brings frames, as protocols."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture to look at."""

    request_id: UUID
    filename: str
    image: bytes
    """A file: JPEG, PNG or WebP."""
    captured_at: datetime
    requested: bool = True
    """Whether there must be an answer for it; for a camera's frame there need not be one."""
    droppable: bool = True
    """Whether it is among the first to be dropped; not so for a message with QoS 1, which its sender relies on."""
    settled: Callable[[], None] = lambda: None
    """Called once, from any thread, when the frame need not come again: its message is spooled, or it was dropped."""


class FrameSink(Protocol):
    """Takes frames from a source; safe for many threads."""

    def put(self, frame: Frame) -> None:
        """Take a frame at once; when too many wait, the oldest is dropped, settled and counted."""

    def wait_for_room(self, timeout_seconds: float) -> bool:
        """Wait until a frame can be taken without dropping another; returns whether it can."""


class FrameSource(Protocol):
    """Brings frames until it is stopped."""

    def run(self, sink: FrameSink, stopping: threading.Event) -> None:
        """Bring frames; returns soon after the event is set. Faults of the source are logged and retried."""
