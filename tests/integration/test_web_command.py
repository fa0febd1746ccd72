"""`facerec web` as an operator runs it, against the emulator, with a worker that is a thread of the test."""

import json
import os
import select
import signal
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from facerec.aws.clients import Clients
from facerec.aws.sqs.response_queues import OWNER_TAG, RENEWED_TAG
from facerec.aws.sqs.results import SqsResultPublisher
from facerec.errors import QueueMissing
from facerec.messages import RecognitionRequest
from facerec.processes.addresses import poll_until
from facerec.provision.provisioning import provision
from facerec.settings import Settings
from tests.fakes.web_tier import picture, result_for
from tests.support import workers
from tests.support.emulated import EmulatedAws, environ_of
from tests.support.metrics import scrape, total
from tests.support.processes import Command, alive, descendants, facerec, run

TLS = ssl.create_default_context()
"""Shared, because making one takes longer than an upload; it is not used, since the tests speak plain HTTP."""


class Worker(threading.Thread):
    """Answers every task with the name `Jane`, while `working` is set."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(name="worker")
        self._clients = Clients(settings)
        self._queue = settings.request_queue
        self._publisher = SqsResultPublisher(self._clients, settings.response_queue)
        self.working = threading.Event()
        self.working.set()
        self.ending = threading.Event()
        self.replied_to: set[str] = set()
        self.received = threading.Semaphore(0)

    def run(self) -> None:
        """Work until `ending` is set."""
        url = self._clients.sqs.get_queue_url(QueueName=self._queue)["QueueUrl"]
        while not self.ending.is_set():
            received = self._clients.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1)
            for message in received.get("Messages", []):
                request = RecognitionRequest.parse(json.loads(json.loads(message["Body"])["body"])[0][0])
                self.received.release()
                assert self.working.wait(30)
                assert request.reply_to is not None
                with suppress(QueueMissing):  # its process has been killed, or has left
                    self._publisher.publish(request.reply_to, result_for(request, "Jane"))
                self.replied_to.add(request.reply_to)
                self._clients.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])


@pytest.fixture
def worker(fresh: Settings) -> Iterator[Worker]:
    """A working worker."""
    thread = Worker(fresh)
    thread.start()
    yield thread
    thread.working.set()
    thread.ending.set()
    thread.join(30)


@pytest.fixture
def environ(emulator: EmulatedAws, fresh: Settings) -> dict[str, str]:
    """The environment of a `facerec web` on a free port."""
    variables = {"FACEREC_WEB__PORT": "0", "FACEREC_QUEUE__WAIT_TIME_SECONDS": "1", "FACEREC_LOG__FORMAT": "json"}
    return environ_of(fresh, emulator.environ) | variables


class Web(Command):
    """A running `facerec web`."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        super().__init__(facerec("web"), environ)
        self.url = self.printed().split()[-1]

    def upload(self) -> httpx.Response:
        """Send a picture."""
        with httpx.Client(verify=TLS, timeout=60) as client:
            return client.post(self.url, files={"inputFile": ("image_01.jpg", picture())})

    def children(self) -> set[int]:
        """Its web processes, if it has several."""
        return descendants(self.process.pid, "--response-queue")

    def await_ready(self) -> None:
        """Ask until it is ready: its processes start after the address is known."""
        deadline = time.monotonic() + 60
        with httpx.Client(verify=TLS, timeout=60) as client:
            while client.get(f"{self.url}/readyz").status_code != 200:
                assert time.monotonic() < deadline, "the web tier did not get ready"


@contextmanager
def web(environ: Mapping[str, str]) -> Iterator[Web]:
    """A ready `facerec web`, surely gone afterwards."""
    with Web(environ) as command:
        command.await_ready()
        yield command


def own_queues(settings: Settings) -> set[str]:
    """The response queues of single web processes."""
    prefix = f"{settings.response_queue}-"
    urls = Clients(settings).sqs.list_queues(QueueNamePrefix=prefix).get("QueueUrls", [])
    return {url.rsplit("/", 1)[-1] for url in urls}


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_stop_under_load_answers_waiting_uploads(environ: dict[str, str], worker: Worker, sent: signal.Signals) -> None:
    """The exit status is 0, and the log has no errors."""
    worker.working.clear()
    patient = {"FACEREC_WEB__SHUTDOWN_SECONDS": "60"}  # on a busy machine ten answers take long
    with web(environ | patient) as command, ThreadPoolExecutor(10) as clients:
        replies = [clients.submit(command.upload) for _ in range(10)]
        assert worker.received.acquire(timeout=30)
        command.process.send_signal(sent)
        worker.working.set()
        answered = [reply.result(30) for reply in replies]
        assert command.process.wait(20) == 0
    waiting = [reply for reply in answered if reply.status_code == 200]
    assert waiting
    assert {reply.text for reply in waiting} == {"image_01.jpg: face detected - Jane"}
    # Uploads that had not been admitted yet were refused with a time to try again.
    refused = [reply for reply in answered if reply.status_code != 200]
    assert not [(reply.status_code, reply.text) for reply in refused if "Retry-After" not in reply.headers]
    assert not [line for line in command.lines if '"level": "error"' in line or "Traceback" in line]


def test_stop_of_an_idle_process_is_quick(environ: dict[str, str], fresh: Settings) -> None:
    """It leaves the shared response queue alone."""
    with web(environ) as command:
        started = time.monotonic()
        assert command.stop() == 0
        assert time.monotonic() - started < 5
    assert Clients(fresh).sqs.get_queue_url(QueueName=fresh.response_queue)


def test_second_signal_ends_the_process_at_once(environ: dict[str, str], worker: Worker) -> None:
    """Also while an upload waits."""
    worker.working.clear()
    with web(environ | {"FACEREC_WEB__SHUTDOWN_SECONDS": "60"}) as command, ThreadPoolExecutor(1) as clients:
        clients.submit(command.upload)
        assert worker.received.acquire(timeout=30)
        command.process.send_signal(signal.SIGTERM)
        command.wait_for('"stopping"')
        with httpx.Client(verify=TLS, timeout=60) as client:
            # The answer of a moment ago is kept for a second.
            while (unready := client.get(f"{command.url}/readyz")).status_code == 200:
                assert command.process.poll() is None
        assert unready.status_code == 503
        assert unready.json()["checks"]["admission"] == "this process is being stopped"
        assert command.stop() == 1


def test_several_processes_share_the_port_and_own_their_queues(
    environ: dict[str, str], fresh: Settings, worker: Worker
) -> None:
    """Each is answered on its own; one that dies is replaced; none leaves anything behind, nor did those before."""
    orphan = {OWNER_TAG: "gone:1", RENEWED_TAG: "2020-01-01T00:00:00+00:00"}
    Clients(fresh).sqs.create_queue(QueueName=f"{fresh.response_queue}-0123456789ab", tags=orphan)
    with web(environ | {"FACEREC_WEB__PROCESSES": "2"}) as command, ThreadPoolExecutor(40) as clients:
        before = own_queues(fresh)
        assert len(before) == 2
        replies = list(clients.map(lambda _: command.upload(), range(40)))
        assert [reply.status_code for reply in replies] == [200] * 40
        assert worker.replied_to <= before

        victim = min(command.children())
        os.kill(victim, signal.SIGKILL)
        command.wait_for('"web_process_started"', count=3)
        assert own_queues(fresh) == before
        assert command.upload().status_code == 200

        children = command.children()
        assert command.stop() == 0
    assert not [pid for pid in children if alive(pid)]
    assert not [line for line in command.lines if "Fatal" in line or "Traceback" in line]
    assert own_queues(fresh) == set()


def test_several_processes_show_the_sum_of_their_metrics(environ: dict[str, str], tmp_path: Path) -> None:
    """One that died keeps its counts and loses its gauges; no file stays behind."""
    several = {"FACEREC_WEB__PROCESSES": "2", "FACEREC_WEB__MAX_WAITING": "10", "TMPDIR": str(tmp_path)}
    with web(environ | several) as command:
        page = f"{command.url}/metrics"
        assert poll_until(lambda: total(scrape(page), "facerec_web_uploads_places") == 20, 60)
        health = {"route": "/healthz", "status": "200"}
        for _ in range(10):
            httpx.get(f"{command.url}/healthz", verify=TLS, timeout=60)
        assert total(scrape(page), "facerec_web_request_seconds_count", **health) == 10
        victim = min(command.children())
        assert list(tmp_path.glob(f"*/gauge_live*_{victim}.db"))
        os.kill(victim, signal.SIGKILL)
        command.wait_for('"web_process_ended"')
        assert list(tmp_path.glob(f"*/gauge_live*_{victim}.db")) == []
        assert poll_until(lambda: total(scrape(page), "facerec_web_processes") == 2, 60)
        samples = scrape(page)
        assert total(samples, "facerec_web_request_seconds_count", **health) == 10
        assert total(samples, "process_resident_memory_bytes") > 1_000_000
        assert command.stop() == 0
    assert list(tmp_path.iterdir()) == []


def test_processes_end_with_their_parent(environ: dict[str, str]) -> None:
    """Also when it is killed."""
    with web(environ | {"FACEREC_WEB__PROCESSES": "2"}) as command:
        children = command.children()
        assert len(children) == 2
        watched = [os.pidfd_open(pid) for pid in children]
        command.process.kill()
        for pidfd in watched:
            ended, _, _ = select.select([pidfd], [], [], 15)
            os.close(pidfd)
            assert ended, "a web process outlived its parent"


def test_uploads_survive_lost_queues(
    environ: dict[str, str], emulator: EmulatedAws, fresh: Settings, tmp_path: Path
) -> None:
    """Uploads survive lost queues."""
    tier = workers.WorkerTier(emulator, fresh, tmp_path)
    with web(environ) as command, ThreadPoolExecutor(1) as clients:
        waiting = clients.submit(command.upload)
        assert poll_until(lambda: tier.left(fresh.request_queue) == 1, 30)
        tier.clients.sqs.delete_queue(QueueUrl=tier.url(fresh.request_queue))
        command.wait_for('"request_queue_missing"')
        assert command.upload().status_code == 503
        provision(tier.clients, fresh)
        command.wait_for('"task_sent_again"')
        worker = workers.Worker(tier.environ)
        try:
            assert waiting.result(30).text == "image_01.jpg: face not recognized"
            tier.clients.sqs.delete_queue(QueueUrl=tier.url(fresh.response_queue))
            assert command.upload().text == "image_01.jpg: face not recognized"
            command.wait_for('"result_found_in_the_store"')
        finally:
            worker.stop(signal.SIGKILL)


@pytest.mark.parametrize("processes", ["1", "2"])
def test_start_without_resources_says_what_to_do_in_one_line(emulator: EmulatedAws, processes: str) -> None:
    """Start without resources says what to do in one line."""
    variables = {"FACEREC_PREFIX": "nobodys", "FACEREC_WEB__PORT": "0", "FACEREC_WEB__PROCESSES": processes}
    ended = run("web", environ=emulator.environ | variables)
    assert ended.returncode == 1
    assert ended.stderr.startswith("facerec: ")
    assert "facerec provision" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_start_on_a_port_in_use_names_the_settings(environ: dict[str, str]) -> None:
    """In one line."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = run("web", environ=environ | {"FACEREC_WEB__PORT": str(taken.getsockname()[1])})
    assert ended.returncode == 1
    assert "FACEREC_WEB__PORT" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
