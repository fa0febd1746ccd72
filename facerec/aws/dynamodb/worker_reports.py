"""Where workers report and learn that they shall drain: the items of kind `worker` in the fleet's table.

The item of an instance holds its worker's `report` and the time of an order to drain, `drain_ordered_at`; either may
be absent. What nobody writes to any more goes by itself after a day, by the time to live in `expires_at`.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from facerec.aws.clients import Clients, translated
from facerec.errors import Transient
from facerec.messages import Registration, WorkerReport

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import UniversalAttributeValueTypeDef as Value

_KIND = "worker"
_REPORT: TypeAdapter[WorkerReport] = TypeAdapter(WorkerReport)
_KEPT_SECONDS = 86_400


class DynamoWorkerReports:
    """`WorkerReports` on DynamoDB: a report, and the order that answers it, are one write of 300 bytes."""

    def __init__(self, clients: Clients, table: str) -> None:
        self._clients = clients
        self._table = table

    def report(self, report: WorkerReport) -> bool:
        """Store the report; returns whether the item says that the worker is to drain."""
        with translated(f"report for instance {report.instance_id}"):
            reply = self._clients.dynamodb.update_item(
                TableName=self._table,
                Key=_key(report.instance_id),
                UpdateExpression="SET report = :report, expires_at = :end",
                ExpressionAttributeValues={
                    ":report": {"S": _REPORT.dump_json(report).decode()},
                    ":end": _expires_at(report.reported_at),
                },
                ReturnValues="ALL_NEW",
            )
        return "drain_ordered_at" in reply["Attributes"]

    def registrations(self) -> Mapping[str, Registration]:
        """Read all items of the kind, consistently, page by page."""
        with translated("read the workers' reports"):
            pages = self._clients.dynamodb.get_paginator("query").paginate(
                TableName=self._table,
                KeyConditionExpression="kind = :kind",
                ExpressionAttributeValues={":kind": {"S": _KIND}},
                ConsistentRead=True,
            )
            items = [item for page in pages for item in page["Items"]]
        return {
            item["item"]["S"]: _registration(item) for item in items if "report" in item or "drain_ordered_at" in item
        }

    def order_drain(self, instance_id: str, ordered_at: float) -> None:
        """Note the time of the order, unless there is one already."""
        with translated(f"ask instance {instance_id} to drain"):
            self._clients.dynamodb.update_item(
                TableName=self._table,
                Key=_key(instance_id),
                UpdateExpression="SET drain_ordered_at = if_not_exists(drain_ordered_at, :at), expires_at = :end",
                ExpressionAttributeValues={":at": {"N": repr(ordered_at)}, ":end": _expires_at(ordered_at)},
            )

    def cancel_drain(self, instance_id: str) -> None:
        """Remove the order alone."""
        self._remove("drain_ordered_at", instance_id)

    def forget(self, instance_id: str) -> None:
        """Delete the item."""
        with translated(f"forget instance {instance_id}"):
            self._clients.dynamodb.delete_item(TableName=self._table, Key=_key(instance_id))

    def _remove(self, attribute: str, instance_id: str) -> None:
        with translated(f"remove {attribute!r} of instance {instance_id}"):
            try:
                self._clients.dynamodb.update_item(
                    TableName=self._table,
                    Key=_key(instance_id),
                    UpdateExpression=f"REMOVE {attribute}",
                    # Otherwise an empty item would be made, without a time to live.
                    ConditionExpression=f"attribute_exists({attribute})",
                )
            except self._clients.dynamodb.exceptions.ConditionalCheckFailedException:
                return


def _key(instance_id: str) -> "dict[str, Value]":
    return {"kind": {"S": _KIND}, "item": {"S": instance_id}}


def _expires_at(now: float) -> "Value":
    return {"N": str(int(now) + _KEPT_SECONDS)}


def _registration(item: Mapping[str, Any]) -> Registration:
    report = None
    if "report" in item:
        try:
            report = _REPORT.validate_json(item["report"]["S"])
        except ValidationError as exc:
            # Not to be taken for a worker that has never reported: it may hold tasks.
            raise Transient(f"the report of instance {item['item']['S']} cannot be read: {exc}") from exc
    ordered_at = item.get("drain_ordered_at")
    return Registration(report, None if ordered_at is None else float(ordered_at["N"]))
