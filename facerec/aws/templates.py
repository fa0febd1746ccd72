"""The gallery's system of record on DynamoDB: one table, every change of a collection one transaction.

The table's keys are `collection` and `item`. A template is the item `template#<template_id>` of its collection; the
item `#version` there counts the collection's changes, and `threshold#<model_id>` is its own threshold for a model. The
partition `#collections`, a name that no collection can have, holds for each collection the number of its templates.
"""

import random
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
from facerec.ports import CollectionThreshold, Template

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import TransactWriteItemTypeDef

_VERSION_ITEM = "#version"
_TEMPLATE_ITEM = "template#"
_COLLECTIONS = "#collections"
_THRESHOLD_ITEM = "threshold#"

_BATCH = 98
"""A transaction takes 100 items; two of them are the version and the count."""
_ATTEMPTS = 12
_LONGEST_PAUSE_SECONDS = 1.0
_CONDITION_FAILED = "ConditionalCheckFailed"
_LOST_RACES = frozenset(
    {"TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded", "TransactionInProgressException"}
)
"""Why DynamoDB cancels a transaction that may succeed a moment later."""


class DynamoTemplateStore:
    """`TemplateStore` on DynamoDB, safe for concurrent writers in any number of processes.

    All writers of a collection raise one `#version`, so concurrent ones conflict: the losers try again with exponential
    backoff and full jitter, for some seconds at most, and then raise `Transient`. `sleep` takes seconds.
    """

    def __init__(self, clients: Clients, table: str, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._clients = clients
        self._table = table
        self._sleep = sleep

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
        refusals = self._transact(f"enrol {template.identity!r}", [put, *self._changed(template.collection, 1)])
        if refusals:
            existing = refusals[0].get("Item") or self._item(template.collection, template.template_id)
            raise AlreadyEnrolled(existing.get("identity", {}).get("S", template.identity), template.template_id)

    def remove(self, collection: str, template_ids: Sequence[str]) -> int:
        """Remove templates, up to 98 at a time all or none with one new version; returns how many were there."""
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
            changed = self._changed(collection, -len(template_ids))
            refusals = self._transact(f"remove templates from {collection!r}", [*deletions, *changed])
            if not refusals:
                break
            # The refused ones are not there (any more): the rest goes without them, so that the count stays exact.
            template_ids = [template_id for i, template_id in enumerate(template_ids) if i not in refusals]
        return len(template_ids)

    def _changed(self, collection: str, templates: int) -> "list[TransactWriteItemTypeDef]":
        version = {"collection": {"S": collection}, "item": {"S": _VERSION_ITEM}}
        count = {"collection": {"S": _COLLECTIONS}, "item": {"S": collection}}
        return [self._raised(version, "version", 1), self._raised(count, "templates", templates)]

    def _raised(self, key: Any, attribute: str, by: int) -> "TransactWriteItemTypeDef":
        return {
            "Update": {
                "TableName": self._table,
                "Key": key,
                "UpdateExpression": "ADD #number :by",
                "ExpressionAttributeNames": {"#number": attribute},
                "ExpressionAttributeValues": {":by": {"N": str(by)}},
            }
        }

    def _transact(self, doing: str, items: "list[TransactWriteItemTypeDef]") -> dict[int, Any]:
        """Write all or nothing; returns the cancellation reasons of the items whose condition failed, by index."""
        for attempt in range(_ATTEMPTS):
            with translated(doing):
                try:
                    # boto3 sends a token of its own, so that its retries after a lost reply do not write twice.
                    self._clients.dynamodb.transact_write_items(TransactItems=items)
                except ClientError as exc:
                    reasons: list[Any] = exc.response.get("CancellationReasons", [])
                    failed = {i: reason for i, reason in enumerate(reasons) if reason["Code"] == _CONDITION_FAILED}
                    if failed:
                        return failed
                    codes = {exc.response["Error"]["Code"], *(reason["Code"] for reason in reasons)}
                    if not codes & _LOST_RACES:
                        raise
                else:
                    return {}
            longest = min(_LONGEST_PAUSE_SECONDS, 0.02 * 2**attempt)
            self._sleep(random.uniform(0, longest))  # noqa: S311 - jitter, no secret
        raise Transient(f"could not {doing}: too many others write to the collection at the same time; retry later")

    def _items(self, collection: str, prefix: str = "") -> Iterator[Any]:
        """The items of a partition whose sort key begins with the prefix."""
        condition, names, values = (
            "#collection = :collection",
            {"#collection": "collection"},
            {":collection": collection},
        )
        if prefix:
            condition += " AND begins_with(#item, :prefix)"
            names["#item"] = "item"
            values[":prefix"] = prefix
        pages = self._clients.dynamodb.get_paginator("query").paginate(
            TableName=self._table,
            ConsistentRead=True,
            KeyConditionExpression=condition,
            ExpressionAttributeNames=names,
            ExpressionAttributeValues={name: {"S": value} for name, value in values.items()},
        )
        for page in pages:
            yield from page["Items"]

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
        version = {"collection": {"S": collection}, "item": {"S": _VERSION_ITEM}}
        self._transact(f"set the threshold of {collection!r}", [change, self._raised(version, "version", 1)])


def _key(collection: str, template_id: str) -> Any:
    return {"collection": {"S": collection}, "item": {"S": f"{_TEMPLATE_ITEM}{template_id}"}}


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
