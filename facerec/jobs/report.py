"""What clients see of a job: its summary, and its report with one row for each file, as JSON Lines or CSV."""

import csv
import io
import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from facerec.job_records import CallbackState, FileStatus, Job, JobFile, JobOperation, JobStatus, SourceKind
from facerec.message_base import SchemaOnce

ReportFormat = Literal["jsonl", "csv"]
CONTENT_TYPES: dict[ReportFormat, str] = {
    "jsonl": "application/jsonl; charset=utf-8",
    "csv": "text/csv; charset=utf-8",
}
COLUMNS = tuple(JobFile.model_fields)
_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
"""How a cell begins that a spreadsheet would run as a formula; with its apostrophes, so that one can be removed."""


class JobSummary(SchemaOnce):
    """A job as clients see it."""

    job_id: UUID
    status: JobStatus
    operation: JobOperation
    source: SourceKind
    collection: str
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    expires_at: datetime
    """When the job and its results are forgotten."""
    total: int | None
    """How many files it has; null until they are listed."""
    done: int
    """How many of them have ended, in whatever way."""
    counts: dict[FileStatus, int]
    """The ended files by status."""
    outcomes: dict[str, int]
    """The processed files by outcome: of the recognition, or of the enrolment."""
    seconds_left: float | None
    """An estimate by the rate so far."""
    cancelling: bool
    """Whether it is being cancelled: what has been sent ends first."""
    problem: str | None
    """Why a failed job cannot be done."""
    callback: CallbackState | None
    results_url: str


def summary_of(job: Job, now: datetime) -> JobSummary:
    """Return the summary of a job."""
    left = job.seconds_left(now)
    return JobSummary(
        **job.model_dump(include=set(JobSummary.model_fields)),
        done=job.done,
        seconds_left=None if left is None else round(left, 1),
        cancelling=job.cancel_requested and not job.status.ended,
        results_url=results_url(job.job_id),
    )


def summary(job: Job, now: datetime) -> dict[str, Any]:
    """Return the summary as JSON, for a callback: without the callback itself."""
    return summary_of(job, now).model_dump(mode="json", exclude={"callback"})


def results_url(job_id: UUID) -> str:
    """Return the path of a job's report."""
    return f"/api/v1/jobs/{job_id}/results"


def report(files: Iterable[JobFile], form: ReportFormat) -> Iterator[str]:
    """Yield the text of the report, file by file; of CSV the first row has the names of the columns.

    File names come from strangers: an apostrophe goes before what would be a formula in a spreadsheet.
    """
    if form == "jsonl":
        for file in files:
            yield file.model_dump_json(exclude_none=True) + "\n"
        return
    yield _row(COLUMNS)
    for file in files:
        row = file.model_dump(mode="json")
        yield _row("; ".join(value) if isinstance(value, list) else value for value in row.values())


def _row(values: Iterable[object]) -> str:
    text = io.StringIO()
    csv.writer(text).writerow(["" if value is None else _harmless(value) for value in values])
    return text.getvalue()


def _harmless(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value
