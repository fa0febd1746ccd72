"""What the ledger of erasures holds, and what readers of galleries report. Pure."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import AwareDatetime, Field

from facerec.message_base import CollectionName, Message


class PlaceState(StrEnum):
    """Whether a place still has something of the person."""

    OWED = "owed"
    """Not known to be clean: it is tried again."""
    CONFIRMED = "confirmed"
    """It was looked through and has nothing any more, or its reader has said so."""
    WRITTEN_OFF = "written_off"
    """Nothing can confirm it; `detail` says why it no longer counts."""


class Place(Message):
    """One place that may have something of a person."""

    name: str
    state: PlaceState = PlaceState.OWED
    removed: Annotated[int, Field(ge=0)] = 0
    """How many objects, items or messages were removed."""
    detail: str = ""
    """One sentence, without the name of a person."""
    confirmed_at: AwareDatetime | None = None
    confirmed_by: str = ""
    """The tier or reader that has confirmed it."""
    position: str = ""
    """Where a scan that was interrupted goes on."""

    def confirmed(self, at: datetime, by: str, *, removed: int | None = None, detail: str | None = None) -> "Place":
        """Return the place as clean."""
        return self.model_copy(
            update={
                "state": PlaceState.CONFIRMED,
                "confirmed_at": at,
                "confirmed_by": by,
                "removed": self.removed if removed is None else removed,
                "detail": self.detail if detail is None else detail,
                "position": "",
            }
        )

    def owed(self, *, removed: int | None = None, detail: str | None = None, position: str | None = None) -> "Place":
        """Return the place as one that is tried again."""
        changed = {"removed": removed, "detail": detail, "position": position}
        return self.model_copy(update={name: value for name, value in changed.items() if value is not None})


class ErasureRecord(Message):
    """One erasure: of people, of single photos, or of everyone in a collection."""

    erasure_id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    collection: CollectionName
    names: tuple[str, ...] = ()
    """Every spelling of the people that are erased; empty as soon as the erasure is complete."""
    template_ids: tuple[str, ...] = ()
    """The templates found when it began; empty as soon as the erasure is complete."""
    everyone: bool = False
    """The whole collection is erased."""
    subject_hashes: tuple[str, ...] = ()
    """HMAC-SHA256 of each name under the erasure's subject key, which is kept nowhere."""
    by: str
    """The key id, or the operator, that asked for it."""
    begun_at: AwareDatetime
    version: Annotated[int, Field(ge=0)] = 0
    """The collection's version after the removal: readers that have applied it are clean. 0 before the removal."""
    places: tuple[Place, ...] = ()
    passes: Annotated[int, Field(ge=0)] = 0
    """How often the ledger was worked off so far."""
    next_pass_at: AwareDatetime
    completed_at: AwareDatetime | None = None

    @property
    def complete(self) -> bool:
        """Whether nothing is owed any more."""
        return self.completed_at is not None

    @property
    def still_owed(self) -> tuple[Place, ...]:
        """The places that are tried again."""
        return tuple(place for place in self.places if place.state is PlaceState.OWED)

    def place(self, name: str) -> Place:
        """Return the place of this name, a new one if there is none."""
        return next((place for place in self.places if place.name == name), Place(name=name))

    def with_place(self, place: Place) -> "ErasureRecord":
        """Return the record with this place instead of the one of its name."""
        known = {each.name: each for each in self.places} | {place.name: place}
        return self.model_copy(update={"places": tuple(known.values())})


class ReaderKind(StrEnum):
    """What a reader of galleries keeps."""

    PROCESS = "process"
    """Collections in memory, and unnamed files, which end with it."""
    DISK = "disk"
    """Snapshots in a folder, which stay when its machine is stopped."""


class ReaderReport(Message):
    """What one reader of galleries keeps, by its last report."""

    reader_id: str
    """`<disk>` or `<disk>/<process>`."""
    kind: ReaderKind
    where: str
    """The machine with the folder, to show to people."""
    collections: dict[str, int] = Field(default_factory=dict)
    """Those it keeps, each with the version up to which nothing that was removed is left; 0 if that is not known."""
    clean: bool = True
    """Of a disk: nothing stands in the way of deleting; otherwise no collection is clean, also those not listed."""
    reported_at: AwareDatetime
    model_id: str | None = None
    """Of a process: the model of the templates in its memory."""
    written_off_by: str | None = None
    """The operator who said that it is gone."""

    def is_clean(self, collection: str, version: int) -> bool:
        """Whether it keeps nothing that was removed from the collection up to this version."""
        return self.clean and self.collections.get(collection, version) >= version
