"""What the object store has of one request."""

from collections.abc import Iterator
from uuid import UUID

from facerec.errors import InvalidMessage, ObjectMissing
from facerec.keys import request_prefix
from facerec.messages import RecognitionResult
from facerec.ports import ObjectStore, StoredObject
from facerec.request_story import Objects
from facerec.settings import Settings


def find(store: ObjectStore, settings: Settings, request_id: UUID) -> Objects:
    """Look for the photo, the result and, where there are any, the copies; raises `Transient`, `ConfigurationError`."""
    prefix = request_prefix(request_id)
    photos = [*_described(store, settings.input_bucket, prefix)]
    results = [one for one in _described(store, settings.output_bucket, prefix) if one.key.endswith(".json")]
    stored = results[0] if results else None
    copies: list[StoredObject] = []
    if settings.key_style == "filename":
        names = [
            (one.bucket, one.key.removeprefix(prefix).removesuffix(".json")) for one in (*photos[:1], *results[:1])
        ]
        for bucket, name in names:
            try:
                copies.append(store.describe(bucket, name))
            except ObjectMissing:
                continue
    return Objects(photos[0] if photos else None, stored, _result(store, stored), tuple(copies))


def _described(store: ObjectStore, bucket: str, prefix: str) -> Iterator[StoredObject]:
    for key in store.keys(bucket, prefix):
        try:
            yield store.describe(bucket, key)
        except ObjectMissing:
            continue  # it expired between the two looks


def _result(store: ObjectStore, stored: StoredObject | None) -> RecognitionResult | None:
    if stored is None:
        return None
    try:
        return RecognitionResult.parse(store.get(stored.bucket, stored.key))
    except (InvalidMessage, ObjectMissing):
        return None
