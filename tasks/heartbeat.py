"""The worker's heartbeat: it reports to the autoscaler, and drains on its order or when EC2 reclaims the instance.

A draining worker takes no more tasks and finishes those that it holds. Then it reports that it is drained, and waits
until it is stopped or the order is withdrawn. While the table is unreachable the worker keeps its last order. After its
start it has none, and takes no task for a while: a worker that was ordered to drain and has not reported counts as
drained, so its instance may be terminated.
"""

import threading
import time
from collections.abc import Callable

import structlog

from facerec.background import BackgroundThread, OutageLog
from facerec.celery_sqs.consumer_gate import ConsumerGate
from facerec.errors import ConfigurationError
from facerec.messages import WorkerReport, WorkerState
from facerec.ports import WorkerReports
from tasks.utilisation import Utilisation

log = structlog.get_logger(__name__)

LEAST_SECONDS = 0.2
"""The least time between two reports whose only news is that the worker has become busy or idle."""
_START_SECONDS = 5
"""How long `start` waits for the first answer; tasks may have to wait longer."""
_LAST_REPORT_SECONDS = 5
_DRAINING_LOOK_SECONDS = 0.05


class WorkerHeartbeat:
    """Reports in its own thread every `every_seconds`, and sooner when the state changes.

    `interrupted` returns whether EC2 reclaims the instance: then the worker drains without an order. After its start it
    takes no task before the first answer, for `first_answer_seconds` at most.
    """

    def __init__(
        self,
        reports: WorkerReports,
        instance_id: str,
        utilisation: Utilisation,
        gate: ConsumerGate,
        *,
        every_seconds: float,
        interrupted: Callable[[], bool] = lambda: False,
        first_answer_seconds: float = 30,
    ) -> None:
        self._reports = reports
        self._instance_id = instance_id
        self._utilisation = utilisation
        self._gate = gate
        self._every_seconds = every_seconds
        self._look_for_interruption = interrupted
        self._interrupted = False
        self._ordered = False
        self._leaving = False
        self._unanswered = False
        self._stopped = False
        self._state = WorkerState.READY
        self._outage = OutageLog("fleet_table")
        self._timeout = threading.Timer(first_answer_seconds, self._take_tasks_unanswered)
        self._timeout.daemon = True
        self._gate_lock = threading.Lock()
        self._first_answer = threading.Event()
        self._thread = BackgroundThread("heartbeat", self._run)

    def start(self) -> None:
        """Report for the first time: on return the gate is paused if the worker is to drain, or has no answer yet."""
        self._unanswered = True
        self._set_gate()
        self._timeout.start()
        self._thread.start()
        self._first_answer.wait(_START_SECONDS)

    def leave(self) -> None:
        """Report from now on that the process ends. May be called in a signal handler."""
        self._leaving = True

    def stop(self) -> None:
        """Report the end, or give up after some seconds."""
        self._timeout.cancel()
        self._stopped = True
        self._utilisation.changed.set()
        self._thread.stop(_LAST_REPORT_SECONDS)

    def beat(self) -> WorkerReport:
        """Report once, and follow the order in the answer; returns the report."""
        self._interrupted = self._interrupted or self._look_for_interruption()
        self._set_gate()
        report = self._report()
        if report.state is not self._state:
            log.info("worker_state", state=str(report.state), held=report.held, interrupted=report.interrupted)
            self._state = report.state
        try:
            self._ordered = self._reports.report(report)
        except Exception as exc:  # noqa: BLE001 - whatever it is, the heartbeat must go on
            self._outage.failed(exc)
            if isinstance(exc, ConfigurationError):  # waiting longer brings no answer
                self._end_wait_for_answer()
        else:
            self._outage.succeeded()
            self._end_wait_for_answer()
        return report

    def _run(self, _stopping: threading.Event) -> None:
        report = self.beat()
        self._first_answer.set()
        while self._wait_until_due(report):
            report = self.beat()
        try:
            self._reports.report(
                self._utilisation.report(self._instance_id, WorkerState.ENDED, interrupted=self._interrupted)
            )
        except Exception as exc:  # noqa: BLE001 - as above
            log.warning("end_not_reported", reason=str(exc) or repr(exc))

    def _wait_until_due(self, last: WorkerReport) -> bool:
        """Wait until the next report is due; returns whether there will be one."""
        began = time.monotonic()
        while not self._stopped:
            current = self._report()
            seconds = due_in(last, current, time.monotonic() - began, self._every_seconds)
            if seconds <= 0:
                return True
            if current.state is WorkerState.DRAINING:  # the end of the last receive sets no event
                seconds = min(seconds, _DRAINING_LOOK_SECONDS)
            self._utilisation.changed.wait(seconds)
            self._utilisation.changed.clear()
        return False

    def _report(self) -> WorkerReport:
        state = WorkerState.READY
        if self._ordered or self._interrupted or self._leaving:
            # In this order: when the gate is quiet no task can begin between the two.
            drained = self._gate.quiet and self._utilisation.idle_since is not None
            state = WorkerState.DRAINED if drained else WorkerState.DRAINING
        return self._utilisation.report(self._instance_id, state, interrupted=self._interrupted)

    def _take_tasks_unanswered(self) -> None:
        log.warning("report_pending", reason="the fleet table has not answered yet; taking tasks meanwhile")
        self._end_wait_for_answer()

    def _end_wait_for_answer(self) -> None:
        self._timeout.cancel()
        self._unanswered = False
        self._set_gate()

    def _set_gate(self) -> None:
        with self._gate_lock:  # the last thread to read the orders must be the last to set the gate
            if self._ordered or self._interrupted or self._unanswered:
                self._gate.pause()
            else:
                self._gate.resume()


def due_in(last: WorkerReport, current: WorkerReport, waited_seconds: float, every_seconds: float) -> float:
    """In how many seconds to report again, `waited_seconds` after `last`; 0 or less is now."""
    if current.state is not last.state:
        return 0.0
    if current.idle_since != last.idle_since:
        return min(LEAST_SECONDS, every_seconds) - waited_seconds
    return every_seconds - waited_seconds
