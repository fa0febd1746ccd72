"""Workers' reports and drain orders on DynamoDB: the items of kind `worker` in the fleet's table.

The item of an instance holds its worker's `report` and the time of a drain order, `drain_ordered_at`; either may be
missing. DynamoDB removes an item a day after its last change, by the time to live in `expires_at`.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from facerec.aws.clients import Clients, translated
from facerec.aws.dynamodb import Table
from facerec.errors import Transient
from facerec.messages import WorkerRecord, WorkerReport

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import UniversalAttributeValueTypeDef as Value

_KIND = "worker"
_REPORT: TypeAdapter[WorkerReport] = TypeAdapter(WorkerReport)
_KEPT_SECONDS = 86_400


class DynamoWorkerReports:
    """`WorkerReports` on DynamoDB: one write of 300 bytes stores a report and returns the drain order."""

    def __init__(self, clients: Clients, table: str) -> None:
        self._clients = clients
        self._table = Table(clients, table)

    def report(self, report: WorkerReport) -> bool:
        """Store the report; returns whether there is a drain order."""
        with translated(f"report for instance {report.instance_id}"):
            reply = self._clients.dynamodb.update_item(
                TableName=self._table.name,
                Key=self._table.key(_KIND, report.instance_id),
                UpdateExpression="SET report = :report, expires_at = :end",
                ExpressionAttributeValues={
                    ":report": {"S": _REPORT.dump_json(report).decode()},
                    ":end": _expires_at(report.reported_at),
                },
                ReturnValues="ALL_NEW",
            )
        return "drain_ordered_at" in reply["Attributes"]

    def records(self) -> Mapping[str, WorkerRecord]:
        """Return the report and the drain order of every instance that has one; raises `Transient`."""
        with translated("read the workers' reports"):
            items = list(self._table.items(_KIND))
        return {item["item"]["S"]: _record(item) for item in items if "report" in item or "drain_ordered_at" in item}

    def order_drain(self, instance_id: str, ordered_at: float) -> None:
        """Store the time of the order, unless there is one already."""
        with translated(f"ask instance {instance_id} to drain"):
            self._clients.dynamodb.update_item(
                TableName=self._table.name,
                Key=self._table.key(_KIND, instance_id),
                UpdateExpression="SET drain_ordered_at = if_not_exists(drain_ordered_at, :at), expires_at = :end",
                ExpressionAttributeValues={":at": {"N": repr(ordered_at)}, ":end": _expires_at(ordered_at)},
            )

    def cancel_drain(self, instance_id: str) -> None:
        """Remove only the order."""
        with translated(f"cancel the drain of instance {instance_id}"):
            try:
                self._clients.dynamodb.update_item(
                    TableName=self._table.name,
                    Key=self._table.key(_KIND, instance_id),
                    UpdateExpression="REMOVE drain_ordered_at",
                    # Without it a missing item would be created, without a time to live.
                    ConditionExpression="attribute_exists(drain_ordered_at)",
                )
            except self._clients.dynamodb.exceptions.ConditionalCheckFailedException:
                return

    def forget(self, instance_id: str) -> None:
        """Delete the item."""
        with translated(f"forget instance {instance_id}"):
            self._clients.dynamodb.delete_item(TableName=self._table.name, Key=self._table.key(_KIND, instance_id))


def _expires_at(now: float) -> "Value":
    return {"N": str(int(now) + _KEPT_SECONDS)}


def _record(item: Mapping[str, Any]) -> WorkerRecord:
    report = None
    if "report" in item:
        try:
            report = _REPORT.validate_json(item["report"]["S"])
        except ValidationError as exc:
            # This worker may hold tasks, so it must not appear as one that has never reported.
            raise Transient(f"the report of instance {item['item']['S']} cannot be read: {exc}") from exc
    ordered_at = item.get("drain_ordered_at")
    return WorkerRecord(report, None if ordered_at is None else float(ordered_at["N"]))
