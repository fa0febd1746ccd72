"""Jobs: many files in one call, with progress, a report for each file, and a callback at the end."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import chain, islice
from typing import Annotated, Any, Literal
from uuid import UUID

import structlog
from flask import Response, abort, request
from flask_openapi3.blueprint import APIBlueprint
from pydantic import BaseModel, Field, ValidationError

from facerec.api_keys import ApiKey, Scope
from facerec.callbacks import CallbackRefused, parse_target
from facerec.errors import Transient
from facerec.gallery.names import InvalidName, valid_identity
from facerec.job_records import OPEN_OWNER, CallbackState, Job, JobFile, JobOperation
from facerec.jobs.report import CONTENT_TYPES, JobSummary, ReportFormat, report, summary_of
from facerec.jobs.zip_files import BadZip
from facerec.message_base import Ratio, problems
from facerec.web.api.services import ApiServices
from facerec.web.api.v1.description import PREFIX, Body, Query, as_json, described, errors
from facerec.web.api.v1.photo_requests import JSON, CollectionQuery, chosen_collection
from facerec.web.auth.access import client_name, needs, presented_key
from facerec.web.auth.request_ids import may_read, new_request_id
from facerec.web.jobs.intake import JobIntake, Taken, WrongBody
from facerec.web.results import json_error, json_unavailable

log = structlog.get_logger(__name__)

IDEMPOTENCY_HEADER = "Idempotency-Key"
MAX_IDEMPOTENCY_KEY = 255
_INTAKE_SECONDS = 30.0
_CANCEL_ATTEMPTS = 10
_ROWS_AT_ONCE = 100


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


class JobList(BaseModel):
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
    jobs, intake = services.jobs, JobIntake(services.settings, services.store)

    @api.post("/jobs", responses={202: JobSummary, **errors(408, 413, 415)}, openapi_extensions=_BODY)
    @needs(Scope.RECOGNISE, Scope.ENROL)
    def create_job(query: JobQuery) -> Response:
        """Create a job from files, a zip, or a prefix in S3; it answers when the files are stored.

        With the header Idempotency-Key, the same value gives the same job, and nothing is done twice.
        """
        return _create(services, intake, query)

    @api.get("/jobs", responses={200: JobList})
    @needs(Scope.RECOGNISE, Scope.ENROL)
    def list_jobs(query: JobListQuery) -> Response:
        """List the newest jobs of the key."""
        now = datetime.now(UTC)
        found = [job for job in jobs.newest(_owner(presented_key()), query.limit) if job.expires_at > now]
        return as_json(JobList(jobs=[summary_of(job, now) for job in found]))

    @api.get("/jobs/<job_id>", responses={200: JobSummary, **errors(404)})
    @needs(Scope.RECOGNISE, Scope.ENROL)
    def get_job(path: JobPath) -> Response:
        """Show how far a job is."""
        return as_json(summary_of(_known(path, jobs.job), datetime.now(UTC)))

    @api.get("/jobs/<job_id>/results", responses={**_REPORT, **errors(404)})
    @needs(Scope.RECOGNISE, Scope.ENROL)
    def get_job_results(path: JobPath, query: ReportQuery) -> Response:
        """Read what became of the files that have ended.

        The whole result of a file is at `/api/v1/results/<request_id>`.
        """
        job = _known(path, jobs.job)
        pieces = _pieces(report(jobs.files(job.job_id), query.format))
        first = next(pieces, "")  # an unreachable table is an error, and not an empty report
        response = Response(chain([first], pieces), content_type=CONTENT_TYPES[query.format])
        response.headers["Content-Disposition"] = f'attachment; filename="{job.job_id}.{query.format}"'
        return response

    @api.delete("/jobs/<job_id>", responses={202: JobSummary, **errors(404)})
    @needs(Scope.RECOGNISE, Scope.ENROL)
    def cancel_job(path: JobPath) -> Response:
        """Cancel a job: files that have not been sent are cancelled, and those in work end; an ended job stays."""
        for _ in range(_CANCEL_ATTEMPTS):
            job = _known(path, jobs.job)
            if job.status.ended or job.cancel_requested or jobs.put(job.next(cancel_requested=True)):
                services.wake_jobs()
                return as_json(summary_of(_known(path, jobs.job), datetime.now(UTC)), 202)
        return json_unavailable("the job changes too fast: cancel it again in a few seconds")

    api.register_error_handler(WrongBody, lambda exc: json_error(exc.status, str(exc)))
    for wrong in (BadZip, CallbackRefused, InvalidName):
        api.register_error_handler(wrong, lambda exc: json_error(400, str(exc)))
    return api


def _create(services: ApiServices, intake: JobIntake, query: JobQuery) -> Response:
    key, now = presented_key(), datetime.now(UTC)
    needed = Scope.ENROL if query.operation == "enrol" else Scope.RECOGNISE
    if key is not None and not key.allows(needed):
        return json_error(403, f"this API key lacks the scope {needed}: ask the operator for one that has it")
    collection, callback = chosen_collection(services, query), _callback(query, services)
    if query.person is not None:
        valid_identity(query.person)
    owner, idempotency_key = _owner(key), request.headers.get(IDEMPOTENCY_HEADER, "")
    if len(idempotency_key) > MAX_IDEMPOTENCY_KEY:
        return json_error(400, f"an {IDEMPOTENCY_HEADER} has {MAX_IDEMPOTENCY_KEY} characters at most")
    if idempotency_key and (earlier := services.jobs.created_with(owner, idempotency_key)) is not None:
        return as_json(summary_of(earlier, now), 202)
    job_id = new_request_id(key)
    prefix = _prefix(services.settings.jobs.source_buckets) if request.mimetype == JSON else None
    taken = Taken("prefix", 0) if prefix is not None else _take(intake, job_id, owner)
    job = Job(
        job_id=job_id,
        owner=owner,
        source=taken.source,
        bucket=None if prefix is None else prefix.bucket,
        prefix=None if prefix is None else prefix.prefix,
        operation=query.operation,
        person=query.person,
        faces=query.faces,
        force=query.force,
        collection=collection,
        threshold=query.threshold,
        callback=callback,
        created_at=now,
        expires_at=now + timedelta(days=services.settings.retention.result_days),
        total=None if prefix is not None else taken.total,
    )
    created = services.jobs.create(job, idempotency_key)
    log.info("job_created", job_id=str(created.job_id), source=job.source, files=job.total, operation=job.operation)
    services.wake_jobs()
    return as_json(summary_of(created, now), 202, {"Location": f"{PREFIX}/jobs/{created.job_id}"})


def _owner(key: ApiKey | None) -> str:
    return OPEN_OWNER if key is None else key.key_id


def _callback(query: JobQuery, services: ApiServices) -> CallbackState | None:
    if query.callback_url is None:
        return None
    parse_target(query.callback_url)
    if services.settings.callbacks.secret is None:
        raise CallbackRefused("callbacks are off: the operator turns them on with FACEREC_CALLBACKS__SECRET")
    return CallbackState(url=query.callback_url)


def _prefix(buckets: tuple[str, ...]) -> PrefixBody:
    try:
        prefix = PrefixBody.model_validate_json(request.get_data(cache=False))
    except ValidationError as exc:
        raise WrongBody(problems(exc)) from exc
    if prefix.bucket not in buckets:
        # The same for every bucket, so that it confirms none.
        raise WrongBody("jobs may not read this bucket: its operator allows it with FACEREC_JOBS__SOURCE_BUCKETS", 403)
    return prefix


def _take(intake: JobIntake, job_id: UUID, owner: str) -> Taken:
    """Read the body, in the client's turn."""
    intake.allow_body(request)
    if not intake.turns.acquire(client_name(), _INTAKE_SECONDS):
        raise Transient("earlier jobs have not been taken in in time")
    try:
        return intake.take(request, job_id, owner)
    finally:
        request.close()
        intake.turns.release()


def _known(path: JobPath, find: Callable[[UUID], Job | None]) -> Job:
    """Return a job of the key; ends the request with 404 for any other."""
    try:
        job_id = UUID(path.job_id)
    except ValueError:
        abort(json_error(404, "there is no such job: its id is a UUID, as its creation gave it"))
    # The same reply for a job of another key, so that it confirms no id.
    job = find(job_id) if may_read(presented_key(), job_id) else None
    if job is None or job.expires_at <= datetime.now(UTC):
        abort(json_error(404, f"there is no job {job_id}, or it has expired"))
    return job


def _pieces(rows: Iterator[str]) -> Iterator[str]:
    """Yield several rows at a time: each piece is a chunk of the response."""
    while piece := "".join(islice(rows, _ROWS_AT_ONCE)):
        yield piece
