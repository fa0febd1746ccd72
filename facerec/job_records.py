"""Jobs: many files in one call, each of which becomes an ordinary request. Pure.

A job has one record, which changes, and one `JobFile` for each file, which is written when the file has ended.
"""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AwareDatetime, Field

from facerec.message_base import DEFAULT_COLLECTION, CollectionName, Message, Ratio
from facerec.messages import Outcome, RecognitionResult

OPEN_OWNER = "open"
"""The owner of jobs without an API key; no key has this id."""
MAX_PATH = 400
"""The most characters of a file's path that a report shows."""


class JobStatus(StrEnum):
    """How far a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    """Every file has ended, each with its own status."""
    CANCELLED = "cancelled"
    FAILED = "failed"
    """Its files cannot be read; `problem` says why."""

    @property
    def ended(self) -> bool:
        """Whether nothing more happens to its files."""
        return self not in {JobStatus.QUEUED, JobStatus.RUNNING}


class FileStatus(StrEnum):
    """How a file ended."""

    DONE = "done"
    """It was processed: `outcome` says with which result."""
    FAILED = "failed"
    """It could not be processed, or was not enrolled; `detail` says why."""
    SKIPPED = "skipped"
    """It is no picture that may be processed; `detail` says why."""
    CANCELLED = "cancelled"


JobOperation = Literal["recognise", "enrol"]
SourceKind = Literal["files", "zip", "prefix"]


class CallbackState(Message):
    """The message to the client at the end of a job."""

    url: str
    attempts: int = 0
    due_at: AwareDatetime | None = None
    """When it is tried next; `None` until the job has ended, and after it was delivered or given up."""
    delivered_at: AwareDatetime | None = None
    problem: str | None = None
    """Why the last attempt failed."""


class Job(Message):
    """The record of a job."""

    job_id: UUID
    owner: str
    """The id of the API key, or `OPEN_OWNER`."""
    status: JobStatus = JobStatus.QUEUED
    source: SourceKind
    bucket: str | None = None
    prefix: str | None = None
    """Of the source `prefix`."""
    operation: JobOperation = "recognise"
    person: str | None = None
    """Of `enrol`; without it the folder of each file names the person."""
    faces: Literal["only", "dominant", "primary"] = "dominant"
    force: bool = False
    collection: CollectionName = DEFAULT_COLLECTION
    threshold: Ratio | None = None
    created_at: AwareDatetime
    started_at: AwareDatetime | None = None
    ended_at: AwareDatetime | None = None
    expires_at: AwareDatetime
    """When it is forgotten, together with its results."""
    total: Annotated[int, Field(ge=0)] | None = None
    """How many files it has; `None` until they are listed."""
    sent: int = 0
    """The place of the first file that had not been sent when the record was written."""
    counts: dict[str, int] = Field(default_factory=dict)
    """How many files have ended, by `FileStatus`."""
    outcomes: dict[str, int] = Field(default_factory=dict)
    """How many files were processed, by outcome, or by status of the enrolment."""
    cancel_requested: bool = False
    callback: CallbackState | None = None
    problem: str | None = None
    feeder: str | None = None
    """The web process that feeds it; another one takes over when `revision` stays the same for too long."""
    revision: int = 1
    """Every write increments it, so that of two concurrent changes one fails."""

    @property
    def done(self) -> int:
        """How many files have ended."""
        return sum(self.counts.values())

    @property
    def settled(self) -> bool:
        """Whether nothing is left to do: all files have ended, and no callback is due."""
        return self.status.ended and (self.callback is None or self.callback.due_at is None)

    def next(self, **changes: object) -> "Job":
        """Return the next revision."""
        return self.model_copy(update={**changes, "revision": self.revision + 1})

    def seconds_left(self, now: datetime) -> float | None:
        """Estimate the time until the end by the rate so far; `None` while there is none."""
        if self.status is not JobStatus.RUNNING or self.total is None or self.started_at is None or not self.done:
            return None
        return max(0.0, (now - self.started_at).total_seconds()) * (self.total - self.done) / self.done


class JobFile(Message):
    """What became of one file."""

    index: Annotated[int, Field(ge=0)]
    """Its place in the job, from 0."""
    file: str
    """Its path in the zip, its key, or the name that the client sent."""
    status: FileStatus
    person: str | None = None
    """For whom it was to be enrolled."""
    request_id: UUID | None = None
    """Under which the whole result is kept; `None` if there is none."""
    outcome: str | None = None
    """The outcome of the result, or of an enrolment its status, such as `poor_quality`."""
    result: str | None = None
    """The name of the primary face, `Unknown` or `No-Face`."""
    similarity: Ratio | None = None
    faces: int | None = None
    template_id: str | None = None
    look_alikes: tuple[str, ...] = ()
    """Other people whom the enrolled face matches."""
    detail: str | None = None
    """One sentence that says why, unless all is well."""


def ended_file(job: Job, index: int, path: str, person: str | None, result: RecognitionResult) -> JobFile:
    """Return what a result says about its file."""
    primary = result.faces[0] if result.faces else None
    file = JobFile(
        index=index,
        file=path,
        person=person,
        request_id=result.request_id,
        status=FileStatus.DONE,
        outcome=result.outcome,
        result=result.result or None,
        faces=len(result.faces) + result.more_faces,
        similarity=primary.matches[0].similarity if primary and primary.matches else None,
        detail=result.detail,
    )
    failed = result.outcome in {Outcome.FAILED, Outcome.INVALID_IMAGE, Outcome.REFUSED}
    if job.operation == "enrol" and result.enrolments:
        made = result.enrolments[0]
        file = file.model_copy(
            update={
                "outcome": made.status,
                "result": made.identity,
                "template_id": made.template_id,
                "look_alikes": tuple(match.identity for match in made.look_alikes),
                "detail": made.detail if failed or made.look_alikes else None,
            }
        )
    return file.model_copy(update={"status": FileStatus.FAILED}) if failed else file


def counted_in(counts: Mapping[str, int], *names: str) -> dict[str, int]:
    """Return the counts with these names counted, too."""
    more = dict(counts)
    for name in names:
        more[name] = more.get(name, 0) + 1
    return more


def shown_path(path: str) -> str:
    """Return a path as a report shows it: its end, if it is too long."""
    return path if len(path) <= MAX_PATH else f"…{path[-MAX_PATH:]}"
