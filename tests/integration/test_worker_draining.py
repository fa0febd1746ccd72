"""The worker of an instance: it reports, drains when it is asked to, and takes tasks again; no task is lost by it."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from facerec.aws.dynamodb.worker_reports import DynamoWorkerReports
from facerec.messages import Outcome, RecognitionRequest, WorkerReport, WorkerState
from facerec.processes.addresses import poll_until
from facerec.provision import provisioning
from facerec.settings import Settings
from tests.fakes import engine as fake
from tests.support.emulated import EmulatedAws
from tests.support.workers import Worker, WorkerTier

ID = "i-0123456789abcdef0"
SECONDS = 30
"""Far more than anything takes here."""


class Instance:
    """The tier of a worker that knows its instance, and the autoscaler's view of it."""

    def __init__(self, tier: WorkerTier) -> None:
        self.tier = tier
        self.reports = DynamoWorkerReports(tier.clients, tier.settings.fleet_table)
        self._started: list[Worker] = []

    def start(self, **variables: str) -> Worker:
        """Start a worker, ready on return."""
        # What is received and not given back would come back soon enough with the tier's short timeout.
        patient = {
            "FACEREC_WORKER__TASK_TIME_LIMIT_SECONDS": "20",
            "FACEREC_QUEUE__VISIBILITY_TIMEOUT_SECONDS": "60",
        }
        worker = Worker(self.tier.environ | patient | {"FACEREC_WORKER__INSTANCE_ID": ID} | variables)
        self._started.append(worker)
        worker.wait_for("worker_ready")
        return worker

    def report(self) -> WorkerReport | None:
        """What the worker said last."""
        record = self.reports.records([ID]).get(ID)
        return record.report if record is not None else None

    def wait_for(self, fits: Callable[[WorkerReport], bool]) -> WorkerReport:
        """The first report that fits."""
        found: list[WorkerReport] = []

        def look() -> bool:
            report = self.report()
            if report is not None and fits(report):
                found.append(report)
            return bool(found)

        assert poll_until(look, SECONDS), self.report()
        return found[0]

    def order_drain(self) -> None:
        """Ask the worker to drain. Now: an order of long ago has expired, and the emulator deletes it in time."""
        self.reports.order_drain(ID, time.time())

    def wait_until(self, state: WorkerState) -> WorkerReport:
        """The first report of this state."""
        return self.wait_for(lambda report: report.state is state)

    def wait_for_reports(self, count: int) -> None:
        """Until the worker has said so often that nothing has changed."""
        for _ in range(count):
            last = self.wait_for(lambda _: True)
            self.wait_for(lambda report, last=last: report.reported_at > last.reported_at)  # type: ignore[misc]  # a default

    def queue(self, name: str | None = None) -> tuple[int, int]:
        """Messages of a queue, by default the request queue, that are visible, and those in flight."""
        attributes = self.tier.clients.sqs.get_queue_attributes(
            QueueUrl=self.tier.url(name or self.tier.settings.request_queue),
            AttributeNames=["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"],
        )["Attributes"]
        return (
            int(attributes["ApproximateNumberOfMessages"]),
            int(attributes["ApproximateNumberOfMessagesNotVisible"]),
        )

    def end(self) -> None:
        """Kill what still runs."""
        for worker in self._started:
            worker.stop(signal.SIGKILL)


@pytest.fixture
def instance(emulator: EmulatedAws, fresh: Settings, tmp_path: Path) -> Iterator[Instance]:
    """An instance without a worker."""
    instance = Instance(WorkerTier(emulator, fresh, tmp_path))
    yield instance
    instance.end()


def test_worker_reports_what_it_does(instance: Instance) -> None:
    """That it is ready, what it holds, since when it is idle, and at last that it has ended."""
    tier = instance.tier
    os.mkfifo(tier.model_dir / fake.HELD)
    worker = instance.start()
    ready = instance.wait_until(WorkerState.READY)
    assert (ready.held, ready.tasks_done, ready.idle_since) == (0, 0, ready.ready_at)
    request = tier.upload(fake.HOLD)
    with (tier.model_dir / fake.HELD).open("wb"):  # returns when the engine has the picture
        busy = instance.wait_for(lambda report: report.held == 1)
        assert busy.idle_since is None
    tier.answers(request)
    idle = instance.wait_for(lambda report: report.tasks_done == 1)
    assert idle.idle_since is not None
    assert busy.reported_at < idle.idle_since <= idle.reported_at
    assert idle.saturated_seconds > 0  # it has one engine
    assert idle.saturated_tasks == 1
    assert worker.stop() == 0
    assert instance.wait_for(lambda report: report.state is WorkerState.ENDED).held == 0


def test_successor_of_a_killed_worker_reports_from_zero(instance: Instance) -> None:
    """Its successor begins to count again."""
    worker = instance.start()
    before = instance.wait_until(WorkerState.READY)
    worker.stop(signal.SIGKILL)
    instance.start()
    assert instance.wait_for(lambda report: report.ready_at > before.ready_at).tasks_done == 0


def test_worker_drains_and_takes_tasks_again(instance: Instance) -> None:
    """It finishes what it holds and leaves the rest visible, until the order is withdrawn."""
    tier = instance.tier
    os.mkfifo(tier.model_dir / fake.HELD)
    worker = instance.start(FACEREC_WORKER__CONCURRENCY="1")
    held = tier.upload(fake.HOLD)
    with (tier.model_dir / fake.HELD).open("wb"):  # the only place is taken, so that no receive is open
        instance.order_drain()
        assert instance.wait_until(WorkerState.DRAINING).held == 1
        others = [tier.upload() for _ in range(3)]
    drained = instance.wait_until(WorkerState.DRAINED)
    assert (drained.held, drained.tasks_done) == (0, 1)
    assert instance.queue() == (3, 0)
    tier.answers(held)
    others += [tier.upload() for _ in range(3)]
    instance.wait_for_reports(2)
    assert instance.queue() == (6, 0)
    instance.reports.cancel_drain(ID)
    assert [answer.attempt for answer in tier.answers(*others)] == [1] * 6
    instance.wait_for(lambda report: report.state is WorkerState.READY and report.tasks_done == 7)
    assert worker.stop() == 0
    assert instance.queue() == (0, 0)


def test_worker_with_two_queues_drains_and_takes_from_both_again(instance: Instance) -> None:
    """What an open receive brings after the order is given back; the faces in progress are answered."""
    tier = instance.tier
    faces_queue = tier.settings.faces_queue
    os.mkfifo(tier.model_dir / fake.HELD)
    worker = instance.start(FACEREC_EDGE__ENABLED="true", FACEREC_WORKER__CONCURRENCY="1")
    held = tier.send_faces(fake.HOLD)
    with (tier.model_dir / fake.HELD).open("wb"):
        instance.order_drain()
        assert instance.wait_until(WorkerState.DRAINING).held == 1
        others = [send() for _ in range(3) for send in (tier.send_faces, tier.upload)]
    assert instance.wait_until(WorkerState.DRAINED).held == 0
    assert (instance.queue(), instance.queue(faces_queue)) == ((3, 0), (3, 0))
    (answer,) = tier.answers(held)
    assert (answer.outcome, answer.attempt) == (Outcome.UNKNOWN, 1)
    instance.reports.cancel_drain(ID)
    assert {answer.outcome for answer in tier.answers(*others)} == {Outcome.UNKNOWN}
    assert worker.stop() == 0
    assert (instance.queue(), instance.queue(faces_queue)) == ((0, 0), (0, 0))


def test_no_task_is_lost_when_tasks_arrive_with_the_order(instance: Instance) -> None:
    """Each is done before the worker is drained, or still visible then; none is delivered twice."""
    tier = instance.tier
    instance.start(FACEREC_WORKER__REPORT_SECONDS="0.1")
    requests: list[RecognitionRequest] = []
    drained = threading.Event()

    def upload() -> None:
        while not drained.is_set():
            requests.append(tier.upload())

    for _ in range(3):
        drained.clear()
        uploader = threading.Thread(target=upload)
        uploader.start()
        done = instance.wait_until(WorkerState.READY).tasks_done
        instance.wait_for(lambda report, done=done: report.tasks_done > done)  # type: ignore[misc]  # a default
        instance.order_drain()
        report = instance.wait_until(WorkerState.DRAINED)
        assert instance.queue()[1] == 0
        drained.set()
        uploader.join(SECONDS)
        assert instance.queue() == (len(requests) - report.tasks_done, 0)
        instance.reports.cancel_drain(ID)
    assert {answer.attempt for answer in tier.answers(*requests)} == {1}


def test_drained_worker_has_no_open_receive(instance: Instance) -> None:
    """An open long poll would take what is sent now."""
    instance.start(FACEREC_WORKER__REPORT_SECONDS="0.05")
    for sent in range(3):
        instance.wait_until(WorkerState.READY)
        instance.order_drain()
        assert instance.wait_until(WorkerState.DRAINED).tasks_done == sent
        request = instance.tier.upload()
        instance.wait_for_reports(2)
        assert instance.queue() == (1, 0)
        instance.reports.cancel_drain(ID)
        instance.tier.answers(request)


def test_worker_with_an_order_to_drain_takes_no_task_at_its_start(instance: Instance) -> None:
    """The answer to its first report has the order."""
    instance.order_drain()
    request = instance.tier.upload()
    instance.start()
    instance.wait_until(WorkerState.DRAINED)
    instance.wait_for_reports(2)
    assert instance.queue() == (1, 0)
    instance.reports.cancel_drain(ID)
    (answer,) = instance.tier.answers(request)
    assert answer.attempt == 1


def test_worker_works_without_the_fleet_table(instance: Instance) -> None:
    """It reports once the table exists."""
    tier = instance.tier
    name = f"{tier.settings.prefix}-late"
    worker = instance.start(FACEREC_NAMES__FLEET_TABLE=name)
    worker.wait_for("fleet_table_unreachable", "facerec provision")
    tier.answers(tier.upload())
    provisioning._table(tier.clients, "FLEET_TABLE", name, ("kind", "item"))
    worker.wait_for("fleet_table_reachable_again")
    instance.reports = DynamoWorkerReports(tier.clients, name)
    assert instance.wait_until(WorkerState.READY).tasks_done == 1
    assert sum("fleet_table_unreachable" in line for line in worker.lines) == 1


class _Metadata(BaseHTTPRequestHandler):
    """EC2's instance metadata service, version 2, with notices only."""

    notices: dict[str, str]

    def do_PUT(self) -> None:
        """Hand out the token."""
        self._answer(HTTPStatus.OK, "the token")

    def do_GET(self) -> None:
        """Answer who has the token."""
        if self.headers["X-aws-ec2-metadata-token"] != "the token":
            self._answer(HTTPStatus.UNAUTHORIZED, "")
        elif self.path in self.notices:
            self._answer(HTTPStatus.OK, self.notices[self.path])
        else:
            self._answer(HTTPStatus.NOT_FOUND, "")

    def log_message(self, *_args: object) -> None:
        """Say nothing."""

    def _answer(self, status: HTTPStatus, body: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())


@pytest.fixture
def metadata() -> Iterator[tuple[str, dict[str, str]]]:
    """The service's address, and its notices by path."""
    notices: dict[str, str] = {}
    handler = type("Metadata", (_Metadata,), {"notices": notices})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", notices
        server.shutdown()
        thread.join()


def test_worker_drains_after_a_spot_notice(instance: Instance, metadata: tuple[str, dict[str, str]]) -> None:
    """Without an order; a recommendation alone is only logged."""
    url, notices = metadata
    notices["/latest/meta-data/events/recommendations/rebalance"] = '{"noticeTime": "2026-03-01T08:22:00Z"}'
    worker = instance.start(FACEREC_WORKER__METADATA_URL=url)
    worker.wait_for("rebalance_recommended", "08:22")
    assert instance.wait_until(WorkerState.READY).interrupted is False
    notices["/latest/meta-data/spot/instance-action"] = '{"action": "terminate", "time": "2026-03-01T08:24:00Z"}'
    assert instance.wait_until(WorkerState.DRAINED).interrupted is True
    worker.wait_for("spot_interruption", "08:24")
    instance.tier.upload()
    instance.wait_for_reports(2)
    assert instance.queue() == (1, 0)


def test_worker_works_without_the_metadata_service(instance: Instance) -> None:
    """It says so, and works."""
    worker = instance.start(FACEREC_WORKER__METADATA_URL="http://127.0.0.1:9")
    instance.tier.answers(instance.tier.upload())
    instance.wait_for(lambda report: report.tasks_done == 1)
    worker.wait_for("instance_metadata_unreachable")
