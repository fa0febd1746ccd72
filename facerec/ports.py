"""What the use cases need from the outside world, as protocols.

Adapters (`facerec.aws`, `facerec.engine`) implement them; so do the in-memory twins in `tests/fakes`, which one
suite of contract tests holds to the same behaviour. Every method may raise `Transient` when the service behind it
cannot be reached; vendor errors never pass.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple, Protocol

from facerec.api_keys import ApiKey
from facerec.errors import ApiKeyUnreadable
from facerec.messages import ObjectRef, RecognitionRequest, RecognitionResult, Registration, WorkerReport

if TYPE_CHECKING:
    # The web tier imports this module and runs without numpy and without the engine.
    import numpy as np
    from numpy.typing import NDArray

    from model.faces import ImageAnalysis


@dataclass(frozen=True, slots=True)
class StoredObject:
    """What an object store tells of an object without its bytes."""

    bucket: str
    key: str
    size: int
    content_type: str
    stored_at: datetime
    """In whole seconds, cut off."""


class ObjectStore(Protocol):
    """Objects by bucket and key; a put overwrites, and is readable at once."""

    def put(self, bucket: str, key: str, body: bytes, content_type: str) -> None:
        """Store an object whole or not at all."""

    def get(self, bucket: str, key: str) -> bytes:
        """Return an object's bytes; raises `ObjectMissing`."""

    def describe(self, bucket: str, key: str) -> StoredObject:
        """Return what is known of an object but its bytes; raises `ObjectMissing`."""

    def exists(self, bucket: str, key: str) -> bool:
        """Whether the object is there."""

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        """Every key that begins with the prefix, sorted."""

    def delete(self, bucket: str, key: str) -> None:
        """Remove an object; removing one that is not there is no error."""


class TaskQueue(Protocol):
    """Where the web tier hands requests to the app tier."""

    def submit(self, request: RecognitionRequest) -> None:
        """Enqueue the task; on return it is durable. Raises `QueueMissing`."""


class ResultPublisher(Protocol):
    """Where the app tier answers."""

    def publish(self, reply_to: str, result: RecognitionResult) -> None:
        """Send the result to a response queue; raises `QueueMissing` when its owner has left."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A received result and the receipt that deletes it."""

    result: RecognitionResult
    receipt: str


class ResultInbox(Protocol):
    """The reading end of one response queue."""

    def receive(self, wait_seconds: float) -> Sequence[Delivery]:
        """Up to ten results, as soon as there is one, or none after the wait; drops and logs what is unreadable."""

    def delete(self, deliveries: Sequence[Delivery]) -> None:
        """Forget deliveries; they are delivered again otherwise."""


class FaceEngine(Protocol):
    """Photo bytes in, faces out; safe to call from many threads."""

    @property
    def name(self) -> str:
        """`openvino`, `onnxruntime` or `torch`."""

    @property
    def precision(self) -> str:
        """What its numbers are: `fp32`, `bf16`."""

    @property
    def model_id(self) -> str:
        """Which model its embeddings belong to."""

    def analyse(self, image: bytes) -> "ImageAnalysis":
        """Decode, detect and embed; raises `model.header.InvalidImage`, or `EngineFailure` for a culprit."""


@dataclass(frozen=True, slots=True, eq=False)
class Template:
    """One enrolled face of one identity, comparable only with embeddings of the same model."""

    template_id: str
    """Hash of collection, model and photo bytes: enrolling the same photo twice is found out by its id."""
    collection: str
    identity: str
    model_id: str
    embedding: "NDArray[np.float32]"
    """Shape (D,), L2-normalised; D is the dimension of the model."""
    source: str
    """The file name of the photo, for people to recognise it by."""
    photo: ObjectRef | None
    """Where the photo lies; absent for a template that was imported without one."""
    probability: float
    enrolled_at: datetime


@dataclass(frozen=True, slots=True)
class CollectionThreshold:
    """The least similarity of a match in one collection with one model, and how it was found."""

    value: float
    """Similarity max(0, cosine), from 0 to 1."""
    target_fmr: float
    fmr: float
    """The share of the impostor pairs that reach `value`."""
    impostor_pairs: int
    source: str
    """Where the pairs came from, for people."""
    calibrated_at: datetime


@dataclass(frozen=True, slots=True)
class Changes:
    """What leads from one version of a collection to a later one: first the removals, then the additions."""

    version: int
    added: Sequence[Template]
    """All models; some may be of a version later still, and come again then."""
    removed: Sequence[str]
    """Template ids; some may never have been seen."""


class TemplateStore(Protocol):
    """The system of record of the gallery; safe for concurrent writers and many readers."""

    def add(self, template: Template) -> None:
        """Add one template; raises `AlreadyEnrolled` when its id exists. Concurrent adds all stay."""

    def remove(self, collection: str, template_ids: Sequence[str]) -> int:
        """Remove templates; returns how many were there."""

    def version(self, collection: str) -> int:
        """A number that every change of the collection raises by 1; 0 before the first. Cheap: workers poll it.

        A collection whose store was lost and made anew begins above the versions that it had before.
        """

    def changes(self, collection: str, since: int) -> Changes | None:
        """What has changed since a version that `version` once returned; nothing when that can no longer be told."""

    def templates(self, collection: str) -> Iterator[Template]:
        """Every template of the collection, all models, in the order of their ids; sees every add that has returned.

        They are read while they are taken, so that a large collection is never whole in memory: also an error comes
        when the first is taken, or in the middle, and a change meanwhile may be seen or not.
        """

    def collections(self) -> list[str]:
        """The names of the collections that hold templates, sorted."""

    def threshold(self, collection: str, model_id: str) -> CollectionThreshold | None:
        """The collection's own threshold for embeddings of this model, if it has one."""

    def set_threshold(self, collection: str, model_id: str, threshold: CollectionThreshold | None) -> None:
        """Replace the collection's threshold for this model, or remove it; always raises the version."""


class ListedKeys(NamedTuple):
    """All keys there are."""

    keys: list[ApiKey]
    """The oldest first."""
    unreadable: list[ApiKeyUnreadable]
    """What `ApiKeys.get` raises for each of the others, by their ids."""


class ApiKeys(Protocol):
    """Who may use the web tier; safe for concurrent writers and many readers."""

    def get(self, key_id: str) -> ApiKey | None:
        """The key of that id, if there is one; sees every put that has returned. Raises `ApiKeyUnreadable`."""

    def keys(self) -> ListedKeys:
        """Every key, also those that ended; one that cannot be read hides no other."""

    def put(self, key: ApiKey) -> None:
        """Add a key of revision 1, or replace it by its next revision; raises `FacerecError` if someone was quicker."""


class WorkerReports(Protocol):
    """Where the workers of the fleet report, and where the autoscaler asks them to drain."""

    def report(self, report: WorkerReport) -> bool:
        """Replace what the instance's worker said before; returns whether it is asked to drain. One cheap call."""

    def registrations(self) -> Mapping[str, Registration]:
        """Every instance that has reported or was asked to drain, by its id; sees every write that has returned."""

    def order_drain(self, instance_id: str, ordered_at: float) -> None:
        """Ask the worker to take no more tasks; an earlier order keeps its time. It may not have reported yet."""

    def cancel_drain(self, instance_id: str) -> None:
        """Let the worker take tasks again."""

    def forget(self, instance_id: str) -> None:
        """The instance starts a new life or has gone: remove its report and its order."""
