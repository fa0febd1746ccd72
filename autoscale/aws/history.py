"""What the fleet did, in the fleet's table: one partition a day; each record is kept for a week."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from autoscale.ports import Record
from facerec.aws.clients import Clients, translated
from facerec.provision.provisioning import FLEET_EXPIRY

KEPT = timedelta(days=7)


class DynamoHistory:
    """`History` in DynamoDB; `now` is in seconds since the epoch."""

    def __init__(self, clients: Clients, table: str, *, now: Callable[[], float] = time.time) -> None:
        self._clients = clients
        self._table = table
        self._now = now

    def record(self, record: Record) -> None:
        """Write one item; it replaces a record of the same microsecond."""
        fields = {name: _written(value) for name, value in dataclasses.asdict(record).items()}
        expires_at = {FLEET_EXPIRY: {"N": str(int(record.at + KEPT.total_seconds()))}}
        with translated("write the fleet's history"):
            self._clients.dynamodb.put_item(
                TableName=self._table, Item=_key(_day(record.at), record.at) | fields | expires_at
            )

    def records(self, since: float) -> Sequence[Record]:
        """Read the days since that moment, at most a week."""
        now = self._now()
        since = max(since, now - KEPT.total_seconds())
        day, found = _day(since), []
        while day <= _day(now):
            found += self._day(day, since)
            day += timedelta(days=1)
        return found

    def _day(self, day: datetime, since: float) -> list[Record]:
        first = _key(day, since)
        with translated("read the fleet's history"):
            pages = self._clients.dynamodb.get_paginator("query").paginate(
                TableName=self._table,
                ConsistentRead=True,
                KeyConditionExpression="kind = :kind AND #item >= :since",
                ExpressionAttributeNames={"#item": "item"},
                ExpressionAttributeValues={":kind": first["kind"], ":since": first["item"]},
            )
            return [_record(item) for page in pages for item in page["Items"]]


def _day(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def _key(day: datetime, at: float) -> Any:
    return {"kind": {"S": f"record#{day:%Y-%m-%d}"}, "item": {"S": f"{at:020.6f}"}}


def _written(value: float | str) -> Any:
    return {"S": value} if isinstance(value, str) else {"N": repr(value)}


def _record(item: Any) -> Record:
    read: Any = {
        field.name: item[field.name]["S"] if field.type is str else field.type(item[field.name]["N"])  # type: ignore[operator] # int or float
        for field in dataclasses.fields(Record)
    }
    return Record(**read)
