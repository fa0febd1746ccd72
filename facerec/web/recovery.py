"""Recovery of lost messages: tasks are sent again, and results are read from the store.

A queue that is deleted and created again loses its messages without an error. The web process still knows the tasks of
its waiting uploads, so a lost task costs seconds instead of a 504. A lost result is still in the store.
"""

import math
import threading
import time
from collections.abc import Callable
from uuid import UUID

import structlog

from facerec.background import BackgroundThread, OutageLog
from facerec.errors import FacerecError, QueueMissing, Refused
from facerec.object_keys import output_key
from facerec.ports import ObjectStore, TaskQueue
from facerec.stored_results import stored_result
from facerec.web.inbox import InboxThread, Waiters

log = structlog.get_logger(__name__)

LOOK_SECONDS = 2.0
"""How often the request queue is checked while an upload waits."""

SELDOM_SECONDS = 15.0
"""How often the result of one wait is looked up while the inbox works."""

RESULTS_PER_LOOK = 50
"""The most results that one round looks up; it bounds the cost of a long backlog."""


class Recovery:
    """Recovers the messages for the waits of one process, in a thread; survives every outage.

    It is harmless if nothing was lost: a task that is sent twice overwrites its own result.
    """

    def __init__(
        self,
        waiters: Waiters,
        inbox: InboxThread,
        *,
        queue: TaskQueue,
        made_at: Callable[[], str],
        store: ObjectStore,
        output_bucket: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Use `made_at` to notice a new request queue: it returns the creation time, or raises `QueueMissing`."""
        self._waiters = waiters
        self._inbox = inbox
        self._queue = queue
        self._made_at = made_at
        self._store = store
        self._output_bucket = output_bucket
        self._clock = clock
        self._known: str | None = None
        self._missing = False
        self._lost: set[UUID] = set()
        self._outages_ended = 0
        self._outage = OutageLog("recovery")
        self._thread = BackgroundThread("recovery", self._run)

    def start(self) -> None:
        """Note which queue there is, and begin to look for lost messages."""
        self._thread.start()

    def stop(self) -> None:
        """Begin no further round; a running one ends in the background."""
        self._thread.stop(0)

    def _run(self, stopping: threading.Event) -> None:
        self._run_steps(self._look_at_queue)
        while not stopping.wait(LOOK_SECONDS):
            self.look()

    def look(self) -> None:
        """Do one round: check the queue, send lost tasks again, look for results. Raises nothing."""
        if self._waiters.count:
            self._run_steps(self._look_at_queue, self._send_again, self._look_for_results)

    def _run_steps(self, *steps: Callable[[], None]) -> None:
        problem: Exception | None = None
        for step in steps:
            try:
                step()
            except Exception as exc:
                problem = exc
                if not isinstance(exc, FacerecError):
                    log.exception("recovery_fault")
        if problem is None:
            self._outage.succeeded()
        else:
            self._outage.failed(problem)

    def _look_at_queue(self) -> None:
        try:
            made_at = self._made_at()
        except QueueMissing as exc:
            if not self._missing:
                log.error("request_queue_missing", reason=str(exc), waiting=self._waiters.count)  # noqa: TRY400 - the reason says it all
            self._missing = True
            return
        if self._missing or (self._known is not None and made_at != self._known):
            # Also tasks that were sent to the new queue already: a duplicate is harmless.
            self._lost |= {waiter.request_id for waiter in self._waiters.sent()}
            log.warning("request_queue_recreated", sending_again=len(self._lost))
        self._missing = False
        self._known = made_at

    def _send_again(self) -> None:
        if self._missing or not self._lost:
            return
        for waiter in self._waiters.sent():
            if waiter.request_id in self._lost and waiter.request is not None:
                try:
                    self._queue.submit(waiter.request)
                except Refused as exc:
                    log.warning("task_refused", request_id=str(waiter.request_id), reason=str(exc))
                else:
                    log.info("task_sent_again", request_id=str(waiter.request_id))
                self._lost.discard(waiter.request_id)
        self._lost.clear()  # the others have been answered meanwhile

    def _look_for_results(self) -> None:
        now, waiting = self._clock(), self._waiters.sent()
        if self._outages_ended != self._inbox.outages_ended:
            self._outages_ended = self._inbox.outages_ended
            for waiter in waiting:
                waiter.looked_up_at = -math.inf
        pause = SELDOM_SECONDS if self._inbox_works() else LOOK_SECONDS
        due = [waiter for waiter in waiting if now - waiter.looked_up_at >= pause]
        for waiter in sorted(due, key=lambda waiter: waiter.looked_up_at)[:RESULTS_PER_LOOK]:
            waiter.looked_up_at = now
            if (task := waiter.request) is None:
                continue
            result = stored_result(self._store, self._output_bucket, output_key(task.request_id, task.filename))
            if result is not None and self._waiters.resolve(result):
                log.warning("result_found_in_the_store", request_id=str(waiter.request_id))

    def _inbox_works(self) -> bool:
        try:
            self._inbox.check()
        except FacerecError:
            return False
        return True
