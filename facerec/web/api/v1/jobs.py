"""Jobs: many files in one call, with progress, a report for each file, and a callback at the end."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from flask import Response, request
from flask_openapi3.blueprint import APIBlueprint
from pydantic import BaseModel, Field, ValidationError

from facerec.api_keys import Scope
from facerec.callbacks import CallbackRefused
from facerec.gallery.names import InvalidName
from facerec.job_records import JobFile, JobOperation
from facerec.jobs.report import JobSummary, ReportFormat, summary_of
from facerec.jobs.zip_files import BadZip
from facerec.message_base import Ratio, SchemaOnce, problems
from facerec.web.api.services import ApiServices
from facerec.web.api.v1.description import PREFIX, Body, Query, as_json, described, errors
from facerec.web.api.v1.photo_requests import JSON, CollectionQuery, chosen_collection
from facerec.web.auth.access import needs
from facerec.web.jobs.calls import JobOptions
from facerec.web.jobs.intake import JobRefused
from facerec.web.results import json_error


class JobQuery(CollectionQuery):
    """What to do with the files."""

    operation: JobOperation = "recognise"
    """The scope that a key needs has the same name."""
    threshold: Ratio | None = None
    """As of a recognition."""
    person: Annotated[str, Field(min_length=1)] | None = None
    """Of `enrol`: for whom all files are enrolled. Without it the folder of each file names its person."""
    faces: Literal["only", "dominant", "primary"] = "dominant"
    """Of `enrol`: which face of a photo with several."""
    force: bool = False
    """Of `enrol`: enrol in spite of a poor quality."""
    callback_url: str | None = None
    """Where a signed message is sent when the job has ended."""

    def options(self, collection: str) -> JobOptions:
        """Return the options of a job in this collection."""
        return JobOptions(collection=collection, **self.model_dump(exclude={"collection", "callback_url"}))


class PrefixBody(Body):
    """Files that are in S3 already."""

    bucket: Annotated[str, Field(min_length=1)]
    """One of FACEREC_JOBS__SOURCE_BUCKETS."""
    prefix: str = ""
    """All objects whose keys begin with it."""


class JobPath(BaseModel):
    """The id of a job."""

    job_id: str


class JobListQuery(Query):
    """Which jobs are listed."""

    limit: Annotated[int, Field(ge=1, le=100)] = 20


class JobList(SchemaOnce):
    """The newest jobs of a key."""

    jobs: list[JobSummary]


class ReportQuery(Query):
    """The form of a report."""

    format: ReportFormat = "jsonl"


_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "file": {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}}
                    },
                    "required": ["file"],
                    "additionalProperties": False,
                }
            },
            "application/zip": {"schema": {"type": "string", "format": "binary"}},
            JSON: {"schema": PrefixBody.model_json_schema()},
        },
    }
}
_REPORT: dict[str | int, Any] = {
    200: {
        "description": "One row for each file that has ended, by its place in the job.",
        "content": {
            "application/jsonl": {"schema": JobFile.model_json_schema(mode="serialization")},
            "text/csv": {"schema": {"type": "string"}},
        },
    }
}


def routes(services: ApiServices) -> APIBlueprint:
    """Make the routes."""
    api = described("jobs", __name__, "Many files in one call.")
    jobs = services.jobs

    @api.post("/jobs", responses={202: JobSummary, **errors(408, 409, 413, 415)}, openapi_extensions=_BODY)
    @needs(Scope.RECOGNISE, Scope.ENROL)
    def create_job(query: JobQuery) -> Response:
        """Create a job from files, a zip, or a prefix in S3; it answers when the files are stored.

        With the header Idempotency-Key, the same value gives the same job, and nothing is done twice. 409: the
        value belongs to a job with other options.
        """
        options = query.options(chosen_collection(services, query))
        buckets = services.settings.jobs.source_buckets
        job = jobs.begin(options, query.callback_url, (lambda: _prefix(buckets)) if request.mimetype == JSON else None)
        return as_json(summary_of(job, datetime.now(UTC)), 202, {"Location": f"{PREFIX}/jobs/{job.job_id}"})

    @api.get("/jobs", responses={200: JobList})
    @needs(Scope.RECOGNISE, Scope.ENROL)
    def list_jobs(query: JobListQuery) -> Response:
        """List the newest jobs of the key."""
        now = datetime.now(UTC)
        return as_json(JobList(jobs=[summary_of(job, now) for job in jobs.newest(query.limit)]))

    @api.get("/jobs/<job_id>", responses={200: JobSummary, **errors(404)})
    @needs(Scope.RECOGNISE, Scope.ENROL)
    def get_job(path: JobPath) -> Response:
        """Show how far a job is."""
        return as_json(summary_of(jobs.known(path.job_id), datetime.now(UTC)))

    @api.get("/jobs/<job_id>/results", responses={**_REPORT, **errors(404)})
    @needs(Scope.RECOGNISE, Scope.ENROL)
    def get_job_results(path: JobPath, query: ReportQuery) -> Response:
        """Read what became of the files that have ended.

        The whole result of a file is at `/api/v1/results/<request_id>`.
        """
        return jobs.download(jobs.known(path.job_id), query.format)

    @api.delete("/jobs/<job_id>", responses={202: JobSummary, **errors(404)})
    @needs(Scope.RECOGNISE, Scope.ENROL)
    def cancel_job(path: JobPath) -> Response:
        """Cancel a job: files that have not been sent are cancelled, and those in work end; an ended job stays."""
        return as_json(summary_of(jobs.cancel(path.job_id), datetime.now(UTC)), 202)

    api.register_error_handler(JobRefused, _refused)
    for wrong in (BadZip, CallbackRefused, InvalidName):
        api.register_error_handler(wrong, lambda exc: json_error(400, str(exc)))
    return api


def _refused(exc: JobRefused) -> Response:
    return json_error(exc.status, str(exc), retry_after_seconds=exc.retry_after_seconds)


def _prefix(buckets: tuple[str, ...]) -> tuple[str, str]:
    """Return the bucket and the prefix of the body; raises `JobRefused`."""
    try:
        prefix = PrefixBody.model_validate_json(request.get_data(cache=False))
    except ValidationError as exc:
        raise JobRefused(problems(exc)) from exc
    if prefix.bucket not in buckets:
        # The same for every bucket, so that it confirms none.
        raise JobRefused("jobs may not read this bucket: its operator allows it with FACEREC_JOBS__SOURCE_BUCKETS", 403)
    return prefix.bucket, prefix.prefix
