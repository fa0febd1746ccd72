"""Published snapshots: who reads them, what makes them unusable, and that no removed person stays in one."""

import errno
import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

from facerec.errors import ConfigurationError, Throttled, Transient
from facerec.gallery.cache import GalleryCache
from facerec.gallery.check import GalleryCheck
from facerec.gallery.published import PublishedSnapshot, PublishedSnapshots, published
from facerec.gallery.removal import remove_templates
from facerec.gallery.snapshots import GallerySnapshots, SavedGallery
from facerec.ports import Template
from model.index import compact
from model.index.compact import CompactHeader, read_compact, write_compact
from model.index.snapshot import SnapshotUnusable
from model.matching import GalleryIndex
from tests.fakes.object_store import InMemoryObjectStore
from tests.fakes.templates import MODEL, OTHER_MODEL, InMemoryTemplateStore, make_template, of_dimension
from tests.support.logs import capture_logs

BUCKET = "gallery"
DEFAULT = "!snapshots/default/"


class WatchedObjects(InMemoryObjectStore):
    """Does something once before a download or after an upload."""

    def __init__(self) -> None:
        super().__init__()
        self.downloads = self.listings = 0
        self.before_download: Callable[[], object] | None = None
        self.after_upload: Callable[[], object] | None = None

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        self.listings += 1
        return super().keys(bucket, prefix)

    def download(self, bucket: str, key: str, file: BinaryIO) -> None:
        self.downloads += 1
        action, self.before_download = self.before_download, None
        if action is not None:
            action()
        super().download(bucket, key, file)

    def upload(self, bucket: str, key: str, file: BinaryIO, content_type: str) -> None:
        super().upload(bucket, key, file, content_type)
        action, self.after_upload = self.after_upload, None
        if action is not None:
            action()


class Killed(BaseException):
    """Ends a command at once, as a kill does."""


class World:
    """A table with Ada and Grace, a bucket, and a machine."""

    def __init__(self, directory: Path) -> None:
        self.store = InMemoryTemplateStore(kept_changes=20)
        self.objects = WatchedObjects()
        self.reads = 0
        self._directory = directory
        for number, name in ((1, "Ada"), (2, "Grace")):
            self.store.add(make_template(number, name))
        read = self.store.templates

        def counted(*arguments: object) -> object:
            self.reads += 1
            return read(*arguments)  # type: ignore[arg-type]

        self.store.templates = counted  # type: ignore[method-assign, assignment]

    def snapshots(self, model_id: str = MODEL) -> PublishedSnapshots:
        """The published snapshots as a machine without any file uses them."""
        return PublishedSnapshots(self.objects, BUCKET, model_id, self._directory / "spool")

    def cache(self, files: GallerySnapshots | None = None) -> GalleryCache:
        """The gallery of a process that starts now."""
        return GalleryCache(self.store, MODEL, 1, dimension=512, published=self.snapshots(), snapshots=files)

    def publish(self) -> PublishedSnapshot | None:
        """Publish the default collection as it is now."""
        return self.snapshots().publish("default", self.cache().loaded("default"), self.store)

    def keys(self) -> list[str]:
        """The keys of all objects."""
        return self.objects.keys(BUCKET)

    def content(self) -> bytes:
        """All objects, their names and ids decompressed."""
        found = b""
        for key in self.keys():
            path = self._directory / "object"
            path.write_bytes(self.objects.get(BUCKET, key))
            with path.open("rb") as file:
                header, pieces = read_compact(file)
                found += repr(header).encode()
                for rows, names, ids in pieces:
                    found += rows.tobytes() + repr((names, ids)).encode()
        return found

    def check(self) -> GalleryCheck:
        """The check of this gallery, an hour from now."""
        later = datetime.now(UTC) + timedelta(hours=1)
        return GalleryCheck(
            templates=self.store,
            photos=self.objects,
            bucket=BUCKET,
            older_than=timedelta(minutes=30),
            now=lambda: later,
        )


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A table with two people, and nothing published."""
    return World(tmp_path)


def people(cache: GalleryCache, *numbers: int) -> list[str | None]:
    """The names of these templates in the default collection."""
    index = cache.index("default")
    return [index.identity_of(make_template(number).template_id) for number in numbers]


def test_start_reads_the_published_snapshot_and_the_changes(world: World) -> None:
    """Not the table; and answers are those of a start without it."""
    found = world.publish()
    assert found is not None
    assert world.keys() == [found.key]
    assert found.key == f"{DEFAULT}{MODEL}/{2:020d}-{found.sha256}"
    world.store.add(make_template(3, "Alan"))
    world.reads = 0
    cache = world.cache()
    assert people(cache, 1, 2, 3) == ["Ada", "Grace", "Alan"]
    assert world.reads == 0
    queries = np.stack([make_template(number).embedding for number in range(5)])
    of_table = GalleryCache(world.store, MODEL, 1, dimension=512)
    assert cache.index("default").search(queries, 3) == of_table.index("default").search(queries, 3)


def test_start_applies_a_removal_that_the_snapshot_does_not_have(world: World) -> None:
    """Such as one by a release that knew no snapshots."""
    world.publish()
    world.store.remove("default", [make_template(2).template_id])
    assert people(world.cache(), 1, 2) == ["Ada", None]


def test_start_prefers_the_file_of_its_machine(world: World, tmp_path: Path) -> None:
    """The first start writes it at its first refresh, when it already answers."""
    world.publish()
    files = GallerySnapshots(tmp_path / "files", "table", MODEL, worth_writing=1)
    first = world.cache(files)
    first.index("default")
    assert not (tmp_path / "files").exists()
    first.refresh()
    assert len(list((tmp_path / "files").iterdir())) == 1
    world.objects.downloads = world.reads = 0
    assert people(world.cache(files), 1, 2) == ["Ada", "Grace"]
    assert (world.objects.downloads, world.reads) == (0, 0)


def test_file_of_the_machine_that_is_too_old_gives_way_to_the_published_snapshot(world: World, tmp_path: Path) -> None:
    """Its changes are no longer recorded, and it may have people who were removed."""
    files = GallerySnapshots(tmp_path / "files", "table", MODEL, worth_writing=1)
    world.cache(files).index("default")
    world.store.remove("default", [make_template(2).template_id])
    for number in range(3, 30):
        world.store.add(make_template(number, "Alan"))
    world.publish()
    world.reads = 0
    assert people(world.cache(files), 1, 2, 29) == ["Ada", None, "Alan"]
    assert world.reads == 0
    assert not list((tmp_path / "files").iterdir())


def test_start_without_a_published_snapshot_costs_one_listing(world: World) -> None:
    """A small gallery has none."""
    people(world.cache(), 1)
    assert (world.objects.listings, world.objects.downloads, world.reads) == (1, 0, 1)


def test_name_that_a_client_invents_costs_no_listing(world: World) -> None:
    """A collection that never had a template."""
    world.objects.outage = Transient("not called")
    assert len(world.cache().index("invented")) == 0


def damaged_object(world: World) -> None:
    """One bit is another."""
    (key,) = world.keys()
    content = bytearray(world.objects.get(BUCKET, key))
    content[len(content) // 2] ^= 1
    world.objects.put(BUCKET, key, bytes(content), "")


def cut_object(world: World) -> None:
    """Its end is missing."""
    (key,) = world.keys()
    world.objects.put(BUCKET, key, world.objects.get(BUCKET, key)[:-100], "")


def renamed_object(world: World) -> None:
    """It is under the key of a later version."""
    found = world.publish()
    assert found is not None
    content = world.objects.get(BUCKET, found.key)
    world.objects.delete(BUCKET, found.key)
    world.store.set_threshold("default", MODEL, None)
    world.objects.put(BUCKET, replace(found, version=3).key, content, "")


def of_other_dimension(world: World) -> None:
    """An earlier model with this id had 128 numbers."""
    world.objects.delete(BUCKET, world.keys()[0])
    rows = of_dimension(128, make_template(1)).embedding[None]
    world.snapshots().publish("default", SavedGallery(GalleryIndex(rows, ["Ada"], ["1"]), 2, {}), world.store)


def foreign_content(world: World) -> None:
    """Another program made it, with a hash that fits."""
    replace_content(world, b"facsend1" + (2).to_bytes(4, "little") + b"{}")


def newer_format(world: World) -> None:
    """A later release made it."""
    (key,) = world.keys()
    replace_content(world, b"facsend2" + world.objects.get(BUCKET, key)[8:])


def replace_content(world: World, content: bytes) -> None:
    """Put another object in its place, with a hash that fits."""
    world.objects.delete(BUCKET, world.keys()[0])
    sha256 = hashlib.sha256(content).hexdigest()
    world.objects.put(BUCKET, PublishedSnapshot("default", MODEL, 2, sha256).key, content, "")


def unreachable(world: World) -> None:
    """S3 does not answer."""
    world.objects.outage = Transient("S3 is away")


def refused(world: World) -> None:
    """The role is one of a release without snapshots."""
    world.objects.outage = ConfigurationError("AccessDenied: s3:ListBucket")


def full_disk(world: World) -> None:
    """It has no room for the object."""

    def fail() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    world.objects.before_download = fail


@pytest.mark.parametrize(
    "damage",
    [
        damaged_object,
        cut_object,
        renamed_object,
        of_other_dimension,
        foreign_content,
        newer_format,
        unreachable,
        refused,
        full_disk,
    ],
)
def test_unusable_snapshot_costs_a_warning(world: World, damage: Callable[[World], None]) -> None:
    """The table has everything."""
    world.publish()
    damage(world)
    with capture_logs() as records:
        assert people(world.cache(), 1, 2) == ["Ada", "Grace"]
    assert [record["event"] for record in records if record["log_level"] != "info"] == ["gallery_snapshot_unusable"]


def test_throttled_start_does_not_read_the_whole_table(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """When many workers start at once, that would take longest; the load is tried again."""

    def throttle(*_: object) -> None:
        raise Throttled("DynamoDB")

    world.publish()
    world.reads = 0
    cache = world.cache()
    with monkeypatch.context() as patch:
        patch.setattr(world.store, "changes", throttle)
        with pytest.raises(Throttled):
            cache.index("default")
    assert people(cache, 1) == ["Ada"]
    assert world.reads == 0


def test_snapshot_of_another_model_is_not_read(world: World) -> None:
    """Each model has its own, and no warning."""
    world.snapshots(OTHER_MODEL).publish("default", world.cache().loaded("default"), world.store)
    world.reads = 0
    with capture_logs() as records:
        assert people(world.cache(), 1) == ["Ada"]
    assert (world.objects.downloads, world.reads, records) == (0, 1, [])


def test_snapshot_that_the_recorded_changes_do_not_reach_is_not_downloaded(world: World) -> None:
    """The table is read, and the check names the snapshot."""
    world.publish()
    for number in range(3, 30):
        world.store.add(make_template(number, "Alan"))
    with capture_logs() as records:
        assert people(world.cache(), 1, 29) == ["Ada", "Alan"]
    assert [record["event"] for record in records] == ["gallery_snapshot_outdated"]
    assert world.objects.downloads == 0
    assert [each.reason for each in world.check().find().snapshots] == ["it is too old to be used"]


def test_snapshot_that_is_replaced_while_it_is_fetched_is_no_error(world: World) -> None:
    """The newer one is read."""
    world.publish()
    world.store.add(make_template(3, "Alan"))
    world.objects.before_download = world.publish
    world.reads = 0
    with capture_logs() as records:
        assert people(world.cache(), 1, 3) == ["Ada", "Alan"]
    assert {record["event"] for record in records} == {"gallery_snapshot_loaded"}
    assert world.reads == 0


def test_newer_version_wins_and_the_older_one_is_deleted(world: World) -> None:
    """In whichever order two writers end."""
    old = world.cache().loaded("default")
    world.store.add(make_template(3, "Alan"))
    newer = world.publish()
    assert world.snapshots().publish("default", old, world.store) == newer
    assert newer is not None
    assert world.keys() == [newer.key]
    world.store.add(make_template(4, "Edsger"))
    latest = world.publish()
    assert latest is not None
    assert world.keys() == [latest.key]


def test_snapshot_of_a_lost_table_gives_way_to_one_of_its_backup(world: World) -> None:
    """Whose versions are lower."""
    for number in range(3, 7):
        world.store.add(make_template(number, "Alan"))
    lost = world.publish()
    world.store.forget()
    world.store.add(make_template(1, "Ada"))
    with capture_logs() as records:
        assert people(world.cache(), 1, 3) == ["Ada", None]
    assert [record["event"] for record in records] == ["gallery_snapshot_outdated"]
    found = world.publish()
    assert lost is not None
    assert found is not None
    assert world.keys() == [found.key]
    assert found.version < lost.version


def test_older_snapshot_of_a_killed_writer_is_found_and_deleted(world: World) -> None:
    """By the check, and by the next writer."""

    def kill() -> None:
        raise Killed

    first = world.publish()
    assert first is not None
    for number in (3, 4):
        world.store.add(make_template(number, "Alan"))
        world.objects.after_upload = kill
        with pytest.raises(Killed):
            world.publish()
    assert people(world.cache(), 1, 4) == ["Ada", "Alan"]
    check = world.check()
    found = check.find("default").snapshots
    assert [each.reason for each in found] == ["a newer one exists"] * 2
    assert found[0].stored.key == first.key
    check.remove_snapshot(found[0])
    assert len(world.check().find().snapshots) == 1
    world.publish()
    assert world.check().find().snapshots == []
    assert len(world.keys()) == 1


def test_removed_person_is_in_no_object(world: World) -> None:
    """Nor in that of another model."""
    gone = make_template(2, "Grace")
    world.publish()
    world.snapshots(OTHER_MODEL).publish("default", world.cache().loaded("default"), world.store)
    rounded = gone.embedding.astype("<f2").tobytes()
    assert all(trace in world.content() for trace in (b"Grace", gone.template_id.encode(), rounded))
    remove_templates(world.store, world.objects, BUCKET, "default", [gone.template_id])
    assert world.keys() == []
    world.publish()
    assert b"Ada" in world.content()
    assert not any(trace in world.content() for trace in (b"Grace", gone.template_id.encode(), rounded))


@pytest.mark.parametrize("late", [False, True], ids=["removed before the upload", "removed after the upload"])
def test_writer_that_is_slower_than_a_removal_leaves_no_object(world: World, *, late: bool) -> None:
    """Its templates are those of before."""

    def remove() -> None:
        remove_templates(world.store, world.objects, BUCKET, "default", [make_template(2).template_id])

    saved = world.cache().loaded("default")
    if late:
        world.objects.after_upload = remove
    else:
        remove()
    assert world.snapshots().publish("default", saved, world.store) is None
    assert world.keys() == []


def test_writer_leaves_no_object_with_the_former_name_of_a_photo(world: World) -> None:
    """It was removed, and enrolled again for another person, while the writer ran."""
    saved = world.cache().loaded("default")
    remove_templates(world.store, world.objects, BUCKET, "default", [make_template(2).template_id])
    world.store.add(make_template(2, "Alan"))
    assert world.snapshots().publish("default", saved, world.store) is None
    assert world.keys() == []
    assert world.publish() is not None
    assert b"Grace" not in world.content()


@pytest.mark.parametrize("error", [Transient("DynamoDB is away"), KeyboardInterrupt()], ids=repr)
def test_writer_that_cannot_look_for_removals_leaves_no_object(world: World, error: BaseException) -> None:
    """It may hold a removed person."""

    def fail(*_: object) -> None:
        raise error

    saved = world.cache().loaded("default")
    world.store.changes = fail  # type: ignore[method-assign, assignment]
    with pytest.raises(type(error)):
        world.snapshots().publish("default", saved, world.store)
    assert world.keys() == []


def test_removal_during_a_download_is_seen_at_the_next_refresh(world: World) -> None:
    """The reader has asked for the changes before."""
    world.publish()
    world.objects.before_download = lambda: world.store.remove("default", [make_template(2).template_id])
    cache = world.cache()
    assert people(cache, 1, 2) == ["Ada", "Grace"]
    cache.refresh()
    assert people(cache, 1, 2) == ["Ada", None]


def test_snapshot_with_removed_templates_is_found_whatever_its_age(world: World) -> None:
    """A writer that was killed right after its upload, while a removal ran."""
    saved = world.cache().loaded("default")
    remove_templates(world.store, world.objects, BUCKET, "default", [make_template(2).template_id])

    def kill() -> None:
        raise Killed

    world.objects.after_upload = kill
    with pytest.raises(Killed):
        world.snapshots().publish("default", saved, world.store)
    check = replace(world.check(), now=lambda: datetime.now(UTC))
    (found,) = check.find().snapshots
    assert found.reason == "templates were removed since"
    assert people(world.cache(), 1, 2) == ["Ada", None]
    check.remove_snapshot(found)
    assert world.keys() == []


def test_interrupted_removal_is_completed_by_a_repeated_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The snapshots are deleted while the templates are still listed."""
    world.publish()

    def kill(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(world.store, "remove", kill)
        with pytest.raises(Killed):
            remove_templates(world.store, world.objects, BUCKET, "default", [make_template(2).template_id])
    assert world.keys() == []
    assert remove_templates(world.store, world.objects, BUCKET, "default", [make_template(2).template_id]) == 1


def test_collections_with_one_beginning_have_their_own_snapshots(world: World) -> None:
    """`default` is the beginning of `default2`."""
    world.store.add(make_template(7, "Alan", "default2"))
    other = world.snapshots().publish("default2", world.cache().loaded("default2"), world.store)
    world.publish()
    remove_templates(world.store, world.objects, BUCKET, "default", [make_template(2).template_id])
    assert published(world.objects, BUCKET, "default2") == [other]
    assert world.keys() == [other.key if other else ""]
    assert world.check().find("default").snapshots == []


def test_damaged_templates_are_known_from_the_snapshot(world: World) -> None:
    """Their count does not depend on what was read."""
    broken: Template = replace(make_template(9), embedding=np.full(512, np.nan, np.float32))
    world.store._templates["default"][broken.template_id] = broken
    world.publish()
    world.reads = 0
    cache = world.cache()
    assert len(cache.index("default")) == 2
    assert (cache.sizes().damaged, world.reads) == (1, 0)


def test_compact_file_is_written_and_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without removed templates; every piece but the last of a block is full."""
    monkeypatch.setattr(compact, "_PIECE_ROWS", 8)
    rows = np.stack([make_template(number).embedding for number in range(30)])
    ids, names = [str(number) for number in range(30)], [f"person {number % 7} é😀" for number in range(30)]
    index = GalleryIndex(rows, names, ids)
    index.remove(["3", "29"])
    written: list[int] = []
    path = tmp_path / "file"
    with path.open("wb+") as file:
        header = CompactHeader("staff", MODEL, 7, 512, len(index), {"x": "broken"})
        write_compact(index, file, header, written.append)
        file.seek(0)
        found, pieces = read_compact(file)
        again = GalleryIndex.of_pieces(pieces)
    assert (found, written) == (header, [8, 8, 8, 4])
    assert again.search(rows, 5) == index.search(rows, 5)
    for cut in (3, 30, 2000, path.stat().st_size - 1):
        with path.open("rb+") as file:
            file.truncate(cut) if cut < path.stat().st_size else None
        with path.open("rb") as file, pytest.raises(SnapshotUnusable):
            list(read_compact(file)[1])
        with path.open("wb") as file:
            write_compact(index, file, header)
