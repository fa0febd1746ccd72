"""The changes of a collection on DynamoDB: each is one numbered transaction, and the latest ones are recorded.

The item `#version` of a collection is the number of its last change, counted from the time of the first. The items
`change#<version>` hold the ids of the templates that each recorded change touched. The partition `#collections`, which
is no valid collection name, holds the number of templates of each collection.
"""

import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import structlog
from botocore.exceptions import ClientError

from facerec.aws.clients import Clients, translated, translated_for_one
from facerec.aws.dynamodb import Table
from facerec.aws.dynamodb.entry_items import TEMPLATE
from facerec.background import backoff_seconds
from facerec.errors import Transient

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import TransactWriteItemTypeDef

log = structlog.get_logger(__name__)

COLLECTIONS = "#collections"
WRITES_AT_ONCE = 96
"""A transaction takes 100 items; four are the version, the count, the change, and the oldest change to delete."""
KEPT_CHANGES = 10_000
"""A hundred bytes per enrolment, 4 kB at most; a reader farther behind reads the whole collection."""
FEW_CHANGES = 16
"""Up to so many records are read by their keys."""
_CHANGE = "change#"
_ATTEMPTS = 20
_CONDITION_FAILED = "ConditionalCheckFailed"
_OF_A_WRONG_TYPE = "ValidationError"
_MAX_ID_BYTES = 1000  # a sort key has 1024 bytes at most
_LOST_RACES = frozenset(
    {"TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded", "TransactionInProgressException"}
)
"""Reasons for which DynamoDB cancels a transaction that may succeed a moment later."""


class CollectionChanges:
    """Writes changes and reads them back, safe for concurrent writers in any number of processes.

    All writers of a collection increase one version, so concurrent ones conflict. The losers retry with backoff, for
    some seconds at most, and then raise `Transient`; the threads of one object write in turn. The last `kept` changes
    of a collection are recorded. `sleep` takes seconds.
    """

    def __init__(self, clients: Clients, table: Table, *, kept: int, sleep: Callable[[float], None]) -> None:
        self._clients = clients
        self._table = table
        self._kept = kept
        self._sleep = sleep
        self._writing = threading.Lock()

    def version(self, collection: str) -> int:
        """Return the number of the last change: one consistent read of a tiny item.

        A damaged one counts as 1, before every real one: readers read the whole collection, and the next change
        replaces it.
        """
        return self._version(collection)[0]

    def touched(self, collection: str, since: int) -> tuple[int, set[str]] | None:
        """Return the current version, and the ids of the templates written or removed after `since`.

        Returns None if some of these changes are not recorded, or a record is damaged.
        """
        version = self.version(collection)
        if not 0 <= version - since <= self._kept:
            return None
        if version - since <= FEW_CHANGES:
            return self._few_touched(collection, since, version)
        touched: set[str] = set()
        following = since
        for item in self._table.items(collection, _CHANGE, after=self._change_key(collection, since)["item"]["S"]):
            if item["item"] != self._change_key(collection, following + 1)["item"]:
                if following >= version:
                    break  # no record of a change: it is not the one after the last
                return None
            ids = self._recorded(collection, item)
            if ids is None:
                return None
            following += 1
            touched |= ids
        return None if following < version else (following, touched)

    def write(
        self,
        doing: str,
        collection: str,
        writes: "list[TransactWriteItemTypeDef]",
        templates: int,
        template_ids: Sequence[str],
    ) -> dict[int, Any]:
        """Write all or nothing, as the next version, with `templates` more in the collection.

        Returns the cancellation reasons of the writes whose condition failed, by index; nothing is written then.
        """
        recount = False
        with self._writing:
            for attempt in range(1, _ATTEMPTS + 1):
                items = [*writes, *self._change_writes(collection, templates, template_ids, recount=recount)]
                with translated_for_one(doing):
                    try:
                        # boto3 adds an idempotency token, so that its retry after a lost reply does not write twice.
                        self._clients.dynamodb.transact_write_items(TransactItems=items)
                    except ClientError as exc:
                        reasons: list[Any] = exc.response.get("CancellationReasons", [])
                        failed = {i: reason for i, reason in enumerate(reasons) if reason["Code"] == _CONDITION_FAILED}
                        if refused := {i: reason for i, reason in failed.items() if i < len(writes)}:
                            return refused
                        recount = any(reason["Code"] == _OF_A_WRONG_TYPE for reason in reasons)  # a damaged count
                        codes = {exc.response["Error"]["Code"], *(reason["Code"] for reason in reasons)}
                        # If only the version's condition failed, another writer was faster.
                        if not failed and not recount and not codes & _LOST_RACES:
                            raise
                    else:
                        return {}
                jitter = random.random()  # noqa: S311 - no secret
                self._sleep(backoff_seconds(attempt, jitter, first=0.02, longest=1))
        raise Transient(f"could not {doing}: too many others write to the collection at the same time; retry later")

    def _few_touched(self, collection: str, since: int, version: int) -> tuple[int, set[str]] | None:
        """As `touched`, by the keys of the records: one read, however large the collection is in an emulator."""
        keys = [self._change_key(collection, number) for number in range(since + 1, version + 1)]
        records = [self._recorded(collection, item) for item in self._table.present(keys)]
        known = [ids for ids in records if ids is not None]
        return None if len(known) < len(keys) else (version, set().union(*known))

    def _recorded(self, collection: str, item: Any) -> set[str] | None:
        """Return the template ids of a change's record, or None if it is damaged, which is logged."""
        ids = _recorded(item)
        if ids is None:
            log.warning("change_record_damaged", collection=collection, item=item["item"]["S"])
        return ids

    def _version(self, collection: str) -> tuple[int, Any]:
        """Return the number of the last change, and the attribute that holds it, None if there is none."""
        with translated(f"read the version of collection {collection!r}"):
            item = self._table.item(self._version_key(collection))
        if not item:
            return 0, None
        stored = item.get("version")
        try:
            return max(1, int(stored["N"])), stored
        except (KeyError, TypeError, ValueError):
            return 1, stored

    def _version_key(self, collection: str) -> Any:
        return self._table.key(collection, "#version")

    def _change_key(self, collection: str, version: int) -> Any:
        return self._table.key(collection, f"{_CHANGE}{version:020d}")

    def _change_writes(
        self, collection: str, templates: int, template_ids: Sequence[str], *, recount: bool
    ) -> "list[TransactWriteItemTypeDef]":
        """Return the writes of every change: the version, the count, and the record of the change.

        With `recount` the templates are counted, and the stored count is replaced.
        """
        # The first version is the time, so that a lost and recreated table is ahead of every version a reader has.
        version, stored = self._version(collection)
        following = version + 1 if version > 1 else time.time_ns() // 1_000_000
        record = self._change_key(collection, following) | {
            "template_ids": {"L": [{"S": each} for each in template_ids]}
        }
        values = {":following": {"N": str(following)}} | ({":version": stored} if stored else {})
        table = self._table.name
        if recount:  # consistent, because the version is the one that was read before
            templates += sum(1 for _ in self._table.items(collection, TEMPLATE, only=("item",)))
        return [
            {
                "Update": {
                    "TableName": table,
                    "Key": self._version_key(collection),
                    "UpdateExpression": "SET #version = :following",
                    "ConditionExpression": "#version = :version" if stored else "attribute_not_exists(#version)",
                    "ExpressionAttributeNames": {"#version": "version"},
                    "ExpressionAttributeValues": values,
                }
            },
            {
                "Update": {
                    "TableName": table,
                    "Key": self._table.key(COLLECTIONS, collection),
                    "UpdateExpression": "SET #templates = :by" if recount else "ADD #templates :by",
                    "ExpressionAttributeNames": {"#templates": "templates"},
                    "ExpressionAttributeValues": {":by": {"N": str(templates)}},
                }
            },
            {"Put": {"TableName": table, "Item": record}},
            {"Delete": {"TableName": table, "Key": self._change_key(collection, following - self._kept)}},
        ]


def _recorded(item: Any) -> set[str] | None:
    """Return the template ids of a change's record, or None if it is damaged."""
    try:
        ids = {name["S"] for name in item["template_ids"]["L"]}
    except (KeyError, TypeError):
        return None
    return ids if all(len(each.encode()) <= _MAX_ID_BYTES for each in ids) else None
