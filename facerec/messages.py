"""The messages on the queues: versioned JSON, pure.

Web tier and workers can be upgraded one after the other: readers accept the versions in `SupportedVersion`, ignore
unknown fields, and raise `InvalidMessage` for a message that they cannot read.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import AwareDatetime, Field, model_validator

from facerec.message_base import DEFAULT_COLLECTION, CollectionName, FileName, Message, ObjectRef, Ratio
from facerec.operations import Operation, Recognise

VERSION: Literal[1] = 1
"""The version that is written, except for `OPERATION_VERSION`."""
OPERATION_VERSION: Literal[2] = 2
"""That of a request with another operation than `Recognise`: an earlier worker, which would recognise, refuses it."""
SupportedVersion = Literal[1, 2]
"""The versions that are read."""
TASK_NAME = "facerec.recognise"
"""The Celery task of a request; a fixed name, so that moving its module never orphans queued messages."""
FACES_TASK_NAME = "facerec.recognise_faces"
"""The Celery task that a worker makes of a message of the faces queue, which has no Celery envelope."""
UNKNOWN = "Unknown"
NO_FACE: Literal["No-Face"] = "No-Face"
ThresholdSource = Literal["request", "collection", "model"]


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
    """What to do with one photo, which stays in the object store."""

    input: ObjectRef
    """The photo. That of `SearchTemplate`, which needs none, is empty: it marks the request as pending."""
    operation: Operation = Recognise()


class Outcome(StrEnum):
    """How a recognition ended; the primary face decides."""

    MATCH = "match"
    UNKNOWN = "unknown"
    NO_FACE = "no_face"
    INVALID_IMAGE = "invalid_image"
    FAILED = "failed"
    """The image could not be processed; the request is in the dead-letter queue."""
    DONE = "done"
    """An operation beside recognition is done; the result's fields say what came of it."""
    REFUSED = "refused"
    """An operation was not done; `refusal` and `detail` say why."""


class Refusal(StrEnum):
    """Why an operation was not done, for the client's program."""

    NO_SUCH_TEMPLATE = "no_such_template"
    NO_SUCH_PERSON = "no_such_person"
    NO_SUCH_FACE = "no_such_face"
    """The photo has fewer faces."""
    OTHER_MODEL = "other_model"
    """The template, or each of the person's, belongs to another model than the one in use."""
    INVALID_NAME = "invalid_name"
    NOT_ENROLLED = "not_enrolled"
    """No face was enrolled; `enrolments` say why."""
    UNSUPPORTED = "unsupported"
    """This app tier cannot do it: functions recognise and detect only."""


class ResultBox(Message):
    """The corners of a face in pixels of the upright picture, within it."""

    x_min: float
    y_min: float
    x_max: float
    y_max: float


class ResultMatch(Message):
    """An identity with its similarity max(0, cosine); among `matches` it is at or above the threshold."""

    identity: str
    similarity: Ratio
    threshold: Ratio
    template_id: str | None = None
    """The template that is the most similar one; `None` in results of earlier versions."""


class LeftOut(Message):
    """A person at or above the threshold whom a rule excludes for a face (`facerec.matching_rules`)."""

    identity: str
    similarity: Ratio
    reason: str
    """`other_face`: another face of the picture is this person; `rejected`: the face was said not to be this person."""


class FaceQuality(Message):
    """How good the photo of a face is for recognition; score 1 is best, the worst reason comes first."""

    score: Ratio
    reasons: tuple[str, ...] = ()


class UnknownSight(Message):
    """An unknown person whom a face was found to be, where unknown people are kept."""

    unknown_id: str
    first_seen: datetime
    last_seen: datetime
    """Up to a minute before the last sight."""
    seen_count: Annotated[int, Field(ge=1)]
    """How many times, at most once a minute."""
    similarity: Ratio | None = None
    """To the most similar face of the id; `None` for a new one."""


class Face(Message):
    """One detected face with its matches at or above the threshold, best first."""

    box: ResultBox
    probability: Ratio
    landmarks: tuple[tuple[float, float], ...]
    """Left eye, right eye, nose, left and right mouth corner, as (x, y) in pixels, within the picture."""
    matches: tuple[ResultMatch, ...] = ()
    nearest: tuple[ResultMatch, ...] = ()
    """The nearest people, whatever their similarity, as many as the request asked for."""
    left_out: tuple[LeftOut, ...] = ()
    """The people who are more similar than the first match, or than the threshold, and are no match by a rule."""
    similarity: Ratio | None = None
    """To what `Compare` or `Verify` compares the face with."""
    quality: FaceQuality | None = None
    """`None` in results of earlier versions."""
    unknown: UnknownSight | None = None
    """Of a face without a match, where unknown people are kept."""


SUITABLE = "suitable"
"""A face that can be enrolled."""


class Enrolment(Message):
    """What became of one face, or of a photo without one, that was to be enrolled."""

    status: str
    """One of `facerec.gallery.enrolment.EnrolmentStatus`, or of `CheckEnrolment` also `SUITABLE`."""
    detail: str
    """One sentence for people."""
    identity: str
    template_id: str | None = None
    enrolled_for: str | None = None
    """Whom the photo belongs to, with `other_name`."""
    face: Annotated[int, Field(ge=0)] | None = None
    """The place of the face in `faces`."""
    look_alikes: tuple[ResultMatch, ...] = ()
    """Other people at or above the threshold, best first: a duplicate, or a look-alike."""


class RecognitionResult(Message):
    """The answer to the request `request_id`; a duplicate is harmless."""

    version: SupportedVersion = VERSION
    request_id: UUID
    result: str
    """The name of the primary face, `Unknown` or `No-Face`; empty if the image could not be processed."""
    filename: FileName
    outcome: Outcome
    detail: str | None = None
    """One sentence for the client if the outcome is `invalid_image`, `failed` or `refused`."""
    retryable: bool = False
    """Whether a new upload of the picture may succeed after `failed`; `False` in results of earlier versions."""
    collection: CollectionName = DEFAULT_COLLECTION
    operation: str = "recognise"
    """The kind of the request's operation."""
    faces: tuple[Face, ...] = ()
    """All faces, the primary one first; of `Compare` those of the target."""
    source_faces: tuple[Face, ...] = ()
    """The faces of the first photo of `Compare`; the first of them, the largest one, was compared."""
    matches: tuple[ResultMatch, ...] = ()
    """The nearest people of `SearchTemplate`."""
    enrolments: tuple[Enrolment, ...] = ()
    """Of `CheckEnrolment` the first one is what `Enrol` would do by default; the others are the other faces."""
    refusal: Refusal | None = None
    width: Annotated[int, Field(ge=1)] | None = None
    """Of the upright picture, in pixels; of `Compare` the target."""
    height: Annotated[int, Field(ge=1)] | None = None
    source_width: Annotated[int, Field(ge=1)] | None = None
    source_height: Annotated[int, Field(ge=1)] | None = None
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
    shortened: bool = False
    """Whether a message has less than the stored result, because a queue limits its size."""
    model_id: str | None = None
    engine: str | None = None
    precision: str | None = None
    timings_ms: dict[str, float] = Field(default_factory=dict)
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
    timings_ms: dict[str, float] = Field(default_factory=dict)
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
