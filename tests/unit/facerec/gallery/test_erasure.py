"""Erasures: what is removed at once, what is owed, and when an erasure is complete."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from facerec.erasure_records import ErasureRecord, Place, PlaceState, ReaderKind, ReaderReport
from facerec.errors import LeaseLost, Transient
from facerec.gallery.erasure import Erasures, subject_hash
from facerec.gallery.removal import is_thumbnail, thumbnail_key
from facerec.message_base import ObjectRef
from facerec.messages import Face, Outcome, RecognitionRequest, RecognitionResult, ResultBox, ResultMatch
from facerec.object_keys import input_key
from facerec.operations import Verify
from facerec.ports import ListedObject, MergeRecord
from facerec.settings import Settings
from facerec.stored_results import store_result
from facerec.unknown_records import companion
from tests.fakes.erasures import FakeErasures
from tests.fakes.object_store import InMemoryObjectStore
from tests.fakes.person_records import InMemoryPersonRecords
from tests.fakes.templates import InMemoryTemplateStore, make_template

SETTINGS = Settings()
ADA, ALAN = "Ada Lovelace", "Alan Turing"
SNAPSHOT = "!snapshots/default/model/"


class World:
    """Two people with photos and results, and a clock that the test moves."""

    def __init__(self) -> None:
        self.at = datetime(2026, 3, 1, 12, tzinfo=UTC)
        self.objects = InMemoryObjectStore(now=self.now)
        self.templates, self.people = InMemoryTemplateStore(), InMemoryPersonRecords()
        self.fakes = FakeErasures(
            settings=SETTINGS, objects=self.objects, templates=self.templates, people=self.people, now=self.now
        )
        self.erasures = self.fakes.make()
        for number, name in ((1, ADA), (2, ADA), (3, ALAN)):
            self.enrol(number, name)
        self.objects.put(SETTINGS.gallery_bucket, f"{SNAPSHOT}{1:020d}-abc", b"both", "application/octet-stream")

    def now(self) -> datetime:
        """Return the time."""
        return self.at

    def enrol(self, number: int, name: str, collection: str = "default") -> None:
        """Enrol a photo."""
        self.put_photo(number, collection)
        self.add_template(number, name, collection)

    def put_photo(self, number: int, collection: str = "default", filename: str = "photo.jpg") -> str:
        """Store a photo with its thumbnail, as the first half of an enrolment; returns its key."""
        key, small = f"{collection}/{number:032x}/{filename}", thumbnail_key(collection, f"{number:032x}")
        self.objects.put(SETTINGS.gallery_bucket, key, b"photo", "image/jpeg")
        self.objects.put(SETTINGS.gallery_bucket, small, b"small", "image/jpeg")
        return key

    def add_template(self, number: int, name: str, collection: str = "default", filename: str = "photo.jpg") -> None:
        """Add a template, as the second half."""
        photo = ObjectRef(bucket=SETTINGS.gallery_bucket, key=f"{collection}/{number:032x}/{filename}", size=5)
        self.templates.add(replace(make_template(number, name, collection), photo=photo))

    def recognised(self, name: str, collection: str = "default", *, copied: bool = False) -> UUID:
        """Store an upload and its result."""
        request_id = uuid4()
        match = ResultMatch(identity=name, similarity=0.8, threshold=0.5, template_id="0" * 32)
        box = ResultBox(x_min=1, y_min=1, x_max=9, y_max=9)
        result = RecognitionResult(
            request_id=request_id,
            result=name,
            filename="visitor.jpg",
            outcome=Outcome.MATCH,
            collection=collection,
            faces=(Face(box=box, probability=0.9, landmarks=(), matches=(match,)),),
            completed_at=self.at,
        )
        self.objects.put(SETTINGS.input_bucket, input_key(request_id, "visitor.jpg"), b"jpeg", "image/jpeg")
        if copied:
            self.objects.put(SETTINGS.input_bucket, "visitor.jpg", b"jpeg", "image/jpeg")
        store_result(self.objects, SETTINGS.output_bucket, result, copy_by_filename=copied)
        return request_id

    def pass_(self, record: ErasureRecord, erasures: Erasures | None = None) -> ErasureRecord:
        """Work once, when the time for it has come."""
        self.at += timedelta(seconds=30)
        done = (erasures or self.erasures).work(record.erasure_id)
        assert done is not None
        return done

    def report(self, reader_id: str, kind: ReaderKind, version: int | None, *, clean: bool = True) -> None:
        """Let a reader report the version that it has applied; None: it does not hold the collection."""
        held = {} if version is None else {"default": version}
        self.fakes.readers.report(
            ReaderReport(
                reader_id=reader_id, kind=kind, where="here", collections=held, clean=clean, reported_at=self.at
            )
        )

    def stored(self) -> list[str]:
        """Every key of all buckets, without those of thumbnails."""
        buckets = (SETTINGS.input_bucket, SETTINGS.output_bucket, SETTINGS.gallery_bucket)
        return [key for bucket in buckets for key in self.objects.keys(bucket) if not is_thumbnail(key)]

    def thumbnails(self) -> list[str]:
        """The keys of the thumbnails."""
        return [key for key in self.objects.keys(SETTINGS.gallery_bucket) if is_thumbnail(key)]


@pytest.fixture
def world() -> World:
    """Make a world."""
    return World()


def begin(world: World, name: str = ADA) -> ErasureRecord:
    """Begin to erase a person."""
    begun = world.erasures.begin("default", name, "front desk")
    assert begun is not None
    return begun.record


def owed(record: ErasureRecord) -> set[str]:
    """Return the names of the places that are tried again."""
    return {place.name for place in record.still_owed}


def test_begin_removes_templates_photos_and_snapshots_at_once(world: World) -> None:
    """Nobody but the person loses something."""
    record = begin(world)
    assert set(world.templates.owners("default").values()) == {ALAN}
    assert [key for key in world.stored() if "photo" in key] == [f"default/{3:032x}/photo.jpg"]
    assert not [key for key in world.stored() if key.startswith("!")]
    counts = {name: record.place(name).removed for name in ("templates", "photos", "published snapshots")}
    assert counts == {"templates": 2, "photos": 2, "published snapshots": 1}


def test_thumbnail_goes_and_stays_with_its_photo(world: World) -> None:
    """Of a person, of a single photo, of a collection; a photo that was enrolled again keeps its own."""
    begin(world)
    assert world.thumbnails() == [thumbnail_key("default", f"{3:032x}")]
    for number in (4, 5):
        world.enrol(number, ALAN)
    begun = world.erasures.begin_photos("default", [f"{4:032x}"], "front desk", photos_now=True)
    assert begun is not None
    assert begun.record.place("photos").removed == 1
    assert world.thumbnails() == [thumbnail_key("default", f"{number:032x}") for number in (3, 5)]
    record = world.erasures.begin_collection("default", "me").record
    world.at += timedelta(seconds=2)
    world.enrol(5, ALAN)
    world.at += timedelta(seconds=2)
    world.pass_(record)
    assert world.thumbnails() == [thumbnail_key("default", f"{5:032x}")]


def test_begin_knows_every_spelling_and_the_names_merged_into_a_person(world: World) -> None:
    """Results of before the merge have the earlier name."""
    world.people.add_name("default", "ada lovelace")
    merge = MergeRecord(
        merge_id="0" * 32, collection="default", source="A. King", into=ADA, templates={}, merged_at=world.at, by=""
    )
    world.people.put_merge(merge)
    earlier = world.recognised("A. King")
    record = begin(world, "ADA  lovelace")
    assert record.names == ("A. King", ADA, "ada lovelace")
    world.pass_(record)
    assert not [key for key in world.stored() if key.startswith(str(earlier))]
    assert (world.people.names("default"), world.people.merges("default")) == ([], [])


def test_begin_without_such_a_person_does_nothing(world: World) -> None:
    """Nothing is recorded either."""
    assert world.erasures.begin("default", "Grace Hopper", "me") is None
    assert world.erasures.begin("other", ADA, "me") is None
    assert world.erasures.open() == []


def test_results_and_uploads_of_the_person_are_erased(world: World) -> None:
    """Those of other people, and of a namesake in another collection, stay."""
    erased, other = world.recognised(ADA), world.recognised(ALAN)
    namesake = world.recognised(ADA, collection="club")
    record = world.pass_(begin(world))
    found = {key.split("/")[0] for key in world.stored()}
    assert str(erased) not in found
    assert {str(other), str(namesake)} <= found
    assert (record.place("results").removed, record.place("uploads").removed) == (1, 1)


def test_copies_under_the_own_name_of_a_file_are_erased(world: World) -> None:
    """`FACEREC_KEY_STYLE=filename`: unless another upload of this name has replaced them."""
    world.recognised(ADA, copied=True)
    world.pass_(begin(world))
    assert not [key for key in world.stored() if key.startswith("visitor")]
    world.recognised(ADA, copied=True)
    world.recognised(ALAN, copied=True)
    world.enrol(4, ADA)
    world.pass_(begin(world))
    assert sorted(key for key in world.stored() if key.startswith("visitor")) == ["visitor", "visitor.jpg"]


def test_list_of_many_results_loses_the_lines_of_the_person_alone(world: World) -> None:
    """As a job writes it, as JSON Lines or CSV."""
    csv = f'file,name\r\na.jpg,{ADA}\r\nb.jpg,"{ALAN}"\r\n'
    lines = f'{{"result": "{ADA}"}}\n{{"result": "{ALAN}"}}\n'
    for key, text in (("jobs/1/results.csv", csv), ("jobs/1/results.jsonl", lines)):
        world.objects.put(SETTINGS.output_bucket, key, text.encode(), "text/plain")
    world.pass_(begin(world))
    assert (
        world.objects.get(SETTINGS.output_bucket, "jobs/1/results.csv") == f'file,name\r\nb.jpg,"{ALAN}"\r\n'.encode()
    )
    assert world.objects.get(SETTINGS.output_bucket, "jobs/1/results.jsonl") == f'{{"result": "{ALAN}"}}\n'.encode()


def test_erasure_without_readers_is_complete_after_its_passes(world: World) -> None:
    """Its names are gone then; a hash stays, which shows the name to whoever has the subject key."""
    begun = world.erasures.begin("default", ADA, "front desk")
    assert begun is not None
    record = world.pass_(begun.record)
    assert record.complete
    assert (record.names, record.template_ids) == ((), ())
    assert record.subject_hashes == (subject_hash(begun.subject_key, "default", ADA),)
    assert ADA not in record.to_json()
    assert begun.subject_key not in record.to_json()
    assert (world.erasures.open(), world.erasures.complete()) == ([], [record])


def test_process_that_is_behind_is_owed_until_it_reports_the_version(world: World) -> None:
    """Results are looked through again after it, because it could still recognise the person."""
    world.report("i-1:aa/1", ReaderKind.PROCESS, world.templates.version("default"))
    record = world.pass_(begin(world))
    assert owed(record) >= {"process i-1:aa/1", "readers", "results", "uploads"}
    late = world.recognised(ADA)
    world.report("i-1:aa/1", ReaderKind.PROCESS, record.version)
    record = world.pass_(record)
    assert record.complete
    assert record.place("process i-1:aa/1").confirmed_by == "i-1:aa/1"
    assert not [key for key in world.stored() if key.startswith(str(late))]


def test_disk_is_owed_until_its_processes_have_confirmed_and_it_reports_again(world: World) -> None:
    """A process that is behind may write an older snapshot once more."""
    begun = begin(world)
    world.report("i-1:aa/1", ReaderKind.PROCESS, 0)
    world.report("i-1:aa", ReaderKind.DISK, None)
    record = world.pass_(begun)
    assert owed(record) >= {"process i-1:aa/1", "disk i-1:aa"}
    world.report("i-1:aa/1", ReaderKind.PROCESS, begun.version)
    record = world.pass_(record)
    assert owed(record) == {"disk i-1:aa", "readers"}
    world.report("i-1:aa", ReaderKind.DISK, begun.version, clean=False)
    record = world.pass_(record)
    assert not record.complete
    world.report("i-1:aa", ReaderKind.DISK, begun.version)
    assert world.pass_(record).complete


def test_disk_that_its_last_process_has_left_clean_is_not_owed(world: World) -> None:
    """A worker ends in order while an erasure waits for it."""
    world.report("i-1:aa/1", ReaderKind.PROCESS, 0)
    world.report("i-1:aa", ReaderKind.DISK, None)
    record = world.pass_(begin(world))
    assert owed(record) >= {"process i-1:aa/1", "disk i-1:aa"}
    for reader_id in ("i-1:aa/1", "i-1:aa"):
        world.fakes.readers.forget(reader_id)
    record = world.pass_(world.pass_(record))
    assert record.complete
    assert "left no snapshot" in record.place("disk i-1:aa").detail


def test_disk_of_a_stopped_machine_is_owed_until_it_is_written_off(world: World) -> None:
    """Its results are not: it recognises nobody."""
    world.report("i-1:aa", ReaderKind.DISK, 1)
    record = begin(world)
    world.at += timedelta(days=30)
    record = world.pass_(record)
    assert owed(record) == {"disk i-1:aa", "readers"}
    assert "--write-off i-1:aa" in record.place("disk i-1:aa").detail
    assert record.names == (ADA,)
    world.fakes.readers.write_off("i-1:aa", "ops")
    record = world.pass_(record)
    assert record.complete
    assert record.place("disk i-1:aa").state is PlaceState.WRITTEN_OFF
    assert "ops" in record.place("disk i-1:aa").detail


def test_process_that_is_silent_for_a_day_has_ended(world: World) -> None:
    """One that is silent for an hour has not; one that ended in order is listed no more."""
    world.report("i-1:aa/1", ReaderKind.PROCESS, 0)
    world.report("i-2:bb/1", ReaderKind.PROCESS, 0)
    record = world.pass_(begin(world))
    world.fakes.readers.forget("i-2:bb/1")
    world.at += timedelta(hours=1)
    record = world.pass_(record)
    assert record.place("process i-2:bb/1").state is PlaceState.CONFIRMED
    assert record.place("process i-1:aa/1").state is PlaceState.OWED
    world.at += timedelta(days=1)
    record = world.pass_(record)
    assert record.place("process i-1:aa/1").state is PlaceState.WRITTEN_OFF
    assert record.complete


def test_dead_letters_that_name_the_person_are_removed(world: World) -> None:
    """Other dead letters stay."""
    for name in (ADA, ALAN):
        request = RecognitionRequest.model_validate(
            {
                "version": 2,
                "request_id": uuid4(),
                "input": {"bucket": "b", "key": "k", "size": 1},
                "filename": "x.jpg",
                "operation": Verify(identity=name),
                "submitted_at": world.at,
            }
        )
        world.fakes.dead_letters.move(request.to_json())
    record = world.pass_(begin(world))
    assert record.place("dead letters").removed == 1
    assert world.fakes.dead_letters.count() == 1


def test_queues_are_owed_until_each_was_empty_once(world: World) -> None:
    """Not all at the same time; what was sent before has expired after four days."""
    world.fakes.queues.held = {"requests": 2, "results": 1}
    record = world.pass_(begin(world))
    world.fakes.queues.held = {"requests": 0, "results": 1}
    record = world.pass_(record)
    assert "results" in record.still_owed[0].detail
    assert "requests" not in record.still_owed[0].detail
    world.fakes.queues.held = {"requests": 5, "results": 0}
    assert world.pass_(record).complete
    world.enrol(4, ADA)
    record = world.pass_(begin(world))
    assert not record.complete
    world.at += timedelta(days=4)
    assert world.pass_(record).complete


def test_snapshot_of_before_the_removal_is_deleted_when_its_writer_was_killed(world: World) -> None:
    """A later one stays."""
    record = begin(world)
    for version in (record.version - 1, record.version):
        key = f"{SNAPSHOT}{version:020d}-abc"
        world.objects.put(SETTINGS.gallery_bucket, key, b"x", "application/octet-stream")
    world.pass_(record)
    assert [key for key in world.stored() if key.startswith("!")] == [f"{SNAPSHOT}{record.version:020d}-abc"]


def test_last_photos_of_a_person_erase_the_person(world: World) -> None:
    """A person who keeps a photo keeps the results."""
    of_ada = world.recognised(ADA)
    begun = world.erasures.begin_photos("default", [f"{1:032x}"], "me")
    assert begun is not None
    assert begun.record.names == ()
    assert world.pass_(begun.record).complete
    assert [key for key in world.stored() if key.startswith(str(of_ada))]
    begun = world.erasures.begin_photos("default", [f"{2:032x}"], "me")
    assert begun is not None
    assert begun.record.names == (ADA,)
    world.pass_(begun.record)
    assert not [key for key in world.stored() if key.startswith(str(of_ada))]
    assert world.erasures.begin_photos("default", [f"{2:032x}"], "me") is None


def test_whole_collection_can_be_erased(world: World) -> None:
    """With the results of unknown people; another collection stays."""
    world.enrol(9, ADA, "club")
    world.people.add_name("default", "Grace Hopper")
    unknown, other = world.recognised("Unknown"), world.recognised(ADA, "club")
    record = world.pass_(world.erasures.begin_collection("default", "me").record)
    assert record.complete
    assert (world.templates.count("default"), world.people.names("default")) == (0, [])
    found = {key.split("/")[0] for key in world.stored()}
    assert {"club", str(other)} <= found
    assert {"default", str(unknown)}.isdisjoint(found)


def test_interrupted_erasure_is_completed_by_another_process(world: World) -> None:
    """Killed after the record was written, before anything was removed."""
    record = begin(world)
    world.enrol(1, ADA)
    world.fakes.ledger.add(record.model_copy(update={"version": 0, "places": ()}), "first", 60)
    other = world.fakes.make("second")
    assert other.work(record.erasure_id) is None
    world.at += timedelta(seconds=40)
    done = world.pass_(record, other)
    assert done.complete
    assert set(world.templates.owners("default").values()) == {ALAN}


def test_failure_of_one_place_leaves_the_others_to_be_tried(world: World) -> None:
    """It is owed, and tried again in the next pass."""
    world.fakes.readers.outage = Transient("the table cannot be reached")
    world.recognised(ADA)
    record = world.pass_(begin(world))
    assert record.place("results").removed == 1
    assert not record.complete
    assert record.next_pass_at > world.at
    world.fakes.readers.outage = None
    assert world.pass_(record).complete


def test_begin_that_cannot_remove_the_templates_raises_and_is_worked_off(world: World) -> None:
    """The client tries again, and the ledger does, too."""
    ids = world.templates.owners("default")
    world.objects.outage = Transient("the store cannot be reached")
    with pytest.raises(Transient):
        world.erasures.begin("default", ADA, "me")
    assert ids
    world.objects.outage = None
    (record,) = world.erasures.open()
    assert world.pass_(record).complete
    assert set(world.templates.owners("default").values()) == {ALAN}


def test_due_erasures_are_worked_with_a_growing_pause(world: World) -> None:
    """Each pass that leaves something doubles the pause."""
    world.report("i-1:aa", ReaderKind.DISK, 1)
    begin(world)
    pauses = []
    for _ in range(3):
        world.erasures.work_due()
        (record,) = world.erasures.open()
        pauses.append((record.next_pass_at - world.at).total_seconds())
        passes = record.passes
        world.erasures.work_due()
        assert world.erasures.open()[0].passes == passes
        world.at = record.next_pass_at
    assert 1 <= pauses[0] <= 2 <= pauses[1] <= 4 <= pauses[2] <= 8


def test_process_that_lost_its_lease_stops(world: World) -> None:
    """Another one works on the erasure by then."""
    record = begin(world)
    stolen = replace(world.erasures, later=[_Thief(world)])
    with pytest.raises(LeaseLost):
        stolen.work(record.erasure_id)


def test_due_erasure_that_fails_does_not_hold_up_the_others(world: World) -> None:
    """Each has its pass."""
    begun = {begin(world).erasure_id, begin(world, ALAN).erasure_id}
    thief = _Thief(world)
    with pytest.raises(LeaseLost):
        replace(world.erasures, later=[thief]).work_due()
    assert set(thief.seen) == begun


class _Thief:
    """A step that takes longer than the lease."""

    places = ("slow",)

    def __init__(self, world: World) -> None:
        self._world = world
        self.seen: list[str] = []

    def run(self, record: ErasureRecord) -> Iterator[Place]:
        """Let another process take the lease."""
        self.seen.append(record.erasure_id)
        self._world.at += timedelta(seconds=61)
        assert self._world.fakes.ledger.lease(record.erasure_id, "second", 60) is not None
        yield record.place("slow")


def test_photo_that_was_enrolled_again_stays(world: World) -> None:
    """A client may remove everyone and enrol anew before the photos' turn has come."""
    record = world.erasures.begin_collection("default", "me").record
    world.at += timedelta(seconds=2)
    world.enrol(1, ADA)
    world.enrol(7, ADA)
    result = world.recognised(ADA)
    world.at += timedelta(seconds=2)
    world.pass_(record)
    found = world.stored()
    assert [key for key in found if key.endswith("photo.jpg")] == [f"default/{n:032x}/photo.jpg" for n in (1, 7)]
    assert str(result) not in {key.split("/")[0] for key in found}


class EnrolsMeanwhile(InMemoryObjectStore):
    """Calls `enrol` as soon as photos are listed."""

    enrol: Callable[[], None] | None = None

    def listed(self, bucket: str, after: str = "", prefix: str = "") -> Iterator[ListedObject]:
        if self.enrol is not None:
            enrol, self.enrol = self.enrol, None
            enrol()
        yield from super().listed(bucket, after, prefix)


def many_photos() -> tuple[World, EnrolsMeanwhile, ErasureRecord]:
    """Begin to erase a person with so many photos that they are left to a later pass."""
    world = World()
    objects = world.objects = world.fakes.objects = EnrolsMeanwhile(now=world.now)
    for number in range(100, 301):
        world.enrol(number, "Many Photos")
    world.erasures = world.fakes.make()
    record = begin(world, "Many Photos")
    assert len([key for key in world.stored() if "photo" in key]) == 201
    return world, objects, record


def test_photo_of_a_person_enrolled_before_the_removal_goes_although_the_pass_was_interrupted(world: World) -> None:
    """The first pass could not begin; in the second the record could not be written after the removal."""
    world.people.outage = Transient("the table cannot be reached")
    with pytest.raises(Transient):
        world.fakes.make("failing").begin_photos("default", [f"{3:032x}"], "me")
    world.people.outage = None
    (record,) = world.fakes.ledger.open()
    world.enrol(8, ALAN)
    world.people.outage = Transient("the table cannot be reached")
    assert not world.pass_(record).version
    world.people.outage = None
    world.pass_(record)
    assert set(world.templates.owners("default").values()) == {ADA}
    assert [key for key in world.stored() if "photo" in key] == [f"default/{n:032x}/photo.jpg" for n in (1, 2)]


def test_photo_enrolled_again_while_photos_are_deleted_stays() -> None:
    """Under another file name, too, of which the old object goes; each template has its photo."""
    world, objects, record = many_photos()

    def enrol() -> None:
        world.enrol(100, "Many Photos")
        world.put_photo(299, filename="other.jpg")
        world.add_template(299, "Somebody Else", filename="other.jpg")

    objects.enrol = enrol
    record = world.pass_(record)
    left = [key for key in world.stored() if "photo" in key or "other" in key]
    assert left == [f"default/{100:032x}/photo.jpg", f"default/{299:032x}/other.jpg"]
    assert record.place("photos").removed == 200


@pytest.mark.parametrize("enrolled", [True, False])
def test_photo_of_an_enrolment_that_runs_is_left_to_a_later_pass(*, enrolled: bool) -> None:
    """Its template may follow; where none has, the photo is deleted after a minute."""
    world, _, record = many_photos()
    world.at += timedelta(seconds=20)
    key = world.put_photo(100)
    record = world.pass_(record)
    assert [each for each in world.stored() if "photo" in each] == [key]
    assert "photos" in owed(record)
    if enrolled:
        world.add_template(100, "Many Photos")
    world.at += timedelta(seconds=60)
    record = world.pass_(record)
    assert "photos" not in owed(record)
    assert [each for each in world.stored() if "photo" in each] == [key] * enrolled


def test_record_of_a_collection_is_small() -> None:
    """However many templates it had: an item of DynamoDB has 400 kB at most."""
    world = World()
    for number in range(1000):
        world.add_template(number + 1000, f"Person {number}")
    record = world.erasures.begin_collection("default", "me").record
    assert len(record.to_json()) < 10_000
    assert world.pass_(record).complete


def test_result_of_after_the_removal_stays(world: World) -> None:
    """Of a person who was enrolled again, when every process has applied the removal."""
    world.report("i-1:aa/1", ReaderKind.PROCESS, 0)
    record = world.pass_(begin(world))
    world.enrol(8, ADA)
    world.report("i-1:aa/1", ReaderKind.PROCESS, record.version)
    record = world.pass_(record.model_copy())
    assert record.complete
    again = world.recognised(ADA)
    assert str(again) in {key.split("/")[0] for key in world.stored()}


def test_erasure_of_a_collection_takes_the_faces_of_its_unknown_people_along() -> None:
    """They are stored apart from the people with names."""
    world = World()
    world.templates.add(make_template(9, "unknown-000000000001", companion("default")))
    world.templates.add(make_template(9, "unknown-000000000001", companion("other")))
    world.erasures.begin_collection("default", "operator")
    assert world.templates.collections_with_unknown() == ["other"]
