"""Prometheus metrics of the rounds, in their own registry.

A value that could not be read is absent: never 0, and never the former value.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from autoscale.policy import ActionKind, Decision, Policy
from autoscale.reconcile_result import Cause, ReconcileResult

_FAILURES = (Cause.LEASE, Cause.QUEUE, Cause.FLEET, "history", *ActionKind)
_ROUND_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_ESTIMATES = {
    "boot_seconds": "Time from a launch to the worker's first report",
    "start_seconds": "The same for a stopped instance that is started",
    "service_seconds": "Time of one busy instance for one task",
    "arrivals_per_second": "Steady flow of tasks",
}


class RoundMetrics:
    """Counts all rounds and shows the latest one."""

    def __init__(self, policy: Policy) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._leader = Gauge("facerec_autoscaler_leader", "1 while this process decides", registry=self.registry)
        self._last = Gauge(
            "facerec_autoscaler_last_round_timestamp_seconds", "When the last round ended", registry=self.registry
        )
        self._seconds = Histogram(
            "facerec_autoscaler_round_seconds", "Length of a round", buckets=_ROUND_BUCKETS, registry=self.registry
        )
        self._actions = Counter(
            "facerec_autoscaler_actions", "Instances acted upon, by action", ["action"], registry=self.registry
        )
        self._holds = Counter(
            "facerec_autoscaler_holds",
            "Rounds that could not decide or launch, by cause",
            ["cause"],
            registry=self.registry,
        )
        self._errors = Counter(
            "facerec_autoscaler_errors", "Readings and actions that failed", ["action"], registry=self.registry
        )
        # All series exist from the start: a rate misses the first event of a new one.
        for counter, labels in ((self._actions, ActionKind), (self._holds, Cause), (self._errors, _FAILURES)):
            for label in labels:
                counter.labels(label)
        self._latest = _Latest(policy.max_instances)
        self.registry.register(self._latest)

    def observe(self, result: ReconcileResult) -> None:
        """Count a round."""
        self._leader.set(result.leading)
        self._last.set(result.at + result.seconds)
        self._seconds.observe(result.seconds)
        if result.cause is not None:
            self._holds.labels(result.cause).inc()
        for action in result.actions:
            if action.problem is None:
                self._actions.labels(action.kind).inc(len(action.numbers))
        for failure in result.failures:
            self._errors.labels(failure).inc()
        self._latest.result = result


class _Latest(Collector):
    """The gauges of the latest round, made when Prometheus asks."""

    def __init__(self, max_instances: int) -> None:
        self._max_instances = max_instances
        self.result: ReconcileResult | None = None

    def collect(self) -> Iterator[GaugeMetricFamily]:
        result = self.result
        yield _gauge("facerec_fleet_max_instances", "Cap on active instances", self._max_instances)
        if result is None:
            return
        depth, phases = result.depth, result.phases
        if depth is not None:
            states = {"visible": depth.visible, "in_flight": depth.in_flight, "delayed": depth.delayed}
            yield _gauges("facerec_backlog_messages", "Tasks in the queues of the workers", "state", states)
            if depth.oldest_age_seconds is not None:
                yield _gauge("facerec_backlog_oldest_seconds", "Age of the oldest task", depth.oldest_age_seconds)
            if depth.dead_letters is not None:
                yield _gauge("facerec_dead_letter_messages", "Tasks in the dead-letter queue", depth.dead_letters)
        if phases is not None:
            counts = {name.value: count for name, count in phases.items()}
            yield _gauges("facerec_fleet_instances", "Instances by phase", "phase", counts)
        if isinstance(result.decision, Decision):
            yield _gauge("facerec_fleet_needed", "Instances that should serve", result.decision.needed)
            yield _gauge("facerec_fleet_keep", "The fewest that are enough for the open tasks", result.decision.keep)
        if result.estimates is not None:
            values = asdict(result.estimates)
            for name, text in _ESTIMATES.items():
                yield _gauge(f"facerec_estimate_{name}", text, values[name])


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)


def _gauges(name: str, text: str, label: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family
