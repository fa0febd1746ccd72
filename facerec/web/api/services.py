"""What every API works on."""

from collections.abc import Callable
from dataclasses import dataclass

from facerec.gallery.erasure import Erasures
from facerec.gallery.people import People
from facerec.gallery.unknown_people import Unknown
from facerec.ports import Collections, EnrolledPeople, Jobs, ObjectStore
from facerec.settings import Settings
from facerec.web.asking import Asker
from facerec.web.auth.access import AccessControl


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
    jobs: Jobs
    wake_jobs: Callable[[], None]
    """Has this process look for jobs at once."""
