"""The messages on the queues: versioned JSON, pure.

Web tier and workers can be upgraded one after the other: readers accept the versions in `SupportedVersion`, ignore
unknown fields, and raise `InvalidMessage` for a message that they cannot read.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from facerec.errors import InvalidMessage
from facerec.object_keys import base_name

VERSION: Literal[1] = 1
"""The version that is written."""
SupportedVersion = Literal[1]
"""The versions that are read: the current one and, once it exists, the previous one."""
TASK_NAME = "facerec.recognise"
"""The Celery task of a request; a fixed name, so that moving its module never orphans queued messages."""
FACES_TASK_NAME = "facerec.recognise_faces"
"""The Celery task that a worker makes of a message of the faces queue, which has no Celery envelope."""
UNKNOWN = "Unknown"
NO_FACE: Literal["No-Face"] = "No-Face"
DEFAULT_COLLECTION = "default"
CollectionName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]*[A-Za-z0-9_-][A-Za-z0-9_.-]*$", max_length=64)]
"""Not dots alone: S3 refuses a key that begins with a step in a path."""
FileName = Annotated[str, AfterValidator(base_name)]
"""Cut, not refused, if it is too long: a photo is recognised whatever its name, which is only shown."""
Ratio = Annotated[float, Field(ge=0.0, le=1.0)]
ThresholdSource = Literal["request", "collection", "model"]


_SHOWN_PROBLEMS = 5
_LONGEST_FIELD = 200
"""In characters: the name of a field may come from the message."""


def _problems(error: ValidationError) -> str:
    """The first problems; a message of 128 KB may have 60 000 of them, which would make a log line of 4 MB."""
    shown = "; ".join(
        f"{'.'.join(map(str, each['loc']))[:_LONGEST_FIELD] or 'message'}: {each['msg'][:_LONGEST_FIELD]}"
        for each in error.errors(include_url=False, include_context=False, include_input=False)[:_SHOWN_PROBLEMS]
    )
    more = error.error_count() - _SHOWN_PROBLEMS
    return f"{shown}; and {more} more" if more > 0 else shown


class Message(BaseModel):
    """The base of the messages: frozen, read by `parse` and written by `to_json`."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    @classmethod
    def parse(cls, message: str | bytes | dict[str, Any]) -> Self:
        """Read a message from JSON text or from its decoded object; raises `InvalidMessage`."""
        try:
            if isinstance(message, str | bytes):
                return cls.model_validate_json(message)
            return cls.model_validate(message)
        except ValidationError as exc:
            raise InvalidMessage(f"unreadable {cls.__name__}: {_problems(exc)}") from exc

    def to_json(self) -> str:
        """The message as JSON text, the inverse of `parse`; ASCII, because SQS refuses some Unicode characters."""
        return self.model_dump_json(ensure_ascii=True)


class ObjectRef(Message):
    """An object in the store, with its size in bytes."""

    bucket: str
    key: str
    size: Annotated[int, Field(ge=0)]


class Request(Message):
    """A picture whose faces are to be recognised, wherever it is: what its result depends on."""

    version: SupportedVersion = VERSION
    request_id: UUID
    filename: FileName
    """The file name that the client sent."""
    collection: CollectionName = DEFAULT_COLLECTION
    threshold: Ratio | None = None
    """The client's threshold on our similarity; without it the collection's or the model's applies."""
    reply_to: str | None = None
    """The name of the response queue; `None` if no client waits."""
    submitted_at: AwareDatetime


class RecognitionRequest(Request):
    """One photo to recognise; the photo stays in the object store."""

    input: ObjectRef


class Outcome(StrEnum):
    """How a recognition ended; the primary face decides."""

    MATCH = "match"
    UNKNOWN = "unknown"
    NO_FACE = "no_face"
    INVALID_IMAGE = "invalid_image"
    FAILED = "failed"
    """The image could not be processed; the request is in the dead-letter queue."""


class ResultBox(Message):
    """The corners of a face in pixels of the upright picture, within it."""

    x_min: float
    y_min: float
    x_max: float
    y_max: float


class ResultMatch(Message):
    """An identity at or above the threshold, with its similarity max(0, cosine)."""

    identity: str
    similarity: Ratio
    threshold: Ratio


class FaceQuality(Message):
    """How good the photo of a face is for recognition; score 1 is best, the worst reason comes first."""

    score: Ratio
    reasons: tuple[str, ...] = ()


class Face(Message):
    """One detected face with its matches at or above the threshold, best first."""

    box: ResultBox
    probability: Ratio
    landmarks: tuple[tuple[float, float], ...]
    """Left eye, right eye, nose, left and right mouth corner, as (x, y) in pixels, within the picture."""
    matches: tuple[ResultMatch, ...] = ()
    quality: FaceQuality | None = None
    """`None` in results of earlier versions."""


class RecognitionResult(Message):
    """The answer to the request `request_id`; a duplicate is harmless."""

    version: SupportedVersion = VERSION
    request_id: UUID
    result: str
    """The name of the primary face, `Unknown` or `No-Face`; empty if the image could not be processed."""
    filename: FileName
    outcome: Outcome
    detail: str | None = None
    """One sentence for the client if the outcome is `invalid_image` or `failed`."""
    retryable: bool = False
    """Whether a new upload of the picture may succeed after `failed`; `False` in results of earlier versions."""
    collection: CollectionName = DEFAULT_COLLECTION
    faces: tuple[Face, ...] = ()
    """All faces, the primary one first."""
    threshold_source: ThresholdSource | None = None
    """Which threshold applied; `model` is the model's table for this number of identities.

    This and the next four fields are unset without a face, and in results of earlier versions.
    """
    threshold: Ratio | None = None
    identities: Annotated[int, Field(ge=0)] | None = None
    """How many identities the faces were compared with."""
    false_names: Ratio | None = None
    """The share of strangers that may get a name, if the threshold is the model's."""
    threshold_extrapolated: bool = False
    """Whether the model's threshold lies beyond the measurements."""
    more_faces: Annotated[int, Field(ge=0)] = 0
    """How many faces were detected beyond those in `faces`."""
    model_id: str | None = None
    engine: str | None = None
    precision: str | None = None
    timings_ms: dict[str, float] = {}
    attempt: Annotated[int, Field(ge=1)] = 1
    thing: str | None = None
    """The device that detected the faces; `None` for an upload."""
    captured_at: AwareDatetime | None = None
    """When the device captured the frame, by its clock."""
    frame_id: UUID | None = None
    """The request id of the frame, if the result is about one of its faces beside the primary one."""
    completed_at: datetime

    @property
    def stem(self) -> str:
        """The file name without its extension."""
        return PurePosixPath(self.filename).stem


@dataclass(frozen=True, slots=True)
class Forwarded:
    """What the detection half did: it sent so many faces onward, to their recognition."""

    faces: int


class FaceToEmbed(Message):
    """One detected face; its crop is in the `FacesMessage`."""

    box: ResultBox
    probability: Ratio
    landmarks: tuple[tuple[float, float], ...]
    """As in `Face`."""
    factors: tuple[tuple[Ratio, str], ...] = ()
    """The factors of its quality that the photo gives, each with its reason (`model.quality`)."""


class FacesMessage(Message):
    """All faces of one photo, from the half that detects to the half that recognises.

    The crops are RGB, N x S x S x 3 bytes, packed by `facerec.faces_message`: in the message, or in the object store if
    they are too large for it.
    """

    version: SupportedVersion = VERSION
    request: RecognitionRequest
    model_id: str
    """The model whose detector found the faces: its embedder alone may embed them."""
    width: Annotated[int, Field(ge=1)]
    """Of the upright picture, in pixels."""
    height: Annotated[int, Field(ge=1)]
    faces: Annotated[tuple[FaceToEmbed, ...], Field(min_length=1)]
    """The primary one first."""
    more_faces: Annotated[int, Field(ge=0)] = 0
    crop_side: Annotated[int, Field(ge=1)]
    """S, in pixels."""
    crops: str | None = None
    """In base64."""
    crops_object: ObjectRef | None = None
    timings_ms: dict[str, float] = {}
    """The stages of the detection."""

    @model_validator(mode="after")
    def _has_crops_once(self) -> Self:
        if (self.crops is None) == (self.crops_object is None):
            raise ValueError("the crops must be either in the message or in an object")
        return self


FLEET_TAG = "facerec:fleet"
"""The tag of the fleet's instances and launch template; its value is the prefix."""
DRAIN_ORDERS = "drain"
"""The partition of the fleet's table with the orders to drain, which only the autoscaler may write."""


class WorkerState(StrEnum):
    """The state that a worker reports."""

    READY = "ready"
    """It takes tasks."""
    DRAINING = "draining"
    """It takes no more tasks and finishes its in-flight tasks."""
    DRAINED = "drained"
    """It takes no tasks and holds none: its instance may be stopped."""
    ENDED = "ended"
    """Its process ends in order: the instance stops, or the worker is restarted, as after an update."""


ReportedSeconds = Annotated[float, Field(ge=0, le=1e11, allow_inf_nan=False)]
"""Of a time since the epoch, or of a duration; sums of such values neither overflow nor lose a millisecond."""
ReportedCount = Annotated[int, Field(ge=0, le=10**12)]


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """The last report of an instance's worker; its counts begin at `ready_at`.

    The bounds hold for a report that was read, because the worker that wrote it may have been taken over.
    """

    instance_id: str
    state: WorkerState
    ready_at: ReportedSeconds
    """When it began to take tasks; the time from launch to here is the boot time."""
    reported_at: ReportedSeconds
    held: ReportedCount
    """How many tasks the worker holds."""
    idle_since: ReportedSeconds | None
    """Since when it holds no task; `None` while it holds one."""
    tasks_done: ReportedCount
    saturated_seconds: ReportedSeconds
    """How long it processed at least as many tasks as it has engines: its throughput was its capacity then."""
    saturated_tasks: ReportedCount
    """Tasks that ended in this time."""
    interrupted: bool = False
    """EC2 has announced that it will reclaim the instance."""


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """What the fleet's table holds of an instance's worker: its last report and its drain order."""

    report: WorkerReport | None
    drain_ordered_at: float | None
    unreadable: bool = False
    """Whether there is a report that cannot be read: the worker may hold tasks."""
