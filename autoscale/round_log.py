"""Tells of rounds: canonical log lines, and the chronicle's records."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import structlog

from autoscale.estimates import Estimates
from autoscale.observation import Limits, Phase, QueueDepth
from autoscale.policy import Decision, Hold
from autoscale.ports import Chronicle, Record
from autoscale.round_result import Cause, Round
from facerec.errors import FacerecError

log = structlog.get_logger(__name__)

_LINE_SECONDS = 60.0
"""How often a round is logged that is like the one before."""
_RECORD_SECONDS = 10.0
"""How often one is recorded while there is work or an instance."""


@dataclass(frozen=True, slots=True)
class _Whole:
    """A round in which everything was known."""

    done: Round
    depth: QueueDepth
    phases: Mapping[Phase, int]
    decision: Decision
    estimates: Estimates

    @classmethod
    def of(cls, done: Round, limits: Limits) -> "_Whole | None":
        depth, phases, decision, estimates = done.depth, done.phases(limits), done.decision, done.estimates
        if depth is None or phases is None or estimates is None or not isinstance(decision, Decision):
            return None
        return cls(done, depth, phases, decision, estimates)

    def record(self) -> Record:
        leaving = (Phase.DRAINING, Phase.DRAINED, Phase.LOST)
        return Record(
            at=self.done.at,
            visible=self.depth.visible,
            in_flight=self.depth.in_flight,
            needed=self.decision.needed,
            booting=self.phases[Phase.BOOTING],
            serving=self.phases[Phase.SERVING],
            draining=sum(self.phases[name] for name in leaving),
            stopped=self.phases[Phase.STOPPED],
            arrivals_per_second=self.estimates.arrivals_per_second,
            service_seconds=self.estimates.service_seconds,
            boot_seconds=self.estimates.boot_seconds,
            reason=self.decision.reason,
            actions=self.done.words,
        )


class Journal:
    """Writes what is new, and now and then what is not; counts that are not known are never written."""

    def __init__(self, chronicle: Chronicle, limits: Limits) -> None:
        self._chronicle = chronicle
        self._limits = limits
        self._line: tuple[object, ...] = ()
        self._line_at = 0.0
        self._counts: tuple[int, ...] = ()
        self._recorded_at = 0.0
        self._outage = False
        self._cause: Cause | None = None
        self._cause_since = 0.0

    def write(self, done: Round) -> bool:
        """Log and record a round; false when the chronicle could not be written."""
        self._tell_cause(done)
        whole = _Whole.of(done, self._limits)
        if whole is None:
            return True
        self._log(whole)
        return self._record(whole.record())

    def _log(self, whole: _Whole) -> None:
        done, depth, decision = whole.done, whole.depth, whole.decision
        phases = {name.value: count for name, count in whole.phases.items() if count}
        line = (depth.visible, depth.in_flight, depth.delayed, decision.needed, phases)
        if not done.actions and line == self._line and done.at - self._line_at < _LINE_SECONDS:
            return
        self._line, self._line_at = line, done.at
        estimates = {name: value for name, value in asdict(whole.estimates).items() if value is not None}
        log.info(
            "reconciled",
            visible=depth.visible,
            in_flight=depth.in_flight,
            delayed=depth.delayed,
            needed=decision.needed,
            keep=decision.keep,
            phases=phases,
            estimates={name: round(value, 4) for name, value in estimates.items()},
            reason=decision.reason,
            actions=done.words,
            seconds=round(done.seconds, 3),
        )

    def _record(self, record: Record) -> bool:
        busy = (record.visible, record.in_flight, record.needed, record.booting, record.serving, record.draining)
        counts = (*busy, record.stopped)
        due = record.at - self._recorded_at >= _RECORD_SECONDS and any(busy)
        if not record.actions and counts == self._counts and not due:
            return True
        try:
            self._chronicle.record(record)
        except FacerecError as exc:
            if not self._outage:
                log.warning("chronicle_not_written", reason=str(exc))
            self._outage = True
            return False
        self._outage = False
        self._counts, self._recorded_at = counts, record.at
        return True

    def _tell_cause(self, done: Round) -> None:
        """Log why nothing is decided, or nothing can be launched, once; and when that is over."""
        if done.cause is self._cause:
            return
        if self._cause is not None:
            log.info("hold_over", cause=self._cause, seconds=round(done.at - self._cause_since, 1))
        self._cause, self._cause_since = done.cause, done.at
        if done.cause is Cause.CAPACITY and done.observation is not None:
            log.warning("holding", cause=done.cause, reason=done.observation.no_capacity)
        elif isinstance(done.decision, Hold):
            log.warning("holding", cause=done.cause, reason=done.decision.reason)
