"""What is kept of people beside their templates, in the people's table.

The item NAME of `name#<collection>` keeps a person without templates. The item MERGE-ID of `merge#<collection>` is the
record of a merge, as JSON.
"""

from typing import Any

import structlog
from pydantic import TypeAdapter, ValidationError

from facerec.aws.clients import Clients, translated
from facerec.aws.dynamodb import Table
from facerec.gallery.names import same_person
from facerec.ports import MergeRecord

log = structlog.get_logger(__name__)

_RECORD: TypeAdapter[MergeRecord] = TypeAdapter(MergeRecord)


class DynamoPersonRecords:
    """`PersonRecords` on DynamoDB: one item for each name and each merge."""

    def __init__(self, clients: Clients, table: str) -> None:
        self._table = Table(clients, table)

    def add_name(self, collection: str, name: str) -> None:
        """Write the item of the name."""
        with translated(f"keep the name {name!r}"):
            self._table.put(self._name_key(collection, name))

    def names(self, collection: str) -> list[str]:
        """Read the kept names consistently; DynamoDB sorts them by their UTF-8 bytes, as Python sorts text."""
        with translated(f"read the names of collection {collection!r}"):
            return [item["item"]["S"] for item in self._table.items(_names(collection))]

    def remove_name(self, collection: str, name: str) -> None:
        """Delete the item of the name."""
        with translated(f"remove the name {name!r}"):
            self._table.delete(self._name_key(collection, name))

    def put_merge(self, record: MergeRecord) -> None:
        """Write the record."""
        key = self._table.key(_merges(record.collection), record.merge_id)
        item = key | {"record": {"S": _RECORD.dump_json(record).decode()}}
        with translated(f"record the merge of {record.source!r}"):
            self._table.put(item)

    def merges(self, collection: str) -> list[MergeRecord]:
        """Read the records consistently; one that cannot be read is left out with a warning."""
        found = []
        for merge_id, record in self._read(collection):
            if record is None:
                log.warning("merge_record_unreadable", collection=collection, merge_id=merge_id)
            else:
                found.append(record)
        return sorted(found, key=lambda record: (record.merged_at, record.merge_id))

    def remove_merge(self, collection: str, merge_id: str) -> None:
        """Delete the record."""
        with translated(f"remove the record of merge {merge_id}"):
            self._table.delete(self._table.key(_merges(collection), merge_id))

    def forget(self, collection: str, name: str) -> int:
        """Delete the items one by one; a repeated call completes it."""
        names = [kept for kept in self.names(collection) if same_person(kept, name)]
        merges = [
            merge_id
            for merge_id, record in self._read(collection)
            if record is None or same_person(record.source, name) or same_person(record.into, name)
        ]
        for kept in names:
            self.remove_name(collection, kept)
        for merge_id in merges:
            self.remove_merge(collection, merge_id)
        return len(names) + len(merges)

    def _read(self, collection: str) -> list[tuple[str, MergeRecord | None]]:
        with translated(f"read the merges of collection {collection!r}"):
            items = list(self._table.items(_merges(collection)))
        return [(item["item"]["S"], _parsed(item)) for item in items]

    def _name_key(self, collection: str, name: str) -> Any:
        return self._table.key(_names(collection), name)


def _names(collection: str) -> str:
    return f"name#{collection}"


def _merges(collection: str) -> str:
    return f"merge#{collection}"


def _parsed(item: Any) -> MergeRecord | None:
    try:
        return _RECORD.validate_json(item["record"]["S"])
    except (KeyError, ValidationError):
        return None
