"""Many files in one call: a form that begins a job, the jobs of the key, and a page for each of them."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from flask import Blueprint, Response, abort, request
from pydantic import ValidationError

from facerec.api_keys import Scope
from facerec.callbacks import CallbackRefused
from facerec.job_records import FileStatus, Job, JobFile
from facerec.jobs.report import CONTENT_TYPES, ReportFormat
from facerec.jobs.zip_files import BadZip
from facerec.message_base import problems
from facerec.web.api.services import ApiServices
from facerec.web.api.v1.jobs import JobQuery
from facerec.web.auth.access import needs, presented_key
from facerec.web.auth.collections import own_collection
from facerec.web.jobs.calls import JobCalls
from facerec.web.jobs.intake import JobRefused
from facerec.web.pages.layout import error_page, link, may, page_collection, render, view_blueprint

LISTED = 20
ROWS = 100
"""Files on one page of a job."""
FORMATS: Mapping[str, ReportFormat] = {form: form for form in CONTENT_TYPES}

TONES = {
    "match": "good", "enrolled": "good", "duplicate": "quiet", "unknown": "quiet", "cancelled": "quiet",
    "failed": "bad", "refused": "bad", "invalid_image": "bad",
}  # fmt: skip
"""How an outcome looks; others look like a warning."""


def blueprint(services: ApiServices) -> Blueprint:
    """Make the routes of the view."""
    web = view_blueprint("jobs", __name__, "/jobs")
    jobs = services.jobs

    @web.get("")
    @needs(Scope.RECOGNISE, Scope.ENROL, page=True)
    def index() -> Response:
        settings, now = services.settings, datetime.now(UTC)
        listed = [_shown(job, now) for job in jobs.newest(LISTED)]
        return render(
            "jobs.html",
            collection=page_collection(services),
            operations=_operations(),
            jobs=listed,
            limits=settings.jobs,
            photo_bytes=settings.web.max_upload_bytes,
        )

    @web.post("")
    @needs(Scope.RECOGNISE, Scope.ENROL, page=True)
    def create() -> Response:
        try:
            query = JobQuery.model_validate(request.args.to_dict())
        except ValidationError as exc:
            return error_page(400, problems(exc))
        job = jobs.begin(query.options(page_collection(services)), query.callback_url)
        return Response(status=202, headers={"Location": link("page_jobs.show", job_id=job.job_id)})

    @web.get("/<job_id>")
    @needs(Scope.RECOGNISE, Scope.ENROL, page=True)
    def show(job_id: str) -> Response:
        return _page(jobs, jobs.known(job_id))

    @web.get("/<job_id>/results")
    @needs(Scope.RECOGNISE, Scope.ENROL, page=True)
    def results(job_id: str) -> Response:
        form = FORMATS.get(request.args.get("format", "jsonl"))
        if form is None:
            return error_page(400, f"format is one of {', '.join(FORMATS)}")
        return jobs.download(jobs.known(job_id), form)

    @web.post("/<job_id>/cancel")
    @needs(Scope.RECOGNISE, Scope.ENROL, page=True)
    def cancel(job_id: str) -> Response:
        return _page(jobs, jobs.cancel(job_id))

    web.register_error_handler(
        JobRefused, lambda exc: error_page(exc.status, str(exc), retry_after_seconds=exc.retry_after_seconds)
    )
    for wrong in (BadZip, CallbackRefused):
        web.register_error_handler(wrong, lambda exc: error_page(400, str(exc)))
    return web


def groups_of(job: Job) -> dict[str, int]:
    """Return how many of a job's files have ended in each way: by outcome, or by status without one."""
    groups = dict(sorted(job.outcomes.items(), key=lambda each: (-each[1], each[0])))
    skipped, cancelled = (job.counts.get(status, 0) for status in (FileStatus.SKIPPED, FileStatus.CANCELLED))
    # Each processed file has an outcome; the others that failed have none.
    failed = job.done - skipped - cancelled - sum(job.outcomes.values())
    for status, count in (
        (FileStatus.FAILED, failed),
        (FileStatus.SKIPPED, skipped),
        (FileStatus.CANCELLED, cancelled),
    ):
        if count > 0:
            groups[status.value] = groups.get(status.value, 0) + count
    return groups


def group_of(file: JobFile) -> str:
    """Return the group in which a file is counted."""
    return file.outcome or file.status.value


def _page(jobs: JobCalls, job: Job) -> Response:
    """Render the page of a job, with the files after one and of one group, as its address says."""
    group, after = request.args.get("outcome", ""), _after()
    shown = request.args.get("collection") or own_collection(presented_key())
    polled = "rows" in request.args and not job.status.ended
    found = [] if polled else list(islice(_files(jobs, job, group, after), ROWS + 1))
    more = len(found) > ROWS
    return render(
        "job.html",
        **_shown(job, datetime.now(UTC)),
        group=group,
        after=after,
        files=None if polled else [(file, group_of(file)) for file in found[:ROWS]],
        # Such rows stay as they are while the job goes on, so they are not read again until it has ended.
        rows_stay=bool(polled or more or group),
        next_after=found[ROWS - 1].index if more else None,
        links_people=may(Scope.ENROL),
        # The list has the jobs of all collections that the key may use.
        elsewhere={} if job.collection == shown else {"collection": job.collection},
    )


def _files(jobs: JobCalls, job: Job, group: str, after: int) -> Iterator[JobFile]:
    return (file for file in jobs.files(job, after) if not group or group_of(file) == group)


def _after() -> int:
    try:
        return max(-1, int(request.args.get("after", "-1")))
    except ValueError:
        abort(error_page(400, "after is the place of a file in the job, from 0"))


def _shown(job: Job, now: datetime) -> dict[str, Any]:
    """Return what templates show of a job; `step` changes when a screen reader should tell how far it is."""
    cancelling = job.cancel_requested and not job.status.ended
    state = "cancelling" if cancelling else job.status.value
    quarter = 0 if not job.total else 4 * job.done // job.total
    return {
        "job": job,
        "state": state,
        "groups": groups_of(job),
        "seconds_left": None if cancelling else job.seconds_left(now),
        "step": f"{state}-{quarter}",
        "tones": TONES,
    }


def _operations() -> list[str]:
    """Return what the key may do with files."""
    scopes = {"recognise": Scope.RECOGNISE, "enrol": Scope.ENROL}
    return [name for name, scope in scopes.items() if may(scope)]
