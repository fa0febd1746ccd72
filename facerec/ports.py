"""What the use cases need from services, as protocols.

Adapters (`facerec.aws`, `facerec.engine`) and the in-memory fakes of `tests/fakes` implement them; the same contract
tests run against both. Every method may raise `Transient` if its service cannot be reached; no vendor error passes.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Protocol
from uuid import UUID

from facerec.access_records import AccessRecord
from facerec.api_keys import ApiKey
from facerec.erasure_records import ErasureRecord, ReaderReport
from facerec.errors import ApiKeyUnreadable
from facerec.fleet_records import RoundRecord
from facerec.job_records import Job, JobFile
from facerec.message_base import ObjectRef
from facerec.messages import FacesMessage, RecognitionRequest, RecognitionResult, WorkerRecord, WorkerReport
from facerec.session_records import Session
from facerec.unknown_records import UnknownAlert, UnknownPerson

if TYPE_CHECKING:
    # The web tier imports this module and runs without numpy and without the engine.
    import numpy as np
    from numpy.typing import NDArray

    from model.faces import ImageAnalysis, JpegFaces, PackedFaces, PictureFaces


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object without its bytes."""

    bucket: str
    key: str
    size: int
    content_type: str
    stored_at: datetime
    """Rounded down to whole seconds."""


class ListedObject(NamedTuple):
    """An object as a listing shows it."""

    key: str
    stored_at: datetime
    """As in `StoredObject`."""


class ObjectStore(Protocol):
    """Objects by bucket and key; `put` overwrites, and the object can be read at once."""

    def put(self, bucket: str, key: str, body: bytes, content_type: str) -> None:
        """Store an object, whole or not at all."""

    def get(self, bucket: str, key: str) -> bytes:
        """Return an object's bytes; raises `ObjectMissing`."""

    def describe(self, bucket: str, key: str) -> StoredObject:
        """Return an object without its bytes; raises `ObjectMissing`."""

    def exists(self, bucket: str, key: str) -> bool:
        """Whether the object exists."""

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        """All keys with the prefix, sorted."""

    def sizes(self, bucket: str, prefix: str = "") -> Iterator[tuple[str, int]]:
        """Yield the key and size of each object with the prefix, sorted by UTF-8 bytes; reads page by page."""

    def listed(self, bucket: str, after: str = "", prefix: str = "") -> Iterator[ListedObject]:
        """All objects with the prefix and keys behind `after`, sorted by key, read page by page."""

    def delete(self, bucket: str, key: str) -> None:
        """Remove an object; idempotent."""

    def upload(self, bucket: str, key: str, file: BinaryIO, content_type: str) -> None:
        """Store a file from its beginning, whole or not at all, of any size; the file may be closed then."""

    def download(self, bucket: str, key: str, file: BinaryIO) -> None:
        """Write an object of any size to an empty file, at any place of it; raises `ObjectMissing`."""


class TaskQueue(Protocol):
    """The web tier's way to send tasks to the request queue."""

    def submit(self, request: RecognitionRequest) -> None:
        """Enqueue the task; on return it is durable. Raises `QueueMissing`."""


class MessageSender(Protocol):
    """A queue that takes messages as they are."""

    def send(self, body: str, delay_seconds: int = 0) -> None:
        """Send a message that is delivered after the delay; on return it is durable. Raises `QueueMissing`."""


class ResultPublisher(Protocol):
    """The sending end of the response queues."""

    def publish(self, reply_to: str, result: RecognitionResult) -> None:
        """Send the result to a response queue; raises `QueueMissing` if its web process has left."""


class DeviceResults(Protocol):
    """The way back to devices."""

    def publish(self, thing: str, result: RecognitionResult) -> None:
        """Send the result on the device's topic; raises `Refused`.

        A device that is offline gets it later only if it has subscribed in a persistent session.
        """


class FacesPublisher(Protocol):
    """The sending end of the faces queue."""

    def publish(self, message: FacesMessage) -> None:
        """Send the faces of a photo; on return they are durable. Raises `QueueMissing` and `Refused`."""


@dataclass(frozen=True, slots=True)
class ResultDelivery:
    """A received result and the receipt that deletes it."""

    result: RecognitionResult
    receipt: str


class ResultInbox(Protocol):
    """The reading end of one response queue."""

    def receive(self, wait_seconds: float) -> Sequence[ResultDelivery]:
        """Return up to ten results as soon as there is one, or none after the wait; logs and drops unreadable ones."""

    def delete(self, deliveries: Sequence[ResultDelivery]) -> None:
        """Delete deliveries, so that they are not delivered again."""


class ModelInUse(Protocol):
    """A loaded model; safe to call from many threads."""

    @property
    def name(self) -> str:
        """`openvino`, `onnxruntime` or `torch`."""

    @property
    def precision(self) -> str:
        """The number format of the networks: `fp32` or `bf16`."""

    @property
    def model_id(self) -> str:
        """The model of the embeddings."""


class FaceEngine(ModelInUse, Protocol):
    """Photo bytes in, faces out."""

    def analyse(self, image: bytes) -> "ImageAnalysis":
        """Decode, detect and embed; raises `InvalidImage`, or `EngineFailure` if this image makes the engine fail."""


class FaceDetector(ModelInUse, Protocol):
    """The first half of a `FaceEngine`."""

    def detect(self, image: bytes) -> "PackedFaces":
        """Decode, detect, crop and pack; raises as `FaceEngine.analyse`."""


class FaceEmbedder(ModelInUse, Protocol):
    """The second half of a `FaceEngine`."""

    def embed(self, faces: "PictureFaces | JpegFaces") -> "ImageAnalysis":
        """Embed; raises `EngineFailure` if these faces make the engine fail, and `InvalidImage` for a JPEG crop.

        A JPEG crop must be a picture of the side that the model's crops have.
        """


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TemplateEntry:
    """A template without its embedding: what people see of it. It needs no numpy."""

    template_id: str
    """Hash of collection, model and photo bytes, and of the face's place if it is not the first of its photo."""
    collection: str
    identity: str
    model_id: str
    source: str
    """The file name of the photo, to show to people."""
    photo: ObjectRef | None
    """`None` for a template that was imported without its photo."""
    probability: float
    enrolled_at: datetime
    external_id: str | None = None
    """Rekognition's ExternalImageId, if its client gave one."""
    quality: float | None = None
    """How well the photo suits recognition, from 0 to 1 (`model.quality`); `None` if it was not assessed."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Template(TemplateEntry):
    """One enrolled face of one identity, comparable only with embeddings of the same model."""

    embedding: "NDArray[np.float32]"
    """Shape (D,), L2-normalised; D is the dimension of the model."""


@dataclass(frozen=True, slots=True)
class DamagedTemplate:
    """A stored template that cannot be used: every reader leaves it out."""

    template_id: str
    reason: str
    """Without numbers of the embedding; that of a stored template is logged, and does not contain the name."""
    identity: str = ""
    """Whose it is, if that can be read."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RejectionEntry:
    """A remembered "this is not X" without its embedding."""

    rejection_id: str
    """Hash of collection, person, model, photo bytes and the face's place."""
    collection: str
    identity: str
    """Who the face is not."""
    model_id: str
    source: str
    """The file name of the photo, to show to people."""
    rejected_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rejection(RejectionEntry):
    """A face that is not this person: probes that are as similar to it as to the person's templates are not, either."""

    embedding: "NDArray[np.float32]"
    """Shape (D,), L2-normalised, as a template's."""


@dataclass(frozen=True, slots=True)
class CollectionThreshold:
    """The calibrated least similarity of a match, for one collection and one model."""

    value: float
    """Similarity max(0, cosine), from 0 to 1."""
    target_fmr: float
    fmr: float
    """The measured share of impostor pairs with at least this similarity."""
    impostor_pairs: int
    source: str
    """Where the pairs came from, to show to people."""
    calibrated_at: datetime


@dataclass(frozen=True, slots=True)
class Changes:
    """The changes from one version of a collection to a later one; apply the removals first."""

    version: int
    added: Sequence[Template]
    """Of all models; those of a still later version may be among them, and come again with that version."""
    removed: Sequence[str]
    """Template ids, also of templates that no earlier version had, and of damaged ones."""
    damaged: Sequence[DamagedTemplate] = ()
    """Changed templates that cannot be read."""


class ChangedIds(NamedTuple):
    """Which templates the changes from one version of a collection to a later one have touched."""

    version: int
    template_ids: frozenset[str]
    """Those that were added, given to another person or removed, also damaged ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeRecord:
    """A merge of two people of a collection: what `unmerge` needs to take it back."""

    merge_id: str
    """32 hexadecimal digits."""
    collection: str
    source: str
    """The name of the person that was merged."""
    into: str
    """The person who has the templates now: it follows a rename or a later merge."""
    templates: dict[str, tuple[str, ...]]
    """The ids of the moved templates by the name that each had before."""
    merged_at: datetime
    by: str
    """Who merged, to show to people; may be empty."""
    rejections: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """The ids of the moved rejections by the name that each had before."""
    rename: bool = False
    """Whether it is a rename that has not ended: it needs the same record, but only until its end."""

    @property
    def template_ids(self) -> tuple[str, ...]:
        """The ids of all moved templates."""
        return tuple(chain.from_iterable(self.templates.values()))


class PersonRecords(Protocol):
    """What is kept of people beside their templates; safe for concurrent writers and many readers."""

    def add_name(self, collection: str, name: str) -> None:
        """Keep a person in the collection also while it has no template; idempotent."""

    def names(self, collection: str) -> list[str]:
        """The names of `add_name`, sorted."""

    def remove_name(self, collection: str, name: str) -> None:
        """Undo `add_name`; idempotent."""

    def put_merge(self, record: MergeRecord) -> None:
        """Add the record of a merge, or replace it."""

    def merges(self, collection: str) -> list[MergeRecord]:
        """All readable records of merges, oldest first; includes every put that has returned."""

    def remove_merge(self, collection: str, merge_id: str) -> None:
        """Remove the record of a merge; idempotent."""

    def forget(self, collection: str, name: str) -> int:
        """Remove everything that names the person in any spelling; returns how many items that were.

        A record that cannot be read is removed, too: it may name the person.
        """


class UnknownPeople(Protocol):
    """What is kept of unknown people beside their templates, and alerts; safe for many writers and readers."""

    def get(self, collection: str, unknown_id: str) -> UnknownPerson | None:
        """One record; includes every write that has returned. It may be past its time."""

    def records(self, collection: str, after: str = "") -> Iterator[UnknownPerson]:
        """The readable records by their ids, those after an id only; reads page by page."""

    def put(self, record: UnknownPerson, alert: UnknownAlert | None = None) -> bool:
        """Write the next revision, and its alert in place of an earlier one; False after another write."""

    def remove(self, record: UnknownPerson) -> bool:
        """Remove this revision; False after another write."""

    def alerts(self) -> list[UnknownAlert]:
        """All alerts that were not removed; they are few."""

    def postpone_alert(self, alert: UnknownAlert, later: UnknownAlert) -> bool:
        """Write when an alert is due; False if another process, or a new alert, was faster."""

    def remove_alert(self, alert: UnknownAlert) -> bool:
        """Remove an alert that was sent; False as `postpone_alert`."""


class EnrolledPeople(Protocol):
    """Who is enrolled, without the embeddings; safe for concurrent writers and many readers."""

    def remove(self, collection: str, template_ids: Sequence[str]) -> int:
        """Remove templates; returns how many existed."""

    def reassign(self, collection: str, template_ids: Sequence[str], identity: str) -> int:
        """Give templates to a person, whom they may belong to already; returns how many existed."""

    def version(self, collection: str) -> int:
        """The number of changes so far, cheap enough for workers to poll.

        After the store was lost and created again, it begins above the collection's earlier versions.
        """

    def changed_ids(self, collection: str, since: int) -> ChangedIds | None:
        """What has changed since an earlier `version`; `None` if these changes are no longer known."""

    def entries(self, collection: str, after: str = "", at_once: int | None = None) -> Iterator[TemplateEntry]:
        """The readable templates of the collection, of all models, by their ids, those after an id only.

        It reads page by page as `templates`, so many at once, without a number as many as a page has.
        """

    def find(self, collection: str, template_ids: Sequence[str]) -> dict[str, TemplateEntry]:
        """Those of these templates that the collection has and that can be read, by their ids."""

    def entry(self, collection: str, template_id: str) -> TemplateEntry | None:
        """One template of the collection, or `None`, also for one that cannot be read."""

    def owners(self, collection: str) -> dict[str, str]:
        """The identity of each template by its id; an identity that cannot be read is empty."""

    def count(self, collection: str) -> int:
        """The number of templates of all models; one small read."""

    def collections(self) -> list[str]:
        """The names of all collections with templates, sorted."""

    def collections_with_unknown(self) -> list[str]:
        """The names of the collections with templates of unknown people, sorted; `collections` does not count these."""

    def copy(self, collection: str, template_ids: Sequence[str], target: str, identity: str) -> int:
        """Copy templates to a person of another collection; returns how many it did not have."""

    def rejection_entries(self, collection: str) -> list[RejectionEntry]:
        """All readable rejections of the collection, by their ids; they are few."""

    def remove_rejections(self, collection: str, rejection_ids: Sequence[str]) -> int:
        """Remove rejections, also damaged ones; returns how many existed."""

    def reassign_rejections(self, collection: str, rejection_ids: Sequence[str], identity: str) -> int:
        """Let rejections be about another name, after a person was renamed or merged; returns how many existed."""


class TemplateStore(EnrolledPeople, Protocol):
    """The gallery's system of record."""

    def add(self, template: Template) -> None:
        """Add one template; raises `AlreadyEnrolled` if its id exists. It replaces a damaged one."""

    def changes(self, collection: str, since: int) -> Changes | None:
        """The changes since an earlier `version`; `None` if they are no longer known."""

    def templates(self, collection: str, damaged: list[DamagedTemplate] | None = None) -> Iterator[Template]:
        """All templates of the collection, of all models, by their ids; includes every add that has returned.

        Those that cannot be read are appended to `damaged` instead. The embeddings are not checked.
        The iterator reads page by page: it may raise at any step, and may miss changes made meanwhile.
        """

    def template(self, collection: str, template_id: str) -> Template | None:
        """One template of the collection, or `None`, also for one that cannot be read."""

    def reject(self, rejection: Rejection) -> None:
        """Store a rejection, or replace the one with its id; it raises the version.

        No change of a template touches it: who renames or removes a person also takes the person's rejections along.
        """

    def rejections(self, collection: str) -> list[Rejection]:
        """All rejections of the collection, of all models, by their ids, without those that cannot be read.

        The embeddings are not checked.
        """

    def threshold(self, collection: str, model_id: str) -> CollectionThreshold | None:
        """The collection's threshold for this model; `None` if it was not calibrated."""

    def set_threshold(self, collection: str, model_id: str, threshold: CollectionThreshold | None) -> None:
        """Replace or remove the collection's threshold for this model; always raises the version."""


class ListedKeys(NamedTuple):
    """All API keys."""

    keys: list[ApiKey]
    """Oldest first."""
    unreadable: list[ApiKeyUnreadable]
    """One for each key that cannot be read, by key id."""


class ApiKeys(Protocol):
    """The API keys of the web tier; safe for concurrent writers and many readers."""

    def get(self, key_id: str) -> ApiKey | None:
        """The key with this id; includes every put that has returned. Raises `ApiKeyUnreadable`."""

    def keys(self) -> ListedKeys:
        """All keys, also expired and revoked ones."""

    def put(self, key: ApiKey) -> None:
        """Add a key of revision 1, or replace a key by its next revision; raises `FacerecError` after another write."""


@dataclass(frozen=True, slots=True)
class CollectionRecord:
    """A collection that was created by name, whether or not anybody is enrolled in it."""

    collection: str
    owner: str | None
    """The id of the API key that created it and may use it; `None`: the operator, or a client in open mode."""
    created_at: datetime


class Collections(Protocol):
    """The collections that were created by name; one with templates exists also without a record."""

    def create(self, record: CollectionRecord) -> bool:
        """Add a record; returns False, and changes nothing, if there is one of this collection."""

    def get(self, collection: str) -> CollectionRecord | None:
        """The collection's record; includes every change that has returned."""

    def remove(self, collection: str) -> None:
        """Remove a record; idempotent. The templates are removed on their own."""

    def records(self) -> list[CollectionRecord]:
        """All records, by name."""


class Sessions(Protocol):
    """The sessions of the pages, until they expire; safe for concurrent writers and many readers."""

    def get(self, token_hash: str) -> Session | None:
        """The session with this hash of its token; includes every change that has returned. It may have expired."""

    def add(self, session: Session) -> None:
        """Add a session."""

    def remove(self, token_hash: str) -> None:
        """Remove a session; idempotent."""


class Jobs(Protocol):
    """Jobs and what became of their files, until they expire; safe for concurrent writers and many readers."""

    def create(self, job: Job, idempotency_key: str = "") -> Job:
        """Add a job, and return it; or the owner's earlier job with this key, and add none."""

    def created_with(self, owner: str, idempotency_key: str) -> Job | None:
        """The owner's job that was created with this key."""

    def job(self, job_id: UUID) -> Job | None:
        """The job; includes every write that has returned."""

    def newest(self, owner: str, limit: int) -> list[Job]:
        """The owner's jobs, the newest first."""

    def every(self) -> Iterator[Job]:
        """Yield the jobs of all owners; reads page by page."""

    def unsettled(self) -> list[Job]:
        """The jobs of all owners that need a process: their files have not ended, or their callback is due."""

    def put(self, job: Job) -> bool:
        """Replace a job by its next revision, or return False after another write; a settled one is not listed."""

    def add_files(self, job_id: UUID, files: Sequence[JobFile], expires_at: datetime) -> None:
        """Record files that have ended, any number; a file that is recorded already is replaced."""

    def files(self, job_id: UUID, after: int = -1) -> Iterator[JobFile]:
        """The ended files by their places, those after this one; reads page by page."""


class WorkerReports(Protocol):
    """The workers' reports to the autoscaler, and its orders to drain."""

    def report(self, report: WorkerReport) -> bool:
        """Replace the instance's report; returns whether the worker is ordered to drain, as known after the write."""

    def records(self, instance_ids: Iterable[str]) -> Mapping[str, WorkerRecord]:
        """Those of these instances that have a report or an order, by id; includes every write that has returned.

        The orders are read before the reports: a worker whose order is here reads it after its first report.
        """

    def order_drain(self, instance_id: str, ordered_at: float) -> None:
        """Order a worker to drain; an earlier order keeps its time. The worker need not have reported yet."""

    def cancel_drain(self, instance_id: str) -> None:
        """Cancel the order: the worker takes tasks again."""

    def forget(self, instance_id: str) -> None:
        """Remove the report and the order of an instance that starts again or is gone."""


class ErasureLedger(Protocol):
    """The erasures that are open and those that are complete.

    A lease lets one process at a time change a record. `save` raises `LeaseLost` if another process has it by now.
    """

    def add(self, record: ErasureRecord, owner: str, seconds: float) -> None:
        """Add an open erasure, leased to its owner."""

    def get(self, erasure_id: str) -> ErasureRecord | None:
        """An erasure, open or complete; includes every write that has returned."""

    def open(self) -> list[ErasureRecord]:
        """The open erasures, oldest first."""

    def complete(self) -> list[ErasureRecord]:
        """The complete erasures, oldest first."""

    def lease(self, erasure_id: str, owner: str, seconds: float) -> ErasureRecord | None:
        """Lease an open erasure; `None` if another process has it, or if it is not open."""

    def save(self, record: ErasureRecord, owner: str, *, seconds: float = 0, release: bool = False) -> None:
        """Write the record and renew the lease, or release it; a complete record leaves the open ones."""


class GalleryReaders(Protocol):
    """What keeps collections in memory or on a disk, by their own reports."""

    def report(self, report: ReaderReport) -> None:
        """Replace the report of its reader."""

    def reports(self) -> list[ReaderReport]:
        """All reports, by reader id; includes every write that has returned. Unreadable ones are not clean."""

    def forget(self, reader_id: str) -> None:
        """Remove the report of a process that has ended; idempotent."""

    def write_off(self, reader_id: str, by: str) -> bool:
        """Mark a reader as gone, until it reports again; returns whether it exists."""


class AccessRecords(Protocol):
    """Who searched or enrolled when; records are only added, and expire."""

    def add(self, records: Sequence[AccessRecord]) -> None:
        """Add records."""

    def since(self, moment: datetime) -> Iterator[AccessRecord]:
        """The records from a moment on, oldest first but for records of the same seconds."""


class PendingMessages(Protocol):
    """How many messages queues hold."""

    def counts(self) -> dict[str, int]:
        """The number of messages by queue, waiting, delayed or being worked on, about as SQS counts them."""


class FleetHistory(Protocol):
    """What the fleet did, kept for a week."""

    def record(self, record: RoundRecord) -> None:
        """Keep one record."""

    def records(self, since: float) -> Sequence[RoundRecord]:
        """Return every record since that moment, the oldest first."""

    def latest(self, until: float) -> RoundRecord | None:
        """Return the newest record that is not newer than that moment, if there is one."""
