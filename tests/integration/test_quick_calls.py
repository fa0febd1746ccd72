"""The quick calls of S3 and SQS: what goes over the wire is what was signed, and boto3 takes over where it must."""

import base64
import hashlib
import hmac
import json
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from facerec.aws.clients import Clients
from facerec.aws.quick_calls import QuickS3, QuickSqs
from tests.support.emulated import EmulatedAws

SECRET = "secret/of+the=test"
KEYS = ["a.jpg", "two words & more.jpg", "a/../b//c?d#e%20f+g.jpg", "Ünï ✓~'()*!.jpg"]
PROXYS = {"Via": "a proxy"}
"""The headers of an answer that is not AWS's."""
DONE: Any = {"Successful": [{"Id": "0"}]}


@dataclass
class Seen:
    """A request as it came over the wire."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Service:
    """Answers requests in turn, and stays with the last answer: a status, headers and a body each, or no answer."""

    answers: list[tuple[int, dict[str, str], bytes] | None] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    url: str = ""

    def client(self, service: str, **options: Any) -> Any:
        """The quick client of this service."""
        session: Any = boto3.Session("id", SECRET, region_name="eu-central-1", **options)
        config = Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}, user_agent="ours")
        quick: Any = {"s3": QuickS3, "sqs": QuickSqs}[service]
        return quick(session.client(service, endpoint_url=self.url, config=config), session)


@pytest.fixture
def service() -> Iterator[Service]:
    """A service on a port of its own."""
    service = Service()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one_request(self) -> None:
            self.raw_requestline = self.rfile.readline()
            if not self.raw_requestline or not self.parse_request():
                self.close_connection = True
                return
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            service.seen.append(Seen(self.command, self.path, headers, body))
            answer = service.answers.pop(0) if len(service.answers) > 1 else service.answers[0]
            if answer is None:
                self.close_connection = True
                return
            status, fields, content = answer
            self.send_response(status)
            own = {} if fields is PROXYS else {"X-Amz-Request-Id": "id"}
            for name, value in {**own, **fields, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    service.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield service
    server.shutdown()
    server.server_close()


def signature(seen: Seen, name: str) -> str:
    """The signature of what came, by AWS's description of version 4 of the process."""
    stated = dict(part.strip().split("=", 1) for part in seen.headers["authorization"].split(" ", 1)[1].split(","))
    signed = stated["SignedHeaders"].split(";")
    assert {"host", "x-amz-date"} <= set(signed)
    hashed = hashlib.sha256(seen.body).hexdigest()
    assert seen.headers.get("x-amz-content-sha256", hashed) == hashed
    heads = "".join(f"{header}:{' '.join(seen.headers[header].split())}\n" for header in signed)
    path, _, query = seen.target.partition("?")
    canonical = "\n".join([seen.method, path, query, heads, ";".join(signed), hashed])
    date = seen.headers["x-amz-date"]
    scope = f"{date[:8]}/eu-central-1/{name}/aws4_request"
    assert stated["Credential"] == f"id/{scope}"
    key = f"AWS4{SECRET}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    text = "\n".join(["AWS4-HMAC-SHA256", date, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    assert stated["Signature"] == hmac.new(key, text.encode(), "sha256").hexdigest()
    return stated["Signature"]


@pytest.mark.parametrize("key", KEYS)
def test_quick_requests_of_s3_are_signed_as_they_are_sent(service: Service, key: str) -> None:
    """S3 computes the signature from what comes: path, headers and body."""
    service.answers = [(200, {}, b"photo")]
    s3 = service.client("s3", aws_session_token="token")
    assert s3.get_object(Bucket="bucket", Key=key)["Body"].read() == b"photo"
    s3.put_object(Bucket="bucket", Key=key, Body=b"\0result", ContentType="application/json")
    get, put = service.seen
    for seen in (get, put):
        assert signature(seen, "s3")
        assert unquote(seen.target) == f"/bucket/{key}"
        assert seen.headers["x-amz-security-token"] == "token"
        assert seen.headers["user-agent"].startswith("ours")
        assert "expect" not in seen.headers
    assert (get.method, put.method) == ("GET", "PUT")
    assert (put.body, put.headers["content-type"]) == (b"\0result", "application/json")


def test_quick_requests_of_sqs_are_signed_as_they_are_sent(service: Service) -> None:
    """One operation after the other on one connection."""
    service.answers = [(200, {}, json.dumps(DONE).encode())]
    sqs = service.client("sqs")
    entries = [{"Id": "0", "MessageBody": "body"}]
    assert sqs.send_message_batch(QueueUrl="http://queue", Entries=entries) == DONE
    assert sqs.delete_message_batch(QueueUrl="http://queue", Entries=[{"Id": "0", "ReceiptHandle": "r"}]) == DONE
    assert [seen.headers["x-amz-target"] for seen in service.seen] == [
        "AmazonSQS.SendMessageBatch",
        "AmazonSQS.DeleteMessageBatch",
    ]
    assert all(signature(seen, "sqs") for seen in service.seen)
    assert json.loads(service.seen[0].body) == {"QueueUrl": "http://queue", "Entries": entries}


@pytest.mark.parametrize(
    "first",
    [
        None,
        (500, {}, b""),
        (503, {}, b"<Error><Code>SlowDown</Code></Error>"),
        (307, {"Location": "http://127.0.0.1:1/elsewhere"}, b""),
        (200, {"X-Amz-Checksum-Crc32": base64.b64encode(zlib.crc32(b"phot0").to_bytes(4, "big")).decode()}, b"photo"),
        (200, PROXYS, b"<html>Sign in</html>"),
    ],
)
def test_boto3_fetches_an_object_after_a_bad_answer(service: Service, first: Any) -> None:
    """One that is refused, redirected, cut off or damaged."""
    service.answers = [first, (200, {}, b"photo")]
    assert service.client("s3").get_object(Bucket="bucket", Key="key")["Body"].read() == b"photo"
    assert [seen.method for seen in service.seen] == ["GET", "GET"]


def test_boto3_stores_an_object_after_a_proxys_page(service: Service) -> None:
    """A page is no confirmation."""
    service.answers = [(200, PROXYS, b"<html>Sign in</html>"), (200, {}, b"")]
    service.client("s3").put_object(Bucket="bucket", Key="key", Body=b"result", ContentType="text/plain")
    assert [seen.body for seen in service.seen] == [b"result", b"result"]


def test_checksum_of_parts_is_not_compared(service: Service) -> None:
    """It is not that of the whole object."""
    service.answers = [(200, {"x-amz-checksum-crc32": "AAAAAA==-2"}, b"photo")]
    assert service.client("s3").get_object(Bucket="bucket", Key="key")["Body"].read() == b"photo"
    assert len(service.seen) == 1


@pytest.mark.parametrize("first", [None, (500, {}, b""), (200, PROXYS, b"{}"), (200, {}, b"[]")])
@pytest.mark.parametrize(
    "call",
    [
        lambda sqs: sqs.send_message_batch(QueueUrl="u", Entries=[{"Id": "0", "MessageBody": "body"}]),
        lambda sqs: sqs.delete_message_batch(QueueUrl="u", Entries=[{"Id": "0", "ReceiptHandle": "receipt"}]),
    ],
)
def test_boto3_repeats_a_batch_that_is_not_confirmed(service: Service, first: Any, call: Callable[[Any], Any]) -> None:
    """A proxy's answer is no confirmation."""
    service.answers = [first, (200, {}, json.dumps(DONE).encode())]
    assert call(service.client("sqs"))["Successful"] == DONE["Successful"]
    assert len(service.seen) == 2


def test_errors_are_boto3s(service: Service) -> None:
    """Its errors are what the adapters translate."""
    service.answers = [(404, {}, b"<Error><Code>NoSuchKey</Code><Message>gone</Message></Error>")]
    with pytest.raises(ClientError, match="NoSuchKey"):
        service.client("s3").get_object(Bucket="bucket", Key="key")
    with pytest.raises(ClientError, match="NoSuchKey"):
        service.client("s3").put_object(Bucket="bucket", Key="key", Body=b"", ContentType="text/plain")


def test_closed_connection_costs_no_answer(service: Service) -> None:
    """Services close what is idle; the next call opens another connection."""
    service.answers = [(200, {"Connection": "close"}, b"photo")]
    s3 = service.client("s3")
    assert [s3.get_object(Bucket="bucket", Key="key")["Body"].read() for _ in range(3)] == [b"photo"] * 3
    assert len(service.seen) == 3


@pytest.mark.parametrize("key", KEYS)
def test_quick_objects_are_boto3s_objects(emulator: EmulatedAws, key: str) -> None:
    """Each reads what the other has stored."""
    plain, quick = Clients(emulator.settings), Clients(emulator.settings)
    quick.quicken()
    bucket = emulator.settings.output_bucket
    quick.s3.put_object(Bucket=bucket, Key=key, Body=b"quick", ContentType="text/x-quick")
    assert plain.s3.get_object(Bucket=bucket, Key=key)["Body"].read() == b"quick"
    assert plain.s3.head_object(Bucket=bucket, Key=key)["ContentType"] == "text/x-quick"
    plain.s3.put_object(Bucket=bucket, Key=key, Body=b"plain")
    assert quick.s3.get_object(Bucket=bucket, Key=key)["Body"].read() == b"plain"
