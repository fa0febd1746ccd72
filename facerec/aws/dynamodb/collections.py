"""The collections that were created by name, one item each in the table of people."""

from datetime import datetime
from typing import Any

from facerec.aws.clients import Clients, translated
from facerec.aws.dynamodb import Table, readable
from facerec.ports import CollectionRecord

_KIND = "collection"


class DynamoCollections:
    """`Collections` on DynamoDB."""

    def __init__(self, clients: Clients, table: str) -> None:
        self._table = Table(clients, table)

    def create(self, record: CollectionRecord) -> bool:
        """Write the item, on condition that there is none."""
        item = self._key(record.collection) | {"created_at": {"S": record.created_at.isoformat()}}
        if record.owner is not None:
            item["owner"] = {"S": record.owner}
        with translated(f"create collection {record.collection!r}"):
            return self._table.put_if(item, "attribute_not_exists(kind)")

    def get(self, collection: str) -> CollectionRecord | None:
        """Read the item consistently."""
        with translated(f"look for collection {collection!r}"):
            item = self._table.item(self._key(collection))
        return _read(item) if item else None

    def remove(self, collection: str) -> None:
        """Delete the item."""
        with translated(f"remove collection {collection!r}"):
            self._table.delete(self._key(collection))

    def records(self) -> list[CollectionRecord]:
        """Read all items, in the order of their sort keys."""
        with translated("list the collections"):
            return [_read(item) for item in self._table.items(_KIND)]

    def _key(self, collection: str) -> Any:
        return self._table.key(_KIND, collection)


def _read(item: Any) -> CollectionRecord:
    with readable(item):
        return CollectionRecord(
            collection=item["item"]["S"],
            owner=item["owner"]["S"] if "owner" in item else None,
            created_at=datetime.fromisoformat(item["created_at"]["S"]),
        )
