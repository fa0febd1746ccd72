"""The pictures in a folder as frames."""

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple
from uuid import NAMESPACE_URL, UUID, uuid5

import structlog

from facerec.background import OutageLog
from facerec.edge.counters import Counters
from facerec.edge.frame import Frame, FrameLimits, FrameSink
from facerec.object_keys import base_name
from model.header import InvalidImage

log = structlog.get_logger(__name__)

REJECTED = "rejected"
"""The folder, within the source's own, of the files that are no frames."""
_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


class _Content(NamedTuple):
    """What tells whether a file still is the one that was seen; ascending in the order of the frames."""

    modified_ns: int
    size: int
    inode: int


class FolderSource:
    """A `FrameSource` of the pictures that are in a folder or appear in it: JPEG, PNG and WebP, the oldest first.

    It looks into the folder every `poll_seconds`, and takes a file that has not changed between two looks. A writer
    that may pause longer gives the file a hidden name (`.photo.jpg`) or writes it elsewhere on the same file system,
    and moves it (`mv`) once it is whole. Files with other names, empty ones
    and links that lead nowhere are left alone, and named once.

    A file waits for room, so none is dropped. It is removed when its frame is settled. Until then it comes again
    after a restart, with the same request id, so its duplicate is harmless: the id is made of thing, name, size and
    the time of the inode's last change, which differs even if a copy of a picture keeps its time of modification.

    What is too large or no picture is counted (`malformed`), logged, and moved to `rejected/` in the folder; so is a
    picture that gets no answer because it is damaged. There it replaces an earlier file of its name.
    """

    def __init__(
        self,
        folder: Path,
        thing: str,
        counters: Counters,
        limits: FrameLimits,
        *,
        poll_seconds: float = 1.0,
    ) -> None:
        self._folder = folder
        self._thing = thing
        self._counters = counters
        self._limits = limits
        self._poll_seconds = poll_seconds
        self._seen: dict[str, _Content] = {}
        """The pictures of the last look."""
        self._taken: dict[str, _Content] = {}
        """The files that are not to be taken: their frames are not settled, or they cannot be moved or removed."""
        self._left_alone: set[str] = set()
        self._problem: str | None = None
        self._removal = OutageLog("frames_folder", folder=str(folder), doing="to remove a frame")
        self._lock = threading.Lock()

    @property
    def problem(self) -> str | None:
        """Why the folder cannot be read."""
        return self._problem

    def run(self, sink: FrameSink, stopping: threading.Event) -> None:
        """Bring the pictures until the event is set; a folder that does not exist is created."""
        outage = OutageLog("frames_folder", folder=str(self._folder), doing="to look into it")
        while not stopping.is_set():
            try:
                ready = self._look()
            except OSError as exc:
                self._problem = f"the folder of frames cannot be read: {exc}"
                outage.failed(exc)
            else:
                self._problem = None
                outage.succeeded()
                for name, content in ready:
                    if not _wait_for_room(sink, stopping):
                        return
                    self._take(name, content, sink)
            stopping.wait(self._poll_seconds)

    def _look(self) -> list[tuple[str, _Content]]:
        """Return the files to take now, in their order."""
        self._folder.mkdir(parents=True, exist_ok=True)
        found: dict[str, _Content] = {}
        others: set[str] = set()
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                try:
                    if not entry.is_file():
                        continue
                    content = _content(entry.stat())
                except FileNotFoundError:
                    continue  # its writer has moved it away
                except OSError:  # a symbolic link in a loop, or to where this user may not look
                    others.add(entry.name)
                    continue
                if Path(entry.name).suffix.lower() in _SUFFIXES:
                    found[entry.name] = content
                else:
                    others.add(entry.name)
        unchanged = {name: content for name, content in found.items() if self._seen.get(name) == content}
        self._seen = found
        self._name_once(others | {name for name, content in unchanged.items() if not content.size})
        with self._lock:
            ready = [
                (name, content)
                for name, content in unchanged.items()
                if content.size and self._taken.get(name) != content
            ]
        return sorted(ready, key=lambda each: (each[1].modified_ns, each[0]))

    def _name_once(self, others: set[str]) -> None:
        if new := others - self._left_alone:
            log.info("files_left_alone", folder=str(self._folder), names=sorted(new)[:10], files=len(new))
        self._left_alone = others

    def _take(self, name: str, content: _Content, sink: FrameSink) -> None:
        """Bring one file that was unchanged; one that has changed or gone since is left to the next look."""
        path = self._folder / name
        if content.size > self._limits.max_bytes:  # it would be read into memory
            self._counters.add("malformed")
            self._move_away(
                path, content, f"it has {content.size} bytes, and at most {self._limits.max_bytes} are taken"
            )
            return
        try:
            with path.open("rb") as file:
                image = file.read(self._limits.max_bytes + 1)
                status = os.fstat(file.fileno())
            if _content(status) != content:
                return
            self._limits.check(image)
        except FileNotFoundError:
            return
        except (OSError, InvalidImage) as exc:
            self._counters.add("malformed")
            self._move_away(path, content, str(exc))
            return
        frame = Frame(
            request_id=self._request_id(name, status),
            filename=base_name(name),
            image=image,
            captured_at=datetime.fromtimestamp(content.modified_ns / 1e9, UTC),
            droppable=False,
            settled=partial(self._remove, path, content),
            rejected=partial(self._move_away, path, content),
        )
        with self._lock:
            self._taken[name] = content
        sink.put(frame)

    def _request_id(self, name: str, status: os.stat_result) -> UUID:
        """The same each time that this very file is taken."""
        changed = f"{status.st_size}-{status.st_ctime_ns}"
        return uuid5(NAMESPACE_URL, f"facerec-frame://{self._thing}/{base_name(name)}?{changed}")

    def _move_away(self, path: Path, content: _Content, reason: str) -> None:
        """Move a file that is no frame to `rejected/`; one that cannot be moved is not taken again."""
        try:
            rejected = self._folder / REJECTED
            rejected.mkdir(exist_ok=True)
            self._finish(path, content, lambda: path.replace(rejected / path.name))
        except OSError as exc:
            reason = f"{reason}; and it cannot be moved: {exc}"
            with self._lock:
                self._taken[path.name] = content
        log.warning("frame_rejected", file=str(path), reason=reason)

    def _remove(self, path: Path, content: _Content) -> None:
        """Remove the file of a settled frame; one that cannot be removed is not taken again before a restart."""
        try:
            self._finish(path, content, path.unlink)
        except OSError as exc:
            self._removal.failed(exc)
        else:
            self._removal.succeeded()

    def _finish(self, path: Path, content: _Content, end: Callable[[], object]) -> None:
        """Do away with a file, if it was not replaced by another since; raises `OSError`."""
        with self._lock:
            with suppress(FileNotFoundError):  # its writer or another program has removed it
                if _content(path.stat()) == content:
                    end()
            if self._taken.get(path.name) == content:
                del self._taken[path.name]


def _content(status: os.stat_result) -> _Content:
    return _Content(status.st_mtime_ns, status.st_size, status.st_ino)


def _wait_for_room(sink: FrameSink, stopping: threading.Event) -> bool:
    """Wait until the sink takes a frame without dropping one; returns False when the source is to stop."""
    while not stopping.is_set():
        if sink.wait_for_room(1.0):
            return True
    return False
