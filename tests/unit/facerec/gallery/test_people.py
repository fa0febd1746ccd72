"""The use cases of people: names, merges that can be taken back, and interruptions."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facerec.errors import FacerecError, Transient
from facerec.gallery import merges as merges_module
from facerec.gallery.merges import follow_replacements
from facerec.gallery.names import InvalidName
from facerec.gallery.people import (
    NoSuchMerge,
    NoSuchPerson,
    People,
    PersonExists,
    as_template_id,
)
from facerec.gallery.removal import thumbnail_key
from facerec.ports import MergeRecord
from tests.fakes.object_store import InMemoryObjectStore
from tests.fakes.person_records import InMemoryPersonRecords
from tests.fakes.templates import OTHER_MODEL, InMemoryTemplateStore, make_rejection, make_template

COLLECTION = "default"
BUCKET = "gallery"
AT_ONCE = 2
"""Templates that the failing store renames before it fails."""


class Interrupted(Transient):
    """The process or the network failed here."""


@dataclass
class Interruption:
    """Fails the write with this number, counted over both stores; 0 is none."""

    at: int = 0
    writes: int = 0

    def write(self) -> None:
        """Count a write."""
        self.writes += 1
        if self.writes == self.at:
            raise Interrupted("the connection was lost")


class InterruptedTemplates(InMemoryTemplateStore):
    """Renames some templates at a time, and may be interrupted before each time."""

    def __init__(self, interruption: Interruption) -> None:
        super().__init__()
        self.interruption = interruption

    def reassign(self, collection: str, template_ids: Sequence[str], identity: str) -> int:
        count = 0
        for start in range(0, len(template_ids), AT_ONCE):
            self.interruption.write()
            count += super().reassign(collection, template_ids[start : start + AT_ONCE], identity)
        return count

    def reassign_rejections(self, collection: str, rejection_ids: Sequence[str], identity: str) -> int:
        if rejection_ids:
            self.interruption.write()
        return super().reassign_rejections(collection, rejection_ids, identity)


class InterruptedRecords(InMemoryPersonRecords):
    """May be interrupted before each write."""

    def __init__(self, interruption: Interruption) -> None:
        super().__init__()
        self.interruption = interruption

    def add_name(self, collection: str, name: str) -> None:
        self.interruption.write()
        super().add_name(collection, name)

    def remove_name(self, collection: str, name: str) -> None:
        self.interruption.write()
        super().remove_name(collection, name)

    def put_merge(self, record: MergeRecord) -> None:
        self.interruption.write()
        super().put_merge(record)

    def remove_merge(self, collection: str, merge_id: str) -> None:
        self.interruption.write()
        super().remove_merge(collection, merge_id)


@dataclass
class Gallery:
    """The use cases over stores that may fail in between."""

    interruption: Interruption = field(default_factory=Interruption)
    minutes: int = 0

    def __post_init__(self) -> None:
        """Make the stores."""
        self.templates = InterruptedTemplates(self.interruption)
        self.records = InterruptedRecords(self.interruption)
        self.photos = InMemoryObjectStore()
        self.people = People(enrolled=self.templates, records=self.records, photos=self.photos, now=self.now)

    def now(self) -> datetime:
        """Each call is a minute later."""
        self.minutes += 1
        return datetime(2026, 12, 1, tzinfo=UTC) + timedelta(minutes=self.minutes)

    def enrol(self, name: str, *numbers: int) -> None:
        """Enrol templates of these numbers."""
        for number in numbers:
            self.templates.add(make_template(number, name))

    @property
    def rejected(self) -> list[str]:
        """Whom the rejections are about."""
        return [entry.identity for entry in self.templates.rejection_entries(COLLECTION)]

    @property
    def names(self) -> dict[int, str]:
        """The name of each template by its number."""
        return {int(identifier, 16): name for identifier, name in self.templates.owners(COLLECTION).items()}

    def of(self, name: str) -> set[int]:
        """The numbers of a person's templates."""
        return {number for number, owner in self.names.items() if owner == name}


@pytest.fixture
def gallery() -> Gallery:
    """Ada with three templates, Grace with two."""
    gallery = Gallery()
    gallery.enrol("Ada", 1, 2, 3)
    gallery.enrol("Grace", 4, 5)
    return gallery


def test_persons_are_listed_by_name_with_their_templates(gallery: Gallery) -> None:
    """Their number, the first and the last enrolment, and the models; a kept name has none."""
    late = replace(
        make_template(6, "Ada", model_id=OTHER_MODEL), enrolled_at=make_template(1).enrolled_at + timedelta(days=1)
    )
    gallery.templates.add(late)
    for name in ("Joan", "grace"):
        gallery.people.records.add_name(COLLECTION, name)
    ada, grace, joan = gallery.people.persons(COLLECTION)
    assert (ada.name, ada.templates, ada.first_enrolled, ada.last_enrolled) == (
        "Ada",
        4,
        make_template(1).enrolled_at,
        late.enrolled_at,
    )
    assert ada.models == tuple(sorted({make_template(1).model_id, OTHER_MODEL}))
    assert (grace.name, grace.templates) == ("Grace", 2)
    assert (joan.name, joan.templates, joan.first_enrolled, joan.models) == ("Joan", 0, None, ())


def test_persons_are_listed_in_pages(gallery: Gallery) -> None:
    """Those after a name, as many as the limit."""
    gallery.enrol("Joan", 6)
    pages = gallery.people
    assert [person.name for person in pages.persons(COLLECTION, limit=2)] == ["Ada", "Grace"]
    assert [person.name for person in pages.persons(COLLECTION, after="Grace", limit=2)] == ["Joan"]
    assert pages.persons(COLLECTION, after="Joan") == []


def test_person_is_found_under_every_spelling(gallery: Gallery) -> None:
    """With all its templates; with exact names only under its own."""
    gallery.enrol("ADA", 6)
    found = gallery.people.person(COLLECTION, " ada ")
    assert (found.name, found.spellings) == ("ADA", ("ADA", "Ada"))
    assert [int(entry.template_id, 16) for entry in found.entries] == [6, 1, 2, 3]
    assert gallery.people.person(COLLECTION, "Ada", exact=True).spellings == ("Ada",)


def test_unknown_person_is_refused_with_the_closest_name(gallery: Gallery) -> None:
    """A typing error is the usual reason."""
    for call in (
        lambda: gallery.people.person(COLLECTION, "Grade"),
        lambda: gallery.people.rename(COLLECTION, "Grade", "Joan"),
        lambda: gallery.people.merge(COLLECTION, "Grade", "Ada"),
        lambda: gallery.people.merge(COLLECTION, "Ada", "Grade"),
        lambda: gallery.people.template_ids(COLLECTION, "Grade"),
    ):
        with pytest.raises(NoSuchPerson, match=r"nobody is enrolled as 'Grade' in collection default: .*'Grace'"):
            call()


def test_kept_person_without_templates_is_shown_renamed_and_merged(gallery: Gallery) -> None:
    """As CompreFace's subjects are, which exist before their first face."""
    gallery.records.add_name(COLLECTION, "Joan")
    assert gallery.people.person(COLLECTION, "joan").entries == ()
    gallery.people.rename(COLLECTION, "Joan", "Joan Clarke")
    assert gallery.records.names(COLLECTION) == ["Joan Clarke"]
    gallery.people.merge(COLLECTION, "Ada", "Joan Clarke")
    assert gallery.of("Joan Clarke") == {1, 2, 3}


def test_rename_gives_every_template_the_new_name(gallery: Gallery) -> None:
    """Cleaned; nothing of the old name is left, also no record."""
    assert gallery.people.rename(COLLECTION, "ada", " Ada  King ") == 3
    assert gallery.of("Ada King") == {1, 2, 3}
    assert gallery.records.merges(COLLECTION) == []


def test_rename_to_another_spelling_makes_all_spellings_one(gallery: Gallery) -> None:
    """It is the way to correct a name."""
    gallery.enrol("ADA", 6)
    gallery.people.rename(COLLECTION, "Ada", "ada")
    assert gallery.of("ada") == {1, 2, 3, 6}


def test_rename_to_another_person_is_refused(gallery: Gallery) -> None:
    """In any spelling, also of a person that is only kept; nothing changes."""
    gallery.records.add_name(COLLECTION, "Joan")
    for name in ("GRACE", "joan"):
        with pytest.raises(PersonExists, match="merge"):
            gallery.people.rename(COLLECTION, "Ada", name)
    with pytest.raises(InvalidName):
        gallery.people.rename(COLLECTION, "Ada", "Unknown")
    assert (gallery.of("Ada"), gallery.of("Grace")) == ({1, 2, 3}, {4, 5})


def test_rename_or_merge_does_what_is_possible(gallery: Gallery) -> None:
    """A merge can be taken back as any other."""
    gallery.people.rename_or_merge(COLLECTION, "Grace", "Grace Hopper")
    gallery.people.rename_or_merge(COLLECTION, "Ada", "grace hopper")
    assert gallery.of("Grace Hopper") == {1, 2, 3, 4, 5}
    gallery.people.unmerge(COLLECTION, "Ada")
    assert gallery.of("Ada") == {1, 2, 3}


def test_merge_is_recorded_and_taken_back_exactly(gallery: Gallery) -> None:
    """Each template gets the spelling that it had; those that were removed meanwhile stay away."""
    gallery.enrol("ADA", 6)
    record = gallery.people.merge(COLLECTION, "ada", "grace", by="operator")
    assert gallery.of("Grace") == {1, 2, 3, 4, 5, 6}
    assert (record.source, record.into, record.by) == ("ADA", "Grace", "operator")
    assert record.merged_at == datetime(2026, 12, 1, 0, 1, tzinfo=UTC)
    assert gallery.people.merges(COLLECTION) == [record]
    gallery.templates.remove(COLLECTION, [f"{2:032x}"])
    gallery.enrol("Grace", 7)
    returned = gallery.people.unmerge(COLLECTION, record.merge_id)
    assert returned.templates == {"ADA": (f"{6:032x}",), "Ada": (f"{1:032x}", f"{3:032x}")}
    assert (gallery.of("Ada"), gallery.of("ADA"), gallery.of("Grace")) == ({1, 3}, {6}, {4, 5, 7})
    assert gallery.people.merges(COLLECTION) == []


def test_merge_of_a_person_with_itself_is_refused(gallery: Gallery) -> None:
    """Two spellings are one person."""
    with pytest.raises(FacerecError, match="one person"):
        gallery.people.merge(COLLECTION, "Ada", "ADA")


def test_merge_that_is_done_is_returned_when_it_is_repeated(gallery: Gallery) -> None:
    """The reply may have been lost."""
    record = gallery.people.merge(COLLECTION, "Ada", "Grace")
    assert gallery.people.merge(COLLECTION, "Ada", "Grace") == record


def test_unmerge_needs_a_merge(gallery: Gallery) -> None:
    """And a merge is taken back once."""
    gallery.people.merge(COLLECTION, "Ada", "Grace")
    gallery.people.unmerge(COLLECTION, "ada")
    for chosen in ("Ada", "0" * 32, "Grace"):
        with pytest.raises(NoSuchMerge):
            gallery.people.unmerge(COLLECTION, chosen)


def test_unmerge_by_name_takes_the_latest_merge(gallery: Gallery) -> None:
    """A person of the same name may be enrolled and merged again."""
    gallery.people.merge(COLLECTION, "Ada", "Grace")
    gallery.enrol("Ada", 6)
    gallery.people.merge(COLLECTION, "Ada", "Grace")
    gallery.people.unmerge(COLLECTION, "Ada")
    assert (gallery.of("Ada"), gallery.of("Grace")) == ({6}, {1, 2, 3, 4, 5})


@pytest.mark.parametrize("first", [0, 1])
def test_merges_of_merges_are_taken_back_in_any_order(gallery: Gallery, first: int) -> None:
    """Ada into Grace, then Grace into Joan."""
    gallery.enrol("Joan", 6)
    merges = [gallery.people.merge(COLLECTION, "Ada", "Grace"), gallery.people.merge(COLLECTION, "Grace", "Joan")]
    assert gallery.of("Joan") == {1, 2, 3, 4, 5, 6}
    gallery.people.unmerge(COLLECTION, merges[first].merge_id)
    expected = ({4, 5, 6}, {1, 2, 3}) if first == 0 else ({6}, set())
    assert (gallery.of("Joan"), gallery.of("Ada")) == expected
    gallery.people.unmerge(COLLECTION, merges[1 - first].merge_id)
    assert (gallery.of("Ada"), gallery.of("Grace"), gallery.of("Joan")) == ({1, 2, 3}, {4, 5}, {6})


def test_merge_follows_a_rename(gallery: Gallery) -> None:
    """So that it can be taken back, and is forgotten with the person under its new name."""
    gallery.people.merge(COLLECTION, "Ada", "Grace")
    gallery.people.rename(COLLECTION, "Grace", "Grace Hopper")
    assert [record.into for record in gallery.people.merges(COLLECTION)] == ["Grace Hopper"]
    gallery.people.unmerge(COLLECTION, "Ada")
    assert (gallery.of("Ada"), gallery.of("Grace Hopper")) == ({1, 2, 3}, {4, 5})


def test_people_of_exact_names_stay_apart(gallery: Gallery) -> None:
    """A merge into one of them does not follow the rename of the other."""
    gallery.enrol("ada", 6)
    gallery.people.merge(COLLECTION, "Grace", "Ada", exact=True)
    gallery.people.rename(COLLECTION, "ada", "Joan", exact=True)
    assert (gallery.of("Ada"), gallery.of("Joan")) == ({1, 2, 3, 4, 5}, {6})
    gallery.people.unmerge(COLLECTION, "Grace")
    assert (gallery.of("Ada"), gallery.of("Grace"), gallery.of("Joan")) == ({1, 2, 3}, {4, 5}, {6})


def test_merge_can_be_taken_back_after_a_change_of_the_model(gallery: Gallery) -> None:
    """New templates replace those that were moved, and the old ones are removed."""
    gallery.people.merge(COLLECTION, "Ada", "Grace")
    new = {number: number + 100 for number in (1, 2, 4)}
    for number in new.values():
        gallery.templates.add(make_template(number, "Grace", model_id=OTHER_MODEL))
    ids = {f"{old:032x}": f"{number:032x}" for old, number in new.items()}
    for _ in range(2):
        follow_replacements(gallery.templates, gallery.records, COLLECTION, ids)
    (record,) = gallery.people.merges(COLLECTION)
    assert sorted(int(each, 16) for each in record.template_ids) == [1, 2, 3, 101, 102]
    gallery.templates.remove(COLLECTION, list(ids))
    gallery.people.unmerge(COLLECTION, "Ada")
    assert (gallery.of("Ada"), gallery.of("Grace")) == ({3, 101, 102}, {5, 104})


def test_photo_enrolled_again_for_somebody_else_is_not_taken_back(gallery: Gallery) -> None:
    """The same photo has the same id; only templates of the merged person are given back."""
    gallery.people.merge(COLLECTION, "Ada", "Grace")
    gallery.templates.remove(COLLECTION, [f"{1:032x}"])
    gallery.enrol("Joan", 1)
    gallery.people.unmerge(COLLECTION, "Ada")
    assert (gallery.of("Joan"), gallery.of("Ada")) == ({1}, {2, 3})


def test_merge_of_too_many_templates_is_refused_unchanged(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their ids would not fit into the record."""
    monkeypatch.setattr(merges_module, "MAX_MERGED", 2)
    with pytest.raises(FacerecError, match="at most 2"):
        gallery.people.merge(COLLECTION, "Ada", "Grace")
    assert gallery.of("Ada") == {1, 2, 3}


def test_photo_of_a_template_is_read(gallery: Gallery) -> None:
    """An imported template may have none."""
    place = make_template(2).photo
    assert place is not None
    gallery.photos.put(BUCKET, place.key, b"photo", "image/jpeg")
    entry = gallery.people.person(COLLECTION, "Ada").entries[1]
    assert gallery.people.photo(entry) == b"photo"
    assert gallery.people.photo(replace(entry, photo=None)) is None


def test_thumbnail_of_a_face_is_read(gallery: Gallery) -> None:
    """A photo that was enrolled by an earlier release has none; the photo is shown then."""
    gallery.photos.put(BUCKET, thumbnail_key(COLLECTION, make_template(2).template_id), b"small", "image/jpeg")
    first, second, _ = gallery.people.person(COLLECTION, "Ada").entries
    assert (gallery.people.face(first), gallery.people.face(second)) == (None, b"small")
    assert gallery.people.face(replace(second, photo=None)) is None


def test_rejections_go_with_the_person(gallery: Gallery) -> None:
    """When it is renamed, merged and given back; those of other people stay."""
    for number, name in ((11, "Ada"), (12, "ADA"), (13, "Grace")):
        gallery.templates.reject(make_rejection(number, name))
    gallery.people.rename(COLLECTION, "Grace", "Grace Hopper")
    assert gallery.rejected == ["Ada", "ADA", "Grace Hopper"]
    gallery.people.merge(COLLECTION, "Ada", "Grace Hopper")
    assert gallery.rejected == ["Grace Hopper"] * 3
    gallery.people.unmerge(COLLECTION, "Ada")
    assert gallery.rejected == ["Ada", "ADA", "Grace Hopper"]


def test_template_id_is_read_in_both_forms() -> None:
    """As APIs show it, and as commands do."""
    assert as_template_id("0F8FAD5B-D9CB-469F-A165-70867728950E") == "0f8fad5bd9cb469fa16570867728950e"
    assert as_template_id("0f8fad5bd9cb469fa16570867728950e") == "0f8fad5bd9cb469fa16570867728950e"
    assert as_template_id("Ada") is None
    assert as_template_id("../../0f8fad5bd9cb469fa1657086772895") is None


@pytest.mark.parametrize("operation", ["merge", "rename", "unmerge"])
def test_interrupted_operation_is_completed_by_the_same_call(operation: str) -> None:
    """Whichever write fails. Ada has an earlier merge, is kept, and needs several writes."""

    def prepared() -> Gallery:
        gallery = Gallery()
        gallery.enrol("Ada", 1, 2, 3, 4, 5)
        gallery.enrol("Grace", 6)
        gallery.enrol("Joan", 7)
        gallery.people.merge(COLLECTION, "Joan", "Ada")
        gallery.records.add_name(COLLECTION, "Ada")
        gallery.templates.reject(make_rejection(11, "Ada"))
        if operation == "unmerge":
            gallery.people.merge(COLLECTION, "Ada", "Grace")
        gallery.interruption.writes = 0
        return gallery

    def call(gallery: Gallery) -> None:
        if operation == "merge":
            gallery.people.merge(COLLECTION, "Ada", "Grace")
        elif operation == "rename":
            gallery.people.rename(COLLECTION, "Ada", "Ada King")
        else:
            gallery.people.unmerge(COLLECTION, "Ada")

    undisturbed = prepared()
    call(undisturbed)
    assert undisturbed.interruption.writes > AT_ONCE
    for at in range(1, undisturbed.interruption.writes + 1):
        gallery = prepared()
        gallery.interruption.at = at
        with pytest.raises(Interrupted):
            call(gallery)
        call(gallery)
        assert (gallery.names, gallery.rejected) == (undisturbed.names, undisturbed.rejected)
        assert _contents(gallery) == _contents(undisturbed)


def _contents(gallery: Gallery) -> list[tuple[str, str, object]]:
    return [(record.source, record.into, record.templates) for record in gallery.records.merges(COLLECTION)]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_all_merges_taken_back_restore_every_name(data: st.DataObject) -> None:
    """Whatever was merged into whom, in whatever order they are taken back."""
    gallery = Gallery()
    names = ["Ada", "Grace", "Joan", "Mary"]
    for number, name in enumerate(names):
        gallery.enrol(name, 2 * number + 1, 2 * number + 2)
    before = gallery.names
    merges = []
    for _ in range(data.draw(st.integers(1, 3))):
        present = sorted(set(gallery.names.values()))
        source, into = data.draw(st.permutations(present))[:2]
        merges.append(gallery.people.merge(COLLECTION, source, into).merge_id)
    for merge_id in data.draw(st.permutations(merges)):
        gallery.people.unmerge(COLLECTION, merge_id)
    assert gallery.names == before
    assert gallery.records.merges(COLLECTION) == []
