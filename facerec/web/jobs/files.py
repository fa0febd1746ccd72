"""The files of one job: what they are, the requests that they become, and their rows of the report."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from facerec.job_records import OPEN_OWNER, FileStatus, Job, JobFile, ended_file, shown_path
from facerec.jobs.sources import Source
from facerec.message_base import ObjectRef
from facerec.messages import OPERATION_VERSION, VERSION, RecognitionRequest, RecognitionResult
from facerec.object_keys import base_name, input_key, output_key
from facerec.operations import Enrol, Operation, Recognise
from facerec.ports import Jobs, ObjectStore, TaskQueue
from facerec.settings import Settings
from facerec.stored_results import stored_result
from facerec.web.asking import put_photo
from facerec.web.auth.request_ids import derived_request_id
from facerec.web.forms import Photo
from facerec.web.inbox import Waiters


@dataclass(frozen=True, slots=True, kw_only=True)
class JobServices:
    """What jobs work on in one web process; `window` counts the files in work."""

    settings: Settings
    store: ObjectStore
    queue: TaskQueue
    jobs: Jobs
    waiters: Waiters
    reply_to: str
    process: str
    """The name of this process in the records of its jobs."""
    window: threading.Semaphore
    senders: ThreadPoolExecutor
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    clock: Callable[[], float] = time.monotonic


@dataclass(frozen=True, slots=True)
class JobFiles:
    """The files of a job by their places; safe for many threads."""

    services: JobServices
    job: Job
    source: Source

    @property
    def count(self) -> int:
        """How many files the job has."""
        return len(self.source.entries)

    def problem(self, index: int) -> str | None:
        """Return why a file is skipped before it is read; `None` if it is not."""
        if self.job.operation == "enrol" and not self._person(index):
            return self.source.entries[index].problem or "no folder names its person"
        return self.source.entries[index].problem

    def request_id(self, index: int) -> UUID:
        """Return the id of a file's request."""
        return file_request_id(self.job.owner, self.job.job_id, index)

    def request(self, index: int) -> RecognitionRequest:
        """Store a file, if it is not stored yet, and return its request; raises as `Source.read`, and `Declined`."""
        job, services, request_id = self.job, self.services, self.request_id(index)
        name = base_name(self.source.entries[index].path)
        photo = self.source.read(index)
        if not isinstance(photo, ObjectRef):
            photo = put_photo(services.store, services.settings, input_key(request_id, name), Photo(name, photo))
        operation: Operation = Recognise()
        if job.operation == "enrol":
            operation = Enrol(identity=self._person(index), faces=job.faces, force=job.force)
        return RecognitionRequest(
            version=VERSION if operation.kind == "recognise" else OPERATION_VERSION,
            request_id=request_id,
            input=photo,
            filename=name,
            operation=operation,
            collection=job.collection,
            threshold=job.threshold,
            reply_to=services.reply_to,
            submitted_at=services.now(),
        )

    def stored_result(self, index: int) -> RecognitionResult | None:
        """Return the result of a file from the store, if there is one."""
        key = output_key(self.request_id(index), base_name(self.source.entries[index].path))
        return stored_result(self.services.store, self.services.settings.output_bucket, key)

    def ended(self, index: int, result: RecognitionResult) -> JobFile:
        """Return the row of a file that has a result."""
        return ended_file(self.job, index, self._path(index), self._person(index), result)

    def row(self, index: int, status: FileStatus, detail: str | None = None) -> JobFile:
        """Return the row of a file without a result."""
        return JobFile(index=index, file=self._path(index), status=status, person=self._person(index), detail=detail)

    def _path(self, index: int) -> str:
        return shown_path(self.source.entries[index].path)

    def _person(self, index: int) -> str | None:
        named = self.job.person or self.source.entries[index].folder or None
        return named if self.job.operation == "enrol" else None


def file_request_id(owner: str, job_id: UUID, index: int) -> UUID:
    """Return the id of a file's request: always the same one, and the owner's."""
    return derived_request_id(None if owner == OPEN_OWNER else owner, f"{job_id}:{index}")
