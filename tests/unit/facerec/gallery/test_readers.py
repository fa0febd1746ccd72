"""What a process reports about the collections in its memory and on its disk."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from facerec.erasure_records import ReaderKind, ReaderReport
from facerec.errors import Transient
from facerec.gallery.cache import GalleryCache
from facerec.gallery.readers import ReaderReporter, _identity
from facerec.gallery.snapshots import GallerySnapshots
from model.matching import BLOCK_ROWS
from tests.fakes.erasures import InMemoryGalleryReaders
from tests.fakes.templates import MODEL, InMemoryTemplateStore, make_template, of_dimension

DIMENSION = 8
MANY = BLOCK_ROWS // 4
"""So many templates are encoded in a block, which a removal does not rewrite by itself."""


class World:
    """A store, a worker's cache over it with snapshots, and its reports."""

    def __init__(self, folder: Path) -> None:
        self.at = datetime(2026, 3, 1, 12, tzinfo=UTC)
        self.store, self.readers, self.folder = InMemoryTemplateStore(), InMemoryGalleryReaders(), folder
        self.cache = self.make("1-1-1")

    def make(self, process: str) -> GalleryCache:
        """Make the cache of a process."""
        return GalleryCache(
            self.store,
            MODEL,
            2,
            dimension=DIMENSION,
            snapshots=GallerySnapshots(self.folder, "table", MODEL, worth_writing=1000),
            reporter=ReaderReporter(self.readers, "i-1", self.folder, now=self.now, process=process),
        )

    def now(self) -> datetime:
        """Return the time."""
        return self.at

    def enrol(self, count: int) -> None:
        """Enrol so many people."""
        for number in range(count):
            self.store.add(of_dimension(DIMENSION, make_template(number, f"Person {number}")))

    def reports(self, kind: ReaderKind) -> list[ReaderReport]:
        """Return the reports of this kind."""
        return [report for report in self.readers.reports() if report.kind is kind]

    def refresh(self) -> None:
        """Let the cache refresh, two seconds later."""
        self.at += timedelta(seconds=2)
        self.cache.refresh()


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Make a world."""
    return World(tmp_path / "galleries")


def test_collection_in_loading_is_not_clean(world: World) -> None:
    """A removal that begins at this moment must not overlook the process."""
    world.enrol(1)
    seen: list[dict[str, int]] = []
    load = world.store.templates

    def templates(collection: str, *arguments: object) -> object:
        seen.extend(report.collections for report in world.reports(ReaderKind.PROCESS))
        return load(collection, *arguments)  # type: ignore[arg-type]

    world.store.templates = templates  # type: ignore[method-assign,assignment]
    world.cache.index("default")
    assert seen == [{"default": 0}]
    world.refresh()
    (report,) = world.reports(ReaderKind.PROCESS)
    assert report.is_clean("default", world.store.version("default"))
    assert not report.is_clean("default", world.store.version("default") + 1)
    assert report.is_clean("other", 99)


def test_removal_leaves_neither_rows_nor_files_before_it_is_confirmed(world: World) -> None:
    """An encoded block keeps removed rows, and so does a deleted file that is open: both are replaced first."""
    world.enrol(MANY + 10)
    world.cache.index("default")
    world.refresh()
    erased = of_dimension(DIMENSION, make_template(5)).embedding.astype("<f2").tobytes()
    (file,) = world.folder.glob("*.gallery")
    assert erased in file.read_bytes()
    world.store.remove("default", [make_template(5).template_id])
    world.refresh()
    (process,) = world.reports(ReaderKind.PROCESS)
    (disk,) = world.reports(ReaderKind.DISK)
    version = world.store.version("default")
    assert process.is_clean("default", version)
    assert disk.is_clean("default", version)
    (file,) = world.folder.glob("*.gallery")
    assert erased not in file.read_bytes()
    opened = [path for path in Path("/proc/self/fd").iterdir() if str(world.folder) in _target(path)]
    assert not [path for path in opened if erased in path.read_bytes()]
    rows = [block.vectors.take(np.arange(len(block))) for block in world.cache.index("default").blocks]
    assert all(erased not in row.astype("<f2").tobytes() for row in rows)


def _target(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""


def test_removal_without_a_writable_disk_renews_the_index(world: World, tmp_path: Path) -> None:
    """As in a function: the rows are copied without those that were removed."""
    world.enrol(MANY + 10)
    cache = GalleryCache(
        world.store,
        MODEL,
        2,
        dimension=DIMENSION,
        reporter=ReaderReporter(world.readers, "i-2", tmp_path / "none", now=world.now, process="2-2-2"),
    )
    cache.index("default")
    world.store.remove("default", [make_template(5).template_id])
    world.at += timedelta(seconds=2)
    cache.refresh()
    assert sum(map(len, cache.index("default").blocks)) == MANY + 9
    (report,) = world.reports(ReaderKind.PROCESS)
    assert report.is_clean("default", world.store.version("default"))


def test_disk_with_a_file_in_writing_is_not_clean(world: World) -> None:
    """It may be what a killed process has left."""
    world.enrol(1000)
    world.cache.index("default")
    world.refresh()
    assert world.reports(ReaderKind.DISK)[0].clean
    left = world.folder / ".abc.gallery.xyz"
    left.write_bytes(b"half a snapshot")
    world.refresh()
    assert not world.reports(ReaderKind.DISK)[0].is_clean("any", 0)
    left.unlink()
    world.refresh()
    assert world.reports(ReaderKind.DISK)[0].clean


def test_disk_reports_files_that_this_process_has_not_loaded(world: World) -> None:
    """Until they are deleted, or looked through up to a version."""
    world.enrol(1000)
    world.cache.index("default")
    world.refresh()
    world.cache = world.make("1-2-2")
    world.refresh()
    version = world.store.version("default")
    assert world.reports(ReaderKind.DISK)[0].collections == {"default": version}
    world.store.remove("default", [make_template(5).template_id])
    world.refresh()
    assert world.reports(ReaderKind.DISK)[0].collections == {}
    assert not list(world.folder.glob("*.gallery"))


def test_report_is_made_after_a_change_and_once_a_minute(world: World) -> None:
    """Not with every refresh: a report is a write. That of the disk follows once more, later than its process's."""
    world.enrol(1)
    world.cache.index("default")
    process, disk = list[float](), list[float]()
    for _ in range(40):
        world.refresh()
        for kind, ages in ((ReaderKind.PROCESS, process), (ReaderKind.DISK, disk)):
            ages.append((world.at - world.reports(kind)[0].reported_at).total_seconds())
    assert process[:3] == [0, 2, 4]
    assert disk[:3] == [0, 0, 2]
    assert (process.count(0), disk.count(0)) == (2, 4)


def test_unreachable_table_does_not_end_the_refresh(world: World) -> None:
    """The report is made later."""
    world.readers.outage = Transient("the table cannot be reached")
    world.enrol(1)
    assert len(world.cache.index("default")) == 1
    world.refresh()
    world.readers.outage = None
    world.refresh()
    assert len(world.readers.reports()) == 2


def test_last_process_of_a_folder_without_snapshots_takes_it_along(world: World) -> None:
    """A container that ended leaves nothing that an operator must write off."""
    world.enrol(1)
    other = world.make(_identity(1))
    other.index("default")
    world.cache.index("default")
    world.cache.stop()
    assert [report.kind for report in world.readers.reports()] == [ReaderKind.DISK, ReaderKind.PROCESS]
    other.stop()
    assert world.readers.reports() == []


def test_process_that_ends_leaves_its_disk_alone(world: World) -> None:
    """In order, or killed: then another process of the machine notices."""
    world.enrol(1000)
    world.cache.index("default")
    world.refresh()
    world.cache.stop()
    assert [report.kind for report in world.readers.reports()] == [ReaderKind.DISK]
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        killed = world.make(_identity(other.pid))
        killed.index("default")
        assert len(world.reports(ReaderKind.PROCESS)) == 1
        world.cache = world.make(_identity(1))
        world.cache.index("default")
        assert len(world.reports(ReaderKind.PROCESS)) == 2
        other.kill()
    world.at += timedelta(seconds=60)
    world.refresh()
    assert [report.reader_id for report in world.reports(ReaderKind.PROCESS)] == [
        world.reports(ReaderKind.DISK)[0].reader_id + "/" + _identity(1)
    ]
