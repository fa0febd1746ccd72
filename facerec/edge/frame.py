"""A frame, and what brings frames, as protocols."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from facerec.text import megabytes
from model.header import InvalidImage, read_header


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
    """Whether it may give way to newer ones; not so a file, or a message with QoS 1, which its sender relies on."""
    settled: Callable[[], None] = lambda: None
    """Called once, from any thread, when the frame need not come again: its message is spooled, or it was dropped."""
    rejected: Callable[[str], None] | None = None
    """Called instead, with the reason, if it gets no message because of what it holds; `None`: `settled` is called."""


@dataclass(frozen=True, slots=True)
class FrameLimits:
    """What a picture must be to become a frame; by its header alone, because the engine child decodes it."""

    max_bytes: int = 15_000_000
    max_megapixels: float = 50.0

    def check(self, image: bytes) -> None:
        """Raise `InvalidImage` for what is too large, empty or no picture."""
        if len(image) > self.max_bytes:
            raise InvalidImage(f"the picture is too large: at most {megabytes(self.max_bytes)} are taken")
        read_header(image, self.max_megapixels)


class FrameSink(Protocol):
    """Takes frames from a source; safe for many threads."""

    def put(self, frame: Frame) -> None:
        """Take a frame at once; when too many wait, the oldest that may be dropped is settled and counted."""

    def wait_for_room(self, timeout_seconds: float) -> bool:
        """Wait until a frame can be taken without dropping another; returns whether it can."""


class FrameSource(Protocol):
    """Brings frames until it is stopped."""

    @property
    def problem(self) -> str | None:
        """Why no frames come, in one sentence for the status message; `None` if nothing is wrong."""

    def run(self, sink: FrameSink, stopping: threading.Event) -> None:
        """Bring frames; returns soon after the event is set, or when there will be no more, as at a video's end.

        Faults of the source are logged and retried.
        """
