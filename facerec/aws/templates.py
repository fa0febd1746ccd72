"""The gallery's system of record on DynamoDB: one table, every change of a collection one transaction.

The table's keys are `collection` and `item`. A template is the item `template#<template_id>` of its collection; the
item `#version` there is the number of its last change, counted from the time of the first, the items
`change#<version>` tell which templates each of the last changes touched, and `threshold#<model_id>` is its own
threshold for a model. The partition `#collections`, a name that no collection can have, holds for each collection the
number of its templates.
"""

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np
from botocore.exceptions import ClientError

from facerec.aws.clients import Clients, translated
from facerec.errors import AlreadyEnrolled, Transient
from facerec.messages import ObjectRef
from facerec.ports import Changes, CollectionThreshold, Template

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import TransactWriteItemTypeDef

_VERSION_ITEM = "#version"
_TEMPLATE_ITEM = "template#"
_CHANGE_ITEM = "change#"
_COLLECTIONS = "#collections"
_THRESHOLD_ITEM = "threshold#"

_BATCH = 96
"""A transaction takes 100 items; four of them are version, count, change, and the change that is too old."""
_GET_BATCH = 100
"""Items that one request may ask for by their keys."""
_KEPT_CHANGES = 10_000
"""A hundred bytes for an enrolment, 4 kB at most; a reader farther behind reads the collection whole."""
_ATTEMPTS = 20
_LONGEST_PAUSE_SECONDS = 1.0
_CONDITION_FAILED = "ConditionalCheckFailed"
_LOST_RACES = frozenset(
    {"TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded", "TransactionInProgressException"}
)
"""Why DynamoDB cancels a transaction that may succeed a moment later."""


class DynamoTemplateStore:
    """`TemplateStore` on DynamoDB, safe for concurrent writers in any number of processes.

    All writers of a collection raise one `#version`, so concurrent ones conflict: the losers try again with exponential
    backoff and full jitter, for some seconds at most, and then raise `Transient`; the threads of one store write in
    turn. The last `kept_changes` changes of a collection can be told. `sleep` takes seconds.
    """

    def __init__(
        self,
        clients: Clients,
        table: str,
        *,
        kept_changes: int = _KEPT_CHANGES,
        sleep: Callable[[float], None] = time.sleep,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._clients = clients
        self._table = table
        self._kept_changes = kept_changes
        self._sleep = sleep
        self._now_ms = now_ms
        self._writing = threading.Lock()

    def add(self, template: Template) -> None:
        """Add one template with its collection's new version, both or neither; raises `AlreadyEnrolled`."""
        put: TransactWriteItemTypeDef = {
            "Put": {
                "TableName": self._table,
                "Item": _to_item(template),
                "ConditionExpression": "attribute_not_exists(#item)",
                "ExpressionAttributeNames": {"#item": "item"},
                "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            }
        }
        doing = f"enrol {template.identity!r}"
        refusals = self._transact(doing, template.collection, [put], 1, [template.template_id])
        if refusals:
            existing = refusals[0].get("Item") or self._item(template.collection, template.template_id)
            raise AlreadyEnrolled(existing.get("identity", {}).get("S", template.identity), template.template_id)

    def remove(self, collection: str, template_ids: Sequence[str]) -> int:
        """Remove templates, up to 96 at a time all or none with one new version; returns how many were there."""
        removed = 0
        wanted = list(dict.fromkeys(template_ids))
        for start in range(0, len(wanted), _BATCH):
            removed += self._remove_batch(collection, wanted[start : start + _BATCH])
        return removed

    def version(self, collection: str) -> int:
        """Return the number of changes so far: one consistent read of a tiny item."""
        with translated(f"read the version of collection {collection!r}"):
            reply = self._clients.dynamodb.get_item(
                TableName=self._table,
                Key={"collection": {"S": collection}, "item": {"S": _VERSION_ITEM}},
                ConsistentRead=True,
            )
        return int(reply["Item"]["version"]["N"]) if "Item" in reply else 0

    def changes(self, collection: str, since: int) -> Changes | None:
        """Read the changes after that version, and the templates that they left, consistently.

        Nothing is returned when some of them are no longer kept, or were written without a record.
        """
        version = self.version(collection)
        if not 0 <= version - since <= self._kept_changes:
            return None
        touched: set[str] = set()
        with translated(f"read the changes of collection {collection!r}"):
            following = since
            for item in self._items(collection, _CHANGE_ITEM, after=_change_key(collection, since)["item"]["S"]):
                following += 1
                if item["item"] != _change_key(collection, following)["item"]:
                    return None
                touched |= {name["S"] for name in item["template_ids"]["L"]}
            if following < version:
                return None
            added = [_from_item(item) for item in self._present(collection, sorted(touched))]
        return Changes(following, added, sorted(touched - {template.template_id for template in added}))

    def templates(self, collection: str) -> Iterator[Template]:
        """Read every template of the collection consistently, page by page, sorted by identity and id."""
        with translated(f"read the templates of collection {collection!r}"):
            found = [_from_item(item) for item in self._items(collection, _TEMPLATE_ITEM)]
        return iter(sorted(found, key=attrgetter("identity", "template_id")))

    def collections(self) -> list[str]:
        """Return the names of the collections that hold templates, sorted."""
        with translated("read the names of the collections"):
            counts = self._items(_COLLECTIONS)
            return sorted(item["item"]["S"] for item in counts if int(item["templates"]["N"]) > 0)

    def _remove_batch(self, collection: str, template_ids: list[str]) -> int:
        while template_ids:
            deletions: list[TransactWriteItemTypeDef] = [
                {
                    "Delete": {
                        "TableName": self._table,
                        "Key": _key(collection, template_id),
                        "ConditionExpression": "attribute_exists(#item)",
                        "ExpressionAttributeNames": {"#item": "item"},
                    }
                }
                for template_id in template_ids
            ]
            doing = f"remove templates from {collection!r}"
            refusals = self._transact(doing, collection, deletions, -len(template_ids), template_ids)
            if not refusals:
                break
            # The refused ones are not there (any more): the rest goes without them, so that the count stays exact.
            template_ids = [template_id for i, template_id in enumerate(template_ids) if i not in refusals]
        return len(template_ids)

    def _transact(
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
        change = _change_key(collection, following) | {"template_ids": {"L": [{"S": name} for name in template_ids]}}
        values = {":following": {"N": str(following)}} | ({":version": {"N": str(version)}} if version else {})
        return [
            {
                "Update": {
                    "TableName": self._table,
                    "Key": {"collection": {"S": collection}, "item": {"S": _VERSION_ITEM}},
                    "UpdateExpression": "SET #version = :following",
                    "ConditionExpression": "#version = :version" if version else "attribute_not_exists(#version)",
                    "ExpressionAttributeNames": {"#version": "version"},
                    "ExpressionAttributeValues": values,
                }
            },
            {
                "Update": {
                    "TableName": self._table,
                    "Key": {"collection": {"S": _COLLECTIONS}, "item": {"S": collection}},
                    "UpdateExpression": "ADD #templates :by",
                    "ExpressionAttributeNames": {"#templates": "templates"},
                    "ExpressionAttributeValues": {":by": {"N": str(templates)}},
                }
            },
            {"Put": {"TableName": self._table, "Item": change}},
            {"Delete": {"TableName": self._table, "Key": _change_key(collection, following - self._kept_changes)}},
        ]

    def _items(self, collection: str, prefix: str = "", after: str = "") -> Iterator[Any]:
        """The items of a partition whose sort key begins with the prefix, in its order, and those after a key alone."""
        condition, names, values = (
            "#collection = :collection",
            {"#collection": "collection"},
            {":collection": collection},
        )
        if after:
            condition += " AND #item BETWEEN :after AND :end"
            values |= {":after": f"{after}!", ":end": f"{prefix}~"}  # "!" is before and "~" behind all digits
        elif prefix:
            condition += " AND begins_with(#item, :prefix)"
            values[":prefix"] = prefix
        if prefix:
            names["#item"] = "item"
        pages = self._clients.dynamodb.get_paginator("query").paginate(
            TableName=self._table,
            ConsistentRead=True,
            KeyConditionExpression=condition,
            ExpressionAttributeNames=names,
            ExpressionAttributeValues={name: {"S": value} for name, value in values.items()},
        )
        for page in pages:
            yield from page["Items"]

    def _present(self, collection: str, template_ids: list[str]) -> Iterator[Any]:
        """The items of those of the templates that are there."""
        wanted = [_key(collection, template_id) for template_id in template_ids]
        while wanted:
            keys, wanted = wanted[:_GET_BATCH], wanted[_GET_BATCH:]
            reply = self._clients.dynamodb.batch_get_item(
                RequestItems={self._table: {"Keys": keys, "ConsistentRead": True}}
            )
            yield from reply["Responses"].get(self._table, [])
            # A reply has 16 MB at most; the rest of the keys comes back.
            unprocessed: Any = reply.get("UnprocessedKeys", {})
            wanted += unprocessed.get(self._table, {}).get("Keys", [])

    def _item(self, collection: str, template_id: str) -> Any:
        with translated(f"read template {template_id!r}"):
            reply = self._clients.dynamodb.get_item(
                TableName=self._table, Key=_key(collection, template_id), ConsistentRead=True
            )
        return reply.get("Item", {})

    def threshold(self, collection: str, model_id: str) -> CollectionThreshold | None:
        """Return the collection's threshold for the model: one consistent read of a small item."""
        with translated(f"read the threshold of collection {collection!r}"):
            reply = self._clients.dynamodb.get_item(
                TableName=self._table, Key=_threshold_key(collection, model_id), ConsistentRead=True
            )
        return _threshold_from(reply["Item"]) if "Item" in reply else None

    def set_threshold(self, collection: str, model_id: str, threshold: CollectionThreshold | None) -> None:
        """Write or remove the threshold with the collection's new version, both or neither."""
        key = _threshold_key(collection, model_id)
        change: TransactWriteItemTypeDef = (
            {"Delete": {"TableName": self._table, "Key": key}}
            if threshold is None
            else {"Put": {"TableName": self._table, "Item": key | _threshold_fields(threshold)}}
        )
        self._transact(f"set the threshold of {collection!r}", collection, [change], 0, [])


def _key(collection: str, template_id: str) -> Any:
    return {"collection": {"S": collection}, "item": {"S": f"{_TEMPLATE_ITEM}{template_id}"}}


def _change_key(collection: str, version: int) -> Any:
    return {"collection": {"S": collection}, "item": {"S": f"{_CHANGE_ITEM}{version:020d}"}}


def _to_item(template: Template) -> Any:
    item = _key(template.collection, template.template_id) | {
        "identity": {"S": template.identity},
        "model_id": {"S": template.model_id},
        "embedding": {"B": template.embedding.astype("<f4").tobytes()},
        "source": {"S": template.source},
        "probability": {"N": repr(float(template.probability))},
        "enrolled_at": {"S": template.enrolled_at.isoformat()},
    }
    if template.photo is not None:
        item["photo"] = {"S": template.photo.to_json()}
    return item


def _from_item(item: Any) -> Template:
    return Template(
        template_id=item["item"]["S"].removeprefix(_TEMPLATE_ITEM),
        collection=item["collection"]["S"],
        identity=item["identity"]["S"],
        model_id=item["model_id"]["S"],
        embedding=np.frombuffer(item["embedding"]["B"], dtype="<f4").astype(np.float32),
        source=item["source"]["S"],
        photo=ObjectRef.parse(item["photo"]["S"]) if "photo" in item else None,
        probability=float(item["probability"]["N"]),
        enrolled_at=datetime.fromisoformat(item["enrolled_at"]["S"]),
    )


def _threshold_key(collection: str, model_id: str) -> Any:
    return {"collection": {"S": collection}, "item": {"S": f"{_THRESHOLD_ITEM}{model_id}"}}


def _threshold_fields(threshold: CollectionThreshold) -> Any:
    return {
        "value": {"N": repr(float(threshold.value))},
        "target_fmr": {"N": repr(float(threshold.target_fmr))},
        "fmr": {"N": repr(float(threshold.fmr))},
        "impostor_pairs": {"N": str(threshold.impostor_pairs)},
        "source": {"S": threshold.source},
        "calibrated_at": {"S": threshold.calibrated_at.isoformat()},
    }


def _threshold_from(item: Any) -> CollectionThreshold:
    return CollectionThreshold(
        value=float(item["value"]["N"]),
        target_fmr=float(item["target_fmr"]["N"]),
        fmr=float(item["fmr"]["N"]),
        impostor_pairs=int(item["impostor_pairs"]["N"]),
        source=item["source"]["S"],
        calibrated_at=datetime.fromisoformat(item["calibrated_at"]["S"]),
    )
