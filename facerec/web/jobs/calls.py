"""What clients do with their jobs, over the API and on the page: begin, list, read and cancel them."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import chain, islice
from typing import Any, Literal
from uuid import UUID

import structlog
from flask import Response, request

from facerec.api_keys import ApiKey, Scope
from facerec.callbacks import CallbackRefused, parse_target
from facerec.errors import Transient
from facerec.gallery.names import valid_identity
from facerec.job_records import OPEN_OWNER, CallbackState, Job, JobFile, JobOperation
from facerec.jobs.report import CONTENT_TYPES, ReportFormat, report
from facerec.ports import Jobs, ObjectStore
from facerec.settings import Settings
from facerec.web.auth.access import client_name, presented_key
from facerec.web.auth.request_ids import may_read, new_request_id
from facerec.web.jobs.intake import JobIntake, JobRefused, Taken
from facerec.web.replies import UNAVAILABLE_RETRY_SECONDS

log = structlog.get_logger(__name__)

IDEMPOTENCY_HEADER = "Idempotency-Key"
MAX_IDEMPOTENCY_KEY = 255
_INTAKE_SECONDS = 30.0
_CANCEL_ATTEMPTS = 10
_ROWS_AT_ONCE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """What to do with the files of a new job; fields of `Job`."""

    collection: str
    operation: JobOperation = "recognise"
    threshold: float | None = None
    person: str | None = None
    faces: Literal["only", "dominant", "primary"] = "dominant"
    force: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCalls:
    """The calls of the client whose request is being answered; safe for many threads.

    They raise `JobRefused` with the status of the response, and the errors of the stores.
    """

    settings: Settings
    store: ObjectStore
    jobs: Jobs
    wake: Callable[[], None]
    """Has this process look for jobs at once."""
    intake: JobIntake = field(init=False)

    def __post_init__(self) -> None:
        """Make the intake, whose turns all calls share."""
        object.__setattr__(self, "intake", JobIntake(self.settings, self.store))

    def begin(
        self,
        options: JobOptions,
        callback_url: str | None = None,
        prefix: Callable[[], tuple[str, str]] | None = None,
    ) -> Job:
        """Create a job of the files in the body, or of the bucket and prefix that `prefix` reads from it.

        The same Idempotency-Key gives the same job; with other options it is refused. Raises `InvalidName`,
        `CallbackRefused` and `BadZip`, too.
        """
        key, now = presented_key(), datetime.now(UTC)
        needed = Scope.ENROL if options.operation == "enrol" else Scope.RECOGNISE
        if key is not None and not key.allows(needed):
            raise JobRefused(f"this API key lacks the scope {needed}: ask the operator for one that has it", 403)
        callback = self._callback(callback_url)
        if options.person is not None:
            valid_identity(options.person)
        owner, idempotency_key = _owner(key), request.headers.get(IDEMPOTENCY_HEADER, "")
        if len(idempotency_key) > MAX_IDEMPOTENCY_KEY:
            raise JobRefused(f"an {IDEMPOTENCY_HEADER} has {MAX_IDEMPOTENCY_KEY} characters at most")
        bucket, start = (None, None) if prefix is None else prefix()
        asked = {**asdict(options), "bucket": bucket, "prefix": start}
        if idempotency_key and (earlier := self.jobs.created_with(owner, idempotency_key)) is not None:
            return _with_options(earlier, asked)
        job_id = new_request_id(key)
        taken = Taken("prefix", 0) if prefix is not None else self._take(job_id, owner)
        job = Job(
            job_id=job_id,
            owner=owner,
            source=taken.source,
            **asked,
            callback=callback,
            created_at=now,
            expires_at=now + timedelta(days=self.settings.retention.result_days),
            total=None if prefix is not None else taken.total,
        )
        created = _with_options(self.jobs.create(job, idempotency_key), asked)
        log.info("job_created", job_id=str(created.job_id), source=job.source, files=job.total, operation=job.operation)
        self.wake()
        return created

    def newest(self, limit: int) -> list[Job]:
        """List the newest jobs of the key."""
        now = datetime.now(UTC)
        return [job for job in self.jobs.newest(_owner(presented_key()), limit) if job.expires_at > now]

    def known(self, named: str) -> Job:
        """Return a job that the key may read; with scope `admin` any."""
        try:
            job_id = UUID(named)
        except ValueError:
            raise JobRefused("there is no such job: its id is a UUID, as its creation gave it", 404) from None
        # The same reply for a job of another key, so that it confirms no id.
        job = self.jobs.job(job_id) if may_read(presented_key(), job_id) else None
        if job is None or job.expires_at <= datetime.now(UTC):
            raise JobRefused(f"there is no job {job_id}, or it has expired", 404)
        return job

    def files(self, job: Job, after: int = -1) -> Iterator[JobFile]:
        """Yield what became of its files that have ended, by their places."""
        return self.jobs.files(job.job_id, after)

    def download(self, job: Job, form: ReportFormat) -> Response:
        """Make the response with the report of a job."""
        pieces = _pieces(report(self.jobs.files(job.job_id), form))
        first = next(pieces, "")  # an unreachable table is an error, and not an empty report
        response = Response(chain([first], pieces), content_type=CONTENT_TYPES[form])
        response.headers["Content-Disposition"] = f'attachment; filename="{job.job_id}.{form}"'
        return response

    def cancel(self, named: str) -> Job:
        """Have no more files of a job sent; an ended job stays as it is."""
        for _ in range(_CANCEL_ATTEMPTS):
            job = self.known(named)
            if job.status.ended or job.cancel_requested or self.jobs.put(job.next(cancel_requested=True)):
                self.wake()
                return self.known(named)
        sentence = "the job changes too fast: cancel it again in a few seconds"
        raise JobRefused(sentence, 503, retry_after_seconds=UNAVAILABLE_RETRY_SECONDS)

    def _callback(self, url: str | None) -> CallbackState | None:
        if url is None:
            return None
        parse_target(url)
        if self.settings.callbacks.secret is None:
            raise CallbackRefused("callbacks are off: the operator turns them on with FACEREC_CALLBACKS__SECRET")
        return CallbackState(url=url)

    def _take(self, job_id: UUID, owner: str) -> Taken:
        """Read the body, in the client's turn."""
        self.intake.allow_body(request)
        if not self.intake.turns.acquire(client_name(), _INTAKE_SECONDS):
            raise Transient("earlier jobs have not been taken in in time")
        try:
            return self.intake.take(request, job_id, owner)
        finally:
            request.close()
            self.intake.turns.release()


def _with_options(job: Job, asked: dict[str, Any]) -> Job:
    """Return the job of an idempotency key if it does what is asked for; its files are not compared."""
    if others := [name for name, value in asked.items() if getattr(job, name) != value]:
        differ = f"it created job {job.job_id}, whose {', '.join(others)} differ"
        raise JobRefused(f"this {IDEMPOTENCY_HEADER} has been used: {differ}; send a new key", 409)
    return job


def _owner(key: ApiKey | None) -> str:
    return OPEN_OWNER if key is None else key.key_id


def _pieces(rows: Iterator[str]) -> Iterator[str]:
    """Yield several rows at a time: each piece is a chunk of the response."""
    while piece := "".join(islice(rows, _ROWS_AT_ONCE)):
        yield piece
