"""The benchmark of the events' cost passes or fails by measured pairs of turns."""

from typing import Any

import pytest

from tests.support.measurements.summaries import Turn, events_cost

_CHEAP_MS = 0.1


def turn(cpu_ms: float, sends: float) -> Turn:
    """A turn whose worker took so much for each task."""
    return Turn(cpu_ms, cpu_ms / 5, 1.0, sends)


def summary(
    *on_ms: float, off_ms: float = 50.0, alone: float = _CHEAP_MS, on: float = 0.1, off: float = 0.0
) -> dict[str, Any]:
    """The summary of pairs with such turns."""
    return events_cost([turn(off_ms, off) for _ in on_ms], [turn(ms, on) for ms in on_ms], alone)


@pytest.mark.parametrize(
    ("on_ms", "passed"),
    [
        ((50, 51, 50, 51), True),
        ((49, 50, 60, 70), True),  # the machine did other things in two of four turns
        ((60, 60, 60, 60), False),
        ((50, 60, 61, 62, 63, 64), False),  # one cheap pair is no proof
        ((60,), False),
        ((51,), True),
    ],
)
def test_measured_pairs_decide(on_ms: tuple[float, ...], *, passed: bool) -> None:
    """Events cost too much if nearly every pair is slower with them, even if they cost little alone."""
    assert summary(*on_ms)["passed"] is passed


def test_differences_are_those_of_the_pairs() -> None:
    """They are the median, and what three of four pairs exceed."""
    found = summary(50, 55, 60, 65, 70)
    assert (found["difference_percent"], found["difference_lower_quartile_percent"]) == (20.0, 10.0)


def test_events_that_cost_too_much_alone_fail() -> None:
    """The limit is 5 % of the worker's time."""
    assert summary(50, 50, alone=2.4)["passed"] is True
    assert summary(50, 50, alone=2.5)["passed"] is False


@pytest.mark.parametrize("sends", [{"on": 0.0}, {"off": 0.01}], ids=["none sent", "sent where they are off"])
def test_turns_that_do_not_differ_fail(sends: dict[str, float]) -> None:
    """The setting switched nothing, so the turns prove nothing."""
    assert summary(50, 50, **sends)["passed"] is False
