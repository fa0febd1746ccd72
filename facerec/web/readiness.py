"""Whether this process can do its work: checks with a time limit, and the routes that load balancers ask."""

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future

import structlog
from flask import Blueprint, Response, jsonify

from facerec.errors import FacerecError
from facerec.web.auth.access import needs

log = structlog.get_logger(__name__)

ANSWER_SECONDS = 2.0
FRESH_SECONDS = 1.0
"""Load balancers ask often and from several places; one look per second is enough."""

Check = Callable[[], object]
"""Raises `FacerecError` with the reason if something is wrong."""


class Readiness:
    """Runs the checks of a process, each in a thread and never twice at once, and keeps the answers for a second."""

    def __init__(
        self,
        checks: Mapping[str, Check],
        *,
        answer_seconds: float = ANSWER_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._checks = dict(checks)
        self._answer_seconds = answer_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._answers: dict[str, Future[str | None]] = {}
        self._answered_at: dict[str, float] = {}
        self._failing: set[str] = set()

    def problems(self) -> dict[str, str | None]:
        """Return each check's name with the reason why it failed, or None; by default within two seconds."""
        deadline = time.monotonic() + self._answer_seconds
        answers = {name: self._answer(name) for name in self._checks}
        problems: dict[str, str | None] = {}
        for name, answer in answers.items():
            try:
                problems[name] = answer.result(max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                problems[name] = "no answer in time"
        self._log_changes(problems)
        return problems

    def _answer(self, name: str) -> "Future[str | None]":
        with self._lock:
            answer = self._answers.get(name)
            if answer is None or (answer.done() and self._clock() - self._answered_at[name] >= FRESH_SECONDS):
                answer = self._answers[name] = Future()
                threading.Thread(target=self._run, args=(name, answer), name=f"check-{name}", daemon=True).start()
            return answer

    def _run(self, name: str, answer: "Future[str | None]") -> None:
        problem: str | None = None
        try:
            self._checks[name]()
        except FacerecError as exc:
            problem = str(exc)
        except Exception as exc:  # a fault of ours must make the process unready, not unknown
            log.exception("check_fault", check=name)
            problem = f"the check itself failed: {type(exc).__name__}"
        self._answered_at[name] = self._clock()
        answer.set_result(problem)

    def _log_changes(self, problems: Mapping[str, str | None]) -> None:
        with self._lock:
            failing = {name for name, problem in problems.items() if problem is not None}
            began, ended = failing - self._failing, self._failing - failing
            self._failing = failing
        for name in sorted(began):
            log.warning("check_failed", check=name, reason=problems[name])
        for name in sorted(ended):
            log.info("check_recovered", check=name)


def health_blueprint(readiness: Readiness, *, open_to_all: bool) -> Blueprint:
    """Make the routes `/healthz` and `/readyz`."""
    health = Blueprint("health", __name__)

    @health.get("/healthz")
    @needs(None)
    def alive() -> Response:
        return jsonify(status="ok")

    @health.get("/readyz")
    @needs(None)
    def ready() -> Response:
        problems = readiness.problems()
        response = jsonify(
            status="unready" if any(problems.values()) else "ok",
            # The reasons name buckets and endpoints: with keys they are in the log only.
            checks={
                name: (problem if open_to_all else "failed") if problem else "ok" for name, problem in problems.items()
            },
        )
        response.status_code = 503 if any(problems.values()) else 200
        return response

    return health
