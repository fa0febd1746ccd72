"""Flower over SQS: a real worker (with the fake engine) and the real `facerec flower`, seen through its HTTP API."""

import json
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from facerec.messages import FACES_TASK_NAME, TASK_NAME
from facerec.processes.addresses import poll_until
from facerec.settings import Settings
from tests.fakes import engine as fake
from tests.support.emulated import EmulatedAws
from tests.support.processes import Command, facerec
from tests.support.workers import Worker, WorkerTier

_LONG_SECONDS = 60.0
_QUICK = {
    "FACEREC_EDGE__ENABLED": "true",
    "FACEREC_EVENTS__HEARTBEAT_SECONDS": "0.5",
    "FACEREC_EVENTS__WINDOW_SECONDS": "0.1",
    "FACEREC_FLOWER__PORT": "0",
}

_LONG_HIDDEN = {"FACEREC_WORKER__TASK_TIME_LIMIT_SECONDS": "20", "FACEREC_QUEUE__VISIBILITY_TIMEOUT_SECONDS": "30"}
"""Long enough that no task is delivered twice on a slow machine."""


class Flower(Command):
    """A running `facerec flower`, and a client that knows its password."""

    def __init__(self, environ: dict[str, str]) -> None:
        super().__init__(facerec("flower"), environ)
        address = re.match(r"Flower on (http://127\.0\.0\.1:\d+), user facerec", self.printed())
        assert address, self.output
        self.url = address[1]
        password = environ.get("FACEREC_FLOWER__PASSWORD")
        if password is None:
            made = re.match(r"password (\S+) ", self.printed())
            assert made
            password = made[1]
        self.password = password
        self._client = httpx.Client(base_url=self.url, auth=("facerec", password), timeout=_LONG_SECONDS)

    def get(self, path: str) -> Any:
        """The JSON of a page."""
        return self._client.get(path).raise_for_status().json()

    def text(self, path: str) -> str:
        """A page."""
        return self._client.get(path).raise_for_status().text

    def states(self) -> dict[str, str]:
        """The state of each task by the file's name."""
        return {task["args"]: task["state"] for task in self.get("/api/tasks").values()}

    def lengths(self) -> dict[str, int | None]:
        """How many messages each queue has."""
        return {row["name"]: row["messages"] for row in self.get("/api/queues/length")["active_queues"]}

    def alive(self) -> list[bool]:
        """Whether each worker is shown as online."""
        return list(self.get("/api/workers?status=true").values())

    def events(self) -> dict[str, float]:
        """How many events of our task there were of each type, by the metrics."""
        pattern = rf'flower_events_total{{task="{TASK_NAME}",type="([a-z-]+)",.*}} (\S+)'
        return {kind: float(count) for kind, count in re.findall(pattern, self.text("/metrics"))}

    def online(self, worker: str) -> float:
        """Whether a worker is online, by the metrics."""
        found = re.search(rf'^flower_worker_online{{worker="{worker}"}} (\S+)$', self.text("/metrics"), re.MULTILINE)
        assert found
        return float(found[1])

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, and return the exit status."""
        self._client.close()
        return super().stop(number)


@pytest.fixture
def tier(emulator: EmulatedAws, fresh: Settings, tmp_path: Path) -> WorkerTier:
    """Resources of this test's own."""
    tier = WorkerTier(emulator, fresh, tmp_path)
    tier.environ |= _QUICK
    return tier


@pytest.fixture
def start(tier: WorkerTier) -> Iterator[Callable[..., Any]]:
    """Starts workers and Flowers; whatever still runs at the end is killed."""
    workers: list[Worker] = []
    flowers: list[Flower] = []

    def start(kind: type, **variables: str) -> Any:
        if kind is Worker:
            workers.append(Worker(tier.environ | variables))
            return workers[-1]
        flowers.append(Flower(tier.environ | variables))
        return flowers[-1]

    yield start
    for worker in workers:
        worker.stop(signal.SIGKILL)
    for flower in flowers:
        flower.stop(signal.SIGKILL)


def until(condition: Callable[[], bool]) -> None:
    """Wait until Flower shows it, which takes a window of events and a receive."""
    assert poll_until(condition, _LONG_SECONDS)


def test_flower_shows_a_live_system(tier: WorkerTier, start: Callable[..., Any], tmp_path: Path) -> None:
    """It shows workers, tasks, queues and metrics, also after its restart and a worker's death."""
    settings = tier.settings
    worker = start(Worker, **_LONG_HIDDEN)
    kept = {"FACEREC_FLOWER__DATABASE": str(tmp_path / "flower" / "tasks"), "FACEREC_FLOWER__PASSWORD": "correct horse"}
    flower = start(Flower, **kept)
    requests: list[Any] = [tier.upload(b"x" * size, f"{size}.jpg") for size in range(1, 11)]
    requests.append(tier.upload(fake.EXIT, "<poison>.jpg"))
    tier.clients.sqs.send_message(QueueUrl=tier.url(settings.request_queue), MessageBody=_no_request())
    tier.answers(*requests, frame := tier.send_faces(filename="frame.jpg"))

    # Tasks: what was sent, how it ended, how long it took.
    until(lambda: sum(state in {"SUCCESS", "FAILURE"} for state in flower.states().values()) == 13)
    tasks = flower.get("/api/tasks")
    for request, task_name in zip([frame, *requests[:10]], [FACES_TASK_NAME, *[TASK_NAME] * 10], strict=True):
        task = tasks[str(request.request_id)]
        assert (task["name"], task["args"], task["state"], task["result"]) == (
            task_name,
            request.filename,
            "SUCCESS",
            "'unknown'",
        )
        assert task["runtime"] > 0
        assert task["received"] <= task["started"] <= task["succeeded"]
    assert 'data-column="started"' in flower.text("/tasks")
    poison, unreadable = tasks[str(requests[10].request_id)], tasks["not-ours"]
    assert (poison["args"], poison["state"]) == ("<poison>.jpg", "FAILURE")
    assert "the engine ended" in poison["exception"]
    assert unreadable["state"] == "FAILURE"
    assert "unreadable RecognitionRequest" in unreadable["exception"]

    # Workers.
    until(lambda: flower.alive() == [True])
    ((name, known),) = flower.get("/api/workers").items()
    assert name in flower.text("/workers")
    assert name in flower.text(f"/worker/{name}")
    assert [queue["name"] for queue in known["active_queues"]] == [settings.request_queue, settings.faces_queue]

    # Queues: the two that failed wait for an operator.
    until(lambda: flower.lengths()[settings.request_queue] == 0)
    assert flower.lengths()[settings.dead_letter_queue] == 2
    assert set(flower.lengths()) >= {settings.faces_queue, settings.response_queue, settings.events_queue}
    assert settings.dead_letter_queue in flower.text("/broker")

    # Metrics.
    until(lambda: flower.events().get("task-sent") == 11)  # their sender gathers them for longer than the worker
    assert flower.events().items() >= {"task-succeeded": 10, "task-failed": 2}.items()
    assert "<dt>Sent</dt>" in flower.text(f"/task/{requests[0].request_id}")
    assert flower.online(name) == 1

    # All of it only with the password, and nothing that is ordered here.
    for path in ("/", "/tasks", "/api/workers", "/api/tasks", "/api/queues/length", "/metrics", f"/worker/{name}"):
        assert httpx.get(flower.url + path).status_code == 401
        assert httpx.get(flower.url + path, auth=("facerec", "wrong")).status_code == 401
    refused = httpx.post(f"{flower.url}/api/worker/shutdown/{name}", auth=("facerec", flower.password))
    assert (refused.status_code, refused.text) == (403, "Read only mode is enabled")
    assert "correct horse" not in flower.output

    # A restart: the tasks are still there, the worker is so again, and new tasks are shown.
    assert flower.stop() == 0
    missed = tier.upload(b"x", "missed.jpg")
    tier.answers(missed)
    flower = start(Flower, **kept)
    until(lambda: flower.states().get("missed.jpg") == "SUCCESS")
    assert flower.states()["3.jpg"] == "SUCCESS"
    until(lambda: flower.alive() == [True])

    # A death: nothing is said, so the worker is offline when its heartbeats have stayed away.
    worker.process.kill()
    until(lambda: flower.alive() == [False])
    assert flower.online(name) == 0
    assert flower.stop() == 0


def test_flower_ends_when_its_tasks_cannot_be_saved(start: Callable[..., Any], tmp_path: Path) -> None:
    """It logs one line when its folder is gone."""
    folder = tmp_path / "flower"
    flower = start(Flower, FACEREC_FLOWER__DATABASE=str(folder / "tasks"))
    until(lambda: httpx.get(f"{flower.url}/healthcheck").status_code == 200)
    folder.rename(tmp_path / "elsewhere")
    assert flower.stop() == 0
    assert flower.output.count("tasks_not_saved") == 1
    assert "Traceback" not in flower.output


def test_flower_without_password_serves_this_machine_only(tier: WorkerTier) -> None:
    """No page of another site, and no name that is made to point here, in any handler."""
    with Command(facerec("flower"), tier.environ | {"FACEREC_FLOWER__AUTH": "none"}) as flower:
        address = re.match(r"Flower on (http://127\.0\.0\.1:\d+), without a password", flower.printed())
        assert address, flower.output
        foreign = [{"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}]
        with httpx.Client(base_url=address[1], trust_env=False) as client:
            for path in ("/tasks", "/metrics", "/healthcheck", "/static/css/flower.css", "/nowhere"):
                assert [client.get(path, headers=sent).status_code for sent in foreign] == [421, 403, 403]
            until(lambda: client.get("/healthcheck").status_code == 200)
            assert client.get("/tasks").status_code == 200


def test_generated_password_is_printed_once(tier: WorkerTier, start: Callable[..., Any]) -> None:
    """It is printed, not logged. After a kill the next Flower learns of the worker from its heartbeats."""
    worker = start(Worker)
    first = start(Flower)
    until(lambda: first.alive() == [True])
    first.stop(signal.SIGKILL)
    second = start(Flower)
    assert second.password != first.password
    until(lambda: second.alive() == [True])
    assert all(flower.password not in flower.output for flower in (first, second))

    # A clean end is shown without waiting for heartbeats to stay away, and after the last task.
    tier.answers(tier.upload(b"x", "last.jpg"))
    assert worker.stop() == 0
    until(lambda: second.alive() == [False])
    assert second.states()["last.jpg"] == "SUCCESS"


def test_worker_works_without_flower_or_its_queue(tier: WorkerTier, start: Callable[..., Any]) -> None:
    """It logs one warning, and sends its last events when the queue is there."""
    tier.clients.sqs.delete_queue(QueueUrl=tier.url(tier.settings.events_queue))
    worker = start(Worker)
    worker.wait_for("events_queue_unreachable", tier.settings.events_queue)
    tier.answers(*(tier.upload(b"x" * size, f"{size}.jpg") for size in range(1, 21)))
    tier.clients.sqs.create_queue(QueueName=tier.settings.events_queue)
    worker.wait_for("events_queue_reachable_again")
    assert worker.stop() == 0
    warnings = [line for line in worker.lines if json.loads(line)["level"] != "info"]
    assert len(warnings) == 1
    flower = start(Flower)
    until(lambda: flower.states().get("20.jpg") == "SUCCESS")


def _no_request() -> str:
    """A task whose argument is no request."""
    return json.dumps(
        {
            "headers": {"task": TASK_NAME, "id": "not-ours"},
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "properties": {"delivery_info": {}, "body_encoding": None},
            "body": '[["no request"], {}, {}]',
        }
    )
