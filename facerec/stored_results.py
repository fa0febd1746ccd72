"""Results in the output bucket: written by the use case, read back by the web tier and by commands."""

from uuid import UUID

import structlog

from facerec.errors import InvalidMessage, ObjectMissing
from facerec.messages import RecognitionResult
from facerec.object_keys import copy_key, output_key, request_prefix
from facerec.ports import ObjectStore

log = structlog.get_logger(__name__)


def store_result(store: ObjectStore, bucket: str, result: RecognitionResult, *, copy_by_filename: bool = False) -> None:
    """Store a result under its request id; with `copy_by_filename` also its bare name under the file's own name."""
    key = output_key(result.request_id, result.filename)
    store.put(bucket, key, result.to_json().encode(), "application/json")
    if copy_by_filename:
        store.put(bucket, copy_key(result.filename), result.result.encode(), "text/plain; charset=utf-8")


def stored_result(store: ObjectStore, bucket: str, key: str) -> RecognitionResult | None:
    """Return the result stored under `output_key`; `None` if there is none or this version cannot read it."""
    try:
        return RecognitionResult.parse(store.get(bucket, key))
    except ObjectMissing:
        return None
    except InvalidMessage as exc:
        log.warning("stored_result_unreadable", bucket=bucket, key=key, reason=str(exc))
        return None


def result_of_request(store: ObjectStore, bucket: str, request_id: UUID) -> RecognitionResult | None:
    """Return a stored result by the request id alone; `None` as `stored_result`."""
    keys = (key for key in store.keys(bucket, request_prefix(request_id)) if key.endswith(".json"))
    key = next(keys, None)
    return None if key is None else stored_result(store, bucket, key)
