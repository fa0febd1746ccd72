"""Events as they travel: whole, in order, within SQS's limits; and what of them has come."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facerec.celery_sqs.events.batches import BatchTracker, EventBatch, body, packed, parse

HEARTBEAT = {"type": "worker-heartbeat", "hostname": "w", "timestamp": 1.5, "clock": 3, "freq": 5.0}
TASK = {"type": "task-received", "hostname": "w", "timestamp": 1.5, "clock": 3, "uuid": "u", "name": "n"}


def batch(sequence: int, source: str = "s", lost: int = 0) -> EventBatch:
    """A batch without events."""
    return EventBatch(source, sequence, lost, ())


@given(st.lists(st.text(), max_size=20))
def test_round_trip_keeps_every_event_in_order(names: list[str]) -> None:
    """With any file names."""
    events: list[dict[str, Any]] = [TASK | {"args": name} for name in names]
    came = [event for part in packed(events) for event in parse(body("s", 1, 0, part)).events]
    assert came == events


def test_many_events_become_several_messages() -> None:
    """Each within the limit of SQS."""
    parts = [body("s", 1, 0, part) for part in packed([TASK | {"args": "x" * 1000}] * 600)]
    assert len(parts) > 1
    assert all(len(part.encode()) < 256 * 1024 for part in parts)
    assert sum(len(parse(part).events) for part in parts) == 600


def test_value_that_is_no_json_is_shown_and_long_text_is_cut() -> None:
    """A traceback may be of any length, and an argument anything."""
    (part,) = packed([TASK | {"args": {1, 2}, "traceback": "line\n" * 50_000}])
    (event,) = parse(body("s", 1, 0, part)).events
    assert event["args"] == "{1, 2}"
    assert event["traceback"].startswith("line\n")
    assert len(part) < 20_000


def test_event_that_is_too_large_is_left_out() -> None:
    """The others are sent."""
    (part,) = packed([TASK | {"args": ["x"] * 50_000}, TASK])
    assert parse(body("s", 1, 0, part)).events == (TASK,)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no json",
        "[]",
        "5",
        "{}",
        '{"version": 2}',
        '{"version": 1, "source": "s", "sequence": "1", "lost": 0}',
        '{"version": 1, "source": "s", "sequence": 1, "lost": 0, "events": 5}',
    ],
)
def test_parse_refuses_what_is_no_batch(text: str) -> None:
    """Other senders may use the queue."""
    with pytest.raises(ValueError):  # noqa: PT011 - of several kinds
        parse(text)


@pytest.mark.parametrize("change", ["type", "hostname", "timestamp", "clock", "uuid"])
@pytest.mark.parametrize("value", [None, [], {}, float("nan"), float("inf")])
def test_parse_leaves_out_events_that_celery_cannot_use(change: str, value: Any) -> None:
    """Each would be an error in Flower's loop."""
    text = body("s", 1, 0, json.dumps([TASK | {change: value}, HEARTBEAT, 5, HEARTBEAT | {"freq": None}]))
    assert parse(text).events == (HEARTBEAT,)


def test_repeated_batch_is_new_once() -> None:
    """SQS delivers at least once."""
    arrivals = BatchTracker(lambda: 0.0)
    assert [arrivals.is_new(batch(number)) for number in (5, 6, 6, 9, 7, 7, 9)] == [1, 1, 0, 1, 1, 0, 0]
    assert arrivals.is_new(batch(6, source="other"))
    assert arrivals.is_new(batch(3))  # from before the first


def test_missing_batch_is_overdue_once() -> None:
    """After a minute: until then it may be late."""
    now = 0.0
    arrivals = BatchTracker(lambda: now)
    for number in (1, 2, 6, 7):
        arrivals.is_new(batch(number))
    arrivals.is_new(batch(4))
    assert arrivals.overdue() == 0
    now = 61.0
    assert arrivals.overdue() == 2  # the third and the fifth
    assert arrivals.overdue() == 0


def test_silent_sender_is_forgotten() -> None:
    """Names come and go with processes."""
    now = 0.0
    arrivals = BatchTracker(lambda: now)
    arrivals.is_new(batch(7))
    now = 1000.0
    arrivals.overdue()
    assert arrivals.is_new(batch(7))


def test_dropped_events_are_counted_once() -> None:
    """In any order of the messages."""
    arrivals = BatchTracker(lambda: 0.0)
    counts = []
    for number, lost in ((1, 3), (3, 10), (2, 5), (4, 12)):
        arrivals.is_new(batch(number, lost=lost))
        counts.append(arrivals.newly_lost(batch(number, lost=lost)))
    assert counts == [0, 7, 0, 2]
