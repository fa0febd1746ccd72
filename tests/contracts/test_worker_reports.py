"""One suite for everywhere workers report to: memory, DynamoDB as ministack has it, and as moto has it."""

import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pytest

from facerec.aws.clients import Clients
from facerec.aws.dynamodb.worker_reports import DynamoWorkerReports
from facerec.errors import ConfigurationError
from facerec.messages import WorkerRecord, WorkerState
from facerec.ports import WorkerReports
from facerec.provision import provisioning
from tests.fakes.worker_reports import READY, InMemoryWorkerReports
from tests.support.logs import capture_logs

ID = READY.instance_id
ORDERED_AT = 1_700_000_020.0625


@dataclass(frozen=True)
class Table:
    """An empty table, and the clients to reach it."""

    clients: Clients
    name: str

    def items(self) -> list[Any]:
        """All items."""
        return list(self.clients.dynamodb.scan(TableName=self.name, ConsistentRead=True)["Items"])


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
    assert reports.records([ID]) == {}


def test_report_is_read_unchanged(reports: WorkerReports) -> None:
    """Times to the last digit; a later report replaces it whole."""
    busy = replace(READY, state=WorkerState.DRAINING, held=2, idle_since=None, interrupted=True, saturated_seconds=0.0)
    for report in (READY, busy, READY):
        assert reports.report(report) is False
        assert reports.records([ID]) == {ID: WorkerRecord(report, None)}


def test_answer_to_a_report_has_the_order(reports: WorkerReports) -> None:
    """Until the order is withdrawn; the time of the first order counts."""
    reports.report(READY)
    reports.order_drain(ID, ORDERED_AT)
    reports.order_drain(ID, ORDERED_AT + 5)
    assert reports.report(READY) is True
    assert reports.records([ID]) == {ID: WorkerRecord(READY, ORDERED_AT)}
    reports.cancel_drain(ID)
    assert reports.report(READY) is False
    assert reports.records([ID]) == {ID: WorkerRecord(READY, None)}


def test_order_may_come_before_the_first_report(reports: WorkerReports) -> None:
    """For an instance that still boots; the answer to the first report has it."""
    reports.order_drain(ID, ORDERED_AT)
    assert reports.records([ID]) == {ID: WorkerRecord(None, ORDERED_AT)}
    assert reports.report(READY) is True


def test_order_outlives_the_worker(reports: WorkerReports) -> None:
    """The worker of a draining instance that is started again must drain, too."""
    reports.report(READY)
    reports.order_drain(ID, ORDERED_AT)
    ended = replace(READY, state=WorkerState.ENDED)
    assert reports.report(ended) is True
    assert reports.records([ID]) == {ID: WorkerRecord(ended, ORDERED_AT)}
    assert reports.report(READY) is True


def test_forgotten_instance_is_gone(reports: WorkerReports) -> None:
    """Forgetting twice, or an unknown instance, is no error."""
    reports.forget(ID)
    assert reports.records([ID]) == {}
    reports.report(READY)
    reports.forget(ID)
    reports.forget(ID)
    assert reports.records([ID]) == {}
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
    ids = [report.instance_id for report in own]
    assert reports.records([*ids, "i-unknown"]) == {
        report.instance_id: WorkerRecord(report, ORDERED_AT if number % 2 else None)
        for number, report in enumerate(own)
    }


def test_items_have_a_time_to_live(table: Table) -> None:
    """After every kind of write."""
    reports = DynamoWorkerReports(table.clients, table.name)
    reports.report(READY)
    reports.order_drain("i-2", ORDERED_AT)
    reports.cancel_drain("i-4")
    assert {item["item"]["S"]: item["expires_at"]["N"] for item in table.items()} == {
        "report": str(int(READY.reported_at) + 86_400),
        "i-2": str(int(ORDERED_AT) + 86_400),
    }


def test_report_lies_under_the_arn_of_its_instance(table: Table) -> None:
    """IAM compares that key with the instance that writes; drain orders lie elsewhere."""
    reports = DynamoWorkerReports(table.clients, table.name)
    reports.report(READY)
    reports.order_drain(ID, ORDERED_AT)
    arn = table.clients.dynamodb.describe_table(TableName=table.name)["Table"]["TableArn"]
    instance = arn.replace(":dynamodb:", ":ec2:").replace(f"table/{table.name}", f"instance/{ID}")
    assert {(item["kind"]["S"], item["item"]["S"]) for item in table.items()} == {(instance, "report"), ("drain", ID)}


@pytest.mark.parametrize(
    "report",
    [{"S": '{"instance_id": "i-1"}'}, {"N": "1"}, {"NULL": True}, {"L": [{"S": "x"}]}, None],
    ids=["garbled", "number", "null", "list", "missing"],
)
def test_unreadable_report_makes_only_its_instance_unreadable(table: Table, report: Any) -> None:
    """The worker behind it may hold tasks, so it is not as if it had never reported; it is logged once."""
    reports = DynamoWorkerReports(table.clients, table.name)
    other = replace(READY, instance_id="i-2")
    for each in (READY, other):
        reports.report(each)
    reports.order_drain(ID, ORDERED_AT)
    for item in table.items():
        if item["kind"]["S"].endswith(ID):
            del item["report"]
            table.clients.dynamodb.put_item(TableName=table.name, Item=item | ({"report": report} if report else {}))
    with capture_logs() as logs:
        for _ in range(2):
            assert reports.records([ID, "i-2"]) == {
                ID: WorkerRecord(None, ORDERED_AT, unreadable=True),
                "i-2": WorkerRecord(other, None),
            }
    assert [line["instance_id"] for line in logs if line["event"] == "report_unreadable"] == [ID]
    reports.report(READY)
    assert reports.records([ID])[ID] == WorkerRecord(READY, ORDERED_AT)


def test_items_of_other_instances_and_former_releases_are_not_read(table: Table) -> None:
    """A drain order beside a report, as former releases kept it, is no order; made-up items cost nothing."""
    former: Any = {"report": {"S": "x"}, "drain_ordered_at": {"N": "1"}}
    for kind, item in [("worker", ID), ("worker", "i-2"), *(("arn:made-up", f"i-{n}") for n in range(20))]:
        table.clients.dynamodb.put_item(TableName=table.name, Item={"kind": {"S": kind}, "item": {"S": item}} | former)
    reports = DynamoWorkerReports(table.clients, table.name)
    assert reports.report(READY) is False
    assert reports.records([ID, "i-2"]) == {ID: WorkerRecord(READY, None)}


def test_damaged_order_is_an_order(table: Table) -> None:
    """Its time is unknown; the worker drains."""
    item: Any = {"kind": {"S": "drain"}, "item": {"S": ID}, "ordered_at": {"S": "noon"}}
    table.clients.dynamodb.put_item(TableName=table.name, Item=item)
    reports = DynamoWorkerReports(table.clients, table.name)
    assert reports.report(READY) is True
    assert reports.records([ID]) == {ID: WorkerRecord(READY, 0.0)}


def test_error_of_a_missing_table_says_what_to_do(ministack_clients: Clients) -> None:
    """Before `facerec provision` every call names the remedy."""
    reports = DynamoWorkerReports(ministack_clients, "no-such-table")
    calls: Sequence[Callable[[], object]] = (
        lambda: reports.report(READY),
        lambda: reports.records([ID]),
        lambda: reports.order_drain(ID, ORDERED_AT),
        lambda: reports.forget(ID),
    )
    for call in calls:
        with pytest.raises(ConfigurationError, match="facerec provision"):
            call()
