"""One suite for every history: in memory, and in DynamoDB as ministack and moto have it."""

import uuid
from typing import Any

import pytest

from facerec.aws.clients import Clients
from facerec.aws.dynamodb.fleet_history import DynamoFleetHistory
from facerec.ports import FleetHistory
from facerec.provision import provisioning
from tests.fakes.fleet import InMemoryHistory, a_record
from tests.support.logs import capture_logs

NOW = 1_772_600_000.25  # 2026-03-04, 04:53 UTC
DAY = 86_400.0


@pytest.fixture
def table(request: pytest.FixtureRequest) -> str:
    """An empty table on the emulator."""
    clients: Clients = request.getfixturevalue("ministack_clients")
    return provisioning._table(clients, "FLEET_TABLE", f"test-{uuid.uuid4().hex[:12]}", ("kind", "item")).name


@pytest.fixture(params=["memory", "ministack", "moto"])
def history(request: pytest.FixtureRequest) -> FleetHistory:
    """An empty one of each kind."""
    if request.param == "memory":
        return InMemoryHistory()
    clients: Clients = request.getfixturevalue(f"{request.param}_clients")
    name = f"test-{uuid.uuid4().hex[:12]}"
    table = provisioning._table(clients, "FLEET_TABLE", name, ("kind", "item")).name
    return DynamoFleetHistory(clients, table, now=lambda: NOW)


def test_record_is_read_as_it_was_written(history: FleetHistory) -> None:
    """Every number to its last digit, text of any script, and an empty one."""
    record = a_record(NOW - 1 / 3, "3 open; 李 → 2 instances")
    history.record(record)
    assert list(history.records(NOW - 60)) == [record]


def test_history_is_empty_at_first(history: FleetHistory) -> None:
    """That is no error."""
    assert list(history.records(0)) == []


def test_records_are_sorted_and_begin_at_the_moment(history: FleetHistory) -> None:
    """Across midnight; the moment itself is included."""
    times = [NOW - DAY, NOW - 6 * 3600, NOW - 5 * 3600, NOW - 4 * 3600, NOW - 9.5, NOW]
    for at in [times[index] for index in (3, 0, 5, 1, 4, 2)]:
        history.record(a_record(at))
    assert [record.at for record in history.records(times[0] - 1)] == times
    assert [record.at for record in history.records(times[1])] == times[1:]
    assert [record.at for record in history.records(NOW + 1)] == []


def test_latest_record_may_be_days_old(history: FleetHistory) -> None:
    """At zero instances none is written; an empty history has none."""
    assert history.latest(NOW) is None
    assert history.latest(NOW - 7 * DAY - 0.001) is None
    for at in (NOW - 5 * DAY, NOW - 4 * DAY, NOW - 4 * DAY - 60):
        history.record(a_record(at))
    assert history.latest(NOW) == a_record(NOW - 4 * DAY)
    assert history.latest(NOW - 4 * DAY) == a_record(NOW - 4 * DAY)
    assert history.latest(NOW - 4 * DAY - 1) == a_record(NOW - 4 * DAY - 60)
    history.record(a_record(NOW))
    assert history.latest(NOW) == a_record(NOW)


def test_records_expire_after_a_week(ministack_clients: Clients, table: str) -> None:
    """By the table's TTL attribute; expired records are not returned before their deletion either."""
    history = DynamoFleetHistory(ministack_clients, table, now=lambda: NOW)
    history.record(a_record(NOW - 8 * DAY))
    history.record(a_record(NOW))
    items = ministack_clients.dynamodb.scan(TableName=table)["Items"]
    assert sorted(int(item["expires_at"]["N"]) for item in items) == [int(NOW - DAY), int(NOW + 7 * DAY)]
    assert [record.at for record in history.records(0)] == [NOW]
    assert history.latest(NOW - 7.5 * DAY) is None


def test_day_of_several_pages_is_read_whole(ministack_clients: Clients, table: str) -> None:
    """DynamoDB answers with a megabyte at most."""
    history = DynamoFleetHistory(ministack_clients, table, now=lambda: NOW)
    for second in range(30):
        history.record(a_record(NOW - 30 + second, reason="x" * 50_000))
    assert len(history.records(NOW - 60)) == 30


@pytest.mark.parametrize(
    "damage", [{"at": {"N": "1e100"}}, {"needed": {"S": "all"}}, {"needed": {"N": "1.5"}}, {"reason": {"NULL": True}}]
)
def test_damaged_record_is_left_out(ministack_clients: Clients, table: str, damage: Any) -> None:
    """The others are shown; a line in the log names it."""
    history = DynamoFleetHistory(ministack_clients, table, now=lambda: NOW)
    for at in (NOW - 2, NOW - 1):
        history.record(a_record(at))
    first, second = sorted(
        ministack_clients.dynamodb.scan(TableName=table)["Items"], key=lambda item: item["item"]["S"]
    )
    ministack_clients.dynamodb.put_item(TableName=table, Item=first | damage)
    ministack_clients.dynamodb.put_item(TableName=table, Item={"kind": first["kind"], "item": {"S": "~"}})
    with capture_logs() as logs:
        assert len(history.records(NOW - 60)) == 1
        assert history.latest(NOW) == a_record(float(second["at"]["N"]))
    assert [line["event"] for line in logs] == ["record_unreadable"] * 2
