"""Records as points of a chart."""

from collections.abc import Iterable
from dataclasses import replace

from facerec.fleet_records import QueueDepth, RoundRecord
from facerec.web.fleet.series import BUCKETS, QUEUE, RecordSeries, columns, with_readings
from tests.fakes.fleet import a_record

NOW = 1_772_600_000.0
IDLE = replace(a_record(0), visible=0, in_flight=0, needed=0, serving=0)


def series(records: Iterable[RoundRecord], seconds: float = 900, before: RoundRecord | None = None) -> RecordSeries:
    """The series of these records."""
    made = RecordSeries(seconds, before)
    made.add(records)
    made.drop_until(NOW - seconds)
    return made


def test_value_holds_until_the_next_record_and_until_now() -> None:
    """As steps: the last one is drawn up to the present."""
    points = series([a_record(NOW - 20, visible=7), a_record(NOW - 10, visible=3)]).points(NOW)
    assert [(at - NOW, counts and counts["visible"]) for at, counts in points] == [(-20, 7), (-10, 3), (0, 3)]


def test_silence_of_the_autoscaler_is_a_gap_and_an_idle_fleet_is_none() -> None:
    """Work is recorded every ten seconds, and nothing is recorded at zero."""
    busy, idle = a_record(NOW - 600, visible=7), replace(IDLE, at=NOW - 300)
    points = series([busy, idle]).points(NOW)
    assert [(at - NOW, counts and counts["visible"]) for at, counts in points] == [
        (-600, 7),
        (-570, None),
        (-300, 0),
        (0, 0),
    ]


def test_idle_fleet_of_days_ago_still_shows_its_warm_pool() -> None:
    """From the beginning of the chart, and then until there is a record."""
    old = replace(IDLE, at=NOW - 90_000, stopped=4)
    assert [(at - NOW, counts and counts["stopped"]) for at, counts in series([], before=old).points(NOW)] == [
        (-900, 4),
        (0, 4),
    ]
    lost = replace(a_record(NOW - 90_000), visible=9)
    assert series([], before=lost).points(NOW) == []


def test_week_of_records_keeps_its_peaks_in_600_points() -> None:
    """A burst of ten seconds is still seen."""
    week = 7 * 86_400.0
    records = [a_record(NOW - week + 10 * n, visible=1, serving=1) for n in range(int(week / 10))]
    records[30_000] = replace(records[30_000], visible=500, needed=15)
    records[30_001] = replace(records[30_001], serving=15)
    made = series(records, week)
    points = made.points(NOW)
    assert BUCKETS <= len(points) <= 600
    drawn = columns(points, ("visible", "serving", "needed"))
    for name, peak in (("visible", 500), ("serving", 15), ("needed", 15)):
        assert sorted(value for value in drawn[name] if value is not None)[-2:] == [1, peak]
    assert drawn["at"] == sorted(drawn["at"], key=lambda at: at or 0)


def test_records_are_added_once_and_forgotten_in_time() -> None:
    """A reader asks again from the last one on; what leaves the chart is what held before it."""
    records = [a_record(NOW - 100 + n, visible=n) for n in range(100)]
    made = series(records[:60])
    made.add(records[59:])
    assert made.points(NOW) == series(records).points(NOW)
    assert made.latest == records[-1]
    made.drop_until(NOW + 10_000)
    assert made.points(NOW + 10_000) == []


def test_decisions_are_the_last_that_changed_the_fleet() -> None:
    """At most 15, the newest first, none that is older than the series."""
    acted = [replace(a_record(NOW - 880 + n), actions=f"launch {n}") for n in range(60)]
    made = series([*acted, a_record(NOW)])
    assert [record.actions for record in made.decisions][:2] == ["launch 59", "launch 58"]
    assert len(made.decisions) == 15
    made.drop_until(NOW - 822)
    assert [record.actions for record in made.decisions] == ["launch 59", "launch 58"]


def test_readings_of_the_queue_go_on_where_no_autoscaler_records() -> None:
    """Also after an idle fleet; what no viewer read is a gap, and records come first."""
    idle = replace(IDLE, at=NOW - 800)
    points = series([idle]).points(NOW)
    readings = [(NOW - 790, QueueDepth(9, 9)), (NOW - 200, QueueDepth(5, 1)), (NOW - 100, QueueDepth(0, 0))]
    drawn = columns(with_readings(points, readings, idle, 900, NOW), QUEUE)
    assert [at - NOW for at in drawn["at"] if at is not None] == [-800, -200, -170, -100]
    assert drawn["visible"] == [0, 5, None, 0]
    busy = a_record(NOW - 5)
    points = series([busy]).points(NOW)
    assert with_readings(points, [(NOW - 2, QueueDepth(9, 9))], busy, 900, NOW) == points


def test_close_readings_are_thinned_to_the_highest() -> None:
    """An hour of readings every two seconds is no more points than there are pixels."""
    readings = [(NOW - 3600 + 2 * n, QueueDepth(n % 8, 0)) for n in range(1800)]
    drawn = columns(with_readings([], readings, None, 3600, NOW), QUEUE)
    assert len(drawn["at"]) <= BUCKETS + 1
    assert max(value or 0 for value in drawn["visible"]) == 7
