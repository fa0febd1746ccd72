"""Whatever lies in the item of a report: it is read within its bounds, or it is unreadable."""

import json
import math
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscale.decider import Decider, Priors
from autoscale.observation import FleetByPhase, Instance, Phase, Power, Reading
from autoscale.policy import Decision, Policy
from facerec.aws.dynamodb.worker_reports import parse_report
from facerec.errors import Transient
from facerec.fleet_records import QueueDepth
from facerec.messages import WorkerReport
from tests.fakes.worker_reports import READY

FIELDS = asdict(READY)
NUMBERS = [name for name, value in FIELDS.items() if isinstance(value, int | float) and name != "interrupted"]


def item(**changes: Any) -> Any:
    """The item of a report with some fields changed; `...` leaves a field out."""
    fields = {name: value for name, value in (FIELDS | changes).items() if value is not ...}
    return {"kind": {"S": "arn"}, "item": {"S": "report"}, "report": {"S": json.dumps(fields)}}


def parsed(found: Any) -> WorkerReport | None:
    """The report, or None if it cannot be read."""
    try:
        return parse_report(found, READY.instance_id)
    except Transient:
        return None


def test_report_is_read_to_the_last_digit() -> None:
    """Fields that a later release adds are ignored."""
    assert parsed(item(a_later_field=[1])) == READY


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize(
    "value", [-1, -0.5, math.nan, math.inf, -math.inf, True, "1", [1], {"N": "1"}, 1e12 + 0.5, 10**13, 10**400, ...]
)
def test_number_out_of_its_bounds_is_unreadable(name: str, value: Any) -> None:
    """Also one of another type, or none: what is computed from a report stays finite."""
    assert parsed(item(**{name: value})) is None


@pytest.mark.parametrize(
    "changes",
    [{"instance_id": "i-2"}, {"instance_id": 1}, {"state": "asleep"}, {"state": None}, {"interrupted": "yes"}],
    ids=str,
)
def test_report_of_another_instance_or_form_is_unreadable(changes: dict[str, Any]) -> None:
    """A report names the instance under whose key it lies."""
    assert parsed(item(**changes)) is None


NUMBER = st.decimals(allow_nan=False, allow_infinity=False).map(str)
ATTRIBUTES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.builds(lambda value: {"S": value}, st.text()),
        st.builds(lambda value: {"N": value}, NUMBER),
        st.builds(lambda value: {"BOOL": value}, st.booleans()),
        st.just({"NULL": True}),
        st.builds(lambda value: {"B": value}, st.binary()),
        st.builds(lambda value: {"SS": value}, st.lists(st.text(), min_size=1, unique=True)),
    ),
    lambda inner: st.one_of(
        st.builds(lambda value: {"L": value}, st.lists(inner, max_size=3)),
        st.builds(lambda value: {"M": value}, st.dictionaries(st.text(), inner, max_size=3)),
    ),
    max_leaves=5,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
CHANGED = st.dictionaries(st.sampled_from(sorted(FIELDS)), JSON | st.floats(0, 1e11) | st.integers(0, 10**12))
REPORT_ITEMS = st.one_of(
    st.dictionaries(st.sampled_from(["report", "kind", "item", "expires_at"]), ATTRIBUTES),
    JSON.map(lambda value: {"report": {"S": json.dumps(value)}}),
    CHANGED.map(lambda changes: item(**changes)),
)


@given(found=st.lists(REPORT_ITEMS, min_size=1, max_size=4), backlog=st.integers(0, 10_000))
def test_no_item_stops_or_enlarges_a_decision(found: list[Any], backlog: int) -> None:
    """Rounds go on whatever one worker writes, the cap holds, and no other worker is ended."""
    decider = Decider(Policy(), Priors())
    now = 1_700_000_000.0
    for second, each in enumerate(found * 4):
        report = parsed(each)
        honest = replace(READY, instance_id="i-2", reported_at=now + second, held=2, idle_since=None)
        fleet = (
            Instance(1, "i-1", Power.RUNNING, now - 100, report, report_unreadable=report is None),
            Instance(2, "i-2", Power.RUNNING, now - 100, honest),
        )
        observation = decider.observe(Reading(QueueDepth(backlog, 2), fleet), now + second)
        decision = decider.decide(observation, now + second)
        assert isinstance(decision, Decision)
        assert len(decision.launch) <= 13
        assert "i-2" not in decision.drain + decision.stop + decision.terminate
        assert isinstance(observation.fleet, FleetByPhase)
        assert fleet[1] in observation.fleet[Phase.SERVING]
