"""CreateCollection, DeleteCollection, ListCollections and DescribeCollection."""

from datetime import UTC, datetime
from typing import Any

from facerec.ports import CollectionRecord
from facerec.web.api.rekognition.calls import Calls, may_delete, reaching
from facerec.web.api.rekognition.errors import RekognitionError
from facerec.web.api.rekognition.requests import MAX_PAGE, OfCollection, Page, page_of, token_of
from facerec.web.auth.access import client_name, presented_key
from facerec.web.auth.collections import may_use, own_collection

_ACCOUNT = "000000000000"
"""There is no AWS account behind a collection."""


def create_collection(calls: Calls) -> dict[str, Any]:
    """Create a collection for the caller."""
    collection = calls.body(OfCollection).collection_id
    key = presented_key()
    record = CollectionRecord(collection, None if key is None else key.key_id, datetime.now(UTC))
    with reaching():
        if calls.exists(collection) or not calls.services.collections.create(record):
            raise RekognitionError("ResourceAlreadyExistsException", f"The collection id: {collection} already exists")
        return {
            "StatusCode": 200,
            "CollectionArn": _arn(calls, collection),
            "FaceModelVersion": calls.model_of(collection),
        }


def delete_collection(calls: Calls) -> dict[str, Any]:
    """Erase everybody of a collection, and remove the collection."""
    collection = calls.body(OfCollection).collection_id
    record = calls.usable(collection)
    if not may_delete(presented_key(), record):
        message = "the operator made this collection: delete its faces, or ask the operator"
        raise RekognitionError("AccessDeniedException", message)
    with reaching():
        calls.services.erase_everybody(collection, f"Rekognition API, {client_name()}")
        # Last: an interrupted deletion can be repeated by its owner.
        calls.services.collections.remove(collection)
    return {"StatusCode": 200}


def list_collections(calls: Calls) -> dict[str, Any]:
    """List the collections that the caller may use."""
    page = calls.body(Page)
    key = presented_key()
    with reaching():
        records = {record.collection: record for record in calls.services.collections.records()}
        known = records.keys() | calls.services.people.collections() | {own_collection(key)}
        usable = [name for name in sorted(known) if may_use(key, name, records.get(name))]
        shown, token = page_of(usable, page.next_token, page.max_results or MAX_PAGE)
        models = [calls.model_of(name) for name in shown]
    return {"CollectionIds": shown, "FaceModelVersions": models} | token_of(token)


def describe_collection(calls: Calls) -> dict[str, Any]:
    """Describe a collection."""
    collection = calls.body(OfCollection).collection_id
    record = calls.usable(collection)
    with reaching():
        first = next(calls.services.people.entries(collection, at_once=1), None)
        answer = {
            "FaceCount": calls.services.people.count(collection),
            "FaceModelVersion": calls.model_of(collection),
            "CollectionARN": f"arn:{_arn(calls, collection)}",
            "UserCount": 0,
        }
    created_at = record.created_at if record else first.enrolled_at if first else None
    return answer if created_at is None else answer | {"CreationTimestamp": created_at.timestamp()}


def _arn(calls: Calls, collection: str) -> str:
    return f"aws:rekognition:{calls.services.settings.aws.region}:{_ACCOUNT}:collection/{collection}"
