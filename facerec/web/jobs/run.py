"""One job in work: its files become ordinary requests, a window of them at a time, and their results are recorded.

Nothing is lost with the process. What is needed to go on is in the job's record, in the records of the ended files and
in the store of results: the next process looks there for what may have been sent, and sends the rest.
"""

import queue
import random
import threading
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import structlog

from facerec.background import OutageLog, backoff_seconds
from facerec.errors import ConfigurationError, FacerecError, ObjectMissing, QueueMissing, Refused, Transient
from facerec.job_records import (
    CallbackState,
    FileStatus,
    Job,
    JobFile,
    JobStatus,
    counted_in,
)
from facerec.jobs.sources import SourceUnusable, open_source, remove_source
from facerec.jobs.zip_files import BadEntry, BadZip
from facerec.messages import RecognitionResult
from facerec.web.jobs.files import JobFiles, JobServices
from facerec.web.replies import Declined

log = structlog.get_logger(__name__)

FLUSH_SECONDS = 1.0
"""How often the ended files are recorded."""
HEARTBEAT_SECONDS = 5.0
"""How often the record is written at least, so that no other process takes the job over."""
LOOK_SECONDS = 15.0
"""How often the result of a file that is in work is looked up in the store, in case its message was lost."""
_LOOKS_AT_ONCE = 20
_WAIT_SECONDS = 0.2
_MOST_UNRECORDED = 500
"""Ended files in memory; with more, nothing is sent until they are recorded."""
_AGAIN = (Transient, QueueMissing, ConfigurationError)
"""What concerns every file, and ends."""


class JobLost(Exception):
    """Another process has taken the job over."""


@dataclass(slots=True)
class _InWork:
    """A file between its sending and its result."""

    index: int
    looked_at: float
    sent_at: float | None = None
    patience: float = 0.0
    """How long after `sent_at` it is sent again."""


class JobRun:
    """Feeds one job, which this process has claimed, in the thread that calls `run`."""

    def __init__(self, services: JobServices, job: Job) -> None:
        self._services = services
        self._job = job
        self._files: JobFiles
        self._waiting: deque[int] = deque()
        self._in_work: dict[UUID, _InWork] = {}
        self._events: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        """Steps for the thread of `run`, which alone touches what is above and below."""
        self._ended: list[JobFile] = []
        self._maybe_sent = 0
        """The places below may have been sent by an earlier process."""
        self._counts: dict[str, int] = {}
        self._outcomes: dict[str, int] = {}
        self._sent = job.sent
        self._saved_at = services.clock()
        self._outage = OutageLog("job_services", job_id=str(job.job_id))
        self._pause_until = 0.0

    def cancel(self) -> None:
        """Have the job cancelled soon, from any thread; its record says so already."""
        self._events.put(self._cancel)

    def run(self, stopping: threading.Event) -> None:
        """Feed the job until it has ended, or until `stopping` is set; then it is free for another process."""
        with ExitStack() as stack, structlog.contextvars.bound_contextvars(job_id=str(self._job.job_id)):
            try:
                self._open(stack)
                while not stopping.is_set():
                    if not self._step():
                        return
                self._record()
                self._save(feeder=None)
            except (BadZip, SourceUnusable, ObjectMissing) as exc:
                self._finish(JobStatus.FAILED, str(exc))
            except JobLost:
                log.warning("job_taken_over")
            finally:
                for request_id in list(self._in_work):
                    self._leave(request_id)

    def _open(self, stack: ExitStack) -> None:
        services = self._services
        source = open_source(services.store, services.settings, self._job, stack)
        self._files = JobFiles(services, self._job, source)
        known = set()
        for file in services.jobs.files(self._job.job_id):
            known.add(file.index)
            self._count(file)
        self._maybe_sent = (
            0 if self._job.sent == 0 and not known else self._job.sent + 5 * services.settings.jobs.window
        )
        self._waiting.extend(index for index in range(self._files.count) if index not in known)
        self._save(total=self._files.count)
        log.info("job_started", files=self._job.total, ended=len(known))

    def _step(self) -> bool:
        """Do what is due; returns whether the job goes on."""
        if self._job.cancel_requested:
            self._cancel()
        self._fill()
        self._take_events()
        self._look_up()
        clock = self._services.clock()
        due = FLUSH_SECONDS if self._ended else HEARTBEAT_SECONDS
        over = not self._waiting and not self._in_work
        if clock >= self._pause_until and (over or clock - self._saved_at >= due):
            try:
                self._record()
                if over:
                    cancelled = self._counts.get(FileStatus.CANCELLED, 0) > 0
                    self._finish(JobStatus.CANCELLED if cancelled else JobStatus.DONE)
                    return False
                self._save()
            except _AGAIN as exc:
                self._back_off(exc)
        return True

    def _fill(self) -> None:
        """Hand files to the senders, as many as the window has places for."""
        if self._services.clock() < self._pause_until or len(self._ended) > _MOST_UNRECORDED:
            return
        while self._waiting:
            index = self._waiting[0]
            problem = self._files.problem(index)
            if problem is not None:
                self._waiting.popleft()
                self._end(self._files.row(index, FileStatus.SKIPPED, problem))
                continue
            if not self._services.window.acquire(blocking=False):
                return
            self._waiting.popleft()
            request_id = self._files.request_id(index)
            self._in_work[request_id] = _InWork(index, self._services.clock())
            self._services.waiters.listen(request_id, self._on_result)
            self._sent = max(self._sent, index + 1)
            self._services.senders.submit(self._send, index, request_id, look_first=index < self._maybe_sent)

    def _send(self, index: int, request_id: UUID, *, look_first: bool = False) -> None:
        """Store a file and send its request, in a thread of the senders."""
        try:
            if look_first and (result := self._files.stored_result(index)) is not None:
                self._on_result(result)
                return
            self._services.queue.submit(self._files.request(index))
        except _AGAIN as exc:
            problem = exc
            self._events.put(lambda: self._not_sent(request_id, problem))
        except (BadEntry, Declined) as exc:
            file = self._files.row(index, FileStatus.SKIPPED, exc.reply.text if isinstance(exc, Declined) else str(exc))
            self._events.put(lambda: self._end_request(request_id, file))
        except ObjectMissing:
            file = self._files.row(index, FileStatus.FAILED, "it is no longer stored")
            self._events.put(lambda: self._end_request(request_id, file))
        except Refused as exc:
            log.warning("file_refused", index=index, reason=str(exc))
            file = self._files.row(index, FileStatus.FAILED, "its request was refused")
            self._events.put(lambda: self._end_request(request_id, file))
        except Exception:  # one file must not end the job
            log.exception("file_fault", index=index)
            file = self._files.row(index, FileStatus.FAILED, "the server made a mistake that it has noted")
            self._events.put(lambda: self._end_request(request_id, file))
        else:
            self._events.put(lambda: self._was_sent(request_id))

    def _on_result(self, result: RecognitionResult) -> None:
        """Take a result, from any thread."""
        self._events.put(lambda: self._has_result(result))

    def _take_events(self) -> None:
        try:
            step = self._events.get(timeout=_WAIT_SECONDS)
            while True:
                step()
                step = self._events.get_nowait()
        except queue.Empty:
            return

    def _was_sent(self, request_id: UUID) -> None:
        self._outage.succeeded()
        if (work := self._in_work.get(request_id)) is not None:
            work.sent_at = self._services.clock()
            work.patience = 2 * work.patience or self._services.settings.web.wait_seconds

    def _not_sent(self, request_id: UUID, problem: FacerecError) -> None:
        self._back_off(problem)
        if (work := self._leave(request_id)) is not None:
            self._waiting.appendleft(work.index)

    def _has_result(self, result: RecognitionResult) -> None:
        work = self._in_work.get(result.request_id)
        if work is not None:
            self._end_request(result.request_id, self._files.ended(work.index, result))

    def _end_request(self, request_id: UUID, file: JobFile) -> None:
        if self._leave(request_id) is not None:
            self._end(file)

    def _end(self, file: JobFile) -> None:
        self._ended.append(file)
        self._count(file)

    def _leave(self, request_id: UUID) -> _InWork | None:
        """Give a file's place in the window back."""
        work = self._in_work.pop(request_id, None)
        if work is not None:
            self._services.waiters.unlisten(request_id)
            self._services.window.release()
        return work

    def _look_up(self) -> None:
        """Look for results whose message did not come; send again what has had none for long."""
        clock, senders = self._services.clock(), self._services.senders
        due = [
            (key, work)
            for key, work in self._in_work.items()
            if work.sent_at and clock - work.looked_at >= LOOK_SECONDS
        ]
        for request_id, work in due[:_LOOKS_AT_ONCE]:
            work.looked_at = clock
            if clock - (work.sent_at or clock) < work.patience:
                senders.submit(self._look_for, work.index, request_id)
            else:
                work.sent_at = clock
                senders.submit(self._send, work.index, request_id, look_first=True)

    def _look_for(self, index: int, request_id: UUID) -> None:
        try:
            result = self._files.stored_result(index)
        except FacerecError as exc:
            log.debug("result_not_looked_up", request_id=str(request_id), reason=str(exc))
            return
        if result is not None:
            log.warning("result_found_in_the_store", request_id=str(request_id))
            self._on_result(result)

    def _cancel(self) -> None:
        """End what has not been sent; what is in work ends by itself."""
        while self._waiting:
            self._end(self._files.row(self._waiting.popleft(), FileStatus.CANCELLED))

    def _finish(self, status: JobStatus, problem: str | None = None) -> None:
        job, services = self._job, self._services
        callback: CallbackState | None = job.callback
        if callback is not None:
            callback = callback.model_copy(update={"due_at": services.now()})
        self._save(status=status, problem=problem, ended_at=services.now(), callback=callback, feeder=None)
        log.info("job_ended", status=status, reason=problem, **self._counts)
        try:
            remove_source(services.store, services.settings, job.job_id)
        except FacerecError as exc:
            log.warning("job_source_stays", reason=str(exc))  # it expires with the other inputs

    def _record(self) -> None:
        """Record the ended files."""
        if self._ended:
            self._services.jobs.add_files(self._job.job_id, self._ended, self._job.expires_at)
            self._ended = []

    def _save(self, **changes: Any) -> None:
        """Write the next revision of the record; raises `JobLost`."""
        changes = {"counts": self._counts, "outcomes": self._outcomes, "sent": self._sent, **changes}
        job = self._job.next(**changes)
        while not self._services.jobs.put(job):
            current = self._services.jobs.job(job.job_id)
            if current is None or current.feeder != self._services.process:
                raise JobLost
            job = current.next(**changes)  # it was cancelled meanwhile
        self._job = job
        self._saved_at = self._services.clock()

    def _back_off(self, problem: FacerecError) -> None:
        self._outage.failed(problem)
        pause = backoff_seconds(self._outage.failures, random.random())  # noqa: S311 - spreads the load
        self._pause_until = self._services.clock() + pause

    def _count(self, file: JobFile) -> None:
        self._counts = counted_in(self._counts, file.status)
        if file.outcome is not None:
            self._outcomes = counted_in(self._outcomes, file.outcome)
