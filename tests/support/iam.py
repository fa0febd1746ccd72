"""Decides like IAM whether our policies allow a call; a proxy enforces it before the emulated AWS.

It knows as much of the language as our policies use: allows, exact names, `*`, variables, and five operators.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, cast
from urllib.parse import parse_qs, unquote, urlsplit

Context = Mapping[str, str | list[str]]


def allowed(policy: Any, action: str, resource: str, context: Context | None = None) -> str | None:
    """The `Sid` of the statement that allows the action on the resource, if one does."""
    for statement in policy["Statement"]:
        assert statement["Effect"] == "Allow"
        if (
            action in statement["Action"]
            and any(_like(pattern, resource) for pattern in statement["Resource"])
            and all(
                _holds(name, _resolved(wanted, context or {}), context or {})
                for name, wanted in statement.get("Condition", {}).items()
            )
        ):
            return str(statement["Sid"])
    return None


def _like(pattern: str, text: str) -> bool:
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), text) is not None


def _resolved(wanted: Mapping[str, Any], context: Context) -> dict[str, Any]:
    """The wanted values with their variables replaced; one without a value matches nothing."""

    def resolve(value: str) -> str | None:
        name = re.fullmatch(r"\$\{(.+)\}", value)
        return value if name is None else cast("str | None", context.get(name[1]))

    return {
        key: [resolve(value) for value in values] if isinstance(values, list) else resolve(values)
        for key, values in wanted.items()
    }


def _holds(operator: str, wanted: Mapping[str, Any], context: Context) -> bool:
    """Every key must be present and match; `ForAllValues` allows a missing key."""
    match operator:
        case "StringEquals" | "Bool":
            return all(context.get(key) == value for key, value in wanted.items())
        case "ArnLike" | "StringLike":
            return all(
                any(
                    _like(value, str(context.get(key, "")))
                    for value in ([values] if isinstance(values, str) else values)
                )
                for key, values in wanted.items()
            )
        case "ForAllValues:StringEquals":
            return all(set(context.get(key, [])) <= set(values) for key, values in wanted.items())
        case "ForAllValues:StringLike":
            return all(
                any(_like(value, key) for value in values)
                for name, values in wanted.items()
                for key in context.get(name, [])
            )
    raise NotImplementedError(operator)


ACCOUNT = "123456789012"
_UPSTREAM_SECONDS = 60
_HOP_BY_HOP = frozenset({"connection", "transfer-encoding", "content-length"})
_REFUSAL = "<Error><Code>AccessDenied</Code><Message>not in the policy</Message></Error>"
_CONFIGURATIONS = {
    "lifecycle": "LifecycleConfiguration",
    "encryption": "EncryptionConfiguration",
    "policy": "BucketPolicy",
    "publicAccessBlock": "BucketPublicAccessBlock",
}
_TOPICS = "/topics/"
_TRANSACTED = {"Put": "PutItem", "Update": "UpdateItem", "Delete": "DeleteItem", "ConditionCheck": "ConditionCheckItem"}

Call = tuple[str, str]
"""The action, and its resource."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 100

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log nothing: the client has been stopped."""


class IamGate:
    """`url` is the endpoint for the role whose policy it guards."""

    def __init__(self, upstream: str, policy: Any, instance: str | None = None) -> None:
        self.policy = policy
        self._signed_by = {} if instance is None else {"ec2:SourceInstanceARN": instance}
        self.used: set[str] = set()
        """The `Sid`s of the statements that allowed a call, each with the action."""
        self.refused: set[Call] = set()
        split = urlsplit(upstream)
        gate = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # head and body in one piece
            disable_nagle_algorithm = True

            def handle_one(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if not gate.passes(self.command, self.path, dict(self.headers.items()), body):
                    self._reply(403, [("x-amzn-ErrorType", "AccessDenied")], _refusal(dict(self.headers.items())))
                    return
                upstream = HTTPConnection(str(split.hostname), int(split.port or 80), timeout=_UPSTREAM_SECONDS)
                try:
                    upstream.request(self.command, self.path, body, dict(self.headers.items()))
                    answer = upstream.getresponse()
                    self._reply(answer.status, answer.getheaders(), answer.read())
                finally:
                    upstream.close()

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_one  # noqa: N815 - as the base class names them

            def _reply(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
                self.send_response(status)
                for name, value in headers:
                    if name.lower() not in _HOP_BY_HOP:
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with suppress(ConnectionError):  # the client has been stopped
                    self.wfile.write(b"" if self.command == "HEAD" else body)
                    self.wfile.flush()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def passes(self, method: str, path: str, headers: dict[str, str], body: bytes) -> bool:
        """Whether every call of the request is allowed."""
        context = leading_keys(headers, body) | listed_prefix(path) | self._signed_by
        for action, resource in calls(method, path, headers, body):
            sid = allowed(self.policy, action, resource, context)
            if sid is None:
                self.refused.add((action, resource))
                return False
            self.used.add(f"{sid} {action}")
        return True

    def unused(self) -> set[str]:
        """The granted actions that no call used."""
        granted = {
            f"{statement['Sid']} {action}" for statement in self.policy["Statement"] for action in statement["Action"]
        }
        return granted - self.used

    def serve(self) -> None:
        """Serve until `close`."""
        self._server.serve_forever(poll_interval=0.05)

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def iam_gate(upstream: str, policy: Any, instance: str | None = None) -> Iterator[IamGate]:
    """A gate that serves within the block; `instance` is the ARN of the instance that makes the calls, if one does."""
    gate = IamGate(upstream, policy, instance)
    thread = Thread(target=gate.serve, daemon=True)
    thread.start()
    try:
        yield gate
    finally:
        gate.close()


def calls(method: str, path: str, headers: dict[str, str], body: bytes) -> list[Call]:
    """The calls of a request to S3, SQS, DynamoDB or IoT's data plane, by IAM's names."""
    target = next((value for name, value in headers.items() if name.lower() == "x-amz-target"), None)
    split = urlsplit(path)
    if target is not None:
        service, _, operation = target.partition(".")
        content = json.loads(body)
        return _sqs(operation, content) if service == "AmazonSQS" else _dynamodb(operation, content)
    form = parse_qs(body.decode("latin-1")) if method == "POST" else {}
    if "Action" in form:  # kombu speaks SQS's older protocol
        return _sqs(form["Action"][0], {"QueueUrl": form.get("QueueUrl", [split.path])[0]})
    if split.path.startswith(_TOPICS):
        topic = unquote(split.path.removeprefix(_TOPICS))
        return [("iot:Publish", f"arn:aws:iot:us-east-1:{ACCOUNT}:topic/{topic}")]
    return [_s3(method, unquote(split.path), parse_qs(split.query, keep_blank_values=True))]


def leading_keys(headers: dict[str, str], body: bytes) -> dict[str, str | list[str]]:
    """The partition key of the item or query that a call to DynamoDB names; those of several are not looked at."""
    target = next((value for name, value in headers.items() if name.lower() == "x-amz-target"), "")
    if not target.startswith("DynamoDB"):
        return {}
    content = json.loads(body)
    kind = content.get("Key", {}).get("kind") or content.get("ExpressionAttributeValues", {}).get(":partition")
    return {} if kind is None else {"dynamodb:LeadingKeys": [kind["S"]]}


def listed_prefix(path: str) -> dict[str, str | list[str]]:
    """The prefix of the keys that a call to S3 lists, if it names one."""
    query = parse_qs(urlsplit(path).query)
    return {"s3:prefix": query["prefix"][0]} if "list-type" in query and "prefix" in query else {}


def _sqs(operation: str, content: Any) -> list[Call]:
    name = content.get("QueueName") or str(content.get("QueueUrl", "*")).rsplit("/", 1)[-1]
    resource = "*" if operation == "ListQueues" else f"arn:aws:sqs:us-east-1:{ACCOUNT}:{name}"
    made = [(f"sqs:{operation.removesuffix('Batch')}", resource)]
    # A queue that is made with tags needs the permission to tag it.
    return [*made, ("sqs:TagQueue", resource)] if operation == "CreateQueue" and content.get("tags") else made


def _dynamodb(operation: str, content: Any) -> list[Call]:
    match operation:
        case "TransactWriteItems":
            named = [
                (_TRANSACTED[kind], write["TableName"])
                for item in content["TransactItems"]
                for kind, write in item.items()
            ]
        case "BatchGetItem":
            named = [(operation, table) for table in content["RequestItems"]]
        case _:
            named = [(operation, content["TableName"])]
    return [(f"dynamodb:{name}", f"arn:aws:dynamodb:us-east-1:{ACCOUNT}:table/{table}") for name, table in named]


def _s3(method: str, path: str, query: dict[str, list[str]]) -> Call:
    bucket, _, key = path.lstrip("/").partition("/")
    resource = f"arn:aws:s3:::{bucket}"
    configured = next((words for name, words in _CONFIGURATIONS.items() if name in query), None)
    if configured is not None:
        return f"s3:{method.capitalize()}{configured}", resource
    if not key:
        names = {"GET": "ListBucket", "HEAD": "ListBucket", "PUT": "CreateBucket", "DELETE": "DeleteBucket"}
        return f"s3:{names[method]}", resource
    names = {"GET": "GetObject", "HEAD": "GetObject", "PUT": "PutObject", "DELETE": "DeleteObject"}
    return f"s3:{names[method]}", f"{resource}/{key}"


def _refusal(headers: dict[str, str]) -> bytes:
    """The refusal in the protocol of the request."""
    spoken = any(name.lower() == "x-amz-target" for name in headers)
    return (
        json.dumps({"__type": "AccessDenied", "message": "not in the policy"}).encode() if spoken else _REFUSAL.encode()
    )
