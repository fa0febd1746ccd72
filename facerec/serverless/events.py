"""What Lambda hands over: which kind of event it is, SQS records as deliveries, S3 records as requests. Pure."""

from collections.abc import Callable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any
from urllib.parse import unquote_plus
from uuid import NAMESPACE_URL, UUID, uuid5

from facerec.delivery.driver import TaskDelivery
from facerec.errors import InvalidMessage
from facerec.message_base import ObjectRef
from facerec.messages import RecognitionRequest
from facerec.object_keys import base_name

_UNREADABLE = (AttributeError, LookupError, TypeError, ValueError)
"""What taking values out of an arbitrary record may raise."""


class EventKind(StrEnum):
    """What invokes a function."""

    SQS = "aws:sqs"
    S3 = "aws:s3"
    URL = "function_url"


def kind_of(event: Any) -> EventKind | None:
    """The kind of an event; `None` for any other, such as a test event of the console.

    No records are a batch of SQS with nothing to do, by which the local Lambda service initialises a function.
    """
    try:
        if "Records" in event:
            sources = {record.get("eventSource") for record in event["Records"]} or {EventKind.SQS}
            return EventKind.S3 if EventKind.S3 in sources else EventKind.SQS if EventKind.SQS in sources else None
        return EventKind.URL if "http" in event["requestContext"] else None
    except _UNREADABLE:
        return None


def sqs_delivery(record: Mapping[str, Any], request_id: Callable[[str], str]) -> TaskDelivery:
    """The message of an SQS record; raises `InvalidMessage` for a record that is none.

    `request_id` reads the id from the body of a message that may hold anything; it returns an empty text then.
    """
    try:
        if record["eventSource"] != EventKind.SQS:
            raise InvalidMessage(f"a record of {record['eventSource']!r} is among messages of SQS")
        body = record["body"]
        if not isinstance(body, str):
            raise InvalidMessage("a record has no text as its body")
        attempt = int(record["attributes"]["ApproximateReceiveCount"])
    except _UNREADABLE as exc:
        raise InvalidMessage(f"a record of SQS cannot be read: {exc!r}") from exc
    return TaskDelivery(body, body, request_id(body) or "unknown", attempt)


def s3_request(record: Mapping[str, Any], reply_to: str) -> RecognitionRequest | None:
    """The request for a photo that was put into the bucket; raises `InvalidMessage` for a record that is none.

    It is `None` for an object that is none of ours to take: a folder, or what the web tier, the URL or the detection
    half have put under a request id. The id of the request is derived from this put of the object: the same event has
    the same id each time.
    """
    try:
        bucket, stored = record["s3"]["bucket"]["name"], record["s3"]["object"]
        key = unquote_plus(stored["key"])
        if key.endswith("/") or _is_uuid(key.split("/", 1)[0]):
            return None
        put = stored.get("versionId") or stored.get("sequencer") or stored["eTag"]
        return RecognitionRequest(
            request_id=uuid5(NAMESPACE_URL, f"s3://{bucket}/{key}?{put}"),
            input=ObjectRef(bucket=bucket, key=key, size=stored["size"]),
            filename=base_name(key),
            reply_to=reply_to,
            submitted_at=datetime.fromisoformat(record["eventTime"]),
        )
    except _UNREADABLE as exc:  # pydantic's error is a ValueError
        raise InvalidMessage(f"a record of S3 cannot be read: {exc!r}") from exc


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
