"""The local Lambda service with AWS's emulator of the runtime: the queue's mapping and the function URL."""

import base64
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from facerec.aws.clients import Clients
from facerec.aws.sqs.queue import SqsQueue
from facerec.errors import FacerecError
from facerec.local.functions.instance import Function
from facerec.local.functions.service import FunctionService, Url
from facerec.processes.addresses import free_port, poll_until
from facerec.settings import Settings
from tests.support.processes import alive

FUNCTION = Function(
    name="face-test",
    argv=(sys.executable, "-m", "awslambdaric", "tests.support.lambda_handlers.handler"),
    environ=dict(os.environ),
    memory_mb=512,
    timeout_seconds=30,  # the machine may be busy
)
CREDENTIALS = Credentials("facerec-local", "secret")
VISIBILITY_SECONDS = 1


class Mapped:
    """A function for the faces queue of a test, whose messages say what it does."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._clients = Clients(settings)
        self.queue = SqsQueue(self._clients.sqs, settings.faces_queue)
        self._dead_letters = SqsQueue(self._clients.sqs, settings.faces_dead_letter_queue)
        self.hide(VISIBILITY_SECONDS)
        self._note = folder / "note"

    def hide(self, seconds: int) -> None:
        """Set the visibility timeout of the queue."""
        self._clients.sqs.set_queue_attributes(QueueUrl=self.queue.url, Attributes={"VisibilityTimeout": str(seconds)})

    def send(self, *asked: dict[str, Any]) -> None:
        """Send messages; the function notes each that it begins."""
        errors = self.queue.send_batch([json.dumps({**one, "note": str(self._note)}) for one in asked])
        assert errors == [None] * len(asked)

    def begun(self) -> list[tuple[int, Any]]:
        """The process and the message of each that was begun."""
        lines = self._note.read_text().splitlines() if self._note.exists() else []
        return [(pid, asked["name"]) for pid, asked in map(json.loads, lines)]

    def left(self, queue: SqsQueue | None = None) -> int:
        """How many messages a queue holds, visible or not."""
        names = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
        return sum(map(int, (queue or self.queue).attributes(*names).values()))

    def dead(self) -> int:
        """How many messages failed for good."""
        return self.left(self._dead_letters)


@pytest.fixture
def mapped(fresh: Settings, tmp_path: Path) -> Mapped:
    """A queue of this test's own."""
    return Mapped(fresh, tmp_path)


@pytest.fixture
def serve(mapped: Mapped, runtime_emulator: Path, tmp_path: Path) -> Iterator[Callable[..., FunctionService]]:
    """Starts services for the queue, and ends them."""
    with ExitStack() as stack:

        def start(
            concurrency: int = 1, batch_size: int = 10, url: Url | None = None, function: Function = FUNCTION
        ) -> FunctionService:
            service = FunctionService(
                function,
                mapped.queue,
                emulator=runtime_emulator,
                logs=tmp_path / "logs",
                concurrency=concurrency,
                batch_size=batch_size,
                url=url,
            )
            return stack.enter_context(service)

        yield start


def test_messages_that_failed_are_delivered_again(mapped: Mapped, serve: Callable[..., FunctionService]) -> None:
    """Those of the same batch that succeeded are not; after the last delivery one is a dead letter."""
    mapped.send({"name": "good"}, {"name": "bad", "do": "failed"}, {"name": "fine"})
    serve()
    assert poll_until(lambda: mapped.dead() == 1, 30)
    names = [name for _, name in mapped.begun()]
    assert sorted(names) == ["bad"] * 4 + ["fine", "good"]
    assert mapped.left() == 0


@pytest.mark.parametrize("do", ["raise", "crash", "sleep"])
def test_batch_of_a_failed_invocation_is_delivered_again(
    mapped: Mapped, serve: Callable[..., FunctionService], do: str
) -> None:
    """Whether it raised, crashed, or took too long; nothing is lost."""
    serve(batch_size=1, function=replace(FUNCTION, timeout_seconds=3))
    mapped.send({"name": "first", "do": do})
    assert poll_until(lambda: len(mapped.begun()) >= 2, 60)
    mapped.send({"name": "second"})
    assert poll_until(lambda: "second" in [name for _, name in mapped.begun()], 60)
    assert mapped.left() + mapped.dead() >= 1


def test_no_more_batches_run_than_the_mapping_allows(mapped: Mapped, serve: Callable[..., FunctionService]) -> None:
    """Two of four messages, by two instances; the others stay visible for another taker."""
    mapped.hide(600)
    mapped.send(*({"name": number, "do": "sleep", "seconds": 60} for number in range(4)))
    serve(concurrency=2, batch_size=1, function=replace(FUNCTION, timeout_seconds=120))
    assert poll_until(lambda: len(mapped.begun()) == 2, 60)
    assert len({pid for pid, _ in mapped.begun()}) == 2
    assert mapped.queue.attributes("ApproximateNumberOfMessages") == {"ApproximateNumberOfMessages": "2"}


def test_stopped_service_gives_back_what_it_has_not_finished(
    mapped: Mapped, serve: Callable[..., FunctionService]
) -> None:
    """The message is visible at once, long before its visibility timeout is over; no process is left."""
    mapped.hide(600)
    service = serve(function=replace(FUNCTION, timeout_seconds=120))
    mapped.send({"name": "slow", "do": "sleep", "seconds": 60})
    assert poll_until(lambda: len(mapped.begun()) == 1, 30)
    pids = [*service.pool.pids, mapped.begun()[0][0]]
    service.__exit__()
    assert not any(map(alive, pids))
    assert len(mapped.queue.receive(wait_seconds=2)) == 1


def test_service_ends_when_it_cannot_start_instances(serve: Callable[..., FunctionService]) -> None:
    """Something has killed the process that registers them: a new service will have another one."""
    service = serve()
    os.kill(service.pool._reaper._process.pid, signal.SIGKILL)
    with pytest.raises(FacerecError, match="no instance can be started"):
        service.serve_until(threading.Event())


def ask(
    url: str,
    path: str,
    body: bytes = b"",
    *,
    key: Credentials | None = CREDENTIALS,
    content_type: str = "application/json",
    **headers: str,
) -> httpx.Response:
    """POST to the function URL, signed by the credentials if there are any."""
    request = AWSRequest("POST", url + path, {"Content-Type": content_type, **headers}, data=body)
    if key is not None:
        SigV4Auth(key, "lambda", "us-east-1").add_auth(request)
    return httpx.post(url + path, content=body, headers=dict(request.headers.items()), trust_env=False, timeout=20)


def test_function_url_invokes_for_signed_requests(serve: Callable[..., FunctionService]) -> None:
    """The function's answer sets status, type and bytes; its failures are 502, as on AWS."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    serve(url=Url(port, CREDENTIALS.get_frozen_credentials()))
    event = ask(url, "/echo", b'{"a": "\xc3\xa9"}').json()
    assert (event["body"], event["isBase64Encoded"]) == ('{"a": "é"}', False)
    assert event["requestContext"]["authorizer"]["iam"]["accessKey"] == "facerec-local"
    binary = ask(url, "/binary")
    assert (binary.status_code, binary.headers["content-type"]) == (201, "image/png")
    assert binary.content == base64.b64decode("iVBORw==")
    assert [ask(url, path).status_code for path in ("/raise", "/crash", "/large")] == [502] * 3
    largest = 6 * 1024 * 1024
    assert ask(url, "/fine", b'"' + b"x" * (largest - 2000) + b'"').json() == "fine"
    assert ask(url, "/fine", b"x" * (7 << 20)).status_code == 413
    # As base64 it is a third longer.
    assert ask(url, "/fine", b"x" * (5 << 20), content_type="image/jpeg").status_code == 413
    assert ask(url, "/fine", key=None).status_code == 403
    assert ask(url, "/fine", key=Credentials("facerec-local", "wrong")).status_code == 403
    assert ask(url, "/fine", Origin="http://evil.example").status_code == 403


def test_open_function_url_needs_no_signature(serve: Callable[..., FunctionService]) -> None:
    """A hundred requests at once share its two instances; web pages are refused."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    serve(concurrency=2, url=Url(port, None))
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda: statuses.append(ask(url, "/fine", key=None).status_code)) for _ in range(100)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert statuses == [200] * 100
    assert ask(url, "/fine", key=None, Host="evil.example").status_code == 421
