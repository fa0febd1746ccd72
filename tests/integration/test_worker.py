"""Worker processes on an emulated AWS: stopped, killed, cut off and fed with garbage, they lose nothing.

Their engine is the fake, in real child processes; with the real one they run in the end-to-end tests.
"""

import json
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import pytest

from facerec.messages import Outcome, RecognitionRequest, RecognitionResult
from facerec.object_keys import output_key
from tests.fakes import engine as fake
from tests.support.workers import Worker, WorkerTier

PATIENT = {"FACEREC_WORKER__TASK_TIME_LIMIT_SECONDS": "20", "FACEREC_QUEUE__VISIBILITY_TIMEOUT_SECONDS": "30"}
HASTY = {"FACEREC_WORKER__TASK_TIME_LIMIT_SECONDS": "2", "FACEREC_QUEUE__VISIBILITY_TIMEOUT_SECONDS": "3"}


def test_worker_stores_answers_and_deletes(tier: WorkerTier, start: Callable[..., Worker]) -> None:
    """Requests are answered, their results stored, and nothing stays in the queue after a clean stop."""
    worker = start()
    requests = [tier.upload(b"x" * size, f"{size}.jpg") for size in range(1, 31)]
    answers = tier.answers(*requests)
    assert [answer.faces[0].box.x_max for answer in answers] == list(range(1, 31))
    for request, answer in zip(requests, answers, strict=True):
        stored = tier.store.get(tier.settings.output_bucket, output_key(request.request_id, request.filename))
        assert RecognitionResult.parse(stored) == answer
    assert worker.stop() == 0
    assert tier.left(tier.settings.request_queue) == 0
    assert all(json.loads(line)["level"] == "info" for line in worker.lines)


def test_refused_result_ends_no_worker(tier: WorkerTier, start: Callable[..., Worker]) -> None:
    """A response queue that takes only short messages: the result stays in the store, and the work goes on."""

    def limit(size: int) -> None:
        tier.clients.sqs.set_queue_attributes(
            QueueUrl=tier.url(tier.settings.response_queue), Attributes={"MaximumMessageSize": str(size)}
        )

    limit(1024)
    worker = start()
    worker.wait_for("queue_differs", "FACEREC_QUEUE__MAX_MESSAGE_BYTES")
    request = tier.upload(filename="😀" * 60_000 + ".jpg")
    worker.wait_for("result_refused", str(request.request_id))
    assert tier.store.exists(tier.settings.output_bucket, output_key(request.request_id, request.filename))
    limit(tier.settings.queue.max_message_bytes)
    tier.answers(tier.upload())
    assert worker.stop() == 0
    assert tier.left(tier.settings.request_queue) == 0


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 1)])
def test_stop_finishes_the_task_in_progress(
    tier: WorkerTier, start: Callable[..., Worker], number: int, status: int
) -> None:
    """Its client is answered before the exit (with Celery's status); the next worker takes the waiting task."""
    os.mkfifo(tier.model_dir / fake.HELD)
    worker = start(**PATIENT, FACEREC_WORKER__CONCURRENCY="1")
    held = tier.upload(fake.HOLD)
    with (tier.model_dir / fake.HELD).open("wb"):  # returns when the engine has the picture
        waiting = tier.upload()
        worker.send(number)
    assert worker.wait() == status
    (answer,) = tier.answers(held)
    assert (answer.outcome, answer.attempt) == (Outcome.UNKNOWN, 1)
    start()
    tier.answers(waiting)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_photo_that_comes_while_an_idle_worker_stops_is_not_hidden(
    tier: WorkerTier, start: Callable[..., Worker], number: int
) -> None:
    """Its long poll is open, and may bring the photo: the worker answers, or another one takes the photo at once."""
    worker = start(**PATIENT)
    worker.wait_for("ready.")
    worker.send(number)
    request = tier.upload()
    assert worker.wait() == 0
    names: list[Any] = ["ApproximateNumberOfMessagesNotVisible"]
    queue = tier.url(tier.settings.request_queue)
    hidden = tier.clients.sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=names)["Attributes"]
    assert list(hidden.values()) == ["0"]
    if tier.left(tier.settings.request_queue):
        start()
    tier.answers(request)


def test_sigkill_loses_nothing(tier: WorkerTier, start: Callable[..., Worker]) -> None:
    """The task of a killed worker is delivered again after the visibility timeout; no engine is left behind."""
    os.mkfifo(tier.model_dir / fake.HELD)
    worker = start()
    request = tier.upload(fake.HOLD)
    with (tier.model_dir / fake.HELD).open("wb"):
        assert worker.stop(signal.SIGKILL) == -signal.SIGKILL
    start()
    (tier.model_dir / fake.HELD).write_bytes(b"")  # returns when the second worker has the picture
    (answer,) = tier.answers(request)
    assert (answer.outcome, answer.attempt) == (Outcome.UNKNOWN, 2)


def test_long_task_is_not_delivered_twice(tier: WorkerTier, start: Callable[..., Worker]) -> None:
    """A worker keeps its task hidden from a second worker."""
    worker = start(**HASTY)
    other = start(**HASTY)
    request = tier.upload(fake.HANG)  # takes two time limits and a new engine: longer than the visibility timeout
    (answer,) = tier.answers(request)
    assert (answer.outcome, answer.attempt) == (Outcome.FAILED, 1)
    assert worker.stop() == other.stop() == 0
    assert sum('"recognised"' in line for line in worker.lines + other.lines) == 1


def test_picture_that_crashes_the_engine_is_a_dead_letter(tier: WorkerTier, start: Callable[..., Worker]) -> None:
    """It is answered as failed; the pictures beside it succeed."""
    start()
    requests = [tier.upload(picture) for picture in (b"a", fake.SEGFAULT, b"b", b"c")]
    outcomes = [answer.outcome for answer in tier.answers(*requests)]
    assert outcomes == [Outcome.UNKNOWN, Outcome.FAILED, Outcome.UNKNOWN, Outcome.UNKNOWN]
    message = tier.dead_letter()
    attributes = {name: value["StringValue"] for name, value in message["MessageAttributes"].items()}
    assert attributes["request_id"] == str(requests[1].request_id)
    assert "SIGSEGV" in attributes["reason"]
    assert datetime.fromisoformat(attributes["failed_at"]).tzinfo is not None
    assert RecognitionRequest.parse(json.loads(json.loads(message["Body"])["body"])[0][0]) == requests[1]


def test_garbage_is_dead_lettered_at_once(tier: WorkerTier, start: Callable[..., Worker]) -> None:
    """What is no task, not ours, or no request: as it came, with the reason. Work goes on, and every place is free."""
    worker = start(**PATIENT, FACEREC_WORKER__CONCURRENCY="2")  # nothing comes back in time to be redriven by SQS
    task = {"headers": {"task": "facerec.recognise", "id": "x"}, "content-type": "application/json"}
    form = {"content-encoding": "utf-8", "properties": {"delivery_info": {}, "body_encoding": None}}
    request = {"body": '[[{"version": 1}], {}, {}]'}
    whole = task | form | request
    broken = {"properties": {"delivery_info": {}, "body_encoding": "base64"}, "body": "!"}
    callback = {"task": "facerec.recognise", "args": [], "kwargs": {}, "options": {}}

    def having(**headers: Any) -> str:
        return json.dumps(whole | {"headers": task["headers"] | headers})  # type: ignore[operator]  # of different types

    garbage = {
        "no json": "it cannot be read: not a task of Celery",
        "[]": "not a task of Celery",
        '{"properties": 5}': "not a task of Celery",
        json.dumps(task | form | {"body": "[]"}): "body",
        json.dumps(whole | {"headers": {"task": "facerec.recognise"}}): "headers.id",
        json.dumps(whole | broken): "body",
        json.dumps(whole | {"headers": {"task": "somebody.elses", "id": "x"}}): "somebody.elses",
        json.dumps(whole): "unreadable RecognitionRequest",
        json.dumps(whole | {"body": json.dumps([[{}], {}, {"callbacks": [callback]}])}): "callbacks",
        json.dumps(whole | {"content-type": "application/x-python-serialize"}): "content-type",
        having(compression="application/zstd"): "headers.compression",
        having(eta="2100-01-01T00:00:00+00:00"): "headers.eta",
        having(expires="2020-01-01T00:00:00+00:00"): "headers.expires",
        having(timelimit="x"): "headers.timelimit",
        having(stamped_headers=["a"], stamps=5): "headers.stamp",
    }
    for body in garbage:
        tier.clients.sqs.send_message(QueueUrl=tier.url(tier.settings.request_queue), MessageBody=body)
    tier.answers(tier.upload())
    found = {message["Body"]: message["MessageAttributes"] for message in (tier.dead_letter() for _ in garbage)}
    assert found.keys() == garbage.keys()
    for body, reason in garbage.items():
        assert reason in found[body]["reason"]["StringValue"]
    assert worker.stop() == 0
    assert tier.left(tier.settings.request_queue) == 0


def test_worker_survives_a_broken_connection(tier: WorkerTier, start: Callable[..., Worker]) -> None:
    """Cut off from AWS the worker waits, and goes on when the connection is back."""
    assert tier.settings.endpoint_url is not None
    with _cable(tier.settings.endpoint_url) as cable:
        worker = start(FACEREC_AWS__ENDPOINT_URL=cable.url)
        tier.answers(tier.upload())
        cable.unplug()
        worker.wait_for("queue_unreachable")
        request = tier.upload()
        cable.plug()
        tier.answers(request)
        worker.wait_for("queue_reachable_again")
        assert worker.stop() == 0


def test_worker_ends_when_an_operator_must_act(tier: WorkerTier, start: Callable[..., Worker]) -> None:
    """Without its output bucket it logs the reason and exits with 1; the task is left for its successor."""
    worker = start()
    tier.clients.s3.delete_bucket(Bucket=tier.settings.output_bucket)
    request = tier.upload()
    assert worker.wait() == 1
    worker.wait_for('"redelivered"', str(request.request_id), tier.settings.output_bucket)
    assert tier.left(tier.settings.request_queue) == 1


@pytest.mark.parametrize("command", [("celery", "-A", "facerec", "worker"), ("facerec.cli", "worker")])
@pytest.mark.parametrize(
    ("variable", "words"),
    [("FACEREC_PREFIX", "facerec provision"), ("FACEREC_MODEL__DIR", "facerec model build")],
)
def test_worker_names_what_is_missing(tier: WorkerTier, variable: str, words: str, command: tuple[str, ...]) -> None:
    """Its queues or its model, with every way to start it."""
    worker = Worker(tier.environ | {variable: "nowhere"}, *command)
    assert worker.wait() == 1
    (line,) = worker.lines
    assert line.startswith("facerec: there is no")
    assert words in line


class _Cable:
    """A TCP connection to somewhere that can be unplugged."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._port = 0
        self.plug()

    @property
    def url(self) -> str:
        """The near end."""
        return f"http://127.0.0.1:{self._port}"

    def plug(self) -> None:
        """Accept connections."""
        self._socket = socket.create_server(("127.0.0.1", self._port))
        self._port = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, args=[self._socket], daemon=True).start()

    def unplug(self) -> None:
        """Refuse connections, and break the open ones."""
        assert self._socket is not None
        self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._socket.close()
        with self._lock:
            for each in self._open:
                with suppress(OSError):  # its other end was quicker
                    each.shutdown(socket.SHUT_RDWR)
            self._open.clear()

    def _accept(self, server: socket.socket) -> None:
        while True:
            try:
                near, _ = server.accept()
            except OSError:
                return
            far = socket.create_connection(self._target)
            with self._lock:
                self._open |= {near, far}
            for ends in ((near, far), (far, near)):
                threading.Thread(target=_pump, args=ends, daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65_536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_RDWR)
    except OSError:
        return


@contextmanager
def _cable(url: str) -> Iterator[_Cable]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    cable = _Cable((parts.hostname, parts.port))
    yield cable
    cable.unplug()
