"""The unknown people of a collection: list, show, promote to a person, remove, forget after their time. Without numpy.

Their templates are those of the collection's companion (`unknown_records.companion`); ids are resolved through aliases.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from operator import attrgetter

import structlog

from facerec.errors import FacerecError
from facerec.gallery.names import KnownNames, valid_identity
from facerec.ports import EnrolledPeople, PersonRecords, UnknownPeople
from facerec.unknown_records import UNKNOWN_ID, UnknownPerson, companion

log = structlog.get_logger(__name__)

_REMEMBERED = timedelta(hours=1)
"""How long a removed id is remembered, so that a worker that still has its templates does not found it again."""
_TRIES = 5


class NoSuchUnknown(FacerecError):
    """The collection has no unknown person of this id, or it has expired."""

    def __init__(self, unknown_id: str, collection: str) -> None:
        super().__init__(f"there is no unknown person {unknown_id!r} in collection {collection}, or it has expired")


@dataclass(frozen=True, kw_only=True)
class Unknown:
    """The use cases; safe for many threads. Every method may raise `Transient`, and may then be repeated."""

    enrolled: EnrolledPeople
    records: UnknownPeople
    names: PersonRecords
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def page(self, collection: str, *, after: str = "", limit: int | None = None) -> list[UnknownPerson]:
        """Return unknown people by id, those after an id and at most `limit`; no aliases."""
        found: list[UnknownPerson] = []
        for record in self.records.records(collection, after):
            if len(found) == limit:
                break
            if record.live and record.expires_at > self.now():
                found.append(record)
        return found

    def newest(self, collection: str) -> list[UnknownPerson]:
        """Return all unknown people, those who were seen last first; no aliases."""
        return sorted(self.page(collection), key=attrgetter("last_seen", "unknown_id"), reverse=True)

    def get(self, collection: str, unknown_id: str) -> UnknownPerson:
        """Return the unknown person of an id or of an alias; raises `NoSuchUnknown`."""
        record = live_record(self.records, collection, unknown_id, self.now())
        if record is None:
            raise NoSuchUnknown(unknown_id, collection)
        return record

    def promote(self, collection: str, unknown_id: str, name: str, *, exact: bool = False) -> tuple[str, int]:
        """Give the faces of an unknown person to a person, who may be enrolled already; the id is gone then.

        Returns the person's name as the collection spells it, and how many templates it got. Raises `NoSuchUnknown` and
        `InvalidName`. The templates have no photo: after a change of the model the person needs a photo to be enrolled.
        """
        valid_identity(name, exact=exact)
        record = self.get(collection, unknown_id)
        known = KnownNames([*self.enrolled.owners(collection).values(), *self.names.names(collection)])
        identity = known.spelling(name, exact=exact)
        own = self._templates(record)
        count = self.enrolled.copy(companion(collection), own, collection, identity)
        self._forget(record)
        log.info("unknown_person_promoted", collection=collection, unknown_id=record.unknown_id, templates=count)
        return identity, count

    def remove(self, collection: str, unknown_id: str) -> int:
        """Forget an unknown person; returns how many templates it had. Raises `NoSuchUnknown`.

        Who is seen again later gets a new id.
        """
        record = self.get(collection, unknown_id)
        count = self._forget(record)
        log.info("unknown_person_removed", collection=collection, unknown_id=record.unknown_id, templates=count)
        return count

    def sweep(self, collection: str) -> int:
        """Remove what is past its time, and templates without a record; returns how many templates.

        Several processes may do it at once. A sight meanwhile keeps its person: the record goes first, if unchanged.
        """
        # The owners are read first: whoever founds an id writes its record before its template.
        owners = self.enrolled.owners(companion(collection))
        kept: set[str] = set()
        for record in self.records.records(collection):
            expired = record.expires_at <= self.now()
            if not (expired and self.records.remove(record)) and not record.removed:
                kept.add(record.unknown_id)
        gone = [template_id for template_id, owner in owners.items() if owner not in kept]
        removed = self.enrolled.remove(companion(collection), gone) if gone else 0
        if removed:
            log.info("unknown_people_expired", collection=collection, templates=removed)
        return removed

    def _forget(self, record: UnknownPerson) -> int:
        """Remove the templates of an unknown person, and keep for a while that it is gone."""
        collection, unknown_id = record.collection, record.unknown_id
        for _ in range(_TRIES):
            gone = record.next(removed=True, views={}, expires_at=self.now() + _REMEMBERED)
            if self.records.put(gone):
                return self.enrolled.remove(companion(collection), self._templates(record))
            record = self.get(collection, unknown_id)  # a worker has counted a sight
        raise FacerecError(f"{unknown_id} is being changed by workers all the time: try it again")

    def _templates(self, record: UnknownPerson) -> Sequence[str]:
        """Return the ids of the templates of a person and of its aliases."""
        own = {record.unknown_id, *record.aliases}
        owners = self.enrolled.owners(companion(record.collection))
        return [template_id for template_id, owner in owners.items() if owner in own]


def live_record(records: UnknownPeople, collection: str, unknown_id: str, now: datetime) -> UnknownPerson | None:
    """Return the person of an id or of an alias; `None` if it was removed or has expired."""
    if not re.fullmatch(UNKNOWN_ID, unknown_id):
        return None
    record = records.get(collection, unknown_id)
    while record is not None and record.merged_into is not None:
        record = records.get(collection, record.merged_into)  # an alias is younger than its person: there is no circle
    return record if record is not None and record.live and record.expires_at > now else None
