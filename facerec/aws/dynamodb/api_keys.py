"""API keys in a DynamoDB table of their own, one item each."""

from typing import Any

from pydantic import TypeAdapter, ValidationError

from facerec.api_keys import ApiKey
from facerec.aws.clients import Clients, translated, translated_for_one
from facerec.aws.dynamodb import Table
from facerec.errors import ApiKeyUnreadable, FacerecError
from facerec.ports import ListedKeys

_KIND = "api-key"
_KEY: TypeAdapter[ApiKey] = TypeAdapter(ApiKey)


class DynamoApiKeys:
    """`ApiKeys` on DynamoDB. Keys never expire from the table: ended ones record who had which rights, and when."""

    def __init__(self, clients: Clients, table: str) -> None:
        self._table = Table(clients, table)

    def get(self, key_id: str) -> ApiKey | None:
        """Return the key, if it exists: one consistent read, so that a new key works at once."""
        with translated("read an API key"):
            item = self._table.item(self._table.key(_KIND, key_id))
        return _parse(item) if item else None

    def keys(self) -> ListedKeys:
        """Return all keys."""
        with translated("list the API keys"):
            items = list(self._table.items(_KIND))
        keys: list[ApiKey] = []
        unreadable: list[ApiKeyUnreadable] = []
        for item in items:
            try:
                keys.append(_parse(item))
            except ApiKeyUnreadable as exc:
                unreadable.append(exc)
        return ListedKeys(sorted(keys, key=lambda key: (key.created_at, key.key_id)), unreadable)

    def put(self, key: ApiKey) -> None:
        """Write the item, on condition that it has the previous revision, or does not exist."""
        item = self._table.key(_KIND, key.key_id)
        item |= {"revision": {"N": str(key.revision)}, "record": {"S": _KEY.dump_json(key).decode()}}
        with translated_for_one(f"write API key {key.key_id}"):
            if key.revision > 1:
                written = self._table.put_if(item, "revision = :before", {":before": {"N": str(key.revision - 1)}})
            else:
                written = self._table.put_if(item, "attribute_not_exists(revision)")
        if not written:
            raise FacerecError(f"key {key.key_id} was changed by someone else just now: try again")


def _parse(item: Any) -> ApiKey:
    try:
        return _KEY.validate_json(item["record"]["S"])
    except (KeyError, ValidationError) as exc:
        # Without the error's own text, which contains the record.
        raise ApiKeyUnreadable(
            f"API key {item['item']['S']} cannot be read: it is damaged, or of a later version"
        ) from exc
