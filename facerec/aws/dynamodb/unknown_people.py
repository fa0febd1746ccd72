"""Unknown people in the people's table, which removes a record some time after it has expired.

The item UNKNOWN-ID of `unknown#<collection>` is a record, and `<collection>#<unknown_id>` of `unknown-alerts` an alert,
both as JSON.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import structlog
from botocore.exceptions import ClientError

from facerec.aws.clients import Clients, translated, translated_for_one
from facerec.aws.dynamodb import EXPIRES_AT, Table
from facerec.errors import InvalidMessage
from facerec.unknown_records import UnknownAlert, UnknownPerson

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import TransactWriteItemTypeDef

log = structlog.get_logger(__name__)

_ALERTS = "unknown-alerts"
_ALERTS_KEPT = timedelta(days=8)
"""Longer than any is tried."""


class DynamoUnknownPeople:
    """`UnknownPeople` on DynamoDB: one item for each unknown person, and one for each that has an alert."""

    def __init__(self, clients: Clients, table: str) -> None:
        self._clients = clients
        self._table = Table(clients, table)

    def get(self, collection: str, unknown_id: str) -> UnknownPerson | None:
        """Read the record consistently; None, with a warning, for one that cannot be read."""
        with translated(f"read {unknown_id}"):
            item = self._table.item(self._table.key(_partition(collection), unknown_id))
        return None if item is None else _parsed(item)

    def records(self, collection: str, after: str = "") -> Iterator[UnknownPerson]:
        """Yield the records, read consistently; those that cannot be read are left out with a warning."""
        since = f"{after}!" if after else ""  # every id has the same length, so this is behind `after` alone
        with translated(f"read the unknown people of collection {collection!r}"):
            for item in self._table.items(_partition(collection), since=since):
                if (record := _parsed(item)) is not None:
                    yield record

    def put(self, record: UnknownPerson, alert: UnknownAlert | None = None) -> bool:
        """Write the record on condition that it has the previous revision, with its alert or not at all."""
        put: Any = {
            "TableName": self._table.name,
            "Item": self._key(record)
            | {
                "revision": {"N": str(record.revision)},
                "record": {"S": record.to_json()},
                EXPIRES_AT: _seconds(record.expires_at),
            },
        }
        if record.revision == 1:
            put["ConditionExpression"] = "attribute_not_exists(revision)"
        else:
            put |= _at_revision(record.revision - 1)
        dynamodb = self._clients.dynamodb
        with translated_for_one(f"write {record.unknown_id}"):
            try:
                if alert is None:
                    dynamodb.put_item(**put)
                else:
                    item: TransactWriteItemTypeDef = {
                        "Put": {"TableName": self._table.name, "Item": self._alert(alert)}
                    }
                    dynamodb.transact_write_items(TransactItems=[{"Put": put}, item])
            except dynamodb.exceptions.ConditionalCheckFailedException:
                return False
            except dynamodb.exceptions.TransactionCanceledException as exc:
                codes = {reason["Code"] for reason in exc.response["CancellationReasons"]}
                if not codes & {"ConditionalCheckFailed", "TransactionConflict"}:
                    raise
                return False
        return True

    def remove(self, record: UnknownPerson) -> bool:
        """Delete the record on condition that it has this revision."""
        return self._written(
            f"remove {record.unknown_id}", "delete_item", Key=self._key(record), **_at_revision(record.revision)
        )

    def alerts(self) -> list[UnknownAlert]:
        """Read the alerts consistently; one that cannot be read is left out with a warning."""
        found = []
        with translated("look for alerts"):
            for item in self._table.items(_ALERTS):
                try:
                    found.append(UnknownAlert.parse(item["record"]["S"]))
                except (KeyError, InvalidMessage) as exc:
                    log.warning("unknown_alert_unreadable", item=item["item"]["S"], reason=str(exc))
        return found

    def postpone_alert(self, alert: UnknownAlert, later: UnknownAlert) -> bool:
        """Replace the alert on condition that it is unchanged."""
        return self._written("postpone an alert", "put_item", Item=self._alert(later), **_unchanged(alert))

    def remove_alert(self, alert: UnknownAlert) -> bool:
        """Delete the alert on condition that it is unchanged."""
        return self._written("remove an alert", "delete_item", Key=self._alert_key(alert), **_unchanged(alert))

    def _written(self, doing: str, call: str, **arguments: Any) -> bool:
        with translated_for_one(doing):
            try:
                getattr(self._clients.dynamodb, call)(TableName=self._table.name, **arguments)
            except ClientError as exc:
                if exc.response["Error"]["Code"] != "ConditionalCheckFailedException":
                    raise
                return False
        return True

    def _alert(self, alert: UnknownAlert) -> Any:
        expires = {EXPIRES_AT: _seconds(alert.made_at + _ALERTS_KEPT)}
        return self._alert_key(alert) | {"record": {"S": alert.to_json()}} | expires

    def _alert_key(self, alert: UnknownAlert) -> Any:
        return self._table.key(_ALERTS, f"{alert.collection}#{alert.unknown_id}")

    def _key(self, record: UnknownPerson) -> Any:
        return self._table.key(_partition(record.collection), record.unknown_id)


def _partition(collection: str) -> str:
    return f"unknown#{collection}"


def _at_revision(revision: int) -> Any:
    return {
        "ConditionExpression": "revision = :before",
        "ExpressionAttributeValues": {":before": {"N": str(revision)}},
    }


def _unchanged(alert: UnknownAlert) -> Any:
    return {
        "ConditionExpression": "#record = :before",
        "ExpressionAttributeNames": {"#record": "record"},
        "ExpressionAttributeValues": {":before": {"S": alert.to_json()}},
    }


def _seconds(moment: datetime) -> Any:
    return {"N": str(int(moment.timestamp()))}


def _parsed(item: Any) -> UnknownPerson | None:
    try:
        return UnknownPerson.parse(item["record"]["S"])
    except (KeyError, InvalidMessage) as exc:
        log.warning("unknown_person_unreadable", unknown_id=item["item"]["S"], reason=str(exc))
        return None
