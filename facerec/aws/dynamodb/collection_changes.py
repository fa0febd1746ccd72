"""The changes of a collection on DynamoDB: each is one transaction, has a number, and can be told for a while."""

import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from facerec.aws.clients import Clients, translated
from facerec.aws.dynamodb.template_items import CHANGE_ITEM, CollectionTable, change_key, count_key, version_key
from facerec.errors import Transient

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import TransactWriteItemTypeDef

WRITES_AT_ONCE = 96
"""A transaction takes 100 items; four of them are version, count, change, and the change that is too old."""
KEPT_CHANGES = 10_000
"""A hundred bytes for an enrolment, 4 kB at most; a reader farther behind reads the collection whole."""
_ATTEMPTS = 20
_LONGEST_PAUSE_SECONDS = 1.0
_CONDITION_FAILED = "ConditionalCheckFailed"
_LOST_RACES = frozenset(
    {"TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded", "TransactionInProgressException"}
)
"""Why DynamoDB cancels a transaction that may succeed a moment later."""


class CollectionChanges:
    """Writes and tells changes, safe for concurrent writers in any number of processes.

    All writers of a collection raise one version, so concurrent ones conflict: the losers try again with exponential
    backoff and full jitter, for some seconds at most, and then raise `Transient`; the threads of one object write in
    turn. The last `kept` changes of a collection can be told. `sleep` takes seconds.
    """

    def __init__(
        self,
        clients: Clients,
        table: CollectionTable,
        *,
        kept: int,
        sleep: Callable[[float], None] = time.sleep,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._clients = clients
        self._table = table
        self._kept = kept
        self._sleep = sleep
        self._now_ms = now_ms
        self._writing = threading.Lock()

    def version(self, collection: str) -> int:
        """Return the number of changes so far: one consistent read of a tiny item."""
        with translated(f"read the version of collection {collection!r}"):
            item = self._table.item(version_key(collection))
        return int(item["version"]["N"]) if item else 0

    def touched(self, collection: str, since: int) -> tuple[int, set[str]] | None:
        """The current version, and the ids of the templates that were written or removed after that one.

        Nothing is returned when some of the changes are no longer kept, or were written without a record.
        """
        version = self.version(collection)
        if not 0 <= version - since <= self._kept:
            return None
        touched: set[str] = set()
        following = since
        for item in self._table.items(collection, CHANGE_ITEM, after=change_key(collection, since)["item"]["S"]):
            following += 1
            if item["item"] != change_key(collection, following)["item"]:
                return None
            touched |= {name["S"] for name in item["template_ids"]["L"]}
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

        Returns the cancellation reasons of the writes whose condition failed, by index.
        """
        with self._writing:
            return self._tried(doing, collection, writes, templates, template_ids)

    def _tried(
        self,
        doing: str,
        collection: str,
        writes: "list[TransactWriteItemTypeDef]",
        templates: int,
        template_ids: Sequence[str],
    ) -> dict[int, Any]:
        for attempt in range(_ATTEMPTS):
            items = [*writes, *self._changed(collection, self.version(collection), templates, template_ids)]
            with translated(doing):
                try:
                    # boto3 sends a token of its own, so that its retries after a lost reply do not write twice.
                    self._clients.dynamodb.transact_write_items(TransactItems=items)
                except ClientError as exc:
                    reasons: list[Any] = exc.response.get("CancellationReasons", [])
                    failed = {i: reason for i, reason in enumerate(reasons) if reason["Code"] == _CONDITION_FAILED}
                    refused = {i: reason for i, reason in failed.items() if i < len(writes)}
                    if refused:
                        return refused
                    codes = {exc.response["Error"]["Code"], *(reason["Code"] for reason in reasons)}
                    # Without a refusal what failed is the version: another was written since it was read.
                    if not failed and not codes & _LOST_RACES:
                        raise
                else:
                    return {}
            longest = min(_LONGEST_PAUSE_SECONDS, 0.02 * 2**attempt)
            self._sleep(random.uniform(0, longest))  # noqa: S311 - jitter, no secret
        raise Transient(f"could not {doing}: too many others write to the collection at the same time; retry later")

    def _changed(
        self, collection: str, version: int, templates: int, template_ids: Sequence[str]
    ) -> "list[TransactWriteItemTypeDef]":
        """What every change writes besides templates: the version, the count, and the record of the change."""
        # By the clock a table that was lost and made anew is ahead of all versions that readers remember.
        following = version + 1 if version else self._now_ms()
        change = change_key(collection, following) | {"template_ids": {"L": [{"S": name} for name in template_ids]}}
        values = {":following": {"N": str(following)}} | ({":version": {"N": str(version)}} if version else {})
        return [
            {
                "Update": {
                    "TableName": self._table.name,
                    "Key": version_key(collection),
                    "UpdateExpression": "SET #version = :following",
                    "ConditionExpression": "#version = :version" if version else "attribute_not_exists(#version)",
                    "ExpressionAttributeNames": {"#version": "version"},
                    "ExpressionAttributeValues": values,
                }
            },
            {
                "Update": {
                    "TableName": self._table.name,
                    "Key": count_key(collection),
                    "UpdateExpression": "ADD #templates :by",
                    "ExpressionAttributeNames": {"#templates": "templates"},
                    "ExpressionAttributeValues": {":by": {"N": str(templates)}},
                }
            },
            {"Put": {"TableName": self._table.name, "Item": change}},
            {"Delete": {"TableName": self._table.name, "Key": change_key(collection, following - self._kept)}},
        ]
