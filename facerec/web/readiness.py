"""Whether this process can do its work: checks that answer at once, also when what they look at does not."""

import threading
import time
from collections.abc import Callable, Mapping

import structlog

from facerec.errors import FacerecError

log = structlog.get_logger(__name__)

ANSWER_SECONDS = 2.0
FRESH_SECONDS = 1.0
"""Load balancers ask often and from several places; one look per second is enough."""

Check = Callable[[], object]
"""Returns when all is well; raises `FacerecError` with the reason otherwise."""


class BackgroundCheck:
    """Runs one check in a thread, never twice at once, and keeps its answer for a second."""

    def __init__(self, name: str, check: Check, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self._check = check
        self._clock = clock
        self._lock = threading.Lock()
        self._problem: str | None = None
        self._checked_at: float | None = None
        self._running: threading.Event | None = None

    def begin(self) -> threading.Event | None:
        """Start the check unless its last answer is fresh; the event is set when the answer is there."""
        with self._lock:
            if self._running is not None:
                return self._running
            if self._checked_at is not None and self._clock() - self._checked_at < FRESH_SECONDS:
                return None
            done = threading.Event()
            threading.Thread(target=self._run, args=(done,), name=f"check-{self.name}", daemon=True).start()
            self._running = done
            return done

    def problem(self, done: threading.Event | None, timeout_seconds: float) -> str | None:
        """Return why the check failed, or None; a check that has not ended in time has failed."""
        if done is not None and not done.wait(max(0.0, timeout_seconds)):
            return "no answer in time"
        return self._problem

    def _run(self, done: threading.Event) -> None:
        problem: str | None = None
        try:
            self._check()
        except FacerecError as exc:
            problem = str(exc)
        except Exception as exc:  # a fault of ours must make the process unready, not unknown
            log.exception("check_fault", check=self.name)
            problem = f"the check itself failed: {type(exc).__name__}"
        with self._lock:
            self._problem = problem
            self._checked_at = self._clock()
            self._running = None
        done.set()


class Readiness:
    """All checks of a process, run together."""

    def __init__(
        self,
        checks: Mapping[str, Check],
        *,
        answer_seconds: float = ANSWER_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._answer_seconds = answer_seconds
        self._checks = [BackgroundCheck(name, check, clock) for name, check in checks.items()]
        self._lock = threading.Lock()
        self._failing: set[str] = set()

    def problems(self) -> dict[str, str | None]:
        """Return each check's name with the reason why it failed, or None; by default within two seconds."""
        deadline = time.monotonic() + self._answer_seconds
        begun = [(check, check.begin()) for check in self._checks]
        problems = {check.name: check.problem(done, deadline - time.monotonic()) for check, done in begun}
        self._log_changes(problems)
        return problems

    def _log_changes(self, problems: Mapping[str, str | None]) -> None:
        with self._lock:
            failing = {name for name, problem in problems.items() if problem is not None}
            began, ended = failing - self._failing, self._failing - failing
            self._failing = failing
        for name in sorted(began):
            log.warning("check_failed", check=name, reason=problems[name])
        for name in sorted(ended):
            log.info("check_recovered", check=name)
