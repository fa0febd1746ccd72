"""Jobs in memory; tests/contracts compares it with DynamoDB."""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from uuid import UUID

from facerec.errors import FacerecError
from facerec.job_records import Job, JobFile


class InMemoryJobs:
    """`Jobs` in dictionaries, safe for many threads. While `outage` is set every call raises it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._jobs: dict[UUID, Job] = {}
        self._files: defaultdict[UUID, dict[int, JobFile]] = defaultdict(dict)
        self._keys: dict[tuple[str, str], UUID] = {}
        self.outage: FacerecError | None = None

    def create(self, job: Job, idempotency_key: str = "") -> Job:
        with self._reached():
            known = self._keys.get((job.owner, idempotency_key))
            if known is not None:
                return self._jobs[known]
            self._jobs[job.job_id] = job
            if idempotency_key:
                self._keys[job.owner, idempotency_key] = job.job_id
            return job

    def created_with(self, owner: str, idempotency_key: str) -> Job | None:
        with self._reached():
            known = self._keys.get((owner, idempotency_key))
            return None if known is None else self._jobs[known]

    def job(self, job_id: UUID) -> Job | None:
        with self._reached():
            return self._jobs.get(job_id)

    def newest(self, owner: str, limit: int) -> list[Job]:
        with self._reached():
            own = [job for job in self._jobs.values() if job.owner == owner]
            return sorted(own, key=lambda job: job.created_at, reverse=True)[:limit]

    def every(self) -> Iterator[Job]:
        with self._reached():
            return iter(list(self._jobs.values()))

    def unsettled(self) -> list[Job]:
        with self._reached():
            return [job for job in self._jobs.values() if not job.settled]

    def put(self, job: Job) -> bool:
        with self._reached():
            known = self._jobs.get(job.job_id)
            if known is None or known.revision != job.revision - 1:
                return False
            self._jobs[job.job_id] = job
            self._changed.notify_all()
            return True

    def add_files(self, job_id: UUID, files: Sequence[JobFile], expires_at: datetime) -> None:
        with self._reached():
            self._files[job_id] |= {file.index: file for file in files}
            self._changed.notify_all()

    def files(self, job_id: UUID, after: int = -1) -> Iterator[JobFile]:
        with self._reached():
            found = sorted(self._files[job_id].items())
        return (file for index, file in found if index > after)

    def await_settled(self, job_id: UUID, timeout_seconds: float = 20) -> Job:
        """The job, once nothing is left to do."""
        return self.await_job(job_id, lambda job: job.settled, timeout_seconds)

    def await_job(self, job_id: UUID, is_so: Callable[[Job], bool], timeout_seconds: float = 20) -> Job:
        """The job, once it is so."""
        with self._changed:
            assert self._changed.wait_for(lambda: is_so(self._jobs[job_id]), timeout_seconds), self._jobs[job_id]
            return self._jobs[job_id]

    def await_files(self, job_id: UUID, count: int, timeout_seconds: float = 20) -> None:
        """Return once so many files have ended."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self._files[job_id]) >= count, timeout_seconds)

    def _reached(self) -> threading.Condition:
        if self.outage is not None:
            raise self.outage
        return self._changed
