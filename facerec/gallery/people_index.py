"""The people of collections in the memory of a process, so that a page of them costs two small reads. Without numpy.

Each use compares the collection's version, so it never shows an older state than that of a completed write. Only
changed templates are read again; the whole collection, if its record of changes does not reach back.
"""

import threading
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from operator import attrgetter
from typing import NamedTuple

from facerec.gallery.names import KnownNames, identity_key, same_person, search_key
from facerec.ports import EnrolledPeople, PersonRecords, TemplateEntry

MAX_COLLECTIONS = 8
MAX_TEMPLATES = 100_000
"""Of all collections in memory, at about 1 kB each. A larger collection is read at every use."""
FEW_TEMPLATES = 1_000
"""About what one query of DynamoDB returns."""
_LOCKS = 16


class _Name(NamedTuple):
    """A name as people are sorted; the forms of the other names are computed once for all versions."""

    searched: str
    name: str
    key: str


@dataclass(frozen=True, eq=False)
class IndexedPeople:
    """The people of a collection at one version; immutable."""

    version: int
    entries: Mapping[str, TemplateEntry]
    """The readable templates by their ids."""
    by_name: Mapping[str, Sequence[TemplateEntry]]
    """Those of each spelling of a name, by their ids."""
    kept: Sequence[str]
    """The names that `PersonRecords` keeps."""
    forms: Mapping[str, _Name]
    """Of all these names."""

    @cached_property
    def names(self) -> list[str]:
        """All names, also kept ones without a template, sorted without regard to case and accents."""
        known = {self.forms[name].key for name in self.by_name}
        shown = [*self.by_name, *(name for name in self.kept if self.forms[name].key not in known)]
        return [form.name for form in sorted(self.forms[name] for name in shown)]

    def search(self, text: str) -> list[str]:
        """Return those of `names` that contain a text, without regard to case and accents."""
        part = search_key(text)
        return [name for name in self.names if part in self.forms[name].searched]

    def after(self, name: str) -> list[str]:
        """Return those of `names` that follow a name, which need not be there any more."""
        last = _form(name)
        return [each for each in self.names if self.forms[each] > last]

    def spellings(self, name: str, *, exact: bool) -> list[str]:
        """Return the spellings of a person's name, sorted, also kept ones."""
        return [each for each in self._spellings.get(identity_key(name), []) if same_person(each, name, exact=exact)]

    def closest(self, name: str) -> str | None:
        """Return the name that a wrong one resembles most, if one is close."""
        return KnownNames(self.forms).closest(name)

    @cached_property
    def _spellings(self) -> Mapping[str, list[str]]:
        found: defaultdict[str, list[str]] = defaultdict(list)
        for name in sorted(self.forms):
            found[self.forms[name].key].append(name)
        return found


class PeopleIndex:
    """The people of the collections used last; safe for many threads. Threads that need one read it once together."""

    def __init__(
        self,
        enrolled: EnrolledPeople,
        records: PersonRecords,
        *,
        max_collections: int = MAX_COLLECTIONS,
        max_templates: int = MAX_TEMPLATES,
    ) -> None:
        self._enrolled = enrolled
        self._records = records
        self._max_collections = max_collections
        self._max_templates = max_templates
        self._lock = threading.Lock()
        self._reading = [threading.Lock() for _ in range(_LOCKS)]
        self._kept: OrderedDict[str, IndexedPeople] = OrderedDict()

    def people(self, collection: str) -> IndexedPeople:
        """Return the people of a collection as every write that has returned left them; raises `Transient`."""
        names, version = self._records.names(collection), self._enrolled.version(collection)
        found = self._current(collection)
        if found is None or found.version != version:
            # A thread that waits here finds what the one before it has read, which may be as new as this one needs.
            with self._reading[hash(collection) % _LOCKS]:
                found = self._current(collection)
                if found is None or found.version != version:
                    found = self._keep(collection, self._read(collection, found))
        if list(found.kept) == names:
            return found
        renamed = _indexed(found.version, found.entries, found.by_name, names, found.forms)
        with self._lock:
            if self._kept.get(collection) is found:  # and not a later one by now
                self._kept[collection] = renamed
        return renamed

    def reads_little(self, collection: str) -> bool:
        """Whether `people` has next to nothing to read: the collection is in memory, or small; raises `Transient`."""
        return self._current(collection) is not None or self._enrolled.count(collection) <= FEW_TEMPLATES

    def _current(self, collection: str) -> IndexedPeople | None:
        with self._lock:
            if collection in self._kept:
                self._kept.move_to_end(collection)
            return self._kept.get(collection)

    def _read(self, collection: str, known: IndexedPeople | None) -> IndexedPeople:
        """Return the collection as it is now, from the known state if the changes since are recorded."""
        changed = None if known is None else self._enrolled.changed_ids(collection, known.version)
        if known is None or changed is None:
            version = self._enrolled.version(collection)  # what changes while it is read comes with the next version
            return replace(people_of(self._enrolled.entries(collection), ()), version=version)
        found = self._enrolled.find(collection, sorted(changed.template_ids))
        entries = {**known.entries, **found}
        for gone in changed.template_ids - found.keys():
            entries.pop(gone, None)
        touched = [known.entries[each] for each in changed.template_ids & known.entries.keys()]
        names = {entry.identity for entry in [*touched, *found.values()]}
        stayed = [
            entry
            for name in names
            for entry in known.by_name.get(name, ())
            if entry.template_id not in changed.template_ids
        ]
        own = _by_name([*stayed, *found.values()])
        by_name = {name: each for name, each in known.by_name.items() if name not in names} | own
        return _indexed(changed.version, entries, by_name, known.kept, known.forms)

    def _keep(self, collection: str, people: IndexedPeople) -> IndexedPeople:
        with self._lock:
            if people.version > 0:
                self._kept[collection] = people
                self._kept.move_to_end(collection)
            while self._kept and (
                len(self._kept) > self._max_collections
                or sum(len(each.entries) for each in self._kept.values()) > self._max_templates
            ):
                self._kept.popitem(last=False)
        return people


def people_of(entries: Iterable[TemplateEntry], kept: Iterable[str]) -> IndexedPeople:
    """Return the people of these templates and kept names, of no version."""
    by_id = {entry.template_id: entry for entry in entries}
    return _indexed(0, by_id, _by_name(by_id.values()), list(kept), {})


def _indexed(
    version: int,
    entries: Mapping[str, TemplateEntry],
    by_name: Mapping[str, Sequence[TemplateEntry]],
    kept: Sequence[str],
    known: Mapping[str, _Name],
) -> IndexedPeople:
    forms = {name: known.get(name) or _form(name) for name in [*by_name, *kept]}
    return IndexedPeople(version, entries, by_name, kept, forms)


def _form(name: str) -> _Name:
    return _Name(search_key(name), name, identity_key(name))


def _by_name(entries: Iterable[TemplateEntry]) -> dict[str, Sequence[TemplateEntry]]:
    found: defaultdict[str, list[TemplateEntry]] = defaultdict(list)
    for entry in sorted(entries, key=attrgetter("template_id")):
        found[entry.identity].append(entry)
    return dict(found)
