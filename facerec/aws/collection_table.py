"""Consistent reads of a DynamoDB table with the keys `collection` and `item`."""

from collections.abc import Iterator, Sequence
from typing import Any

from facerec.aws.clients import Clients

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
