"""One suite for every chronicle: in memory, and in DynamoDB as ministack and moto have it."""

import uuid

import pytest

from autoscale.aws.history import DynamoHistory
from autoscale.ports import History
from facerec.aws.clients import Clients
from facerec.provision import provisioning
from tests.fakes.fleet import FakeHistory, a_record

NOW = 1_772_600_000.25  # 2026-03-04, 04:53 UTC
DAY = 86_400.0


@pytest.fixture
def table(request: pytest.FixtureRequest) -> str:
    """An empty table on the emulator."""
    clients: Clients = request.getfixturevalue("ministack_clients")
    return provisioning._table(clients, "FLEET_TABLE", f"test-{uuid.uuid4().hex[:12]}", ("kind", "item")).name


@pytest.fixture(params=["memory", "ministack", "moto"])
def chronicle(request: pytest.FixtureRequest) -> History:
    """An empty one of each kind."""
    if request.param == "memory":
        return FakeHistory()
    clients: Clients = request.getfixturevalue(f"{request.param}_clients")
    name = f"test-{uuid.uuid4().hex[:12]}"
    table = provisioning._table(clients, "FLEET_TABLE", name, ("kind", "item")).name
    return DynamoHistory(clients, table, now=lambda: NOW)


def test_a_record_comes_back_as_it_was(chronicle: History) -> None:
    """Every number to its last digit, text of any script, and an empty one."""
    record = a_record(NOW - 1 / 3, "3 open; 李 → 2 instances")
    chronicle.record(record)
    assert list(chronicle.records(NOW - 60)) == [record]


def test_there_is_nothing_at_first(chronicle: History) -> None:
    """And that is no error."""
    assert list(chronicle.records(0)) == []


def test_records_come_in_order_from_that_moment_on(chronicle: History) -> None:
    """Across midnight, and the moment itself is included."""
    times = [NOW - DAY, NOW - 6 * 3600, NOW - 5 * 3600, NOW - 4 * 3600, NOW - 9.5, NOW]
    for at in [times[index] for index in (3, 0, 5, 1, 4, 2)]:
        chronicle.record(a_record(at))
    assert [one.at for one in chronicle.records(times[0] - 1)] == times
    assert [one.at for one in chronicle.records(times[1])] == times[1:]
    assert [one.at for one in chronicle.records(NOW + 1)] == []


def test_records_expire_after_a_week(ministack_clients: Clients, table: str) -> None:
    """By the attribute that provisioning names to DynamoDB; what has expired is not told, even before it is removed."""
    chronicle = DynamoHistory(ministack_clients, table, now=lambda: NOW)
    chronicle.record(a_record(NOW - 8 * DAY))
    chronicle.record(a_record(NOW))
    items = ministack_clients.dynamodb.scan(TableName=table)["Items"]
    assert sorted(int(item["expires_at"]["N"]) for item in items) == [int(NOW - DAY), int(NOW + 7 * DAY)]
    assert [one.at for one in chronicle.records(0)] == [NOW]


def test_a_day_of_more_than_one_page_is_read_whole(ministack_clients: Clients, table: str) -> None:
    """DynamoDB answers with a megabyte at most; long reasons fill it quickly."""
    chronicle = DynamoHistory(ministack_clients, table, now=lambda: NOW)
    for second in range(30):
        chronicle.record(a_record(NOW - 30 + second, reason="x" * 50_000))
    assert len(chronicle.records(NOW - 60)) == 30
