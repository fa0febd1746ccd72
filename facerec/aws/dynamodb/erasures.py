"""The ledger of erasures, and the reports of gallery readers, in the people's table.

The partition `erasure#open` holds the erasures that owe something, `erasure#complete` the others. The partition
`gallery-reader` holds one item for each reader; DynamoDB removes that of a process some days after its last report.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog

from facerec.aws.clients import Clients, translated
from facerec.aws.dynamodb import Table, condition_failed, expiring
from facerec.erasure_records import ErasureRecord, ReaderKind, ReaderReport
from facerec.errors import InvalidMessage, LeaseLost, Transient

log = structlog.get_logger(__name__)

_OPEN, _COMPLETE, _READERS = "erasure#open", "erasure#complete", "gallery-reader"
_PROCESS_KEPT = timedelta(days=7)


class DynamoErasureLedger:
    """`ErasureLedger` on DynamoDB: one item for each erasure, whose lease is a condition of every write."""

    def __init__(self, clients: Clients, table: str, *, clock: Callable[[], float] = time.time) -> None:
        self._clients = clients
        self._table = Table(clients, table)
        self._clock = clock

    def add(self, record: ErasureRecord, owner: str, seconds: float) -> None:
        """Write a new item."""
        with translated(f"begin erasure {record.erasure_id}"):
            self._table.put(self._item(record, owner, seconds))

    def get(self, erasure_id: str) -> ErasureRecord | None:
        """Read it where open erasures are, then where complete ones are: it moves in this direction alone."""
        with translated(f"read erasure {erasure_id}"):
            for partition in (_OPEN, _COMPLETE):
                if item := self._table.item(self._table.key(partition, erasure_id)):
                    return ErasureRecord.parse(item["record"]["S"])
        return None

    def open(self) -> list[ErasureRecord]:
        """Read the open erasures; one that cannot be read is left out with a warning."""
        return self._records(_OPEN)

    def complete(self) -> list[ErasureRecord]:
        """Read the complete erasures."""
        return self._records(_COMPLETE)

    def lease(self, erasure_id: str, owner: str, seconds: float) -> ErasureRecord | None:
        """Take the lease if nobody has it, with one conditional write."""
        now = self._clock()
        with translated(f"lease erasure {erasure_id}"):
            try:
                reply = self._clients.dynamodb.update_item(
                    TableName=self._table.name,
                    Key=self._table.key(_OPEN, erasure_id),
                    UpdateExpression="SET leased_by = :owner, leased_until = :until",
                    ConditionExpression="attribute_exists(#item) AND (leased_until <= :now OR leased_by = :owner)",
                    ExpressionAttributeNames={"#item": "item"},
                    ExpressionAttributeValues={
                        ":owner": {"S": owner},
                        ":until": {"N": repr(now + seconds)},
                        ":now": {"N": repr(now)},
                    },
                    ReturnValues="ALL_NEW",
                )
            except self._clients.dynamodb.exceptions.ConditionalCheckFailedException:
                return None
        return ErasureRecord.parse(reply["Attributes"]["record"]["S"])

    def save(self, record: ErasureRecord, owner: str, *, seconds: float = 0, release: bool = False) -> None:
        """Write the item on condition that the lease is still its owner's; a complete one is moved in a transaction."""
        item = self._item(record, "" if release else owner, 0 if release else seconds)
        name, identifier, dynamodb = self._table.name, record.erasure_id, self._clients.dynamodb
        condition, values = "leased_by = :owner", {":owner": {"S": owner}}
        with translated(f"write erasure {identifier}"):
            if record.complete:
                delete: Any = {
                    "TableName": name,
                    "Key": self._table.key(_OPEN, identifier),
                    "ConditionExpression": condition,
                    "ExpressionAttributeValues": values,
                }
                put: Any = {"TableName": name, "Item": item}
                try:
                    dynamodb.transact_write_items(TransactItems=[{"Delete": delete}, {"Put": put}])
                    held = True
                except dynamodb.exceptions.TransactionCanceledException as exc:
                    if not condition_failed(exc):
                        raise Transient(f"could not write erasure {identifier}: {exc}") from exc
                    held = False
            else:
                held = self._table.put_if(item, condition, values)
        if not held:
            raise LeaseLost(f"another process works on erasure {identifier}")

    def _records(self, partition: str) -> list[ErasureRecord]:
        with translated("read the erasures"):
            items = list(self._table.items(partition))
        found = []
        for item in items:
            try:
                found.append(ErasureRecord.parse(item["record"]["S"]))
            except (KeyError, InvalidMessage) as exc:
                log.error("erasure_unreadable", erasure_id=item["item"]["S"], reason=str(exc))  # noqa: TRY400 - no bug
        return sorted(found, key=lambda record: (record.begun_at, record.erasure_id))

    def _item(self, record: ErasureRecord, owner: str, seconds: float) -> Any:
        return self._table.key(_COMPLETE if record.complete else _OPEN, record.erasure_id) | {
            "record": {"S": record.to_json()},
            "leased_by": {"S": owner},
            "leased_until": {"N": repr(self._clock() + seconds if seconds else 0)},
        }


class DynamoGalleryReaders:
    """`GalleryReaders` on DynamoDB: one small write for each report."""

    def __init__(self, clients: Clients, table: str) -> None:
        self._table = Table(clients, table)

    def report(self, report: ReaderReport) -> None:
        """Write the reader's item."""
        item = self._table.key(_READERS, report.reader_id) | {"report": {"S": report.to_json()}}
        if report.kind is ReaderKind.PROCESS:
            item |= expiring(report.reported_at + _PROCESS_KEPT)
        with translated(f"report for gallery reader {report.reader_id}"):
            self._table.put(item)

    def reports(self) -> list[ReaderReport]:
        """Read all items."""
        with translated("read the gallery readers"):
            return [_report(item) for item in self._table.items(_READERS)]

    def forget(self, reader_id: str) -> None:
        """Delete the item."""
        with translated(f"forget gallery reader {reader_id}"):
            self._table.delete(self._table.key(_READERS, reader_id))

    def write_off(self, reader_id: str, by: str) -> bool:
        """Write the reader's report again with the operator's name."""
        with translated(f"write off gallery reader {reader_id}"):
            item = self._table.item(self._table.key(_READERS, reader_id))
        if not item:
            return False
        self.report(_report(item).model_copy(update={"written_off_by": by}))
        return True


def _report(item: Any) -> ReaderReport:
    """Return the item's report; one that cannot be read is of a disk that has not been clean for long."""
    try:
        return ReaderReport.parse(item["report"]["S"])
    except (KeyError, InvalidMessage) as exc:
        identifier = item["item"]["S"]
        log.warning("gallery_reader_unreadable", reader_id=identifier, reason=str(exc))
        return ReaderReport(
            reader_id=identifier,
            kind=ReaderKind.DISK,
            where="its report cannot be read",
            clean=False,
            reported_at=datetime.fromtimestamp(0, UTC),
        )
