"""What the fleet did, in the fleet's table: one partition a day; each record is kept for a week."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog

from facerec.aws.clients import Clients, translated
from facerec.aws.dynamodb import EXPIRES_AT, Table, readable
from facerec.errors import Transient
from facerec.fleet_records import HISTORY_PARTITIONS, RoundRecord

log = structlog.get_logger(__name__)

KEPT = timedelta(days=7)


class DynamoFleetHistory:
    """`FleetHistory` in DynamoDB; `now` is in seconds since the epoch."""

    def __init__(self, clients: Clients, table: str, *, now: Callable[[], float] = time.time) -> None:
        self._clients = clients
        self._table = Table(clients, table)
        self._now = now

    def record(self, record: RoundRecord) -> None:
        """Write one item; it replaces a record of the same microsecond."""
        key = self._table.key(_partition(_day(record.at)), _sort_key(record.at))
        fields = {name: _attribute(value) for name, value in dataclasses.asdict(record).items()}
        expires_at = {EXPIRES_AT: {"N": str(int(record.at + KEPT.total_seconds()))}}
        with translated("write the fleet's history"):
            self._clients.dynamodb.put_item(TableName=self._table.name, Item=key | fields | expires_at)

    def records(self, since: float) -> Sequence[RoundRecord]:
        """Read the days since that moment, at most a week; damaged records are logged and left out."""
        now = self._now()
        since = max(since, now - KEPT.total_seconds())
        day = _day(since)
        found: list[RoundRecord] = []
        with translated("read the fleet's history"):
            while day <= _day(now):
                found += _readable_records(self._table.items(_partition(day), since=_sort_key(since)))
                day += timedelta(days=1)
        return found

    def latest(self, until: float) -> RoundRecord | None:
        """Read one record, day by day backwards until there is one."""
        oldest = self._now() - KEPT.total_seconds()
        if until < oldest:  # DynamoDB refuses a range whose end is before its beginning
            return None
        range_ = {"since": _sort_key(oldest), "until": _sort_key(until)}
        day = _day(until)
        with translated("read the fleet's history"):
            while day >= _day(oldest):
                items = self._table.items(_partition(day), **range_, at_once=1, newest_first=True)
                if (record := next(_readable_records(items), None)) is not None:
                    return record
                day -= timedelta(days=1)
        return None


def _readable_records(items: Iterator[Any]) -> Iterator[RoundRecord]:
    for item in items:
        try:
            yield _from_item(item)
        except Transient as exc:
            log.warning("record_unreadable", reason=str(exc))


def _day(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def _partition(day: datetime) -> str:
    return f"{HISTORY_PARTITIONS}{day:%Y-%m-%d}"


def _sort_key(at: float) -> str:
    return f"{at:020.6f}"


def _attribute(value: float | str) -> Any:
    return {"S": value} if isinstance(value, str) else {"N": repr(value)}


def _from_item(item: Any) -> RoundRecord:
    with readable(item):
        read: Any = {
            field.name: item[field.name]["S"] if field.type is str else field.type(item[field.name]["N"])  # type: ignore[operator] # int or float
            for field in dataclasses.fields(RoundRecord)
        }
        record = RoundRecord(**read)
        if _sort_key(record.at) != item["item"]["S"]:  # so that it lies in the time that was asked for
            raise ValueError(f"its time is {record.at:g}")
    return record
