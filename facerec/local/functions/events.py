"""The events that Lambda's function URLs and queue pollers make, and what they do with the answers. Pure.

https://docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html
https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from facerec.errors import FacerecError

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import MessageTypeDef

ACCOUNT = "012345678912"
"""The account in the ARN that the Runtime Interface Emulator gives a function."""

_TEXT = re.compile(r"text/.*|application/(json|javascript|xml)|.*\+(json|xml)", re.IGNORECASE)
"""Content types whose bodies stay text in an event."""
_JSON = "application/json"
_FIRST_STATUS, _LAST_STATUS = 200, 599


class WrongAnswer(FacerecError):
    """The function's answer is not in a form that the caller takes."""


@dataclass(frozen=True, slots=True)
class UrlRequest:
    """A request to a function URL; `headers` have lower-case names, `path` is decoded."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    source_ip: str
    protocol: str
    access_key: str | None = None
    """The key that has signed the request; None without authentication."""


def url_event(request: UrlRequest, request_id: str, at: datetime) -> dict[str, Any]:
    """Return the event of a request in the payload format 2.0."""
    headers = dict(request.headers)
    cookies = headers.pop("cookie", "")
    host = headers.get("host", "")
    is_text = _TEXT.fullmatch(headers.get("content-type", "").partition(";")[0].strip()) is not None
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": request.path,
        "rawQueryString": request.query,
        "headers": headers,
        "requestContext": {
            "accountId": "anonymous" if request.access_key is None else ACCOUNT,
            "apiId": "local",
            "domainName": host,
            "domainPrefix": "local",
            "http": {
                "method": request.method,
                "path": request.path,
                "protocol": request.protocol,
                "sourceIp": request.source_ip,
                "userAgent": headers.get("user-agent", ""),
            },
            "requestId": request_id,
            "routeKey": "$default",
            "stage": "$default",
            "time": at.astimezone(UTC).strftime("%d/%b/%Y:%H:%M:%S +0000"),
            "timeEpoch": int(at.timestamp() * 1000),
        },
        "isBase64Encoded": False,
    }
    if cookies:
        event["cookies"] = [cookie.strip() for cookie in cookies.split(";")]
    if request.query:
        event["queryStringParameters"] = _joined(request.query)
    if request.access_key is not None:
        event["requestContext"]["authorizer"] = {
            "iam": {
                "accessKey": request.access_key,
                "accountId": ACCOUNT,
                "callerId": request.access_key,
                "cognitoIdentity": None,
                "principalOrgId": None,
                "userArn": f"arn:aws:iam::{ACCOUNT}:user/{request.access_key}",
                "userId": request.access_key,
            }
        }
    if request.body:
        text = _utf8(request.body) if is_text else None
        event["isBase64Encoded"] = text is None
        event["body"] = base64.b64encode(request.body).decode() if text is None else text
    return event


@dataclass(frozen=True, slots=True)
class UrlAnswer:
    """What a function URL answers; a header may come several times."""

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes


def url_answer(answer: bytes) -> UrlAnswer:
    """Return the HTTP answer for a function's answer; raises `WrongAnswer`, which is a 502.

    JSON without `statusCode` is the body of a 200.
    """
    read = _read_json(answer)
    if not isinstance(read, dict) or "statusCode" not in read:
        return UrlAnswer(_FIRST_STATUS, [("content-type", _JSON)], answer)
    status, headers, cookies = read["statusCode"], read.get("headers") or {}, read.get("cookies") or []
    if not isinstance(status, int) or not _FIRST_STATUS <= status <= _LAST_STATUS:
        raise WrongAnswer("statusCode is no status of HTTP")
    if not isinstance(headers, dict) or not isinstance(cookies, list):
        raise WrongAnswer("headers is no object, or cookies no list")
    lines = {name.lower(): _header_text(value) for name, value in headers.items()}
    lines.setdefault("content-type", _JSON)
    body = read.get("body") or ""
    if not isinstance(body, str):
        raise WrongAnswer("body is no text")
    try:
        content = base64.b64decode(body, validate=True) if read.get("isBase64Encoded") else body.encode()
    except binascii.Error as exc:
        raise WrongAnswer(f"body is not base64: {exc}") from exc
    return UrlAnswer(status, [*lines.items(), *(("set-cookie", str(cookie)) for cookie in cookies)], content)


def sqs_event(messages: "Sequence[MessageTypeDef]", queue_arn: str, region: str) -> dict[str, Any]:
    """Return the event of a batch that was received from a queue with all of its attributes."""
    return {
        "Records": [
            {
                "messageId": message["MessageId"],
                "receiptHandle": message["ReceiptHandle"],
                "body": message["Body"],
                "attributes": dict(message.get("Attributes", {})),
                "messageAttributes": {
                    name: _message_attribute(value) for name, value in message.get("MessageAttributes", {}).items()
                },
                "md5OfBody": message.get("MD5OfBody", ""),
                "eventSource": "aws:sqs",
                "eventSourceARN": queue_arn,
                "awsRegion": region,
            }
            for message in messages
        ]
    }


def failed_messages(answer: bytes, message_ids: Sequence[str]) -> set[str]:
    """Return the messages that a function reports as failed (`ReportBatchItemFailures`).

    Raises `WrongAnswer` where AWS takes the whole batch as failed: no JSON object, no text as `itemIdentifier`, an
    empty one, or one of another message.
    """
    read = _read_json(answer)
    if read is None:
        return set()
    if not isinstance(read, dict):
        raise WrongAnswer("the answer is no JSON object")
    failures = read.get("batchItemFailures")
    if failures is None:
        return set()
    if not isinstance(failures, list):
        raise WrongAnswer("batchItemFailures is no list")
    failed: list[Any] = [failure.get("itemIdentifier") if isinstance(failure, dict) else None for failure in failures]
    if not all(one in message_ids for one in failed):
        raise WrongAnswer("an itemIdentifier is missing, or of no message in the batch")
    return {*failed}


def _read_json(answer: bytes) -> Any:
    try:
        return json.loads(answer) if answer else None
    except ValueError as exc:
        raise WrongAnswer(f"the answer is no JSON: {exc}") from exc


def _utf8(body: bytes) -> str | None:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None


def _joined(query: str) -> dict[str, str]:
    """Parameters of one name become one value with commas."""
    joined: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        joined[name] = f"{joined[name]},{value}" if name in joined else value
    return joined


def _header_text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    raise WrongAnswer("a header is no text")


def _message_attribute(value: Mapping[str, Any]) -> dict[str, Any]:
    attribute: dict[str, Any] = {"stringListValues": [], "binaryListValues": [], "dataType": value["DataType"]}
    if "StringValue" in value:
        attribute["stringValue"] = value["StringValue"]
    if "BinaryValue" in value:
        attribute["binaryValue"] = base64.b64encode(value["BinaryValue"]).decode()
    return attribute
