"""The stores on DynamoDB. Every table has a partition key and the sort key `item`, both strings."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from facerec.aws.clients import Clients
from facerec.errors import Transient

EXPIRES_AT = "expires_at"
"""The fleet table's attribute with the time, in seconds since the epoch, after which DynamoDB removes the item."""
_GET_BATCH = 100  # items that one request may get by their keys


@contextmanager
def readable(item: Any) -> Iterator[None]:
    """Turn the errors of reading an item, if an attribute is missing or of another type, into `Transient`."""
    try:
        yield
    except (KeyError, ValueError) as exc:  # botocore has checked that an attribute has the type that it is named for
        key = ", ".join(f"{name} {item.get(name)}" for name in ("kind", "item"))
        reason = " ".join(f"{type(exc).__name__}: {exc}".split())
        raise Transient(f"the item of {key} cannot be read: {reason}; if it stays so, delete it") from exc


def expiring(moment: datetime) -> Any:
    """Return the attribute with which DynamoDB removes an item after this time."""
    return {EXPIRES_AT: {"N": str(int(moment.timestamp()))}}


def condition_failed(cancelled: Any) -> bool:
    """Whether a transaction was cancelled by one of its conditions, and not by a conflict or a limit."""
    return any(reason["Code"] == "ConditionalCheckFailed" for reason in cancelled.response["CancellationReasons"])


class Table:
    """Consistent reads and single writes of a table; `partition` names its partition key. Errors are botocore's."""

    def __init__(self, clients: Clients, name: str, partition: str = "kind") -> None:
        self.name = name
        self._clients = clients
        self._partition = partition

    def key(self, partition: str, item: str) -> Any:
        """Return the key of an item."""
        return {self._partition: {"S": partition}, "item": {"S": item}}

    def item(self, key: Any) -> Any:
        """Return the item with this key, or None."""
        return self._clients.dynamodb.get_item(TableName=self.name, Key=key, ConsistentRead=True).get("Item")

    def put(self, item: Any) -> None:
        """Write an item, whatever is there."""
        self._clients.dynamodb.put_item(TableName=self.name, Item=item)

    def put_if(self, item: Any, condition: str, values: Any = None) -> bool:
        """Write an item if the one that is there meets a condition; returns whether it did."""
        options: Any = {} if values is None else {"ExpressionAttributeValues": values}
        try:
            self._clients.dynamodb.put_item(TableName=self.name, Item=item, ConditionExpression=condition, **options)
        except self._clients.dynamodb.exceptions.ConditionalCheckFailedException:
            return False
        return True

    def delete(self, key: Any) -> None:
        """Delete an item, if it is there."""
        self._clients.dynamodb.delete_item(TableName=self.name, Key=key)

    def items(
        self,
        partition: str,
        prefix: str = "",
        after: str = "",
        since: str = "",
        only: Sequence[str] = (),
        at_once: int | None = None,
        *,
        until: str = "",
        newest_first: bool = False,
    ) -> Iterator[Any]:
        """Yield a partition's items in the order of their sort keys, page by page, each page when it is needed.

        `prefix` selects the sort keys that begin with it, and `after` those after another one with this prefix, which
        ends in digits. `since` selects that sort key and all later ones, with `until` those up to it. `only` are the
        attributes to transfer. A page has `at_once` items, without it what DynamoDB sends at once, up to 1 MB.
        `newest_first` reverses the order.
        """
        condition = "#partition = :partition"
        names, values = {"#partition": self._partition}, {":partition": partition}
        if after:
            condition += " AND #item BETWEEN :after AND :end"
            values |= {":after": f"{after}!", ":end": f"{prefix}~"}  # "!" sorts before all digits and "~" behind them
        elif prefix:
            condition += " AND begins_with(#item, :prefix)"
            values[":prefix"] = prefix
        elif until:
            condition += " AND #item BETWEEN :since AND :until"
            values |= {":since": since, ":until": until}
        elif since:
            condition += " AND #item >= :since"
            values[":since"] = since
        if prefix or since:
            names["#item"] = "item"
        options: Any = {}
        if only:
            names |= {f"#only{number}": name for number, name in enumerate(only)}
            options = {"ProjectionExpression": ", ".join(f"#only{number}" for number in range(len(only)))}
        if at_once is not None:
            options["PaginationConfig"] = {"PageSize": at_once}
        if newest_first:
            options["ScanIndexForward"] = False
        pages = self._clients.dynamodb.get_paginator("query").paginate(
            TableName=self.name,
            ConsistentRead=True,
            KeyConditionExpression=condition,
            ExpressionAttributeNames=names,
            ExpressionAttributeValues={name: {"S": value} for name, value in values.items()},
            **options,
        )
        for page in pages:
            yield from page["Items"]

    def present(self, keys: Sequence[Any]) -> Iterator[Any]:
        """Yield the existing items with these keys, in any order."""
        wanted = list(keys)
        while wanted:
            batch, wanted = wanted[:_GET_BATCH], wanted[_GET_BATCH:]
            reply = self._clients.dynamodb.batch_get_item(
                RequestItems={self.name: {"Keys": batch, "ConsistentRead": True}}
            )
            yield from reply["Responses"].get(self.name, [])
            # A reply has at most 16 MB; it names the keys that are left.
            unprocessed: Any = reply.get("UnprocessedKeys", {})
            wanted += unprocessed.get(self.name, {}).get("Keys", [])
