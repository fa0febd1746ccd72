"""The gallery's system of record on DynamoDB: one table, every change of a collection one transaction."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from facerec.aws.clients import Clients, translated
from facerec.aws.dynamodb.collection_changes import KEPT_CHANGES, WRITES_AT_ONCE, CollectionChanges
from facerec.aws.dynamodb.template_items import (
    COLLECTIONS,
    TEMPLATE_ITEM,
    CollectionTable,
    from_item,
    template_key,
    threshold_fields,
    threshold_from,
    threshold_key,
    to_item,
)
from facerec.errors import AlreadyEnrolled
from facerec.ports import Changes, CollectionThreshold, Template

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import TransactWriteItemTypeDef


class DynamoTemplateStore:
    """`TemplateStore` on DynamoDB, safe for concurrent writers in any number of processes.

    The last `kept_changes` changes of a collection can be told; `sleep` and `now_ms` are those of `CollectionChanges`.
    """

    def __init__(
        self,
        clients: Clients,
        table: str,
        *,
        kept_changes: int = KEPT_CHANGES,
        sleep: Callable[[float], None] = time.sleep,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._table = CollectionTable(clients, table)
        self._changes = CollectionChanges(clients, self._table, kept=kept_changes, sleep=sleep, now_ms=now_ms)

    def add(self, template: Template) -> None:
        """Add one template with its collection's new version, both or neither; raises `AlreadyEnrolled`."""
        put: TransactWriteItemTypeDef = {
            "Put": {
                "TableName": self._table.name,
                "Item": to_item(template),
                "ConditionExpression": "attribute_not_exists(#item)",
                "ExpressionAttributeNames": {"#item": "item"},
                "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            }
        }
        doing = f"enrol {template.identity!r}"
        refusals = self._changes.write(doing, template.collection, [put], 1, [template.template_id])
        if refusals:
            existing = refusals[0].get("Item") or self._existing(template)
            raise AlreadyEnrolled(existing.get("identity", {}).get("S", template.identity), template.template_id)

    def remove(self, collection: str, template_ids: Sequence[str]) -> int:
        """Remove templates, up to 96 at a time all or none with one new version; returns how many were there."""
        removed = 0
        wanted = list(dict.fromkeys(template_ids))
        for start in range(0, len(wanted), WRITES_AT_ONCE):
            removed += self._remove_batch(collection, wanted[start : start + WRITES_AT_ONCE])
        return removed

    def version(self, collection: str) -> int:
        """Return the number of changes so far: one consistent read of a tiny item."""
        return self._changes.version(collection)

    def changes(self, collection: str, since: int) -> Changes | None:
        """Read the changes after that version, and the templates that they left, consistently.

        Nothing is returned when some of them are no longer kept, or were written without a record.
        """
        with translated(f"read the changes of collection {collection!r}"):
            told = self._changes.touched(collection, since)
            if told is None:
                return None
            version, touched = told
            keys = [template_key(collection, template_id) for template_id in sorted(touched)]
            added = [from_item(item) for item in self._table.present(keys)]
        return Changes(version, added, sorted(touched - {template.template_id for template in added}))

    def templates(self, collection: str) -> Iterator[Template]:
        """Read every template of the collection consistently, page by page, each page when it is needed."""
        with translated(f"read the templates of collection {collection!r}"):
            yield from map(from_item, self._table.items(collection, TEMPLATE_ITEM))

    def collections(self) -> list[str]:
        """Return the names of the collections that hold templates, sorted."""
        with translated("read the names of the collections"):
            counts = self._table.items(COLLECTIONS)
            return sorted(item["item"]["S"] for item in counts if int(item["templates"]["N"]) > 0)

    def threshold(self, collection: str, model_id: str) -> CollectionThreshold | None:
        """Return the collection's threshold for the model: one consistent read of a small item."""
        with translated(f"read the threshold of collection {collection!r}"):
            item = self._table.item(threshold_key(collection, model_id))
        return threshold_from(item) if item else None

    def set_threshold(self, collection: str, model_id: str, threshold: CollectionThreshold | None) -> None:
        """Write or remove the threshold with the collection's new version, both or neither."""
        key = threshold_key(collection, model_id)
        change: TransactWriteItemTypeDef = (
            {"Delete": {"TableName": self._table.name, "Key": key}}
            if threshold is None
            else {"Put": {"TableName": self._table.name, "Item": key | threshold_fields(threshold)}}
        )
        self._changes.write(f"set the threshold of {collection!r}", collection, [change], 0, [])

    def _existing(self, template: Template) -> Any:
        with translated(f"read template {template.template_id!r}"):
            return self._table.item(template_key(template.collection, template.template_id)) or {}

    def _remove_batch(self, collection: str, template_ids: list[str]) -> int:
        while template_ids:
            deletions: list[TransactWriteItemTypeDef] = [
                {
                    "Delete": {
                        "TableName": self._table.name,
                        "Key": template_key(collection, template_id),
                        "ConditionExpression": "attribute_exists(#item)",
                        "ExpressionAttributeNames": {"#item": "item"},
                    }
                }
                for template_id in template_ids
            ]
            doing = f"remove templates from {collection!r}"
            refusals = self._changes.write(doing, collection, deletions, -len(template_ids), template_ids)
            if not refusals:
                break
            # The refused ones are not there (any more): the rest goes without them, so that the count stays exact.
            template_ids = [template_id for i, template_id in enumerate(template_ids) if i not in refusals]
        return len(template_ids)
