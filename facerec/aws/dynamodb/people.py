"""The people of the templates' table, without embeddings: what the web tier uses, which has no numpy.

A template is the item `template#<template_id>` of its collection, and a rejection the item `rejection#<rejection_id>`.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import structlog

from facerec.aws.clients import Clients, translated
from facerec.aws.dynamodb import Table
from facerec.aws.dynamodb.collection_changes import COLLECTIONS, KEPT_CHANGES, WRITES_AT_ONCE, CollectionChanges
from facerec.aws.dynamodb.entry_items import (
    ENTRY,
    REJECTION,
    REJECTION_ENTRY,
    TEMPLATE,
    id_of,
    read_entries,
    rejection_id_of,
    rejection_values,
)
from facerec.ports import ChangedIds, RejectionEntry, TemplateEntry
from facerec.unknown_records import companion_of

log = structlog.get_logger(__name__)

Read = TypeVar("Read")


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
        return self._remove(f"remove templates from {collection!r}", collection, TEMPLATE, template_ids)

    def reassign(self, collection: str, template_ids: Sequence[str], identity: str) -> int:
        """Give templates to a person, up to 96 at a time with one new version; returns how many there were."""
        return self._reassign(f"give templates to {identity!r}", collection, TEMPLATE, template_ids, identity)

    def remove_rejections(self, collection: str, rejection_ids: Sequence[str]) -> int:
        """Remove rejections as `remove` does templates."""
        return self._remove(f"remove rejections from {collection!r}", collection, REJECTION, rejection_ids)

    def reassign_rejections(self, collection: str, rejection_ids: Sequence[str], identity: str) -> int:
        """Let rejections be about this person, as `reassign` does templates."""
        return self._reassign(f"give rejections to {identity!r}", collection, REJECTION, rejection_ids, identity)

    def rejection_entries(self, collection: str) -> list[RejectionEntry]:
        """Read all rejections consistently, without the embeddings; damaged ones are left out with a warning."""
        return self._read_rejections(collection, lambda item: RejectionEntry(**rejection_values(item)), REJECTION_ENTRY)

    def version(self, collection: str) -> int:
        """Return the number of the last change: one consistent read of a tiny item."""
        return self._changes.version(collection)

    def changed_ids(self, collection: str, since: int) -> ChangedIds | None:
        """Read the records of the changes after that version; None if some of them are not recorded."""
        with translated(f"read the changes of collection {collection!r}"):
            found = self._changes.touched(collection, since)
        return None if found is None else ChangedIds(found[0], frozenset(found[1]))

    def entries(self, collection: str, after: str = "", at_once: int | None = None) -> Iterator[TemplateEntry]:
        """Yield the readable templates of the collection, read consistently, page by page."""
        with translated(f"read the people of collection {collection!r}"):
            last = f"{TEMPLATE}{after}" if after else ""
            yield from read_entries(self._table.items(collection, TEMPLATE, last, only=ENTRY, at_once=at_once))

    def find(self, collection: str, template_ids: Sequence[str]) -> dict[str, TemplateEntry]:
        """Read these templates consistently, a hundred at a time."""
        keys = [self._template_key(collection, template_id) for template_id in dict.fromkeys(template_ids)]
        with translated(f"read templates of collection {collection!r}"):
            return {entry.template_id: entry for entry in read_entries(self._table.present(keys))}

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
            return [name for name in self._with_templates() if companion_of(name) is None]

    def collections_with_unknown(self) -> list[str]:
        """Return the names of the collections that have templates of unknown people, sorted."""
        with translated("read the names of the collections"):
            return [name for stored in self._with_templates() if (name := companion_of(stored)) is not None]

    def copy(self, collection: str, template_ids: Sequence[str], target: str, identity: str) -> int:
        """Copy templates, up to 96 at a time with one new version of the target; returns how many were new there."""
        keys = [self._template_key(collection, template_id) for template_id in dict.fromkeys(template_ids)]
        with translated(f"read templates of collection {collection!r}"):
            items = list(self._table.present(keys))
        copies = [{**item, "collection": {"S": target}, "identity": {"S": identity}} for item in items]
        return sum(
            self._copy_group(target, copies[start : start + WRITES_AT_ONCE])
            for start in range(0, len(copies), WRITES_AT_ONCE)
        )

    def _copy_group(self, target: str, items: list[Any]) -> int:
        absent = {"ConditionExpression": "attribute_not_exists(#item)", "ExpressionAttributeNames": {"#item": "item"}}
        while items:
            writes: Any = [{"Put": {"TableName": self._table.name, "Item": item} | absent} for item in items]
            ids = [id_of(item) for item in items]
            refusals = self._changes.write(f"copy templates to {target!r}", target, writes, len(items), ids)
            if not refusals:
                break
            items = [item for number, item in enumerate(items) if number not in refusals]
        return len(items)

    def _with_templates(self) -> list[str]:
        counts = self._table.items(COLLECTIONS)
        return sorted(item["item"]["S"] for item in counts if item.get("templates") != {"N": "0"})

    def _read_rejections(self, collection: str, read: Callable[[Any], Read], only: Sequence[str] = ()) -> list[Read]:
        """Read all rejections by `read`, which raises ValueError for a damaged one."""
        found: list[Read] = []
        damaged: dict[str, str] = {}
        with translated(f"read the rejections of collection {collection!r}"):
            for item in self._table.items(collection, REJECTION, only=only):
                try:
                    found.append(read(item))
                except ValueError as exc:
                    damaged[rejection_id_of(item)] = str(exc)
        if damaged:
            log.warning("rejections_damaged", collection=collection, rejections=damaged)
        return found

    def _remove(self, doing: str, collection: str, kind: str, ids: Sequence[str]) -> int:
        delete = {
            "ConditionExpression": "attribute_exists(#item)",
            "ExpressionAttributeNames": {"#item": "item"},
        }
        return self._write_existing(doing, collection, kind, ids, "Delete", delete)

    def _reassign(self, doing: str, collection: str, kind: str, ids: Sequence[str], identity: str) -> int:
        update = {
            "UpdateExpression": "SET #identity = :identity",
            "ConditionExpression": "attribute_exists(#item)",
            "ExpressionAttributeNames": {"#item": "item", "#identity": "identity"},
            "ExpressionAttributeValues": {":identity": {"S": identity}},
        }
        return self._write_existing(doing, collection, kind, ids, "Update", update)

    def _write_existing(
        self, doing: str, collection: str, kind: str, ids: Sequence[str], action: str, fields: dict[str, Any]
    ) -> int:
        """Write to those of the items of this kind that exist, in groups of one new version; returns how many."""
        wanted = list(dict.fromkeys(ids))
        return sum(
            self._write_group(doing, collection, kind, wanted[start : start + WRITES_AT_ONCE], action, fields)
            for start in range(0, len(wanted), WRITES_AT_ONCE)
        )

    def _write_group(
        self, doing: str, collection: str, kind: str, ids: list[str], action: str, fields: dict[str, Any]
    ) -> int:
        fewer = int(kind == TEMPLATE and action == "Delete")  # by one template each
        while ids:
            keys = [self._table.key(collection, f"{kind}{each}") for each in ids]
            writes: Any = [{action: {"TableName": self._table.name, "Key": key} | fields} for key in keys]
            touched = ids if kind == TEMPLATE else []
            refusals = self._changes.write(doing, collection, writes, -fewer * len(ids), touched)
            if not refusals:
                break
            # The refused items do not exist: the others are written without them, so that the count stays exact.
            ids = [each for i, each in enumerate(ids) if i not in refusals]
        return len(ids)

    def _template_key(self, collection: str, template_id: str) -> Any:
        return self._table.key(collection, f"{TEMPLATE}{template_id}")
