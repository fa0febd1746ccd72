"""The people of the templates' table, without embeddings: what the web tier uses, which has no numpy."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from facerec.aws.clients import Clients, translated
from facerec.aws.dynamodb import Table
from facerec.aws.dynamodb.collection_changes import COLLECTIONS, KEPT_CHANGES, WRITES_AT_ONCE, CollectionChanges
from facerec.aws.dynamodb.entry_items import ENTRY, TEMPLATE, read_entries
from facerec.ports import TemplateEntry

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import TransactWriteItemTypeDef


class DynamoEnrolledPeople:
    """`EnrolledPeople` on DynamoDB, safe for concurrent writers in any number of processes.

    The last `kept_changes` changes of a collection are recorded; `sleep` is that of `CollectionChanges`.
    """

    def __init__(
        self,
        clients: Clients,
        table: str,
        *,
        kept_changes: int = KEPT_CHANGES,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._table = Table(clients, table, "collection")
        self._changes = CollectionChanges(clients, self._table, kept=kept_changes, sleep=sleep)

    def remove(self, collection: str, template_ids: Sequence[str]) -> int:
        """Remove templates, up to 96 at a time with one new version, all or none; returns how many there were."""
        wanted = list(dict.fromkeys(template_ids))
        return sum(
            self._write_existing(
                f"remove templates from {collection!r}",
                collection,
                wanted[start : start + WRITES_AT_ONCE],
                lambda key: {
                    "Delete": {
                        "TableName": self._table.name,
                        "Key": key,
                        "ConditionExpression": "attribute_exists(#item)",
                        "ExpressionAttributeNames": {"#item": "item"},
                    }
                },
                -1,
            )
            for start in range(0, len(wanted), WRITES_AT_ONCE)
        )

    def reassign(self, collection: str, template_ids: Sequence[str], identity: str) -> int:
        """Give templates to a person, up to 96 at a time with one new version; returns how many there were."""
        wanted = list(dict.fromkeys(template_ids))
        return sum(
            self._write_existing(
                f"give templates to {identity!r}",
                collection,
                wanted[start : start + WRITES_AT_ONCE],
                lambda key: {
                    "Update": {
                        "TableName": self._table.name,
                        "Key": key,
                        "UpdateExpression": "SET #identity = :identity",
                        "ConditionExpression": "attribute_exists(#item)",
                        "ExpressionAttributeNames": {"#item": "item", "#identity": "identity"},
                        "ExpressionAttributeValues": {":identity": {"S": identity}},
                    }
                },
                0,
            )
            for start in range(0, len(wanted), WRITES_AT_ONCE)
        )

    def version(self, collection: str) -> int:
        """Return the number of the last change: one consistent read of a tiny item."""
        return self._changes.version(collection)

    def entries(self, collection: str) -> Iterator[TemplateEntry]:
        """Yield every readable template of the collection, read consistently, page by page."""
        with translated(f"read the people of collection {collection!r}"):
            yield from read_entries(self._table.items(collection, TEMPLATE, only=ENTRY))

    def entry(self, collection: str, template_id: str) -> TemplateEntry | None:
        """Read one template consistently; a damaged one counts as none."""
        with translated(f"read template {template_id!r}"):
            item = self._table.item(self._template_key(collection, template_id))
        return next(read_entries([item] if item else []), None)

    def owners(self, collection: str) -> dict[str, str]:
        """Read the identity of each template, consistently, without the embeddings."""
        with translated(f"read the names of collection {collection!r}"):
            return {
                item["item"]["S"].removeprefix(TEMPLATE): item.get("identity", {}).get("S", "")
                for item in self._table.items(collection, TEMPLATE, only=("item", "identity"))
            }

    def count(self, collection: str) -> int:
        """Read the number of templates, of all models; 0 for a damaged one, which the next change replaces."""
        with translated(f"read the number of templates of collection {collection!r}"):
            item = self._table.item(self._table.key(COLLECTIONS, collection))
        try:
            return int(item["templates"]["N"])
        except (KeyError, TypeError, ValueError):
            return 0

    def collections(self) -> list[str]:
        """Return the names of the collections that contain templates, sorted."""
        with translated("read the names of the collections"):
            counts = self._table.items(COLLECTIONS)
            return sorted(item["item"]["S"] for item in counts if item.get("templates") != {"N": "0"})

    def _write_existing(
        self,
        doing: str,
        collection: str,
        template_ids: list[str],
        write: "Callable[[Any], TransactWriteItemTypeDef]",
        each: int,
    ) -> int:
        """Write to those of the templates that exist, all with one new version; returns how many they were.

        `each` is by how much one of them changes the number of templates.
        """
        while template_ids:
            writes = [write(self._template_key(collection, template_id)) for template_id in template_ids]
            refusals = self._changes.write(doing, collection, writes, each * len(template_ids), template_ids)
            if not refusals:
                break
            # The refused templates do not exist: the others are written without them, so that the count stays exact.
            template_ids = [template_id for i, template_id in enumerate(template_ids) if i not in refusals]
        return len(template_ids)

    def _template_key(self, collection: str, template_id: str) -> Any:
        return self._table.key(collection, f"{TEMPLATE}{template_id}")
