"""Several web processes on one socket, each with a response queue of its own, under one parent."""

import math
import time
from collections.abc import Callable
from functools import partial
from threading import Event

import structlog

from facerec.aws.sqs.response_queues import ResponseQueues
from facerec.background import OutageLog, backoff_seconds
from facerec.errors import FacerecError, QueueMissing
from facerec.processes.children import Command
from facerec.processes.supervisor import Child, Restarts, Supervisor
from facerec.settings import Settings

log = structlog.get_logger(__name__)

RENEW_SECONDS = 60.0
_LOOK_SECONDS = 0.5
_RESTARTS = Restarts(first_seconds=1.0, longest_seconds=30.0, times=None)
EXTRA_GRACE_SECONDS = 3.0
"""The time after the drain for the last replies and the interpreter's end; then a process is killed."""


class WebProcesses:
    """Keeps `processes` children running, and for each a response queue, which stays when its process is restarted.

    `command` makes the command of a process from its queue's name. `forget` is called with the process id of a child
    that ended although it was not asked to; its `OSError` is logged.
    """

    def __init__(
        self,
        settings: Settings,
        queues: ResponseQueues,
        command: Callable[[str], Command],
        *,
        owner: str,
        forget: Callable[[int], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._processes = settings.web.processes
        self._grace_seconds = settings.web.shutdown_seconds + EXTRA_GRACE_SECONDS
        self._queues = queues
        self._command = command
        self._owner = owner
        self._forget = forget
        self._clock = clock
        self._outage = OutageLog("response_queues")
        self._due = -math.inf
        self._names: list[str] = []
        self.children: list[Child] = []
        self._supervisor = Supervisor(
            self._log_unexpected_end,
            stop_seconds=self._grace_seconds,
            orphan_grace_seconds=self._grace_seconds,
        )

    def run(self, stopping: Event) -> None:
        """Run until `stopping` is set; on return every process has ended and every queue is removed."""
        try:
            self._try(self._queues.reap)
            while not stopping.is_set():
                self.look()
                self._supervisor.wait(0)
                stopping.wait(_LOOK_SECONDS)
        finally:
            self.stop()

    def look(self) -> None:
        """Start the processes when they have their queues; later renew the queues when that is due."""
        now = self._clock()
        if now < self._due:
            return
        try:
            for queue in self._names:
                self._renew(queue)
            while len(self._names) < self._processes:
                self._names.append(self._queues.create(self._owner))
        except FacerecError as exc:
            self._outage.failed(exc)
            self._due = now + backoff_seconds(self._outage.failures, 0, first=1.0, longest=30.0)
            return
        self._outage.succeeded()
        self._due = now + RENEW_SECONDS
        if not self.children:
            commands = map(self._command, self._names)
            self.children = self._supervisor.start(
                *commands, grace_seconds=self._grace_seconds, restarts=_RESTARTS, on_restart=_log_start
            )
            for child in self.children:
                _log_start(child)

    def stop(self) -> None:
        """End every process, and remove the queues."""
        try:
            self._supervisor.stop()
        finally:
            # Also when a second stop signal has ended the wait.
            while self._names:
                self._try(partial(self._queues.remove, self._names.pop()))

    def _renew(self, queue: str) -> None:
        try:
            self._queues.renew(queue)
        except QueueMissing:
            log.warning("response_queue_missing", queue=queue)
            self._queues.create(self._owner, queue)

    def _log_unexpected_end(self, child: Child, how: str, restart_seconds: float) -> None:
        if child.process is not None:
            try:
                self._forget(child.pid)
            except OSError as exc:
                log.warning("web_process_not_counted", pid=child.pid, reason=str(exc))
        log.error("web_process_ended", child=child.name, how=how, restart_seconds=restart_seconds)

    @staticmethod
    def _try(step: Callable[[], object]) -> None:
        """Run a step; a queue that stays costs nothing, and the next start reaps it."""
        try:
            step()
        except FacerecError as exc:
            log.warning("response_queue_stays", reason=str(exc))


def _log_start(child: Child) -> None:
    if child.running:
        log.info("web_process_started", child=child.name, pid=child.pid)
