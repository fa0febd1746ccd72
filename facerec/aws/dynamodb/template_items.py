"""The items of the gallery's table, whose keys are `collection` and `item`: pure.

A template is the item `template#<template_id>` of its collection; the item `#version` there is the number of its last
change, counted from the time of the first, the items `change#<version>` tell which templates each of the last changes
touched, and `threshold#<model_id>` is its own threshold for a model. The partition `#collections`, a name that no
collection can have, holds for each collection the number of its templates.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import numpy as np

from facerec.aws.clients import Clients
from facerec.messages import ObjectRef
from facerec.ports import CollectionThreshold, Template

TEMPLATE_ITEM = "template#"
CHANGE_ITEM = "change#"
THRESHOLD_ITEM = "threshold#"
COLLECTIONS = "#collections"


def version_key(collection: str) -> Any:
    """The key of a collection's version."""
    return {"collection": {"S": collection}, "item": {"S": "#version"}}


def count_key(collection: str) -> Any:
    """The key of the number of a collection's templates."""
    return {"collection": {"S": COLLECTIONS}, "item": {"S": collection}}


def template_key(collection: str, template_id: str) -> Any:
    """The key of a template."""
    return {"collection": {"S": collection}, "item": {"S": f"{TEMPLATE_ITEM}{template_id}"}}


def change_key(collection: str, version: int) -> Any:
    """The key of the record of the change that made this version."""
    return {"collection": {"S": collection}, "item": {"S": f"{CHANGE_ITEM}{version:020d}"}}


def to_item(template: Template) -> Any:
    """A template as the table keeps it."""
    item = template_key(template.collection, template.template_id) | {
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


def from_item(item: Any) -> Template:
    """The inverse of `to_item`."""
    return Template(
        template_id=item["item"]["S"].removeprefix(TEMPLATE_ITEM),
        collection=item["collection"]["S"],
        identity=item["identity"]["S"],
        model_id=item["model_id"]["S"],
        embedding=np.frombuffer(item["embedding"]["B"], dtype="<f4").astype(np.float32),
        source=item["source"]["S"],
        photo=ObjectRef.parse(item["photo"]["S"]) if "photo" in item else None,
        probability=float(item["probability"]["N"]),
        enrolled_at=datetime.fromisoformat(item["enrolled_at"]["S"]),
    )


def threshold_key(collection: str, model_id: str) -> Any:
    """The key of a collection's threshold for a model."""
    return {"collection": {"S": collection}, "item": {"S": f"{THRESHOLD_ITEM}{model_id}"}}


def threshold_fields(threshold: CollectionThreshold) -> Any:
    """A threshold as the table keeps it, without its key."""
    return {
        "value": {"N": repr(float(threshold.value))},
        "target_fmr": {"N": repr(float(threshold.target_fmr))},
        "fmr": {"N": repr(float(threshold.fmr))},
        "impostor_pairs": {"N": str(threshold.impostor_pairs)},
        "source": {"S": threshold.source},
        "calibrated_at": {"S": threshold.calibrated_at.isoformat()},
    }


def threshold_from(item: Any) -> CollectionThreshold:
    """The inverse of `threshold_fields`."""
    return CollectionThreshold(
        value=float(item["value"]["N"]),
        target_fmr=float(item["target_fmr"]["N"]),
        fmr=float(item["fmr"]["N"]),
        impostor_pairs=int(item["impostor_pairs"]["N"]),
        source=item["source"]["S"],
        calibrated_at=datetime.fromisoformat(item["calibrated_at"]["S"]),
    )


_GET_BATCH = 100
"""Items that one request may ask for by their keys."""


class CollectionTable:
    """Reads items; errors are botocore's, for the caller to translate. Nothing is cached."""

    def __init__(self, clients: Clients, name: str) -> None:
        self.name = name
        self._clients = clients

    def item(self, key: Any) -> Any:
        """The item with its key, or nothing."""
        return self._clients.dynamodb.get_item(TableName=self.name, Key=key, ConsistentRead=True).get("Item")

    def items(self, collection: str, prefix: str = "", after: str = "") -> Iterator[Any]:
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
            TableName=self.name,
            ConsistentRead=True,
            KeyConditionExpression=condition,
            ExpressionAttributeNames=names,
            ExpressionAttributeValues={name: {"S": value} for name, value in values.items()},
        )
        for page in pages:
            yield from page["Items"]

    def present(self, keys: Sequence[Any]) -> Iterator[Any]:
        """Those of the items that are there."""
        wanted = list(keys)
        while wanted:
            batch, wanted = wanted[:_GET_BATCH], wanted[_GET_BATCH:]
            reply = self._clients.dynamodb.batch_get_item(
                RequestItems={self.name: {"Keys": batch, "ConsistentRead": True}}
            )
            yield from reply["Responses"].get(self.name, [])
            # A reply has 16 MB at most; the rest of the keys comes back.
            unprocessed: Any = reply.get("UnprocessedKeys", {})
            wanted += unprocessed.get(self.name, {}).get("Keys", [])
