"""The people of a collection: list, show, rename, merge, take a merge back. Without numpy, for the web tier.

A person is a name (`names.same_person`) that templates carry; `PersonRecords.names` keeps people without templates. A
rename or a merge gives the templates another name, 96 at a time, and writes its record first. So an interrupted one is
completed by the same call, and `unmerge` takes back a merge at any stage.
"""

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property

from facerec.errors import FacerecError, ObjectMissing
from facerec.gallery.merges import Belongings, latest_merge, record_of, still_moved, without_templates
from facerec.gallery.names import KnownNames, same_person, valid_identity
from facerec.gallery.people_index import IndexedPeople, PeopleIndex, people_of
from facerec.gallery.removal import thumbnail_key
from facerec.ports import EnrolledPeople, MergeRecord, ObjectStore, PersonRecords, TemplateEntry

_ID_DIGITS = frozenset("0123456789abcdef")
_ID_LENGTH = 32


class NoSuchPerson(FacerecError):
    """The collection has no person of this name."""

    def __init__(self, name: str, collection: str, closest: str | None = None) -> None:
        hint = f"did you mean {closest!r}?" if closest else "`facerec people list` shows everyone"
        super().__init__(f"nobody is enrolled as {name.strip()!r} in collection {collection}: {hint}")
        self.name = name


class PersonExists(FacerecError):
    """The new name is that of another person."""

    def __init__(self, name: str, collection: str) -> None:
        super().__init__(
            f"{name!r} is another person of collection {collection}: merge the two, or choose another name"
        )
        self.name = name


class NoSuchMerge(FacerecError):
    """There is no record of such a merge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """A person as lists show it."""

    name: str
    templates: int
    """The number of readable templates, of all models."""
    first_enrolled: datetime | None
    last_enrolled: datetime | None
    models: tuple[str, ...]
    portrait: TemplateEntry | None = None
    """The template of the best quality that has a photo."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeoplePage:
    """A page of the people of a collection."""

    people: Sequence[Person]
    found: int
    """How many people the search has found, on all pages."""
    persons: int
    """Of the whole collection, as `photos`."""
    photos: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonTemplates:
    """A person with its templates."""

    name: str
    """The first of `spellings`."""
    spellings: tuple[str, ...]
    """More than one in galleries of earlier versions, or with exact names."""
    entries: tuple[TemplateEntry, ...]
    """By name and id."""

    def summary(self) -> Person:
        """Return the person as lists show it."""
        return _person(self.name, self.entries)


@dataclass(frozen=True, kw_only=True)
class People:
    """The use cases; safe for many threads. Every method may raise `Transient`, and may then be repeated.

    Names are compared as `facerec enrol` does; with `exact` a name that differs in case or blanks is another person.
    """

    enrolled: EnrolledPeople
    records: PersonRecords
    photos: ObjectStore
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    @cached_property
    def index(self) -> PeopleIndex:
        """What this process has read of people already."""
        return PeopleIndex(self.enrolled, self.records)

    def persons(self, collection: str, *, after: str | None = None, limit: int | None = None) -> list[Person]:
        """Return the people by name, those after a name and at most `limit`."""
        known = self.index.people(collection)
        names = known.names if after is None else known.after(after)
        return _persons(known, names[:limit])

    def page(self, collection: str, *, search: str = "", start: int = 0, limit: int) -> PeoplePage:
        """Return the people by name whose name contains a text, from the place `start` on and at most `limit`."""
        known = self.index.people(collection)
        names = known.search(search)
        return PeoplePage(
            people=_persons(known, names[start : start + limit]),
            found=len(names),
            persons=len(known.names),
            photos=len(known.entries),
        )

    def person(self, collection: str, name: str, *, exact: bool = False) -> PersonTemplates:
        """Return a person with its readable templates; raises `NoSuchPerson`."""
        known = self.index.people(collection)
        spellings = known.spellings(name, exact=exact)
        if not spellings:
            raise NoSuchPerson(name, collection, known.closest(name))
        # A kept name of another spelling than the templates' is not shown.
        shown = [spelling for spelling in spellings if spelling in known.by_name] or spellings
        entries = [entry for spelling in shown for entry in known.by_name.get(spelling, ())]
        return PersonTemplates(name=shown[0], spellings=tuple(shown), entries=tuple(entries))

    def template_ids(self, collection: str, name: str, *, exact: bool = False) -> dict[str, str]:
        """Return the spelling of a person's name in each template by its id, also of damaged ones.

        Raises `NoSuchPerson`; a person that is only kept has none.
        """
        owners = self.enrolled.owners(collection)
        own = self._belongings(owners, collection, name, exact=exact)
        if own.nothing:
            raise self._missing(collection, name, owners)
        return own.templates

    def merges(self, collection: str) -> list[MergeRecord]:
        """Return the merges that can be taken back, oldest first."""
        return [record for record in self.records.merges(collection) if not record.rename]

    def add(self, collection: str, name: str) -> str:
        """Keep a person without templates; returns the cleaned name. Raises `InvalidName` and `PersonExists`."""
        cleaned = valid_identity(name)
        known = KnownNames([*self.enrolled.owners(collection).values(), *self.records.names(collection)])
        if spellings := known.spellings(cleaned):
            raise PersonExists(spellings[0], collection)
        self.records.add_name(collection, cleaned)
        return cleaned

    def rename(self, collection: str, old: str, new: str, *, exact: bool = False) -> int:
        """Give a person another name; returns how many templates got it.

        Raises `InvalidName`, `NoSuchPerson`, and `PersonExists` if another person has the name.
        """
        name = valid_identity(new, exact=exact)
        owners = self.enrolled.owners(collection)
        own = self._belongings(owners, collection, old, exact=exact)
        if same_person(old, name, exact=exact):
            if own.nothing:
                raise self._missing(collection, old, owners)
            return self._give(collection, own, name)
        records = self.records.merges(collection)
        begun = latest_merge(records, old, name, exact=exact, renames=True)
        if own.nothing and begun is None:
            raise self._missing(collection, old, owners)
        theirs = _owned(owners, name, exact=exact)
        moved = set() if begun is None else set(begun.template_ids)
        if theirs.keys() - moved or (begun is None and self._kept(collection, name, exact=exact)):
            raise PersonExists(next(iter(theirs.values()), name), collection)
        record = record_of(begun, collection, own, old, name, by="", at=self.now(), rename=True)
        count = self._move(record, records, own, exact=exact)
        self.records.remove_merge(collection, record.merge_id)
        return count

    def merge(self, collection: str, source: str, into: str, *, by: str = "", exact: bool = False) -> MergeRecord:
        """Give all templates of a person to another one; returns the record, whose id `unmerge` takes.

        A merge that is done already is returned as it was. Raises `NoSuchPerson` for either name.
        """
        owners = self.enrolled.owners(collection)
        if same_person(source, into, exact=exact):
            raise FacerecError(f"{source!r} and {into!r} are one person; a rename makes their spelling one")
        own = self._belongings(owners, collection, source, exact=exact)
        records = self.records.merges(collection)
        known = latest_merge(records, source, into, exact=exact)
        if own.nothing and known is None:
            raise self._missing(collection, source, owners)
        targets = [*_owned(owners, into, exact=exact).values(), *self._kept(collection, into, exact=exact)]
        if not targets:
            raise self._missing(collection, into, owners)
        # An earlier merge of the two that has ended has no template of the source any more.
        ended = own.templates and known and not (known.rename or own.templates.keys() & set(known.template_ids))
        record = record_of(None if ended else known, collection, own, source, min(targets), by=by, at=self.now())
        self._move(record, records, own, exact=exact)
        if not record.templates:
            self.records.remove_merge(collection, record.merge_id)
        return record

    def rename_or_merge(self, collection: str, old: str, new: str, *, by: str = "", exact: bool = False) -> None:
        """Rename a person; merge it into the one that has the name already, if there is one."""
        try:
            self.rename(collection, old, new, exact=exact)
        except PersonExists:
            self.merge(collection, old, new, by=by, exact=exact)

    def unmerge(self, collection: str, merge: str) -> MergeRecord:
        """Take a merge back, chosen by its id, or by the merged person's name (the latest one then).

        Each template gets the name that it had, if it still exists and is still the merged person's. Returns the record
        with these templates. Merges may be taken back in any order. Raises `NoSuchMerge`.
        """
        records = self.records.merges(collection)
        record = _chosen(records, merge)
        if record is None:
            raise NoSuchMerge(f"collection {collection} has no merge {merge!r} that can be taken back")
        returned = replace(
            record,
            templates=still_moved(record.templates, self.enrolled.owners(collection), record.into),
            rejections=still_moved(record.rejections, self._rejections(collection), record.into),
        )
        place = [each.merge_id for each in records].index(record.merge_id)
        for other in records[:place]:
            # The templates of an earlier merge into the source follow it back.
            if same_person(other.into, record.into) and set(other.template_ids) & set(record.template_ids):
                self.records.put_merge(replace(other, into=record.source))
        for other in records[place + 1 :]:
            # A later merge, which moved them on, has no longer to do with them.
            if set(other.template_ids) & set(record.template_ids):
                self.records.put_merge(without_templates(other, record.template_ids))
        for name, rejection_ids in returned.rejections.items():
            self.enrolled.reassign_rejections(collection, rejection_ids, name)
        for name, template_ids in returned.templates.items():
            self.enrolled.reassign(collection, template_ids, name)
        self.records.remove_merge(collection, record.merge_id)
        return returned

    def photo(self, entry: TemplateEntry) -> bytes | None:
        """Return the enrolled photo of a template; `None` if it was imported without one. Raises `ObjectMissing`."""
        return None if entry.photo is None else self.photos.get(entry.photo.bucket, entry.photo.key)

    def face(self, entry: TemplateEntry) -> bytes | None:
        """Return the thumbnail of a template's face, a JPEG; `None` if it was enrolled without one."""
        if entry.photo is None:
            return None
        try:
            return self.photos.get(entry.photo.bucket, thumbnail_key(entry.collection, entry.template_id))
        except ObjectMissing:
            return None

    def _belongings(self, owners: Mapping[str, str], collection: str, name: str, *, exact: bool) -> Belongings:
        return Belongings(
            _owned(owners, name, exact=exact),
            _owned(self._rejections(collection), name, exact=exact),
            self._kept(collection, name, exact=exact),
        )

    def _rejections(self, collection: str) -> dict[str, str]:
        return {entry.rejection_id: entry.identity for entry in self.enrolled.rejection_entries(collection)}

    def _kept(self, collection: str, name: str, *, exact: bool) -> list[str]:
        return [kept for kept in self.records.names(collection) if same_person(kept, name, exact=exact)]

    def _missing(self, collection: str, name: str, owners: Mapping[str, str]) -> NoSuchPerson:
        known = KnownNames([*owners.values(), *self.records.names(collection)])
        return NoSuchPerson(name, collection, known.closest(name))

    def _move(self, record: MergeRecord, records: Sequence[MergeRecord], own: Belongings, *, exact: bool) -> int:
        """Write the record, let earlier merges into the source follow it, then give the templates their name."""
        self.records.put_merge(record)
        for other in records:
            if other.merge_id != record.merge_id and same_person(other.into, record.source, exact=exact):
                self.records.put_merge(replace(other, into=record.into))
        return self._give(record.collection, own, record.into)

    def _give(self, collection: str, own: Belongings, name: str) -> int:
        """Give everything to another name; returns how many templates there were."""
        if own.kept:
            self.records.add_name(collection, name)
        self.enrolled.reassign_rejections(collection, list(own.rejections), name)
        count = self.enrolled.reassign(collection, list(own.templates), name)
        for each in own.kept:
            if each != name:
                self.records.remove_name(collection, each)
        return count


def persons_of(entries: Iterable[TemplateEntry], kept: Iterable[str]) -> list[Person]:
    """Return the people of these templates and the kept names, by name without regard to case and accents."""
    known = people_of(entries, kept)
    return _persons(known, known.names)


def as_template_id(text: str) -> str | None:
    """Return the template id in either of its forms, 32 hexadecimal digits or a UUID; `None` if it is neither."""
    digits = text.strip().lower().replace("-", "")
    return digits if len(digits) == _ID_LENGTH and _ID_DIGITS.issuperset(digits) else None


def shown_id(identifier: str) -> str:
    """Return the id of a template or a merge as the APIs show it: a UUID with dashes, from either of its forms."""
    return str(uuid.UUID(identifier))


def _persons(known: IndexedPeople, names: Iterable[str]) -> list[Person]:
    return [_person(name, known.by_name.get(name, ())) for name in names]


def _person(name: str, entries: Sequence[TemplateEntry]) -> Person:
    times = [entry.enrolled_at for entry in entries]
    with_photo = [entry for entry in entries if entry.photo is not None]
    return Person(
        name=name,
        templates=len(entries),
        first_enrolled=min(times, default=None),
        last_enrolled=max(times, default=None),
        models=tuple(sorted({entry.model_id for entry in entries})),
        portrait=max(with_photo, key=lambda entry: entry.quality or 0.0, default=None),
    )


def _owned(owners: Mapping[str, str], name: str, *, exact: bool) -> dict[str, str]:
    """Return those of the templates that are the person's, with the spelling in each, by id."""
    spellings = set(KnownNames(owners.values()).spellings(name, exact=exact))
    return {identifier: owners[identifier] for identifier in sorted(owners) if owners[identifier] in spellings}


def _chosen(records: Iterable[MergeRecord], merge: str) -> MergeRecord | None:
    identifier = as_template_id(merge)
    found = [record for record in records if record.merge_id == identifier or same_person(record.source, merge)]
    return found[-1] if found else None
