"""What rounds leave in the log and in the history."""

import itertools

from structlog.typing import EventDict

from autoscale.reconciler import Reconciler
from facerec.errors import Transient
from tests.support.fleet_world import FleetWorld, events, run_rounds


def test_round_log_writes_one_line_for_news(world: FleetWorld, reconciler: Reconciler, logs: list[EventDict]) -> None:
    """Without news it writes one line a minute."""
    run_rounds(world, reconciler, 119)
    assert len(events(logs, "reconciled")) == 2
    logs.clear()
    world.queue(5)
    reconciler.round()
    (line,) = events(logs, "reconciled")
    assert line["visible"] == 5
    assert line["needed"] == 1
    assert line["actions"] == "launch 1"
    assert line["estimates"]["service_seconds"] == 1
    assert line["reason"].startswith("5 open")
    assert line["phases"] == {}
    logs.clear()
    reconciler.round()
    (line,) = events(logs, "reconciled")
    assert line["phases"] == {"booting": 1}


def test_history_records_news(world: FleetWorld, reconciler: Reconciler) -> None:
    """It records every change and action, a round every ten seconds while anything runs, and nothing at zero."""
    run_rounds(world, reconciler, 60)
    assert len(world.history.kept) == 1
    world.queue(5)
    run_rounds(world, reconciler, 31)
    recorded = world.history.kept[1:]
    assert [record.actions for record in recorded if record.actions] == ["launch 1"]
    assert [(record.booting, record.serving) for record in recorded[1:]] == [(1, 0), (0, 1), (0, 1), (0, 1)]
    assert all(after.at - before.at <= 10 for before, after in itertools.pairwise(recorded))
    assert recorded[0].visible == 5
    assert recorded[0].needed == 1


def test_history_failure_fails_nothing_else(world: FleetWorld, reconciler: Reconciler, logs: list[EventDict]) -> None:
    """It is logged once, and the record is tried again."""
    world.failing["record"] = Transient("no table")
    world.queue(5)
    done = run_rounds(world, reconciler, 3)
    assert world.orders == ["launch 1"]
    assert all(result.failures == ("history",) for result in done)
    assert len(events(logs, "history_unreachable")) == 1
    del world.failing["record"]
    run_rounds(world, reconciler, 1)
    assert world.history.kept[-1].booting == 1
