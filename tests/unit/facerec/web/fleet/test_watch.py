"""What a viewer of the fleet gets."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from facerec.errors import QueueMissing, Transient
from facerec.fleet_records import QueueDepth, RoundRecord
from facerec.web.fleet.traffic import Traffic
from facerec.web.fleet.watch import RANGES, FleetWatch
from facerec.web.metrics import WebMetrics
from tests.fakes.clock import Clock
from tests.fakes.fleet import InMemoryBacklog, InMemoryHistory, a_record


class Fleet:
    """A watch on fakes."""

    def __init__(self) -> None:
        self.clock = Clock(1_772_600_000.0)
        self.backlog = InMemoryBacklog(3, 2)
        self.history = InMemoryHistory()
        self.traffic = Traffic(WebMetrics().upload_totals, now=self.clock)
        self.watch = FleetWatch(
            read_depth=self.backlog.depth, history=self.history, traffic=self.traffic, now=self.clock
        )


@pytest.fixture
def fleet() -> Fleet:
    """An empty history, and five tasks."""
    return Fleet()


def test_present_of_a_system_without_an_autoscaler(fleet: Fleet) -> None:
    """The queue is read itself; nothing is known of instances."""
    now = fleet.watch.now()
    assert (now.queue, now.record, now.fleet, now.traffic) == (QueueDepth(3, 2), None, None, None)
    fleet.clock.now += 5
    fleet.traffic.sample()
    now = fleet.watch.now()
    assert now.traffic is not None
    drawn = fleet.watch.series(RANGES["15m"])
    assert drawn.queue["visible"] == [3, 3]
    assert (drawn.instances["at"], drawn.problem) == ([], None)
    assert fleet.watch.decisions(RANGES["15m"]) == ()


def test_record_tells_the_present_until_the_autoscaler_is_silent(fleet: Fleet) -> None:
    """An idle fleet stays as it is."""
    record = a_record(fleet.clock() - 1, serving=2)
    fleet.history.record(record)
    assert fleet.watch.now().fleet == record
    fleet.clock.now += 60
    now = fleet.watch.now()
    assert (now.record, now.fleet) == (record, None)
    idle = replace(record, at=fleet.clock(), visible=0, in_flight=0, needed=0, serving=0)
    fleet.history.record(idle)
    fleet.clock.now += 86_400
    assert fleet.watch.now().fleet == idle


def test_new_records_move_every_series(fleet: Fleet) -> None:
    """A viewer sees them two seconds later, whatever the range."""
    for name in RANGES:
        fleet.watch.series(RANGES[name])
    fleet.history.record(replace(a_record(fleet.clock(), needed=9), actions="launch 1-9"))
    fleet.clock.now += 2
    for name, seconds in RANGES.items():
        assert fleet.watch.series(seconds).instances["needed"] == [9, 9], name
        assert [record.actions for record in fleet.watch.decisions(seconds)] == ["launch 1-9"], name


def test_viewers_share_what_is_read(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many windows cost as much as one; only what is new is read again."""
    asked: list[float] = []
    records = fleet.history.records

    def watched(since: float) -> Sequence[RoundRecord]:
        asked.append(since)
        return records(since)

    monkeypatch.setattr(fleet.history, "records", watched)
    record = a_record(fleet.clock() - 100)
    fleet.history.record(record)
    for _ in range(3):
        fleet.watch.series(RANGES["1h"])
    fleet.clock.now += 3
    fleet.watch.series(RANGES["1h"])
    assert asked == [fleet.clock() - 3 - RANGES["1h"], record.at]


def test_unreadable_source_leaves_the_others_visible(fleet: Fleet) -> None:
    """With the reason of each."""
    fleet.history.record(a_record(fleet.clock()))
    fleet.backlog.outage = QueueMissing("the-queue")
    now = fleet.watch.now()
    assert isinstance(now.queue, str)
    assert "the-queue" in now.queue
    assert now.fleet is not None
    fleet.backlog.outage, fleet.history.outage = None, Transient("no table today")
    fleet.clock.now += 3
    now, drawn = fleet.watch.now(), fleet.watch.series(RANGES["1h"])
    assert (now.queue, now.record, now.fleet) == (QueueDepth(3, 2), "no table today", None)
    assert (drawn.problem, drawn.queue["visible"]) == ("no table today", [3])
    with pytest.raises(Transient):
        fleet.watch.decisions(RANGES["1h"])
    fleet.history.outage = None
    fleet.clock.now += 3
    assert fleet.watch.series(RANGES["1h"]).problem is None
