"""Worker processes on an emulated AWS: stopped, killed, cut off and fed with garbage, they lose nothing.

Their engine is the fake, in real child processes; with the real one they run in the end-to-end tests.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from facerec.aws.clients import Clients
from facerec.aws.object_store import S3ObjectStore
from facerec.aws.results import SqsResultInbox
from facerec.celery import CeleryTaskQueue
from facerec.keys import input_key, output_key
from facerec.local.addresses import poll_until
from facerec.messages import ObjectRef, Outcome, RecognitionRequest, RecognitionResult
from facerec.settings import Settings
from tests.fakes import engine as fake
from tests.support.artefacts import write_artefact
from tests.support.emulated import EmulatedAws, environ_of
from tests.support.processes import CHECKOUT, alive, descendants

PATIENT = {"FACEREC_WORKER__TASK_TIME_LIMIT_SECONDS": "20", "FACEREC_QUEUE__VISIBILITY_TIMEOUT_SECONDS": "30"}
HASTY = {"FACEREC_WORKER__TASK_TIME_LIMIT_SECONDS": "0.7", "FACEREC_QUEUE__VISIBILITY_TIMEOUT_SECONDS": "1"}


class Tier:
    """The resources of one test, a client's view of them, and the worker's environment."""

    def __init__(self, aws: EmulatedAws, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.model_dir = folder / "model"
        write_artefact(self.model_dir)
        self.environ = environ_of(settings, aws.environ) | {
            "FACEREC_MODEL__DIR": str(self.model_dir),
            "FACEREC_MODEL__CACHE_DIR": str(folder / "cache"),
            "FACEREC_WORKER__ENGINES": "1",
            "FACEREC_WORKER__TASK_TIME_LIMIT_SECONDS": "2",
            "FACEREC_QUEUE__VISIBILITY_TIMEOUT_SECONDS": "3",
            "FACEREC_LOG__FORMAT": "json",
        }
        self.clients = Clients(settings)
        self.store = S3ObjectStore(self.clients)
        self._queue = CeleryTaskQueue(settings)
        self._inbox = SqsResultInbox(self.clients, settings.response_queue)

    def upload(self, picture: bytes = b"picture", filename: str = "a.jpg") -> RecognitionRequest:
        """Do what the web tier does with an upload."""
        request_id = uuid.uuid4()
        key = input_key(request_id, filename)
        self.store.put(self.settings.input_bucket, key, picture, "image/jpeg")
        request = RecognitionRequest(
            request_id=request_id,
            input=ObjectRef(bucket=self.settings.input_bucket, key=key, size=len(picture)),
            filename=filename,
            reply_to=self.settings.response_queue,
            submitted_at=datetime.now(UTC),
        )
        self._queue.submit(request)
        return request

    def answers(self, *requests: RecognitionRequest) -> list[RecognitionResult]:
        """The results of these requests, in their order, once all are there."""
        found: dict[uuid.UUID, RecognitionResult] = {}
        while not all(request.request_id in found for request in requests):
            deliveries = self._inbox.receive(5)
            found |= {delivery.result.request_id: delivery.result for delivery in deliveries}
            self._inbox.delete(deliveries)
        return [found[request.request_id] for request in requests]

    def url(self, queue: str) -> str:
        """A queue's URL."""
        return self.clients.sqs.get_queue_url(QueueName=queue)["QueueUrl"]

    def left(self, queue: str) -> int:
        """How many messages a queue holds, visible or not."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        attributes = self.clients.sqs.get_queue_attributes(QueueUrl=self.url(queue), AttributeNames=names)  # type: ignore[arg-type]  # literals
        return sum(int(value) for value in attributes["Attributes"].values())

    def dead_letter(self) -> dict[str, Any]:
        """The next message of the dead-letter queue."""
        (message,) = self.clients.sqs.receive_message(
            QueueUrl=self.url(self.settings.dead_letter_queue), MessageAttributeNames=["All"], WaitTimeSeconds=10
        )["Messages"]
        return dict(message)


class Worker:
    """A worker process; what it logs can be waited for."""

    def __init__(self, environ: dict[str, str], *argv: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", *(argv or ("tests.fakes.worker",))],
            cwd=CHECKOUT,
            env=environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.lines: list[str] = []
        self._logged = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def wait_for(self, *words: str) -> str:
        """The first line with all the words, once it is there."""
        with self._logged:
            assert self._logged.wait_for(lambda: self._find(words) is not None or not self._reader.is_alive(), 30)
            line = self._find(words)
            assert line is not None, self.lines
            return line

    def tell(self, number: int) -> None:
        """Send a signal to the worker and its engines, as a terminal and a service manager do."""
        os.killpg(self.process.pid, number)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, and return the exit status once all that the worker started has ended, too."""
        children = descendants(self.process.pid)
        if number == signal.SIGKILL:
            self.process.kill()  # only the worker itself: its engines must end by themselves
        else:
            self.tell(number)
        status = self.process.wait(30)
        self._reader.join(30)
        assert poll_until(lambda: not any(alive(child) for child in children), 10)
        return status

    def _find(self, words: tuple[str, ...]) -> str | None:
        return next((line for line in self.lines if all(word in line for word in words)), None)

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._logged:
                self.lines.append(line)
                self._logged.notify_all()
        with self._logged:
            self._logged.notify_all()


@pytest.fixture
def tier(emulator: EmulatedAws, fresh: Settings, tmp_path: Path) -> Tier:
    """Resources of this test's own."""
    return Tier(emulator, fresh, tmp_path)


@pytest.fixture
def start(tier: Tier) -> Iterator[Callable[..., Worker]]:
    """Starts workers, ready when it returns; whatever still runs at the end is killed."""
    started: list[Worker] = []

    def start(**variables: str) -> Worker:
        worker = Worker(tier.environ | variables)
        started.append(worker)
        worker.wait_for("worker_ready")
        return worker

    yield start
    for worker in started:
        worker.stop(signal.SIGKILL)


def test_stores_and_answers_and_deletes(tier: Tier, start: Callable[..., Worker]) -> None:
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


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 1)])
def test_a_stop_finishes_the_task_in_hand(tier: Tier, start: Callable[..., Worker], number: int, status: int) -> None:
    """The task that runs is answered before the exit (Celery's status for it), what waits by the next worker."""
    os.mkfifo(tier.model_dir / fake.HELD)
    worker = start(**PATIENT, FACEREC_WORKER__CONCURRENCY="1")
    held = tier.upload(fake.HOLD)
    with (tier.model_dir / fake.HELD).open("wb"):  # returns when the engine has the picture
        waiting = tier.upload()
        worker.tell(number)
    assert worker.process.wait(30) == status
    (answer,) = tier.answers(held)
    assert (answer.outcome, answer.attempt) == (Outcome.UNKNOWN, 1)
    start()
    tier.answers(waiting)


def test_sigkill_loses_nothing(tier: Tier, start: Callable[..., Worker]) -> None:
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


def test_a_long_task_is_not_delivered_twice(tier: Tier, start: Callable[..., Worker]) -> None:
    """While a worker holds a task, its heartbeat keeps it hidden from a second worker."""
    worker = start(**HASTY)
    other = start(**HASTY)
    request = tier.upload(fake.HANG)  # takes two time limits and a new engine: longer than the visibility timeout
    (answer,) = tier.answers(request)
    assert (answer.outcome, answer.attempt) == (Outcome.FAILED, 1)
    assert worker.stop() == other.stop() == 0
    assert sum('"recognised"' in line for line in worker.lines + other.lines) == 1


def test_a_culprit_is_put_aside_and_its_neighbours_are_not(tier: Tier, start: Callable[..., Worker]) -> None:
    """A picture that crashes the engine is answered as failed and waits, as it came, among the dead letters."""
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


def test_garbage_in_the_queue_ends_nobody(tier: Tier, start: Callable[..., Worker]) -> None:
    """What is no task stays for the redrive policy, what is no request goes to the dead letters; work goes on."""
    worker = start()
    task = {"headers": {"task": "facerec.recognise", "id": "x"}, "content-type": "application/json"}
    form = {"content-encoding": "utf-8", "properties": {"delivery_info": {}, "body_encoding": None}}
    broken = {"properties": {"delivery_info": {}, "body_encoding": "base64"}, "body": "!"}
    for garbage in (
        "no json",
        "[]",
        '{"properties": 5}',
        json.dumps(task | form | {"body": "[]"}),
        json.dumps(task | form | broken),
        json.dumps(task | form | {"body": '[["no request"], {}, {}]'}),
    ):
        tier.clients.sqs.send_message(QueueUrl=tier.url(tier.settings.request_queue), MessageBody=garbage)
    tier.answers(tier.upload())
    message = tier.dead_letter()
    assert "no request" in message["Body"]
    assert message["MessageAttributes"]["reason"]["StringValue"].startswith("unreadable RecognitionRequest")
    assert worker.stop() == 0


def test_outlives_its_broker(tier: Tier, start: Callable[..., Worker]) -> None:
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


def test_ends_where_only_an_operator_can_help(tier: Tier, start: Callable[..., Worker]) -> None:
    """Without its output bucket it can do nothing: it says so and exits with 1; the task is there for its successor."""
    worker = start()
    tier.clients.s3.delete_bucket(Bucket=tier.settings.output_bucket)
    request = tier.upload()
    assert worker.process.wait(30) == 1
    worker.wait_for('"redelivered"', str(request.request_id), tier.settings.output_bucket)
    assert tier.left(tier.settings.request_queue) == 1


@pytest.mark.parametrize("command", [("celery", "-A", "facerec", "worker"), ("facerec.cli", "worker")])
@pytest.mark.parametrize(
    ("variable", "words"),
    [("FACEREC_PREFIX", "facerec provision"), ("FACEREC_MODEL__DIR", "facerec model build")],
)
def test_says_in_one_line_what_is_missing(tier: Tier, variable: str, words: str, command: tuple[str, ...]) -> None:
    """Without its queues or its model a worker ends with one line that says what to do, however it was started."""
    worker = Worker(tier.environ | {variable: "nowhere"}, *command)
    assert worker.process.wait(30) == 1
    worker._reader.join()
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
