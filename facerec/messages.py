"""What travels over the queues: versioned JSON, pure.

Readers accept the versions in `SupportedVersion`, ignore unknown fields, and raise `InvalidMessage` for what they
cannot read, so that web and workers can be upgraded one after the other.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from facerec.errors import InvalidMessage

VERSION: Literal[1] = 1
"""What is written."""
SupportedVersion = Literal[1]
"""What is read: the current version and, once there is one, the previous."""
TASK_NAME = "facerec.recognise"
"""The Celery task that carries a request: explicit, so that moving its module never orphans what is queued."""
UNKNOWN = "Unknown"
NO_FACE = "No-Face"
DEFAULT_COLLECTION = "default"
CollectionName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
Ratio = Annotated[float, Field(ge=0.0, le=1.0)]
ThresholdSource = Literal["request", "collection", "model"]


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    @classmethod
    def parse(cls, message: str | bytes | dict[str, Any]) -> Self:
        """Read a message from JSON text or from its decoded object; raises `InvalidMessage`."""
        try:
            if isinstance(message, str | bytes):
                return cls.model_validate_json(message)
            return cls.model_validate(message)
        except ValidationError as exc:
            problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'message'}: {e['msg']}" for e in exc.errors())
            raise InvalidMessage(f"unreadable {cls.__name__}: {problems}") from exc

    def to_json(self) -> str:
        """The message as JSON text, the inverse of `parse`; ASCII, since SQS refuses some characters of Unicode."""
        return self.model_dump_json(ensure_ascii=True)


class ObjectRef(_Message):
    """Where an object lies, and its size in bytes."""

    bucket: str
    key: str
    size: Annotated[int, Field(ge=0)]


class RecognitionRequest(_Message):
    """One photo to recognise. The photo itself stays in the object store."""

    version: SupportedVersion = VERSION
    request_id: UUID
    input: ObjectRef
    filename: str
    """The true file name, as the client sent it."""
    collection: CollectionName = DEFAULT_COLLECTION
    threshold: Ratio | None = None
    """The client's own threshold on our similarity; the collection's or the model's applies where it is absent."""
    reply_to: str | None = None
    """The name of the response queue; nobody waits where it is absent."""
    submitted_at: AwareDatetime


class Outcome(StrEnum):
    """How a recognition ended, decided by the primary face."""

    MATCH = "match"
    UNKNOWN = "unknown"
    NO_FACE = "no_face"
    INVALID_IMAGE = "invalid_image"
    FAILED = "failed"
    """The engine could not process this one image; the request waits in the dead-letter queue."""


class Box(_Message):
    """A face's corners in pixels of the upright picture; they may lie a little outside of it."""

    x_min: float
    y_min: float
    x_max: float
    y_max: float


class Match(_Message):
    """An identity at or above the threshold, with its similarity max(0, cosine)."""

    identity: str
    similarity: Ratio
    threshold: Ratio


class FaceQuality(_Message):
    """How well a face can be recognised by how it was taken: 1 is best; the worst reason comes first."""

    score: Ratio
    reasons: tuple[str, ...] = ()


class Face(_Message):
    """One detected face with its matches, best first; no match at or above the threshold leaves the list empty."""

    box: Box
    probability: Ratio
    landmarks: tuple[tuple[float, float], ...]
    """Left eye, right eye, nose, left and right corner of the mouth, as (x, y) in pixels."""
    matches: tuple[Match, ...] = ()
    quality: FaceQuality | None = None
    """Absent in results of earlier versions."""


class RecognitionResult(_Message):
    """The answer to one request; a duplicate is harmless, since `request_id` names it."""

    version: SupportedVersion = VERSION
    request_id: UUID
    result: str
    """The bare name of the primary face, `Unknown` or `No-Face`; empty where the image could not be processed."""
    filename: str
    outcome: Outcome
    detail: str | None = None
    """One sentence for the client, where the outcome is `invalid_image` or `failed`."""
    retryable: bool = False
    """Whether a new upload of the same picture may succeed, where the outcome is `failed`.

    Results of earlier versions do not have it.
    """
    collection: CollectionName = DEFAULT_COLLECTION
    faces: tuple[Face, ...] = ()
    """Every face, the primary one first."""
    threshold_source: ThresholdSource | None = None
    """Whose threshold applied: `model` means the model's table for so many people.

    It and the following four are absent where there was no face, and in results of earlier versions.
    """
    threshold: Ratio | None = None
    identities: Annotated[int, Field(ge=0)] | None = None
    """How many people of the collection the faces were compared with."""
    false_names: Ratio | None = None
    """The share of strangers that may get a name, where the threshold is the model's for so many people."""
    threshold_extrapolated: bool = False
    """Whether that threshold lies beyond what was measured."""
    more_faces: Annotated[int, Field(ge=0)] = 0
    """How many faces were seen beyond those in `faces`."""
    model_id: str | None = None
    engine: str | None = None
    precision: str | None = None
    timings_ms: dict[str, float] = {}
    attempt: Annotated[int, Field(ge=1)] = 1
    completed_at: datetime

    @property
    def stem(self) -> str:
        """The file name without its extension."""
        return PurePosixPath(self.filename).stem


FLEET_TAG = "facerec:fleet"
"""The tag of the fleet's instances and of what makes them; its value is the prefix."""


class WorkerState(StrEnum):
    """Where a worker is in its life, as it tells itself."""

    READY = "ready"
    """It takes tasks."""
    DRAINING = "draining"
    """It takes no more tasks and finishes those it holds."""
    DRAINED = "drained"
    """It takes no tasks and holds none: its instance may be stopped."""
    ENDED = "ended"
    """Its process ends in good order: the instance stops, or the worker is started again, as after an update."""


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """What the worker of one instance last said of itself; the counts are since `ready_at`."""

    instance_id: str
    state: WorkerState
    ready_at: float
    """When it began to take tasks: what launched or started before is what booting took."""
    reported_at: float
    held: int
    """Tasks received and not yet ended."""
    idle_since: float | None
    """Since when it holds none; absent while it holds one."""
    tasks_done: int
    saturated_seconds: float
    """How long it held at least as many tasks as it has engines, so that its throughput was its capacity."""
    saturated_tasks: int
    """Tasks that ended in that time."""
    interrupted: bool = False
    """EC2 has given notice that it takes the instance back."""


@dataclass(frozen=True, slots=True)
class Registration:
    """What is known of one instance's worker: what it said, and what it was asked."""

    report: WorkerReport | None
    drain_ordered_at: float | None
