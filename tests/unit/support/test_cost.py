"""The formula behind docs/cost.md, checked by hand-made sums."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.measurements.cost import (
    BURST,
    FLEET,
    MEASURED,
    DeviceFrame,
    Functions,
    Half,
    Instances,
    Load,
    Prices,
    crossing,
    device_month_cost,
    device_table,
    frame_cost,
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


def test_frame_of_a_device_is_billed_by_units_of_five_kilobytes() -> None:
    """At one dollar each for messages alone: 11 KB are three; the answer is a publish, its delivery, and its PUBACK."""
    messages = replace(ONLY_TIME, iot_message=1, iot_rule=0)
    assert frame_cost(DeviceFrame(5, faces=False), messages) == pytest.approx(1000)
    assert frame_cost(DeviceFrame(11, faces=True), messages) == pytest.approx(3000)
    assert frame_cost(DeviceFrame(11, faces=True, answered=True), messages) == pytest.approx(6000)
    rules = replace(ONLY_TIME, iot_message=0, iot_rule=1)
    assert frame_cost(DeviceFrame(11, faces=True), rules) == pytest.approx(1000 * 3 * 2 * 3)


def test_frame_without_a_face_is_one_request_of_a_queue() -> None:
    """The rule sends it to the response queue; faces are sent, received and deleted, and so is their result sent."""
    requests = replace(ONLY_REQUESTS, iot_message=0, iot_rule=0)
    assert frame_cost(DeviceFrame(1, faces=False), requests) == pytest.approx(1000)
    assert frame_cost(DeviceFrame(11, faces=True), requests) == pytest.approx(4000)


def test_device_is_billed_for_its_connection_and_its_status() -> None:
    """43 200 minutes in 30 days, with one status a minute, or two."""
    assert device_month_cost(60, Prices(iot_message=1, iot_connection_minute=0)) == pytest.approx(43_200)
    assert device_month_cost(30, Prices(iot_message=1, iot_connection_minute=1)) == pytest.approx(3 * 43_200)


def test_documented_cost_of_a_device_is_that_of_the_formula() -> None:
    """Of its frames and of a month."""
    text = DOCS.read_text(encoding="utf-8")
    assert "\n".join(device_table()) in text
    assert f"**{device_month_cost(60):.3f} a month**" in text
