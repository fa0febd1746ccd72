"""Workers' reports and drain orders on DynamoDB: items in the fleet's table.

IAM can compare the partition key of an item with the ARN of the instance that writes it, and with nothing shorter. So
the report of an instance has the instance's ARN as partition key, and each worker may write only its own. The drain
orders have a partition that only the autoscaler may write. DynamoDB removes an item a day after its last change, by the
time to live in `expires_at`.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import structlog
from pydantic import TypeAdapter

from facerec.aws.clients import Clients, translated
from facerec.aws.dynamodb import Table, readable
from facerec.errors import Transient
from facerec.messages import DRAIN_ORDERS, WorkerRecord, WorkerReport

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import UniversalAttributeValueTypeDef as Value

log = structlog.get_logger(__name__)

_REPORT_ITEM = "report"
_REPORT: TypeAdapter[WorkerReport] = TypeAdapter(WorkerReport)
_KEPT_SECONDS = 86_400


class DynamoWorkerReports:
    """`WorkerReports` on DynamoDB: a small write and a small read for each report, two reads for all records."""

    def __init__(self, clients: Clients, table: str) -> None:
        self._clients = clients
        self._table = Table(clients, table)
        self._instances = ""
        """The ARNs of the account's instances, up to their ids; empty until it is known."""
        self._unreadable: frozenset[str] = frozenset()

    def report(self, report: WorkerReport) -> bool:
        """Store the report; returns whether there is a drain order."""
        with translated(f"report for instance {report.instance_id}"):
            self._clients.dynamodb.update_item(
                TableName=self._table.name,
                Key=self._report_key(report.instance_id),
                UpdateExpression="SET report = :report, expires_at = :end",
                ExpressionAttributeValues={
                    ":report": {"S": _REPORT.dump_json(report).decode()},
                    ":end": _expires_at(report.reported_at),
                },
            )
            # After the write: the autoscaler reads in the other sequence, so that one of the two sees the other's item.
            return self._table.item(self._order_key(report.instance_id)) is not None

    def records(self, instance_ids: Iterable[str]) -> Mapping[str, WorkerRecord]:
        """Return the report and the drain order of these instances; raises `Transient`.

        A report that cannot be read is logged once, and makes only its own record `unreadable`.
        """
        ids = set(instance_ids)
        if not ids:
            return {}
        with translated("read the workers' reports"):
            orders = {item["item"]["S"]: _ordered_at(item) for item in self._table.items(DRAIN_ORDERS)}
            keys = {self._report_key(name)["kind"]["S"]: name for name in ids}
            items = {
                keys[item["kind"]["S"]]: item for item in self._table.present([self._report_key(name) for name in ids])
            }
        records, unreadable = {}, set()
        for name in ids & (orders.keys() | items.keys()):
            report = None
            if name in items:
                try:
                    report = parse_report(items[name], name)
                except Transient as exc:
                    unreadable.add(name)
                    if name not in self._unreadable:
                        log.warning("report_unreadable", instance_id=name, reason=str(exc))
            records[name] = WorkerRecord(report, orders.get(name), unreadable=name in unreadable)
        self._unreadable = frozenset(unreadable)
        return records

    def order_drain(self, instance_id: str, ordered_at: float) -> None:
        """Store the time of the order, unless there is one already."""
        with translated(f"ask instance {instance_id} to drain"):
            self._clients.dynamodb.update_item(
                TableName=self._table.name,
                Key=self._order_key(instance_id),
                UpdateExpression="SET ordered_at = if_not_exists(ordered_at, :at), expires_at = :end",
                ExpressionAttributeValues={":at": {"N": repr(ordered_at)}, ":end": _expires_at(ordered_at)},
            )

    def cancel_drain(self, instance_id: str) -> None:
        """Delete only the order."""
        with translated(f"cancel the drain of instance {instance_id}"):
            self._table.delete(self._order_key(instance_id))

    def forget(self, instance_id: str) -> None:
        """Delete both items."""
        with translated(f"forget instance {instance_id}"):
            for key in (self._order_key(instance_id), self._report_key(instance_id)):
                self._table.delete(key)

    def _order_key(self, instance_id: str) -> Any:
        return self._table.key(DRAIN_ORDERS, instance_id)

    def _report_key(self, instance_id: str) -> Any:
        if not self._instances:
            # The table's ARN has the partition, the region and the account, which the instances share.
            arn = self._clients.dynamodb.describe_table(TableName=self._table.name)["Table"]["TableArn"]
            _, partition, _, region, account, _ = arn.split(":", 5)
            self._instances = f"arn:{partition}:ec2:{region}:{account}:instance/"
        return self._table.key(self._instances + instance_id, _REPORT_ITEM)


def _expires_at(now: float) -> "Value":
    return {"N": str(int(now) + _KEPT_SECONDS)}


def _ordered_at(item: Any) -> float:
    """Return the time of an order; one that cannot be read was given long ago."""
    try:
        with readable(item):
            return float(item["ordered_at"]["N"])
    except Transient:
        return 0.0


def parse_report(item: Any, instance_id: str) -> WorkerReport:
    """Read the item of an instance's report; raises `Transient` if a field has another type or exceeds its bounds."""
    with readable(item):
        # Strict: neither text nor a truth value is a number.
        report = _REPORT.validate_json(item["report"]["S"], strict=True)
        if report.instance_id != instance_id:
            raise ValueError("it names another instance")
    return report
