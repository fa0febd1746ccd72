"""API keys in a DynamoDB table of their own: one item each, of which the web tier reads single ones."""

from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from facerec.api_keys import ApiKey
from facerec.aws.clients import Clients, translated
from facerec.errors import ApiKeyUnreadable, FacerecError
from facerec.ports import ListedKeys

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import PutItemInputTypeDef
    from mypy_boto3_dynamodb.type_defs import UniversalAttributeValueTypeDef as Value

_KIND = "api-key"
_KEY: TypeAdapter[ApiKey] = TypeAdapter(ApiKey)


class DynamoApiKeys:
    """`ApiKeys` on DynamoDB. Keys never go by themselves: those that ended tell who could do what, and when."""

    def __init__(self, clients: Clients, table: str) -> None:
        self._clients = clients
        self._table = table

    def get(self, key_id: str) -> ApiKey | None:
        """One consistent read: a key works as soon as it has been shown."""
        with translated("read an API key"):
            reply = self._clients.dynamodb.get_item(TableName=self._table, Key=_place(key_id), ConsistentRead=True)
        return _parsed(reply["Item"]) if "Item" in reply else None

    def keys(self) -> ListedKeys:
        """Read all items, consistently, page by page, in the order of their ids."""
        with translated("list the API keys"):
            pages = self._clients.dynamodb.get_paginator("query").paginate(
                TableName=self._table,
                KeyConditionExpression="kind = :kind",
                ExpressionAttributeValues={":kind": {"S": _KIND}},
                ConsistentRead=True,
            )
            items = [item for page in pages for item in page["Items"]]
        keys: list[ApiKey] = []
        unreadable: list[ApiKeyUnreadable] = []
        for item in items:
            try:
                keys.append(_parsed(item))
            except ApiKeyUnreadable as exc:
                unreadable.append(exc)
        return ListedKeys(sorted(keys, key=lambda key: (key.created_at, key.key_id)), unreadable)

    def put(self, key: ApiKey) -> None:
        """Write the item where the revision before this one is, or none before the first."""
        fields: dict[str, Value] = {
            "revision": {"N": str(key.revision)},
            "record": {"S": _KEY.dump_json(key).decode()},
        }
        put: PutItemInputTypeDef = {"TableName": self._table, "Item": _place(key.key_id) | fields}
        if key.revision == 1:
            put["ConditionExpression"] = "attribute_not_exists(revision)"
        else:
            put["ConditionExpression"] = "revision = :before"
            put["ExpressionAttributeValues"] = {":before": {"N": str(key.revision - 1)}}
        with translated(f"write API key {key.key_id}"):
            try:
                self._clients.dynamodb.put_item(**put)
            except self._clients.dynamodb.exceptions.ConditionalCheckFailedException as exc:
                raise FacerecError(f"key {key.key_id} was changed by someone else just now: try again") from exc


def _place(key_id: str) -> "dict[str, Value]":
    return {"kind": {"S": _KIND}, "item": {"S": key_id}}


def _parsed(item: Any) -> ApiKey:
    try:
        return _KEY.validate_json(item["record"]["S"])
    except (KeyError, ValidationError) as exc:
        # Not the error's own text, which holds what was read.
        raise ApiKeyUnreadable(
            f"API key {item['item']['S']} cannot be read: it is damaged, or of a later version"
        ) from exc
