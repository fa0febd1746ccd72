"""What one round of the reconciler saw, decided and did, and how that is logged and recorded."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum

import structlog

from autoscale.observation import Observation, Phase, Unreadable
from autoscale.policy import ActionKind, Decision, Estimates, Hold
from facerec.background import OutageLog
from facerec.errors import FacerecError
from facerec.fleet_records import QueueDepth, RoundRecord
from facerec.ports import FleetHistory

log = structlog.get_logger(__name__)

_LINE_SECONDS = 60.0
"""How often a round without news is logged."""
_RECORD_SECONDS = 10.0
"""How often a round without news is recorded while there is work or an instance."""


def ranges(numbers: Iterable[int]) -> str:
    """Write instance numbers in short: `1-3, 7`."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


class Cause(StrEnum):
    """Why a round held, or could not do all that it wanted."""

    LEASE = "lease"
    QUEUE = "queue"
    FLEET = "fleet"
    CAPACITY = "capacity"
    """Launches wait, because EC2 refused them."""


@dataclass(frozen=True, slots=True)
class Action:
    """One change of the fleet; `numbers` are those of the instances' names."""

    kind: ActionKind
    numbers: tuple[int, ...]
    problem: str | None = None
    """Why it failed, as a whole or in part."""

    def __str__(self) -> str:
        """Describe the action: `launch 1-3`, `stop 2 failed`."""
        return f"{self.kind} {ranges(self.numbers)}" + ("" if self.problem is None else " failed")


@dataclass(frozen=True, slots=True)
class ReconcileResult:
    """One round; what was not known is absent."""

    at: float
    """When it began, in seconds since the epoch."""
    leading: bool
    """Whether this autoscaler held the lease to the end."""
    observation: Observation | None = None
    decision: Decision | Hold | None = None
    """Absent while another autoscaler leads."""
    estimates: Estimates | None = None
    cause: Cause | None = None
    actions: tuple[Action, ...] = ()
    failures: tuple[str, ...] = ()
    """What failed: `lease`, `queue`, `fleet`, `history`, or a kind of action."""
    seconds: float = 0.0
    """Its length."""

    @property
    def depth(self) -> QueueDepth | None:
        """The queue, if it could be read."""
        depth = None if self.observation is None else self.observation.depth
        return None if isinstance(depth, Unreadable) else depth

    @property
    def phases(self) -> Mapping[Phase, int] | None:
        """The number of instances in each phase, if the fleet could be read."""
        fleet = None if self.observation is None else self.observation.fleet
        return None if fleet is None or isinstance(fleet, Unreadable) else fleet.counts

    @property
    def actions_text(self) -> str:
        """The actions in words; empty without any."""
        return "; ".join(map(str, self.actions))

    def record(self) -> RoundRecord | None:
        """Return the history's record of a round in which everything was known."""
        depth, phases, decision, estimates = self.depth, self.phases, self.decision, self.estimates
        if depth is None or phases is None or estimates is None or not isinstance(decision, Decision):
            return None
        return RoundRecord(
            at=self.at,
            visible=depth.visible,
            in_flight=depth.in_flight,
            needed=decision.needed,
            booting=phases[Phase.BOOTING],
            serving=phases[Phase.SERVING],
            draining=phases[Phase.DRAINING] + phases[Phase.DRAINED] + phases[Phase.LOST],
            stopped=phases[Phase.STOPPED],
            arrivals_per_second=estimates.arrivals_per_second,
            service_seconds=estimates.service_seconds,
            boot_seconds=estimates.boot_seconds,
            reason=decision.reason,
            actions=self.actions_text,
        )


class RoundLog:
    """Logs and records rounds that bring news, and others now and then; without a history, it only logs."""

    def __init__(self, history: FleetHistory | None) -> None:
        self._history = history
        self._line: tuple[object, ...] = ()
        self._line_at = 0.0
        self._counts: tuple[int, ...] = ()
        self._recorded_at = 0.0
        self._outage = OutageLog("history")
        self._cause: Cause | None = None
        self._cause_since = 0.0

    def write(self, result: ReconcileResult) -> bool:
        """Log and record a round; returns False if the history could not be written."""
        self._log_cause(result)
        record = result.record()
        if record is None:
            return True
        self._log(result)
        return self._history is None or self._write_history(self._history, record)

    def _log(self, result: ReconcileResult) -> None:
        depth, decision, estimates = result.depth, result.decision, result.estimates
        if depth is None or estimates is None or not isinstance(decision, Decision):
            return
        phases = {name.value: count for name, count in (result.phases or {}).items() if count}
        line = (depth.visible, depth.in_flight, depth.delayed, decision.needed, phases)
        if not result.actions and line == self._line and result.at - self._line_at < _LINE_SECONDS:
            return
        self._line, self._line_at = line, result.at
        log.info(
            "reconciled",
            visible=depth.visible,
            in_flight=depth.in_flight,
            delayed=depth.delayed,
            needed=decision.needed,
            keep=decision.keep,
            phases=phases,
            estimates={name: round(value, 4) for name, value in asdict(estimates).items() if value is not None},
            reason=decision.reason,
            actions=result.actions_text,
            seconds=round(result.seconds, 3),
        )

    def _write_history(self, history: FleetHistory, record: RoundRecord) -> bool:
        busy = (record.visible, record.in_flight, record.needed, record.booting, record.serving, record.draining)
        counts = (*busy, record.stopped)
        due = record.at - self._recorded_at >= _RECORD_SECONDS and any(busy)
        if not record.actions and counts == self._counts and not due:
            return True
        try:
            history.record(record)
        except FacerecError as exc:
            self._outage.failed(exc)
            return False
        self._outage.succeeded()
        self._counts, self._recorded_at = counts, record.at
        return True

    def _log_cause(self, result: ReconcileResult) -> None:
        """Log once why nothing is decided or launched, and once when that has ended."""
        if result.cause is self._cause:
            return
        if self._cause is not None:
            log.info("hold_over", cause=self._cause, seconds=round(result.at - self._cause_since, 1))
        self._cause, self._cause_since = result.cause, result.at
        if result.cause is Cause.CAPACITY and result.observation is not None:
            log.warning("holding", cause=result.cause, reason=result.observation.no_capacity)
        elif isinstance(result.decision, Hold):
            log.warning("holding", cause=result.cause, reason=result.decision.reason)
