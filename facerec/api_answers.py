"""Answers of `/api/v1` as the server writes and the client reads them; the document has their docstrings. Pure."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from facerec.erasure_records import PlaceState
from facerec.message_base import Message
from facerec.messages import Refusal

REFUSAL_STATUS = {
    Refusal.NO_SUCH_TEMPLATE: 404,
    Refusal.NO_SUCH_PERSON: 404,
    Refusal.NO_SUCH_FACE: 422,
    Refusal.OTHER_MODEL: 409,
    Refusal.INVALID_NAME: 400,
    Refusal.NOT_ENROLLED: 422,
    Refusal.UNSUPPORTED: 501,
}
"""The statuses of refused operations."""


class Pending(Message):
    """A request whose result will be at `/api/v1/results/<request_id>`; the header `Location` has the address."""

    request_id: UUID
    status: Literal["pending"] = "pending"


class PersonSummary(Message):
    """A person."""

    name: str
    photos: int
    """How many photos are enrolled; a person may have none."""
    first_enrolled: datetime | None
    last_enrolled: datetime | None


class PeoplePage(Message):
    """People by name."""

    people: tuple[PersonSummary, ...]
    next: str | None
    """The `cursor` of the next page; null on the last one."""


class Merge(Message):
    """A merge of two people, which can be taken back."""

    merge_id: UUID
    source: str
    """The name of the merged person."""
    into: str
    """The person who has its photos."""
    photos: int
    """How many photos have changed hands."""
    merged_at: datetime


class PhotoSummary(Message):
    """An enrolled photo."""

    id: UUID
    name: str
    """Whose it is."""
    filename: str
    enrolled_at: datetime
    probability: float
    """Of the detection of its face."""
    model_id: str
    """Only with the model in use its face is found."""
    kept: bool
    """Whether the photo itself can be read; imported faces may have none."""
    external_id: str | None


class PhotosPage(Message):
    """The photos of a person."""

    photos: tuple[PhotoSummary, ...]
    next: str | None
    """The `cursor` of the next page; null on the last one."""


class Rejected(Message):
    """A face that is remembered not to be a person's."""

    name: str
    face: int
    request_id: UUID


class UnknownSummary(Message):
    """An unknown person."""

    unknown_id: str
    first_seen: datetime
    last_seen: datetime
    seen_count: int
    """How many times, at most once a minute."""
    faces: int
    """How many of its faces are kept, as templates without a photo."""
    aliases: tuple[str, ...]
    """The ids that were merged into this one."""
    expires_at: datetime
    """When it is forgotten, unless it is seen again."""


class UnknownPage(Message):
    """Unknown people by id."""

    unknown: tuple[UnknownSummary, ...]
    next: str | None
    """The `cursor` of the next page; null on the last one."""


class Promoted(Message):
    """The person that an unknown person has become."""

    name: str
    """As the collection spells it."""
    photos: int
    """How many templates the person got; they have no photo."""


class UnknownRemoved(Message):
    """What was removed."""

    faces: int


class ErasureBegun(Message):
    """An erasure that has begun; the header `Location` has the address of its ledger."""

    erasure_id: UUID
    subject_key: str
    """Keep it: with it the ledger's hashes can be shown to be about a name. It is kept nowhere."""


class ErasedPlace(Message):
    """A place that may have something of the person."""

    name: str
    state: PlaceState
    removed: int
    """How many objects, items or messages were removed."""
    detail: str
    confirmed_at: datetime | None
    confirmed_by: str


class Erasure(Message):
    """The ledger of an erasure. It names no person."""

    erasure_id: UUID
    collection: str
    complete: bool
    """Whether nothing is owed any more."""
    begun_at: datetime
    completed_at: datetime | None
    by: str
    """Who asked for it."""
    subject_hashes: tuple[str, ...]
    """HMAC-SHA256 of each name under the subject key."""
    places: tuple[ErasedPlace, ...]


class Receipt(Message):
    """A JSON Web Signature (RFC 7515) with Ed25519, in flattened JSON; the payload is the ledger as a document."""

    payload: str
    protected: str
    signature: str
