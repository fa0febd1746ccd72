"""The formula behind docs/cost.md, checked by hand-made sums."""

from pathlib import Path

import pytest

from tests.support.measurements.cost import (
    BURST,
    FLEET,
    MEASURED,
    Functions,
    Half,
    Instances,
    Load,
    Prices,
    crossing,
    functions_cost,
    instance_seconds,
    instances_cost,
    table,
)

DOCS = Path(__file__).parents[3] / "docs" / "cost.md"
HALF = Half(memory_mb=1024, start_seconds=2, alone_seconds=0.1, batched_seconds=0.02)
TIER = Functions(HALF, HALF, faces_kb=45, log_kb=1, idle_receives_an_hour=0)
ONLY_TIME = Prices(
    gb_second=1, invocation=0, sqs_request=0, s3_put=0, s3_get=0, read_unit=0, log_gb=0, instance_hour=1, address_hour=0
)
ONLY_REQUESTS = Prices(
    gb_second=0, invocation=0, sqs_request=1, s3_put=0, s3_get=0, read_unit=0, log_gb=0, instance_hour=0, address_hour=0
)


def test_functions_are_billed_for_their_time_and_memory() -> None:
    """Two halves of 0.1 s with 1 GB each; a full batch takes a fifth of that for each photo."""
    assert functions_cost(Load(3600), TIER, ONLY_TIME) == pytest.approx(1000 * 2 * 0.1)
    assert functions_cost(Load(36_000, 10), TIER, ONLY_TIME) == pytest.approx(1000 * 2 * 0.02)


def test_functions_are_billed_for_their_start_after_a_pause() -> None:
    """Once an hour a photo waits for two starts of 2 s; ten bursts an hour find the environments there."""
    assert functions_cost(Load(1), TIER, ONLY_TIME) == pytest.approx(1000 * 2 * (0.1 + 2))
    # A hundred at once start ten environments of each function.
    assert functions_cost(Load(100, 100), TIER, ONLY_TIME) == pytest.approx(1000 * 2 * (0.02 + 10 * 2 / 100))
    assert functions_cost(Load(1000, 100), TIER, ONLY_TIME) == pytest.approx(1000 * 2 * 0.02)


def test_queues_are_billed_by_call_and_by_64_kilobytes() -> None:
    """Alone: receive and delete twice, send faces and result. Ten faces messages of 45 KB are eight requests."""
    assert functions_cost(Load(3600), TIER, ONLY_REQUESTS) == pytest.approx(1000 * 6)
    in_tens = 1000 * ((1 + 1) + (8 + 1) + 8 + 1) / 10
    assert functions_cost(Load(36_000, 10), TIER, ONLY_REQUESTS) == pytest.approx(in_tens)


def test_waiting_for_nothing_costs_functions_only_the_polling() -> None:
    """An hour with a single photo: the empty receives of both queues."""
    polled = Functions(HALF, HALF, idle_receives_an_hour=1800)
    assert functions_cost(Load(1), polled, ONLY_REQUESTS) == pytest.approx(1000 * (1800 + 6))


def test_instance_is_billed_from_its_boot_to_the_end_of_its_cooldown() -> None:
    """One photo an hour on an instance that does one a second: 60 + 1 + 60 s."""
    fleet = Instances(photos_per_second=1)
    assert instance_seconds(Load(1), fleet) == pytest.approx(121)
    assert instances_cost(Load(1), fleet, ONLY_TIME) == pytest.approx(1000 * 121 / 3600)


def test_burst_takes_as_many_instances_as_clear_it_within_the_target() -> None:
    """100 photos at one a second in 10 s take ten instances."""
    assert instance_seconds(Load(100, 100), Instances(photos_per_second=1)) == pytest.approx(10 * (60 + 10 + 60))


def test_arrivals_within_the_cooldown_keep_the_instances_running() -> None:
    """From then on the fleet costs the same, however many photos come, until one instance is not enough."""
    fleet = Instances(photos_per_second=10)
    assert instance_seconds(Load(60), fleet) == 3600
    assert instance_seconds(Load(3600), fleet) == 3600
    # 10 a second at a utilisation of 0.8 are 1.25 instances.
    assert instance_seconds(Load(36_000), fleet) == 2 * 3600


@pytest.mark.parametrize("at_once", [1, BURST])
def test_functions_are_cheaper_for_few_photos_and_instances_for_many(at_once: int) -> None:
    """On either side of the crossing, with the measured figures."""
    photos = crossing(at_once, MEASURED, FLEET)
    assert photos is not None
    few, many = Load(photos / 2, at_once), Load(photos * 2, at_once)
    assert functions_cost(few, MEASURED) < instances_cost(few, FLEET)
    assert functions_cost(many, MEASURED) > instances_cost(many, FLEET)


@pytest.mark.parametrize("at_once", [1, BURST])
def test_documented_tables_are_those_of_the_formula(at_once: int) -> None:
    """After a change of prices or durations: `python -m benchmarks.cost`."""
    assert "\n".join(table(at_once)) in DOCS.read_text(encoding="utf-8")
