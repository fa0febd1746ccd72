"""What every API works on."""

from collections.abc import Sequence
from dataclasses import dataclass

from facerec.gallery.erasure import Erasures
from facerec.gallery.people import People
from facerec.gallery.unknown_people import Unknown
from facerec.ports import Collections, EnrolledPeople, ObjectStore
from facerec.settings import Settings
from facerec.web.asking import Asker
from facerec.web.auth.access import AccessControl
from facerec.web.fleet.watch import FleetWatch
from facerec.web.jobs.calls import JobCalls

_ERASED_AT_ONCE = 1_000
"""An erasure is one item of a table, of at most 400 KB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiServices:
    """The ports and settings of the APIs."""

    settings: Settings
    store: ObjectStore
    asker: Asker
    people: EnrolledPeople
    persons: People
    """The use cases over `people`."""
    erasures: Erasures
    """Every removal of people or photos goes through them."""
    collections: Collections
    access: AccessControl
    unknown: Unknown
    jobs: JobCalls
    fleet: FleetWatch

    def erase_faces(self, collection: str, template_ids: Sequence[str], by: str) -> int:
        """Erase faces with their photos, and people who have no other face; returns how many faces there were.

        The photos are gone on return: a client that starts again from nothing adds the same ones in the next second.
        """
        removed = 0
        for start in range(0, len(template_ids), _ERASED_AT_ONCE):
            some = template_ids[start : start + _ERASED_AT_ONCE]
            begun = self.erasures.begin_photos(collection, some, by, photos_now=True)
            removed += 0 if begun is None else begun.record.place("templates").removed
        return removed

    def erase_everybody(self, collection: str, by: str) -> int:
        """Erase everybody, also people without photos, but those who are added meanwhile; returns as `erase_faces`."""
        faces = self.erase_faces(collection, list(self.people.owners(collection)), by)
        for name in self.persons.records.names(collection):
            self.erasures.begin(collection, name, by)
        return faces
