"""The rules of a proxy that injects faults: the names of calls, which to harm and how, and the form of errors."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

_SERVICES = {"DynamoDB_20120810": "dynamodb", "AmazonSQS": "sqs"}
_SCOPE = re.compile(r"Credential=[^/]*/\d{8}/[^/]*/([a-z0-9-]+)/aws4_request")
_ACTION = re.compile(rb"(?:^|[?&])Action=(\w+)")


@dataclass(frozen=True, slots=True)
class Call:
    """One request to AWS.

    `service` is `s3`, `sqs`, `dynamodb` or `ec2`; `operation` is AWS's name, and for S3 the method with `Object` or
    `Bucket` (`PutObject`, `GetBucket`).
    """

    service: str
    operation: str
    path: str
    body: bytes


def call_of(method: str, target: str, headers: Mapping[str, str], body: bytes) -> Call:
    """Name the call of a request; header names are in lower case."""
    prefix, _, operation = headers.get("x-amz-target", "").partition(".")
    scope = _SCOPE.search(headers.get("authorization", ""))
    service = _SERVICES.get(prefix) or (scope[1] if scope else "")
    path = target.partition("?")[0]
    if not operation:
        if service == "s3":
            operation = f"{method.capitalize()}{'Object' if path.strip('/').partition('/')[2] else 'Bucket'}"
        else:
            action = _ACTION.search(target.encode()) or _ACTION.search(body)
            operation = action[1].decode() if action else ""
    return Call(service, operation, path, body)


class Harm(StrEnum):
    """What is done to a call."""

    REFUSE = "refuse"
    """Answered with an error; AWS does not see it."""
    RESET_BEFORE = "reset_before"
    """The connection is reset; AWS does not see it."""
    RESET_AFTER = "reset_after"
    """Carried out; the connection is reset in the place of the answer."""
    DELAY = "delay"
    """Passed on late."""
    HOLD = "hold"
    """Passed on once the rule is lifted, if the caller is still there: a network that swallows packets."""
    TWICE = "twice"
    """Passed on twice; the second answer counts."""
    SWALLOW = "swallow"
    """Answered as if a message had been deleted; AWS does not see it."""


def every(call: Call) -> bool:
    """Match every call."""
    del call
    return True


def of(service: str, *operations: str) -> Callable[[Call], bool]:
    """Match one service's calls, or some of them."""
    return lambda call: call.service == service and (not operations or call.operation in operations)


@dataclass(frozen=True, slots=True)
class Rule:
    """Harm a share of the matching calls; `seconds` belongs to DELAY, `status` and `code` to REFUSE."""

    harm: Harm
    share: float = 1.0
    matches: Callable[[Call], bool] = every
    seconds: float = 0.0
    status: int = 503
    code: str = "ServiceUnavailable"


def response(status: int, body: bytes, content_type: str, headers: str = "") -> bytes:
    """An HTTP response as it goes over the wire; `headers` are further lines, each with its line break."""
    head = f"HTTP/1.1 {status} Injected\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


def refusal(call: Call, rule: Rule) -> bytes:
    """The error in the form of the call's protocol."""
    if call.service == "s3":
        text = f"<Error><Code>{rule.code}</Code><Message>injected</Message></Error>"
        return response(rule.status, text.encode(), "application/xml")
    if call.service == "ec2" or _ACTION.search(call.body):
        error = f"<Errors><Error><Code>{rule.code}</Code><Message>injected</Message></Error></Errors>"
        return response(rule.status, f"<Response>{error}</Response>".encode(), "text/xml")
    said = json.dumps({"__type": f"com.amazonaws.{call.service}#{rule.code}", "message": "injected"})
    return response(rule.status, said.encode(), "application/x-amz-json-1.0", f"x-amzn-query-error: {rule.code};\r\n")


def deleted(call: Call) -> bytes:
    """What SQS answers to DeleteMessage and DeleteMessageBatch in its JSON protocol."""
    entries = json.loads(call.body).get("Entries")
    said = {} if entries is None else {"Successful": [{"Id": entry["Id"]} for entry in entries], "Failed": []}
    return response(200, json.dumps(said).encode(), "application/x-amz-json-1.0")
