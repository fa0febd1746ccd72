"""Events of function URLs and queues, and what is done with the answers, as AWS documents them."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from facerec.local.functions.events import UrlRequest, WrongAnswer, failed_messages, sqs_event, url_answer, url_event

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)


def request(body: bytes = b"", content_type: str = "", **headers: str) -> UrlRequest:
    """A request with these headers."""
    given = {"host": "127.0.0.1:9000", "content-type": content_type, **headers}
    return UrlRequest(
        method="POST",
        path="/my/path",
        query="parameter1=value1&parameter1=value2&parameter2=value",
        headers={name: value for name, value in given.items() if value},
        body=body,
        source_ip="127.0.0.1",
        protocol="HTTP/1.1",
    )


def test_request_becomes_an_event_of_format_2() -> None:
    """The shape of AWS's documentation; absent parts are left out."""
    event = url_event(request(b'{"a": 1}', "application/json; charset=utf-8", cookie="a=1; b=2"), "id-1", NOON)
    assert event == {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": "/my/path",
        "rawQueryString": "parameter1=value1&parameter1=value2&parameter2=value",
        "cookies": ["a=1", "b=2"],
        "headers": {"host": "127.0.0.1:9000", "content-type": "application/json; charset=utf-8"},
        "queryStringParameters": {"parameter1": "value1,value2", "parameter2": "value"},
        "requestContext": {
            "accountId": "anonymous",
            "apiId": "local",
            "domainName": "127.0.0.1:9000",
            "domainPrefix": "local",
            "http": {
                "method": "POST",
                "path": "/my/path",
                "protocol": "HTTP/1.1",
                "sourceIp": "127.0.0.1",
                "userAgent": "",
            },
            "requestId": "id-1",
            "routeKey": "$default",
            "stage": "$default",
            "time": "30/Nov/2026:12:00:00 +0000",
            "timeEpoch": 1796040000000,
        },
        "body": '{"a": 1}',
        "isBase64Encoded": False,
    }
    assert "body" not in url_event(request(), "id-1", NOON)


@pytest.mark.parametrize("content_type", ["image/jpeg", "application/x-www-form-urlencoded", ""])
def test_body_of_another_type_becomes_base64(content_type: str) -> None:
    """So does one without a type."""
    event = url_event(request(b"\xff\xd8", content_type), "id-1", NOON)
    assert (event["body"], event["isBase64Encoded"]) == ("/9g=", True)


def answered(answer: Any) -> tuple[int, dict[str, str], bytes]:
    """The HTTP answer for a function's."""
    found = url_answer(json.dumps(answer).encode())
    return found.status, dict(found.headers), found.body


def test_answer_sets_status_headers_and_body() -> None:
    """A binary body comes as base64; an answer without a status is itself the body of a 200."""
    image = {"statusCode": 201, "headers": {"Content-Type": "image/png", "X-Count": 2}, "body": "/9g="}
    assert answered({**image, "isBase64Encoded": True}) == (
        201,
        {"content-type": "image/png", "x-count": "2"},
        b"\xff\xd8",
    )
    assert answered({"statusCode": 404}) == (404, {"content-type": "application/json"}, b"")
    assert answered({"cookies": ["a=1"], "statusCode": 200})[1]["set-cookie"] == "a=1"
    assert answered({"message": "Hello"}) == (200, {"content-type": "application/json"}, b'{"message": "Hello"}')
    assert answered("Hello") == (200, {"content-type": "application/json"}, b'"Hello"')


@pytest.mark.parametrize(
    "answer",
    [
        b"not JSON",
        b'{"statusCode": "200"}',
        b'{"statusCode": 42}',
        b'{"statusCode": 200, "body": {"a": 1}}',
        b'{"statusCode": 200, "body": "%", "isBase64Encoded": true}',
        b'{"statusCode": 200, "headers": {"a": []}}',
        b'{"statusCode": 200, "headers": ["a"]}',
    ],
)
def test_answer_in_another_form_is_wrong(answer: bytes) -> None:
    """AWS answers 502."""
    with pytest.raises(WrongAnswer):
        url_answer(answer)


def test_messages_become_records() -> None:
    """The shape of AWS's documentation."""
    message: Any = {
        "MessageId": "059f36b4",
        "ReceiptHandle": "AQEB",
        "Body": "Test message.",
        "MD5OfBody": "e4e68fb7bd0e697a0ae8f1bb342846b3",
        "Attributes": {"ApproximateReceiveCount": "1", "SentTimestamp": "1545082649183"},
        "MessageAttributes": {
            "reason": {"DataType": "String", "StringValue": "late"},
            "raw": {"DataType": "Binary", "BinaryValue": b"\xff\xd8"},
        },
    }
    arn = "arn:aws:sqs:us-east-2:123456789012:my-queue"
    assert sqs_event([message], arn, "us-east-2") == {
        "Records": [
            {
                "messageId": "059f36b4",
                "receiptHandle": "AQEB",
                "body": "Test message.",
                "attributes": {"ApproximateReceiveCount": "1", "SentTimestamp": "1545082649183"},
                "messageAttributes": {
                    "reason": {
                        "stringValue": "late",
                        "stringListValues": [],
                        "binaryListValues": [],
                        "dataType": "String",
                    },
                    "raw": {
                        "binaryValue": "/9g=",
                        "stringListValues": [],
                        "binaryListValues": [],
                        "dataType": "Binary",
                    },
                },
                "md5OfBody": "e4e68fb7bd0e697a0ae8f1bb342846b3",
                "eventSource": "aws:sqs",
                "eventSourceARN": arn,
                "awsRegion": "us-east-2",
            }
        ]
    }


@pytest.mark.parametrize(
    ("answer", "failed"),
    [
        ("null", set()),
        ("{}", set()),
        ('{"batchItemFailures": null}', set()),
        ('{"batchItemFailures": []}', set()),
        ('{"batchItemFailures": [{"itemIdentifier": "b"}]}', {"b"}),
        ('{"batchItemFailures": [{"itemIdentifier": "a"}, {"itemIdentifier": "b"}]}', {"a", "b"}),
    ],
)
def test_function_reports_failed_messages(answer: str, failed: set[str]) -> None:
    """An empty answer says that all have succeeded."""
    assert failed_messages(answer.encode(), ["a", "b"]) == failed


@pytest.mark.parametrize(
    "answer",
    [
        "oops",
        '"done"',
        "[]",
        '{"batchItemFailures": "a"}',
        '{"batchItemFailures": ["a"]}',
        '{"batchItemFailures": [{"itemIdentifier": ""}]}',
        '{"batchItemFailures": [{"itemIdentifier": ["a"]}]}',
        '{"batchItemFailures": [{"itemIdentifier": null}]}',
        '{"batchItemFailures": [{"ItemIdentifier": "a"}]}',
        '{"batchItemFailures": [{"itemIdentifier": "a"}, {"itemIdentifier": "c"}]}',
    ],
)
def test_report_in_another_form_fails_the_batch(answer: str) -> None:
    """AWS does not guess which messages it means."""
    with pytest.raises(WrongAnswer):
        failed_messages(answer.encode(), ["a", "b"])
