"""The gallery's part of a migration: which templates have no twin of the other model yet, and who would be lost."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from facerec.ports import EnrolledPeople, TemplateEntry

E = TypeVar("E", bound=TemplateEntry)
_Enrolment = tuple[str, str, datetime]


@dataclass(frozen=True, slots=True)
class Pending:
    """The templates of a collection that a migration is about."""

    total: int
    """All templates of the one model."""
    without_twin: tuple[TemplateEntry, ...]
    """Those of them without a template of the other model for the same person, photo and date."""
    lost: tuple[str, ...]
    """The people with templates of the one model and none of the other, sorted."""


def pending(enrolled: EnrolledPeople, collection: str, from_model: str, to_model: str) -> Pending:
    """Read what is to be embedded with `to_model`; raises `Transient`.

    A twin has the name, the file name and the date of its template. Where several faces of one photo were enrolled for
    one name at once, all of them count as pending until there are as many twins.
    """
    of_one: list[TemplateEntry] = []
    twins, people = Counter[_Enrolment](), set[str]()
    for entry in enrolled.entries(collection):
        if entry.model_id == from_model:
            of_one.append(entry)
        elif entry.model_id == to_model:
            twins[_enrolment(entry)] += 1
            people.add(entry.identity)
    own = Counter(map(_enrolment, of_one))
    without = tuple(entry for entry in of_one if twins[_enrolment(entry)] < own[_enrolment(entry)])
    return Pending(len(of_one), without, tuple(sorted({entry.identity for entry in of_one} - people)))


def paired(templates: Iterable[E], from_model: str, to_model: str) -> list[tuple[E, E]]:
    """Return the templates of the same faces by both models; several of one enrolment are paired in their order."""
    found: dict[_Enrolment, tuple[list[E], list[E]]] = defaultdict(lambda: ([], []))
    for template in templates:
        if template.model_id in {from_model, to_model}:
            found[_enrolment(template)][template.model_id == to_model].append(template)
    return [pair for old, new in found.values() for pair in zip(old, new, strict=False)]


def _enrolment(entry: TemplateEntry) -> _Enrolment:
    return entry.identity, entry.source, entry.enrolled_at
