"""What Prometheus sees of the rounds."""

import pytest
from prometheus_client import CollectorRegistry

from autoscale.metrics import RoundMetrics
from autoscale.observation import FleetByPhase, Instance, Observation, Power, Unreadable
from autoscale.policy import ActionKind, Decision, Estimates, Hold, Policy
from autoscale.reconcile_result import Action, Cause, ReconcileResult
from facerec.fleet_records import QueueDepth
from facerec.observability.metrics import serve_metrics

NOW = 1_000_000.0
EMPTY_FLEET = FleetByPhase.of((), Policy().limits, NOW)
ESTIMATES = Estimates(60, 30, 0.1, 2.5)


def value(metrics: RoundMetrics, name: str, **labels: str) -> float | None:
    """A sample, or nothing where there is none."""
    return metrics.registry.get_sample_value(name, labels)


@pytest.fixture
def metrics() -> RoundMetrics:
    """Before the first round."""
    return RoundMetrics(Policy())


def test_metrics_of_a_round_with_actions(metrics: RoundMetrics) -> None:
    """Gauges of the reading and counts of the actions."""
    fleet = (Instance(1, "i-1", Power.PENDING, NOW), Instance(2, "i-2", Power.STOPPED, NOW))
    metrics.observe(
        ReconcileResult(
            NOW,
            leading=True,
            observation=Observation(QueueDepth(7, 3, 1, 12.5, 2), FleetByPhase.of(fleet, Policy().limits, NOW)),
            decision=Decision(needed=4, keep=2, reason="7 open"),
            estimates=ESTIMATES,
            actions=(Action(ActionKind.LAUNCH, (3, 4)), Action(ActionKind.DRAIN, (1,), "no answer")),
            failures=("drain",),
            seconds=0.2,
        )
    )
    assert value(metrics, "facerec_backlog_messages", state="visible") == 7
    assert value(metrics, "facerec_backlog_messages", state="in_flight") == 3
    assert value(metrics, "facerec_backlog_messages", state="delayed") == 1
    assert value(metrics, "facerec_backlog_oldest_seconds") == 12.5
    assert value(metrics, "facerec_dead_letter_messages") == 2
    assert value(metrics, "facerec_fleet_instances", phase="booting") == 1
    assert value(metrics, "facerec_fleet_instances", phase="stopped") == 1
    assert value(metrics, "facerec_fleet_instances", phase="serving") == 0
    assert value(metrics, "facerec_fleet_needed") == 4
    assert value(metrics, "facerec_fleet_keep") == 2
    assert value(metrics, "facerec_fleet_max_instances") == 15
    assert value(metrics, "facerec_estimate_boot_seconds") == 60
    assert value(metrics, "facerec_estimate_arrivals_per_second") == 2.5
    assert value(metrics, "facerec_autoscaler_leader") == 1
    assert value(metrics, "facerec_autoscaler_last_round_timestamp_seconds") == NOW + 0.2
    assert value(metrics, "facerec_autoscaler_actions_total", action="launch") == 2
    assert value(metrics, "facerec_autoscaler_actions_total", action="drain") == 0
    assert value(metrics, "facerec_autoscaler_errors_total", action="drain") == 1
    assert value(metrics, "facerec_autoscaler_round_seconds_count") == 1


def test_metrics_omit_unreadable_values(metrics: RoundMetrics) -> None:
    """Neither 0 nor the former value: an outage must not look like an empty queue."""
    seen = ReconcileResult(
        NOW, leading=True, observation=Observation(QueueDepth(7, 3), EMPTY_FLEET), decision=Decision(1, 1, "7 open")
    )
    metrics.observe(seen)
    assert value(metrics, "facerec_fleet_instances", phase="serving") == 0
    unread = Observation(Unreadable("no answer"), Unreadable("no answer"))
    metrics.observe(
        ReconcileResult(NOW, leading=True, observation=unread, decision=Hold("no answer"), cause=Cause.QUEUE)
    )
    assert value(metrics, "facerec_backlog_messages", state="visible") is None
    assert value(metrics, "facerec_backlog_oldest_seconds") is None
    assert value(metrics, "facerec_fleet_instances", phase="serving") is None
    assert value(metrics, "facerec_fleet_needed") is None
    assert value(metrics, "facerec_autoscaler_holds_total", cause="queue") == 1


def test_metrics_of_a_waiting_autoscaler_omit_the_fleet(metrics: RoundMetrics) -> None:
    """Two autoscalers are scraped; only the active one shows the fleet."""
    metrics.observe(ReconcileResult(NOW, leading=False))
    assert value(metrics, "facerec_autoscaler_leader") == 0
    assert value(metrics, "facerec_fleet_instances", phase="serving") is None


def test_metrics_have_every_counter_from_the_start(metrics: RoundMetrics) -> None:
    """A rate misses the first event of a new series."""
    for kind in ActionKind:
        assert value(metrics, "facerec_autoscaler_actions_total", action=kind) == 0
    for cause in Cause:
        assert value(metrics, "facerec_autoscaler_holds_total", cause=cause) == 0
    for failure in ("lease", "queue", "fleet", "history", *ActionKind):
        assert value(metrics, "facerec_autoscaler_errors_total", action=failure) == 0


def test_metrics_port_minus_one_starts_no_server() -> None:
    """The setting -1 switches it off."""
    with serve_metrics(CollectorRegistry(), "127.0.0.1", -1, group="autoscale") as address:
        assert address is None
