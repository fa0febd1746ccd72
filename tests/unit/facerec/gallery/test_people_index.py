"""The people in the memory of a process: as the last completed write left them, and read as rarely as possible."""

import threading
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facerec.errors import Transient
from facerec.gallery.people import People, persons_of
from facerec.gallery.people_index import FEW_TEMPLATES, PeopleIndex
from facerec.ports import TemplateEntry
from tests.fakes.object_store import InMemoryObjectStore
from tests.fakes.person_records import InMemoryPersonRecords
from tests.fakes.templates import InMemoryTemplateStore, make_rejection, make_template
from tests.fakes.web_tier import together

COLLECTION = "default"


class CountedTemplates(InMemoryTemplateStore):
    """Notes which collections were read whole, and how many templates were read by their ids."""

    def __init__(self, kept_changes: int = 10_000) -> None:
        super().__init__(kept_changes)
        self.read: list[str] = []
        self.found = 0
        self.reading = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()

    def entries(self, collection: str, after: str = "", at_once: int | None = None) -> Iterator[TemplateEntry]:
        self.read.append(collection)
        self.reading.set()
        assert self.go_on.wait(10)
        return super().entries(collection, after, at_once)

    def find(self, collection: str, template_ids: Sequence[str]) -> dict[str, TemplateEntry]:
        self.found += len(template_ids)
        found = (InMemoryTemplateStore.entry(self, collection, each) for each in template_ids)
        return {entry.template_id: entry for entry in found if entry is not None}


class Gallery:
    """People over counted templates."""

    def __init__(self, kept_changes: int = 10_000) -> None:
        self.templates = CountedTemplates(kept_changes)
        self.records = InMemoryPersonRecords()
        self.people = People(enrolled=self.templates, records=self.records, photos=InMemoryObjectStore())

    def enrol(self, name: str, *numbers: int, collection: str = COLLECTION) -> None:
        """Enrol templates of these numbers."""
        for number in numbers:
            self.templates.add(make_template(number, name, collection))

    def names(self, collection: str = COLLECTION) -> list[str]:
        """The names as a page shows them."""
        return [person.name for person in self.people.page(collection, limit=100).people]


@pytest.fixture
def gallery() -> Gallery:
    """Ada with three templates, Grace with two."""
    gallery = Gallery()
    gallery.enrol("Ada", 1, 2, 3)
    gallery.enrol("Grace", 4, 5)
    return gallery


def test_collection_is_read_once(gallery: Gallery) -> None:
    """Pages, persons and lists then come from memory."""
    for _ in range(3):
        assert gallery.names() == ["Ada", "Grace"]
        assert len(gallery.people.person(COLLECTION, "ada").entries) == 3
        assert len(gallery.people.persons(COLLECTION)) == 2
    assert gallery.templates.read == [COLLECTION]


def test_change_is_seen_at_once_and_read_alone(gallery: Gallery) -> None:
    """Whatever the change is, nothing else is read again."""
    assert gallery.names() == ["Ada", "Grace"]
    gallery.enrol("Joan", 6)
    assert gallery.names() == ["Ada", "Grace", "Joan"]
    gallery.people.merge(COLLECTION, "Grace", "Joan")
    assert gallery.names() == ["Ada", "Joan"]
    assert [int(entry.template_id, 16) for entry in gallery.people.person(COLLECTION, "Joan").entries] == [4, 5, 6]
    gallery.templates.remove(COLLECTION, [f"{number:032x}" for number in (1, 2, 3)])
    assert gallery.names() == ["Joan"]
    gallery.templates.reject(make_rejection(1))
    gallery.records.add_name(COLLECTION, "Émilie")
    assert gallery.names() == ["Émilie", "Joan"]
    gallery.records.remove_name(COLLECTION, "Émilie")
    assert gallery.names() == ["Joan"]
    assert (gallery.templates.read, gallery.templates.found) == ([COLLECTION], 6)


_CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["add", "remove", "give", "keep", "drop"]),
        st.lists(st.integers(0, 8), min_size=1, max_size=3),
        st.sampled_from(["Ada", "ada", "Grace", "Émile", "emile"]),
        st.booleans(),
    ),
    max_size=12,
)


@given(changes=_CHANGES, kept_changes=st.sampled_from([1, 2, 100]))
def test_index_shows_what_the_stores_have(changes: list[tuple[str, list[int], str, bool]], kept_changes: int) -> None:
    """After any changes, whether or not their record reaches back to the last look."""
    gallery = Gallery(kept_changes)
    for kind, numbers, name, look in changes:
        ids = [f"{number:032x}" for number in numbers]
        match kind:
            case "add":
                gallery.enrol(name, *(each for each in set(numbers) if f"{each:032x}" not in _stored(gallery)))
            case "remove":
                gallery.templates.remove(COLLECTION, ids)
            case "give":
                gallery.templates.reassign(COLLECTION, ids, name)
            case "keep":
                gallery.records.add_name(COLLECTION, name)
            case _:
                gallery.records.remove_name(COLLECTION, name)
        if look:
            gallery.names()
    expected = persons_of(
        InMemoryTemplateStore.entries(gallery.templates, COLLECTION), gallery.records.names(COLLECTION)
    )
    found = gallery.people.persons(COLLECTION)
    shown = [(each.name, each.templates, each.portrait and each.portrait.template_id) for each in found]
    assert shown == [(each.name, each.templates, each.portrait and each.portrait.template_id) for each in expected]
    assert gallery.people.page(COLLECTION, limit=1).photos == gallery.templates.count(COLLECTION)


def _stored(gallery: Gallery) -> set[str]:
    return set(gallery.templates.owners(COLLECTION))


def test_collection_of_a_store_that_was_lost_is_read_again(gallery: Gallery) -> None:
    """Its versions begin again, and nothing leads from the old state to the new one."""
    assert gallery.names() == ["Ada", "Grace"]
    gallery.templates.forget()
    assert gallery.names() == []
    gallery.enrol("Joan", 1)
    assert gallery.names() == ["Joan"]


def test_outage_is_raised_and_leaves_the_index_usable(gallery: Gallery) -> None:
    """An old state is not shown instead."""
    assert gallery.names() == ["Ada", "Grace"]
    gallery.templates.outage = Transient("the table cannot be reached")
    with pytest.raises(Transient):
        gallery.names()
    gallery.templates.outage = None
    gallery.enrol("Joan", 6)
    assert gallery.names() == ["Ada", "Grace", "Joan"]


def test_people_are_sorted_and_found_without_regard_to_case_and_accents() -> None:
    """Any part of a name will do; pages are counted from the first one that is found."""
    gallery = Gallery()
    for number, name in enumerate(["Zoë", "émile Zola", "Emil", "ada", "Bernd", "Ünal"]):
        gallery.enrol(name, number)
    gallery.records.add_name(COLLECTION, "Clara")
    assert gallery.names() == ["ada", "Bernd", "Clara", "Emil", "émile Zola", "Ünal", "Zoë"]
    page = gallery.people.page(COLLECTION, search=" EMIL", start=1, limit=5)
    assert ([person.name for person in page.people], page.found) == (["émile Zola"], 2)
    assert (page.persons, page.photos) == (7, 6)
    assert [person.name for person in gallery.people.page(COLLECTION, search="Zo", limit=1).people] == ["émile Zola"]
    assert gallery.people.page(COLLECTION, search="nobody", limit=5).people == []
    assert [person.name for person in gallery.people.persons(COLLECTION, after="Emil", limit=2)] == [
        "émile Zola",
        "Ünal",
    ]
    assert [person.name for person in gallery.people.persons(COLLECTION, after="unbekannt")] == ["Zoë"]


def test_collections_used_last_stay_in_memory() -> None:
    """As many as allowed, and as many templates; a larger collection is read at every use, an empty one never."""
    gallery = Gallery()
    index = PeopleIndex(gallery.templates, gallery.records, max_collections=2, max_templates=4)
    for collection, count in (("one", 1), ("two", 2), ("three", 3), ("many", 5)):
        gallery.enrol("Ada", *range(count), collection=collection)
    for collection in ("one", "two", "one", "three", "one", "two", "many", "many", "empty"):
        assert len(index.people(collection).entries) == gallery.templates.count(collection)
    # "two" made room for "three", "three" for "two", and all of them for what is too large itself.
    assert gallery.templates.read == ["one", "two", "three", "two", "many", "many", "empty"]


def test_index_knows_whether_a_look_reads_much(gallery: Gallery) -> None:
    """Only the first one at many templates does."""
    index = gallery.people.index
    assert index.reads_little(COLLECTION)
    assert index.reads_little("empty")
    gallery.enrol("Joan", *range(10, FEW_TEMPLATES + 10))
    assert not index.reads_little(COLLECTION)
    assert gallery.templates.read == []
    index.people(COLLECTION)
    assert index.reads_little(COLLECTION)


def test_threads_share_one_reading(gallery: Gallery) -> None:
    """All but the first wait for it."""
    gallery.templates.go_on.clear()

    def step(number: int) -> None:
        if number == 0:
            assert gallery.templates.reading.wait(10)
            gallery.templates.go_on.set()
        else:
            assert gallery.names() == ["Ada", "Grace"]

    with together(8, step):
        pass
    assert gallery.templates.read == [COLLECTION]


def test_thread_sees_what_it_has_written_while_others_read_and_write() -> None:
    """No thread is given what another one has read before the write."""
    gallery = Gallery()

    def step(number: int) -> None:
        for turn in range(20):
            name = f"Person {number} {turn}"
            gallery.enrol(name, 100 * number + turn)
            assert len(gallery.people.person(COLLECTION, name).entries) == 1

    with together(6, step):
        pass
    assert gallery.people.page(COLLECTION, limit=1).persons == 120
