"""The state that the emulated AWS keeps, and the addresses where it listens."""

import http.client
import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from facerec.aws.clients import Clients
from facerec.local.emulator import EmulatorKind, emulator
from facerec.local.environment import emulated_variables
from facerec.processes.addresses import free_port, poll_until
from facerec.processes.supervisor import Child
from facerec.provision.provisioning import provision
from facerec.settings import Settings
from tests.support.emulated import running_emulator
from tests.support.processes import listening_addresses


@contextmanager
def run(state: Path, kind: EmulatorKind = EmulatorKind.MINISTACK) -> Iterator[tuple[Child, Settings, Clients]]:
    """An emulator on the state directory, provisioned, stopped at the end."""
    found = emulator(kind, port=free_port(), state=state, environ=os.environ)
    with running_emulator(found, state) as child, pytest.MonkeyPatch.context() as patch:
        for name, value in emulated_variables(found.url, os.environ).items():
            patch.setenv(name, value)
        settings = Settings.load()
        clients = Clients(settings)
        provision(clients, settings)
        yield child, settings, clients


def put(settings: Settings, clients: Clients) -> None:
    """One object, one template, one message, one instance."""
    clients.s3.put_object(Bucket=settings.output_bucket, Key="a/b.json", Body=b"result")
    clients.dynamodb.put_item(
        TableName=settings.templates_table,
        Item={"collection": {"S": "default"}, "item": {"S": "jane"}, "embedding": {"B": bytes(range(256))}},
    )
    url = clients.sqs.get_queue_url(QueueName=settings.request_queue)["QueueUrl"]
    clients.sqs.send_message(QueueUrl=url, MessageBody="task")
    clients.ec2.run_instances(ImageId="ami-12345678", MinCount=1, MaxCount=1)


def check(settings: Settings, clients: Clients) -> None:
    """All four are there."""
    assert clients.s3.get_object(Bucket=settings.output_bucket, Key="a/b.json")["Body"].read() == b"result"
    [item] = clients.dynamodb.scan(TableName=settings.templates_table)["Items"]
    assert item["embedding"]["B"] == bytes(range(256))
    url = clients.sqs.get_queue_url(QueueName=settings.request_queue)["QueueUrl"]
    [message] = clients.sqs.receive_message(QueueUrl=url, WaitTimeSeconds=2)["Messages"]
    assert message["Body"] == "task"
    [reservation] = clients.ec2.describe_instances()["Reservations"]
    assert [instance["State"]["Name"] for instance in reservation["Instances"]] == ["running"]


def test_ministack_keeps_its_state_over_a_restart(tmp_path: Path) -> None:
    """Also when the next run gets another port."""
    with run(tmp_path) as (_, settings, clients):
        put(settings, clients)
    with run(tmp_path) as (_, settings, clients):
        check(settings, clients)


def test_ministack_keeps_its_state_over_a_crash(tmp_path: Path) -> None:
    """Tables, queues and instances are saved soon after they change."""
    with run(tmp_path) as (child, settings, clients):
        put(settings, clients)
        assert poll_until(lambda: "jane" in text(tmp_path / "dynamodb.json"), 10)
        assert poll_until(lambda: "task" in text(tmp_path / "sqs.json"), 10)
        assert poll_until(lambda: "running" in text(tmp_path / "ec2.json"), 10)
        os.kill(child.pid, signal.SIGKILL)
        assert poll_until(lambda: not child.running, 5)
    with run(tmp_path) as (_, settings, clients):
        check(settings, clients)


def text(path: Path) -> str:
    """A file's text; empty if there is no file."""
    return path.read_text() if path.exists() else ""


@dataclass
class Browser:
    """Sends requests as a browser may, with any headers."""

    url: str

    def ask(self, method: str, target: str, *headers: str, host: str = "", body: bytes = b"") -> tuple[int, str]:
        """Send a request; returns the status and the head of the answer."""
        place = urlsplit(self.url)
        connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=10)
        try:
            connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
            for line in (f"Host: {host or place.netloc}", f"Content-Length: {len(body)}", *headers):
                connection.putheader(*line.split(": "))
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, str(answer.headers).lower()
        finally:
            connection.close()


SIGNED = (
    "Authorization: AWS4-HMAC-SHA256 Credential=facerec-local/20260101/us-east-1/s3/aws4_request, "
    "SignedHeaders=host, Signature=0"
)
PAGE = "Origin: http://evil.example"
SEND = ("X-Amz-Target: AmazonSQS.SendMessage", "Content-Type: text/plain")
SOCKET = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==",
)


@pytest.mark.parametrize("kind", EmulatorKind)
def test_emulator_serves_programs_of_this_machine_only(tmp_path: Path, kind: EmulatorKind) -> None:
    """It listens on one port of loopback. No web page can fetch a photo, send a message or reset it."""
    with run(tmp_path, kind) as (child, settings, clients):
        place = urlsplit(str(settings.endpoint_url))
        assert listening_addresses(child.pid) == {(place.hostname, place.port)}
        put(settings, clients)
        ask = Browser(str(settings.endpoint_url)).ask
        photo = f"/{settings.output_bucket}/a/b.json"
        queue = clients.sqs.get_queue_url(QueueName=settings.request_queue)["QueueUrl"]
        send = f"{urlsplit(queue).path}?Action=SendMessage&Version=2012-11-05&MessageBody=evil"
        message = json.dumps({"QueueUrl": queue, "MessageBody": "evil"}).encode()
        reset = "/moto-api/reset" if kind is EmulatorKind.MOTO else "/_ministack/reset"
        foreign = [
            ask("GET", photo, SIGNED, PAGE),
            ask("GET", photo, SIGNED, f"Origin: http://{place.netloc}", PAGE),
            ask("GET", photo, SIGNED, "Sec-Fetch-Site: cross-site", "Sec-Fetch-Dest: image"),
            ask("GET", send, "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate"),
            ask("OPTIONS", photo, PAGE, "Access-Control-Request-Method: PUT"),
            ask("POST", "/", PAGE, *SEND, body=message),
            ask("POST", "/", "Origin: null", *SEND, body=message),
            ask("POST", reset, PAGE),
            ask("GET", "/", PAGE, *SOCKET),
        ]
        assert [status for status, _ in foreign] == [403] * len(foreign)
        hosts = ("evil.example", f"evil.example:{place.port}", f"{place.netloc}.evil.example", "192.0.2.1")
        rebound = [ask("GET", photo, SIGNED, host=host) for host in hosts]
        assert [status for status, _ in rebound] == [421] * len(rebound)
        check(settings, clients)  # with a single message
        own = [
            ask("GET", photo, SIGNED),
            ask("GET", photo, SIGNED, host=f"LOCALHOST:{place.port}"),
            ask("GET", "/a/b.json", SIGNED, host=f"{settings.output_bucket}.localhost:{place.port}"),
            ask("OPTIONS", photo, SIGNED),
        ]
        assert [status for status, _ in own] == [200] * len(own)
        assert "access-control" not in "".join(head for _, head in (*foreign, *rebound, *own))


def test_client_that_left_receives_no_message(tmp_path: Path) -> None:
    """The open long poll of a killed worker must not take the next task."""
    with run(tmp_path) as (_, settings, clients):
        url = clients.sqs.get_queue_url(QueueName=settings.request_queue)["QueueUrl"]
        assert settings.aws.endpoint_url is not None
        worker = http.client.HTTPConnection("127.0.0.1", settings.aws.endpoint_url.port)
        for wait_seconds in (0, 10):
            worker.request(
                "POST",
                "/",
                body=json.dumps({"QueueUrl": url, "WaitTimeSeconds": wait_seconds}),
                headers={"X-Amz-Target": "AmazonSQS.ReceiveMessage", "Content-Type": "application/x-amz-json-1.0"},
            )
            if wait_seconds == 0:
                worker.getresponse().read()
        clients.sqs.list_queues()  # answered after the long poll has begun
        worker.close()
        clients.sqs.list_queues()  # answered after the end of its connection has been seen
        clients.sqs.send_message(QueueUrl=url, MessageBody="task")

        def taken() -> bool:
            attributes = clients.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
            return attributes["ApproximateNumberOfMessagesNotVisible"] != "0"

        assert not poll_until(taken, 0.5)
