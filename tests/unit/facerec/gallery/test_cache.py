"""The gallery cache: the state that readers see, and its snapshots."""

import json
import os
import struct
import threading
import tracemalloc
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facerec.errors import Throttled, Transient
from facerec.gallery import loading
from facerec.gallery import snapshots as gallery_snapshots
from facerec.gallery.cache import GalleryCache
from facerec.gallery.names import InvalidName
from facerec.gallery.snapshots import GallerySnapshots
from facerec.ports import Changes, DamagedTemplate, Template, TemplateStore
from model.index import vectors
from model.index.snapshot import open_snapshot, write
from model.index.vectors import NumpyProducts
from model.matching import GalleryIndex
from tests.fakes.templates import (
    MODEL,
    OTHER_MODEL,
    InMemoryTemplateStore,
    make_rejection,
    make_template,
    make_threshold,
    of_dimension,
)
from tests.support.logs import capture_logs

TIMEOUT_SECONDS = 10


class WatchedStore(InMemoryTemplateStore):
    """Counts its calls, and can be paused while it reads templates."""

    def __init__(self, kept_changes: int = 10_000) -> None:
        super().__init__(kept_changes)
        self.asked: Counter[tuple[str, str]] = Counter()
        self.read = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()
        self.throttled: str | None = None
        self.unreadable: str | None = None
        self.damaged: list[DamagedTemplate] = []

    def version(self, collection: str) -> int:
        self.asked["version", collection] += 1
        if collection == self.throttled:
            raise Throttled("AWS throttles")
        return super().version(collection)

    def templates(self, collection: str, damaged: list[DamagedTemplate] | None = None) -> Iterator[Template]:
        self.asked["templates", collection] += 1
        found = list(super().templates(collection, damaged))
        if damaged is not None:
            damaged += self.damaged
        self._hold()
        return iter(found)

    def changes(self, collection: str, since: int) -> Changes | None:
        self.asked["changes", collection] += 1
        found = super().changes(collection, since)
        self._hold()
        if collection == self.unreadable:
            raise ValueError("an unexpected error")
        return found and replace(found, damaged=self.damaged)

    def _hold(self) -> None:
        self.read.set()
        assert self.go_on.wait(TIMEOUT_SECONDS)


@pytest.fixture
def store() -> WatchedStore:
    """A store with one person in the default collection."""
    store = WatchedStore()
    store.add(make_template(1, "Ada"))
    return store


def cache_of(store: TemplateStore, **options: Any) -> GalleryCache:
    """A cache that only the test refreshes."""
    return GalleryCache(store, MODEL, 3600, dimension=512, **options)


@pytest.fixture
def cache(store: WatchedStore) -> GalleryCache:
    """A cache of this store."""
    return cache_of(store)


def names(index: GalleryIndex, *numbers: int) -> list[str | None]:
    """Whom the index takes the faces of these templates for."""
    queries = np.stack([make_template(number).embedding for number in numbers])
    return [found[0].identity if found and found[0].similarity > 0.9 else None for found in index.search(queries)]


def test_cache_loads_a_collection_once(cache: GalleryCache, store: WatchedStore) -> None:
    """Later requests do not read the store."""
    assert names(cache.index("default"), 1, 2) == ["Ada", None]
    asked = store.asked.copy()
    assert cache.index("default") is cache.index("default")
    assert store.asked == asked


def test_cache_of_an_empty_collection_is_empty(cache: GalleryCache) -> None:
    """Cache of an empty collection is empty."""
    assert len(cache.index("nobody")) == 0
    assert names(cache.index("nobody"), 1) == [None]


def test_refresh_shows_additions_and_removals(cache: GalleryCache, store: WatchedStore) -> None:
    """Also the removal of the last template."""
    cache.index("default")
    store.add(make_template(2, "Grace"))
    cache.refresh()
    assert names(cache.index("default"), 1, 2) == ["Ada", "Grace"]
    store.remove("default", [make_template(1).template_id])
    cache.refresh()
    assert names(cache.index("default"), 1, 2) == [None, "Grace"]
    store.remove("default", [make_template(2).template_id])
    cache.refresh()
    assert len(cache.index("default")) == 0


def test_refresh_shows_a_new_threshold(cache: GalleryCache, store: WatchedStore) -> None:
    """And its removal."""
    assert cache.threshold("default") is None
    store.set_threshold("default", MODEL, make_threshold(0.55))
    assert cache.threshold("default") is None
    cache.refresh()
    assert cache.threshold("default") == 0.55
    store.set_threshold("default", MODEL, None)
    cache.refresh()
    assert cache.threshold("default") is None


def similarities(cache: GalleryCache, number: int) -> dict[str, float]:
    """How similar people are to the face of this template."""
    (found,) = cache.search("default", make_template(number).embedding[None], 5)
    return {match.identity: match.similarity for match in found}


def test_best_matching_takes_the_best_template(store: WatchedStore) -> None:
    """It is the default."""
    store.add(make_template(2, "Ada"))
    cache = cache_of(store)
    assert similarities(cache, 1)["Ada"] == similarities(cache, 2)["Ada"] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("saved", [False, True])
def test_mean_matching_follows_the_gallery(store: WatchedStore, tmp_path: Path, *, saved: bool) -> None:
    """Over additions, renames and removals, and from a snapshot, which has no means."""

    def opened() -> GalleryCache:
        snapshots = GallerySnapshots(tmp_path, "table", MODEL, worth_writing=1) if saved else None
        return cache_of(store, matching="mean", snapshots=snapshots)

    def mean(*numbers: int) -> float:
        embeddings = [make_template(number).embedding for number in numbers]
        total = np.sum(embeddings, axis=0)
        return float(embeddings[0] @ total / np.linalg.norm(total))

    cache = opened()
    assert similarities(cache, 1)["Ada"] == pytest.approx(1, abs=1e-3)
    store.add(make_template(2, "Ada"))
    store.add(make_template(3, "Grace"))
    cache.refresh()
    assert similarities(cache, 1)["Ada"] == pytest.approx(mean(1, 2), abs=1e-3)
    assert similarities(cache, 3)["Grace"] == pytest.approx(1, abs=1e-3)
    assert similarities(opened(), 1)["Ada"] == pytest.approx(mean(1, 2), abs=1e-3)
    store.reassign("default", [make_template(2).template_id], "Grace")
    cache.refresh()
    assert similarities(cache, 3)["Grace"] == pytest.approx(mean(3, 2), abs=1e-3)
    assert similarities(cache, 1)["Ada"] == pytest.approx(1, abs=1e-3)
    store.remove("default", [make_template(1).template_id])
    cache.refresh()
    assert similarities(cache, 1).keys() == {"Grace"}
    assert similarities(opened(), 1).keys() == {"Grace"}


def test_refresh_shows_new_rejections(cache: GalleryCache, store: WatchedStore) -> None:
    """By their person; those of another model are of no use."""
    assert cache.rejections("default") == {}
    for rejection in (make_rejection(2, "Ada"), make_rejection(3, "Ada"), make_rejection(4, "Grace")):
        store.reject(rejection)
    store.reject(make_rejection(5, "Ada", model_id=OTHER_MODEL))
    store.reject(make_rejection(6, "Ada", collection="staff"))
    assert cache.rejections("default") == {}
    cache.refresh()
    found = cache.rejections("default")
    assert {person: faces.shape for person, faces in found.items()} == {"Ada": (2, 512), "Grace": (1, 512)}
    assert np.array_equal(found["Ada"][1], make_rejection(3).embedding)
    store.remove_rejections("default", [make_rejection(number).rejection_id for number in (2, 3, 4)])
    cache.refresh()
    assert cache.rejections("default") == {}


def test_start_from_a_snapshot_knows_the_rejections(store: WatchedStore, tmp_path: Path) -> None:
    """They are in no snapshot: they come from the store."""
    store.reject(make_rejection(2, "Ada"))

    def snapshots() -> GallerySnapshots:
        return GallerySnapshots(tmp_path, "table", MODEL, worth_writing=1)

    first = cache_of(store, snapshots=snapshots())
    assert first.rejections("default").keys() == {"Ada"}
    asked = store.asked["templates", "default"]
    second = cache_of(store, snapshots=snapshots())
    assert second.rejections("default").keys() == {"Ada"}
    assert names(second.index("default"), 1) == ["Ada"]
    assert store.asked["templates", "default"] == asked


def test_unusable_rejection_is_left_out_with_a_warning(store: WatchedStore) -> None:
    """It would make every comparison fail, or match nothing."""
    store.reject(make_rejection(2, "Ada"))
    for number, embedding in ((3, np.zeros(512)), (4, make_template(4).embedding[:128])):
        store.reject(replace(make_rejection(number, "Ada"), embedding=embedding.astype(np.float32)))
    with capture_logs() as records:
        assert cache_of(store).rejections("default")["Ada"].shape == (1, 512)
    (record,) = [record for record in records if record["event"] == "rejections_damaged"]
    assert record["rejections"] == [make_rejection(number).rejection_id for number in (3, 4)]


def test_threshold_applies_to_its_model_and_collection(cache: GalleryCache, store: WatchedStore) -> None:
    """Similarities of different models are on different scales."""
    store.set_threshold("default", OTHER_MODEL, make_threshold(0.55))
    store.set_threshold("staff", MODEL, make_threshold(0.66))
    assert cache.threshold("default") is None
    assert cache.threshold("staff") == 0.66
    assert cache.threshold("nobody") is None


def test_threshold_and_index_load_the_collection_once(cache: GalleryCache, store: WatchedStore) -> None:
    """In either order."""
    cache.threshold("default")
    cache.index("default")
    assert store.asked["templates", "default"] == 1


def test_refresh_without_a_change_reads_no_templates(cache: GalleryCache, store: WatchedStore) -> None:
    """Polling costs one small read per collection."""
    cache.index("default")
    cache.refresh()
    cache.refresh()
    assert store.asked["version", "default"] == 3
    assert store.asked["templates", "default"] == 1


def test_first_enrolment_is_seen_without_a_refresh(cache: GalleryCache, store: WatchedStore) -> None:
    """An empty collection is not kept in memory."""
    assert len(cache.index("staff")) == 0
    store.add(make_template(5, "Grace", "staff"))
    assert names(cache.index("staff"), 5) == ["Grace"]


def test_change_during_loading_appears_after_the_next_refresh(cache: GalleryCache, store: WatchedStore) -> None:
    """Also one between the reads of version and templates."""
    store.go_on.clear()
    with ThreadPoolExecutor() as pool:
        loading = pool.submit(cache.index, "default")
        assert store.read.wait(TIMEOUT_SECONDS)
        store.add(make_template(2, "Grace"))
        store.go_on.set()
        loading.result(TIMEOUT_SECONDS)
    cache.refresh()
    assert names(cache.index("default"), 1, 2) == ["Ada", "Grace"]


def test_readers_do_not_wait_for_a_refresh(cache: GalleryCache, store: WatchedStore) -> None:
    """They get the previous state."""
    cache.index("default")
    store.add(make_template(2, "Grace"))
    store.read.clear()
    store.go_on.clear()
    with ThreadPoolExecutor() as pool:
        refreshing = pool.submit(cache.refresh)
        assert store.read.wait(TIMEOUT_SECONDS)
        assert names(cache.index("default"), 1, 2) == ["Ada", None]
        store.go_on.set()
        refreshing.result(TIMEOUT_SECONDS)
    assert names(cache.index("default"), 1, 2) == ["Ada", "Grace"]


def test_concurrent_first_readers_load_once(cache: GalleryCache, store: WatchedStore) -> None:
    """A hundred uploads at once cost one reading."""
    store.go_on.clear()
    with ThreadPoolExecutor(16) as pool:
        readers = [pool.submit(cache.index, "default") for _ in range(16)]
        assert store.read.wait(TIMEOUT_SECONDS)
        store.go_on.set()
        assert {id(reader.result(TIMEOUT_SECONDS)) for reader in readers} == {id(cache.index("default"))}
    assert store.asked["templates", "default"] == 1


def test_failed_first_load_is_retried(cache: GalleryCache, store: WatchedStore) -> None:
    """By the next request."""
    store.outage = Transient("the table is away")
    with pytest.raises(Transient):
        cache.index("default")
    store.outage = None
    assert names(cache.index("default"), 1) == ["Ada"]


def test_outage_keeps_the_last_gallery_and_is_logged_once(cache: GalleryCache, store: WatchedStore) -> None:
    """Its end is logged too."""
    cache.index("default")
    store.add(make_template(2, "Grace"))
    with capture_logs() as records:
        for outage in (Transient("the table is away"), Transient("the table is away"), None, None):
            store.outage = outage
            cache.refresh()
            if outage:
                assert names(cache.index("default"), 1, 2) == ["Ada", None]
    assert [record["event"] for record in records] == ["gallery_unreachable", "gallery_reachable_again"]
    assert names(cache.index("default"), 1, 2) == ["Ada", "Grace"]


def test_templates_of_another_model_are_left_out_with_one_warning(cache: GalleryCache, store: WatchedStore) -> None:
    """The warning has their number and a command."""
    store.add(make_template(2, "Grace", model_id=OTHER_MODEL))
    with capture_logs() as records:
        for _ in range(3):
            assert names(cache.index("default"), 1, 2) == ["Ada", None]
            cache.refresh()
    (warning,) = records
    assert (warning["event"], warning["log_level"]) == ("gallery_of_another_model", "warning")
    assert (warning["count"], warning["usable"], warning["models"]) == (1, 1, [OTHER_MODEL])
    assert warning["command"] == "facerec gallery rebuild --collection default"


def test_models_of_different_dimensions_share_a_collection(store: WatchedStore, tmp_path: Path) -> None:
    """Each model's templates keep their own dimension."""
    store.add(of_dimension(128, make_template(2, "Grace", model_id=OTHER_MODEL)))
    snapshots = [GallerySnapshots(tmp_path, "table", model, worth_writing=1) for model in (MODEL, OTHER_MODEL)]
    for _ in range(2):
        old, new = (
            GalleryCache(store, model, 3600, dimension=dimension, snapshots=kept)
            for model, dimension, kept in zip((MODEL, OTHER_MODEL), (512, 128), snapshots, strict=True)
        )
        assert names(old.index("default"), 1) == ["Ada"]
        ((match,),) = new.index("default").search(of_dimension(128, make_template(2)).embedding[None])
        assert (match.identity, round(match.similarity, 3)) == ("Grace", 1)
        store.add(of_dimension(128, make_template(3, "Edsger", model_id=OTHER_MODEL)))
        store.add(make_template(4, "Barbara"))
        old.refresh()
        new.refresh()
        assert names(old.index("default"), 4) == ["Barbara"]
        assert (len(old.index("default")), len(new.index("default"))) == (2, 2)
        store.remove("default", [make_template(number).template_id for number in (3, 4)])


def test_every_start_warns_of_a_gallery_of_another_model(tmp_path: Path) -> None:
    """A snapshot must not hide it from the next start."""
    lone = InMemoryTemplateStore()
    for number in range(5):
        lone.add(make_template(number, model_id=OTHER_MODEL))
    for _ in range(2):
        with capture_logs() as records:
            snapshots = GallerySnapshots(tmp_path, "table", MODEL, worth_writing=5)
            assert len(cache_of(lone, snapshots=snapshots).index("default")) == 0
        assert [(record["event"], record["count"]) for record in records] == [("gallery_of_another_model", 5)]


def test_cache_keeps_a_bounded_number_of_collections(store: WatchedStore) -> None:
    """The least recently used are evicted; invented names neither stay nor evict others."""
    for name in ("a", "b", "c"):
        store.add(make_template(1, "Ada", name))
    cache = cache_of(store, max_collections=2)
    for name in ("a", "b", "a", "made up 1", "made up 2", "made up 3", "c"):
        cache.index(name)
    store.asked.clear()
    cache.refresh()
    assert set(store.asked) == {("version", "a"), ("version", "c")}
    assert names(cache.index("b"), 1) == ["Ada"]


def broken(number: int, embedding: Any, identity: str = "Grace") -> Template:
    """A template with this embedding."""
    return replace(make_template(number, identity), embedding=np.asarray(embedding, dtype=np.float32))


BROKEN: dict[str, Callable[[], Template]] = {
    "another dimension": lambda: of_dimension(128, make_template(0, "Grace")),
    "no numbers": lambda: broken(0, []),
    "two axes": lambda: broken(0, make_template(0).embedding[None]),
    "not a number": lambda: broken(0, np.full(512, np.nan)),
    "infinite": lambda: broken(0, np.full(512, np.inf)),
    "huge": lambda: broken(0, np.full(512, 3e38)),
    "zero": lambda: broken(0, np.zeros(512)),
    "too long": lambda: broken(0, make_template(0).embedding * 1.0021),
    "too short": lambda: broken(0, make_template(0).embedding * 0.9),
    "no name": lambda: make_template(0, " "),
}


@pytest.mark.parametrize("damage", BROKEN)
def test_damaged_template_stops_neither_a_start_nor_a_refresh(store: WatchedStore, damage: str) -> None:
    """It is left out, counted, and logged with its id and the command that removes it; without a name."""
    running = cache_of(store)
    running.index("default")
    bad = BROKEN[damage]()
    store.add(bad)
    store.add(make_template(2, "Alan"))
    with capture_logs() as records:
        running.refresh()
        starting = cache_of(store)
        starting.index("default")
    for cache in (running, starting):
        assert names(cache.index("default"), 1, 2) == ["Ada", "Alan"]
        assert len(cache.index("default")) == 2
        assert cache.sizes().damaged == 1
    assert [record["event"] for record in records] == ["gallery_templates_damaged"] * 2
    for record in records:
        assert (record["collection"], record["count"], record["template_ids"]) == ("default", 1, [bad.template_id])
        assert record["command"] == f"facerec gallery remove --collection default --template {bad.template_id}"
        assert "Grace" not in str(record)
    store.remove("default", [bad.template_id])
    for cache in (running, starting):
        cache.refresh()
        assert cache.sizes().damaged == 0


def test_collection_of_damaged_templates_alone_is_empty(store: WatchedStore) -> None:
    """Nobody is recognised, and the next enrolment is."""
    store.remove("default", [make_template(1).template_id])
    store.add(BROKEN["another dimension"]())
    cache = cache_of(store)
    assert names(cache.index("default"), 1) == [None]
    store.add(make_template(1, "Ada"))
    cache.refresh()
    assert names(cache.index("default"), 1) == ["Ada"]


def test_template_that_is_replaced_by_a_damaged_one_is_not_found(store: WatchedStore) -> None:
    """The index does not keep what the store no longer has."""
    cache = cache_of(store)
    cache.index("default")
    store.remove("default", [make_template(1).template_id])
    store.add(broken(1, np.zeros(512), "Ada"))
    cache.refresh()
    assert len(cache.index("default")) == 0
    assert cache.sizes().damaged == 1


def test_template_that_is_replaced_by_another_model_is_not_found(store: WatchedStore) -> None:
    """An import without photos keeps the ids of its file."""
    cache = cache_of(store)
    cache.index("default")
    store.remove("default", [make_template(1).template_id])
    store.add(make_template(1, "Ada", model_id=OTHER_MODEL))
    cache.refresh()
    assert len(cache.index("default")) == 0


def test_unreadable_templates_of_the_store_are_counted(store: WatchedStore) -> None:
    """Also those that appear later."""
    unreadable = [DamagedTemplate("a", "its identity is missing")]
    store.damaged = unreadable
    cache = cache_of(store)
    cache.index("default")
    assert cache.sizes().damaged == 1
    store.damaged = [*unreadable, DamagedTemplate("b", "its identity is missing")]
    store.add(make_template(2))
    cache.refresh()
    assert cache.sizes().damaged == 2
    assert len(cache.index("default")) == 2


def test_start_from_a_snapshot_knows_the_damaged_templates(store: WatchedStore, tmp_path: Path) -> None:
    """The count does not fall because a worker was started."""
    store.add(BROKEN["not a number"]())
    snapshots = GallerySnapshots(tmp_path, "table", MODEL, worth_writing=1)
    cache_of(store, snapshots=snapshots).index("default")
    with capture_logs() as records:
        cache = cache_of(store, snapshots=snapshots)
        cache.index("default")
    assert store.asked["templates", "default"] == 1
    assert cache.sizes().damaged == 1
    assert "gallery_templates_damaged" in [record["event"] for record in records]


def test_snapshot_of_another_dimension_is_replaced(store: WatchedStore, tmp_path: Path) -> None:
    """Such as an earlier release wrote when the first template of a collection was damaged."""
    snapshots = GallerySnapshots(tmp_path, "table", MODEL, worth_writing=1)
    short = of_dimension(128, make_template(1)).embedding[None]
    snapshots.save("default", store.version("default"), GalleryIndex(short, ["Ada"], ["1"]))
    for _ in range(2):
        cache = cache_of(store, snapshots=snapshots)
        assert names(cache.index("default"), 1) == ["Ada"]
    assert store.asked["templates", "default"] == 1


def contents(directory: Path) -> bytes:
    """Everything that the files of a directory hold."""
    return b"".join(path.read_bytes() for path in sorted(directory.iterdir()))


def test_removed_person_is_in_no_snapshot_after_a_refresh(store: WatchedStore, tmp_path: Path) -> None:
    """Neither the name nor the template; the others stay, and a start still reads the snapshot."""
    gone = make_template(2, "Grace Hopper")
    store.add(gone)
    snapshots = GallerySnapshots(tmp_path, "table", MODEL, worth_writing=2)
    cache = cache_of(store, snapshots=snapshots)
    cache.index("default")
    store.add(make_template(3, "Alan"))
    cache.refresh()
    assert b"Grace Hopper" in contents(tmp_path)
    store.remove("default", [gone.template_id])
    cache.refresh()
    for trace in (b"Grace Hopper", gone.template_id.encode(), gone.embedding.tobytes()):
        assert trace not in contents(tmp_path)
    assert "Grace Hopper" not in cache.index("default").names
    store.asked.clear()
    assert names(cache_of(store, snapshots=snapshots).index("default"), 1, 2, 3) == [
        "Ada",
        None,
        "Alan",
    ]
    assert not store.asked["templates", "default"]


def test_removal_from_a_small_collection_deletes_its_snapshot(store: WatchedStore, tmp_path: Path) -> None:
    """It is too small for another one; also when the whole collection is removed."""
    for number in range(2, 6):
        store.add(make_template(number, f"person {number}"))
    snapshots = GallerySnapshots(tmp_path, "table", MODEL, worth_writing=5)
    cache = cache_of(store, snapshots=snapshots)
    cache.index("default")
    assert len(list(tmp_path.iterdir())) == 1
    store.remove("default", [make_template(number).template_id for number in range(1, 6)])
    cache.refresh()
    assert list(tmp_path.iterdir()) == []
    assert set(cache.index("default").names) <= {""}


def test_rename_leaves_the_old_name_in_no_snapshot(store: WatchedStore, tmp_path: Path) -> None:
    """A photo that was removed and enrolled under another name between two refreshes."""
    snapshots = GallerySnapshots(tmp_path, "table", MODEL, worth_writing=1)
    cache = cache_of(store, snapshots=snapshots)
    cache.index("default")
    store.remove("default", [make_template(1).template_id])
    store.add(make_template(1, "Augusta"))
    cache.refresh()
    assert b"Ada" not in contents(tmp_path)
    assert "Ada" not in cache.index("default").names
    assert names(cache.index("default"), 1) == ["Augusta"]


def test_template_that_is_read_twice_leaves_the_snapshot_alone(
    store: WatchedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was enrolled while the collection was read, and comes again with the changes."""
    before = store.version("default")
    store.add(make_template(2, "Grace"))
    cache = cache_of(store, snapshots=GallerySnapshots(tmp_path, "table", MODEL, worth_writing=2))
    with monkeypatch.context() as patch:
        patch.setattr(store, "version", lambda _: before)
        cache.index("default")
    (path,) = tmp_path.iterdir()
    written = path.stat().st_ino
    cache.refresh()
    assert names(cache.index("default"), 1, 2) == ["Ada", "Grace"]
    assert path.stat().st_ino == written


def test_removal_of_one_photo_keeps_the_person(store: WatchedStore, tmp_path: Path) -> None:
    """The removed embedding is gone from the file, the name is not."""
    store.add(make_template(2, "Ada"))
    snapshots = GallerySnapshots(tmp_path, "table", MODEL, worth_writing=1)
    cache = cache_of(store, snapshots=snapshots)
    cache.index("default")
    store.remove("default", [make_template(2).template_id])
    cache.refresh()
    assert make_template(2).embedding.tobytes() not in contents(tmp_path)
    assert names(cache.index("default"), 1, 2) == ["Ada", None]


@pytest.mark.parametrize("renamed", [False, True])
def test_removal_deletes_the_snapshot_of_a_collection_in_no_memory(
    store: WatchedStore, tmp_path: Path, *, renamed: bool
) -> None:
    """A worker that was started since has not loaded it; an addition leaves it alone."""
    for number, name in ((1, "Ada"), (2, "Grace")):
        store.add(make_template(number, name, "staff"))
    snapshots = GallerySnapshots(tmp_path, "table", MODEL, worth_writing=1)
    cache_of(store, snapshots=snapshots).index("staff")
    cache = cache_of(store, snapshots=GallerySnapshots(tmp_path, "table", MODEL, worth_writing=9))
    cache.index("default")
    store.add(make_template(3, "Alan", "staff"))
    for _ in range(2):
        cache.refresh()
        assert len(list(tmp_path.iterdir())) == 1
    store.remove("staff", [make_template(2).template_id])
    if renamed:
        store.add(make_template(2, "Hopper", "staff"))
    cache.refresh()
    assert list(tmp_path.iterdir()) == []


def test_files_of_killed_writers_and_unreadable_ones_are_deleted(store: WatchedStore, tmp_path: Path) -> None:
    """A write in progress and the files of another store stay."""
    GallerySnapshots(tmp_path, "other table", MODEL).save(
        "default", 1, GalleryIndex(np.empty((0, 0), np.float32), [], [])
    )
    (other,) = tmp_path.iterdir()
    (tmp_path / "00.gallery").write_bytes(b"of an unknown format")
    abandoned, in_progress = tmp_path / ".01.gallery.abc", tmp_path / ".02.gallery.abc"
    for path in (abandoned, in_progress):
        path.write_bytes(b"Grace")
    os.utime(abandoned, (0, 0))
    cache = cache_of(store, snapshots=GallerySnapshots(tmp_path, "table", MODEL))
    cache.refresh()
    assert sorted(tmp_path.iterdir()) == sorted([in_progress, other])


def test_names_that_an_earlier_release_kept_are_deleted(store: WatchedStore, tmp_path: Path) -> None:
    """At the first start after the upgrade."""
    snapshots = GallerySnapshots(tmp_path, "table", MODEL, worth_writing=1)
    cache_of(store, snapshots=snapshots).index("default")
    (path,) = tmp_path.iterdir()
    with_old_name(path, "Grace Hopper")
    cache = cache_of(store, snapshots=snapshots)
    assert names(cache.index("default"), 1) == ["Ada"]
    assert store.asked["templates", "default"] == 1
    assert b"Grace Hopper" not in contents(tmp_path)
    assert "Grace Hopper" not in cache.index("default").names


def test_snapshot_that_is_slow_to_write_waits_after_a_removal(
    store: WatchedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is deleted at once, and written again at a refresh without a change."""
    store.add(make_template(2, "Grace"))
    snapshots = GallerySnapshots(tmp_path, "table", MODEL, worth_writing=1)
    cache = cache_of(store, snapshots=snapshots)
    cache.index("default")
    monkeypatch.setattr(snapshots, "due", lambda *_: False)
    store.remove("default", [make_template(2).template_id])
    cache.refresh()
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    cache.refresh()
    assert len(list(tmp_path.iterdir())) == 1
    assert b"Grace" not in contents(tmp_path)


def test_worker_that_is_behind_deletes_its_old_snapshot(tmp_path: Path) -> None:
    """It reads the whole collection, which may be too small for a snapshot now."""
    store = WatchedStore(kept_changes=1)
    for number in range(3):
        store.add(make_template(number, f"person {number}"))
    snapshots = GallerySnapshots(tmp_path, "table", MODEL, worth_writing=3)
    cache_of(store, snapshots=snapshots).index("default")
    for number in range(2):
        store.remove("default", [make_template(number).template_id])
    cache_of(store, snapshots=snapshots).index("default")
    assert list(tmp_path.iterdir()) == []


def test_two_workers_with_one_directory_forget_a_removed_person(store: WatchedStore, tmp_path: Path) -> None:
    """Whichever is first."""
    store.add(make_template(2, "Grace"))
    first, second = (
        cache_of(store, snapshots=GallerySnapshots(tmp_path, "table", MODEL, worth_writing=1)) for _ in range(2)
    )
    for cache in (first, second):
        cache.index("default")
    store.remove("default", [make_template(2).template_id])
    for cache in (first, second):
        cache.refresh()
        assert b"Grace" not in contents(tmp_path)
        assert "Grace" not in cache.index("default").names
    assert len(list(tmp_path.iterdir())) == 1


def test_file_that_is_replaced_while_it_is_opened_is_not_taken_over(
    store: WatchedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another worker wrote an older state: this one would miss the changes since."""
    older, version = cache_of(store).index("default"), store.version("default")
    store.add(make_template(2, "Grace"))

    def write_before_another(index: GalleryIndex, path: Path, key: str, *rest: Any) -> None:
        write(index, path, key, *rest)
        write(older, path, key, version)

    monkeypatch.setattr(gallery_snapshots, "write", write_before_another)
    cache = cache_of(store, snapshots=GallerySnapshots(tmp_path, "table", MODEL, worth_writing=1))
    assert names(cache.index("default"), 1, 2) == ["Ada", "Grace"]


def test_file_that_a_worker_behind_wrote_over_a_newer_one_is_deleted(store: WatchedStore, tmp_path: Path) -> None:
    """That worker was killed before its next refresh."""
    store.add(make_template(2, "Grace"))
    behind = GallerySnapshots(tmp_path, "table", MODEL)
    old = cache_of(store).index("default")
    version = store.version("default")
    cache = cache_of(store, snapshots=GallerySnapshots(tmp_path, "table", MODEL, worth_writing=1))
    cache.index("default")
    store.remove("default", [make_template(2).template_id])
    cache.refresh()
    behind.save("default", version, old)
    assert b"Grace" in contents(tmp_path)
    cache.refresh()
    assert list(tmp_path.iterdir()) == []


def test_file_that_is_older_than_the_last_check_is_checked_again(store: WatchedStore, tmp_path: Path) -> None:
    """A worker behind wrote it, of a collection that this one has not loaded."""
    for number, name in ((1, "Ada"), (2, "Grace")):
        store.add(make_template(number, name, "staff"))
    behind, old, version = GallerySnapshots(tmp_path, "table", MODEL), cache_of(store), store.version("staff")
    behind.save("staff", version, old.index("staff"))
    cache = cache_of(store, snapshots=GallerySnapshots(tmp_path, "table", MODEL))
    store.remove("staff", [make_template(2).template_id])
    for _ in range(2):
        cache.refresh()
        assert list(tmp_path.iterdir()) == []
        behind.save("staff", version, old.index("staff"))


@pytest.mark.parametrize("running", [False, True])
def test_snapshot_of_a_lost_table_is_deleted(store: WatchedStore, tmp_path: Path, *, running: bool) -> None:
    """The table was made again, and is empty."""
    snapshots = GallerySnapshots(tmp_path, "table", MODEL, worth_writing=1)
    cache = cache_of(store, snapshots=snapshots)
    cache.index("default")
    store.forget()
    if running:
        cache.refresh()
    else:
        cache_of(store, snapshots=snapshots).index("default")
    assert list(tmp_path.iterdir()) == []


def with_old_name(path: Path, name: str) -> None:
    """Add a name without a template to a snapshot, as earlier releases did."""
    content = path.read_bytes()
    trailer = struct.Struct("<8sQII")
    magic, length, _, _ = trailer.unpack(content[-trailer.size :])
    table = json.loads(content[-trailer.size - length : -trailer.size])
    start, size, _ = table["names"]
    listed = json.dumps([*json.loads(content[start : start + size]), name]).encode()
    body = content[: -trailer.size - length]
    table["names"] = [len(body), len(listed), zlib.crc32(listed)]
    packed = json.dumps(table).encode()
    path.write_bytes(body + listed + packed + trailer.pack(magic, len(packed), zlib.crc32(packed), 0))


def test_thread_refreshes_until_it_is_stopped(store: WatchedStore) -> None:
    """After `stop` the gallery stays readable and the store is not read."""
    cache = GalleryCache(store, MODEL, refresh_seconds=0.01, dimension=512)
    cache.index("default")
    cache.start()
    try:
        reload(store, lambda: store.add(make_template(2, "Grace")))
        reload(store, lambda: store.add(make_template(3, "Alan")))
    finally:
        cache.stop()
    assert names(cache.index("default"), 1, 2, 3) == ["Ada", "Grace", "Alan"]
    assert not [thread for thread in threading.enumerate() if thread.name == "gallery-refresh"]


def test_refresh_if_due_waits_for_the_refresh_seconds(store: WatchedStore) -> None:
    """A function asks for it at each invocation, and is frozen between two of them."""
    clock = [1000.0]
    cache = GalleryCache(store, MODEL, 2, dimension=512, now=lambda: clock[0])
    assert len(cache.index("default")) == 1
    store.add(make_template(2, "Grace"))
    clock[0] += 1.9
    cache.refresh_if_due()
    assert len(cache.index("default")) == 1
    clock[0] += 0.2
    cache.refresh_if_due()
    assert len(cache.index("default")) == 2
    asked = store.asked["version", "default"]
    clock[0] += 1.9
    cache.refresh_if_due()
    assert store.asked["version", "default"] == asked


def test_refresh_if_due_refreshes_in_one_thread(store: WatchedStore) -> None:
    """The others of a batch go on with what is loaded."""
    cache = GalleryCache(store, MODEL, 0, dimension=512)
    cache.index("default")
    store.add(make_template(2, "Grace"))
    store.read.clear()
    store.go_on.clear()
    with ThreadPoolExecutor(1) as threads:
        refreshing = threads.submit(cache.refresh_if_due)
        assert store.read.wait(TIMEOUT_SECONDS)
        cache.refresh_if_due()
        assert store.asked["changes", "default"] == 1
        store.go_on.set()
        refreshing.result(TIMEOUT_SECONDS)
    assert len(cache.index("default")) == 2


def test_thread_continues_after_an_unexpected_error(store: WatchedStore) -> None:
    """The error is logged, and the next change is seen."""
    cache = GalleryCache(store, MODEL, refresh_seconds=0.01, dimension=512)
    cache.index("default")
    with capture_logs() as records:
        cache.start()
        try:
            store.unreadable = "default"
            reload(store, lambda: store.add(make_template(2, "Grace")))
            store.unreadable = None
            reload(store, lambda: store.add(make_template(3, "Alan")))
        finally:
            cache.stop()
    assert "gallery_refresh_failed" in {record["event"] for record in records}
    cache.refresh()
    assert names(cache.index("default"), 1, 3) == ["Ada", "Alan"]


def test_refresh_reads_only_the_change(cache: GalleryCache, store: WatchedStore) -> None:
    """Whatever the size of the collection; readers keep their index."""
    index = cache.index("default")
    store.add(make_template(2, "Grace"))
    store.remove("default", [make_template(1).template_id])
    cache.refresh()
    assert names(index, 1, 2) == [None, "Grace"]
    assert cache.index("default") is index
    assert store.asked["templates", "default"] == 1


def test_refresh_reads_the_whole_collection_when_changes_are_gone() -> None:
    """No template is missed."""
    store = WatchedStore(kept_changes=2)
    cache = cache_of(store)
    store.add(make_template(1, "Ada"))
    cache.index("default")
    for number, name in ((2, "Grace"), (3, "Alan"), (4, "Edsger")):
        store.add(make_template(number, name))
    store.remove("default", [make_template(1).template_id])
    cache.refresh()
    assert names(cache.index("default"), 1, 2, 3, 4) == [None, "Grace", "Alan", "Edsger"]
    assert store.asked["templates", "default"] == 2


def test_start_reads_the_snapshot_and_the_changes(store: WatchedStore, tmp_path: Path) -> None:
    """A removed person does not return."""
    snapshots = GallerySnapshots(tmp_path, "table", MODEL, worth_writing=1)
    cache_of(store, snapshots=snapshots).index("default")
    store.add(make_template(2, "Grace"))
    store.remove("default", [make_template(1).template_id])
    store.asked.clear()
    assert names(cache_of(store, snapshots=snapshots).index("default"), 1, 2) == [None, "Grace"]
    assert store.asked == {("changes", "default"): 1}
    assert len(list(tmp_path.iterdir())) == 1


def test_damaged_snapshot_is_replaced(store: WatchedStore, tmp_path: Path) -> None:
    """With a warning; the next start finds a good one."""
    snapshots = GallerySnapshots(tmp_path, "table", MODEL, worth_writing=1)
    cache_of(store, snapshots=snapshots).index("default")
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-100])
    with capture_logs() as records:
        for _ in range(2):
            assert names(cache_of(store, snapshots=snapshots).index("default"), 1) == ["Ada"]
    assert [record["event"] for record in records] == ["gallery_snapshot_unusable", "gallery_snapshot_loaded"]


def test_snapshot_of_another_store_or_model_is_ignored(store: WatchedStore, tmp_path: Path) -> None:
    """Two tables, or two models, may share a machine."""
    cache_of(store, snapshots=GallerySnapshots(tmp_path, "table", MODEL, worth_writing=1)).index("default")
    assert GallerySnapshots(tmp_path, "table", MODEL).load("default") is not None
    assert GallerySnapshots(tmp_path, "other table", MODEL).load("default") is None
    assert GallerySnapshots(tmp_path, "table", OTHER_MODEL).load("default") is None
    assert GallerySnapshots(tmp_path, "table", MODEL).load("staff") is None


def test_snapshot_that_cannot_be_written_is_logged(store: WatchedStore, tmp_path: Path) -> None:
    """The gallery then stays in memory."""
    (tmp_path / "occupied").write_text("a file, not a directory")
    snapshots = GallerySnapshots(tmp_path / "occupied", "table", MODEL, worth_writing=1)
    with capture_logs() as records:
        assert names(cache_of(store, snapshots=snapshots).index("default"), 1) == ["Ada"]
    assert "gallery_snapshot_not_written" in {record["event"] for record in records}


def test_unreadable_collection_does_not_stop_the_others(cache: GalleryCache, store: WatchedStore) -> None:
    """It keeps its last state, and is refreshed once it is readable."""
    store.add(make_template(2, "Grace", "staff"))
    for collection in ("default", "staff"):
        cache.index(collection)
    fresh_at = cache.sizes().fresh_at
    store.unreadable = "default"
    store.add(make_template(3, "Alan"))
    store.add(make_template(4, "Edsger", "staff"))
    with capture_logs() as records:
        cache.refresh()
        cache.refresh()
    assert names(cache.index("staff"), 2, 4) == ["Grace", "Edsger"]
    assert names(cache.index("default"), 1) == ["Ada"]
    assert [(record["event"], record.get("collection")) for record in records] == [
        ("gallery_refresh_failed", "default")
    ]
    assert cache.sizes().fresh_at == fresh_at
    store.unreadable = None
    cache.refresh()
    assert names(cache.index("default"), 1, 3) == ["Ada", "Alan"]
    assert cache.sizes().fresh_at > fresh_at


def test_throttled_collection_does_not_stop_the_others(cache: GalleryCache, store: WatchedStore) -> None:
    """AWS throttles one partition of the table and answers for the others."""
    store.add(make_template(2, "Grace", "staff"))
    for collection in ("default", "staff"):
        cache.index(collection)
    store.add(make_template(3, "Alan"))
    store.add(make_template(4, "Edsger", "staff"))
    store.throttled = "default"
    with capture_logs() as records:
        cache.refresh()
    assert names(cache.index("staff"), 4) == ["Edsger"]
    assert [record["event"] for record in records] == ["gallery_refresh_failed"]
    store.throttled = None
    cache.refresh()
    assert names(cache.index("default"), 3) == ["Alan"]


def test_snapshot_damaged_on_disk_is_loaded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The damage shows when a block is rewritten, at the next start or before."""
    monkeypatch.setattr(vectors, "fastest", NumpyProducts)
    monkeypatch.setattr(GalleryIndex, "of_pieces", partial(GalleryIndex.of_pieces, block_rows=16))
    store = WatchedStore()
    people = {number: f"person {number}" for number in range(16)}
    for number, name in people.items():
        store.add(make_template(number, name))
    snapshots = GallerySnapshots(tmp_path, "table", MODEL, worth_writing=9)
    running = cache_of(store, snapshots=snapshots)
    running.index("default")
    (file,) = tmp_path.iterdir()
    with file.open("r+b") as rotten:
        rotten.write(bytes(16 * 2 * 512))
    store.remove("default", [make_template(number).template_id for number in range(9)])
    left = [None] * 9 + [people[number] for number in range(9, 16)]
    with capture_logs() as records:
        starting = cache_of(store, snapshots=snapshots)
        assert names(starting.index("default"), *people) == left
        running.refresh()
        running.refresh()
    assert names(running.index("default"), *people) == left
    assert [record["event"] for record in records if record["log_level"] != "info"] == [
        "gallery_snapshot_unusable",
        "gallery_refresh_failed",
        "gallery_snapshot_damaged",
    ]


def test_gallery_over_a_damaged_file_is_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old file stays, with a warning."""
    monkeypatch.setattr(vectors, "fastest", NumpyProducts)
    path = tmp_path / "s"
    rows = np.stack([make_template(number).embedding for number in range(16)])
    names_ = [str(number) for number in range(16)]
    write(GalleryIndex(rows, names_, names_, block_rows=16), path, "key", 1)
    index, _ = open_snapshot(path, "key")
    path.write_bytes(b"")
    snapshots = GallerySnapshots(tmp_path / "galleries", "table", MODEL)
    with capture_logs() as records:
        assert snapshots.save("default", 1, index) is None
    assert [record["event"] for record in records] == ["gallery_snapshot_not_written"]
    assert list((tmp_path / "galleries").iterdir()) == []


def test_snapshot_directory_that_cannot_be_read_is_logged(store: WatchedStore, tmp_path: Path) -> None:
    """The gallery is read from the store."""
    snapshots = GallerySnapshots(tmp_path / ("x" * 300), "table", MODEL, worth_writing=1)
    with capture_logs() as records:
        assert names(cache_of(store, snapshots=snapshots).index("default"), 1) == ["Ada"]
    assert [record["event"] for record in records] == [
        "gallery_snapshot_unusable",
        "gallery_snapshot_not_deleted",
        "gallery_snapshot_not_written",
    ]


class Crowd(InMemoryTemplateStore):
    """A large collection, made up while it is read."""

    SIZE = 10_000

    def version(self, collection: str) -> int:
        """It has one."""
        return 1 if collection == "default" else 0

    def templates(self, collection: str, damaged: list[DamagedTemplate] | None = None) -> Iterator[Template]:
        """Templates whose embeddings repeat, each in memory of its own."""
        del damaged
        templates = [make_template(number) for number in range(16)]
        for number in range(self.SIZE):
            template = templates[number % len(templates)]
            yield replace(template, template_id=f"{number:032x}", embedding=template.embedding.copy())


def test_large_collection_is_read_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first start needs little more memory than the next."""
    monkeypatch.setattr(vectors, "fastest", NumpyProducts)
    monkeypatch.setattr(GalleryIndex, "of_pieces", partial(GalleryIndex.of_pieces, block_rows=1024))
    monkeypatch.setattr(loading, "_READ_AT_ONCE", 256)
    cache = cache_of(Crowd(), snapshots=GallerySnapshots(tmp_path, "table", MODEL))
    tracemalloc.start()
    try:
        index = cache.index("default")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(index) == Crowd.SIZE
    assert peak < Crowd.SIZE * 4 * 512  # the embeddings alone
    assert names(index, 3, 17) == ["Ada Lovelace", None]
    assert len(list(tmp_path.iterdir())) == 1


def reload(store: WatchedStore, change: Callable[[], object]) -> None:
    """Make a change, and wait until the thread has begun to read it."""
    store.read.clear()
    change()
    assert store.read.wait(TIMEOUT_SECONDS)


def test_known_name_is_that_of_the_gallery_now() -> None:
    """A removed name is forgotten, and one that nobody has is not remembered."""
    store = InMemoryTemplateStore()
    store.add(make_template(1, "Ada Lovelace"))
    cache = GalleryCache(store, MODEL, 1, dimension=512)
    assert cache.known_name("default", "ada LOVELACE") == "Ada Lovelace"
    assert cache.known_name("default", "GRACE hopper") == "GRACE hopper"
    store.add(make_template(2, "Grace Hopper"))
    cache.refresh_collection("default")
    assert cache.known_name("default", "GRACE hopper") == "Grace Hopper"
    store.remove("default", [make_template(1).template_id])
    cache.refresh_collection("default")
    assert cache.known_name("default", "ada LOVELACE") == "ada LOVELACE"
    assert cache.known_name("default", "grace hopper", exact=True) == "grace hopper"
    with pytest.raises(InvalidName):
        cache.known_name("default", "Unknown")


def test_refresh_of_one_collection_leaves_the_others() -> None:
    """And does nothing for one that is not loaded."""
    store = WatchedStore()
    for collection in ("staff", "guests"):
        store.add(make_template(1, collection=collection))
    cache = GalleryCache(store, MODEL, 1, dimension=512)
    assert len(cache.index("staff")) == len(cache.index("guests")) == 1
    for collection in ("staff", "guests", "others"):
        store.add(make_template(2, "Grace Hopper", collection=collection))
        asked = store.asked["version", "guests"]
        cache.refresh_collection("others" if collection == "others" else "staff")
        assert store.asked["version", "guests"] == asked
    assert (len(cache.index("staff")), len(cache.index("guests"))) == (2, 1)
