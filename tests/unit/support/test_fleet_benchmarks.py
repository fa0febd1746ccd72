"""The benchmarks of the fleet report their failures."""

import json

import pytest

from tests.support.measurements import summaries

RIGHT: summaries.BurstFigures = {
    "answered": 100,
    "wrong": 0,
    "lost": 0,
    "left_visible": 0,
    "left_in_flight": 0,
    "left_responses": 0,
    "max_running": 4,
    "to_first_answer_s": 3.1,
    "to_last_answer_s": 8.0,
    "to_zero_s": 1.7,
}


@pytest.mark.parametrize(
    ("changed", "failures"),
    [
        ({}, []),
        ({"wrong": 1}, ["wrong"]),
        ({"lost": 1}, ["lost"]),
        ({"left_visible": 2}, ["left_visible"]),
        ({"left_in_flight": 1}, ["left_in_flight"]),
        ({"left_responses": 1}, ["left_responses"]),
        ({"max_running": 5}, ["max_running"]),
    ],
)
def test_burst_fails(changed: summaries.BurstFigures, failures: list[str]) -> None:
    """One failed burst of several is enough."""
    summary = summaries.burst_summary([RIGHT, RIGHT | changed], max_instances=4)
    assert summary["amiss"] == failures


def test_burst_without_instances_fails() -> None:
    """Something else must have answered."""
    assert summaries.burst_failures(RIGHT | {"max_running": 0}, max_instances=4) == ["max_running"]


def test_burst_without_answers_is_json() -> None:
    """A figure that was not measured is null, and never better than a measured one."""
    nothing = RIGHT | {"answered": 0, "lost": 100, "to_first_answer_s": None}
    summary = json.loads(json.dumps(summaries.burst_summary([nothing, nothing], max_instances=4), allow_nan=False))
    assert summary["to_first_answer_s"] is None
    assert summary["amiss"] == ["lost", "answered"]
    assert summaries.burst_summary([RIGHT, nothing], max_instances=4)["to_first_answer_s"] is None


def figures(p95: float, cost: float, **worst: float) -> summaries.PolicyFigures:
    """One policy on one trace."""
    return {"p95_s": p95, "cost_per_1000": cost, "over_cap": 0.0, "lost": 0, **worst}


def table(**changed: summaries.PolicyFigures) -> summaries.Table:
    """Ours is the fastest, and as cheap as any."""
    policies = ("naive", "keda", "target-tracking")
    row = {"ours": figures(1, 1), summaries.FROM_ONE: figures(1, 1), **{name: figures(2, 1) for name in policies}}
    return {"steady": row | changed}


@pytest.mark.parametrize(
    ("changed", "failures"),
    [
        ({}, []),
        ({"keda": figures(0.9, 0.9)}, ["dominated_by"]),
        ({"target-tracking": figures(0.9, 0.9)}, ["dominated_by", "from_one dominated_by"]),
        ({"naive": figures(2, 1, lost=1)}, ["lost"]),
        ({"ours": figures(1, 1, over_cap=0.5)}, ["over_cap"]),
    ],
)
def test_comparison_fails(changed: dict[str, summaries.PolicyFigures], failures: list[str]) -> None:
    """It fails on lost requests, an exceeded cap, or another policy that is both faster and cheaper."""
    assert summaries.comparison_failures(summaries.comparison(table(**changed))) == failures


def test_run_at_scale_fails_with_its_reason() -> None:
    """The list names the run and the figure."""
    right = {"lost": 0, "over_cap": 0.0, "p95_s": 51.0}
    assert summaries.scale_failures({"flow": right}) == []
    assert summaries.scale_failures({"flow": right, "burst": right | {"over_cap": 3.0, "lost": 1}}) == [
        "burst: lost",
        "burst: over_cap",
    ]
