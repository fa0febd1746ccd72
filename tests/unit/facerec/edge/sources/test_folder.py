"""The pictures of a folder as frames."""

import os
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from structlog.typing import EventDict

from facerec.edge.counters import Counters
from facerec.edge.frame import Frame, FrameLimits
from facerec.edge.frame_queue import FrameQueue
from facerec.edge.sources.folder import FolderSource
from tests.support.logs import capture_logs
from tests.support.pictures import PORTRAIT, encoded, portrait

PICTURE = PORTRAIT.read_bytes()
SOON = 0.01
"""Seconds between two looks."""


class Run:
    """A running source, and the queue that it fills."""

    def __init__(self, folder: Path, max_frames: int = 32, limits: FrameLimits | None = None) -> None:
        self.folder = folder
        self.counters = Counters()
        self.queue = FrameQueue(max_frames, self.counters)
        self.source = FolderSource(folder, "door", self.counters, limits or FrameLimits(), poll_seconds=SOON)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self.source.run, args=(self.queue, self._stopping))
        self._thread.start()

    def next(self) -> Frame:
        """The next frame, which must come."""
        frame = self.queue.get(30)
        assert frame is not None
        return frame

    def nothing_comes(self) -> bool:
        """Whether the source has looked several times, and brought no frame."""
        return self.queue.get(10 * SOON) is None

    def stop(self) -> None:
        """End the thread, as a kill would: frames that were not settled stay."""
        self._stopping.set()
        self._thread.join(30)
        assert not self._thread.is_alive()


@pytest.fixture
def start() -> Iterator[Callable[..., Run]]:
    """Starts sources; all are stopped at the end."""
    runs: list[Run] = []

    def start(*args: object, **named: object) -> Run:
        runs.append(Run(*args, **named))  # type: ignore[arg-type]
        return runs[-1]

    yield start
    for run in runs:
        run.stop()


@pytest.fixture
def logs() -> Iterator[list[EventDict]]:
    """What is logged meanwhile."""
    with capture_logs() as captured:
        yield captured


def put(folder: Path, name: str, content: bytes = PICTURE, *, modified: float = 1_000_000_000) -> Path:
    """Move a whole file into the folder, as documented for writers."""
    folder.mkdir(exist_ok=True)
    hidden = folder / f".{name}"
    hidden.write_bytes(content)
    os.utime(hidden, (modified, modified))
    return hidden.rename(folder / name)


def test_pictures_come_in_order_of_modification_and_then_of_name(tmp_path: Path, start: Callable[..., Run]) -> None:
    """With the time of modification as that of the capture; each suffix in any case."""
    png, webp = encoded(portrait().resize((40, 60))), encoded(portrait().resize((40, 60)), "WEBP")
    put(tmp_path, "b.JPG", modified=2_000_000_000)
    put(tmp_path, "c.png", png, modified=1_500_000_000)
    put(tmp_path, "a.webp", webp, modified=2_000_000_000)
    put(tmp_path, "z.jpeg", modified=1_000_000_000.5)
    run = start(tmp_path)
    frames = [run.next() for _ in range(4)]
    assert [frame.filename for frame in frames] == ["z.jpeg", "c.png", "a.webp", "b.JPG"]
    assert [frame.image for frame in frames] == [PICTURE, png, webp, PICTURE]
    assert frames[0].captured_at == datetime(2001, 9, 9, 1, 46, 40, 500_000, UTC)
    assert all(frame.requested for frame in frames)


def test_picture_that_appears_later_comes_and_is_removed_when_settled(
    tmp_path: Path, start: Callable[..., Run]
) -> None:
    """The folder itself may be created by the source."""
    folder = tmp_path / "new" / "frames"
    run = start(folder)
    assert run.nothing_comes()
    put(folder, "a.jpg")
    frame = run.next()
    assert (folder / "a.jpg").exists()
    assert run.nothing_comes()
    frame.settled()
    assert list(folder.iterdir()) == []
    put(folder, "a.jpg")
    assert run.next().request_id != frame.request_id


def test_frame_that_was_not_settled_comes_again_after_a_restart_with_its_id(
    tmp_path: Path, start: Callable[..., Run]
) -> None:
    """Killed after the frame was spooled and before its file was removed: the duplicate is harmless."""
    put(tmp_path, "a.jpg")
    put(tmp_path, "b.jpg")
    run = start(tmp_path)
    before = [run.next().request_id, run.next().request_id]
    run.stop()
    again = start(tmp_path)
    assert [again.next().request_id, again.next().request_id] == before
    assert before[0] != before[1]


def test_file_is_not_taken_while_it_is_written(tmp_path: Path, start: Callable[..., Run]) -> None:
    """It changes between two looks, or is still empty."""
    run = start(tmp_path, limits=FrameLimits())
    growing = tmp_path / "a.jpg"
    growing.touch()
    assert run.nothing_comes()
    halves = PICTURE[:1000], PICTURE[1000:]
    hidden = tmp_path / ".b.jpg"
    hidden.write_bytes(halves[0])
    assert run.nothing_comes()
    hidden.write_bytes(PICTURE)
    hidden.rename(tmp_path / "b.jpg")
    assert run.next().image == PICTURE
    growing.write_bytes(PICTURE)
    assert run.next().filename == "a.jpg"


def test_file_that_changes_between_two_looks_is_looked_at_again(tmp_path: Path) -> None:
    """One look alone takes nothing; what was written after a look is not the file of that look."""
    source = FolderSource(tmp_path, "door", Counters(), FrameLimits())
    path = tmp_path / "a.jpg"
    path.write_bytes(PICTURE[:1000])
    assert source._look() == []
    path.write_bytes(PICTURE[:2000])
    assert source._look() == []
    ((name, content),) = source._look()
    path.write_bytes(PICTURE)
    queue = FrameQueue(1, Counters())
    source._take(name, content, queue)
    assert queue.get(0) is None
    assert path.exists()


def test_folder_drops_no_frame_for_want_of_room(tmp_path: Path, start: Callable[..., Run]) -> None:
    """It waits, however slow the detector is."""
    names = [f"{number:02}.jpg" for number in range(20)]
    for name in names:
        put(tmp_path, name)
    run = start(tmp_path, max_frames=2)
    taken: list[str] = []
    while len(taken) < len(names):
        frame = run.next()
        frame.settled()
        taken.append(frame.filename)
    assert taken == names
    assert run.counters.read()["dropped"] == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"no picture", "not a picture"), (PICTURE + bytes(40_000), "at most 100000"), (b"GIF89a" * 9, "GIF")],
)
def test_file_that_is_no_frame_is_moved_to_rejected(
    tmp_path: Path, start: Callable[..., Run], logs: list[EventDict], content: bytes, reason: str
) -> None:
    """Logged once with its reason, and counted; others come all the same."""
    bad = put(tmp_path, "bad.jpg", content)
    put(tmp_path, "good.jpg", modified=1_100_000_000)
    run = start(tmp_path, limits=FrameLimits(max_bytes=100_000))
    assert run.next().filename == "good.jpg"
    assert (tmp_path / "rejected" / "bad.jpg").read_bytes() == content
    assert run.nothing_comes()
    rejected = [entry for entry in logs if entry["event"] == "frame_rejected"]
    assert [(entry["file"], reason in entry["reason"]) for entry in rejected] == [(str(bad), True)]
    assert run.counters.read()["malformed"] == 1


def test_picture_that_turns_out_to_be_damaged_is_moved_to_rejected(
    tmp_path: Path, start: Callable[..., Run], logs: list[EventDict]
) -> None:
    """Not removed: its sender may still want it."""
    put(tmp_path, "cut.jpg", PICTURE[:20_000])
    run = start(tmp_path)
    frame = run.next()
    assert frame.rejected is not None
    frame.rejected("cut off")
    assert (tmp_path / "rejected" / "cut.jpg").read_bytes() == PICTURE[:20_000]
    assert [(entry["event"], entry["reason"]) for entry in logs] == [("frame_rejected", "cut off")]
    assert run.nothing_comes()


def test_link_that_leads_nowhere_keeps_no_frame_away(
    tmp_path: Path, start: Callable[..., Run], logs: list[EventDict]
) -> None:
    """A loop of symbolic links is an error of the operating system, not of the folder."""
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    (tmp_path / "nowhere.jpg").symlink_to(tmp_path / "missing.jpg")
    put(tmp_path, "frame.jpg")
    run = start(tmp_path)
    assert run.next().filename == "frame.jpg"
    assert run.source.problem is None
    assert [entry["names"] for entry in logs if entry["event"] == "files_left_alone"] == [["loop.jpg"]]


def test_other_files_are_left_alone_and_named_once(
    tmp_path: Path, start: Callable[..., Run], logs: list[EventDict]
) -> None:
    """Also folders, and hidden files, which are not named."""
    put(tmp_path, "notes.txt", b"x")
    put(tmp_path, "a.jpg.part")
    (tmp_path / ".hidden.jpg").write_bytes(PICTURE)
    (tmp_path / "album.jpg").mkdir()
    run = start(tmp_path)
    assert run.nothing_comes()
    put(tmp_path, "later.txt")
    assert run.nothing_comes()
    named = [entry["names"] for entry in logs if entry["event"] == "files_left_alone"]
    assert named == [["a.jpg.part", "notes.txt"], ["later.txt"]]
    assert len(list(tmp_path.iterdir())) == 5


def test_file_that_was_replaced_is_kept_when_the_earlier_frame_is_settled(
    tmp_path: Path, start: Callable[..., Run]
) -> None:
    """As by a camera that always writes the same name."""
    put(tmp_path, "latest.jpg")
    run = start(tmp_path)
    first = run.next()
    put(tmp_path, "latest.jpg", PICTURE + b"\0", modified=1_200_000_000)
    first.settled()
    second = run.next()
    assert second.image == PICTURE + b"\0"
    assert second.request_id != first.request_id


def test_folder_that_cannot_be_read_is_a_problem_until_it_can(
    tmp_path: Path, start: Callable[..., Run], logs: list[EventDict]
) -> None:
    """A file stands where the folder should be."""
    folder = tmp_path / "frames"
    folder.write_bytes(b"")
    run = start(folder)
    assert run.nothing_comes()
    assert "cannot be read" in (run.source.problem or "")
    folder.unlink()
    put(folder, "a.jpg")
    run.next()
    assert run.source.problem is None
    assert [entry["event"] for entry in logs] == ["frames_folder_unreachable", "frames_folder_reachable_again"]


@pytest.mark.parametrize("name", [b"caf\xe9.jpg", "Zoë 🙂.jpg".encode(), b"line\nbreak.jpg"])
def test_any_file_name_is_taken(tmp_path: Path, start: Callable[..., Run], name: bytes) -> None:
    """Also one that is no UTF-8; the frame's name is cleaned."""
    put(tmp_path, os.fsdecode(name))
    frame = start(tmp_path).next()
    assert frame.filename.isprintable()
    assert frame.filename.endswith(".jpg")
    frame.settled()
    assert list(tmp_path.iterdir()) == []
