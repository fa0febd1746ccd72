"""A worker's side of its fleet: it reports what it does, and drains when it is asked to or loses its instance.

A worker that drains takes no more tasks and finishes those that it holds; then it says that it
is drained, and waits: to be stopped, or for the order to be taken back. The reports are best effort: while the table
cannot be reached the worker goes on as it was told last. Only at its start, when it was told nothing yet, do tasks wait
for a while: who has been ordered to drain and has not reported counts as drained, so its instance may be terminated.
"""

import threading
import time
from collections.abc import Callable

import structlog

from facerec.celery_sqs.consumer_gate import Intake
from facerec.errors import ConfigurationError, FacerecError
from facerec.messages import WorkerReport, WorkerState
from facerec.ports import WorkerReports
from tasks.utilisation import Occupancy

log = structlog.get_logger(__name__)

LEAST_SECONDS = 0.2
"""Between two reports that only say that the worker has become busy or idle."""
_FIRST_ANSWER_SECONDS = 5
"""How long a start waits to be told whether to drain; tasks may have to wait longer."""
_LAST_WORD_SECONDS = 5
_DRAINING_LOOK_SECONDS = 0.05


class Reporter:
    """Reports in a thread of its own, every `every_seconds`, and sooner when there is something to say.

    `interrupted` tells whether EC2 takes the instance back: the worker drains then, whatever it is asked. After a start
    no task is taken before the first answer, for `patience_seconds` at most.
    """

    def __init__(
        self,
        reports: WorkerReports,
        instance_id: str,
        occupancy: Occupancy,
        intake: Intake,
        *,
        every_seconds: float,
        interrupted: Callable[[], bool] = lambda: False,
        patience_seconds: float = 30,
    ) -> None:
        self._reports = reports
        self._instance_id = instance_id
        self._occupancy = occupancy
        self._intake = intake
        self._every_seconds = every_seconds
        self._look_for_interruption = interrupted
        self._interrupted = False
        self._blind = False
        self._ordered = False
        self._leaving = False
        self._consulted = False
        self._failures = 0
        self._state = WorkerState.READY
        self._unanswered = False
        self._patience = threading.Timer(patience_seconds, self._lose_patience)
        self._patience.daemon = True
        self._steering = threading.Lock()
        self._first_told = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)

    def start(self) -> None:
        """Report for the first time: the intake is closed on return when the worker is to drain, or is not told yet."""
        self._intake.consult(self._asked)
        self._unanswered = True
        self._steer()
        self._patience.start()
        self._thread.start()
        self._first_told.wait(_FIRST_ANSWER_SECONDS)

    def leave(self) -> None:
        """The process was told to end: say so from now on. May be called in a signal handler."""
        self._leaving = True

    def stop(self) -> None:
        """Report the end, or give up after some seconds."""
        self._patience.cancel()
        self._stopped.set()
        self._occupancy.turned.set()
        self._thread.join(_LAST_WORD_SECONDS)

    def tell(self) -> WorkerReport:
        """Report once, and do what is asked; returns what was said."""
        self._look()
        self._steer()
        said = self._report()
        if said.state is not self._state:
            log.info("worker_state", state=str(said.state), held=said.held, interrupted=said.interrupted)
            self._state = said.state
        try:
            self._ordered = self._reports.report(said)
        except Exception as exc:  # noqa: BLE001 - it is logged; a worker that falls silent for good is replaced
            self._failed(exc)
            if isinstance(exc, ConfigurationError):  # waiting longer brings no answer, either
                self._wait_no_more()
        else:
            if self._failures:
                log.info("reporting_again", failures=self._failures)
            self._failures = 0
            self._wait_no_more()
        self._consulted = False
        self._intake.go_on()
        return said

    def _run(self) -> None:
        said = self.tell()
        self._first_told.set()
        while self._news_after(said):
            said = self.tell()
        try:
            last = self._occupancy.report(self._instance_id, WorkerState.ENDED, interrupted=self._interrupted)
            self._reports.report(last)
        except Exception as exc:
            log.warning("end_not_reported", reason=str(exc), exc_info=_trace(exc))

    def _news_after(self, said: WorkerReport) -> bool:
        """Wait until the next report is due; returns whether there shall be one."""
        began = time.monotonic()
        while not self._stopped.is_set():
            current = self._report()
            if self._consulted:
                if time.monotonic() - began >= self._every_seconds / 5:
                    return True
                self._consulted = False  # what was answered just now still holds
                self._intake.go_on()
            seconds = due_in(said, current, time.monotonic() - began, self._every_seconds)
            if seconds <= 0:
                return True
            if current.state is WorkerState.DRAINING:  # nobody tells when the last receive has ended
                seconds = min(seconds, _DRAINING_LOOK_SECONDS)
            self._occupancy.turned.wait(seconds)
            self._occupancy.turned.clear()
        return False

    def _asked(self) -> bool:
        """The intake's question before it waits for tasks again; while nobody answers us it need not wait, either."""
        if self._failures:
            return False
        self._consulted = True
        self._occupancy.turned.set()
        return True

    def _report(self) -> WorkerReport:
        state = WorkerState.READY
        if self._ordered or self._interrupted or self._leaving:
            # Asked in this order: with the intake quiet nothing can be begun between the two.
            drained = self._intake.quiet and self._occupancy.idle_since is not None
            state = WorkerState.DRAINED if drained else WorkerState.DRAINING
        return self._occupancy.report(self._instance_id, state, interrupted=self._interrupted)

    def _look(self) -> None:
        try:
            self._interrupted = self._interrupted or self._look_for_interruption()
        except Exception as exc:  # whatever it was, the reports must go out
            if not self._blind:
                log.warning("interruption_unknown", reason=str(exc), exc_info=_trace(exc))
            self._blind = True
        else:
            self._blind = False

    def _lose_patience(self) -> None:
        log.warning("report_pending", reason="nobody has answered yet; taking tasks meanwhile")
        self._wait_no_more()

    def _wait_no_more(self) -> None:
        self._patience.cancel()
        self._unanswered = False
        self._steer()

    def _steer(self) -> None:
        with self._steering:  # the last to look must be the last to turn
            if self._ordered or self._interrupted or self._unanswered:
                self._intake.close()
            else:
                self._intake.open()

    def _failed(self, exc: Exception) -> None:
        if not self._failures:
            log.warning("not_reported", reason=str(exc), exc_info=_trace(exc))
        self._failures += 1


def _trace(exc: Exception) -> Exception | None:
    """What to log of it beside its text: a traceback, unless it is an error of ours, which says what to do."""
    return None if isinstance(exc, FacerecError) else exc


def due_in(said: WorkerReport, current: WorkerReport, waited_seconds: float, every_seconds: float) -> float:
    """In how many seconds to report again, `waited_seconds` after `said`; 0 or less is now."""
    if current.state is not said.state:
        return 0.0
    if current.idle_since != said.idle_since:
        return min(LEAST_SECONDS, every_seconds) - waited_seconds
    return every_seconds - waited_seconds
