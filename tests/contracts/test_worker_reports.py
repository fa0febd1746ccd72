"""One suite for everywhere workers report to: memory, DynamoDB as ministack has it, and as moto has it."""

import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import pytest

from facerec.aws.clients import Clients
from facerec.aws.dynamodb.worker_reports import DynamoWorkerReports
from facerec.errors import ConfigurationError, Transient
from facerec.messages import WorkerRecord, WorkerState
from facerec.ports import WorkerReports
from facerec.provision import provisioning
from tests.fakes.worker_reports import READY, InMemoryWorkerReports

ID = READY.instance_id
ORDERED_AT = 1_700_000_020.0625


@dataclass(frozen=True)
class Table:
    """An empty table, and the clients to reach it."""

    clients: Clients
    name: str


@pytest.fixture
def table(ministack_clients: Clients) -> Table:
    """A table of the test's own on the emulator."""
    return empty_table(ministack_clients)


@pytest.fixture(params=["memory", "ministack", "moto"])
def reports(request: pytest.FixtureRequest) -> WorkerReports:
    """Each kind in turn, empty."""
    if request.param == "memory":
        return InMemoryWorkerReports()
    table = empty_table(request.getfixturevalue(f"{request.param}_clients"))
    return DynamoWorkerReports(table.clients, table.name)


def empty_table(clients: Clients) -> Table:
    """A table as `facerec provision` makes it, without the other resources."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    provisioning._table(clients, "FLEET_TABLE", name, ("kind", "item"))
    return Table(clients, name)


def test_records_are_empty_at_first(reports: WorkerReports) -> None:
    """That is no error."""
    assert reports.records() == {}


def test_report_is_read_unchanged(reports: WorkerReports) -> None:
    """Times to the last digit; a later report replaces it whole."""
    busy = replace(READY, state=WorkerState.DRAINING, held=2, idle_since=None, interrupted=True, saturated_seconds=0.0)
    for report in (READY, busy, READY):
        assert reports.report(report) is False
        assert reports.records() == {ID: WorkerRecord(report, None)}


def test_answer_to_a_report_has_the_order(reports: WorkerReports) -> None:
    """Until the order is withdrawn; the time of the first order counts."""
    reports.report(READY)
    reports.order_drain(ID, ORDERED_AT)
    reports.order_drain(ID, ORDERED_AT + 5)
    assert reports.report(READY) is True
    assert reports.records() == {ID: WorkerRecord(READY, ORDERED_AT)}
    reports.cancel_drain(ID)
    assert reports.report(READY) is False
    assert reports.records() == {ID: WorkerRecord(READY, None)}


def test_order_may_come_before_the_first_report(reports: WorkerReports) -> None:
    """For an instance that still boots; the answer to the first report has it."""
    reports.order_drain(ID, ORDERED_AT)
    assert reports.records() == {ID: WorkerRecord(None, ORDERED_AT)}
    assert reports.report(READY) is True


def test_order_outlives_the_worker(reports: WorkerReports) -> None:
    """The worker of a draining instance that is started again must drain, too."""
    reports.report(READY)
    reports.order_drain(ID, ORDERED_AT)
    ended = replace(READY, state=WorkerState.ENDED)
    assert reports.report(ended) is True
    assert reports.records() == {ID: WorkerRecord(ended, ORDERED_AT)}
    assert reports.report(READY) is True


def test_forgotten_instance_is_gone(reports: WorkerReports) -> None:
    """Forgetting twice, or an unknown instance, is no error."""
    reports.forget(ID)
    assert reports.records() == {}
    reports.report(READY)
    reports.forget(ID)
    reports.forget(ID)
    assert reports.records() == {}
    reports.order_drain(ID, ORDERED_AT)
    reports.forget(ID)
    assert reports.report(READY) is False


def test_instances_are_independent(reports: WorkerReports) -> None:
    """Each gets its own orders."""
    own = [replace(READY, instance_id=f"i-{number:017x}", held=number) for number in range(40)]

    def order_and_report(number: int) -> bool:
        if number % 2:
            reports.order_drain(own[number].instance_id, ORDERED_AT)
        return reports.report(own[number])

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(order_and_report, range(40))) == [False, True] * 20
    assert reports.records() == {
        report.instance_id: WorkerRecord(report, ORDERED_AT if number % 2 else None)
        for number, report in enumerate(own)
    }


def test_items_have_a_time_to_live(table: Table) -> None:
    """After every kind of write."""
    reports = DynamoWorkerReports(table.clients, table.name)
    reports.report(READY)
    reports.order_drain("i-2", ORDERED_AT)
    reports.cancel_drain("i-4")
    items = table.clients.dynamodb.scan(TableName=table.name)["Items"]
    assert {item["item"]["S"]: item["expires_at"]["N"] for item in items} == {
        ID: str(int(READY.reported_at) + 86_400),
        "i-2": str(int(ORDERED_AT) + 86_400),
    }


def test_garbled_report_is_not_read_as_none(table: Table) -> None:
    """The worker behind it may hold tasks: the fleet must hold, not replace it."""
    item = {"kind": {"S": "worker"}, "item": {"S": ID}, "report": {"S": '{"instance_id": "i-1"}'}}
    table.clients.dynamodb.put_item(TableName=table.name, Item=item)
    with pytest.raises(Transient, match=ID):
        DynamoWorkerReports(table.clients, table.name).records()


def test_error_of_a_missing_table_says_what_to_do(ministack_clients: Clients) -> None:
    """Before `facerec provision` every call names the remedy."""
    reports = DynamoWorkerReports(ministack_clients, "no-such-table")
    calls: Sequence[Callable[[], object]] = (
        lambda: reports.report(READY),
        reports.records,
        lambda: reports.order_drain(ID, ORDERED_AT),
        lambda: reports.forget(ID),
    )
    for call in calls:
        with pytest.raises(ConfigurationError, match="facerec provision"):
            call()
