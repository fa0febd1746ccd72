"""Mends what a lost queue took with it: tasks are sent again, and results are fetched from the store.

A queue that is deleted and made anew loses its messages without a word. The web process still knows what its uploads
wait for, so a lost task costs seconds, not a 504; and a result whose message is lost still lies in the output bucket.
"""

import math
import threading
import time
from collections.abc import Callable
from uuid import UUID

import structlog

from facerec.errors import FacerecError, QueueMissing
from facerec.messages import RecognitionRequest, RecognitionResult
from facerec.object_keys import output_key
from facerec.ports import ObjectStore, TaskQueue
from facerec.stored_results import stored_result
from facerec.web.inbox import InboxThread, Waiters

log = structlog.get_logger(__name__)

LOOK_SECONDS = 2.0
"""How often the request queue is looked at, while somebody waits; nobody looks otherwise."""

SELDOM_SECONDS = 15.0
"""How often the result of one wait is looked for without a cause, while the inbox works."""

LOOKED_FOR_AT_ONCE = 50
"""Results that one look asks the store for: it bounds what a long backlog costs."""


class Rescue:
    """Looks after the waits of one process in a thread of its own; survives every outage, and tells of each once.

    What it does is harmless where nothing was lost: a task that is sent twice overwrites its own result.
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
        """`made_at` tells the moment at which the request queue was made, in any form; raises `QueueMissing`."""
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
        self._recoveries = 0
        self._failing = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rescue", daemon=True)

    def start(self) -> None:
        """Note which queue there is, and look after who waits from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Begin no further look; a running one ends by itself, in the background."""
        self._stopping.set()

    def _run(self) -> None:
        self._each(self._look_at_queue)
        while not self._stopping.wait(LOOK_SECONDS):
            self.look()

    def look(self) -> None:
        """Do what is due now; raises nothing."""
        if self._waiters.count:
            self._each(self._look_at_queue, self._send_again, self._look_for_results)

    def _each(self, *steps: Callable[[], None]) -> None:
        failed = False
        for step in steps:
            try:
                step()
            except Exception as exc:
                failed = True
                if not self._failing:
                    ours = isinstance(exc, FacerecError)
                    log.warning("rescue_hindered", reason=str(exc) or repr(exc), exc_info=None if ours else exc)
        self._failing = failed

    def _look_at_queue(self) -> None:
        try:
            made_at = self._made_at()
        except QueueMissing as exc:
            if not self._missing:
                log.error("request_queue_missing", reason=str(exc), waiting=self._waiters.count)  # noqa: TRY400 - the reason says it all
            self._missing = True
            return
        if self._missing or (self._known is not None and made_at != self._known):
            # Also those that were sent since: which queue took them cannot be told, and a duplicate is harmless.
            self._lost |= {waiter.request_id for waiter in self._waiters.sent()}
            log.warning("request_queue_made_anew", sending_again=len(self._lost))
        self._missing = False
        self._known = made_at

    def _send_again(self) -> None:
        if self._missing or not self._lost:
            return
        for waiter in self._waiters.sent():
            if waiter.request_id in self._lost and waiter.request is not None:
                self._queue.submit(waiter.request)
                self._lost.discard(waiter.request_id)
                log.info("task_sent_again", request_id=str(waiter.request_id))
        self._lost.clear()  # whoever is left does not wait any more

    def _look_for_results(self) -> None:
        now, waiting = self._clock(), self._waiters.sent()
        if self._recoveries != self._inbox.recoveries:
            self._recoveries = self._inbox.recoveries
            for waiter in waiting:
                waiter.sought_at = -math.inf
        patience = SELDOM_SECONDS if self._inbox_works() else LOOK_SECONDS
        due = [waiter for waiter in waiting if now - waiter.sought_at >= patience]
        for waiter in sorted(due, key=lambda waiter: waiter.sought_at)[:LOOKED_FOR_AT_ONCE]:
            waiter.sought_at = now
            result = self._stored(waiter.request)
            if result is not None and self._waiters.resolve(result):
                log.warning("result_found_in_the_store", request_id=str(waiter.request_id))

    def _inbox_works(self) -> bool:
        try:
            self._inbox.check()
        except FacerecError:
            return False
        return True

    def _stored(self, request: RecognitionRequest | None) -> RecognitionResult | None:
        if request is None:
            return None
        return stored_result(self._store, self._output_bucket, output_key(request.request_id, request.filename))
