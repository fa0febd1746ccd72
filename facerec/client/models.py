"""What the API answers, as the client reads it. Pure: unknown fields, of later servers, are ignored.

A test compares the fields with those of the API's document.
"""

from datetime import datetime
from uuid import UUID

from facerec.erasure_records import PlaceState
from facerec.message_base import Message
from facerec.messages import Face, FaceQuality, RecognitionResult, ResultBox, ResultMatch


class FoundFace(Face):
    """A face of a photo."""

    primary: bool = False
    """Whether it is the photo's subject, which decides `result` and `outcome`."""


class Recognition(RecognitionResult):
    """What was found on a photo: the document's `Result`."""

    faces: tuple[FoundFace, ...] = ()
    source_faces: tuple[FoundFace, ...] = ()


class PersonSummary(Message):
    """A person."""

    name: str
    photos: int
    first_enrolled: datetime | None
    last_enrolled: datetime | None


class Merge(Message):
    """A merge of two people; `unmerge` takes it back by `source` or `merge_id`."""

    merge_id: UUID
    source: str
    into: str
    photos: int
    merged_at: datetime


class PhotoSummary(Message):
    """An enrolled photo."""

    id: UUID
    name: str
    filename: str
    enrolled_at: datetime
    probability: float
    model_id: str
    kept: bool
    external_id: str | None


class Enrolled(Message):
    """What became of a photo that was to be enrolled."""

    status: str
    detail: str
    id: UUID | None
    name: str
    enrolled_for: str | None
    look_alikes: tuple[ResultMatch, ...]
    box: ResultBox | None
    quality: FaceQuality | None
    request_id: UUID


class Rejected(Message):
    """A face that is remembered not to be a person's."""

    name: str
    face: int
    request_id: UUID


class ErasureBegun(Message):
    """An erasure that has begun. Keep `subject_key`: with it the ledger's hashes can be shown to be about a name."""

    erasure_id: UUID
    subject_key: str


class ErasedPlace(Message):
    """A place that may have something of the person."""

    name: str
    state: PlaceState
    removed: int
    detail: str
    confirmed_at: datetime | None
    confirmed_by: str


class Erasure(Message):
    """The ledger of an erasure; `complete` when nothing is owed any more."""

    erasure_id: UUID
    collection: str
    complete: bool
    begun_at: datetime
    completed_at: datetime | None
    by: str
    subject_hashes: tuple[str, ...]
    places: tuple[ErasedPlace, ...]


class Receipt(Message):
    """A signed receipt of an erasure: a JSON Web Signature (RFC 7515) in flattened JSON."""

    payload: str
    protected: str
    signature: str


class PeoplePage(Message):
    """A page of people."""

    people: tuple[PersonSummary, ...]
    next: str | None


class PhotosPage(Message):
    """A page of photos."""

    photos: tuple[PhotoSummary, ...]
    next: str | None


class UnknownSummary(Message):
    """An unknown person."""

    unknown_id: str
    first_seen: datetime
    last_seen: datetime
    seen_count: int
    faces: int
    aliases: tuple[str, ...]
    expires_at: datetime


class UnknownPage(Message):
    """A page of unknown people."""

    unknown: tuple[UnknownSummary, ...]
    next: str | None


class Promoted(Message):
    """The person that an unknown person has become, and how many templates it got."""

    name: str
    photos: int


class UnknownRemoved(Message):
    """How many faces of an unknown person were removed."""

    faces: int
