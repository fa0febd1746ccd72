"""Jobs: many files in one call."""

import json
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Literal
from uuid import UUID
from zipfile import ZIP_STORED, ZipFile

from facerec.client.errors import StillPending
from facerec.client.photo_requests import segment
from facerec.client.transport import Transport
from facerec.job_records import JobFile, JobOperation
from facerec.jobs.report import JobSummary

_SPOOLED_BYTES = 16 * 1024 * 1024
_FIRST_POLL_SECONDS = 0.5
_LONGEST_POLL_SECONDS = 5.0


class Jobs:
    """Jobs of this key. The key needs the scope of the operation, `recognise` or `enrol`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create_from_files(
        self, files: Iterable[str | Path], *, relative_to: str | Path | None = None, **options: Any
    ) -> JobSummary:
        """Create a job from files of this machine, sent as one zip without compression.

        Reports show the paths relative to a folder, or the names alone. Options are those of `create_from_zip`.
        """
        with tempfile.SpooledTemporaryFile(max_size=_SPOOLED_BYTES) as body:
            with ZipFile(body, "w", ZIP_STORED) as archive:
                for file in map(Path, files):
                    archive.write(file, file.name if relative_to is None else file.relative_to(relative_to))
            return self._create(body, **options)

    def create_from_zip(self, path: str | Path, **options: Any) -> JobSummary:
        """Create a job from a zip.

        Options: `operation` (`recognise` or `enrol`), `person`, `faces`, `force`, `collection`, `threshold`,
        `callback_url`, and `idempotency_key`: the same key gives the same job.
        """
        with Path(path).open("rb") as body:
            return self._create(body, **options)

    def create_from_prefix(self, bucket: str, prefix: str = "", **options: Any) -> JobSummary:
        """Create a job from objects that are in S3 already; options as of `create_from_zip`."""
        return self._create(None, {"bucket": bucket, "prefix": prefix}, **options)

    def list(self, *, limit: int = 20) -> list[JobSummary]:
        """Return the newest jobs."""
        found = json.loads(self._transport.send("GET", "/jobs", query={"limit": limit}).body)
        return [JobSummary.model_validate(job) for job in found["jobs"]]

    def status(self, job_id: UUID | str) -> JobSummary:
        """Return how far a job is."""
        return JobSummary.model_validate_json(self._transport.send("GET", f"/jobs/{segment(job_id)}").body)

    def wait(
        self,
        job_id: UUID | str,
        *,
        seconds: float | None = None,
        progress: Callable[[JobSummary], object] | None = None,
    ) -> JobSummary:
        """Wait until a job has ended; raises `StillPending` after so many seconds.

        `progress` is called with the job each time that its status was read.
        """
        clock, wait = self._transport.clock, _FIRST_POLL_SECONDS
        deadline = None if seconds is None else clock() + seconds
        while True:
            job = self.status(job_id)
            if progress is not None:
                progress(job)
            if job.status.ended:
                return job
            if deadline is not None and clock() + wait > deadline:
                raise StillPending(job.job_id)
            self._transport.sleep(wait)
            wait = min(2 * wait, _LONGEST_POLL_SECONDS)

    def results(self, job_id: UUID | str) -> Iterator[JobFile]:
        """Yield what became of the files that have ended."""
        for line in self._report(job_id, "jsonl").splitlines():
            yield JobFile.parse(line)

    def report(self, job_id: UUID | str) -> str:
        """Return the report as CSV."""
        return self._report(job_id, "csv").decode()

    def cancel(self, job_id: UUID | str) -> JobSummary:
        """Cancel a job: files that were not sent are cancelled, and those in work end."""
        return JobSummary.model_validate_json(self._transport.send("DELETE", f"/jobs/{segment(job_id)}").body)

    def _report(self, job_id: UUID | str, form: str) -> bytes:
        return self._transport.send("GET", f"/jobs/{segment(job_id)}/results", query={"format": form}).body

    def _create(
        self,
        body: IO[bytes] | None,
        content: dict[str, str] | None = None,
        *,
        operation: JobOperation = "recognise",
        person: str | None = None,
        faces: Literal["only", "dominant", "primary"] | None = None,
        force: bool = False,
        collection: str | None = None,
        threshold: float | None = None,
        callback_url: str | None = None,
        idempotency_key: str | None = None,
    ) -> JobSummary:
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}  # so that a repeated call is one job
        reply = self._transport.send(
            "POST",
            "/jobs",
            query={
                "operation": operation,
                "person": person,
                "faces": faces,
                "force": force or None,
                "collection": collection,
                "threshold": threshold,
                "callback_url": callback_url,
            },
            content=content,
            body=body,
            headers=headers if body is None else headers | {"Content-Type": "application/zip"},
        )
        return JobSummary.model_validate_json(reply.body)
