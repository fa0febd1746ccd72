"""The jobs of one web process: it claims jobs that no process feeds, feeds them, and sends their callbacks.

A process that dies leaves its jobs claimed. Another one takes a job over when its record has not changed for
`LEASE_SECONDS` by that process's own clock, as in `autoscale.aws.lease`. Two processes on one job are harmless: they
send the same requests, under the same ids.
"""

import json
import random
import socket
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from uuid import UUID

import structlog

from facerec.background import BackgroundThread, OutageLog, backoff_seconds
from facerec.callbacks import CallbackFailed, CallbackRefused, Caller, owner_secret
from facerec.errors import FacerecError
from facerec.job_records import Job, JobStatus
from facerec.jobs.report import summary
from facerec.ports import Jobs, ObjectStore, TaskQueue
from facerec.settings import Settings
from facerec.web.inbox import Waiters
from facerec.web.jobs.files import JobServices
from facerec.web.jobs.run import HEARTBEAT_SECONDS, JobRun

log = structlog.get_logger(__name__)

POLL_SECONDS = 2.0
LEASE_SECONDS = 4 * HEARTBEAT_SECONDS
MAX_RUNS = 8
"""Jobs that one process feeds at once; they share its window."""
SENDERS = 8
"""Files that one process stores and sends at once: as many photos of jobs are in memory."""
CALLERS = 4
STOP_SECONDS = 5.0
_FIRST_CALLBACK_SECONDS, _LONGEST_CALLBACK_SECONDS = 5.0, 3600.0


class JobFeeder:
    """Feeds jobs in threads from `start` to `stop`."""

    def __init__(
        self,
        *,
        settings: Settings,
        store: ObjectStore,
        queue: TaskQueue,
        jobs: Jobs,
        waiters: Waiters,
        reply_to: str,
        callbacks: Caller,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self._services = JobServices(
            settings=settings,
            store=store,
            queue=queue,
            jobs=jobs,
            waiters=waiters,
            reply_to=reply_to,
            process=f"{socket.gethostname()}/{uuid.uuid4()}",
            window=threading.Semaphore(settings.jobs.window),
            senders=ThreadPoolExecutor(SENDERS, "job-sender"),
            now=now,
            clock=clock,
        )
        self._callbacks = callbacks
        self._poll_seconds = poll_seconds
        self._wake = threading.Event()
        self._busy: set[UUID] = set()
        """Jobs that a thread of this process works on."""
        self._calling: set[UUID] = set()
        """Those of them whose callback is being sent."""
        self._runs: dict[UUID, tuple[JobRun, BackgroundThread]] = {}
        self._seen: dict[UUID, tuple[int, float]] = {}
        """Of jobs of other processes: their revision, and since when it is the same."""
        self._outage = OutageLog("jobs")
        self._thread = BackgroundThread("jobs", self._look_again_and_again)

    def start(self) -> None:
        """Begin to look for jobs."""
        self._thread.start()

    def wake(self) -> None:
        """Look for jobs now: one was created, or changed."""
        self._wake.set()

    def stop(self) -> None:
        """Stop feeding; what is in work goes on in the workers, and other processes feed the rest."""
        self._wake.set()
        self._thread.stop(STOP_SECONDS)
        threads = [thread for _, thread in self._runs.values()]
        for thread in threads:
            thread.stop(0)
        deadline = time.monotonic() + STOP_SECONDS
        for thread in threads:
            thread.stop(max(0.0, deadline - time.monotonic()))
        self._services.senders.shutdown(wait=False, cancel_futures=True)

    def _look_again_and_again(self, stopping: threading.Event) -> None:
        while not stopping.is_set():
            self._wake.clear()
            try:
                self.look()
            except FacerecError as exc:
                self._outage.failed(exc)
            except Exception:  # without this thread no job would go on
                log.exception("jobs_fault")
            else:
                self._outage.succeeded()
            if not stopping.is_set():
                self._wake.wait(self._poll_seconds)

    def look(self) -> None:
        """Claim and start what is to be done now."""
        self._runs = {job_id: run for job_id, run in self._runs.items() if job_id in self._busy}
        now = self._services.now()
        unsettled = self._services.jobs.unsettled()
        self._seen = {job.job_id: self._seen[job.job_id] for job in unsettled if job.job_id in self._seen}
        for job in sorted(unsettled, key=lambda job: job.created_at):
            if job.cancel_requested and job.job_id in self._runs:
                self._runs[job.job_id][0].cancel()
            if job.job_id in self._busy or job.expires_at <= now or not self._is_free(job):
                continue
            if job.status.ended:
                due_at = None if job.callback is None else job.callback.due_at
                if due_at is not None and due_at <= now and len(self._calling) < CALLERS:
                    self._begin(job, self._begin_call)
            elif len(self._runs) < MAX_RUNS:
                self._begin(job, self._feed)

    def _is_free(self, job: Job) -> bool:
        """Whether no living process works on the job, as far as its record shows."""
        if job.feeder in {None, self._services.process}:
            return True
        clock = self._services.clock()
        revision, since = self._seen.setdefault(job.job_id, (job.revision, clock))
        if revision != job.revision:
            self._seen[job.job_id] = (job.revision, clock)
            return False
        return clock - since >= LEASE_SECONDS

    def _begin(self, job: Job, start: Callable[[Job], object]) -> None:
        changes: dict[str, object] = {"feeder": self._services.process}
        if not job.status.ended:
            changes |= {"status": JobStatus.RUNNING, "started_at": job.started_at or self._services.now()}
        claimed = job.next(**changes)
        if not self._services.jobs.put(claimed):
            return  # another process was faster, or it was cancelled: the next look shows it
        if job.feeder not in {None, self._services.process}:
            log.warning("job_taken_over_from", job_id=str(job.job_id), process=job.feeder)
        self._busy.add(job.job_id)
        start(claimed)

    def _feed(self, job: Job) -> None:
        run = JobRun(self._services, job)

        def work(stopping: threading.Event) -> None:
            try:
                run.run(stopping)
            except FacerecError as exc:
                log.warning("job_interrupted", job_id=str(job.job_id), reason=str(exc))
            except Exception:  # the job is claimed again at the next look
                log.exception("job_fault", job_id=str(job.job_id))
            finally:
                self._busy.discard(job.job_id)

        thread = BackgroundThread(f"job-{job.job_id}", work)
        self._runs[job.job_id] = run, thread
        thread.start()

    def _begin_call(self, job: Job) -> None:
        self._calling.add(job.job_id)
        # A daemon: the process need not wait for a slow receiver, because a callback that is cut off is sent again.
        threading.Thread(target=self._call, args=(job,), name=f"callback-{job.job_id}", daemon=True).start()

    def _call(self, job: Job) -> None:
        try:
            changed = self._called(job)
            if not self._services.jobs.put(job.next(callback=changed, feeder=None)):
                log.warning("callback_not_recorded", job_id=str(job.job_id))  # it is sent again
        except FacerecError as exc:
            log.warning("callback_not_recorded", job_id=str(job.job_id), reason=str(exc))
        except Exception:
            log.exception("callback_fault", job_id=str(job.job_id))
        finally:
            self._calling.discard(job.job_id)
            self._busy.discard(job.job_id)

    def _called(self, job: Job) -> object:
        """Send the callback of a job once; returns its next state."""
        state, now, settings = job.callback, self._services.now(), self._services.settings.callbacks
        if state is None:
            return None
        attempts = state.attempts + 1
        problem, again = None, False
        try:
            if settings.secret is None:
                return state.model_copy(update={"due_at": None, "problem": "FACEREC_CALLBACKS__SECRET is not set"})
            body = json.dumps({"event": "job.ended", **summary(job, now)}).encode()
            self._callbacks.send(state.url, body, owner_secret(settings.secret.get_secret_value(), job.owner))
        except CallbackRefused as exc:
            problem = str(exc)
        except CallbackFailed as exc:
            problem, again = str(exc), now < (job.ended_at or now) + timedelta(hours=settings.retry_hours)
        log.info("callback", job_id=str(job.job_id), attempts=attempts, reason=problem, again=again)
        pause = backoff_seconds(
            attempts,
            random.random(),  # noqa: S311 - spreads the load
            first=_FIRST_CALLBACK_SECONDS,
            longest=_LONGEST_CALLBACK_SECONDS,
        )
        return state.model_copy(
            update={
                "attempts": attempts,
                "problem": problem,
                "due_at": now + timedelta(seconds=pause) if again else None,
                "delivered_at": now if problem is None else None,
            }
        )
